# SPDX-License-Identifier: Apache-2.0
"""Where all ranks can still stop."""

from insitu.controller.stopping import LEAD_S, PATIENCE_S, Stopping
from insitu.wire.messages import Stop


def test_what_a_node_said_before_the_question_is_too_old() -> None:
    stopping = Stopping()
    stopping.heard(0, 3, 0.0)
    stopping.ask("enough", 0.05)
    assert stopping.decide([0], 4, 0.06) is None
    stopping.heard(0, 31, 0.1)
    stop = stopping.decide([0], 4, 0.1)
    # 28 steps in a tenth of a second, and as fast for LEAD_S more.
    assert stop == Stop(31 + round(280 * LEAD_S), "enough")


def test_it_is_said_once() -> None:
    stopping = Stopping()
    stopping.ask("enough", 0.0)
    stopping.ask("more than enough", 0.0)
    stopping.heard(0, 5, 0.1)
    assert stopping.decide([0], 6, 0.1) == stopping.stop == Stop(7, "enough")
    assert stopping.decide([0], 6, 0.2) is None


def test_the_fastest_rank_at_any_node_counts() -> None:
    stopping = Stopping()
    stopping.ask("enough", 0.0)
    for now in (0.1, 0.2):
        stopping.heard(0, round(10 * now), now)
        stopping.heard(1, round(1000 * now), now)
    stop = stopping.decide([0, 1], 0, 0.2)
    assert stop is not None
    assert stop.at == 200 + round(1000 * LEAD_S)


def test_a_node_that_says_nothing_is_waited_for_but_not_for_long() -> None:
    stopping = Stopping()
    stopping.ask("enough", 0.0)
    stopping.heard(0, 5, 0.1)
    assert stopping.decide([0, 1], 6, 0.2) is None
    assert stopping.decide([0, 1], 6, PATIENCE_S) == Stop(7, "enough")


def test_an_old_pace_is_forgotten() -> None:
    stopping = Stopping()
    stopping.heard(0, 0, 0.0)
    stopping.heard(0, 1000, 1.0)
    stopping.ask("enough", 10.0)
    stopping.heard(0, 1001, 10.1)
    assert stopping.decide([0], 1002, 10.1) == Stop(1003, "enough")
