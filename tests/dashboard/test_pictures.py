# SPDX-License-Identifier: Apache-2.0
"""What is looked at is asked for, one after the other and as often as it may be; the nodes' parts make up a picture."""

from dataclasses import replace

import numpy as np

from insitu.dashboard.pictures import EVERY_S, PATIENCE_S, WANTED_S, Looks, Wanted, assembled
from insitu.model import Variable
from insitu.wire.viewing import NEWEST, Sight

FIELD = Variable("u", np.dtype("f8"), (5, 4), ("y", "x"))
VALUES = np.arange(20, dtype=np.float32).reshape(5, 4)


def sight(number: int, parts: int, start: int, data: np.ndarray, why: str = "") -> Sight:
    places = () if why else (((start, 0), data.shape),)
    buffers = () if why else (data.tobytes(),)
    return Sight(number, parts, FIELD, 7, 70, 0.7, (1, 1), places, why, buffers)


def test_the_parts_of_all_nodes_make_up_the_picture() -> None:
    looks, wanted = Looks(), Wanted("u")
    assert looks.want(wanted, 0.0) is None
    look = looks.next(0.0)
    assert look is not None
    assert not looks.take(sight(look.number, 2, 3, VALUES[3:]))
    assert looks.take(sight(look.number, 2, 0, VALUES[:3]))
    picture = looks.want(wanted, 0.1)
    assert picture is not None
    np.testing.assert_array_equal(picture.values, VALUES)
    assert (picture.index, picture.time) == (70, 0.7)


def test_what_is_missing_is_not_finite() -> None:
    picture = assembled([sight(1, 1, 3, VALUES[3:])], {})
    assert np.isnan(picture.values[:3]).all()
    np.testing.assert_array_equal(picture.values[3:], VALUES[3:])


def test_rows_of_particles_are_put_together() -> None:
    atoms = Variable("atoms", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
    parts = [
        Sight(1, 2, atoms, 7, 70, 0.7, (2, 1), (((0, 0), (n, 3)),), "", (np.full((n, 3), n, "f4").tobytes(),))
        for n in (2, 0, 1)
    ]
    assert assembled(parts, {}).values[:, 0].tolist() == [2, 2, 1]


def test_why_there_is_no_picture_is_kept() -> None:
    assert assembled([sight(1, 1, 0, VALUES, why="'u' has no dim 't'")], {}).why == "'u' has no dim 't'"


def test_what_no_node_has_yet_is_asked_for_again() -> None:
    looks, wanted = Looks(), Wanted("u")
    looks.want(wanted, 0.0)
    for now in (0.0, EVERY_S):
        look = looks.next(now)
        assert look is not None
        assert not looks.take(replace(sight(look.number, 1, 0, VALUES), variable=None, pieces=(), buffers=()))
        assert looks.want(wanted, now) is None


def test_nothing_is_asked_for_that_nobody_wants() -> None:
    assert Looks().next(0.0) is None


def test_only_one_look_is_under_way_until_nobody_can_expect_its_answer_any_more() -> None:
    looks = Looks()
    looks.want(Wanted("u"), 0.0)
    first = looks.next(0.0)
    assert first is not None
    assert looks.next(PATIENCE_S / 2) is None
    second = looks.next(PATIENCE_S)
    assert second is not None
    assert (first.since, second.since) == (None, NEWEST)
    assert not looks.take(sight(first.number, 1, 0, VALUES))
    assert looks.take(sight(second.number, 1, 0, VALUES))


def test_where_nodes_have_retained_different_steps_the_older_is_asked_for() -> None:
    looks = Looks()
    looks.want(Wanted("u"), 0.0)
    look = looks.next(0.0)
    assert look is not None
    assert not looks.take(replace(sight(look.number, 2, 0, VALUES[:3]), sequence=8))
    assert not looks.take(sight(look.number, 2, 3, VALUES[3:]))
    again = looks.next(EVERY_S)
    assert again is not None
    assert again.since == 7


def test_several_wanted_take_turns_and_none_comes_too_often() -> None:
    looks, asked, now = Looks(), [], 0.0
    while now < 1.0:
        for name in ("u", "v"):
            looks.want(Wanted(name), now)
        look = looks.next(now)
        if look is not None:
            asked.append(look.variable)
            looks.take(sight(look.number, 1, 0, VALUES))
        now += 0.01
    assert abs(asked.count("u") - asked.count("v")) <= 1
    assert asked.count("u") <= 1 / EVERY_S + 1


def test_what_nobody_looks_at_any_more_is_forgotten() -> None:
    looks = Looks()
    looks.want(Wanted("u"), 0.0)
    assert looks.next(WANTED_S + 1) is None
