# SPDX-License-Identifier: Apache-2.0
"""What a series tells of its numbers is what pandas makes of all of them."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.steering.series import Series, number_of

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(numbers, st.integers(1, 30))
def test_a_series_agrees_with_pandas(values: list[float], span: int) -> None:
    series, pandas = Series([span]), pd.Series(values)
    for value in values:
        series.add(value)
    expected = {
        "last": values[-1], "previous": values[-2] if len(values) > 1 else math.nan, "mean": pandas.mean(),
        "std": pandas.std(), "min": pandas.min(), "max": pandas.max(),
    }  # fmt: skip
    for word, value in expected.items():
        assert series.read(word) == pytest.approx(value, rel=1e-9, abs=1e-6, nan_ok=True)
    assert series.read("ewm", span) == pytest.approx(pandas.ewm(span=span).mean().iloc[-1], rel=1e-9, abs=1e-6)


def test_a_small_deviation_from_a_large_mean_is_kept() -> None:
    values = 1e8 + np.random.default_rng(1).normal(size=1000)
    series = Series()
    for value in values:
        series.add(float(value))
    assert series.read("std") == pytest.approx(np.std(values, ddof=1), rel=1e-7)


def test_nan_is_left_out_of_all_but_the_last_two() -> None:
    series = Series([3])
    for value in (1.0, math.nan, 3.0):
        series.add(value)
    assert math.isnan(series.read("previous"))
    assert (series.read("last"), series.read("mean"), series.read("max")) == (3.0, 2.0, 3.0)
    assert not math.isnan(series.read("ewm", 3))


def test_nothing_is_known_of_no_numbers() -> None:
    series = Series([2])
    assert all(math.isnan(series.read(word)) for word in ("last", "previous", "mean", "std", "min", "max"))
    assert math.isnan(series.read("ewm", 2))


def test_an_array_becomes_a_number_only_as_it_was_asked_to() -> None:
    cells = np.array([[1.0, np.nan], [3.0, -4.0]])
    assert [number_of(cells, word) for word in ("max", "min", "mean")] == [3.0, -4.0, 0.0]
    assert math.isnan(number_of(cells, ""))
    assert math.isnan(number_of(np.arange(3), "[3]"))
    assert number_of(np.arange(3), "[-1]") == 2.0
    assert math.isnan(number_of(np.full(3, np.nan), "max"))
