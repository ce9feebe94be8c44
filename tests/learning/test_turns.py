# SPDX-License-Identifier: Apache-2.0
"""Which process of a learner is given which step."""

import numpy as np
import pytest

from analytics.nn.buffers import Firo
from analytics.train import Train
from insitu.learner import turn


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_shares_are_even_over_any_steps_that_are_equally_far_apart(processes: int) -> None:
    for stride in range(1, 41):
        turns = [turn(7 + stride * k, processes) for k in range(400)]
        shares = [turns.count(process) for process in range(processes)]
        assert sum(shares) == 400
        assert max(shares) - min(shares) <= 0.1 * 400, stride


def test_a_step_goes_to_whom_it_is_the_turn_of_and_to_those_that_look_back_to_it() -> None:
    entry = {"inputs": ["u", "u[-3]"], "targets": "v", "model": {"kind": "mlp"}, "parallel": {"trainers": 3}}
    train = Train.model_validate(entry)
    for process in range(3):
        takes = [sequence for sequence in range(60) if train.takes(sequence, process)]
        assert takes == [s for s in range(60) if process in (turn(s, 3), turn(s + 3, 3))]


@pytest.mark.parametrize("period", [1, 2, 5])
def test_several_trainers_draw_each_sample_as_often_as_one_with_all(period: int) -> None:
    """Of a stream that shows the same again after so many steps too: each share has all phases, and evenly."""
    samples, trainers, batch, batches = 600, 3, 20, 1500
    columns = {"inputs": ((1,), np.dtype("f4"))}
    buffers = [Firo(columns, 1 << 20, batch, threshold=batch, max_reuse=1 << 30, seed=k) for k in range(trainers)]
    for n in range(samples):
        rows = {"inputs": np.full((1, 1), n, np.float32)}
        buffers[turn(n, trainers)].put(np.array([n], np.uint32), rows)
    drawn = np.zeros(samples)
    for k in range(batches):
        for buffer in buffers:
            found = buffer.get(k)
            assert found is not None
            drawn[found[0]] += 1
    expected = batches * batch * trainers / samples
    phases = [drawn[phase::period].mean() / expected for phase in range(period)]
    np.testing.assert_allclose(phases, 1.0, atol=0.02)
    # No further apart than if each were drawn by chance.
    assert (drawn - expected).var() < 1.3 * expected
    assert abs(drawn - expected).max() < 6 * np.sqrt(expected)
