# SPDX-License-Identifier: Apache-2.0
"""Turns complete windows and rows into results and has them stored, in a thread of its own.

Small states are merged here; large ones stay where they are, and Dask merges and writes them there. The thread keeps
the disk's delays away from the conversation with ranks and staging nodes. Rows that come within a second are written
together, and can be read that much later. Each result goes on at once to the operators that take it
(`insitu.controller.chains`), whose windows come back here.

An operator whose results cannot be made or stored is given up with its reason; the others go on.
"""

import math
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from insitu.config.function import Function
from insitu.controller.backlog import Backlog
from insitu.controller.chains import Chains
from insitu.controller.decisions import Decisions, observed
from insitu.controller.directory import Journal
from insitu.controller.followers import Followers
from insitu.controller.gather import Rows, Window
from insitu.errors import ConfigError, Problem
from insitu.learner import Learner
from insitu.model import Array, Step, Variable
from insitu.operator import SeriesOperator, State
from insitu.pipeline import Pipeline, series_of
from insitu.results import Provenance, Result
from insitu.results.store import ResultStore
from insitu.staging.executors import Cluster
from insitu.staging.merging import Part, Recipe, Series
from insitu.staging.tasks import Done
from insitu.steering.lockstep import Observation
from insitu.steering.series import Reference
from insitu.wire.messages import Entry, Event, Held

if TYPE_CHECKING:
    from insitu.controller.functions import Functions
    from insitu.controller.tracing import Traces

#: Values of single steps, in order.
OfSteps = Sequence[tuple[Step, Mapping[str, Array]]]


class Sink:
    """Stores the results of one run at `path`. All but `close` return at once."""

    def __init__(
        self,
        path: Path,
        pipeline: Pipeline,
        cluster: Cluster,
        attrs: Mapping[str, Any],
        journal: Journal,
        decisions: Decisions | None = None,
        traces: "Traces | None" = None,
    ) -> None:
        self.interrupted = False
        self.failures: dict[str, str] = {}
        #: Operators that cannot fold what is published: mistakes of the configuration, with file and line.
        self.unfit: list[Problem] = []
        self.rows_of: dict[str, int] = dict.fromkeys(pipeline.config.operators, 0)
        self._pipeline = pipeline
        self._cluster = cluster
        self._attrs = attrs
        self._journal = journal
        self._decisions = decisions
        self._traces = traces
        self._path = path
        self._store = ResultStore.create(path, attrs)
        self._chains = Chains(pipeline.operators, pipeline.chained, cluster)
        functions = [name for name, operator in pipeline.operators.items() if isinstance(operator, Function)]
        steered = decisions.sources if decisions else ()
        self._wanted = {*pipeline.shown, *pipeline.chained.values(), *functions, *steered}
        self.followers = Followers(list(pipeline.operators), self._wanted)
        self._learnt: dict[str, dict[str, Variable]] = {}
        self._losses: dict[str, float] = {}
        self._inputs: dict[str, dict[str, Variable]] = {}
        self._recipes: dict[str, Recipe] = {}
        self._series: dict[str, dict[str, Variable]] = {}
        self._memories: dict[str, State] = {}
        self._rows: dict[str, list[Entry]] = {}
        self._backlog = Backlog(self._store, self._attempt, self._stored_now)
        self._lock = threading.Lock()
        self._closing = False
        self._stopped: set[str] = set()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="insitu-sink")
        if functions:
            self._writer.submit(lambda: self._functions)  # while the staging nodes start, and not in the first window

    @property
    def rows(self) -> int:
        """How many rows are stored, of all operators."""
        return sum(self.rows_of.values())

    def row_bytes(self, name: str) -> int:
        """Return how many bytes one row of an operator's results has; 0 while that is not known."""
        recipe = self._recipes.get(name)
        described = recipe.described if recipe is not None else self._learnt.get(name, {})
        return sum(each.dtype.itemsize * math.prod(each.shape or ()) for each in described.values())

    def loss_of(self, name: str) -> dict[str, float]:
        """Return the newest finite `loss` of a learner, where there is one."""
        return {"loss": self._losses[name]} if name in self._losses else {}

    def published(self, offered: Mapping[str, Variable], sent: Mapping[str, Variable]) -> None:
        """Say what ranks put so far, and what arrived of it: what cannot be folded is told of now, not at the end."""
        self._writer.submit(self._declare, dict(offered), dict(sent))

    def put(self, done: Window | Rows) -> None:
        """Store a complete window, or rows."""
        if isinstance(done, Window) and done.operator in self._pipeline.learners:
            self._writer.submit(self._guarded, done.operator, partial(self._write_learnt, done))
        elif isinstance(done, Window):
            self._writer.submit(self._store_window, done)
        elif done.operator in self._wanted and done.operator not in self.failures:
            self._put_rows(done)

    def _put_rows(self, done: Rows) -> None:
        with self._lock:
            waiting = self._rows.setdefault(done.operator, [])
            waiting += done.entries
            if len(waiting) > len(done.entries):
                return  # somebody is on the way to write them already
        self._writer.submit(self._guarded, done.operator, partial(self._write_rows, done.operator))

    def turn(self) -> None:
        """Store what has waited for more of its kind; to be called now and then."""
        if self._backlog.is_due():
            self._writer.submit(self._backlog.store)

    def stopped(self, operators: Iterable[str]) -> None:
        """Say, before `close`, which operators were stopped elsewhere: those behind them lack results, and who decides
        by them need not wait. May be said again."""
        self._stopped.update(operators)
        if self._decisions is not None:
            for operator in operators:
                self._decisions.fail(operator)

    def release(self, held: Held) -> None:
        """Let go of large states that nobody will merge."""
        self._cluster.release([held.key])

    def close(self) -> None:
        """Wait until all that was put is stored and judged, with what chained operators have open; end the threads.

        May be called twice.
        """
        if not self._closing:
            self._closing = True
            for name in self._pipeline.chained:
                self._writer.submit(self._finish, name)
            self._writer.submit(self._backlog.store)
        self._writer.shutdown(wait=True)
        if self._decisions is not None:
            self._decisions.close()

    def _declare(self, offered: dict[str, Variable], sent: dict[str, Variable]) -> None:
        """Make room in the store for every operator whose variables are there."""
        self.unfit = []
        try:
            self._pipeline.describe(offered)
        except ConfigError as error:
            self.unfit = error.problems
        for name, operator in self._pipeline.folded.items():
            here = all(each in sent for each in operator.inputs)
            if isinstance(operator, Function):
                self._inputs[name] = {each: sent[each] for each in operator.inputs} if here else {}
                self._open_takers(name, operator.yielded)
            elif name in self._wanted and name not in self._recipes and here:
                self._guarded(name, partial(self._open, name, sent))
        for name, learner in self._pipeline.learners.items():
            if name not in self._learnt and all(each in sent for each in learner.needs):
                self._guarded(name, partial(self._open_learner, name, learner, sent))
        for name in self._pipeline.stored:
            self._guarded(name, self._store.show)  # the first does it, for all; where that fails, it fails for each
        if self._decisions is not None:
            described = {**{name: recipe.described for name, recipe in self._recipes.items()}, **self._learnt}
            self._decisions.describe(
                {name: each for name, each in described.items() if name in self._decisions.sources}
            )
            self.unfit = [*self.unfit, *self._decisions.problems]

    def _open(self, name: str, variables: Mapping[str, Variable]) -> None:
        """Make room for the results of an operator over these variables, and of those that take them."""
        operator, stored = self._pipeline.operators[name], name in self._pipeline.stored
        inputs = {wanted: variables[wanted] for wanted in operator.inputs}
        recipe = self._recipes[name] = Recipe.of(name, operator, inputs)
        if stored:
            self._store.declare(name, operator, inputs, self._attrs, show=False)
        series: dict[str, Variable] = {}
        if isinstance(operator, SeriesOperator):
            series = self._series[name] = operator.describe_series(inputs)
            if stored:
                self._store.declare_group(series_of(name), "step", operator, series, self._attrs, show=False)
        self._open_takers(name, {**recipe.described, **series})

    def _open_takers(self, name: str, yielded: Mapping[str, Variable]) -> None:
        """Make room for the results of those that take what this operator yields."""
        results = {f"{name}.{key}": each.renamed(f"{name}.{key}") for key, each in yielded.items()}
        for taker in self._pipeline.takers(name):
            known = taker in self._recipes or taker not in self._wanted
            if not known and all(wanted in results for wanted in self._pipeline.operators[taker].inputs):
                self._guarded(taker, partial(self._open, taker, results))

    def _open_learner(self, name: str, learner: Learner, variables: Mapping[str, Variable]) -> None:
        """Make room for the rows of a learner."""
        self._learnt[name] = learner.describe({wanted: variables[wanted] for wanted in learner.needs})
        if name in self._pipeline.stored:
            self._store.declare_group(name, "window", learner, self._learnt[name], self._attrs, show=False)

    def _store_window(self, window: Window) -> None:
        """Store a window; one that is not stored must not stay at the nodes, where it would leave no room to fold."""
        if window.operator in self._wanted:
            # Of what Dask's tasks do, these say themselves for which window it was.
            at = "" if window.held else f"in window {window.window}: "
            self._guarded(window.operator, partial(self._write_window, window), at)
        if window.operator not in self._wanted or window.operator in self.failures:
            self._cluster.release([held.key for _, held in window.held])

    def _guarded(self, operator: str, work: Callable[[], None], at: str = "") -> None:
        """Do a piece of work for an operator; what goes wrong there ends that operator only."""
        if operator not in self.failures:
            self._attempt(operator, work, at)

    def _attempt(self, operator: str, work: Callable[[], None], at: str = "") -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - an operator is foreign code; journal and report tell
            self.failures[operator] = f"{at}{type(error).__name__}: {error}"
            details = {"operator": operator, "traceback": traceback.format_exc()}
            self._journal.write("controller", Event("error", "results-lost", self.failures[operator], details))
            self.followers.withhold(operator, self.failures[operator])
            if self._decisions is not None:
                self._decisions.fail(operator)

    def _write_rows(self, operator: str) -> None:
        with self._lock:
            entries = self._rows.pop(operator, [])
        recipe = self._recipes[operator]
        rows = [recipe.assemble([((), (), entry.state)])[0] for entry in entries]
        steps = [Step(entry.key, entry.first, entry.time) for entry in entries]
        results = [_of_step(operator, step, row, complete=True) for step, row in zip(steps, rows, strict=True)]
        for result in results:
            self.followers.show(result)
        sources = self._sources(operator)
        if sources is not None:
            pairs = zip(results, steps, strict=True)
            self._observe([observed(result, step.sequence, step.sequence, sources) for result, step in pairs])
        self._merged(operator, {entry.key: entry.first for entry in entries})
        self._keep_steps(operator, operator, list(zip(steps, rows, strict=True)), complete=True)
        self._pass_on_steps(operator, recipe.described, list(zip(steps, rows, strict=True)), complete=True)

    def _keep_steps(self, operator: str, group: str, rows: OfSteps, complete: bool) -> None:
        """Store what belongs to single steps, at once or a little later."""
        if operator not in self._pipeline.stored or not rows:
            return
        self._keep(operator, group, [_of_step(group, step, arrays, complete) for step, arrays in rows])

    def _merged(self, operator: str, rows: Mapping[int, int]) -> None:
        """States are results now: of each its key, and the index of its row."""
        if self._traces is not None:
            self._traces.merged(operator, rows)

    def _stored_now(self, operator: str, indices: list[int]) -> None:
        if self._traces is not None:
            self._traces.stored(operator, indices)

    def _keep(self, operator: str, group: str, results: list[Result]) -> None:
        """Store rows, at once or a little later: a store takes many as quickly as one."""
        self._backlog.add(operator, group, results)
        if group == operator:
            self.rows_of[operator] += len(results)
        if self._backlog.is_due():
            self._backlog.store()

    def _write_learnt(self, window: Window) -> None:
        """Store a row of a learner, which is here as it is."""
        name, row = window.operator, window.entries[0].state
        arrays = {key: np.asarray(row[key], each.dtype) for key, each in self._learnt[name].items()}
        if "loss" in arrays and arrays["loss"].ndim == 0 and math.isfinite(arrays["loss"]):
            self._losses[name] = float(arrays["loss"])
        result, sources = Result(name, self._provenance(window), arrays), self._sources(name)
        if sources is not None:
            self._observe([observed(result, window.since, window.upto, sources)])
        if name in self._pipeline.stored:
            self._keep(name, name, [result])

    def _write_window(self, window: Window) -> None:
        operator = self._pipeline.operators[window.operator]
        if isinstance(operator, Function):
            self._call(operator, window)
            return
        recipe = self._recipes.get(window.operator)
        if recipe is None:
            return  # no variable of it ever came whole, which `unfit` or the steps' own account explains
        name, stored = recipe.name, recipe.name in self._pipeline.stored
        provenance = self._provenance(window)
        small: list[Part] = [(*(entry.place or ((), ())), entry.state) for entry in window.entries]
        memory = self._memories.get(name)
        series: Series = ([], memory or {})
        row = done = None
        if window.held:
            which = f"Operator '{name}', window {window.window}"
            path, held = self._path if stored and not recipe.small else None, [held for _, held in window.held]
            done = self._cluster.write(recipe, path, window.window, self.rows_of[name], held, small, memory)
            if stored and recipe.small:
                row = self._cluster.row(recipe, done, which)
            if done.series is not None:
                series = self._cluster.series(done, which)
        elif small:
            row, series = recipe.assemble(small, memory)
        self._merged(name, {window.window: window.window})
        self._show(window, provenance, recipe, row, done)
        if stored:
            self._keep(name, name, [Result(name, provenance, row or {})])
        steps, self._memories[name] = series
        self._keep_steps(name, series_of(name), steps, provenance.complete)
        self._pass_on_steps(name, self._series.get(name, {}), steps, provenance.complete)
        step = Step(window.window, provenance.last_step, provenance.time)
        for taker in self._chains.takers(name, recipe.described):
            if done is not None:
                fold = partial(self._chains.fold_there, taker, step, recipe, done, provenance.complete)
            else:
                fold = partial(self._chains.fold, taker, step, recipe, row, provenance.complete)
            self._guarded(taker, partial(self._store_all, fold))

    def _show(
        self, window: Window, provenance: Provenance, recipe: Recipe, row: Mapping[str, Array] | None, done: Done | None
    ) -> None:
        """Let rules and controllers look at a result, whose arrays are here or, finalised, at the nodes."""
        sources = self._sources(recipe.name)
        if row is not None:
            self.followers.show(Result(recipe.name, provenance, row))
        elif done is not None:
            self.followers.withhold(recipe.name, "its results are too large to leave the staging nodes")
        if sources is None:
            return
        if row is not None:
            result = Result(recipe.name, provenance, row)
            self._observe([observed(result, window.since, window.upto, sources)])
        elif done is not None:
            which = f"Operator '{recipe.name}', window {window.window}"
            numbers = self._cluster.numbers(recipe, done, sources, which)
            self._observe([Observation(recipe.name, window.since, window.upto, provenance, numbers)])

    def _sources(self, operator: str) -> frozenset[Reference] | None:
        """Return the numbers that rules need of a result; ``None`` where nobody looks at it."""
        return self._decisions.sources.get(operator) if self._decisions is not None else None

    def _observe(self, observations: list[Observation]) -> None:
        assert self._decisions is not None
        self._decisions.observe(observations)

    @cached_property
    def _functions(self) -> "Functions":
        """Made when it is first wanted: few runs call functions, and xarray and dask.array take a second to import."""
        from insitu.controller.functions import Functions

        return Functions(self._cluster)

    def _call(self, function: Function, window: Window) -> None:
        """Call a function of a window, and store what it returns; a window without any step is none."""
        name, held = window.operator, [held for _, held in window.held]
        provenance = self._provenance(window)
        try:
            if not held or not self._inputs.get(name):
                self._pass_on(name, function, provenance, None)
                return
            answer = self._functions.call(name, function, self._inputs[name], window.window, held)
            self._merged(name, {window.window: window.window})
            if answer.told.picture is not None:
                folder = self._path.parent / "figures"
                folder.mkdir(exist_ok=True)
                (folder / f"{name}-{window.window:06}.png").write_bytes(answer.told.picture)
                self.rows_of[name] += 1
            elif name in self._pipeline.stored:
                if answer.is_first:
                    self._store.declare_group(name, "window", function, answer.told.described, self._attrs)
                if answer.told.values is None:
                    answer.write(self._path, name, self.rows_of[name])
                self._keep(name, name, [Result(name, provenance, answer.told.values or {})])
            self._pass_on(name, function, provenance, answer.told.values)
        finally:
            self._cluster.release([each.key for each in held])

    def _pass_on(self, name: str, function: Function, provenance: Provenance, row: Mapping[str, Array] | None) -> None:
        """Have what a function returned for a window, be it nothing, folded by the operators that take it."""
        recipe = Recipe(name, function, function.yielded, ())
        step = Step(provenance.index, provenance.last_step, provenance.time)
        for taker in self._chains.takers(name, function.yielded):
            fold = partial(self._chains.fold, taker, step, recipe, row, provenance.complete)
            self._guarded(taker, partial(self._store_all, fold))

    def _pass_on_steps(self, name: str, described: Mapping[str, Variable], rows: OfSteps, complete: bool) -> None:
        """Have what belongs to single steps folded by the operators that take it."""
        recipe = Recipe(name, self._pipeline.operators[name], described, ())
        for taker in self._chains.takers(name, described):
            for step, arrays in rows:
                fold = partial(self._chains.fold, taker, step, recipe, arrays, complete)
                self._guarded(taker, partial(self._store_all, fold))

    def _finish(self, name: str) -> None:
        """Close what a chained operator has open; all that it takes is here."""
        source = self._pipeline.chained[name]
        if source in self.failures or source in self._stopped:
            self._stopped.add(name)
            self._chains.break_off(name)
        self._guarded(name, partial(self._store_all, partial(self._chains.finish, name)))

    def _store_all(self, fold: Callable[[], list[Window | Rows]]) -> None:
        """Store what a chained operator yields, now: its own takers are to follow in order."""
        for done in fold():
            if isinstance(done, Window):
                self._store_window(done)
            elif done.operator in self._wanted:
                with self._lock:
                    self._rows.setdefault(done.operator, []).extend(done.entries)
                self._guarded(done.operator, partial(self._write_rows, done.operator))

    def _provenance(self, window: Window) -> Provenance:
        """Say what went into a window, and what of it is missing."""
        folded = max((part.steps for part in window.parts), default=0)
        over = self._due(window) if window.since >= 0 else 0
        operator = self._pipeline.operators.get(window.operator)
        run = operator is not None and operator.window == "run"
        whole = not self.interrupted if run else window.full
        return Provenance(
            index=window.window,
            first_step=min((part.first for part in window.parts), default=-1),
            last_step=max((part.last for part in window.parts), default=-1),
            time=max((part.time for part in window.parts), default=float("nan")),
            steps=folded,
            dropped=over - folded,
            complete=window.complete and whole and folded == over,
        )

    def _due(self, window: Window) -> int:
        """How many steps go into a window of which nothing is missing."""
        if window.operator in self._pipeline.folded:
            return self._pipeline.steps_due(window.operator, window.since, window.upto)
        return window.upto - window.since + 1  # results of another operator, each of which is a step


def _of_step(group: str, step: Step, arrays: Mapping[str, Array], complete: bool) -> Result:
    return Result(group, Provenance(step.index, step.index, step.index, step.time, 1, 0, complete), arrays)
