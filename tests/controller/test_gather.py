# SPDX-License-Identifier: Apache-2.0
"""Windows wait for the nodes that were fed with any of their steps, whoever comes and goes meanwhile."""

from typing import Any

import numpy as np
import pytest

from insitu.controller.gather import Gather, Rows, Window
from insitu.model import Block, Step, Variable
from insitu.operator import Operator
from insitu.staging.assembler import ReadyStep
from insitu.staging.folds import Failure, Folds, Yield
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


def test_steps_that_no_node_saw_are_missing_from_the_window_of_time_behind_them() -> None:
    gather = Gather({"it": Total(of="u", over="step", window="4 time")}, [0])
    gather.join(1, 25)

    def hand_in(node: int, number: int, since: int, upto: int) -> list[tuple[int, int, int]]:
        entry = Entry(number, upto - since + 1, since, upto, 0.0, ((0,), (4,)), {"total": np.ones(4), "number": 1})
        done = gather.partial(node, Partial("it", 0, number, since, upto, True, (entry,)))
        return [(one.window, one.since, one.upto) for one in done if isinstance(one, Window)]

    assert hand_in(0, 0, 0, 9) == [(0, 0, 9)]
    gather.lose(0, decided=24)
    assert hand_in(1, 2, 25, 31) == [(2, 10, 31)], "what only node 0 had, and what was dropped with it"
    assert hand_in(1, 3, 32, 38) == [(3, 32, 38)]


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


STREAM, JOINS, LEAVES = 47, 13, 21
U = Variable("u", np.dtype("f8"), (4,), ("x",))


def ready(sequence: int, here: bool = True) -> ReadyStep:
    block = Block(U, (0,), np.arange(4.0) + sequence)
    if not here:
        return ReadyStep(Step(sequence, -1, 0.0), {}, {}, elsewhere=True)
    return ReadyStep(Step(sequence, sequence, 0.5 * sequence), {0: {"u": block}}, {})


def hand_over(gather: Gather, node: int, done: list[Yield | Failure]) -> list[Window | Rows]:
    complete: list[Window | Rows] = []
    for one in done:
        assert isinstance(one, Yield)
        complete += gather.partial(
            node, Partial(one.operator, 0, one.window, one.since, one.upto, one.full, one.entries)
        )
    return complete


@pytest.mark.parametrize(
    "windows",
    [
        {"window": 10},
        {"window": 12, "every": 4},
        {"window": "run"},
        {"window": "4 time"},
        {"window": "5 time", "every": "1 time"},
        {"over": "space"},
    ],
    ids=str,
)
def test_what_one_node_folds_up_to_a_step_and_another_one_from_it_on_is_what_one_alone_folds(
    windows: dict[str, Any],
) -> None:
    """The new node is told of steps before the first one that it has; the other one hears of some that it has not."""
    operators: dict[str, Operator] = {"it": Total(**{"of": "u", "over": "step", **windows})}
    alone, first, second = Folds(operators, 2**30), Folds(operators, 2**30), Folds(operators, 2**30, begin=JOINS)
    whole, parted = Gather(operators, [0]), Gather(operators, [0])
    expected = hand_over(whole, 0, [*alone.fold([ready(n) for n in range(STREAM)]), *alone.finish(STREAM)])
    done = hand_over(parted, 0, first.fold([ready(n) for n in range(JOINS)]))
    parted.join(1, LEAVES)
    for n in range(JOINS, LEAVES):
        done += hand_over(parted, 0, first.fold([ready(n)]))
        done += hand_over(parted, 1, second.fold([ready(n, here=False)]))
    done += hand_over(parted, 0, first.fold([ready(n, here=False) for n in (LEAVES, LEAVES + 1)]))
    done += hand_over(parted, 1, second.fold([ready(n) for n in range(LEAVES, 30)]))
    parted.leave(0)
    done += hand_over(parted, 0, first.leave())
    done += parted.left(0)
    done += hand_over(parted, 1, [*second.fold([ready(n) for n in range(30, STREAM)]), *second.finish(STREAM)])
    done += parted.conclude()
    assert results(operators["it"], done) == results(operators["it"], expected)
    assert parted.abandon() == []


def results(operator: Operator, done: list[Window | Rows]) -> list[Any]:
    """Return windows, or single steps, in plain numbers."""
    plain: list[Any] = []
    for one in done:
        if isinstance(one, Rows):
            plain += [(entry.key, entry.state["number"], float(entry.state["total"])) for entry in one.entries]
        else:
            state = operator.init()
            for entry in one.entries:
                state = operator.merge(state, entry.state)
            totals = [] if state["total"] is None else state["total"].tolist()
            plain.append([one.window, one.since, one.upto, one.full, one.complete, state["number"], totals])
    return plain
