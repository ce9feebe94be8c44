# SPDX-License-Identifier: Apache-2.0
"""Every operator keeps the laws of a fold. A new operator is a line of CASES."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from analytics.histogram import Histogram
from analytics.moments import Moments
from insitu.model import Variable
from insitu.operator import Operator
from insitu.testing import check_operator

FIELD = Variable("u", np.dtype("f8"), (5, 7), ("y", "x"), units="m s-1")
SCALAR = Variable("u", np.dtype("f8"), (), ())
ATOMS = Variable("u", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
TYPES = ["f8", "f4", "i4", "u1", "?"]
OVER = ["step", "space", ["step", "space"]]

Make = Callable[..., Operator]

#: What is tried over step, over space and over both, with every dtype.
CASES: dict[str, Make] = {
    "moments": lambda over: Moments(of="u", over=over, orders=4),
    "moments, NaN left out": lambda over: Moments(of="u", over=over, orders=2, nan="skip"),
    "moments, extremes only": lambda over: Moments(of="u", over=over, orders=0),
    "moments, no extremes": lambda over: Moments(of="u", over=over, orders=3, extremes=False),
    "histogram": lambda over: Histogram(of="u", over=over, bins=5, range=(-1.0, 1.5)),
    "histogram, range found": lambda over: Histogram(of="u", over=over, bins=16, range="auto"),
}

#: Which of these is possible for each of them.
WAYS = [(case, over) for case in CASES for over in OVER if (case, over) != ("histogram, range found", "step")]


@pytest.mark.parametrize(("case", "over"), WAYS, ids=str)
def test_fields(case, over):
    check_operator(CASES[case](over), [FIELD])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("over", OVER, ids=str)
@pytest.mark.parametrize("name", ["moments", "histogram"])
def test_every_dtype(name, over, dtype):
    check_operator(CASES[name](over), [replace(FIELD, dtype=np.dtype(dtype))])


@pytest.mark.parametrize("over", OVER, ids=str)
@pytest.mark.parametrize("name", ["moments", "histogram"])
def test_scalars(name, over):
    check_operator(CASES[name](over), [SCALAR])


@pytest.mark.parametrize("over", OVER[1:], ids=str)
@pytest.mark.parametrize("name", ["moments", "histogram"])
def test_atoms_whose_number_changes(name, over):
    check_operator(CASES[name](over), [ATOMS])


@pytest.mark.parametrize(("case", "over"), WAYS, ids=str)
def test_nan(case, over):
    def with_nan(variable, shape, rng):
        values = rng.normal(size=shape)
        return np.where(rng.random(shape) < 0.2, np.nan, values)

    check_operator(CASES[case](over), [FIELD], values=with_nan)
