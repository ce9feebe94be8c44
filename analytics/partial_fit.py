# SPDX-License-Identifier: Apache-2.0
"""Estimators of scikit-learn that learn from targets, in batches."""

import inspect
from typing import Any

import numpy as np

from analytics.estimators import class_of, made
from analytics.pupils import Pupil
from analytics.supervised import Supervised
from insitu.model import Array


class PartialFit(Supervised):
    """An estimator of scikit-learn (or of its kind) whose ``partial_fit`` takes targets, taught while the run goes on.

    ``estimator: sklearn.linear_model.SGDRegressor`` names the class, `options` are its arguments. Those that learn
    without targets are for ``use: sklearn``. Needs scikit-learn: ``pip install 'insitu[learn]'``. Inputs, progressive
    validation and results are those of all learners of this kind (`analytics.supervised.Supervised`). What is learned
    is that of ``partial_fit`` on one process over the same samples in the same order.
    """

    def new(self) -> Any:
        kind = class_of(self.estimator, "sklearn", "learn", "sklearn.linear_model.SGDRegressor")
        fit = getattr(kind, "partial_fit", None)
        if fit is None:
            raise ValueError(f"{self.estimator} has no partial_fit, so it cannot learn in batches; take one that has")
        targets = inspect.signature(fit).parameters.get("y")
        if targets is None or targets.default is not inspect.Parameter.empty:
            raise ValueError(f"{self.estimator} learns without targets; use: sklearn is for that")
        return made(kind, self.options, self.seed)

    @staticmethod
    def classifies(model: Any) -> bool:
        from sklearn.base import is_classifier  # only where scikit-learn is wanted

        return bool(is_classifier(model))

    def pupil(self, inputs: int, targets: int) -> Pupil:
        return _Batches(self.new(), inputs, self.classes, self.normalise)


class _Batches(Pupil):
    def _predict(self, inputs: Array) -> Array:
        return np.asarray(self.estimator.predict(inputs))

    def _learn(self, inputs: Array, targets: Array) -> None:
        classes = {} if self.classes is None else {"classes": np.arange(self.classes)}
        self.estimator.partial_fit(inputs, targets, **classes)
