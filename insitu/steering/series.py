# SPDX-License-Identifier: Apache-2.0
"""Numbers that come again with every result, and what an expression may ask of them.

A `Reference` names such a number: of which operator's result, how its cells become one number, and how the numbers of
several results become one. A `Series` is what is known of the numbers so far: it keeps a few sums, whatever their
number is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from insitu.model import Array

#: How an array becomes a number: over its cells, or over whatever other dimensions it has. NaN is left out.
OVER_CELLS: dict[str, str] = {
    "max": "the largest value of the array",
    "min": "the smallest value of the array",
    "mean": "the mean of the array's values",
}
#: How the numbers of the results so far become one. NaN is left out of all but ``last`` and ``previous``.
OVER_STEPS: dict[str, str] = {
    "last": "the newest number; what is meant where nothing is said",
    "previous": "the number of the result before",
    "mean": "the mean of all numbers since the run began",
    "std": "their standard deviation, with n - 1",
    "min": "the smallest number since the run began",
    "max": "the largest number since the run began",
    "ewm": "ewm(n): the mean with weights (1 - a)^k, a = 2 / (n + 1), of the number k results ago",
}


@dataclass(frozen=True, slots=True)
class Reference:
    """One number of a run.

    `over_cells` is empty for a result that is a number, a word of `OVER_CELLS`, or an index as ``[3]``. `over_steps` is
    a word of `OVER_STEPS`, with the `span` of ``ewm``.
    """

    operator: str
    result: str
    over_cells: str = ""
    over_steps: str = "last"
    span: int = 0

    def __str__(self) -> str:
        """Return the one way to write it: as the name under which an expression finds its value."""
        cells = self.over_cells if self.over_cells.startswith("[") else f".{self.over_cells}" if self.over_cells else ""
        steps = "" if self.over_steps == "last" else f".{self.over_steps}"
        return f"{self.operator}.{self.result}{cells}{steps}" + (f"({self.span})" if self.span else "")

    @property
    def source(self) -> "Reference":
        """The number of one result, whatever becomes of several."""
        return Reference(self.operator, self.result, self.over_cells)


@dataclass(frozen=True, slots=True)
class Spread:
    """What a piece of an array tells of the words of `OVER_CELLS`, so that pieces can be told of apart and joined."""

    n: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def of(cls, array: Array) -> "Spread":
        values = array[~np.isnan(array)] if array.dtype.kind == "f" else array
        if not values.size:
            return cls()
        return cls(values.size, float(values.sum(dtype=np.float64)), float(values.min()), float(values.max()))

    def __add__(self, other: "Spread") -> "Spread":
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Spread(self.n + other.n, self.total + other.total, low, high)

    def read(self, over_cells: str) -> float:
        """Return what the word says; NaN of no values."""
        if not self.n:
            return math.nan
        return {"max": self.high, "min": self.low, "mean": self.total / self.n}[over_cells]


def number_of(array: Array, over_cells: str) -> float:
    """Return the number that `over_cells` makes of an array; NaN where it has none.

    >>> number_of(np.array([1.0, 4.0, np.nan]), "max"), number_of(np.array(2.5), ""), number_of(np.arange(3), "[1]")
    (4.0, 2.5, 1.0)
    """
    values = np.asarray(array)
    if over_cells.startswith("["):
        index = int(over_cells[1:-1])
        return float(values[index]) if values.ndim == 1 and -values.size <= index < values.size else math.nan
    if not over_cells:
        return float(values) if values.ndim == 0 else math.nan
    return Spread.of(values).read(over_cells)


class Series:
    """The numbers of one reference's `source`, in order.

    >>> series = Series(spans=[3])
    >>> for number in (1.0, 2.0, 6.0):
    ...     series.add(number)
    >>> [series.read(word) for word in ("last", "previous", "mean", "min", "max")], series.read("ewm", 3)
    ([6.0, 2.0, 3.0, 1.0, 6.0], 4.142857142857143)
    """

    def __init__(self, spans: "list[int] | tuple[int, ...]" = ()) -> None:
        self._last = self._previous = math.nan
        self._n = 0
        self._mean = self._m2 = 0.0
        self._min, self._max = math.inf, -math.inf
        #: Of each span the weighted sum and the sum of weights.
        self._weighted = dict.fromkeys(spans, (0.0, 0.0))
        self._readers: dict[str, Callable[[], float]] = {
            "last": lambda: self._last,
            "previous": lambda: self._previous,
            "mean": lambda: self._mean,
            "std": lambda: math.sqrt(self._m2 / (self._n - 1)) if self._n > 1 else math.nan,
            "min": lambda: self._min,
            "max": lambda: self._max,
        }

    def add(self, number: float) -> None:
        """Take in the next number."""
        self._previous, self._last = self._last, number
        if math.isnan(number):
            return
        self._n += 1
        deviation = number - self._mean
        self._mean += deviation / self._n
        self._m2 += deviation * (number - self._mean)
        self._min, self._max = min(self._min, number), max(self._max, number)
        for span, (total, weight) in self._weighted.items():
            keep = 1 - 2 / (span + 1)
            self._weighted[span] = (total * keep + number, weight * keep + 1)

    def read(self, over_steps: str, span: int = 0) -> float:
        """Return what is asked for; NaN while there is nothing to tell it from."""
        if over_steps == "ewm":
            total, weight = self._weighted[span]
            return total / weight if weight else math.nan
        return self._readers[over_steps]() if self._n or over_steps in ("last", "previous") else math.nan
