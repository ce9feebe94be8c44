# SPDX-License-Identifier: Apache-2.0
"""Results of a streamed solver equal NumPy's on the fields that its ranks also stored.

Of windows that follow each other or overlap, of steps or of time; and of operators behind operators.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import ROOT, Left

SIZE, PUBLISHED, EVERY, WINDOW = 36, 60, 2, 40  # the last window is cut short
EDGES = np.linspace(0.0, 0.3, 13)

OPERATORS: dict[str, Any] = {
    "four": {"use": "moments", "of": "u", "over": "step", "window": WINDOW, "orders": 4},
    "run": {"use": "moments", "of": "v", "over": ["step", "space"], "orders": 4},
    "each": {"use": "moments", "of": "v", "over": "space"},
    "spread": {
        "use": "histogram",
        "of": "v",
        "over": ["step", "space"],
        "window": WINDOW,
        "bins": 12,
        "range": [0, 0.3],
    },
    "cells": {"use": "histogram", "of": "v", "over": "step", "bins": 12, "range": [0, 0.3]},
    # States that Dask puts together at the nodes; those of the second, on two nodes or more, the controller.
    "parts": {"use": "pca", "of": ["u", "v"], "components": 20, "window": WINDOW},
    "rates": {"use": "dmd", "of": "v", "components": 3, "window": 7},
    "stats": {"use": "moments", "of": "u", "over": "step", "window": 10},
    # States of 36 x 36 cells are small; four moments of both are not, so that Dask has them.
    "slid": {"use": "moments", "of": "v", "over": "step", "window": 20, "every": 8, "orders": 4},
    "timed": {"use": "moments", "of": "u", "over": ["step", "space"], "window": "30 time", "every": "12 time"},
    "large": {"use": "histogram", "of": "v", "over": "step", "window": 15, "bins": 12, "range": [0, 0.3]},
    "modes": {"use": "pca", "of": ["u", "v"], "components": 10, "window": 20},
    "drifting": {"use": "dmd", "of": "v", "components": 3, "window": 20, "every": 10},
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
    """A run and the whole fields, (step, y, x) each."""

    left: Left
    u: np.ndarray
    v: np.ndarray


@pytest.fixture(scope="module")
def solved(start_shared: Start) -> Solved:
    """Blocks of four ranks are parted among three nodes; `tests/demos/test_runs.py` has other numbers of both."""
    pytest.importorskip("mpi4py")
    ranks, nodes = 4, 3
    options = ("--size", SIZE, "--steps", EVERY * PUBLISHED, "--every", EVERY, "--store", "fields")
    running = start_shared(
        "python", str(ROOT / "demos" / "gray_scott.py"), *map(str, options), ranks=ranks, nodes=nodes,
        operators=OPERATORS, simulation={"launcher": "mpiexec"},
    )  # fmt: skip
    left = running.wait()
    assert left.status == 0, left.stderr
    fields = np.concatenate([np.load(running.folder / f"fields.{rank}.npy") for rank in range(ranks)], axis=2)
    return Solved(left, fields[:, 0], fields[:, 1])


def moments(values: np.ndarray, axis: int | None = 0) -> dict[str, np.ndarray]:
    """The textbook's definitions, with more digits than float64 has."""
    x = values.astype(np.longdouble)
    n = x.shape[0] if axis == 0 else x.size
    mean = x.mean(axis)
    m2, m3, m4 = (((x - mean) ** k).sum(axis) for k in (2, 3, 4))
    return {
        "count": np.full(np.shape(mean), n),
        "mean": mean,
        "variance": m2 / (n - 1),
        "skewness": np.sqrt(np.longdouble(n)) * m3 / m2**1.5,
        "kurtosis": n * m4 / m2**2,
        "min": x.min(axis),
        "max": x.max(axis),
    }


def windows(values: np.ndarray) -> list[np.ndarray]:
    return [values[first : first + WINDOW] for first in range(0, PUBLISHED, WINDOW)]


def test_moments_of_each_cell(solved: Solved) -> None:
    four = solved.left.results("four")
    assert four["complete"].values.tolist() == [True, False]
    assert four["steps"].values.tolist() == [40, 20]
    assert four["first_step"].values.tolist() == [0, 80]
    assert four["mean"].dims == ("window", "y", "x")
    for window, part in enumerate(windows(solved.u)):
        for name, expected in moments(part).items():
            # A skewness of about zero is what is left of numbers of about one.
            atol = 1e-12 if name in ("skewness", "kurtosis") else 0
            np.testing.assert_allclose(four[name][window], expected.astype(float), rtol=1e-12, atol=atol, err_msg=name)


def test_moments_of_everything(solved: Solved) -> None:
    run = solved.left.results("run")
    for name, expected in moments(solved.v, axis=None).items():
        np.testing.assert_allclose(run[name][0], np.asarray(expected, float), rtol=1e-12, err_msg=name)
    assert run["complete"].all()


def test_moments_of_each_step(solved: Solved) -> None:
    each = solved.left.results("each")
    assert each["step"].values.tolist() == list(range(0, EVERY * PUBLISHED, EVERY))
    np.testing.assert_array_equal(each["time"], 1.0 * each["step"])
    np.testing.assert_allclose(each["mean"], solved.v.mean(axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(each["variance"], solved.v.var(axis=(1, 2), ddof=1), rtol=1e-12)
    np.testing.assert_array_equal(each["max"], solved.v.max(axis=(1, 2)))


def test_histograms_of_windows_and_cells(solved: Solved) -> None:
    spread, cells = solved.left.results("spread"), solved.left.results("cells")
    for window, part in enumerate(windows(solved.v)):
        np.testing.assert_array_equal(spread["count"][window], np.histogram(part, EDGES)[0])
        assert spread["overflow"][window] == (part > EDGES[-1]).sum()
    expected = [np.histogram(cell, EDGES)[0] for cell in solved.v.reshape(PUBLISHED, -1).T]
    np.testing.assert_array_equal(cells["count"][0], np.transpose(expected).reshape(12, SIZE, SIZE))


def test_components_of_fields_that_no_place_has_whole(solved: Solved) -> None:
    modes, series = solved.left.results("parts"), solved.left.results("parts.series")
    assert series["projection"].dims == ("step", "component")
    begin = 0
    for window, steps in enumerate(zip(windows(solved.u), windows(solved.v), strict=True)):
        flat = np.concatenate([part.reshape(len(part), -1) for part in steps], axis=1)
        singular = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False)
        variance = singular[: modes.sizes["component"]] ** 2 / (len(flat) - 1)
        # What is below 1e-13 of the largest is lost in squaring, and not given.
        np.testing.assert_allclose(modes["variance"][window], variance, rtol=1e-8, atol=1e-12 * variance[0])
        assert modes["truncation"][window] == 0
        # The series goes on in the directions of the window before; the modes are as their own window has them.
        projection = series["projection"].values[begin : begin + len(flat)] @ modes["turn"].values[window].T
        begin += len(flat)
        rest = 0.0
        for name, part in zip("uv", steps, strict=True):
            sums = modes[f"{name}_mean"].values[window] + np.tensordot(projection, modes[f"{name}_modes"][window], 1)
            rest += ((sums - part) ** 2).sum()
        np.testing.assert_allclose(rest, (singular[modes.sizes["component"] :] ** 2).sum(), rtol=1e-6, atol=1e-10)
    assert begin == series.sizes["step"]


def test_dynamic_modes_of_fields_that_no_place_has_whole(solved: Solved) -> None:
    rates = solved.left.results("rates")
    assert rates["modes"].dims == ("window", "component", "y", "x")
    for window in (0, 7):
        flat = solved.v[7 * window : 7 * window + 7].reshape(7, -1)
        left, singular, right = np.linalg.svd(flat[:-1].T, full_matrices=False)
        left, singular, right = left[:, :3], singular[:3], right[:3]
        values, vectors = np.linalg.eig(left.T @ flat[1:].T @ right.T / singular)
        found = np.exp(2 * (rates["growth"][window] + 2j * np.pi * rates["frequency"][window]).values)
        order = np.abs(found[:, None] - values).argmin(axis=1)
        np.testing.assert_allclose(found, values[order], rtol=1e-6)
        overlap = (rates["modes"][window].values.reshape(3, -1).conj() * (left @ vectors).T[order]).sum(axis=1)
        np.testing.assert_allclose(np.abs(overlap), 1.0, rtol=1e-6)


def test_sliding_windows_are_those_of_the_steps(solved: Solved) -> None:
    slid = solved.left.results("slid")
    assert slid["window"].values.tolist() == list(range(6))
    assert slid["first_step"].values.tolist() == [0, 16, 32, 48, 64, 80]
    assert slid["steps"].values.tolist() == [20] * 6
    assert slid["complete"].values.all()
    for window in range(6):
        steps = solved.v[8 * window : 8 * window + 20]
        np.testing.assert_allclose(slid["mean"][window], steps.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(slid["variance"][window], steps.var(axis=0, ddof=1), rtol=1e-10, atol=1e-18)
        np.testing.assert_array_equal(slid["max"][window], steps.max(axis=0))


def test_windows_of_time_begin_and_end_at_times(solved: Solved) -> None:
    timed = solved.left.results("timed")
    times = 1.0 * EVERY * np.arange(PUBLISHED)
    assert timed["window"].values.tolist() == list(range(9))
    for window in timed["window"].values:
        inside = solved.u[(times >= 12 * window) & (times < 12 * window + 30)]
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
    assert series["step"].values.tolist() == list(range(0, EVERY * PUBLISHED, EVERY))
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
    series = solved.left.results("drifting.series")
    assert series["step"].values.tolist() == list(range(0, EVERY * PUBLISHED, EVERY))
    assert np.isnan(series["drift"].values[0])
    assert (series["drift"].values[1:] < 0.1).all()


def test_the_report_counts_every_step(solved: Solved) -> None:
    report = solved.left.report
    assert report["steps"]["delivered"] == report["steps"]["produced"] == PUBLISHED
    assert report["steps"]["delivered_bytes"] == 2 * PUBLISHED * SIZE * SIZE * 8
    nbytes = PUBLISHED * SIZE * SIZE * 8
    moved = {"produced_bytes": nbytes, "selected_bytes": nbytes, "sent_bytes": nbytes, "lossless_parts": 0}
    whole = {"delivered": PUBLISHED, "left_out": 0, "because": [], **moved}
    assert report["variables"] == {"u": whole, "v": whole}
