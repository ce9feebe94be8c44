# SPDX-License-Identifier: Apache-2.0
"""How long it takes to notice a change, and to cry wolf, is what the literature says."""

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from analytics.change_point import ChangePoint
from tests.analytics.results import result


def controller(**keys: Any) -> ChangePoint:
    return ChangePoint(**{"of": "series", "mean": 0.0, "std": 1.0, **keys})


def run_length(each: ChangePoint, values: Any) -> int | None:
    return next((n for n, value in enumerate(values, 1) if each.on_result(result(value, n), {})), None)


def average(shift: float, runs: int, longest: int, **keys: Any) -> float:
    random = np.random.default_rng(11)
    lengths = [run_length(controller(**keys), random.normal(shift, 1.0, longest)) for _ in range(runs)]
    return float(np.mean([longest if length is None else length for length in lengths]))


def test_a_change_by_one_deviation_is_found_after_ten_results() -> None:
    """Montgomery, table 9.3: two-sided CUSUM with k = 0.5, h = 5 has run lengths 10.4 and 4.01 at shifts of 1 and 2."""
    assert average(1.0, 300, 200) == pytest.approx(10.4, rel=0.1)
    assert average(2.0, 300, 200) == pytest.approx(4.01, rel=0.1)


def test_a_false_alarm_comes_each_465_results() -> None:
    assert average(0.0, 60, 4000) == pytest.approx(465, rel=0.3)


def test_page_hinkley_is_a_cusum_that_is_not_set_back() -> None:
    """Its sum above its smallest value is the same number as a CUSUM's, so both alarm at the same result."""
    random = np.random.default_rng(4)
    for _ in range(20):
        values = random.normal(0.5, 1.0, 300)
        assert run_length(controller(method="page_hinkley"), values) == run_length(controller(), values)


@pytest.mark.parametrize(("shift", "way"), [(3.0, "risen"), (-3.0, "fallen")])
def test_what_is_usual_is_learnt_and_learnt_anew(shift: float, way: str) -> None:
    random = np.random.default_rng(8)
    values = [*random.normal(100, 2, 200), *random.normal(100 + 2 * shift, 2, 200)]
    each, asked = controller(mean=None, std=None, learn=50), []
    for n, value in enumerate(values):
        asked += [(n, action) for action in each.on_result(result(value, n), {})]
    ((n, action),) = asked
    assert 200 <= n < 206
    assert (action.kind, action.why.split(":")[0]) == ("checkpoint", f"series has {way}")


def test_what_never_varied_changes_with_any_other_value() -> None:
    each = controller(mean=None, std=None, learn=3)
    assert run_length(each, [2.0, 2.0, 2.0, 2.0, 2.0, 2.1]) == 6


def test_it_can_set_parameters() -> None:
    (action,) = controller(then="set", values={"feed": 0.03}, threshold=0.1).on_result(result(5.0), {})
    assert (action.kind, action.values) == ("set", {"feed": 0.03})


def test_nan_is_passed_over() -> None:
    assert run_length(controller(threshold=1.0), [math.nan, math.nan, 2.0]) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"std": None}, "mean and std belong together"), ({"then": "set"}, "values and then: set belong together")],
)
def test_mistakes_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        controller(**keys)
