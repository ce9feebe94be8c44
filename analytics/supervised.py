# SPDX-License-Identifier: Apache-2.0
"""Estimators of other libraries that learn from targets, sample by sample, while the simulation runs."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from analytics.nn.specs import Normalising, Number
from analytics.nn.steps import Feature, Sampler, Sampling, variables_of
from analytics.pupils import Pupil, Taught
from insitu.errors import OperatorError
from insitu.learner import Learner, Learning, Workspace
from insitu.model import Variable
from insitu.operator import Names


class Supervised(Learner):
    """Keys of learners that teach an estimator of another library; what they yield is the same for all.

    **Progressive validation** (A. Dawid, 1984; A. Blum, A. Kalai, J. Langford, 1999): each sample is predicted before
    it is learned from, so that every sample tests a model that has not seen it, and none is held out. Samples go by
    `batch`: all of one are predicted, then all are learned from.

    Inputs and targets are scaled by the mean and deviation of the samples before (`normalise`); predictions and errors
    are in the targets' own units.

    ============  =================================================================================================
    result        value, of each row
    ============  =================================================================================================
    ``samples``   how many were learned from so far (int64)
    ``mae``       mean of |prediction - target| of the samples since the row before; NaN where there were none
    ``r2``        1 - Σ (prediction - target)² / Σ (target - mean target)² of these; NaN where the targets are alike
    ``accuracy``  with `classes`, in the place of both: the part of samples whose class was predicted
    ============  =================================================================================================

    **What stays**: ``models/NAME/estimator.pickle``, a `analytics.pupils.Pupil` whose ``predict`` takes and gives
    raw values. Unpickle it only where nobody else could have written it. The checkpoint, written every five seconds at
    most, is the same: a process that was killed goes on from it.
    """

    estimator: str = Field(description="the class, by its dotted name")
    options: dict[str, Any] = Field(
        default={}, description="its arguments; an object is {estimator: dotted.name, options: {...}}"
    )
    inputs: Names = Field(description="what goes in, as for train; all numbers of a sample, one after the other")
    targets: Names = Field(description="what is to come out, as for train: a number of each sample")
    sample: Sampling = Field(default="step", description="what one sample is: a whole step, a row, or a cell")
    per_step: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="samples of one step at most, drawn by lot; none: all"
    )
    classes: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="of a classifier: how many there are; targets are their numbers, from 0"
    )
    normalise: Normalising = Field(default=Normalising(), description="how inputs and targets are scaled")
    batch: Number = Field(default=64, description="samples that are predicted, then learned from, at once")
    report: Number = Field(default=10, description="steps of one row of the results")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(default=0, description="of the estimator and of per_step")

    @field_validator("inputs", "targets")
    @classmethod
    def _names_are_understood(cls, names: Names) -> Names:
        for name in names:
            Feature.of(name)
        return names

    @model_validator(mode="after")
    def _the_estimator_fits(self) -> "Supervised":
        try:
            model = self.new()
        except ValueError:
            raise
        except Exception as error:  # the estimator's own objection, whatever its class
            raise ValueError(f"options: {self.estimator} refuses {self.options}: {error}") from error
        if self.classifies(model) != (self.classes is not None):
            if self.classes is None:
                raise ValueError(f"classes: {self.estimator} tells classes; say how many there are: classes: 2")
            raise ValueError(f"classes: {self.estimator} tells no classes; leave it out")
        if not variables_of(self.targets):
            raise ValueError(f"targets: {list(self.targets)} names no variable, and nothing is learned")
        return self

    @abstractmethod
    def new(self) -> Any:
        """Return an estimator that has learned nothing; `ValueError` for one that cannot be taught this way."""

    @staticmethod
    @abstractmethod
    def classifies(model: Any) -> bool:
        """Whether an estimator tells classes."""

    @abstractmethod
    def pupil(self, inputs: int, targets: int) -> Pupil:
        """Return who learns from samples of so many numbers."""

    @property
    def needs(self) -> tuple[str, ...]:
        return variables_of([*self.inputs, *self.targets])

    def sampler(self, variables: Mapping[str, Variable]) -> Sampler:
        """Return what makes samples of these variables; raises `OperatorError` where it cannot."""
        classes = self.classes is not None
        return Sampler(
            self.inputs, self.targets, self.sample, variables, classes=classes, per_step=self.per_step, seed=self.seed
        )

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        numbers = int(np.prod(self.sampler(inputs).shapes.targets or ()))
        if numbers != 1:
            named = ", ".join(self.targets)
            raise OperatorError(f"targets: {named} are {numbers} numbers of each sample, and one is learned")
        units = inputs[self.targets[0]].units if self.targets[0] in inputs else ""
        scores = {"mae": (units, "mean distance"), "r2": ("1", "part of the variance that was predicted")}
        if self.classes is not None:
            scores = {"accuracy": ("1", "part of the samples whose class was predicted")}
        found = {"samples": Variable("samples", np.dtype("i8"), (), (), "1", "samples learned from so far")}
        return found | {
            name: Variable(name, np.dtype("f8"), (), (), of, f"{text}, each before it was learned from")
            for name, (of, text) in scores.items()
        }

    def begin(self, inputs: Mapping[str, Variable], workspace: Workspace) -> Learning:
        sampler = self.sampler(inputs)
        pupil = self.pupil(int(np.prod(sampler.shapes.inputs)), int(np.prod(sampler.shapes.targets or ())))
        return Taught(pupil, sampler, workspace, self.batch, self.report)
