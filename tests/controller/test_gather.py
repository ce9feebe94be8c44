# SPDX-License-Identifier: Apache-2.0
"""Windows wait for the nodes that were fed with any of their steps, whoever comes and goes meanwhile."""

import numpy as np

from insitu.controller.gather import Gather, Rows, Window
from insitu.operator import Operator
from insitu.wire.messages import Entry, Held, Partial
from tests.end_to_end.folds import Total

OPERATORS: dict[str, Operator] = {
    "ten": Total(of="u", over="step", window=10),
    "each": Total(of="u", over="space"),
}


def window(number: int, since: int | None = None, upto: int | None = None) -> Partial:
    low, high = 10 * number if since is None else since, 10 * number + 9 if upto is None else upto
    entry = Entry(number, high - low + 1, low, high, 0.0, ((0,), (4,)), {"total": np.ones(4), "number": 1})
    return Partial("ten", 0, number, low, high, True, (entry,))


def held(number: int) -> Held:
    return Held("ten", 0, number, 10 * number, 10 * number + 9, True, f"key-{number}", 8, 10, 0, 9, 0.0, ())


def rows(upto: int, *keys: int) -> Partial:
    entries = tuple(Entry(key, 1, key, key, 0.0, None, {"total": np.ones(()), "number": 1}) for key in keys)
    return Partial("each", 0, -1, -1, upto, True, entries)


def windows(done: list[Window | Rows]) -> list[tuple[int, bool]]:
    return [(one.window, one.complete) for one in done if isinstance(one, Window)]


def test_only_windows_that_a_lost_node_had_steps_of_are_incomplete() -> None:
    gather = Gather(OPERATORS, [0, 1])
    gather.partial(1, window(0))
    gather.held(1, held(1))
    gather.partial(0, window(2))
    assert windows(gather.lose(1, decided=24)) == [(2, False)]
    assert windows(gather.partial(0, window(0))) == [(0, True)]
    assert windows(gather.partial(0, window(1))) == [(1, False)]
    assert windows(gather.partial(0, window(3))) == [(3, True)]


def test_a_node_that_joins_is_waited_for_from_its_first_step_on() -> None:
    gather = Gather(OPERATORS, [0])
    gather.join(1, 25)
    assert windows(gather.partial(0, window(1))) == [(1, True)]
    assert windows(gather.partial(0, window(2))) == []
    assert windows(gather.partial(1, window(2, since=25))) == [(2, True)]
    assert windows(gather.partial(1, window(3))) == []


def test_a_step_whose_state_was_lost_with_a_node_yields_no_row() -> None:
    gather = Gather(OPERATORS, [0, 1])
    gather.partial(1, rows(2, 0, 1, 2))
    gather.partial(0, rows(1, 0, 1))
    gather.lose(1, decided=4)
    [done] = gather.partial(0, rows(6, 2, 3, 4, 5, 6))
    assert isinstance(done, Rows)
    assert [entry.key for entry in done.entries] == [2, 5, 6]
    assert gather.lost_steps == {"each": 2}


def test_a_node_that_joins_has_said_all_up_to_its_first_step() -> None:
    gather = Gather(OPERATORS, [0])
    gather.join(1, 3)
    [done] = gather.partial(0, rows(4, 0, 1, 2, 3, 4))
    assert isinstance(done, Rows)
    assert [entry.key for entry in done.entries] == [0, 1, 2]
