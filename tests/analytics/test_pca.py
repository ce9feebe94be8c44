# SPDX-License-Identifier: Apache-2.0
"""Components against NumPy's SVD and scikit-learn's; the laws under truncation; and bad input."""

from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.decomposition import PCA as Batchwise
from sklearn.decomposition import IncrementalPCA

from analytics.alignment import BUCKETS
from analytics.pca import PCA
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.operator import state_nbytes
from insitu.testing import batch, check_operator, cut
from tests.analytics.places import fold, read, variable

METHODS = ("gram", "qr")


def falling(steps: int, shape: tuple[int, ...], rank: int = 40, ratio: float = 0.8, seed: int = 0) -> np.ndarray:
    """Steps whose singular values fall by `ratio`, with a mean."""
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(rank, *shape)) * ratio ** np.arange(rank).reshape(-1, *[1] * len(shape))
    return np.tensordot(rng.normal(size=(steps, rank)), patterns, 1) + rng.normal(size=shape)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """The largest principal angle between two sets of orthonormal rows, in degrees."""
    a, b = (rows.reshape(len(rows), -1) for rows in (a, b))
    outside = b - b @ a.T @ a
    return float(np.degrees(np.arcsin(min(1.0, np.linalg.norm(outside, 2)))))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("parts", [1, 3])
def test_short_windows_are_exact(method: str, parts: int) -> None:
    steps = falling(20, (9, 8)) + 1e3
    found = read(PCA(of="u", components=10, window=20, method=method), [variable(9, 8)], {"u": steps}, parts=parts)
    expected = Batchwise(10, svd_solver="full").fit(steps.reshape(20, -1))
    np.testing.assert_allclose(found["variance"], expected.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(found["energy"], expected.explained_variance_ratio_, rtol=1e-10)
    np.testing.assert_allclose(found["mean"], steps.mean(axis=0), rtol=1e-13)
    modes = found["modes"].reshape(10, -1)
    np.testing.assert_allclose(modes @ modes.T, np.eye(10), atol=1e-9)
    signs = np.sign((modes * expected.components_).sum(axis=1))
    np.testing.assert_allclose(modes, signs[:, None] * expected.components_, atol=1e-9)
    np.testing.assert_allclose(found["projection"], expected.transform(steps.reshape(20, -1)) * signs, atol=1e-8)
    assert (found["rank"], found["truncation"]) == (10, 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("parts", [1, 4])
def test_long_windows_are_within_the_stated_bound(method: str, parts: int) -> None:
    steps = falling(400, (40, 5), rank=100, ratio=0.9)
    found = read(PCA(of="u", components=6, window=400, method=method), [variable(40, 5)], {"u": steps}, parts=parts)
    flat = steps.reshape(400, -1)
    _, singular, right = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    bound = found["truncation"] * np.sqrt((singular**2).sum())
    assert 0 < found["truncation"] < 0.5
    assert np.abs(np.sqrt(399 * found["variance"]) - singular[:6]).max() <= bound
    assert angle(found["modes"], right[:6]) < 5
    rest = flat - flat.mean(axis=0) - found["projection"] @ found["modes"].reshape(6, -1)
    assert np.linalg.norm(rest) <= np.linalg.norm(singular[6:]) + 2 * bound


def test_is_not_worse_than_scikit_learn_at_equal_rank() -> None:
    steps = falling(2000, (300,), rank=100, ratio=0.93)
    exact = np.linalg.svd(steps - steps.mean(axis=0), full_matrices=False)[2][:8]
    other = IncrementalPCA(8)
    for first in range(0, 2000, 50):
        other.partial_fit(steps[first : first + 50])
    found = read(PCA(of="u", components=8), [variable(300)], {"u": steps}, sizes=50)
    assert angle(found["modes"], exact) < 0.2 * angle(other.components_, exact)


@pytest.mark.parametrize(("method", "dtype"), [("gram", "f8"), ("qr", "i4")])
@pytest.mark.parametrize("forgetting", [1.0, 0.7])
def test_laws_hold_where_steps_are_joined_again_and_again(method: str, dtype: str, forgetting: float) -> None:
    patterns = np.random.default_rng(7).integers(-9, 10, size=(3, 5, 7))

    def few(variable, shape, rng):
        return np.tensordot(rng.integers(-9, 10, 3) * (4, 2, 1), patterns, 1).astype(variable.dtype)

    operator = PCA(of="u", components=3, window=32, method=method, forgetting=forgetting)
    assert operator._factors.block < 17
    check_operator(operator, [variable(5, 7, dtype=dtype)], values=few, rtol=1e-10)


def test_forgetting_weighs_the_steps() -> None:
    steps = falling(60, (30,), rank=4)
    found = read(PCA(of="u", components=4, window=60, forgetting=0.9), [variable(30)], {"u": steps}, parts=2)
    weights = 0.9 ** np.arange(59, -1, -1)
    mean = weights @ steps / weights.sum()
    _, singular, right = np.linalg.svd(np.sqrt(weights)[:, None] * (steps - mean), full_matrices=False)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(found["energy"], (singular**2 / (singular**2).sum())[:4], rtol=1e-9)
    assert angle(found["modes"], right[:4]) < 1e-6
    np.testing.assert_allclose(mean + found["projection"] @ found["modes"], steps, atol=1e-9)


def test_coefficients_of_long_runs_are_kept_in_few_pieces() -> None:
    operator = PCA(of="u", components=2)
    (state,) = fold(operator, [variable(12)], {"u": falling(3000, (12,), rank=3)}, sizes=1)
    assert len(state["known"]["factor"]["history"]) < 12
    assert state_nbytes(state) < 3000 * 8 * (2 * 2 + 1 + 3) * 1.4
    projected = operator.summarize(state)["coordinates"]
    assert projected.shape == (3000, 3)


def test_a_summary_does_not_grow_with_the_cells() -> None:
    operator = PCA(of="u", components=4, window=50)
    small, large = (
        operator.summarize(fold(operator, [variable(cells)], {"u": falling(50, (cells,))})[0]) for cells in (60, 6000)
    )
    assert state_nbytes(small) == state_nbytes(large) == 50 * 8 * (8 + 3) + 8 + 8 * 8 * BUCKETS


def test_signs_stay_from_window_to_window() -> None:
    place = np.arange(50) / 50
    wave = np.array([np.sin(2 * np.pi * place), np.cos(2 * np.pi * place)])
    amplitudes = np.random.default_rng(0).normal(size=(200, 2)) * (3, 1)
    operator = PCA(of="u", components=2, window=20)
    windows = [
        read(operator, [variable(50)], {"u": (amplitudes @ wave)[first : first + 20]}) for first in range(0, 200, 20)
    ]
    for before, after in pairwise(windows):
        assert (before["modes"] * after["modes"]).sum(axis=1).min() > 0.5


def test_energy_decides_how_many() -> None:
    steps = falling(30, (50,), ratio=0.5)
    every = read(PCA(of="u", components=10), [variable(50)], {"u": steps})
    some = read(PCA(of="u", components=10, energy=0.99), [variable(50)], {"u": steps})
    r = int(some["rank"])
    assert some["energy"][:r].sum() >= 0.99 > some["energy"][: r - 1].sum()
    np.testing.assert_array_equal(some["modes"][:r], every["modes"][:r])
    assert not some["modes"][r:].any()
    assert not some["variance"][r:].any()


def test_variables_are_stacked_and_put_together_again() -> None:
    inputs = [variable(6, 5, name="u", units="m s-1"), variable(6, 5, name="p", units="Pa", dtype="f4")]
    fields = {"u": falling(12, (6, 5)), "p": 1e5 + 1e4 * falling(12, (6, 5), seed=1).astype("f4")}
    operator = PCA(of=["u", "p"], components=11, window=12, scale=[1.0, 1e4])
    found = read(operator, inputs, fields, parts=2)
    for name, steps in fields.items():
        sums = found[f"{name}_mean"] + np.tensordot(found["projection"], found[f"{name}_modes"], 1)
        np.testing.assert_allclose(sums, steps, rtol=1e-6)
    of = {v.name: v for v in inputs}
    described = operator.describe(of) | operator.describe_series(of)
    units = {name: result.units for name, result in described.items()}
    assert (units["u_modes"], units["p_mean"], units["projection"]) == ("m s-1", "Pa", "1")


class TestBadInput:
    def test_a_field_that_does_not_vary(self) -> None:
        found = read(PCA(of="u", components=3, window=5), [variable(4)], {"u": np.full((5, 4), 7.0)}, parts=2)
        assert found["rank"] == 0
        assert not found["modes"].any()
        assert not found["projection"].any()
        np.testing.assert_array_equal(found["variance"], 0)
        assert np.isnan(found["energy"]).all()

    def test_a_single_step(self) -> None:
        found = read(PCA(of="u", components=3, window=5), [variable(4)], {"u": np.arange(4.0)[None]})
        assert found["rank"] == 0
        assert np.isnan(found["variance"]).all()
        np.testing.assert_array_equal(found["mean"], np.arange(4))
        np.testing.assert_array_equal(found["projection"], np.zeros((1, 3)))

    def test_fewer_steps_and_cells_than_components(self) -> None:
        steps = falling(4, (3,))
        found = read(PCA(of="u", components=16, window=10), [variable(3)], {"u": steps})
        assert found["rank"] == 3
        np.testing.assert_allclose(found["mean"] + found["projection"] @ found["modes"], steps, rtol=1e-12)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("at", [0, 30, 59])
    def test_a_cell_that_is_not_finite_once_takes_no_part(self, bad: float, at: int) -> None:
        steps = falling(60, (12,), rank=4)
        spoilt = steps.copy()
        spoilt[at, 5] = bad
        operator = PCA(of="u", components=4, window=60)
        found = read(operator, [variable(12)], {"u": spoilt}, parts=2)
        others = np.arange(12) != 5
        expected = np.linalg.svd((steps - steps.mean(axis=0))[:, others], full_matrices=False)
        assert np.isnan(found["modes"][:, 5]).all()
        assert np.isnan(found["mean"][5])
        np.testing.assert_allclose(found["variance"], expected[1][:4] ** 2 / 59, rtol=1e-9)
        assert angle(found["modes"][:, others], expected[2][:4]) < 1e-6

    def test_places_that_have_no_finite_cells_take_no_part(self) -> None:
        steps = falling(30, (12,), rank=3)
        spoilt = np.where(np.arange(12) < 6, steps, np.nan)
        operator = PCA(of="u", components=3, window=30)
        found = read(operator, [variable(12)], {"u": spoilt}, parts=2)
        alone = read(operator, [variable(6)], {"u": steps[:, :6]})
        np.testing.assert_allclose(found["variance"], alone["variance"], rtol=1e-9)
        assert np.isnan(found["modes"][:, 6:]).all()
        nothing = read(operator, [variable(12)], {"u": np.full((30, 12), np.nan)}, parts=2)
        assert nothing["rank"] == 0
        assert np.isnan(nothing["mean"]).all()

    def test_places_without_a_common_step_are_an_error(self) -> None:
        operator, inputs = PCA(of="u", components=1), [variable(4)]
        low, high = (
            operator.update(operator.init(), cut(batch(inputs, {"u": np.ones((2, 4))}, first=first), 2)[place])
            for first, place in ((0, 0), (2, 1))
        )
        with pytest.raises(OperatorError, match="no step of this window has u at every place"):
            operator.combine(operator.summarize(low), operator.summarize(high))

    def test_nan_may_be_refused(self) -> None:
        with pytest.raises(OperatorError, match=r"'u'.*NaN"):
            read(PCA(of="u", nan="fail"), [variable(2)], {"u": [[1.0, np.nan]]})

    def test_steps_that_a_place_lacks_are_left_out(self) -> None:
        operator, inputs, steps = PCA(of="u", components=3, window=10), [variable(8)], falling(10, (8,), rank=3)
        low, high = cut(batch(inputs, {"u": steps}), 2)
        states = [operator.update(operator.init(), low)]
        state = operator.init()
        for single in high.split():
            if single.steps[0].index != 4:
                state = operator.update(state, single)
        summary = operator.follow(operator.combine(operator.summarize(states[0]), operator.summarize(state)), {})
        found = [operator.finalize_place(each, summary) for each in (*states, state)]
        rest = np.delete(steps, 4, axis=0)
        np.testing.assert_allclose(np.concatenate([each["mean"] for each in found]), rest.mean(axis=0), rtol=1e-12)
        assert [step.index for step, _ in operator.series(summary)[0]] == [0, 1, 2, 3, 5, 6, 7, 8, 9]

    def test_unlike_variables_need_a_scale(self) -> None:
        inputs = {"u": variable(4, name="u", units="m"), "p": variable(4, name="p", units="Pa")}
        with pytest.raises(OperatorError, match=r"'u' in m, 'p' in Pa.*give a scale"):
            PCA(of=["u", "p"]).describe(inputs)
        with pytest.raises(OperatorError, match="publish both on the same grid"):
            PCA(of=["u", "p"], scale=[1, 1]).describe(inputs | {"p": variable(5, name="p")})
        with pytest.raises(ValidationError, match="expected one number for each"):
            PCA(of=["u", "p"], scale=[1])

    def test_particles_have_no_cells(self) -> None:
        atoms = Variable("u", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
        with pytest.raises(OperatorError, match="joined over the ranks"):
            PCA(of="u").describe({"u": atoms})
