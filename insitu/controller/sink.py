# SPDX-License-Identifier: Apache-2.0
"""Turns complete windows and rows into results and has them stored, in a thread of its own.

Small states are merged here; large ones stay where they are, and Dask merges and writes them there. The thread keeps
the disk's delays away from the conversation with ranks and staging nodes. Rows that wait are written together.

An operator whose results cannot be made or stored is given up with its reason; the others go on.
"""

import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from insitu.controller.directory import Journal
from insitu.controller.gather import Rows, Window
from insitu.errors import ConfigError, Problem
from insitu.model import Variable
from insitu.operator import Operator
from insitu.pipeline import Pipeline
from insitu.results import Provenance, Result
from insitu.results.store import ResultStore
from insitu.staging.executors import Cluster
from insitu.staging.merging import Part, Recipe
from insitu.wire.messages import Entry, Event, Held


class Sink:
    """Stores the results of one run at `path`. All but `close` return at once."""

    def __init__(
        self, path: Path, pipeline: Pipeline, cluster: Cluster, attrs: Mapping[str, Any], journal: Journal
    ) -> None:
        self.interrupted = False
        self.failures: dict[str, str] = {}
        #: Operators that cannot fold what is published: mistakes of the configuration, with file and line.
        self.unfit: list[Problem] = []
        self.rows_of: dict[str, int] = dict.fromkeys(pipeline.operators, 0)
        self._pipeline = pipeline
        self._cluster = cluster
        self._attrs = attrs
        self._journal = journal
        self._path = path
        self._store = ResultStore.create(path, attrs)
        self._recipes: dict[str, Recipe] = {}
        self._rows: dict[str, list[Entry]] = {}
        self._lock = threading.Lock()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="insitu-sink")

    @property
    def rows(self) -> int:
        """How many rows are stored, of all operators."""
        return sum(self.rows_of.values())

    def published(self, offered: Mapping[str, Variable], sent: Mapping[str, Variable]) -> None:
        """Say what ranks put so far, and what arrived of it: what cannot be folded is told of now, not at the end."""
        self._writer.submit(self._declare, dict(offered), dict(sent))

    def put(self, done: Window | Rows, steps: int) -> None:
        """Store a complete window, or rows, of a run that has had `steps` steps so far."""
        if isinstance(done, Window):
            self._writer.submit(self._store_window, done, steps)
        elif done.operator in self._pipeline.stored and done.operator not in self.failures:
            self._put_rows(done)

    def _put_rows(self, done: Rows) -> None:
        with self._lock:
            waiting = self._rows.setdefault(done.operator, [])
            waiting += done.entries
            if len(waiting) > len(done.entries):
                return  # somebody is on the way to write them already
        self._writer.submit(self._guarded, done.operator, partial(self._write_rows, done.operator))

    def release(self, held: Held) -> None:
        """Let go of large states that nobody will merge."""
        self._cluster.release([held.key])

    def close(self) -> None:
        """Wait until all that was put is stored, and end the thread. May be called twice."""
        self._writer.shutdown(wait=True)

    def _declare(self, offered: dict[str, Variable], sent: dict[str, Variable]) -> None:
        """Make room in the store for every operator whose variables are there."""
        self.unfit = []
        try:
            self._pipeline.describe(offered)
        except ConfigError as error:
            self.unfit = error.problems
        for name in self._pipeline.stored:
            operator = self._pipeline.operators[name]
            if name not in self._recipes and all(wanted in sent for wanted in operator.inputs):
                self._guarded(name, partial(self._open, name, operator, sent))

    def _open(self, name: str, operator: Operator, variables: dict[str, Variable]) -> None:
        self._recipes[name] = Recipe.of(name, operator, variables)
        self._store.declare(name, operator, variables, self._attrs)

    def _store_window(self, window: Window, steps: int) -> None:
        """Store a window; one that is not stored must not stay at the nodes, where it would leave no room to fold."""
        if window.operator in self._pipeline.stored:
            self._guarded(window.operator, partial(self._write_window, window, steps))
        if window.operator not in self._pipeline.stored or window.operator in self.failures:
            self._cluster.release([held.key for _, held in window.held])

    def _guarded(self, operator: str, work: Callable[[], None]) -> None:
        """Do a piece of work for an operator; what goes wrong there ends that operator only."""
        if operator in self.failures:
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001 - an operator is foreign code; journal and report tell
            self.failures[operator] = f"{type(error).__name__}: {error}"
            details = {"operator": operator, "traceback": traceback.format_exc()}
            self._journal.write("controller", Event("error", "results-lost", self.failures[operator], details))

    def _write_rows(self, operator: str) -> None:
        with self._lock:
            entries = self._rows.pop(operator, [])
        recipe = self._recipes[operator]
        results = [
            Result(
                operator,
                Provenance(entry.first, entry.first, entry.last, entry.time, 1, 0, complete=True),
                recipe.assemble([((), (), entry.state)]),
            )
            for entry in entries
        ]
        self._store.append(results)
        self.rows_of[operator] += len(results)

    def _write_window(self, window: Window, steps: int) -> None:
        recipe = self._recipes.get(window.operator)
        if recipe is None:
            return  # no variable of it ever came whole, which `unfit` or the steps' own account explains
        provenance = self._provenance(recipe.operator, window, steps)
        small: list[Part] = [(*(entry.place or ((), ())), entry.state) for entry in window.entries]
        if window.held:
            row = self.rows_of[window.operator]
            self._cluster.write(recipe, self._path, window.window, row, [held for _, held in window.held], small)
            self._store.publish(window.operator, [provenance])
        elif small:
            self._store.append([Result(window.operator, provenance, recipe.assemble(small))])
        else:
            self._store.publish(window.operator, [provenance])
        self.rows_of[window.operator] += 1

    def _provenance(self, operator: Operator, window: Window, steps: int) -> Provenance:
        """Say what went into a window, and what of it is missing."""
        folded = max((part.steps for part in window.parts), default=0)
        length = steps if operator.window == "run" else operator.window
        over = min(length, steps - window.window * length)
        cut_short = self.interrupted if operator.window == "run" else over < length
        return Provenance(
            index=window.window,
            first_step=min((part.first for part in window.parts), default=-1),
            last_step=max((part.last for part in window.parts), default=-1),
            time=max((part.time for part in window.parts), default=float("nan")),
            steps=folded,
            dropped=over - folded,
            complete=window.complete and not cut_short and folded == over,
        )
