# SPDX-License-Identifier: Apache-2.0
"""How large a batch is worth its samples, by the noise of gradients (S. McCandlish et al., arXiv:1812.06162, 2018)."""

import math

from insitu.model import Array
from insitu.operator import State

#: The part of what was known that stays with each step: noise of single steps is averaged over some fifty.
MEMORY = 0.98
#: What is known must weigh so much to be told: some 35 steps.
ENOUGH = 0.5


class NoiseScale:
    """B = tr(Σ) / |G|², with G the gradient over all samples and Σ the covariance of one sample's: beyond so many
    samples a larger batch gives less noise than it costs.

    Trainers with b_i samples each have gradients g_i, and together g of b = Σ b_i. As E|g_i|² = |G|² + tr(Σ) / b_i, and
    E|g|² = |G|² + tr(Σ) / b, both are found from one step (the paper's appendix A.1, here for uneven b_i)::

        tr(Σ) ≈ (mean |g_i|² - |g|²) / (mean 1 / b_i - 1 / b),    |G|² ≈ |g|² - tr(Σ) / b

    Each is averaged over steps by itself, since their quotient would be biased. Costs nothing but two norms.
    """

    def __init__(self) -> None:
        self._trace = self._square = self._weight = 0.0

    @property
    def scale(self) -> float:
        """B in samples; NaN while too little is known, infinite where no gradient can be told from noise."""
        if self._weight < ENOUGH:
            return math.nan
        return max(self._trace, 0.0) / self._square if self._square > 0 else math.inf

    def add(self, squares: Array, samples: Array, joint: float) -> None:
        """Take in a step: |g_i|² and b_i of each trainer, and |g|². One with fewer than two that have samples is left
        out."""
        here = samples > 0
        if here.sum() < 2:
            return
        one, all_of_them = float((1 / samples[here]).mean()), 1 / float(samples.sum())
        trace = (float(squares[here].mean()) - joint) / (one - all_of_them)
        self._trace = MEMORY * self._trace + (1 - MEMORY) * trace
        self._square = MEMORY * self._square + (1 - MEMORY) * (joint - trace * all_of_them)
        self._weight = MEMORY * self._weight + (1 - MEMORY)

    def state(self) -> State:
        return {"trace": self._trace, "square": self._square, "weight": self._weight}

    def load(self, state: State) -> None:
        self._trace, self._square, self._weight = (float(state[name]) for name in ("trace", "square", "weight"))
