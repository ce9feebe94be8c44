# SPDX-License-Identifier: Apache-2.0
"""States that ranks ship: whole when all ranks have sent theirs, lost where one of them never does."""

import numpy as np

from insitu.staging.shipped import Shipped, Whole, merged
from insitu.wire.messages import Entry, Partial, Ship
from tests.end_to_end.folds import Total

SUM = Total(of="u", over=["step", "space"], window=2, where="rank")
EACH = Total(of="u", over="space", where="rank")


def window(number: int, value: float, *, entries: bool = True) -> Ship:
    entry = Entry(number, 2, 2 * number, 2 * number + 1, 1.0, None, {"total": np.array(value), "number": 1})
    return Ship(16, Partial("sum", 0, number, 2 * number, 2 * number + 1, True, (entry,) if entries else ()))


def steps(first: int, upto: int, value: float) -> Ship:
    entries = tuple(
        Entry(n, 1, n, n, float(n), None, {"total": np.array(value), "number": 1}) for n in range(first, upto + 1)
    )
    return Ship(16 * len(entries), Partial("each", 0, -1, -1, upto, True, entries))


def shipped(*ranks: int) -> Shipped:
    return Shipped(frozenset({"sum", "each"}), ranks)


def test_a_window_is_whole_with_the_last_rank_and_merged_in_their_order() -> None:
    it = shipped(0, 2)
    assert it.take(2, window(0, 5.0)) == []
    [whole] = it.take(0, window(0, 3.0))
    assert whole.nbytes == {0: 16, 2: 16}
    assert [partial.entries[0].state["total"] for partial in whole.partials] == [3.0, 5.0]
    done = merged(SUM, whole)
    [entry] = done.entries
    assert (done.window, done.since, done.upto, done.full, entry.steps) == (0, 0, 1, True, 2)
    assert entry.state == {"total": 8.0, "number": 2}


def test_single_steps_go_on_as_far_as_all_ranks_have_come() -> None:
    it = shipped(0, 1)
    assert it.take(0, steps(0, 4, 1.0)) == []
    [whole] = it.take(1, steps(0, 1, 2.0))
    done = merged(EACH, whole)
    assert (done.window, done.upto) == (-1, 1)
    assert [(entry.key, entry.state["total"]) for entry in done.entries] == [(0, 3.0), (1, 3.0)]
    assert whole.nbytes == {0: 0, 1: 32}  # of rank 0 something is still here
    [whole] = it.take(1, steps(2, 9, 2.0))
    done = merged(EACH, whole)
    assert [entry.key for entry in done.entries] == [2, 3, 4]
    assert (done.upto, whole.nbytes) == (4, {0: 80, 1: 0})


def test_a_window_that_a_rank_never_sent_is_lost_unless_nothing_is_in_it() -> None:
    it = shipped(0, 1)
    it.take(0, window(0, 1.0))
    it.take(0, window(1, 0.0, entries=False))
    whole, lost = it.finish()
    assert lost == [("sum", 0, (1,))]
    [empty] = whole
    assert merged(SUM, empty).entries == ()
    assert merged(SUM, empty).window == 1


def test_of_an_operator_that_is_stopped_nothing_is_kept() -> None:
    it = shipped(0, 1)
    it.take(0, window(0, 1.0))
    it.take(1, window(1, 1.0))
    assert it.dismiss("sum") == [Whole("sum", (), {0: 16}), Whole("sum", (), {1: 16})]
    assert it.take(0, window(2, 1.0)) == [Whole("sum", (), {0: 16})]
    assert it.finish() == ([], [])
    assert it.take(0, Ship(8, Partial("unknown", 0, 0, 0, 1, True, ()))) == [Whole("unknown", (), {0: 8})]
