# SPDX-License-Identifier: Apache-2.0
"""What every operator makes of poor input: nothing, one value, equal values, infinite ones, or a dtype's last.

Warnings are errors here, so a result that is not defined is NaN in silence. What it is to be in particular, each
operator's own tests say.
"""

import math
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from analytics.spectrum import Spectrum
from insitu.errors import OperatorError
from insitu.operator import JointOperator, Operator
from insitu.testing import batch
from tests.analytics.test_laws import CASES, MEMBERS, OF_MEMBERS, PLACED_ONLY


def tried(cases=CASES):
    """Return every operator with the inputs that its case has first."""
    made = []
    for make, ways, several in cases:
        inputs = next(iter(several.values()))
        made += [pytest.param(make(over), inputs, id=repr(make(over))) for over in ways]
    return made


#: One case of each operator: kernels are compiled for each dtype.
FIRST = list({type(case[0](case[1][0])): case for case in reversed(CASES)}.values())


def folded(operator, inputs, steps, fill):
    """Fold steps one after another, each filled by ``fill(variable, shape)``; rows of joined variables are five."""
    state = operator.init()
    for step in range(steps):
        arrays = {}
        for variable in inputs:
            shape = (5, *variable.row) if variable.joined else variable.shape
            whole = variable.name == "id"
            arrays[variable.name] = [np.arange(5) if whole else fill(variable, shape)]
            if (
                variable.dtype.kind == "f"
                and np.nanmax(np.abs(arrays[variable.name][0])) > np.finfo(variable.dtype).max
            ):
                pytest.skip("no such number is published in this dtype")
        state = operator.update(state, batch(inputs, arrays, first=step))
    return operator.finalize(state)


@contextmanager
def refusing_squares(operator):
    """Patterns of a whole field are found through squares: where these overflow, that is said."""
    try:
        yield
    except OperatorError as error:
        if not isinstance(operator, JointOperator) or "squares overflow" not in str(error):
            raise


def steps_of(operator: Operator) -> int:
    return 1 if operator.keeps_steps else 9


@pytest.mark.parametrize(("operator", "inputs"), tried())
def test_no_data_at_all(operator, inputs):
    if isinstance(operator, JointOperator):
        pytest.skip("without any place nothing is finalised")
    found = operator.finalize(operator.init())
    described = operator.describe({each.name: each for each in inputs})
    assert all(found[name].dtype == described[name].dtype for name in found)
    assert all(np.all(found[name] == 0) for name in found if name in ("count", "number", "segments", "cells"))


@pytest.mark.parametrize(("operator", "inputs"), tried())
def test_empty_blocks_change_nothing(operator, inputs):
    """A rank without cells, or without particles, between others that have some."""
    rng = np.random.default_rng(0)
    steps = range(steps_of(operator))
    shapes = {each.name: (5, *each.row) if each.joined else each.shape for each in inputs}
    if not all(shapes.values()):
        pytest.skip("a scalar is never empty")
    if operator.keeps_cells:
        none = {name: (0, *shape[1:]) for name, shape in shapes.items()}
        state = operator.init()
        for step in steps:
            state = operator.update(state, batch(inputs, {n: [np.zeros(s)] for n, s in none.items()}, first=step))
        operator.finalize(operator.merge(operator.init(), state))
        return
    state, wanted = operator.init(), operator.init()
    for step in steps:
        data = {n: [np.arange(5) if n == "id" else rng.normal(size=shape)] for n, shape in shapes.items()}
        none = {n: [np.zeros((0, *shape[1:]))] for n, shape in shapes.items()}
        wanted = operator.update(wanted, batch(inputs, data, first=step))
        for block in (none, data, none):
            state = operator.update(state, batch(inputs, block, first=step))
    for name, expected in operator.finalize(wanted).items():
        np.testing.assert_array_equal(operator.finalize(state)[name], expected, err_msg=name)


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e8 / 3, 1e300])
@pytest.mark.parametrize(("operator", "inputs"), tried())
def test_what_does_not_vary(operator, inputs, value, steps):
    """One value alone, or many that are equal: no variance, no power, and what is divided by these is NaN."""
    found = {}
    with refusing_squares(operator):
        found = folded(operator, inputs, min(steps, steps_of(operator)), lambda variable, shape: np.full(shape, value))
    for name in ("variance", "covariance", *(["density"] if isinstance(operator, Spectrum) else [])):
        known = np.sqrt(np.abs(found.get(name, np.zeros(0))))
        np.testing.assert_allclose(known[np.isfinite(known)], 0.0, atol=1e-15 * abs(value), err_msg=name)
    for name in ("skewness", "kurtosis", "correlation", "autocorrelation", "integrated_time"):
        assert np.all(np.isnan(found.get(name, np.nan))), name


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(("operator", "inputs"), tried())
def test_one_value_is_no_number(operator, inputs, value):
    def fill(variable, shape):
        made = np.linspace(0.0, 1.0, math.prod(shape)).reshape(shape)
        made.reshape(-1)[made.size // 2] = value
        return made

    if type(operator) in PLACED_ONLY:
        with pytest.raises(OperatorError, match="'u' is not finite in step 0"):
            folded(operator, inputs, 1, fill)
    else:
        folded(operator, inputs, steps_of(operator), fill)


@pytest.mark.parametrize("size", [1e120, 1e300])
@pytest.mark.parametrize(("operator", "inputs"), tried())
def test_squares_that_no_float64_holds(operator, inputs, size):
    rng = np.random.default_rng(2)
    with refusing_squares(operator):
        folded(operator, inputs, steps_of(operator), lambda variable, shape: size * rng.normal(size=shape))


@pytest.mark.parametrize(("operator", "inputs"), tried(FIRST))
def test_integers_at_the_end_of_their_range_are_as_float64(operator, inputs):
    """Nothing overflows: what is found is what is found of the same numbers as float64."""
    dtype = "i8"
    ends = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    kinds = [each if each.name == "id" else replace(each, dtype=np.dtype(dtype)) for each in inputs]
    values = [rng.choice(np.array([ends.min, ends.max], dtype), 2000) for _ in range(40)]

    def feed(variables):
        some = iter(values)
        return folded(
            operator, variables, steps_of(operator), lambda v, shape: next(some)[: math.prod(shape)].reshape(shape)
        )

    wanted = feed([each if each.name == "id" else replace(each, dtype=np.dtype("f8")) for each in inputs])
    found = feed(kinds)
    for name, expected in wanted.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("operator", OF_MEMBERS, ids=repr)
def test_members_that_are_not_there_or_do_not_vary_or_are_no_numbers(operator):
    """No member (blocks of none are left out before), one alone, equal ones, and a cell that is NaN or huge."""
    described = operator.describe(operator.seen({"u": MEMBERS, "v": replace(MEMBERS, name="v")}))
    fields = np.random.default_rng(4).normal(size=MEMBERS.shape)
    tried = [None, fields[:1], np.full(MEMBERS.shape, 0.1), fields[:, :0]]
    tried += [np.where(fields == fields[3, 1, 0], bad, fields) for bad in (np.inf, -np.inf, np.nan, 1e120, 1e300)]
    for members in tried:
        state = operator.init()
        for step in range(0 if members is None else 2):
            each = {name: [members] for name in operator.of}
            inputs = [replace(MEMBERS, name=name) for name in operator.of]
            state = operator.update(state, operator.seen_batch(batch(inputs, each, first=step)))
        for name, found in operator.finalize(state).items():
            assert found.dtype == described[name].dtype
    equal = folded_members(operator, np.full(MEMBERS.shape, 0.1))
    for name in ("variance", "covariance"):
        assert np.all(equal.get(name, np.zeros(1)) <= 1e-30), name
    for name in ("first", "total", "correlation", "skewness", "kurtosis"):
        assert np.all(np.isnan(equal.get(name, np.nan))), name


def folded_members(operator, members):
    inputs = [replace(MEMBERS, name=name) for name in operator.of]
    one = batch(inputs, {name: [members] for name in operator.of})
    return operator.finalize(operator.update(operator.init(), operator.seen_batch(one)))
