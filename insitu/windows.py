# SPDX-License-Identifier: Apache-2.0
"""Which steps one result covers: windows, and the panes that they are put together from. Pure arithmetic.

A window begins every so many steps, or every so much physical time, and is as long or longer than that. Where windows
overlap, a state is kept for each *pane*, of the greatest length that divides both, and a window's state is the merge of
its panes' (J. Li and others, SIGMOD Record 34, 2005): no step is folded twice, and no block is kept.

================================  ==========================================  ========================
YAML                              window k covers                             panes
================================  ==========================================  ========================
``window: 100``                   steps 100 k to 100 k + 99                   one
``window: 100, every: 10``        steps 10 k to 10 k + 99                     ten, of 10 steps
``window: 0.5 time``              times from 0.5 k up to, not with, 0.5 k+1   one
``window: 0.5 time,``             times from 0.2 k up to, not with,           five, of 0.1
``every: 0.2 time``               0.2 k + 0.5
``window: run``                   all steps                                   one
================================  ==========================================  ========================

Steps are counted as they are published, dropped ones too. Times are the author's, in the author's unit, and windows are
counted from time zero; a time that is within 1e-9 of a pane's length below the pane's beginning belongs to it, because
0.1 + 0.2 is not 0.3.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from insitu.model import Step

#: More panes than these would mean a state each, for windows that differ by next to nothing.
PANES = 1000
#: How far below a pane's beginning a time may be that belongs to it, in lengths of a pane.
ROUNDING = 1e-9

_SPAN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)(e-?\d+)?\s+time\s*")
_STEPS = {"type": "integer", "minimum": 1}
_TIME = {"type": "string", "pattern": _SPAN.pattern.replace("\\s*", ""), "examples": ["0.5 time"]}

#: A number of steps, ``run``, or a span of physical time such as ``0.5 time``.
Length = int | str


def read_length(value: object) -> Length:
    """Read how long a window is, or how far windows are apart.

    >>> read_length(100), read_length(" 0.50  time"), read_length("run")
    (100, '0.50 time', 'run')
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if value == "run":
        return "run"
    if isinstance(value, str) and (match := _SPAN.fullmatch(value)):
        number = match[1] + (match[2] or "")
        if Fraction(number) > 0:
            return f"{number} time"
    what = 'an integer of at least 1, "run" or a time such as "0.5 time"'
    raise PydanticCustomError("expected", "{what}", {"what": what})


def _read_every(value: object) -> Length:
    try:
        if value != "run":
            return read_length(value)
    except PydanticCustomError:
        pass
    what = 'an integer of at least 1 or a time such as "0.5 time"'
    raise PydanticCustomError("expected", "{what}", {"what": what})


WindowLength = Annotated[
    int | str, BeforeValidator(read_length), WithJsonSchema({"anyOf": [_STEPS, {"const": "run"}, _TIME]})
]
Every = Annotated[int | str, BeforeValidator(_read_every), WithJsonSchema({"anyOf": [_STEPS, _TIME]})]


def is_time(length: Length | None) -> bool:
    """Whether a length is a span of physical time."""
    return isinstance(length, str) and length != "run"


def _amount(length: Length) -> Fraction:
    return Fraction(length) if isinstance(length, int) else Fraction(length.removesuffix(" time"))


def fault_of_windows(window: Length, every: Length | None) -> str | None:
    """Say why windows of this length cannot begin so often, or return ``None``.

    >>> fault_of_windows(10, 20)
    'every: 20 is more than window: 10, so that steps would be in no window; lower it'
    >>> fault_of_windows(100, 10)
    """
    if every is None:
        return None
    if window == "run":
        return f"every: {every} has no meaning with window: run, which is one window; leave it out"
    if is_time(window) != is_time(every):
        return f"window: {window} and every: {every} must both be steps, or both times; change one of them"
    if _amount(every) > _amount(window):
        return f"every: {every} is more than window: {window}, so that steps would be in no window; lower it"
    panes = Panes.of(window, every).count
    if panes > PANES:
        return (
            f"window: {window} and every: {every} need {panes} states at once, and at most {PANES} can be kept; "
            "take lengths with a greater common divisor"
        )
    return None


@dataclass(frozen=True, slots=True)
class Panes:
    """How windows are made of panes: a window has `count` of them, and the next one begins `stride` later.

    `width` is a pane's length, in steps or by time; ``None`` for the one pane of a whole run.

    >>> Panes.of(100, 30)
    Panes(width=Fraction(10, 1), by_time=False, count=10, stride=3)
    >>> [Panes.of("0.5 time").pane(Step(0, 0, time)) for time in (0.0, 0.4, 0.1 + 0.4)]
    [0, 0, 1]
    """

    width: Fraction | None
    by_time: bool
    count: int
    stride: int

    @classmethod
    def of(cls, window: Length, every: Length | None = None) -> "Panes":
        if window == "run":
            return cls(None, False, 1, 1)
        length, apart = _amount(window), _amount(every if every is not None else window)
        width = Fraction(
            math.gcd(length.numerator * apart.denominator, apart.numerator * length.denominator),
            length.denominator * apart.denominator,
        )
        return cls(width, is_time(window), int(length / width), int(apart / width))

    def pane(self, step: Step) -> int:
        """Return the number of the pane that a step is in."""
        if self.width is None:
            return 0
        if self.by_time:
            return math.floor(step.time / float(self.width) + ROUNDING)
        return int(step.sequence // self.width)

    def is_last(self, step: Step) -> bool:
        """Whether no later step can be in this step's pane; of time that is not known before one is in another."""
        return self.width is not None and not self.by_time and (step.sequence + 1) % self.width == 0

    def window_at(self, pane: int) -> int | None:
        """Return the window that ends with a pane, if one does."""
        begin = pane - self.count + 1
        return begin // self.stride if self.width is not None and begin % self.stride == 0 else None

    def earliest(self, pane: int) -> int:
        """Return the first window that has a pane in it."""
        return -((self.count - 1 - pane) // self.stride)


def window_words(window: Length, every: Length | None) -> str:
    """Say how often there is a result.

    >>> window_words(100, None), window_words("0.5 time", "0.1 time"), window_words("run", None)
    ('100 steps', '0.5 time, every 0.1 time', 'run')
    """

    def words(length: Any) -> str:
        return f"{length} step{'s' * (length != 1)}" if isinstance(length, int) else str(length)

    return words(window) + (f", every {words(every)}" if every is not None else "")
