# SPDX-License-Identifier: Apache-2.0
"""Runs operators behind operators: each result of one is a step of those that take it.

Results that came to the controller are folded here. Those whose parts lie at staging nodes are folded there, by Dask's
tasks, one for each result and node; a chained operator's states so stay where the cells are. All stages of an operator
are told of every result, so that their windows end together. What they yield are windows and rows like those of staging
nodes, which the sink stores and passes on to the next operators.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from insitu.controller.gather import Rows, Window
from insitu.model import Array, Step, Variable
from insitu.operator import Operator
from insitu.staging import chaining, tasks
from insitu.staging.assembler import Blocks, ReadyStep
from insitu.staging.executors import Cluster
from insitu.staging.folds import OperatorFolds, Yield
from insitu.staging.merging import Place, Recipe
from insitu.wire.messages import Entry, Held

#: A step of which nothing is folded here, but which is not missing: its parts are folded elsewhere.
_ELSEWHERE: Blocks = {0: {}}


@dataclass(slots=True)
class _Running:
    """One chained operator: its states here, and those at places where parts of its source's results lie."""

    operator: Operator
    names: tuple[str, ...]
    here: OperatorFolds
    there: dict[tuple[Place, ...], Any] = field(default_factory=dict)
    incomplete: list[int] = field(default_factory=list)
    steps: int = 0


class Chains:
    """The operators that take results, `operators` with their sources' names in `source_of`."""

    def __init__(self, operators: Mapping[str, Operator], source_of: Mapping[str, str], cluster: Cluster) -> None:
        self._cluster = cluster
        self._running = {
            name: _Running(
                operators[name],
                tuple(wanted.partition(".")[2] for wanted in operators[name].inputs),
                OperatorFolds(name, operators[name]),
            )
            for name in source_of
        }
        self._source_of = source_of

    def takers(self, source: str, results: Mapping[str, Variable]) -> list[str]:
        """Return the operators that take any of these results of `source`."""
        return [
            name
            for name, of in self._source_of.items()
            if of == source and all(wanted in results for wanted in self._running[name].names)
        ]

    def fold(
        self, name: str, step: Step, recipe: Recipe, row: Mapping[str, Array] | None, complete: bool
    ) -> list[Window | Rows]:
        """Fold a result that is here, `row`; of a window without any step it is ``None``."""
        blocks = {} if row is None else chaining.whole_blocks(recipe, row, self._running[name].names)
        return self._fold(name, ReadyStep(step, blocks, {}), complete and row is not None)

    def fold_there(
        self, name: str, step: Step, recipe: Recipe, done: tasks.Done, complete: bool
    ) -> list[Window | Rows]:
        """Fold a result whose parts lie at staging nodes."""
        running = self._running[name]
        if not any(recipe.has_cells(recipe.described[result]) for result in running.names):
            which = f"Operator '{name}', result {step.sequence} of '{recipe.name}'"
            values = self._cluster.fetch(which, _values, done.parts[0], running.names)
            return self.fold(name, step, recipe, values, complete)
        for places, part in zip(done.places, done.parts, strict=True):
            stage = running.there.get(places) or chaining.Stage(running.here.blank())
            running.there[places] = self._cluster.task(chaining.advance, stage, step, recipe, running.names, part)
        return self._fold(name, ReadyStep(step, _ELSEWHERE, {}), complete)

    def break_off(self, name: str) -> None:
        """Note that results are missing from here on."""
        running = self._running[name]
        running.incomplete.append(max(0, running.steps - 1))

    def finish(self, name: str) -> list[Window | Rows]:
        """Return the window that is still open."""
        running = self._running[name]
        running.there = {
            places: self._cluster.task(chaining.finish, stage, running.steps) for places, stage in running.there.items()
        }
        return list(self._yields(name, list(running.here.finish(running.steps))))

    def _fold(self, name: str, ready: ReadyStep, complete: bool) -> list[Window | Rows]:
        running = self._running[name]
        running.steps = ready.step.sequence + 1
        if not complete:
            running.incomplete.append(ready.step.sequence)
        return list(self._yields(name, list(running.here.fold([ready]))))

    def _yields(self, name: str, done: Sequence[Yield]) -> Iterator[Window | Rows]:
        """Put together what this place of work and the others have of a window."""
        running = self._running[name]
        for item in done:
            held, others = [], []
            for places, stage in list(running.there.items()):
                told = self._cluster.fetch(
                    f"Operator '{name}', window {item.window}", chaining.told, stage, item.window
                )
                if told and running.operator.keeps_steps:
                    others += self._cluster.fetch(f"Operator '{name}'", _entries, stage, item.window)
                taken = self._cluster.task(chaining.taken, stage, item.window)
                if told and not running.operator.keeps_steps:
                    held.append(self._held(name, item, taken, told))
                running.there[places] = self._cluster.task(chaining.left, stage, item.window, taken)
            if running.operator.keeps_steps:
                if entries := [*item.entries, *others]:
                    yield Rows(name, (_merged(running.operator, entries),))
                continue
            complete = not any(item.since <= sequence <= item.upto for sequence in running.incomplete)
            running.incomplete = [sequence for sequence in running.incomplete if sequence > item.since]
            yield Window(
                name, item.window, item.since, item.upto, item.full, item.entries,
                tuple(enumerate(held)), complete=complete,
            )  # fmt: skip

    def _held(self, name: str, item: Yield, taken: Any, told: Sequence[tuple[Place, Entry]]) -> Held:
        key = self._cluster.hold(taken)
        one = told[0][1]
        places = tuple(place for place, _ in told)
        return Held(
            name, 0, item.window, item.since, item.upto, item.full,
            key, 0, one.steps, one.first, one.last, one.time, places,
        )  # fmt: skip


def _merged(operator: Operator, entries: Sequence[Entry]) -> Entry:
    state = operator.init()
    for entry in entries:
        state = operator.merge(state, entry.state)
    first = entries[0]
    return Entry(first.key, 1, first.first, first.last, first.time, None, state)


def _values(done: Sequence[Any], names: Sequence[str]) -> dict[str, Array]:
    return {name: done[0][2][name] for name in names}


def _entries(stage: chaining.Stage, window: int) -> list[Entry]:
    return list(stage.windows.get(window, ()))
