# SPDX-License-Identifier: Apache-2.0
"""Several consumers are one: a step is done with when all of them are, messages pass at once."""

from functools import partial

from insitu.model import Step
from insitu.staging.assembler import ReadyStep
from insitu.staging.consumers import Consumers, Done
from insitu.staging.folder import Folded
from insitu.staging.shipped import Whole
from insitu.wire.messages import Event, Finished


class Player:
    """A consumer that is done with steps when it is told."""

    def __init__(self, name: str, done: Done) -> None:
        self.alive = True
        self.name = self.cause = name
        self.done = done
        self.taken: list[ReadyStep] = []

    def status(self) -> dict[str, int | float | str]:
        return {self.name: len(self.taken)}

    def submit(self, steps: list[ReadyStep]) -> None:
        self.taken += steps

    def merge(self, whole: Whole) -> None:
        self.done(Folded([], [], whole.nbytes))

    def finish(self, steps: int) -> None:
        self.done(Folded([], [Finished(0)]))

    def close(self) -> None:
        self.alive = False


STEPS = [ReadyStep(Step(n, n, 0.0), {}, {}) for n in range(4)]


def test_steps_are_done_with_when_all_are() -> None:
    told: list[Folded] = []
    players: list[Player] = []

    def make(name: str, done: Done) -> Player:
        players.append(Player(name, done))
        return players[-1]

    both = Consumers(partial(make, "folds"), [partial(make, "records")], told.append)
    both.submit(STEPS)
    folds, records = players
    assert both.status().items() >= {"folds": 4, "records": 4}.items()
    folds.done(Folded(STEPS[:3], []))
    assert told == []
    records.done(Folded(STEPS[:1], []))
    records.done(Folded(STEPS[1:2], [Event("info", "x", "y")]))
    folds.done(Folded(STEPS[3:], []))
    records.done(Folded(STEPS[2:], []))
    assert [ready.step.sequence for folded in told for ready in folded.steps] == [0, 1, 2, 3]
    assert [folded.messages for folded in told if folded.messages] == [[Event("info", "x", "y")]]
    assert both.alive
    records.close()
    assert not both.alive


def test_the_end_is_said_once_and_by_the_last() -> None:
    told: list[Folded] = []
    players: list[Player] = []

    def make(done: Done) -> Player:
        players.append(Player("", done))
        return players[-1]

    Consumers(make, [make], told.append)
    players[0].done(Folded([], [Event("info", "x", "y"), Finished(0)]))
    assert [folded.messages for folded in told] == [[Event("info", "x", "y")]]
    players[1].done(Folded([], [Finished(0)]))
    assert told[-1].messages == [Finished(0)]


def test_the_time_is_put_down_to_the_last_one_while_steps_wait() -> None:
    now, players = [0.0], list[Player]()

    def make(name: str, done: Done) -> Player:
        players.append(Player(name, done))
        return players[-1]

    both = Consumers(partial(make, "fold"), [partial(make, "trainer")], lambda folded: None, clock=lambda: now[0])
    now[0] = 5.0  # nothing waits yet
    both.submit(STEPS)
    now[0] = 6.0
    players[0].done(Folded(STEPS, []))
    now[0] = 9.0
    players[1].done(Folded(STEPS, []))
    now[0] = 20.0
    told = both.status()
    assert (told["waited_for_fold_s"], told["waited_for_trainer_s"]) == (1.0, 3.0)
