# SPDX-License-Identifier: Apache-2.0
"""Each way of a step that is drawn is gone by the code, and the page is what the table says.

That no other way is gone `test_publisher.py` sees: each of its ranks is watched.
"""

from collections.abc import Callable

import pytest

from tests.client import test_publisher as publisher
from tests.client.figure import PAGE, draw
from tests.client.test_publisher import MakeRank, make, ways
from tests.client.ways import WAYS, At, Watch

__all__ = ["make", "ways"]

#: A test that goes each way.
TESTS: dict[tuple[At, At], Callable[[MakeRank], None]] = {
    (At.OPEN, At.WAITS): publisher.test_the_end_waits_for_the_last_steps_and_takes_leave,
    (At.OPEN, At.DISK): publisher.test_what_another_rank_has_dropped_leaves_the_disk_too,
    (At.OPEN, At.DROPPED): publisher.test_the_newest_step_is_dropped_without_a_wait,
    (At.WAITS, At.UNDER_WAY): publisher.test_the_end_waits_for_the_last_steps_and_takes_leave,
    (At.WAITS, At.DROPPED): publisher.test_a_new_step_takes_the_place_of_the_oldest_that_waits,
    (At.WAITS, At.FREE): publisher.test_a_step_that_waits_for_a_node_that_is_gone_takes_no_room,
    (At.DISK, At.WAITS): publisher.test_what_another_rank_has_dropped_leaves_the_disk_too,
    (At.DISK, At.DROPPED): publisher.test_what_another_rank_has_dropped_leaves_the_disk_too,
    (At.UNDER_WAY, At.FREE): publisher.test_the_end_waits_for_the_last_steps_and_takes_leave,
    (At.UNDER_WAY, At.DROPPED): publisher.test_what_a_connection_took_along_is_dropped_and_its_credit_comes_back,
}


def test_the_page_is_drawn_from_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == draw(), "draw it anew: python -m tests.client.figure"


def test_each_way_has_a_test() -> None:
    assert TESTS.keys() == {(at, to) for at, after in WAYS.items() for to in after}


@pytest.mark.parametrize(
    ("way", "test"), TESTS.items(), ids=lambda each: "-".join(at.name for at in each) if isinstance(each, tuple) else ""
)
def test_each_way_is_gone(ways: Watch, make: MakeRank, way: tuple[At, At], test: Callable[[MakeRank], None]) -> None:
    test(make)
    assert way in ways.gone
