# SPDX-License-Identifier: Apache-2.0
"""The plan from M ranks to N staging nodes, against the definition cell by cell."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.plan import Part, Piece, Site, fault_of_cover, moved, overlaps, parts_by_rank

HERE = Site("n0")
cuts = st.lists(st.integers(0, 60), max_size=12).map(lambda inner: [0, *sorted(inner), 60])


@given(cuts, cuts)
def test_overlaps_are_the_common_cells_and_no_more_than_needed(a: list[int], b: list[int]) -> None:
    parts = overlaps(a, b)
    owners = {cell: (part.a, part.b) for part in parts for cell in range(part.low, part.high)}
    assert sum(part.high - part.low for part in parts) == 60
    assert all(a[i] <= cell < a[i + 1] and b[j] <= cell < b[j + 1] for cell, (i, j) in owners.items())
    assert len(parts) <= len(a) + len(b) - 3


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 100))
def test_every_row_of_every_rank_goes_to_exactly_one_node(ranks: int, nodes: int, rows: int) -> None:
    for parts in parts_by_rank([HERE] * ranks, [HERE] * nodes):
        taken = [row for part in parts for row in range(rows)[part.rows(rows)]]
        assert taken == list(range(rows))


@pytest.mark.parametrize(("ranks", "nodes"), [(1, 1), (3, 5), (5, 3), (1, 4), (300, 7)])
def test_the_load_is_even_to_one_row_per_part(ranks: int, nodes: int) -> None:
    rows = 1000
    load = np.zeros(nodes)
    for parts in parts_by_rank([HERE] * ranks, [HERE] * nodes):
        for part in parts:
            chosen = part.rows(rows)
            load[part.node] += chosen.stop - chosen.start
    assert np.ptp(load) <= ranks / nodes + 2


def test_whole_ranks_stay_whole_when_nodes_divide_them() -> None:
    assert all(len(parts) == 1 for parts in parts_by_rank([HERE] * 12, [HERE] * 4))


sites = st.tuples(st.sampled_from("abc"), st.sampled_from(["", "r", "s"])).map(lambda place: Site(*place))


@given(st.lists(sites, min_size=1, max_size=12), st.lists(sites, min_size=1, max_size=5), st.integers(0, 50))
def test_every_row_goes_to_one_of_the_nearest_nodes(ranks: list[Site], nodes: list[Site], rows: int) -> None:
    plan = parts_by_rank(ranks, nodes)
    for site, parts in zip(ranks, plan, strict=True):
        assert [row for part in parts for row in range(rows)[part.rows(rows)]] == list(range(rows))
        same_host = [n for n, node in enumerate(nodes) if node.host == site.host]
        same_rack = [n for n, node in enumerate(nodes) if site.rack and node.rack == site.rack]
        if len({node.host for node in nodes}) > 1:
            assert {part.node for part in parts} <= set(same_host or same_rack or range(len(nodes)))


def test_who_has_no_node_near_goes_where_the_load_is_least() -> None:
    a, b, c = Site("a"), Site("b"), Site("c")
    plan = parts_by_rank([a, a, a, b, c, c, c, c], [a, b])
    assert [[part.node for part in parts] for parts in plan] == [[0], [0], [0], [1], [0], [1], [1], [1]]


def test_a_rack_comes_before_an_even_load() -> None:
    ranks = [Site("a", "r")] * 4 + [Site("x", "r")] * 2
    plan = parts_by_rank(ranks, [Site("a", "r"), Site("b", "s")])
    assert {part.node for parts in plan for part in parts} == {0}
    without = parts_by_rank([Site(site.host) for site in ranks], [Site("a"), Site("b")])
    assert [parts[0].node for parts in without] == [0, 0, 0, 0, 1, 1]


@given(
    st.lists(sites, min_size=1, max_size=12),
    st.lists(sites, min_size=1, max_size=5),
    st.lists(sites, max_size=3),
    st.sets(st.integers(0, 4)),
)
def test_parts_move_whole_to_nodes_that_are_there(
    ranks: list[Site], nodes: list[Site], more: list[Site], gone: set[int]
) -> None:
    plan = parts_by_rank(ranks, nodes)
    here = {n: site for n, site in enumerate([*nodes, *more]) if n not in gone}
    if not here:
        return
    after = moved(plan, ranks, here)
    assert [[part._replace(node=0) for part in parts] for parts in after] == [
        [part._replace(node=0) for part in parts] for parts in plan
    ]
    assert {part.node for parts in after for part in parts} <= here.keys()
    assert moved(after, ranks, here) == after


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_after_a_move_no_part_would_make_the_load_more_even(ranks: int, nodes: int, later: int, gone: int) -> None:
    plan = parts_by_rank([HERE] * ranks, [HERE] * nodes)
    here = dict.fromkeys(range(gone, gone + later), HERE)
    after = moved(plan, [HERE] * ranks, here)
    load = dict.fromkeys(here, Fraction())
    each: dict[int, list[Fraction]] = {n: [] for n in here}
    for part in (part for parts in after for part in parts):
        weight = Fraction(part.high - part.low, part.of)
        load[part.node] += weight
        each[part.node].append(weight)
    assert all(load[heavy] - load[light] <= w for heavy in here for light in here for w in each[heavy])


def test_nothing_moves_that_need_not() -> None:
    plan = parts_by_rank([HERE] * 6, [HERE] * 3)
    after = moved(plan, [HERE] * 6, {0: HERE, 2: HERE})
    assert [part.node for parts in after for part in parts] == [0, 0, 0, 2, 2, 2]
    split = moved(parts_by_rank([HERE], [HERE] * 2), [HERE], {1: HERE})
    assert split == [[Part(1, 0, 1, 2), Part(1, 1, 2, 2)]]


@given(st.data())
def test_a_cover_is_accepted_exactly_when_every_cell_is_there_once(data: st.DataObject) -> None:
    shape = (data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)))
    pieces, hits = [], np.zeros(shape, int)
    for rank in range(data.draw(st.integers(1, 4))):
        start = tuple(data.draw(st.integers(0, length - 1)) for length in shape)
        count = tuple(data.draw(st.integers(0, length - first)) for first, length in zip(start, shape, strict=True))
        pieces.append(Piece(rank, start, count))
        hits[tuple(slice(first, first + n) for first, n in zip(start, count, strict=True))] += 1
    assert (fault_of_cover(shape, pieces) is None) == bool((hits == 1).all())


def test_a_scalar_is_rank_zeros() -> None:
    assert fault_of_cover((), [Piece(0, (), ()), Piece(1, (), ())]) is None
    assert "rank 0" in str(fault_of_cover((), [Piece(1, (), ())]))
