# SPDX-License-Identifier: Apache-2.0
"""Sobol' indices against the analytic ones of Ishigami's and Sobol's functions, and against SALib on the same runs."""

import numpy as np
import pytest
from pydantic import ValidationError
from SALib.analyze import sobol as salib
from SALib.test_functions import Ishigami, Sobol_G

from analytics.sobol import Sobol
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.testing import batch

ISHIGAMI_FIRST = np.array([0.3139, 0.4424, 0.0])
ISHIGAMI_TOTAL = np.array([0.5576, 0.4424, 0.2437])
A = [0, 1, 4.5, 9, 99, 99]
G_FIRST = Sobol_G.sensitivity_index(A)
G_TOTAL = Sobol_G.total_sensitivity_index(A)


def frozen(groups: int, parameters: int, low: float, high: float, seed: int) -> np.ndarray:
    """The parameters of all members: group by group A, B, C1 ..."""
    a, b = np.random.default_rng(seed).uniform(low, high, (2, groups, parameters))
    mixed = [np.where(np.arange(parameters) == k, b, a) for k in range(parameters)]
    return np.stack([a, b, *mixed], axis=1).reshape(-1, parameters)


def ishigami(groups: int, cells: int, seed: int = 0) -> np.ndarray:
    """Outputs of all members in cells that differ by what was drawn."""
    return np.stack([Ishigami.evaluate(frozen(groups, 3, -np.pi, np.pi, seed + k)) for k in range(cells)], axis=1)


def g(x: np.ndarray) -> np.ndarray:
    """Sobol's function of the rows of `x`, all at once; SALib takes one after another."""
    return np.prod((np.abs(4 * x - 2) + A) / (1 + np.array(A)), axis=-1)


def sobol_g(groups: int, cells: int, seed: int = 0) -> np.ndarray:
    return np.stack([g(frozen(groups, 6, 0, 1, seed + k)) for k in range(cells)], axis=1)


def test_sobols_function_is_that_of_salib() -> None:
    x = frozen(4, 6, 0, 1, 0)
    np.testing.assert_allclose(g(x), Sobol_G.evaluate(x, np.array(A)), rtol=1e-14)


def indices(operator: Sobol, *several: np.ndarray, first: int = 0) -> dict[str, np.ndarray]:
    """Fold members that come one lot after another."""
    members = sum(map(len, several))
    u = Variable("u", np.dtype("f8"), (members, *several[0].shape[1:]), ("member", "x")[: several[0].ndim], units="K")
    state, start = operator.init(), first
    for some in several:
        block = batch([u], {"u": [some]}, start={"u": (start, *[0] * (some.ndim - 1))})
        state = operator.update(state, operator.seen_batch(block))
        start += len(some)
    return operator.finalize(state)


def linear(groups: int, cells: int) -> np.ndarray:
    """Outputs that are normal: 2 x1 + x2 of normal parameters."""
    made = []
    for seed in range(cells):
        a, b = np.random.default_rng(seed).normal(size=(2, groups, 2))
        mixed = [np.where(np.arange(2) == k, b, a) for k in range(2)]
        made.append((np.stack([a, b, *mixed], axis=1) @ [2, 1]).reshape(-1))
    return np.stack(made, axis=1)


@pytest.mark.parametrize(
    ("outputs", "parameters", "first", "total"),
    [
        (linear, 2, np.array([0.8, 0.2]), np.array([0.8, 0.2])),
        (sobol_g, 6, G_FIRST, G_TOTAL),
        (ishigami, 3, ISHIGAMI_FIRST, ISHIGAMI_TOTAL),
    ],
    ids=["normal", "Sobol' G", "Ishigami"],
)
def test_intervals_hold_the_analytic_values_at_the_stated_rate(outputs, parameters, first, total) -> None:
    """Of 300 cells, each an ensemble of its own, 0.95 are to hold it; four sigma are 0.05."""
    found = indices(Sobol(of="u", parameters=parameters), outputs(400, 300))
    for name, exact in (("first", first), ("total", total)):
        low, high = (found[f"{name}_{end}"] for end in ("low", "high"))
        rate = ((low <= exact[:, None]) & (exact[:, None] <= high)).mean(axis=1)
        assert ((rate > 0.9) & (rate < 0.985)).all(), (name, rate)
        np.testing.assert_allclose(found[name].mean(axis=1), exact, atol=0.02)
        assert ((low < found[name]) & (found[name] < high)).all()
        # As wide as what is found differs from one ensemble to the next.
        np.testing.assert_allclose((high - low).mean(axis=1), 2 * 1.96 * found[name].std(axis=1), rtol=0.2)
    widths = [found[f"{name}_high"] - found[f"{name}_low"] for name in ("first", "total")]
    np.testing.assert_allclose(found["interval"], np.concatenate(widths).max(axis=0), rtol=1e-12)


def test_agrees_with_salib_on_the_same_members() -> None:
    outputs = ishigami(2048, 1)
    found = indices(Sobol(of="u", parameters=3), outputs)
    # SALib wants A, C1 ... Ck, B.
    grouped = outputs.reshape(2048, 5)[:, [0, 2, 3, 4, 1]].reshape(-1)
    problem = {"num_vars": 3, "names": ["x1", "x2", "x3"], "bounds": [[-np.pi, np.pi]] * 3}
    expected = salib.analyze(problem, grouped, calc_second_order=False, seed=1)
    assert (np.abs(found["first"][:, 0] - expected["S1"]) < expected["S1_conf"] + 0.02).all()
    assert (np.abs(found["total"][:, 0] - expected["ST"]) < expected["ST_conf"] + 0.02).all()


def test_is_the_correlation_of_the_outputs() -> None:
    outputs = 1e8 + np.random.default_rng(0).normal(size=(50 * 4, 3))
    found = indices(Sobol(of="u", parameters=2, level=0.9), outputs)
    groups = outputs.reshape(50, 4, 3)
    for k in range(2):
        for cell in range(3):
            to_a, to_b = (np.corrcoef(groups[:, role, cell], groups[:, 2 + k, cell])[0, 1] for role in (0, 1))
            np.testing.assert_allclose(found["first"][k, cell], to_b, rtol=1e-6)
            np.testing.assert_allclose(found["total"][k, cell], 1 - to_a, rtol=1e-6)
            x, y = ((values - values.mean()) / values.std() for values in groups[:, [1, 2 + k], cell].T)
            s = np.sqrt(np.mean((x * y - to_b / 2 * (x**2 + y**2)) ** 2)) / (1 - to_b**2)
            high = np.tanh(np.arctanh(to_b) + 1.6448536 * s / np.sqrt(47))
            np.testing.assert_allclose(found["first_high"][k, cell], high, rtol=1e-6)
    np.testing.assert_allclose(found["variance"], groups[:, :2].var(axis=0, ddof=1).mean(axis=0), rtol=1e-6)


def test_members_may_come_one_by_one_and_a_broken_group_is_lost_as_a_whole() -> None:
    outputs = ishigami(30, 4)
    operator = Sobol(of="u", parameters=3)
    whole, single = indices(operator, outputs[5:]), indices(operator, *outputs[:, None])
    np.testing.assert_array_equal(single["groups"], 30)
    lost = indices(operator, outputs[:3], outputs[5:])  # the third lot is numbered 3 and on, so the first group ...
    assert lost["groups"].max() < 30
    broken = indices(operator, outputs[1:], first=1)
    np.testing.assert_array_equal(broken["groups"], 29)
    np.testing.assert_allclose(broken["first"], whole["first"], rtol=1e-12)


def test_masks_what_does_not_vary() -> None:
    outputs = ishigami(20, 4)
    outputs[:, 0] = 0.1
    outputs[:, 1] = 1e8 / 3 * (1 + np.finfo(float).eps * (np.arange(100) % 3 - 1))
    outputs[7, 2] = np.nan
    found = indices(Sobol(of="u", parameters=3), outputs)
    for name in ("first", "first_low", "total", "total_high"):
        assert np.isnan(found[name][:, :2]).all(), name
        np.testing.assert_array_equal(np.isnan(found[name][:, 2]), [True, False, False], err_msg=name)
        assert np.isfinite(found[name][:, 3]).all(), name
    np.testing.assert_array_equal(np.isnan(found["interval"]), [True, True, True, False])
    np.testing.assert_array_equal(found["groups"], 20)
    masked = indices(Sobol(of="u", parameters=3, floor=1e3), outputs)
    assert np.isnan(masked["first"]).all()


@pytest.mark.parametrize("groups", [0, 1, 3])
def test_few_groups_have_no_intervals(groups: int) -> None:
    outputs = ishigami(4, 2)[: 5 * groups + 2]
    found = indices(Sobol(of="u", parameters=3), outputs)
    np.testing.assert_array_equal(found["groups"], groups)
    assert np.isnan(found["first_low"]).all()
    assert np.isnan(found["interval"]).all()
    assert np.isfinite(found["variance"]).all() == (groups > 1)


def test_says_what_does_not_fit() -> None:
    with pytest.raises(ValidationError, match="window: 5 has no meaning with over: member"):
        Sobol(of="u", parameters=2, window=5)
    with pytest.raises(ValidationError, match=r"over: \['step'\] is not possible"):
        Sobol(of="u", parameters=2, over="step")
    u = Variable("u", np.dtype("f8"), (8, 2), ("y", "x"))
    with pytest.raises(OperatorError, match="'u' has no members to reduce over: its first dimension"):
        Sobol(of="u", parameters=2).seen({"u": u})
