# SPDX-License-Identifier: Apache-2.0
"""Which steps a state has seen, for operators that ask what came after what.

A merge does not know an order: it may be given the steps 0 to 9 and 20 to 29, and 10 to 19 only later. So a state of
such an operator keeps *stretches*: dicts with ``first`` and ``last``, sequence numbers, and whatever the operator has
to know about their ends. Those that touch are glued together; as long as a hole may still be filled, its ends are kept.

Within a stretch nothing is missing that could still come. Steps of one state arrive in order, so what `update` has
passed over is lost for good (or lacks the variable), and the stretch goes on behind it. States that are merged must
have been folded from stretches that do not interleave, as all states of one place are.
"""

from collections.abc import Callable, Iterable

from insitu.operator import State

Stretch = State


def going_on(stretches: list[Stretch], first: int) -> Stretch | None:
    """Return the stretch that steps from `first` on continue, or ``None`` where none ends before them."""
    latest = max(stretches, key=lambda stretch: int(stretch["last"]), default=None)
    return latest if latest is not None and latest["last"] < first else None


def gone_on(stretches: list[Stretch], first: int, last: int) -> None:
    """Note that `update` was given the steps from `first` to `last`; for stretches that are nothing but their ends."""
    stretch = going_on(stretches, first)
    if stretch is None:
        stretches.append({"first": first})
    (stretch or stretches[-1])["last"] = last


def glued(
    stretches: Iterable[Stretch], glue: Callable[[Stretch, Stretch], object] = lambda a, b: None
) -> list[Stretch]:
    """Return stretches in order, those that touch as one. They are changed in place.

    ``glue(a, b)`` brings what `a` knows about its ends up to date with `b`, which follows it.

    >>> glued([{"first": 5, "last": 6}, {"first": 0, "last": 1}, {"first": 2, "last": 3}])
    [{'first': 0, 'last': 3}, {'first': 5, 'last': 6}]
    """
    done: list[Stretch] = []
    for stretch in sorted(stretches, key=lambda stretch: (stretch["first"], stretch["last"])):
        if done and done[-1]["last"] + 1 == stretch["first"]:
            glue(done[-1], stretch)
            done[-1]["last"] = stretch["last"]
        else:
            done.append(stretch)
    return done


def within(stretches: Iterable[Stretch], first: int, last: int) -> bool:
    """Say whether all that can ever be known of the steps from `first` to `last` is known: they lie in one stretch."""
    return any(stretch["first"] <= first and last <= stretch["last"] for stretch in stretches)
