# SPDX-License-Identifier: Apache-2.0
"""In which order gradients of several trainers move the weights that all of them have. No threads, no sockets.

Trainers that do not wait for each other compute gradients by weights that others move meanwhile. Here it is decided
which gradients make the next update, so that all make the same updates in the same order, and a gradient is *stale* by
at most so many: Q. Ho et al., "More effective distributed ML via a stale synchronous parallel parameter server", 2013,
but that the bound counts updates and not rounds, so that one that is slow for good holds up nobody before the bound.
"""

from collections.abc import Callable
from dataclasses import dataclass

from analytics.nn.needs import torch


@dataclass(frozen=True, slots=True)
class Given:
    """What a trainer brings: the mean gradient of so many `samples`, all weights in a row, and their mean loss; or
    nothing, where it has no samples. `drained`: it will have none any more. `leaving`: it would learn with others."""

    samples: int
    gradient: torch.Tensor | None = None
    loss: float = 0.0
    drained: bool = False
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """One step of the optimizer: the mean gradient and loss of all samples in it, and how many trainers took part."""

    gradient: torch.Tensor
    loss: float
    trainers: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a trainer is given: the updates that it has not made. `drained`: nobody will have samples any more.
    `leaving`: one of them is; both are said to all behind the same update."""

    updates: tuple[Update, ...]
    drained: bool
    leaving: bool


class Sequencer:
    """Puts what `trainers` bring in order, behind the first `steps`.

    An update is made of all that waits, when it may be: when no gradient that is still computed would be stale by more
    than `staleness` updates, which is what the others wait for then; and when none is still computed where
    `ends_together` says so of its number, where one is leaving, or where nobody has samples. With a bound of 0 each
    update has a gradient of all: synchronous training.

    Keeps the updates that somebody has not made yet: `staleness` + 1 at most.

    >>> sequencer = Sequencer(2, staleness=1)
    >>> one = Given(8, torch.ones(1), 1.0)
    >>> {k: len(answer.updates) for k, answer in sequencer.put(0, one).items()}
    {0: 1}
    >>> sequencer.put(0, one)  # that of the other would be stale by two
    {}
    >>> {k: len(answer.updates) for k, answer in sequencer.put(1, one).items()}
    {0: 1, 1: 2}
    """

    def __init__(
        self, trainers: int, staleness: int, steps: int = 0, ends_together: Callable[[int], bool] = lambda step: False
    ) -> None:
        self.steps = steps
        self._staleness = staleness
        self._ends_together = ends_together
        self._bases = dict.fromkeys(range(trainers), steps)
        self._waiting: dict[int, Given] = {}
        self._updates: dict[int, Update] = {}

    def put(self, rank: int, given: Given) -> dict[int, Answer]:
        """Take what a trainer brings, who then waits; return the answers of those that may go on now."""
        self._waiting[rank] = given
        there = [self._waiting[each] for each in sorted(self._waiting)]
        learned = any(each.samples for each in there)
        leaving = any(each.leaving for each in there)
        computing = [base for each, base in self._bases.items() if each not in self._waiting]
        if computing:
            stale = self.steps + 1 - min(computing) > self._staleness
            if stale or leaving or not learned or self._ends_together(self.steps + 1):
                return {}
        if learned:
            self._update(there)
        drained = all(each.drained for each in there) and not computing
        return {each: self._answer(each, drained, leaving) for each in sorted(self._taken())}

    def _taken(self) -> list[int]:
        there = list(self._waiting)
        self._waiting.clear()
        return there

    def _update(self, there: list[Given]) -> None:
        total = sum(each.samples for each in there)
        gradient = sum(each.gradient * (each.samples / total) for each in there if each.gradient is not None)
        assert isinstance(gradient, torch.Tensor)
        loss = sum(each.loss * each.samples for each in there) / total
        self.steps += 1
        self._updates[self.steps] = Update(gradient, loss, len(there))

    def _answer(self, rank: int, drained: bool, leaving: bool) -> Answer:
        since = self._bases[rank]
        self._bases[rank] = self.steps
        updates = tuple(self._updates[number] for number in range(since + 1, self.steps + 1))
        for number in range(since + 1, min(self._bases.values()) + 1):
            del self._updates[number]
        return Answer(updates, drained, leaving)
