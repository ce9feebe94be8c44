# SPDX-License-Identifier: Apache-2.0
"""Exceedance against a count in plain Python."""

from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np
import pytest
from pydantic import ValidationError

from analytics.exceedance import Exceedance
from insitu.errors import OperatorError
from insitu.model import Step, Variable
from insitu.operator import Batch
from insitu.testing import batch, check_operator

FIELD = Variable("u", np.dtype("f8"), (5, 7), ("y", "x"), units="m")
SCALAR = Variable("u", np.dtype("f4"), (), ())
ATOMS = Variable("u", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
WAYS = ["step", "space", ["step", "space"]]


def steps_of(sequences):
    """Return steps whose index has a stride and whose time has another."""
    return [Step(s, 10 * s + 3, s / 4) for s in sequences]


def folded(operator, data, sequences, sizes, variable=FIELD):
    """Return the state of steps folded in batches of these sizes."""
    state, first, steps = operator.init(), 0, steps_of(sequences)
    for size in sizes:
        some = slice(first, first + size)
        held = batch([replace(variable, shape=data.shape[1:])], {"u": data[some]})
        state = operator.update(state, Batch(steps[some], held.variables, held.start, held.arrays))
        first += size
    assert first == len(data)
    return state


def reference(series, sequences, beyond):
    """Return first, last and longest of one cell, looking at one step after the other."""
    hits = [s for s, value in zip(sequences, series, strict=True) if beyond(value)]
    runs = [len(list(run)) for _, run in groupby(enumerate(hits), key=lambda pair: pair[1] - pair[0])]
    first, last = (hits[0], hits[-1]) if hits else (None, None)
    return first, last, max(runs, default=0)


def assert_equals_reference(found, data, sequences, beyond):
    for cell in np.ndindex(data.shape[1:]):
        first, last, longest = reference(data[(slice(None), *cell)], sequences, beyond)
        assert found["longest"][cell] == longest
        assert found["first"][cell] == (-1 if first is None else 10 * first + 3)
        assert found["last"][cell] == (-1 if last is None else 10 * last + 3)
        np.testing.assert_equal(found["first_time"][cell], np.nan if first is None else first / 4)
        np.testing.assert_equal(found["last_time"][cell], np.nan if last is None else last / 4)


@pytest.mark.parametrize("over", WAYS, ids=str)
@pytest.mark.parametrize("keys", [{}, {"side": "below"}, {"nan": "skip"}], ids=str)
def test_laws(over, keys):
    # A threshold at which long runs are common, so that they go on across the seams of states.
    operator = Exceedance(of="u", over=over, threshold=-1.0, **keys)
    check_operator(operator, [FIELD])
    check_operator(operator, [SCALAR])
    check_operator(operator, [replace(FIELD, dtype=np.dtype("i8"))])
    if over != "step":
        check_operator(operator, [ATOMS])


@pytest.mark.parametrize("side", ["above", "below"])
@pytest.mark.parametrize("sizes", [(40,), (1,) * 40, (3, 8, 20, 9)], ids=str)
def test_over_steps_equals_the_reference(sizes, side):
    data = np.random.default_rng(1).normal(size=(40, 5, 7))
    data[:, 0, 0], data[:, 0, 1] = -9.0, 9.0  # never, and always
    found_state = folded(operator := Exceedance(of="u", over="step", threshold=0.25, side=side), data, range(40), sizes)
    found = operator.finalize(found_state)
    beyond = (lambda v: v > 0.25) if side == "above" else (lambda v: v < 0.25)
    assert_equals_reference(found, data, range(40), beyond)
    np.testing.assert_allclose(found["probability"], np.mean(beyond(data), axis=0), rtol=1e-14)
    assert np.all(found["count"] == 40)


@pytest.mark.parametrize("cells", [0, 1, 2047, 2048, 2049, 5000])
def test_tiles_and_what_is_left_of_them(cells):
    data = np.random.default_rng(2).normal(size=(9, cells))
    operator = Exceedance(of="u", over="step", threshold=0.0)
    found = operator.finalize(folded(operator, data, range(9), (8, 1), replace(FIELD, dims=("x",))))
    assert_equals_reference(found, data, range(9), lambda v: v > 0)


@pytest.mark.parametrize("seed", range(5))
def test_runs_are_joined_whatever_the_order_of_merges(seed):
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(30, 2, 3)) + 1.0
    operator = Exceedance(of="u", over="step", threshold=0.0)
    cuts = [0, *sorted(rng.choice(np.arange(1, 30), 7, replace=False)), 30]
    spans = list(pairwise(cuts))
    states = [folded(operator, data[a:b], range(a, b), (b - a,)) for a, b in spans]
    while len(states) > 1:
        a, b = (states.pop(int(rng.integers(len(states)))) for _ in range(2))
        states.append(operator.merge(a, b))
    assert len(states[0]["stretches"]) == 1
    assert_equals_reference(operator.finalize(states[0]), data, range(30), lambda v: v > 0)


@pytest.mark.parametrize("sizes", [(17,), (5, 7, 5), (1,) * 17], ids=str)
def test_a_lost_step_ends_a_run(sizes):
    sequences = [s for s in range(20) if s not in (4, 11, 12)]
    operator = Exceedance(of="u", over="step", threshold=0.0)
    state = folded(operator, np.ones((17, 2, 2)), sequences, sizes)
    assert operator.finalize(state)["longest"].tolist() == [[7, 7], [7, 7]]
    data = np.random.default_rng(3).normal(size=(17, 2, 2)) + 1.0
    state = folded(operator, data, sequences, sizes)
    assert len(state["stretches"]) == 1
    assert_equals_reference(operator.finalize(state), data, sequences, lambda v: v > 0)


def test_states_on_both_sides_of_a_lost_step_are_not_joined():
    operator = Exceedance(of="u", over="step", threshold=0.0)
    ones = np.ones((4, 2, 2))
    state = operator.merge(folded(operator, ones, range(5, 9), (4,)), folded(operator, ones, range(4), (4,)))
    assert np.all(operator.finalize(state)["longest"] == 4)
    state = operator.merge(state, folded(operator, ones[:1], [4], (1,)))
    assert np.all(operator.finalize(state)["longest"] == 9)


@pytest.mark.parametrize("over", WAYS[1:], ids=str)
def test_over_space_gives_the_probability_alone(over):
    data = np.random.default_rng(4).normal(size=(1 if over == "space" else 3, 90, 100))
    operator = Exceedance(of="u", over=over, threshold=1.0, side="below")
    found = operator.finalize(folded(operator, data, range(len(data)), (len(data),)))
    assert list(found) == ["count", "probability"] == list(operator.describe({"u": FIELD}))
    assert found["count"] == data.size
    assert found["probability"] == np.mean(data < 1.0)


@pytest.mark.parametrize("side", ["above", "below"])
def test_what_equals_the_threshold_is_not_beyond_it(side):
    operator = Exceedance(of="u", over="step", threshold=0.1, side=side)
    found = operator.finalize(folded(operator, np.full((3, 2), 0.1), range(3), (3,), replace(FIELD, dims=("x",))))
    assert np.all(found["probability"] == 0.0)
    assert np.all(found["longest"] == 0)


def test_float32_is_compared_in_float64():
    single = replace(FIELD, dtype=np.dtype("f4"), dims=("x",))
    data = np.array([[np.float32(0.1)]])  # a little more than 0.1
    for over in WAYS:
        operator = Exceedance(of="u", over=over, threshold=0.1)
        assert operator.finalize(folded(operator, data, [0], (1,), single))["probability"] == 1.0


@pytest.mark.parametrize("over", WAYS, ids=str)
class TestNan:
    data = np.array([[1.0, 1.0], [np.nan, 1.0], [1.0, -1.0]])

    def found(self, over, nan):
        operator = Exceedance(of="u", over=over, threshold=0.0, nan=nan)
        state = folded(operator, self.data, range(3), (3,), replace(FIELD, dims=("x",)))
        return operator.finalize(state)

    def test_propagate(self, over):
        found = self.found(over, "propagate")
        np.testing.assert_equal(found["probability"], [np.nan, 2 / 3] if over == "step" else np.nan)
        assert np.all(found["count"] == (3 if over == "step" else 6))

    def test_skip(self, over):
        found = self.found(over, "skip")
        np.testing.assert_allclose(found["probability"], [1.0, 2 / 3] if over == "step" else 4 / 5)
        np.testing.assert_array_equal(found["count"], [2, 3] if over == "step" else 5)
        if over == "step":
            assert found["longest"].tolist() == [1, 2]

    def test_fail(self, over):
        with pytest.raises(OperatorError, match=r"'u' is NaN in step 13 at cell \(0,\)"):
            self.found(over, "fail")


@pytest.mark.parametrize("over", WAYS[1:], ids=str)
def test_no_values_have_no_probability(over):
    operator = Exceedance(of="u", over=over, threshold=0.0)
    found = operator.finalize(operator.update(operator.init(), batch([ATOMS], {"u": [np.zeros((0, 3))]})))
    assert found["count"] == 0
    assert np.isnan(found["probability"])


def test_infinite_values_are_beyond_or_not():
    operator = Exceedance(of="u", over="step", threshold=0.0)
    data = np.array([[np.inf, -np.inf]])
    found = operator.finalize(folded(operator, data, [0], (1,), replace(FIELD, dims=("x",))))
    assert found["probability"].tolist() == [1.0, 0.0]


def test_describe_says_what_is_looked_for():
    described = Exceedance(of="u", over="step", threshold=2.5).describe({"u": FIELD})
    assert all(v.dims == ("y", "x") and v.shape == (5, 7) for v in described.values())
    assert described["probability"].long_name == "probability of u above 2.5"


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [(replace(FIELD, dtype=np.dtype("c16")), "'u' is complex"), (ATOMS, "'u' is joined over the ranks")],
)
def test_what_can_never_be_folded_is_refused_at_once(variable, sentence):
    with pytest.raises(OperatorError, match=sentence):
        Exceedance(of="u", over="step", threshold=0.0).describe({"u": variable})


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"of": ["u", "v"]}, "takes one variable, got 2"),
        ({"threshold": float("nan")}, "finite number"),
        ({"side": "over"}, "'above' or 'below'"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Exceedance(**{"of": "u", "over": "step", "threshold": 0.0, **keys})
