# SPDX-License-Identifier: Apache-2.0
"""Periodograms of segments of steps, averaged: Welch's method as a fold (P. Welch, 1967).

Segments begin at fixed steps of the window and overlap by half. A segment is transformed as soon as all of its steps
are there. As a merge is to complete those that lie across the seam, a state keeps the fields of the steps that others
may complete. So every segment is found, once, in whatever order states are merged.

Steps are counted by their sequence numbers: a segment that lacks one is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analytics.kernels.values import values
from analytics.stretches import glued, gone_on, within
from insitu.errors import OperatorError
from insitu.model import Array, Extent, Step
from insitu.operator import State

#: Bytes of what is transformed at a time.
BLOCK_BYTES = 4 << 20

#: By how much of their mean the distances of steps in time may differ.
UNEVEN = 0.01

#: The time and the values of steps, by sequence number.
Fields = Mapping[int, tuple[float, Array]]


@dataclass(frozen=True, slots=True)
class Welch:
    """How a state of segments is folded, merged and read. The state of no data is ``{}``.

    `name` is the variable's, for errors; `skip` leaves out segments with a NaN, of each cell for itself.
    """

    name: str
    segment: int
    window: int | Literal["run"]
    per: Literal["step", "time"]
    skip: bool

    def update(self, state: State, steps: Sequence[Step], arrays: Sequence[Array]) -> State:
        """Fold the fields of steps."""
        state = state or self._zeros(arrays[0].shape)
        new = {step.sequence: (step.time, values(array)) for step, array in zip(steps, arrays, strict=True)}
        both = {**_fields(state["kept"]), **new}
        for segment in self._segments(new):
            self._transform(state, segment, both)
        gone_on(state["stretches"], min(new), max(new))
        self._keep(state, new)
        return state

    def merge(self, a: State, b: State) -> State:
        """Merge two states, and find the segments that lie across their seam."""
        if not (a and b):
            return a or deepcopy(b)
        a["sum"] += b["sum"]
        a["segments"] += b["segments"]
        self._space(a, *b["spacing"])
        new = _fields(b["kept"])
        both = {**_fields(a["kept"]), **new}
        for segment in self._segments(new):
            if any(at not in new for at in segment):  # else `b` has it already
                self._transform(a, segment, both)
        a["stretches"] = glued([*a["stretches"], *deepcopy(b["stretches"])])
        self._keep(a, new)
        return a

    def read(self, state: State) -> tuple[Array, Array, float]:
        """Return the sum of the periodograms, a copy of their number, and how far steps are apart, NaN if unknown."""
        state = state or self._zeros(())
        low, high = state["spacing"]
        return state["sum"], np.array(state["segments"]), 1.0 if self.per == "step" else (low + high) / 2

    def _zeros(self, cells: Extent) -> State:
        return {
            "sum": np.zeros((self.segment // 2 + 1, *cells)),
            "segments": np.zeros(cells, np.int64),
            "spacing": [np.inf, -np.inf],
            "kept": [],
            "stretches": [],
        }

    @property
    def _hop(self) -> int:
        return self.segment - self.segment // 2

    def _starts(self, at: int) -> list[int]:
        """Return the first steps of the segments that hold step `at`."""
        origin = 0 if self.window == "run" else at - at % self.window
        last = (at - origin) // self._hop
        if self.window != "run":
            last = min(last, (self.window - self.segment) // self._hop)
        first = max(0, -((origin + self.segment - 1 - at) // self._hop))
        return [origin + k * self._hop for k in range(first, last + 1)]

    def _segments(self, new: Fields) -> Iterator[range]:
        """Yield the segments that hold some of these steps."""
        for start in sorted({start for at in new for start in self._starts(at)}):
            yield range(start, start + self.segment)

    def _keep(self, state: State, new: Fields) -> None:
        """Keep copies of the fields of segments that steps which are not known yet may complete, and only these."""
        known = state["stretches"]
        kept = [each for each in state["kept"] if self._waits(known, each["at"])]
        more = [{"at": at, "time": t, "field": x.copy()} for at, (t, x) in new.items() if self._waits(known, at)]
        state["kept"] = sorted([*kept, *more], key=lambda each: int(each["at"]))

    def _waits(self, known: Sequence[State], at: int) -> bool:
        return any(not within(known, start, start + self.segment - 1) for start in self._starts(at))

    def _transform(self, state: State, segment: range, fields: Fields) -> None:
        """Add the power of a segment, if all of it is there."""
        if any(at not in fields for at in segment):
            return
        if self.per == "time":
            distances = np.diff([fields[at][0] for at in segment])
            self._space(state, float(distances.min()), float(distances.max()))
        rows = [fields[at][1] for at in segment]
        total, segments = state["sum"].reshape(len(state["sum"]), rows[0].size), state["segments"].reshape(-1)
        several = max(1, BLOCK_BYTES // (8 * self.segment))
        for first in range(0, rows[0].size, several):
            some = slice(first, first + several)
            block = np.stack([row[some] for row in rows], dtype=np.float64)
            known = ~np.isnan(block).any(axis=0) if self.skip else np.ones(block.shape[1], bool)
            total[:, some] += np.where(known, periodogram(block), 0.0)
            segments[some] += known

    def _space(self, state: State, low: float, high: float) -> None:
        """Widen the known distances of steps in time, or raise `OperatorError` where they are not all the same."""
        low, high = min(low, state["spacing"][0]), max(high, state["spacing"][1])
        if high > -np.inf and not 0 < high <= low * (1 + UNEVEN):
            raise OperatorError(
                f"'{self.name}' has no spectrum per time: its steps are {low:g} to {high:g} apart in time, which must "
                "be above zero and always the same; pass their time to Client.step, or take per: step"
            )
        state["spacing"] = [low, high]


def _fields(kept: Sequence[State]) -> Fields:
    return {each["at"]: (each["time"], values(each["field"])) for each in kept}


@np.errstate(invalid="ignore", over="ignore")
def periodogram(block: Array, *, periodic: bool = False) -> Array:
    """Return the one-sided power density of columns, which it changes, at frequencies in cycles per row.

    Their mean is taken off; unless they are periodic, they are weighted by Hann's window.
    """
    n = len(block)
    block -= block[:1].copy()  # so that what does not vary is zero, and not of the size of a rounding error
    block -= block.mean(axis=0)
    weights = np.ones(n) if periodic else 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    transformed = np.fft.rfft(block * weights[:, np.newaxis], axis=0)
    found = (transformed.real**2 + transformed.imag**2) / np.sum(weights**2)
    found[1 : (n + 1) // 2] *= 2  # all but the mean and, of an even number, the highest stand for two
    return found
