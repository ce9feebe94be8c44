# SPDX-License-Identifier: Apache-2.0
"""In which order gradients move the weights: the bound holds, all make the same updates, and 0 is synchronous."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analytics.nn.sequencing import Given, Sequencer

TRAINERS, MOST = 3, 60


class Trainers:
    """Trainers whose gradients are numbered, each with one entry that is not zero: a sum says which are in it."""

    def __init__(self, sequencer: Sequencer) -> None:
        self.sequencer = sequencer
        self.made: list[list[frozenset[int]]] = [[] for _ in range(TRAINERS)]
        self.waiting: dict[int, int] = {}
        self.given = 0
        #: By how many updates each gradient was stale.
        self.stale: list[int] = []
        self.together: list[int] = []

    def come(self, rank: int) -> None:
        """A trainer is ready with a gradient, of the updates that it has made."""
        self.waiting[rank] = len(self.made[rank])
        self.given += 1
        gradient = torch.zeros(MOST)
        gradient[self.given - 1] = 1.0
        answers = self.sequencer.put(rank, Given(1, gradient))
        for each, answer in answers.items():
            self.made[each] += [frozenset(update.gradient.nonzero().ravel().tolist()) for update in answer.updates]
            self.stale.append(len(self.made[each]) - 1 - self.waiting.pop(each))
        if answers and not self.waiting and len({len(each) for each in self.made}) == 1:
            self.together.append(self.sequencer.steps)

    def free(self) -> list[int]:
        return [rank for rank in range(TRAINERS) if rank not in self.waiting]


#: Who of those that do not wait is ready next.
Orders = st.lists(st.integers(0, TRAINERS - 1), min_size=1, max_size=MOST)


def run(sequencer: Sequencer, order: list[int]) -> Trainers:
    trainers = Trainers(sequencer)
    for choice in order:
        free = trainers.free()
        assert free  # somebody may always go on
        trainers.come(free[choice % len(free)])
    return trainers


@given(Orders, st.integers(0, 4))
def test_no_gradient_is_older_than_the_bound_and_all_make_the_same_updates(order: list[int], bound: int) -> None:
    trainers = run(Sequencer(TRAINERS, bound), order)
    assert max(trainers.stale, default=0) <= bound
    longest = max(trainers.made, key=len)
    for made in trainers.made:
        assert made == longest[: len(made)]
    # Each gradient is in one update, once.
    learned = [number for some in longest for number in some]
    assert len(learned) == len(set(learned)) == trainers.given - len(trainers.waiting)


@given(Orders)
def test_with_a_bound_of_nothing_each_update_is_made_of_all(order: list[int]) -> None:
    trainers = run(Sequencer(TRAINERS, 0), order)
    assert all(len(some) == TRAINERS for made in trainers.made for some in made)
    assert set(trainers.stale) <= {0}


@given(Orders, st.integers(1, 4))
def test_nobody_passes_an_update_at_which_all_are_to_be(order: list[int], bound: int) -> None:
    trainers = run(Sequencer(TRAINERS, bound, ends_together=lambda step: step % 5 == 0), order)
    steps = trainers.sequencer.steps
    assert set(range(5, steps + 1, 5)) <= set(trainers.together)


@pytest.mark.parametrize("flags", [{"leaving": True}, {"drained": True}])
def test_leaving_and_the_end_are_said_to_all_behind_the_same_update(flags: dict[str, bool]) -> None:
    sequencer = Sequencer(TRAINERS, staleness=3)
    one = Given(1, torch.ones(1))
    assert sequencer.put(0, one)
    assert not sequencer.put(1, Given(0, **flags))
    if "leaving" in flags:
        assert not sequencer.put(0, one)
        answers = sequencer.put(2, one)
        assert all(answer.leaving for answer in answers.values())
    else:
        assert not sequencer.put(0, Given(0, **flags))
        answers = sequencer.put(2, Given(0, **flags))
        assert all(answer.drained for answer in answers.values())
    assert answers.keys() == {0, 1, 2}
    assert [len(answers[k].updates) for k in range(3)] == ([1, 2, 2] if "leaving" in flags else [0, 1, 1])


def test_who_has_no_samples_is_let_go_with_the_next_update() -> None:
    sequencer = Sequencer(TRAINERS, staleness=1)
    nothing, one = Given(0), Given(1, torch.ones(1))
    assert not sequencer.put(1, nothing)
    assert sequencer.put(0, one).keys() == {0, 1}
    assert not sequencer.put(1, nothing)
    assert not sequencer.put(0, nothing)
    assert all(not answer.drained for answer in sequencer.put(2, nothing).values())


def test_an_update_is_the_mean_over_all_samples() -> None:
    sequencer = Sequencer(2, staleness=0)
    a, b = Given(3, torch.ones(2), 1.0), Given(9, torch.full((2,), 4.0), 4.0)
    sequencer.put(1, b)
    [update] = sequencer.put(0, a)[0].updates
    assert update.gradient.tolist() == [3.25, 3.25]
    assert update.loss == 3.25
