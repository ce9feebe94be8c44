# SPDX-License-Identifier: Apache-2.0
"""The laws of the agreement, whatever is delayed, lost or killed.

A small world of one controller and some ranks is run event by event: each message takes a time of its own (in order on
each link), ranks take steps of uneven length, and links, ranks and the controller break where the example says so. Then
it is asked who applied what at which boundary.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.steering.agreement import TRANSITIONS, Event, Pledge, Proposal, Side, State, Word

MAX_WAIT = 10.0
#: A simulation of so many steps.
STEPS = 40


@dataclass
class Fate:
    """What an example does to the world."""

    delays: list[float]
    paces: list[float]
    lead: int
    #: When a rank dies, when its link breaks, and when the controller dies; beyond the end: never.
    dies: dict[int, float]
    breaks: dict[int, float]
    controller_dies: float
    #: How long it takes until the controller sees that a rank is gone.
    notices: float
    unfit: set[int] = field(default_factory=set)


class World:
    """One attempt after another at one action, until it has an outcome."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.now = 0.0
        self.ranks = [SimulatedRank(self, number, pace) for number, pace in enumerate(fate.paces)]
        self.attempts: list[Proposal] = []
        #: What a controller writes down before it tells anybody that an action is committed.
        self.intents: list[Proposal] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._arrives: dict[tuple[str, int], float] = {}

    def at(self, when: float, do: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, do))

    def send(self, way: str, rank: int, do: Callable[[], None]) -> None:
        """Deliver after a delay, behind what was sent before on the same way; never over a link that is broken."""
        delay = self.fate.delays[self._count % len(self.fate.delays)]
        arrives = max(self.now + delay, self._arrives.get((way, rank), 0.0))
        self._arrives[way, rank] = arrives

        def deliver() -> None:
            if self.now < self.fate.breaks.get(rank, 1e9):
                do()

        self.at(arrives, deliver)

    @property
    def controlled(self) -> bool:
        return self.now < self.fate.controller_dies

    def propose(self) -> None:
        at = max(rank.passed for rank in self.ranks) + self.fate.lead
        number = len(self.attempts)
        proposal = Proposal(at, range(len(self.ranks)))
        self.attempts.append(proposal)
        for rank in self.ranks:
            self.send("down", rank.number, lambda rank=rank: rank.proposed(number, at))  # type: ignore[misc]
            if rank.lost:
                proposal.hear(rank.number, Word.LOST)
        self._follow(number, True)

    def hear(self, number: int, rank: int, word: Word) -> None:
        if not self.controlled:
            return
        proposal = self.attempts[number]
        moved = proposal.hear(rank, word)
        if word is Word.URGE and not moved and proposal.state is State.COMMITTED:
            self._decide(number, rank, apply=True)
        self._follow(number, moved)

    def notice(self, rank: int) -> None:
        """The controller sees that a rank, or the link to it, is gone."""
        self.ranks[rank].lost = True
        if self.attempts:
            self.hear(len(self.attempts) - 1, rank, Word.LOST)

    def _follow(self, number: int, moved: bool) -> None:
        proposal = self.attempts[number]
        if not moved or proposal.state is State.PROPOSED:
            return
        if proposal.state is State.COMMITTED:
            self.intents.append(proposal)
            for rank in self.ranks:
                self._decide(number, rank.number, apply=True)
        elif proposal not in self.intents:
            for rank in self.ranks:
                self._decide(number, rank.number, apply=False)
            if proposal.state is State.LATE and len(self.attempts) < 6:
                self.fate.lead = max(1, 2 * self.fate.lead)
                self.propose()

    def _decide(self, number: int, rank: int, *, apply: bool) -> None:
        self.send("down", rank, lambda: self.ranks[rank].decided(number, apply=apply))

    def run(self) -> None:
        for rank in self.ranks:
            self.at(0.0, rank.step)
        self.at(1.0, self.propose)
        for number, when in [*self.fate.dies.items(), *self.fate.breaks.items()]:
            self.at(when + self.fate.notices, lambda number=number: self.notice(number))  # type: ignore[misc]
        while self._queue:
            self.now, _, do = heapq.heappop(self._queue)
            do()


class SimulatedRank:
    """Takes a step each `pace`, listens at the beginning of each, and keeps its promises at the end."""

    def __init__(self, world: World, number: int, pace: float) -> None:
        self.world, self.number, self.pace = world, number, pace
        self.passed = 0
        self.lost = False
        self.pledge: Pledge | None = None
        self.round = -1
        self.came_at: float | None = None
        self.mail: list[Callable[[], None]] = []
        self.applied: dict[int, int] = {}
        self.stopped: int | None = None
        self.over = False

    @property
    def alive(self) -> bool:
        return self.world.now < self.world.fate.dies.get(self.number, 1e9)

    def say(self, word: Word, number: int | None = None) -> None:
        number = self.round if number is None else number
        self.world.send("up", self.number, lambda: self.world.hear(number, self.number, word))

    def proposed(self, number: int, at: int) -> None:
        self.mail.append(lambda: self._propose(number, at))

    def decided(self, number: int, *, apply: bool) -> None:
        self.mail.append(lambda: self._decide(number, apply=apply))

    def _propose(self, number: int, at: int) -> None:
        if self.pledge is not None:
            self.pledge.decide(apply=False)
        self.round, self.pledge = number, None
        if self.number in self.world.fate.unfit:
            self.say(Word.REFUSE)
        elif at < self.passed:
            self.say(Word.LATE)
        else:
            self.pledge = Pledge(at, MAX_WAIT)
            self.say(Word.PROMISE)

    def _decide(self, number: int, *, apply: bool) -> None:
        if self.pledge is not None and number == self.round:
            self.pledge.decide(apply=apply)

    def listen(self) -> None:
        mail, self.mail = self.mail, []
        for do in mail:
            do()

    def step(self) -> None:
        if self.alive:
            self.listen()
            self.world.at(self.world.now + 0.01, self.boundary)

    def boundary(self) -> None:
        if not self.alive:
            return
        self.came_at = self.world.now if self.came_at is None else self.came_at
        pledge = self.pledge
        if pledge is not None and pledge.waits(self.passed):
            self.listen()
            pledge = self.pledge
        if pledge is not None and pledge.waits(self.passed):
            word = pledge.waited(self.world.now - self.came_at)
            if word is not None:
                self.say(word)
            if word is Word.DOUBT:
                self.stopped = self.passed
            else:
                self.world.at(self.world.now + 0.5, self.boundary)
                return
        if pledge is not None and pledge.applies(self.passed):
            pledge.move(Event.STEP)
            self.applied[self.round] = self.passed
            self.say(Word.APPLIED)
        self.passed += 1
        self.came_at = None
        if self.passed < STEPS and self.stopped is None:
            self.world.at(self.world.now + self.pace, self.step)
        else:
            if self.pledge is not None:
                self.pledge.move(Event.END)
            self.say(Word.ENDED)


def drawn(seed: int) -> Fate:
    """A fate of one to four ranks, drawn by a seed: Hypothesis takes ten times as long to put one together."""
    draw = random.Random(seed)
    ranks = range(draw.randint(1, 4))

    def some(number: int, low: float, high: float) -> dict[int, float]:
        return {rank: draw.uniform(low, high) for rank in draw.sample(ranks, draw.randint(0, min(number, len(ranks))))}

    return Fate(
        delays=[draw.choice([0.0, draw.uniform(0.0, 8.0)]) for _ in range(draw.randint(1, 8))],
        paces=[draw.choice([0.3, 1.0, 1.5, 6.0]) for _ in ranks],
        lead=draw.randint(0, 6),
        dies=some(1, 0.0, 60.0),
        breaks=some(2, 0.0, 60.0),
        controller_dies=draw.choice([1e9, draw.uniform(0.0, 60.0)]),
        notices=draw.uniform(0.1, 30.0),
        unfit=set(some(1, 0.0, 1.0)),
    )


fates = st.integers(0, 2**32 - 1).map(drawn)


@settings(max_examples=2000)
@given(fate=fates)
def test_ranks_never_differ_without_the_record_saying_that_they_may(fate: Fate) -> None:
    world = World(fate)
    world.run()
    for number, proposal in enumerate(world.attempts):
        applied = [rank for rank in world.ranks if number in rank.applied]
        passed = [rank for rank in world.ranks if number not in rank.applied and rank.passed > proposal.at]
        assert {rank.applied[number] for rank in applied} <= {proposal.at}, "at its own step, or not at all"
        # What the record says of a commit without an outcome is that it is torn.
        unknown = proposal in world.intents and proposal.state is State.COMMITTED
        if applied and passed:
            assert proposal.state is State.TORN or unknown
        if proposal.state is State.APPLIED:
            assert applied
            assert not passed
        if proposal.state in (State.REFUSED, State.LATE, State.LOST, State.NOWHERE):
            assert not applied
    assert len({number for rank in world.ranks for number in rank.applied}) <= 1, "an action is applied once"


@settings(max_examples=300)
@given(fate=fates)
def test_where_nothing_breaks_there_is_never_any_doubt(fate: Fate) -> None:
    """Slowness alone, of ranks or of the network, is answered by another step."""
    fate.dies, fate.breaks, fate.controller_dies, fate.unfit = {}, {}, 1e9, set()
    fate.delays = [delay / 10 for delay in fate.delays]  # there and back within half of MAX_WAIT
    world = World(fate)
    world.run()
    assert all(rank.stopped is None for rank in world.ranks)
    assert world.attempts[-1].state in (State.APPLIED, State.LATE, State.LOST, State.NOWHERE)
    assert all(proposal.state is State.LATE for proposal in world.attempts[:-1])


def test_a_rank_in_doubt_has_applied_nothing_whatever_comes_later() -> None:
    pledge = Pledge(3, 1.0)
    assert pledge.waited(1.0) is Word.DOUBT
    assert not pledge.decide(apply=True)
    assert not pledge.applies(3)


@pytest.mark.parametrize("word", [Word.ENDED, Word.LOST])
def test_a_stop_does_without_ranks_that_are_not_there(word: Word) -> None:
    proposal = Proposal(5, range(3), spare=True)
    proposal.hear(1, word)
    proposal.hear(0, Word.PROMISE)
    assert proposal.hear(2, Word.PROMISE)
    assert proposal.state is State.COMMITTED
    proposal.hear(2, word)
    proposal.hear(0, Word.APPLIED)
    assert proposal.state is State.APPLIED
    nobody = Proposal(5, [0], spare=True)
    nobody.hear(0, word)
    assert nobody.state is State.NOWHERE


def test_one_that_votes_for_all_is_enough() -> None:
    proposal = Proposal(5, range(3), voters=[0])
    assert not proposal.hear(2, Word.APPLIED), "it is told by the one, and faster than that one's promise"
    assert proposal.hear(0, Word.PROMISE)
    assert proposal.silent == {0, 1}
    proposal.hear(0, Word.APPLIED)
    assert proposal.hear(1, Word.APPLIED)
    assert proposal.state is State.APPLIED


def test_every_state_but_the_last_ones_has_a_way_on() -> None:
    for side in Side:
        reached = {after for events in TRANSITIONS[side].values() for after in events.values()}
        assert reached | {State.NEW} >= TRANSITIONS[side].keys()
