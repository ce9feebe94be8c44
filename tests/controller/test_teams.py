# SPDX-License-Identifier: Apache-2.0
"""Which processes of a learner work together, while they come and go."""

from collections.abc import Callable

import pytest

from insitu.controller.teams import Team
from insitu.wire.learning import Meet


@pytest.fixture
def team() -> Team:
    """Three that work together."""
    team = Team(3, "here")
    assert team.join(1, 0, ()) == ()
    assert team.join(0, 0, ()) == ()
    assert team.join(2, 0, ()) == (0, 1, 2)
    return team


def test_the_first_team_waits_for_all_but_those_that_never_had_anything_to_do() -> None:
    team = Team(3, "here")
    assert team.join(1, 0, ()) == team.join(0, 0, ()) == ()
    assert team.finish(2) == (0, 1)
    assert team.meet() == Meet(1, (0, 1), "here")


def test_who_has_waited_too_long_begins_without_the_others() -> None:
    team = Team(3, "here")
    assert team.join(1, 0, ()) == team.join(0, 0, ()) == ()
    assert team.join(1, 0, ()) == (0, 1)
    assert team.join(2, 0, ()) == (0, 1, 2)


def test_those_that_are_left_go_on_at_once_and_the_new_one_comes_in(team: Team) -> None:
    assert team.lose(1) == (0, 2)
    assert team.meet().generation == 2
    assert team.join(0, 1, ()) == ()  # it has not heard of the new one yet
    assert team.join(1, 0, ()) == (0, 1, 2)
    assert team.meet().generation == 3


def test_a_torn_team_is_made_anew_when_all_have_said_so(team: Team) -> None:
    assert team.join(0, 1, ()) == team.join(2, 1, ()) == ()
    assert team.join(1, 1, ()) == (0, 1, 2)


def test_one_that_stalls_is_left_out_and_comes_in_again(team: Team) -> None:
    assert team.join(0, 1, (2,)) == ()
    assert team.join(1, 1, (2,)) == (0, 1)
    assert team.join(2, 1, ()) == (0, 1, 2)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_after_all_have_died_all_are_waited_for(team: Team, order: tuple[int, ...]) -> None:
    assert team.lose(order[0]) == tuple(sorted(order[1:]))
    assert team.lose(order[1]) == (order[2],)
    assert team.lose(order[2]) == ()
    assert team.join(order[0], 0, ()) == team.join(order[1], 0, ()) == ()
    assert team.join(order[2], 0, ()) == (0, 1, 2)


@pytest.mark.parametrize("end", [lambda team: team.finish(0), lambda team: team.finish(2)])
def test_when_one_has_ended_its_work_there_is_none_for_the_others(team: Team, end: Callable[[Team], object]) -> None:
    end(team)
    assert team.join(1, 1, ()) == (1,)
    assert team.meet() == Meet(1, (), "here")


def test_those_given_up_are_waited_for_no_more(team: Team) -> None:
    assert team.lose(0, for_good=True) == (1, 2)
    assert team.lose(1, for_good=True) == (2,)
    assert team.alive
    assert team.lose(2, for_good=True) == ()
    assert not team.alive
