# SPDX-License-Identifier: Apache-2.0
"""Whether a prediction may be trusted, with a rate of false alarms that holds for any network and any distribution."""

import math

import numpy as np
import numpy.typing as npt

from insitu.errors import OperatorError
from insitu.operator import State

Reals = npt.NDArray[np.float64]


class TrustGate:
    """Tells scores that are as others were from scores that are too large (split conformal prediction).

    A score says how strange a step is: the spread of an ensemble, a reconstruction error, the surrogate's error where
    the truth is known. `calibrate` it with scores of steps that the network was *not* trained on, as the held-out ones;
    then `trusts` says which new ones may pass: those up to the ⌈(n + 1)(1 - `rate`)⌉-th smallest of the n known
    (V. Vovk, A. Gammerman, G. Shafer, 2005; A. Angelopoulos, S. Bates, 2023).

    **False alarms.** If a new score comes from where the known ones came (exchangeable), it is refused with a
    probability of at most `rate`, and at least `rate` - 1/(n + 1) where no two are equal; whatever the distribution and
    however bad the network. Of one calibration the rate itself varies: with deviation √(`rate` (1 - `rate`) / n).
    Where steps depend on each other this holds as far as they are mixed. What the gate does not promise is that a
    trusted prediction is right: that is as good as the score.

    **Too few.** Below ⌈1 / `rate`⌉ - 1 known scores no bound exists, and nothing is trusted.

    The newest `most` scores are kept: 8 bytes each. A score of NaN is never trusted and never kept.

    >>> gate = TrustGate(rate=0.1)
    >>> gate.calibrate(np.arange(8.0)), gate.trusts(0.5)
    (None, False)
    >>> gate.calibrate(np.arange(8.0, 19.0)), gate.threshold, gate.trusts(17.0), gate.trusts(17.5)
    (None, 17.0, True, False)
    """

    def __init__(self, rate: float = 0.05, most: int = 4096) -> None:
        if not 0 < rate < 1:
            raise OperatorError(f"rate: {rate:g} is no rate of false alarms; take one between 0 and 1, as 0.05")
        if most < self.fewest(rate):
            raise OperatorError(
                f"most: {most} scores are too few for a rate of {rate:g}; take {self.fewest(rate)} or more"
            )
        self.rate, self.most = rate, most
        self._scores: Reals = np.empty(0)

    @staticmethod
    def fewest(rate: float) -> int:
        """Return how many known scores it takes for a rate."""
        return math.ceil(1 / rate) - 1

    def calibrate(self, scores: npt.ArrayLike) -> None:
        """Learn scores, of any shape, in the order in which they came."""
        new = np.ravel(np.asarray(scores, np.float64))
        self._scores = np.concatenate([self._scores, new[~np.isnan(new)]])[-self.most :]

    @property
    def known(self) -> int:
        return len(self._scores)

    @property
    def threshold(self) -> float:
        """The largest score that is trusted; -inf while too few are known."""
        rank = math.ceil((self.known + 1) * (1 - self.rate))
        return float(np.partition(self._scores, rank - 1)[rank - 1]) if rank <= self.known else -math.inf

    def trusts(self, score: float) -> bool:
        """Whether a prediction with this score may be used."""
        return score <= self.threshold

    def p_value(self, score: float) -> float:
        """Return (1 + how many known scores are as large) / (n + 1): uniform or larger where nothing has changed."""
        return float(1 + (self._scores >= score).sum()) / (self.known + 1)

    def state(self) -> State:
        return {"scores": self._scores.copy()}

    def load(self, state: State) -> None:
        self._scores = np.array(state["scores"])[-self.most :]
