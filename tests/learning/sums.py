# SPDX-License-Identifier: Apache-2.0
"""A learner that learns nothing: it says the sum of each step, one piece of work later, and has little room."""

import json
from collections import deque
from collections.abc import Mapping

import numpy as np

from insitu.errors import OperatorError
from insitu.learner import Learner, Learning, Row, Taken, Workspace
from insitu.model import Step, Variable


class Sums(Learner):
    """The sum of each step of a variable; fails at the step of index `fail_at`."""

    of: str
    room: int = 2
    fail_at: int | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.of,)

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        return {name: Variable(name, np.dtype("f8"), (), ()) for name in ("total", "cells", "starts")}

    def begin(self, inputs: Mapping[str, Variable], workspace: Workspace) -> "Summing":
        return Summing(self, workspace)


class Summing(Learning):
    def __init__(self, learner: Sums, workspace: Workspace) -> None:
        self._learner = learner
        self._path = workspace.checkpoint
        self._path.parent.mkdir(exist_ok=True)
        self._starts = json.loads(self._path.read_text()) + 1 if self._path.exists() else 1
        self._path.write_text(json.dumps(self._starts))
        self._waiting: deque[tuple[Step, float, int]] = deque()
        self._rows: list[Row] = []

    def take(self, taken: Taken) -> bool:
        if len(self._waiting) >= self._learner.room:
            return False
        if taken.step.index == self._learner.fail_at:
            raise OperatorError(f"no sums at step {taken.step.index}")
        field = taken.fields[self._learner.of]
        self._waiting.append((taken.step, float(field.sum()), field.size))
        return True

    def end(self) -> None:
        pass

    def work(self) -> bool:
        if not self._waiting:
            return False
        step, total, cells = self._waiting.popleft()
        values = {"total": np.float64(total), "cells": np.float64(cells), "starts": np.float64(self._starts)}
        self._rows.append(Row(step, step, 1, {name: np.asarray(value) for name, value in values.items()}))
        return True

    def rows(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def close(self) -> None:
        self._path.with_suffix(".closed").write_text("")
