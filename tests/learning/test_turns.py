# SPDX-License-Identifier: Apache-2.0
"""Which process of a learner is given which step."""

import pytest

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
