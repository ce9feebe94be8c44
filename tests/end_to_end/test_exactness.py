# SPDX-License-Identifier: Apache-2.0
"""Results of a streamed solver equal NumPy's on the fields that its ranks also stored, whatever the ranks and nodes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import ROOT, Left

SIZE, PUBLISHED, WINDOW = 42, 100, 40  # the last window is cut short
EDGES = np.linspace(0.0, 0.3, 13)

OPERATORS: dict[str, Any] = {
    "stats": {"use": "moments", "of": "u", "over": "step", "window": WINDOW, "orders": 4},
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
    "modes": {"use": "pca", "of": ["u", "v"], "components": 20, "window": WINDOW},
    "rates": {"use": "dmd", "of": "v", "components": 3, "window": 7},
}


@dataclass(frozen=True)
class Solved:
    """A run and the whole fields, (step, y, x) each."""

    left: Left
    u: np.ndarray
    v: np.ndarray


@pytest.fixture(scope="module")
def solved(start_shared: Start) -> Solved:
    """Blocks of two ranks are parted among three nodes; `tests/demos/test_runs.py` has other numbers of both."""
    pytest.importorskip("mpi4py")
    ranks, nodes = 2, 3
    options = ("--size", SIZE, "--steps", 2 * PUBLISHED, "--every", 2, "--store", "fields")
    running = start_shared(
        "python",
        str(ROOT / "demos" / "gray_scott.py"),
        *map(str, options),
        ranks=ranks,
        nodes=nodes,
        operators=OPERATORS,
        simulation={"launcher": "mpiexec"},
    )
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
    stats = solved.left.results("stats")
    assert stats["complete"].values.tolist() == [True, True, False]
    assert stats["steps"].values.tolist() == [40, 40, 20]
    assert stats["first_step"].values.tolist() == [0, 80, 160]
    assert stats["mean"].dims == ("window", "y", "x")
    for window, part in enumerate(windows(solved.u)):
        for name, expected in moments(part).items():
            # A skewness of about zero is what is left of numbers of about one.
            atol = 1e-12 if name in ("skewness", "kurtosis") else 0
            np.testing.assert_allclose(stats[name][window], expected.astype(float), rtol=1e-12, atol=atol, err_msg=name)


def test_moments_of_everything(solved: Solved) -> None:
    run = solved.left.results("run")
    for name, expected in moments(solved.v, axis=None).items():
        np.testing.assert_allclose(run[name][0], np.asarray(expected, float), rtol=1e-12, err_msg=name)
    assert run["complete"].all()


def test_moments_of_each_step(solved: Solved) -> None:
    each = solved.left.results("each")
    assert each["step"].values.tolist() == list(range(0, 2 * PUBLISHED, 2))
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
    modes, series = solved.left.results("modes"), solved.left.results("modes.series")
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
    for window in (0, 13):
        flat = solved.v[7 * window : 7 * window + 7].reshape(7, -1)
        left, singular, right = np.linalg.svd(flat[:-1].T, full_matrices=False)
        left, singular, right = left[:, :3], singular[:3], right[:3]
        values, vectors = np.linalg.eig(left.T @ flat[1:].T @ right.T / singular)
        found = np.exp(2 * (rates["growth"][window] + 2j * np.pi * rates["frequency"][window]).values)
        order = np.abs(found[:, None] - values).argmin(axis=1)
        np.testing.assert_allclose(found, values[order], rtol=1e-6)
        overlap = (rates["modes"][window].values.reshape(3, -1).conj() * (left @ vectors).T[order]).sum(axis=1)
        np.testing.assert_allclose(np.abs(overlap), 1.0, rtol=1e-6)


def test_the_report_counts_every_step(solved: Solved) -> None:
    report = solved.left.report
    assert report["steps"]["delivered"] == report["steps"]["produced"] == PUBLISHED
    assert report["steps"]["delivered_bytes"] == 2 * PUBLISHED * SIZE * SIZE * 8
    nbytes = PUBLISHED * SIZE * SIZE * 8
    moved = {"produced_bytes": nbytes, "selected_bytes": nbytes, "sent_bytes": nbytes, "lossless_parts": 0}
    whole = {"delivered": PUBLISHED, "left_out": 0, "because": [], **moved}
    assert report["variables"] == {"u": whole, "v": whole}
