# SPDX-License-Identifier: Apache-2.0
"""An estimator of another library that is taught step by step: it is asked first, and then told."""

import math
import pickle
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from analytics.nn.normalising import Normaliser
from analytics.nn.samples import Samples
from analytics.nn.specs import Normalising
from analytics.nn.steps import Sampler
from analytics.nn.writing import whole
from insitu.errors import OperatorError
from insitu.learner import Learning, Row, Taken, Workspace
from insitu.model import Array, Step

#: How often a checkpoint is written at most.
CHECKPOINT_S = 5.0


class Pupil(ABC):
    """An estimator with its scales, for samples of so many numbers. Takes and gives raw values."""

    def __init__(self, estimator: Any, inputs: int, classes: int | None, normalise: Normalising) -> None:
        self.estimator, self.classes = estimator, classes
        #: How many samples were learned from.
        self.samples = 0
        self._inputs = Normaliser((inputs,), normalise.per, normalise.freeze)
        self._targets = None if classes is not None else Normaliser((1,), normalise.per, normalise.freeze)

    def predict(self, inputs: Array) -> Array:
        """Return what it makes of (n, inputs): (n,) float64, numbers of classes included; NaN before it has learned."""
        if not self.samples:
            return np.full(len(inputs), np.nan)
        made = np.asarray(self._predict(self._scaled(inputs)), np.float64)
        return made if self._targets is None else made * float(self._targets.std[0]) + float(self._targets.mean[0])

    def learn(self, inputs: Array, targets: Array) -> None:
        """Learn from (n, inputs) and (n,) targets."""
        self._inputs.fold(np.asarray(inputs, np.float32))
        if self._targets is not None:
            self._targets.fold(np.asarray(targets, np.float32).reshape(-1, 1))
            targets = (targets - float(self._targets.mean[0])) / float(self._targets.std[0])
        self._learn(self._scaled(inputs), targets)
        self.samples += len(inputs)

    @abstractmethod
    def _predict(self, inputs: Array) -> Array:
        """Return what the estimator makes of scaled inputs."""

    @abstractmethod
    def _learn(self, inputs: Array, targets: Array) -> None:
        """Teach the estimator scaled inputs and targets."""

    def _scaled(self, inputs: Array) -> Array:
        return (np.asarray(inputs, np.float64) - self._inputs.mean) / self._inputs.std


class Taught(Learning):
    """A pupil at work: progressive validation, `batch` samples at a time, and a row for each `report` steps."""

    def __init__(self, pupil: Pupil, sampler: Sampler, workspace: Workspace, batch: int, report: int) -> None:
        self._pupil, self._sampler, self._workspace = pupil, sampler, workspace
        self._batch, self._report = batch, report
        self._waiting: tuple[Samples, int] | None = None
        self._scores = Scores(pupil.classes)
        self._steps: list[Step] = []
        self._rows: list[Row] = []
        self._written_at = time.monotonic()
        if workspace.checkpoint.exists():
            self._pupil = pickle.loads(workspace.checkpoint.read_bytes())
            workspace.tell(f"goes on from its checkpoint, {self._pupil.samples} samples; what came after it is lost")

    def take(self, taken: Taken) -> bool:
        if self._waiting is not None:
            return False
        samples = self._sampler.samples(taken)
        if samples is not None:
            _require_finite(samples, taken.step)
            self._waiting = samples, 0
        self._steps.append(taken.step)
        if self._waiting is None:
            self._look()
        return True

    def work(self) -> bool:
        if self._waiting is None:
            return False
        samples, first = self._waiting
        some = slice(first, first + self._batch)
        inputs = samples.inputs[some].reshape(len(samples.inputs[some]), -1)
        targets = np.asarray(samples.targets)[some].reshape(-1)
        try:
            self._scores.add(self._pupil.predict(inputs), targets)
            self._pupil.learn(inputs, targets)
        except Exception as error:
            what = f"{type(self._pupil.estimator).__name__} cannot learn from {inputs.shape[1]} numbers"
            raise OperatorError(f"{what} at step {self._steps[-1].index}: {error}") from error
        self._waiting = (samples, some.stop) if some.stop < len(samples) else None
        if self._waiting is None:
            self._look()
        return True

    def end(self) -> None:
        """What was taken is worked off; nothing else is left."""

    def rows(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def counters(self) -> dict[str, int | float]:
        return {"samples": self._pupil.samples}

    def close(self) -> None:
        if self._steps:
            self._add_row()
        _write(self._workspace.models / self._workspace.name / "estimator.pickle", self._pupil)

    def _look(self) -> None:
        """A step is done: add a row, and write a checkpoint, where it is time."""
        if len(self._steps) >= self._report:
            self._add_row()
        if time.monotonic() - self._written_at > CHECKPOINT_S:
            try:
                _write(self._workspace.checkpoint, self._pupil)
            except OSError as error:
                self._workspace.tell(f"the checkpoint cannot be written, and the one before stays: {error}")
            self._written_at = time.monotonic()

    def _add_row(self) -> None:
        values = {"samples": np.asarray(self._pupil.samples)} | self._scores.take()
        self._rows.append(Row(self._steps[0], self._steps[-1], len(self._steps), values))
        self._steps = []


class Scores:
    """How well predictions were, of all samples since the last look. Numbers far from zero lose no digits by it.

    >>> scores = Scores(None)
    >>> scores.add(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    >>> scores.add(np.array([np.nan, 5.0]), np.array([0.0, 5.0]))  # what is not predicted is not judged
    >>> {name: float(value) for name, value in scores.take().items()}
    {'mae': 0.333, 'r2': 0.875}
    """

    def __init__(self, classes: int | None) -> None:
        self._classes = classes
        self._number = self._right = 0
        self._distance = self._squares = self._spread = self._mean = 0.0

    def add(self, predicted: Array, targets: Array) -> None:
        known = np.isfinite(predicted)
        off, y = predicted[known] - targets[known], np.asarray(targets[known], np.float64)
        if not len(y):
            return
        self._right += int((off == 0).sum())
        self._distance += float(np.abs(off).sum())
        self._squares += float((off**2).sum())
        number, mean = self._number + len(y), float(y.mean())
        apart = mean - self._mean
        self._spread += float(((y - mean) ** 2).sum()) + apart**2 * self._number * len(y) / number
        self._mean += apart * len(y) / number
        self._number = number

    def take(self) -> dict[str, Array]:
        """Return the scores, NaN where nothing was predicted, and begin anew."""
        number = self._number or math.nan
        found = {"accuracy": self._right / number}
        if self._classes is None:
            part = self._squares / self._spread if self._spread else math.nan
            found = {"mae": self._distance / number, "r2": 1.0 - part}
        self._number = self._right = 0
        self._distance = self._squares = self._spread = self._mean = 0.0
        return {name: np.asarray(value) for name, value in found.items()}


def _require_finite(samples: Samples, step: Step) -> None:
    for name, values in (("inputs", samples.inputs), ("targets", np.asarray(samples.targets))):
        if not np.isfinite(values).all():
            raise OperatorError(f"{name} of step {step.index} are not finite")


def _write(path: Path, pupil: Pupil) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as beside:
        beside.write_bytes(pickle.dumps(pupil))
