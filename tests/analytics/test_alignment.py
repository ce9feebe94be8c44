# SPDX-License-Identifier: Apache-2.0
"""Patterns keep their place and sign from window to window, and how places are cut does not matter."""

import numpy as np
import pytest

from analytics.alignment import matching, rotation, sketch
from analytics.dmd import DMD
from analytics.pca import PCA
from insitu.operator import SeriesOperator
from tests.analytics.places import fold, variable


def of_rows(rows: np.ndarray, cut: int) -> np.ndarray:
    """The sketch of rows over two places."""
    n = rows.shape[1]
    return sketch([(0, (0,), (cut,), (n,))])(rows[:, :cut]) + sketch([(0, (cut,), (n - cut,), (n,))])(rows[:, cut:])


def test_sketches_add_up_over_places_and_keep_lengths_and_angles() -> None:
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(3000, 6)))[0].T
    whole = of_rows(rows, 0)
    np.testing.assert_allclose(of_rows(rows, 1234), whole, atol=1e-12)
    assert np.abs(whole @ whole.T - np.eye(6)).max() < 4 * np.sqrt(2 / 128)


def test_a_rotation_of_the_same_directions_is_found_exactly() -> None:
    rng = np.random.default_rng(1)
    rows = np.linalg.qr(rng.normal(size=(500, 5)))[0].T
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    former, new = of_rows(rows, 0).T, of_rows(turn @ rows, 0).T
    np.testing.assert_allclose(rotation(former, new), turn, atol=1e-12)


def test_a_matching_undoes_order_and_phase() -> None:
    rng = np.random.default_rng(2)
    former = rng.normal(size=(40, 5)) + 1j * rng.normal(size=(40, 5))
    order = np.array([3, 0, 4, 2, 1])
    phases = np.exp(1j * rng.normal(size=5))
    found, phase = matching(former, (former * phases)[:, order])
    np.testing.assert_array_equal(np.arange(5)[order][found], np.arange(5))
    np.testing.assert_allclose((former * phases)[:, order][:, found] * phase, former, atol=1e-12)
    padded = np.hstack([former[:, :2], np.zeros((40, 1))])
    np.testing.assert_array_equal(matching(padded, padded[:, [2, 1, 0]])[0], [2, 1, 0])


def series(operator: SeriesOperator, steps: np.ndarray, every: int, parts: int) -> np.ndarray:
    """The projections of all windows, one after the other."""
    found, memory, u = [], {}, variable(*steps.shape[1:])
    assert isinstance(operator.window, int)
    for first in range(0, len(steps) - operator.window + 1, every):
        some = {"u": steps[first : first + operator.window]}
        states = fold(operator, [u], some, parts=parts)
        for state in states:
            for one in state["steps"]:
                one["sequence"] += first
        summary = operator.init()
        for state in states:
            told = operator.summarize(state)
            summary = operator.combine(summary, told | {"steps": told["steps"] + first})
        rows, memory = operator.series(operator.follow(summary, memory))
        found += [values["projection"] for _, values in rows]
    return np.array(found)


@pytest.mark.parametrize(("every", "parts"), [(25, 1), (25, 3), (5, 2)])
def test_the_projections_of_a_turning_wave_have_no_jumps(every: int, parts: int) -> None:
    rng = np.random.default_rng(4)
    place, time = 2 * np.pi * np.arange(60) / 60, 2 * np.pi * np.arange(150)[:, None] / 25
    # Each wave has two components of one variance, which are any two of their plane; and both waves have about one.
    steps = 3 * np.cos(place - 2 * time) + 2.98 * np.cos(2 * place + 3 * time) + 0.01 * rng.normal(size=(150, 60))
    own = series(PCA(of="u", components=4, window=25), steps, every, parts)
    assert own.shape == (150, 4)
    # Distances of steps are kept, within windows and across them; turned directions would change these.
    exact = np.linalg.norm(np.diff(steps, axis=0), axis=1)
    np.testing.assert_allclose(np.linalg.norm(np.diff(own, axis=0), axis=1), exact, rtol=0.05)


@pytest.mark.parametrize("parts", [1, 2])
def test_dynamic_modes_keep_their_columns(parts: int) -> None:
    place, time = 2 * np.pi * np.arange(60) / 60, np.arange(100)
    size = np.where(time < 50, 1.0, 3.0)  # the smaller wave becomes the larger one
    steps = 2 * np.cos(place - 0.4 * time[:, None]) + size[:, None] * np.cos(2 * place - 0.9 * time[:, None])
    own = series(DMD(of="u", components=4, window=25), steps, 25, parts)
    turning = np.angle(own[1:] / own[:-1])
    inside = np.delete(np.arange(99), [24, 49, 74])
    for column in range(4):
        rates = turning[inside, column]
        np.testing.assert_allclose(rates, np.median(rates), atol=0.02)
