# SPDX-License-Identifier: Apache-2.0
"""An expression over results that are given to it one after the other: what a rule's ``when:`` is to a run, for
whoever has results in hand. No sockets, no clock.
"""

from collections.abc import Mapping

from insitu.model import PARAMETERS
from insitu.results import Provenance, Result
from insitu.steering.expressions import Expression
from insitu.steering.parameters import Value
from insitu.steering.series import Series, number_of
from insitu.steering.vocabulary import Vocabulary


class Reading:
    """The value of an expression of the rules' vocabulary over the results so far.

    `newest` holds a result of every operator that may be named, by which the words are looked up; it is not taken in.
    Raises `ConfigError` for what is no expression of them.

    >>> import numpy as np
    >>> result = Result("level", Provenance(0, 0, 0, 0.0, 1, 0, True), {"mean": np.array(2.0), "max": np.array(3.0)})
    >>> reading = Reading("0.5 - abs(level.mean - parameters.wanted)", {"level": result}, ["wanted"])
    >>> reading.add(result)
    >>> reading({"wanted": 1.75})
    0.25
    """

    def __init__(self, text: str, newest: Mapping[str, Result], parameters: list[str]) -> None:
        words = {name: {key: array.ndim for key, array in result.arrays.items()} for name, result in newest.items()}
        self.text = text
        self._expression = Expression(text, Vocabulary(words, parameters))
        self._latest: Provenance | None = None
        self.clear()

    def clear(self) -> None:
        """Forget the results so far."""
        spans: dict[object, list[int]] = {}
        for each in self._expression.references:
            spans.setdefault(each.source, []).extend([each.span] if each.span else [])
        self._series = {each.source: Series(spans[each.source]) for each in self._expression.references}

    def add(self, result: Result) -> None:
        """Take in a result; those of one operator in their order."""
        self._latest = result.provenance
        for source, series in self._series.items():
            if source.operator == result.operator:
                series.add(number_of(result.arrays[source.result], source.over_cells))

    def __call__(self, parameters: Mapping[str, Value]) -> Value:
        """Return the value, with the parameters as they are now.

        Raises `ArithmeticError` or `ValueError` in words where it has none, and before the first result.
        """
        if self._latest is None:
            raise ValueError(f"'{self.text}' has no value before the first result")
        names: dict[str, Value] = {f"{PARAMETERS}.{name}": value for name, value in parameters.items()}
        names |= {"step": float(self._latest.last_step), "time": self._latest.time}
        for each in self._expression.references:
            names[str(each)] = self._series[each.source].read(each.over_steps, each.span)
        return self._expression(names)
