# SPDX-License-Identifier: Apache-2.0
"""How far what a network says of a step is from what the step shows: of numbers, and of classes."""

import math

import numpy as np

from insitu.errors import OperatorError
from insitu.model import Array

#: Of the probability that a network gives its choice, to see how often it is right where it says so.
BINS = 10


def distance(predicted: Array, truth: Array) -> float:
    """Return the distance between both over the size of the truth, over all samples of a step."""
    size = float(np.linalg.norm(truth))
    off = float(np.linalg.norm(predicted - truth))
    return off / size if size else math.inf if off else 0.0


def probabilities(scores: Array) -> Array:
    """Return what scores of classes, (n, classes, ...), stand for: softmax, float64.

    >>> probabilities(np.array([[0.0, np.log(3.0)]])).tolist()
    [[0.25, 0.75]]
    """
    part = np.exp(np.asarray(scores, np.float64) - scores.max(axis=1, keepdims=True))
    found: Array = part / part.sum(axis=1, keepdims=True)
    return found


class Classes:
    """Judges scores of `classes` against the classes that are true.

    `calibration_error` is the expected calibration error (C. Guo et al., 2017): the mean distance between how sure the
    network is of its choice and how often that is right, over ten bins of the former, of all samples so far; since the
    model was changed (`renew`). Of few samples it is too large.

    >>> judge = Classes(2)
    >>> found = judge.judge(np.array([[0.0, np.log(3.0)], [np.log(3.0), 0.0]]), np.array([1, 1]))
    >>> {name: np.round(value, 3).tolist() for name, value in found.items()}
    {'error': 0.5, 'accuracy': 0.5, 'confusion': [[0, 0], [1, 1]], 'confidence': 0.75, 'calibration_error': 0.25}
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.renew()

    def renew(self) -> None:
        """Another model is judged from now on."""
        # Samples, the sum of their confidence, and how many were right.
        self._bins = np.zeros((3, BINS))

    @property
    def nothing(self) -> dict[str, Array]:
        """What is told of a step that no model was asked about."""
        found = {name: np.array(math.nan) for name in ("error", "accuracy", "confidence", "calibration_error")}
        return found | {"confusion": np.zeros((self._classes, self._classes), np.int64)}

    def judge(self, scores: Array, truth: Array) -> dict[str, Array]:
        """Return error (1 - the probability of the class that is true, a mean), accuracy, confusion and so on.

        `scores` are (n, classes, ...), `truth` (n, ...) of integers.
        """
        if truth.size and not 0 <= truth.min() <= truth.max() < self._classes:
            raise OperatorError(f"targets: {truth.min()} to {truth.max()} are no classes from 0 to {self._classes - 1}")
        sure = np.moveaxis(probabilities(scores), 1, -1).reshape(-1, self._classes)
        truth = truth.reshape(-1)
        taken, confidence = sure.argmax(axis=1), sure.max(axis=1)
        confusion = np.zeros((self._classes, self._classes), np.int64)
        np.add.at(confusion, (truth, taken), 1)
        places = np.minimum((confidence * BINS).astype(int), BINS - 1)
        for row, weights in zip(self._bins, (np.ones(len(truth)), confidence, taken == truth), strict=True):
            row += np.bincount(places, weights, BINS)
        samples, said, right = self._bins
        return {
            "error": 1.0 - sure[np.arange(len(truth)), truth].mean(),
            "accuracy": (taken == truth).mean(),
            "confusion": confusion,
            "confidence": confidence.mean(),
            "calibration_error": np.abs(said - right).sum() / samples.sum(),
        }
