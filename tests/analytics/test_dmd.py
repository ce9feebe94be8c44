# SPDX-License-Identifier: Apache-2.0
"""Modes and rates against a textbook DMD in NumPy and against PyDMD, wherever the cells lie; and bad input."""

import warnings

import numpy as np
import pytest

from analytics.dmd import DMD
from insitu.errors import OperatorError
from insitu.model import Step, Variable
from insitu.operator import Batch
from insitu.testing import batch
from tests.analytics.places import fold, read, variable

DT = 4 * np.pi / 128


def waves(steps: int = 129, cells: int = 65) -> np.ndarray:
    """PyDMD's own first example, f1 + f2 of two patterns that swing at 2.3 and 2.8, as a real field."""
    x, t = np.linspace(-5, 5, cells), DT * np.arange(steps)[:, None]
    travelling = np.cosh(x + 3) ** -1.0 * np.exp(2.3j * t) + 2 * np.tanh(x) / np.cosh(x) * np.exp(2.8j * t)
    return np.concatenate([travelling.real, travelling.imag], axis=1)


def textbook(steps: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and modes of the projected map (J. Tu and others, 2014), with the SVD of all that there is."""
    x, y = steps[:-1].T, steps[1:].T
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    u, s, v = u[:, :rank], s[:rank], vt[:rank].T
    values, vectors = np.linalg.eig(u.T @ y @ v / s)
    return values, u @ vectors


def matched(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of `values` the nearest of `others`."""
    return np.abs(values[:, None] - others).argmin(axis=1)


def discrete(found: dict[str, np.ndarray], dt: float = 1.0) -> np.ndarray:
    return np.exp((found["growth"] + 2j * np.pi * found["frequency"]) * dt)


def timed(fields: np.ndarray, dt: float, u: Variable) -> list[Batch]:
    """Batches whose steps are `dt` apart."""
    whole = batch([u], {"u": fields})
    steps = [Step(step.sequence, step.index, dt * step.index) for step in whole.steps]
    return Batch(steps, whole.variables, whole.start, whole.arrays).split()


@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("parts", [1, 3])
def test_travelling_waves_are_found_as_by_a_textbook(method: str, parts: int) -> None:
    steps = waves()
    operator, u = DMD(of="u", components=4, window=129, method=method), variable(130)
    found = read(operator, [u], {"u": steps}, parts=parts)
    values, modes = textbook(steps, 4)
    order = matched(discrete(found), values)
    assert sorted(order) == [0, 1, 2, 3]
    np.testing.assert_allclose(discrete(found), values[order], rtol=1e-8)
    overlap = np.abs((found["modes"].conj() * modes.T[order]).sum(axis=1))
    np.testing.assert_allclose(overlap, 1.0, rtol=1e-8)
    np.testing.assert_allclose(2 * np.pi * found["frequency"] / DT, [2.8, -2.8, 2.3, -2.3], rtol=1e-8)
    np.testing.assert_allclose(found["growth"], 0, atol=1e-8)
    first = (found["amplitude"] @ found["modes"]).real
    np.testing.assert_allclose(first, steps[0], atol=1e-7)
    assert found["residual"] < 1e-7
    assert np.isnan(found["drift"][0])
    assert (found["drift"][1:] < 1e-7).all()


def test_rates_are_per_time() -> None:
    operator, u = DMD(of="u", components=4), variable(130)
    state = operator.init()
    for one in timed(waves(), DT, u):
        state = operator.update(state, one)
    np.testing.assert_allclose(2 * np.pi * operator.finalize(state)["frequency"][::2], [2.8, 2.3], rtol=1e-8)


def test_agrees_with_pydmd() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydmd = pytest.importorskip("pydmd")
        rng = np.random.default_rng(1)
        steps = waves() * 0.99 ** np.arange(129)[:, None] + 1e-3 * rng.normal(size=(129, 130))
        other = pydmd.DMD(svd_rank=4).fit(steps.T.copy())
    found = read(DMD(of="u", components=16, window=129), [variable(130)], {"u": steps}, parts=2)
    whole = read(DMD(of="u", components=4, window=129), [variable(130)], {"u": steps}, parts=2)
    order = matched(discrete(whole), other.eigs)
    np.testing.assert_allclose(discrete(whole), other.eigs[order], atol=1e-4)
    np.testing.assert_allclose(np.abs(whole["amplitude"]), np.abs(other.amplitudes[order]), rtol=1e-3)
    assert found["rank"] == 16


def test_damping_and_growth_of_a_linear_system_are_exact() -> None:
    rng = np.random.default_rng(3)
    rates = np.array([-0.05 + 0.3j, -0.05 - 0.3j, 0.02, -0.2])
    patterns = rng.normal(size=(4, 80)) + 0j
    patterns[:2] += 1j * np.array([[1], [-1]]) * rng.normal(size=80)
    patterns[1] = patterns[0].conj()
    steps = (np.exp(np.outer(np.arange(60), rates)) @ patterns).real
    for sizes, parts in ((1, 1), (7, 4)):
        found = read(DMD(of="u", components=4), [variable(80)], {"u": steps}, sizes=sizes, parts=parts)
        np.testing.assert_allclose(np.sort(found["growth"]), [-0.2, -0.05, -0.05, 0.02], atol=1e-8)
        np.testing.assert_allclose(np.abs(found["frequency"]).max(), 0.3 / (2 * np.pi), rtol=1e-8)


def test_lost_steps_make_no_pairs() -> None:
    steps = waves()
    operator, inputs = DMD(of="u", components=4, window=129), [variable(130)]
    kept = [one for one in batch(inputs, {"u": steps}).split() if one.steps[0].index % 10 != 4]
    state = operator.init()
    for one in kept:
        state = operator.update(state, one)
    found = operator.finalize(state)
    np.testing.assert_allclose(2 * np.pi * found["frequency"][::2] / DT, [2.8, 2.3], rtol=1e-8)
    rows, _ = operator.series(operator.follow(operator.summarize(state), {}))
    assert [step.index for step, of in rows if np.isnan(of["drift"])] == [0, *range(5, 129, 10)]


def test_drift_tells_where_a_step_does_not_follow() -> None:
    steps = waves(60)
    steps[40] += 0.5
    drift = read(DMD(of="u", components=4, window=60), [variable(130)], {"u": steps})["drift"]
    assert np.nanargmax(drift) in (40, 41)
    assert drift[40] > 5 * np.nanmedian(drift)


class TestBadInput:
    def test_a_single_step_has_no_rates(self) -> None:
        found = read(DMD(of="u", components=3, window=5), [variable(4)], {"u": np.ones((1, 4))})
        assert found["rank"] == 0
        assert np.isnan(found["growth"]).all()
        assert np.isnan(found["residual"])
        assert not found["modes"].any()

    @pytest.mark.parametrize("level", [0.0, 7.0])
    def test_a_field_that_does_not_vary(self, level: float) -> None:
        found = read(DMD(of="u", components=3, window=6), [variable(4)], {"u": np.full((6, 4), level)}, parts=2)
        assert found["rank"] == (1 if level else 0)
        if level:
            np.testing.assert_allclose(found["growth"][0], 0, atol=1e-12)
            np.testing.assert_allclose(np.abs(found["modes"][0]), 0.5)

    def test_a_cell_that_is_nan_once_takes_no_part(self) -> None:
        steps = waves(40)
        steps[7, 3] = np.nan
        found = read(DMD(of="u", components=4, window=40), [variable(130)], {"u": steps}, parts=2)
        assert np.isnan(found["modes"][:, 3]).all()
        assert np.isfinite(np.delete(found["modes"], 3, axis=1)).all()
        np.testing.assert_allclose(2 * np.pi * found["frequency"][::2] / DT, [2.8, 2.3], rtol=1e-8)

    def test_places_that_have_no_finite_cells_take_no_part(self) -> None:
        steps = np.hstack([waves(40), np.full((40, 130), np.nan)])
        found = read(DMD(of="u", components=4, window=40), [variable(260)], {"u": steps}, parts=2)
        np.testing.assert_allclose(2 * np.pi * found["frequency"][::2] / DT, [2.8, 2.3], rtol=1e-8)
        nothing = read(DMD(of="u", components=4, window=40), [variable(130)], {"u": steps[:, 130:]}, parts=2)
        assert nothing["rank"] == 0

    def test_uneven_times_give_no_rates(self) -> None:
        operator, u = DMD(of="u", components=2), variable(3)
        (state,) = fold(operator, [u], {"u": np.ones((3, 3))})
        late = batch([u], {"u": np.ones((1, 3))}, first=3)
        state = operator.update(state, Batch((Step(3, 3, 9.0),), late.variables, late.start, late.arrays))
        with pytest.raises(OperatorError, match="not evenly spaced in time: 1 to 7"):
            operator.finalize(state)
