# SPDX-License-Identifier: Apache-2.0
"""When it says enough, the interval holds what it should as often as it says; and it remembers little."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analytics.converged import Converged
from tests.analytics.results import result


def controller(**keys: Any) -> Converged:
    return Converged(**{"of": "series", "bound": 0.05, **keys})


def until(each: Converged, values: Any) -> int | None:
    """After how many values it asks for its action."""
    return next((n for n, value in enumerate(values, 1) if each.on_result(result(value, n), {})), None)


def autoregressive(seed: int, n: int, memory: float) -> np.ndarray[Any, Any]:
    """A series of mean 0 and deviation 1 that forgets by a factor of `memory` a step."""
    random, x = np.random.default_rng(seed), 0.0
    noise = random.normal(size=n) * math.sqrt(1 - memory**2)
    out = np.empty(n)
    for k in range(n):
        out[k] = x = memory * x + noise[k]
    return out


def test_the_interval_is_scipys_of_the_batch_means() -> None:
    values = np.random.default_rng(3).normal(size=24 * 4)
    each = controller(batches=20, bound=1e-9)
    assert until(each, values) is None
    # 96 values: at 40 they became batches of 2, at 80 of 4; 24 of them are full.
    means = values.reshape(24, 4).mean(axis=1)
    low, high = stats.t.interval(0.95, 23, means.mean(), stats.sem(means))
    assert each._interval() == pytest.approx((means.mean(), (high - low) / 2))


@pytest.mark.parametrize(("memory", "least"), [(0.0, 0.87), (0.9, 0.85)])
def test_the_mean_is_within_the_interval_about_as_often_as_it_says(memory: float, least: float) -> None:
    inside = [abs(each._interval()[0]) < each._interval()[1] for each in map(_followed, [memory] * 80, range(80))]
    assert least < np.mean(inside) < 1.0


def _followed(memory: float, seed: int) -> Converged:
    each = controller(bound=1e-12, batches=10)
    for value in autoregressive(seed, 640, memory):
        each._add(value)
    return each


def test_correlated_results_take_longer_than_independent_ones() -> None:
    quick = until(controller(bound=0.1), autoregressive(1, 4000, 0.0))
    slow = until(controller(bound=0.1), autoregressive(1, 40_000, 0.95))
    assert quick is not None
    assert slow is not None
    # t s / sqrt(n) = 0.1: about 400 independent results, fewer as it is asked each time; a correlated one counts for
    # (1 - 0.95) / (1 + 0.95) = 1 / 39.
    assert 100 < quick < 700
    assert slow > 10 * quick


def test_memory_does_not_grow() -> None:
    each = controller(bound=1e-12, batches=20)
    assert until(each, np.random.default_rng(0).normal(size=5000)) is None
    assert len(each._sums) < 40
    assert each._length == 128


def test_it_asks_once_and_says_why() -> None:
    each, asked = controller(bound=0.5, then="pause"), []
    for n, value in enumerate(autoregressive(2, 400, 0.0), 1):
        asked += each.on_result(result(value, n), {})
    ((action),) = asked
    assert action.kind == "pause"
    assert action.why.startswith("series = ")
    assert action.why.endswith(" after 100 results")


def test_a_drift_that_comes_to_rest_is_seen() -> None:
    values = np.exp(-np.arange(500) / 50)
    n = until(controller(by="drift", bound=1e-3, batches=20, least=1), values)
    assert n is not None
    means = [values[k - 20 : k].mean() for k in (n, n - 20, n - 1, n - 21)]
    assert means[1] - means[0] < 1e-3 <= means[3] - means[2]


def test_a_relative_bound_is_of_the_mean() -> None:
    values = 1000 + np.random.default_rng(5).normal(size=300)
    assert until(controller(bound=1e-3, relative=True), values) == 100
    assert until(controller(bound=1e-3), values) is None


def test_nan_is_passed_over_and_does_not_count() -> None:
    assert until(controller(bound=10.0, least=30, batches=2), [math.nan] * 50 + [1.0, 2.0] * 20) == 80
