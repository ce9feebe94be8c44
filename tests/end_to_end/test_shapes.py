# SPDX-License-Identifier: Apache-2.0
"""Whatever is legal to publish arrives as it is: parts of every shape, order and dtype, particles, single numbers."""

import numpy as np
import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.programs.shapes import ARRAYS, RANKS, STEPS, field, particles, scalar
from tests.end_to_end.runs import Left, program, total

REAL = [name for name in ARRAYS if name != "spectrum"]


@pytest.fixture(scope="module")
def left(start_shared: Start) -> Left:
    """Through shared memory; over sockets go the selections of `test_contract.py`."""
    operators = {f"{name}_cells": total(name, window=4) for name in REAL}
    operators |= {f"{name}_each": total(name, over="space") for name in (*REAL, "particles", "agreed", "lonely")}
    staging = {"transport": "shm"}
    left = start_shared(*program("shapes"), ranks=RANKS, nodes=2, operators=operators, staging=staging).wait()
    assert left.status == 0, left.stderr
    return left


@pytest.mark.parametrize("name", REAL)
def test_arrays_are_whole_whatever_their_parts(left: Left, name: str) -> None:
    steps = np.stack([field(name, n) for n in range(STEPS)]).astype(float)
    expected = [steps[first : first + 4].sum(axis=0) for first in range(0, STEPS, 4)]
    np.testing.assert_array_equal(left.results(f"{name}_cells")["total"], expected)
    np.testing.assert_array_equal(left.results(f"{name}_each")["total"], steps.sum(axis=(1, 2)))


def test_particles_may_come_and_go(left: Left) -> None:
    steps = [np.concatenate([particles(rank, n) for rank in range(RANKS)]) for n in range(STEPS)]
    assert 0 in {len(particles(rank, n)) for rank in range(RANKS) for n in range(STEPS)}
    each = left.results("particles_each")
    np.testing.assert_array_equal(each["number"], [step.size for step in steps])
    np.testing.assert_array_equal(each["total"], [step.sum() for step in steps])
    assert each["total"].units == "m/s"


@pytest.mark.parametrize("name", ["agreed", "lonely"])
def test_a_single_number_counts_once_whoever_puts_it(left: Left, name: str) -> None:
    each = left.results(f"{name}_each")
    np.testing.assert_array_equal(each["total"], [scalar(n) for n in range(STEPS)])
    np.testing.assert_array_equal(each["number"], 1)


def test_steps_keep_their_index_and_time(left: Left) -> None:
    each = left.results("agreed_each")
    assert each["step"].values.tolist() == list(range(0, 10 * STEPS, 10))
    np.testing.assert_allclose(each["time"], 0.1 * np.arange(STEPS))


def test_what_nobody_folds_does_not_leave_its_rank(left: Left) -> None:
    spectrum = left.report["variables"]["spectrum"]
    assert spectrum["delivered"] == spectrum["left_out"] == 0
    assert spectrum["because"] == ["no operator folds it"]
