# SPDX-License-Identifier: Apache-2.0
"""A trained network in the process of a learner: asked about each step, and compared with what the step shows."""

import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from analytics.nn.conformal import TrustGate
from analytics.nn.judging import Classes, distance, probabilities
from analytics.nn.needs import torch
from analytics.nn.predicting import ensemble, mc_dropout
from analytics.nn.specs import Uncertainty
from analytics.nn.steps import Sampler
from analytics.nn.versions import AT_ONCE, Version, newest, read_version
from insitu.errors import OperatorError
from insitu.learner import Learning, Row, Taken
from insitu.model import Array

#: How often a newer version is looked for.
LOOK_S = 0.5
#: How often a network is asked with dropout, where nothing is said.
PASSES = 16


class Asking(Learning):
    """Asks the newest version of model `name` in folder `models`, or a fixed one, about the samples of each step."""

    def __init__(
        self,
        name: str,
        models: Path,
        version: int | None,
        sampler: Sampler,
        gate: TrustGate,
        threads: int,
        example: bool = False,
        uncertainty: Uncertainty | None = None,
        parameters: Mapping[str, str] | None = None,
        classes: int | None = None,
        judged: str = "error",
    ) -> None:
        torch.set_num_threads(threads)
        self._name, self._models, self._fixed = name, models, version
        self._sampler = sampler
        self._gate = gate
        self._example = example
        self._uncertainty = uncertainty
        self._parameters = parameters or {}
        self._classes = None if classes is None else Classes(classes)
        self._judged = judged
        self._model: Version | None = None
        self._looked_at = -math.inf
        self._waiting: Taken | None = None
        self._rows: list[Row] = []
        self._without = 0
        if version is not None:
            self._load(version)

    def take(self, taken: Taken) -> bool:
        if self._waiting is not None:
            return False
        self._waiting = taken
        return True

    def end(self) -> None:
        """All that came is asked about at once: nothing is left."""

    def work(self) -> bool:
        taken, self._waiting = self._waiting, None
        if taken is None:
            return False
        self._look()
        samples = self._sampler.samples(taken)
        targets = predicted = None
        found: dict[str, Array | float] = {"error": math.nan} if self._classes is None else {**self._classes.nothing}
        uncertainty = math.nan
        if samples is not None:
            targets = samples.inputs if samples.targets is None else samples.targets
        if self._model is None or samples is None or targets is None:
            self._without += 1
        else:
            predicted = self._model(samples.inputs)
            found |= self._judge(predicted, targets)
            uncertainty = self._uncertainty_of(self._model, samples.inputs)
        if self._uncertainty is not None:
            found["uncertainty"] = uncertainty
        score = float(found[self._judged])
        values: dict[str, Array | float] = {
            **found,
            "threshold": self._gate.threshold,
            "trusted": self._gate.trusts(score),
            "version": self._model.number if self._model is not None else 0,
            **{name: float(taken.fields[variable]) for name, variable in self._parameters.items()},
            **(self._first_of(targets, predicted) if self._example else {}),
        }
        self._gate.calibrate([score])  # only now: a step is judged by those before it
        self._rows.append(Row(taken.step, taken.step, 1, {name: np.asarray(value) for name, value in values.items()}))
        return True

    def rows(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def counters(self) -> dict[str, int | float]:
        return {"steps_without_model": self._without}

    def close(self) -> None:
        """Nothing is to stay but the rows."""

    def _judge(self, predicted: Array, targets: Array) -> Mapping[str, Array | float]:
        if self._classes is None:
            return {"error": distance(predicted, targets)}
        return self._classes.judge(predicted, targets)

    def _uncertainty_of(self, model: Version, inputs: Array) -> float:
        """Return the deviation of what a model says, over the size of that, of all samples; NaN where nobody asks."""
        if self._uncertainty is None:
            return math.nan
        kind, passes = self._uncertainty.kind, self._uncertainty.samples or PASSES
        square = size = 0.0
        of = {} if self._classes is None else {"of": probabilities}
        for first in range(0, len(inputs), AT_ONCE):
            some = inputs[first : first + AT_ONCE]
            mean, deviation = (
                ensemble(model.network, some, **of)
                if kind == "ensemble"
                else mc_dropout(model.network, some, passes, first, **of)
            )
            square, size = square + float((deviation**2).sum()), size + float((mean**2).sum())
        return math.sqrt(square / size) if size else math.inf if square else 0.0

    def _first_of(self, targets: Array | None, predicted: Array | None) -> dict[str, Array]:
        """Return the first sample, and what the network makes of it; NaN for what there is none of."""
        shapes = self._sampler.shapes
        if self._classes is not None and predicted is not None:
            predicted = predicted.argmax(axis=1)
        nothing = np.full(shapes.inputs if shapes.targets is None else shapes.targets, np.nan, np.float32)
        return {
            name: nothing if values is None else np.asarray(values[0], np.float32)
            for name, values in (("truth", targets), ("prediction", predicted))
        }

    def _look(self) -> None:
        if self._fixed is None and time.monotonic() - self._looked_at > LOOK_S:
            self._looked_at = time.monotonic()
            number = newest(self._models, self._name)
            if number is not None and (self._model is None or number > self._model.number):
                self._load(number)

    def _load(self, number: int) -> None:
        model = read_version(self._models, self._name, number)
        shapes = self._sampler.shapes
        outputs = list(shapes.inputs if shapes.targets is None else shapes.targets)
        classes = model.card["training"]["loss"]["classes"]
        outputs = outputs if classes is None else [classes, *outputs]
        if model.card["inputs"] != list(shapes.inputs) or model.card["outputs"] != outputs:
            raise OperatorError(
                f"version {number} of model '{self._name}' takes {model.card['inputs']} and gives "
                f"{model.card['outputs']}; the inputs and targets here have {list(shapes.inputs)} and {outputs}"
            )
        self._model = model
        if self._classes is not None:
            self._classes.renew()
