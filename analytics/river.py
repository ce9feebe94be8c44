# SPDX-License-Identifier: Apache-2.0
"""Estimators of River, which learn sample by sample."""

from typing import Any

import numpy as np

from analytics.estimators import class_of, made
from analytics.pupils import Pupil
from analytics.supervised import Supervised
from insitu.model import Array


class River(Supervised):
    """An estimator of River (J. Montiel et al., JMLR 22 (2021) 110), taught while the run goes on.

    ``estimator: river.linear_model.LinearRegression`` names the class, `options` are its arguments; an optimizer is
    ``{optimizer: {estimator: river.optim.SGD, options: {lr: 0.01}}}``. Needs River: ``pip install 'insitu[river]'``.
    Inputs, progressive validation and results are those of all learners of this kind
    (`analytics.supervised.Supervised`). Numbers of a sample are called 0, 1, ... as they come.

    Its estimators are asked and told one sample at a time, in Python: some 10,000 a second of the simplest of them. All
    of a `batch` are asked before any of it is told; with ``batch: 1`` it is as in River's ``progressive_val_score``.
    """

    def new(self) -> Any:
        kind = class_of(self.estimator, "river", "river", "river.linear_model.LinearRegression")
        from river.base import Classifier, Regressor  # only where River is wanted

        if not issubclass(kind, (Classifier, Regressor)):
            raise ValueError(f"{self.estimator} is no regressor and no classifier; take one of these")
        return made(kind, self.options, self.seed)

    @staticmethod
    def classifies(model: Any) -> bool:
        from river.base import Classifier  # as above

        return isinstance(model, Classifier)

    def pupil(self, inputs: int, targets: int) -> Pupil:
        return _OneByOne(self.new(), inputs, self.classes, self.normalise)


class _OneByOne(Pupil):
    def _predict(self, inputs: Array) -> Array:
        said = [self.estimator.predict_one(dict(enumerate(row))) for row in inputs.tolist()]
        return np.array([np.nan if each is None else each for each in said], np.float64)

    def _learn(self, inputs: Array, targets: Array) -> None:
        for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
            self.estimator.learn_one(dict(enumerate(row)), target)
