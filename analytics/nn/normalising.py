# SPDX-License-Identifier: Apache-2.0
"""Means and standard deviations of what a network learns from, learned on line."""

import math

import numpy as np
import numpy.typing as npt

from analytics.moments import Moments
from insitu.model import Array, Extent, Step, Variable
from insitu.operator import Batch, State

Reals = npt.NDArray[np.float32]

#: A deviation below this part of the mean is rounding: the number does not vary, and is left as large as it is.
SMALL = 1e-6


class Normaliser:
    """(x - mean) / std, by `analytics.moments`, with one mean and deviation for each of `per`:

    ============  ================================================  ====================
    `per`         one mean for                                      shape of `mean`
    ============  ================================================  ====================
    ``feature``   each number of a sample                           that of a sample
    ``channel``   each entry of a sample's first dimension          (channels, 1, ...)
    ``all``       all numbers                                       (1, ...)
    ``none``      nothing: mean 0, deviation 1                      (1, ...)
    ============  ================================================  ====================

    **Frozen or following.** Each sample that arrives is folded, whether it is held out or not, until `freeze` have
    been; from then on mean and deviation stay as they are, to the last bit. With ``freeze=None`` they follow the whole
    stream, so what the network is shown for the same sample moves a little from batch to batch.

    What does not vary (standard deviation below 1e-6 of the mean, or of nothing) is centred and not scaled.

    >>> normaliser = Normaliser((2,), "feature", freeze=None)
    >>> normaliser.fold(np.array([[1.0, 5.0], [3.0, 5.0]], np.float32))
    >>> normaliser.mean, normaliser.std
    (array([2., 5.], dtype=float32), array([1.414, 1.   ], dtype=float32))
    """

    def __init__(self, shape: Extent, per: str = "feature", freeze: int | None = None) -> None:
        self.per, self.freeze, self.seen = per, freeze, 0
        self._rows = {"feature": math.prod(shape), "channel": shape[0] if shape else 1, "all": 1, "none": 0}[per]
        ones = (1,) * len(shape)
        self._shape = {"feature": shape, "channel": (self._rows, *ones[1:]) if shape else ()}.get(per, ones)
        self._value = Variable("x", np.dtype(np.float32), (self._rows,), ("row",))
        # One fold for each number; or of all numbers of a row, and a state for each.
        self._moments = Moments(of=("x",), over=("step",) if per == "feature" else ("step", "space"), orders=2)
        self._states = [
            self._moments.init() for _ in range(self._rows if per in ("channel", "all") else per == "feature")
        ]
        self._cells = self._rows if per == "feature" else 1
        self.united = False
        self.mean: Reals = np.zeros(self._shape, np.float32)
        self.std: Reals = np.ones(self._shape, np.float32)

    @property
    def frozen(self) -> bool:
        return self.united or not self._rows or (self.freeze is not None and self.seen >= self.freeze)

    def fold(self, samples: Array) -> None:
        """Learn from samples, (n, *shape) float32; those beyond `freeze` are left out."""
        if self.frozen:
            return
        if self.freeze is not None:
            samples = samples[: self.freeze - self.seen]
        self.seen += len(samples)
        if self.per == "feature":
            parts = [samples.reshape(len(samples), -1)]
        else:
            rows = np.moveaxis(samples.reshape(len(samples), self._rows, -1), 1, 0)
            parts = [np.ascontiguousarray(row).reshape(1, -1) for row in rows]
        self._states = [
            self._moments.update(state, _batch(self._value, part))
            for state, part in zip(self._states, parts, strict=True)
        ]
        self._read(self._states)

    def packed(self) -> Array:
        """Return what was learned as (numbers,) float64, of a length that depends on shape and `per` alone."""
        found = [np.array([self.seen], np.float64)]
        for state in self._states:
            arrays = [state[key].ravel() for key in ("moments", "extremes")] if "moments" in state else []
            found += [np.array([state["count"]], np.float64), *(arrays or [np.zeros(4 * self._cells)])]
        return np.concatenate(found)

    def unite(self, packs: Array) -> None:
        """Let mean and deviation be those of what several have learned, each `packed`; exact but for rounding.

        `united` says when enough was seen by all together: then they stay.
        """
        states, seen = [self._moments.init() for _ in self._states], 0
        for pack in packs:
            if pack[0]:
                seen += int(pack[0])
                states = [self._moments.merge(a, b) for a, b in zip(states, self._unpacked(pack), strict=True)]
        self._read(states)
        self.united = not self._rows or (self.freeze is not None and seen >= self.freeze)

    def _unpacked(self, pack: Array) -> list[State]:
        shape = (2, self._rows) if self.per == "feature" else (2,)
        found = []
        for part in pack[1:].reshape(len(self._states), -1):
            moments, extremes = part[1:].reshape(2, *shape).copy()
            found.append({"count": int(part[0]), "moments": moments, "extremes": extremes})
        return found

    def _read(self, states: list[State]) -> None:
        if not any(state["count"] for state in states):
            return
        found = [self._moments.finalize(state) for state in states]
        mean, variance = (
            np.stack([each[name] for each in found]).reshape(self._shape) for name in ("mean", "variance")
        )
        # One sample has no variance, and says nothing about how far others are.
        std = np.sqrt(np.where(np.isfinite(variance), variance, 0.0))
        self.mean = mean.astype(np.float32)
        self.std = np.where(std > SMALL * np.abs(mean), std, 1.0).astype(np.float32)

    def state(self) -> State:
        states = [
            {key: np.copy(part) if isinstance(part, np.ndarray) else part for key, part in state.items()}
            for state in self._states
        ]
        return {
            "seen": self.seen,
            "united": self.united,
            "moments": states,
            "mean": self.mean.copy(),
            "std": self.std.copy(),
        }

    def load(self, state: State) -> None:
        self.seen, self.united = int(state["seen"]), bool(state["united"])
        self._states = [dict(each) for each in state["moments"]]
        self.mean, self.std = state["mean"], state["std"]


def _batch(variable: Variable, samples: Array) -> Batch:
    steps = [Step(k, k, float(k)) for k in range(len(samples))]
    return Batch(steps, {"x": variable}, {"x": (0,)}, {"x": [np.ascontiguousarray(row) for row in samples]})
