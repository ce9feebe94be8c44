# SPDX-License-Identifier: Apache-2.0
"""Functions of a window are given whole arrays, whatever their parts and wherever they lie, and may go wrong alone."""

from typing import Any

import numpy as np
import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.programs.shapes import RANKS, STEPS, field, particles, scalar
from tests.end_to_end.runs import Left, program, total

WRONG = {
    "broken": "ZeroDivisionError: nothing to divide by in a function",
    "nonsense": "returned 'a sentence'; return an xarray Dataset or DataArray, a dict of numbers, or a",
    "nothing": "returned nothing; return an xarray Dataset",
    "missing": "KeyError",
    "changing": "returned 'n' with shape (7,), and for the first window with (3,)",
    "other": "returned n, and in its entry under yields it; correct what is wrong of the two",
}
NAMES = ["uneven", "columns", "by_one", "single", "short"]


def function(name: str, of: Any = "uneven", window: Any = 4, **keys: Any) -> dict[str, Any]:
    return {"use": f"tests.end_to_end.functions:{name}", "of": of, "window": window, **keys}


OPERATORS = {
    "sum": total("uneven", window=4),
    "whole": function("whole", [*NAMES, "agreed"]),
    "slid": function("whole", "columns", 4, every=2, select={"y": "1::2"}),
    "timed": function("whole", "uneven", "0.35 time"),
    "either": function("whole", ["uneven", "seldom"], when="any"),
    "both": function("whole", ["uneven", "seldom"]),
    "large": function("large"),
    "numbers": function("numbers"),
    "said": function(
        "numbers", yields={"length": {}, "sum": {"units": "K"}, "chunks": {"dtype": "int64"}, "collects": {}}
    ),
    "running": {"use": "moments", "of": "said.sum", "over": "step", "window": 2, "every": 1},
    "again": {"use": "moments", "of": "running.mean", "over": "step"},
    "order": function("order", "particles", 1),
    "picture": function("picture", "agreed", "run"),
    **{name: function(name) for name in WRONG},
    "other": function("changing", yields={"it": {}}),
}


@pytest.fixture(scope="module")
def left(start_shared: Start) -> Left:
    return start_shared(*program("shapes"), ranks=RANKS, nodes=2, operators=OPERATORS).wait()


def test_a_window_has_all_steps_and_cells_of_all_ranks(left: Left) -> None:
    whole = left.results("whole")
    assert whole["complete"].values.tolist() == [True, True, False]
    for name in NAMES:
        assert whole[name].dims == ("window", "step", "y" if name != "by_one" else "dim_0", whole[name].dims[3])
        expected = np.stack([field(name, n) for n in range(STEPS)])
        np.testing.assert_array_equal(whole[name].values.reshape(12, 7, 6)[:8], expected[:8])
    np.testing.assert_array_equal(whole["uneven"][2, :3], [field("uneven", n) for n in range(8, STEPS)])
    assert np.isnan(whole["uneven"][2, 3]).all()  # the last window is shorter
    np.testing.assert_array_equal(whole["agreed"].values.ravel()[:STEPS], [scalar(n) for n in range(STEPS)])
    assert whole["agreed"].attrs["units"] == "K"


def test_windows_may_overlap_and_keep_a_selection_only(left: Left) -> None:
    slid = left.results("slid")
    assert slid["first_step"].values.tolist() == [0, 20, 40, 60, 80]
    for window in range(4):
        expected = [field("columns", n)[1::2] for n in range(2 * window, 2 * window + 4)]
        np.testing.assert_array_equal(slid["columns"][window], expected)
    timed = left.results("timed")
    assert timed["steps"].values.tolist() == [4, 3, 4]


def test_variables_that_are_not_in_every_step_are_given_as_the_key_when_says(left: Left) -> None:
    either, both = left.results("either"), left.results("both")
    assert both.sizes["step"] == 2
    for window in range(2):
        np.testing.assert_array_equal(either["uneven"][window, 1], field("uneven", 4 * window + 1))
        assert np.isnan(either["seldom"][window, 1::2]).all()
        for k in (0, 1):
            n = 4 * window + 2 * k
            np.testing.assert_array_equal(either["seldom"][window, 2 * k], field("seldom", n))
            np.testing.assert_array_equal(both["seldom"][window, k], field("seldom", n))
            np.testing.assert_array_equal(both["uneven"][window, k], field("uneven", n))


def test_large_results_are_written_where_they_are(left: Left) -> None:
    large = left.results("large")
    assert large["many"].nbytes > 2**20
    for window in range(2):
        expected = np.mean([field("uneven", n) for n in range(4 * window, 4 * window + 4)], axis=0)
        np.testing.assert_allclose(large["many"][window, :, :, -1], expected, rtol=1e-14)


def test_numbers_and_pictures_are_kept(left: Left) -> None:
    numbers = left.results("numbers")
    sums = [sum(field("uneven", n).sum() for n in range(first, min(first + 4, STEPS))) for first in (0, 4, 8)]
    np.testing.assert_array_equal(numbers["sum"], sums)
    assert numbers["chunks"].values.max() <= len(left.report["staging"])
    assert numbers["collects"].values.all(), "garbage is collected in a worker that has begun"
    assert (left.directory / "figures" / "picture-000000.png").read_bytes().startswith(b"\x89PNG")
    assert left.report["operators"]["picture"]["results"] == 1


def test_what_a_function_is_said_to_yield_is_taken_by_others(left: Left) -> None:
    sums = np.array([sum(field("uneven", n).sum() for n in range(first, min(first + 4, STEPS))) for first in (0, 4, 8)])
    said, running = left.results("said"), left.results("running")
    assert (said["length"].dtype, said["chunks"].dtype, said["sum"].attrs["units"]) == (float, int, "K")
    np.testing.assert_allclose(running["mean"], [sums[:2].mean(), sums[1:].mean()], rtol=1e-14)
    np.testing.assert_array_equal(running["last_step"], said["last_step"][1:])
    assert running["complete"].values.tolist() == [True, False]
    assert running["mean"].attrs["units"] == "K"
    np.testing.assert_allclose(left.results("again")["mean"], [running["mean"].mean()], rtol=1e-14)


def test_particles_come_in_the_order_of_the_ranks(left: Left) -> None:
    order = left.results("order")
    expected = []
    for n in range(STEPS):
        values = np.concatenate([particles(rank, n) for rank in range(RANKS)]).ravel()
        expected.append(values @ np.arange(1.0, len(values) + 1))
    assert order["order"].values.tolist() == expected


def test_a_function_that_goes_wrong_is_stopped_and_its_siblings_go_on(left: Left) -> None:
    assert left.status == 1
    failed = {name: each["failed"] for name, each in left.report["operators"].items() if each["failed"]}
    assert set(failed) == set(WRONG)
    for name, text in WRONG.items():
        assert text in failed[name]
        assert "window 0" in failed[name] or name == "changing"
    traces = {event["operator"]: event["traceback"] for event in left.events("results-lost")}
    assert 'raise ZeroDivisionError("nothing to divide by in a function")' in traces["broken"]
    assert left.report["steps"]["delivered"] == STEPS
    assert len(left.results("sum")["total"]) == 3
