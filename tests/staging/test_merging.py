# SPDX-License-Identifier: Apache-2.0
import copy
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from insitu.errors import OperatorError
from insitu.model import Array, Extent, Step
from insitu.operator import Batch
from insitu.results import Provenance
from insitu.results.store import ResultStore
from insitu.staging.merging import Part, Place, Recipe, Target, bounding_box, fault_of_places, join_numbers
from insitu.steering.series import OVER_CELLS, Reference, number_of
from insitu.testing import check_operator
from tests.results.means import Anomalies, Means, field

SHAPE = (13, 10)
CELLS = Recipe.of("cells", Means(of="u", over="step"), field(SHAPE))
JOINT = Recipe.of("joint", Anomalies(of="u", over="step"), field(SHAPE))
BOTH = Recipe.of("both", Means(of="u", over=("step", "space")), field(SHAPE))


def tiles(shape: Extent, cuts: tuple[tuple[int, ...], ...]) -> list[Place]:
    """Places that tile `shape`, cut along each axis."""
    axes = [list(zip((0, *cut), (*cut, n), strict=True)) for cut, n in zip(cuts, shape, strict=True)]
    return [(tuple(a for a, _ in tile), tuple(b - a for a, b in tile)) for tile in product(*axes)]


def states(recipe: Recipe, steps: Array, places: list[Place]) -> list[Part]:
    """The parts that folding `steps` at `places` gives: one with all of them where no cells are kept."""
    inputs = field(steps.shape[1:])
    parts: list[Part] = []
    for start, count in places:
        window = tuple(slice(low, low + n) for low, n in zip(start, count, strict=True))
        arrays = [np.array(step[window]) for step in steps]
        batch = Batch([Step(k, k, 0.0) for k in range(len(steps))], inputs, {"u": start}, {"u": arrays})
        state = recipe.operator.update(recipe.operator.init(), batch)
        parts.append((start, count, state) if recipe.cells else ((), (), state))
    return parts


def fields(seed: int = 0, n: int = 5, shape: Extent = SHAPE) -> Array:
    return np.random.default_rng(seed).normal(size=(n, *shape))


TILINGS = [((), ()), ((5,), ()), ((1, 2, 7), (3, 9))]


@pytest.mark.parametrize("cuts", TILINGS)
def test_tiles_make_the_whole_field(cuts: tuple[tuple[int, ...], ...]) -> None:
    steps = fields()
    row = CELLS.assemble(states(CELLS, steps, tiles(SHAPE, cuts)))[0]
    np.testing.assert_allclose(row["mean"], steps.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(row["twice"][1], 2 * steps.mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(row["kinds"], [0, 1, 2])


@pytest.mark.parametrize("cuts", TILINGS)
def test_places_that_need_each_other_are_finalised_with_what_all_of_them_say(cuts: tuple[tuple[int, ...], ...]) -> None:
    steps = fields()
    places = tiles(SHAPE, cuts)
    parts = states(JOINT, steps[:2], places) + states(JOINT, steps[2:], places[::-1])
    row = JOINT.assemble(parts)[0]
    np.testing.assert_allclose(row["anomaly"], steps.mean(axis=0) - steps.mean(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(row["level"], steps.mean(), rtol=1e-12)
    nodes = [JOINT.merge(parts)[k::2] for k in range(2)]
    summary = JOINT.combine(*(JOINT.summarize(node) for node in nodes))
    done = [finalized for node in nodes for finalized in JOINT.finalize(node, summary)]
    for start, count, arrays in done:
        cells = tuple(slice(low, low + n) for low, n in zip(start, count, strict=True))
        np.testing.assert_array_equal(arrays["anomaly"], row["anomaly"][cells])


def test_the_laws_of_places_that_need_each_other_can_be_broken() -> None:
    class Forgetful(Anomalies):
        def combine(self, a: dict, b: dict) -> dict:
            return max(a, b, key=lambda summary: summary["cells"])

    u = field((6, 4))["u"]
    check_operator(Anomalies(of="u", over="step"), [u])
    with pytest.raises(AssertionError, match="any split into places gives the same"):
        check_operator(Forgetful(of="u", over="step"), [u])


def test_states_of_one_place_are_merged_first() -> None:
    steps = fields(n=6)
    places = tiles(SHAPE, ((4,), ()))
    parts = states(CELLS, steps[:4], places) + states(CELLS, steps[4:], places[::-1])
    np.testing.assert_allclose(CELLS.assemble(parts)[0]["mean"], steps.mean(axis=0), rtol=1e-14)


def test_states_without_cells_are_merged_into_one() -> None:
    steps = fields()
    parts = states(BOTH, steps, tiles(SHAPE, ((3, 8), (4,))))
    (merged,) = BOTH.merge(parts[:2], parts[2:3], parts[3:])
    assert merged[:2] == ((), ())
    np.testing.assert_allclose(BOTH.assemble(parts)[0]["mean"], steps.mean(), rtol=1e-13)


@pytest.mark.parametrize("recipe", [CELLS, BOTH])
def test_merging_leaves_what_it_is_given_as_it_is_so_that_a_task_may_run_again(recipe: Recipe) -> None:
    place = tiles(SHAPE, ((), ()))
    empty = [(*part[:2], recipe.operator.init()) for part in states(recipe, fields(), place)]
    parts = empty + [part for seed in range(3) for part in states(recipe, fields(seed), place)]
    before = copy.deepcopy(parts)
    recipe.assemble(parts)[0]
    for (*_, state), (*_, untouched) in zip(parts, before, strict=True):
        assert state["n"] == untouched["n"]
        np.testing.assert_array_equal(state.get("total", 0), untouched.get("total", 0))


def test_cells_of_no_part_are_missing() -> None:
    parts = states(CELLS, fields(), tiles(SHAPE, ((5,), ())))[1:]
    row = CELLS.assemble(parts)[0]
    assert np.isnan(row["mean"][:5]).all()
    assert np.isnan(row["twice"][:, :5]).all()
    assert np.isfinite(row["mean"][5:]).all()
    nothing = CELLS.assemble([])[0]
    assert np.isnan(nothing["mean"]).all()
    assert not nothing["kinds"].any()


@pytest.mark.parametrize("limit_bytes", [1, 100, 300, 1000, 10**6])
@pytest.mark.parametrize("cuts", TILINGS)
def test_bundles_hold_every_cell_once_and_whatever_they_are_the_row_is_the_same(
    limit_bytes: int, cuts: tuple[tuple[int, ...], ...]
) -> None:
    parts = states(CELLS, fields(), tiles(SHAPE, cuts))
    expected, done = CELLS.assemble(parts)[0], [CELLS.finalize([part]) for part in parts]
    seen = {name: np.zeros(array.shape, int) for name, array in expected.items()}
    for bundle in CELLS.bundles(limit_bytes):
        sizes = [prod(s.stop - s.start for s in slab) * expected[name].itemsize for name, slab in bundle]
        assert sum(sizes) <= limit_bytes or len(bundle) == 1
        touched = [each for each in done if CELLS.touches(bounding_box([each[0][:2]]), bundle)]
        for name, slab, values in CELLS.fill(bundle, [CELLS.cut(each, bundle) for each in touched]):
            np.testing.assert_array_equal(values, expected[name][slab])
            seen[name][slab] += 1
    assert all((count == 1).all() for count in seen.values())


def test_parts_far_from_a_slab_are_not_asked_for() -> None:
    upper, lower = [bounding_box([place]) for place in tiles(SHAPE, ((5,), ()))]
    first, *_, last = [bundle for bundle in CELLS.bundles(80) if bundle[0][0] == "mean"]
    assert CELLS.touches(upper, first)
    assert not CELLS.touches(lower, first)
    assert not CELLS.touches(upper, last)


def test_a_target_writes_its_row(tmp_path: Path) -> None:
    path = tmp_path / "results.zarr"
    store = ResultStore.create(path, {})
    store.declare("cells", CELLS.operator, field(SHAPE), {})
    parts = states(CELLS, fields(), tiles(SHAPE, ((5,), ())))
    done = CELLS.finalize(parts)
    for bundle in CELLS.bundles():
        Target(CELLS, path, 0).write(bundle, [CELLS.cut(done, bundle)])
    assert xr.open_zarr(path, group="cells", chunks=None).sizes["window"] == 0
    store.publish("cells", [Provenance(0, 0, 4, 0.0, 5, 0, True)])
    with xr.open_zarr(path, group="cells", chunks=None) as written:
        for name, values in CELLS.assemble(parts)[0].items():
            np.testing.assert_array_equal(written[name][0], values)


@pytest.mark.parametrize(
    ("places", "fault"),
    [
        (tiles(SHAPE, ((1, 2, 7), (3, 9))), None),
        (tiles(SHAPE, ((5,), ())) * 3, None),
        ([((), ())] * 2, None),
        ([], None),
        (
            [*tiles(SHAPE, ((5,), ())), ((4, 2), (2, 2))],
            "start (0, 0) count (5, 10) and start (4, 2) count (2, 2)",
        ),
    ],
)
def test_places_that_overlap_are_named(places: list[Place], fault: str | None) -> None:
    assert fault_of_places(tuple(places)) == fault


class Liar(Means):
    def finalize(self, state: dict) -> dict[str, Array]:
        arrays = super().finalize(state)
        return {"mean": arrays["mean"].astype("f4"), "twice": arrays["twice"], "kinds": arrays["kinds"]}


def test_an_operator_that_yields_what_it_did_not_promise_is_named() -> None:
    recipe = Recipe.of("liar", Liar(of="u", over="step"), field(SHAPE))
    with pytest.raises(OperatorError, match=r"'liar' yielded 'mean' as float32 .* promises float64 of shape \(5, 10\)"):
        recipe.finalize(states(recipe, fields(), tiles(SHAPE, ((5,), ())))[:1])


def test_a_single_number_per_step_has_a_place_too() -> None:
    recipe = Recipe.of("scalar", Means(of="u", over="step"), field(()))
    parts = states(recipe, fields(shape=()), [((), ())])
    assert recipe.assemble(parts)[0]["mean"].shape == ()


@pytest.mark.parametrize("recipe", [CELLS, JOINT, BOTH], ids=["cells", "joint", "both"])
@pytest.mark.parametrize("cuts", TILINGS)
def test_numbers_of_a_row_are_those_of_its_arrays(recipe: Recipe, cuts: tuple[tuple[int, ...], ...]) -> None:
    """However the places are spread over nodes, and though no node has the row."""
    parts = states(recipe, fields(), tiles(SHAPE, cuts) if recipe.cells else [((0, 0), SHAPE)])
    row, _ = recipe.assemble(parts)
    wanted = [
        Reference(recipe.name, result, word)
        for result, array in row.items()
        for word in (OVER_CELLS if array.ndim else [""])
    ] + [Reference(recipe.name, result, f"[{n}]") for result, array in row.items() if array.ndim == 1 for n in (0, -1)]
    summary = recipe.summarize(parts) if recipe.joint else None
    nodes = [recipe.finalize(parts[k::2], summary) for k in range(2 if recipe.cells else 1) if parts[k::2]]
    numbers = join_numbers([recipe.numbers(done, wanted) for done in nodes])
    expected = {each: number_of(row[each.result], each.over_cells) for each in wanted}
    assert numbers == pytest.approx(expected, rel=1e-13)
    assert len(numbers) > 2


def test_a_cell_of_a_line_is_found_on_the_node_that_has_it() -> None:
    recipe = Recipe.of("line", Means(of="u", over="step"), field((7,)))
    parts = states(recipe, fields(shape=(7,)), tiles((7,), ((2, 5),)))
    wanted = [Reference("line", "mean", f"[{n}]") for n in (0, 1, 2, 4, 5, 6, -1)]
    numbers = join_numbers([recipe.numbers(recipe.finalize([part]), wanted) for part in parts])
    row = recipe.assemble(parts)[0]["mean"]
    assert [numbers[each] for each in wanted] == pytest.approx([row[int(each.over_cells[1:-1])] for each in wanted])
