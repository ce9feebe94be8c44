# SPDX-License-Identifier: Apache-2.0
"""Windows that overlap, windows of time, and operators behind operators, on several ranks and staging nodes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import ROOT, Left

SIZE, STEPS = 36, 60

OPERATORS: dict[str, Any] = {
    "stats": {"use": "moments", "of": "u", "over": "step", "window": 10},
    # States of 36 x 36 cells are small; four moments of both are not, so that Dask has them.
    "slid": {"use": "moments", "of": "v", "over": "step", "window": 20, "every": 8, "orders": 4},
    "timed": {"use": "moments", "of": "u", "over": ["step", "space"], "window": "15 time", "every": "6 time"},
    "large": {"use": "histogram", "of": "v", "over": "step", "window": 15, "bins": 12, "range": [0, 0.3]},
    "modes": {"use": "pca", "of": ["u", "v"], "components": 10, "window": 20},
    "rates": {"use": "dmd", "of": "v", "components": 3, "window": 20, "every": 10},
    "each": {"use": "moments", "of": "v", "over": "space"},
    # Behind windows, of small results and of large ones; behind steps; and behind one that is behind another.
    "of_mean": {"use": "moments", "of": "stats.mean", "over": "step", "window": 3, "every": 1},
    "of_counts": {"use": "moments", "of": "large.count", "over": "step"},
    "whole": {"use": "moments", "of": "large.count", "over": "space"},
    "of_each": {"use": "moments", "of": "each.mean", "over": "step", "window": 7},
    "of_projection": {"use": "moments", "of": "modes.projection", "over": "step", "window": 30},
    "again": {"use": "moments", "of": "of_mean.mean", "over": ["step", "space"]},
    "of_variance": {"use": "moments", "of": "modes.variance", "over": "step"},
}


@dataclass(frozen=True)
class Solved:
    left: Left
    u: np.ndarray
    v: np.ndarray


@pytest.fixture(scope="module")
def solved(start_shared: Start) -> Solved:
    pytest.importorskip("mpi4py")
    ranks = 4
    options = ("--size", SIZE, "--steps", STEPS, "--every", 1, "--store", "fields")
    running = start_shared(
        "python", str(ROOT / "demos" / "gray_scott.py"), *map(str, options), ranks=ranks, nodes=2,
        operators=OPERATORS, simulation={"launcher": "mpiexec"},
    )  # fmt: skip
    left = running.wait()
    assert left.status == 0, left.stderr
    fields = np.concatenate([np.load(running.folder / f"fields.{rank}.npy") for rank in range(ranks)], axis=2)
    return Solved(left, fields[:, 0], fields[:, 1])


def test_sliding_windows_are_those_of_the_steps(solved: Solved) -> None:
    slid = solved.left.results("slid")
    assert slid["window"].values.tolist() == list(range(6))
    assert slid["first_step"].values.tolist() == [0, 8, 16, 24, 32, 40]
    assert slid["steps"].values.tolist() == [20] * 6
    assert slid["complete"].values.all()
    for window in range(6):
        steps = solved.v[8 * window : 8 * window + 20]
        np.testing.assert_allclose(slid["mean"][window], steps.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(slid["variance"][window], steps.var(axis=0, ddof=1), rtol=1e-10, atol=1e-18)
        np.testing.assert_array_equal(slid["max"][window], steps.max(axis=0))


def test_windows_of_time_begin_and_end_at_times(solved: Solved) -> None:
    timed = solved.left.results("timed")
    times = 1.0 * np.arange(STEPS)
    assert timed["window"].values.tolist() == list(range(9))
    for window in timed["window"].values:
        inside = solved.u[(times >= 6 * window) & (times < 6 * window + 15)]
        assert timed["steps"][window] == len(inside)
        np.testing.assert_allclose(timed["mean"][window], inside.mean(), rtol=1e-12)
    assert timed["complete"].values.tolist() == [True] * 8 + [False]


def test_an_operator_behind_windows_takes_each_as_a_step(solved: Solved) -> None:
    means = solved.u.reshape(6, 10, SIZE, SIZE).mean(axis=1)
    behind = solved.left.results("of_mean")
    assert behind["mean"].dims == ("window", "y", "x")
    assert behind["mean"].attrs["units"] == solved.left.results("stats")["mean"].attrs["units"]
    assert behind["steps"].values.tolist() == [3] * 4
    assert behind["complete"].values.all()
    for window in range(4):
        np.testing.assert_allclose(behind["mean"][window], means[window : window + 3].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(
            behind["variance"][window], means[window : window + 3].var(axis=0, ddof=1), rtol=1e-8, atol=1e-20
        )
    again = solved.left.results("again")
    expected = [means[window : window + 3].mean(axis=0) for window in range(4)]
    np.testing.assert_allclose(again["mean"][0], np.mean(expected), rtol=1e-12)


def test_an_operator_behind_large_results_folds_them_where_they_lie(solved: Solved) -> None:
    large, behind = solved.left.results("large"), solved.left.results("of_counts")
    assert behind["mean"].dims == ("window", "bin", "y", "x")
    np.testing.assert_allclose(behind["mean"][0], large["count"].mean("window"), rtol=1e-12)
    np.testing.assert_array_equal(behind["max"][0], large["count"].max("window"))
    whole = solved.left.results("whole")
    assert whole["mean"].dims == ("step",)
    assert whole["step"].values.tolist() == large["last_step"].values.tolist()
    np.testing.assert_allclose(whole["mean"], large["count"].mean(("bin", "y", "x")), rtol=1e-12)


def test_an_operator_behind_steps_takes_each_of_them(solved: Solved) -> None:
    behind = solved.left.results("of_each")
    assert behind["steps"].values.tolist() == [7] * 8 + [4]
    means = solved.v.mean(axis=(1, 2))
    np.testing.assert_allclose(behind["mean"][:8], means[:56].reshape(8, 7).mean(axis=1), rtol=1e-12)
    assert behind["complete"].values.tolist() == [True] * 8 + [False]


def test_projections_are_a_series_over_all_steps(solved: Solved) -> None:
    modes, series = solved.left.results("modes"), solved.left.results("modes.series")
    assert series["projection"].dims == ("step", "component")
    assert series["step"].values.tolist() == list(range(STEPS))
    for window in range(3):
        steps = slice(20 * window, 20 * window + 20)
        own = series["projection"].values[steps] @ modes["turn"].values[window].T
        flat = np.concatenate([solved.u[steps].reshape(20, -1), solved.v[steps].reshape(20, -1)], axis=1)
        directions = np.concatenate([modes[f"{name}_modes"][window].values.reshape(10, -1) for name in "uv"], axis=1)
        np.testing.assert_allclose(own, (flat - flat.mean(axis=0)) @ directions.T, atol=1e-7)
    behind = solved.left.results("of_projection")
    np.testing.assert_allclose(behind["mean"][1], series["projection"].values[30:].mean(axis=0), atol=1e-12)
    variances = solved.left.results("of_variance")
    np.testing.assert_allclose(variances["mean"][0], modes["variance"].mean("window"), rtol=1e-12)


def test_sliding_windows_yield_each_step_once(solved: Solved) -> None:
    series = solved.left.results("rates.series")
    assert series["step"].values.tolist() == list(range(STEPS))
    assert np.isnan(series["drift"].values[0])
    assert (series["drift"].values[1:] < 0.1).all()
