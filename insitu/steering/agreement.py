# SPDX-License-Identifier: Apache-2.0
"""How all ranks come to apply an action after the same step, or none of them: both sides, no sockets, no clock.

It is a two-phase commit with a step in it. The controller proposes a step. Each rank promises, or refuses; from its
promise on it does not pass that step without the decision. When all have promised the controller commits, else it
aborts. A rank that comes to the step before the decision waits, for a bounded time; halfway through it *urges*, and the
controller, unless it has committed, aborts and proposes a later step. So slowness alone never leaves anybody in doubt:
only a link that breaks, or a controller that is gone, between promise and decision. A rank in doubt applies nothing.

Rule 1: the transitions are the table below and nothing else. ``docs/steering.md`` is drawn from it.

Rule 2: a *boundary* is the moment after a rank has closed a step, published or not; they are numbered from 0. A rank
that has passed `n` of them can promise boundary `n` or a later one.

Rule 3: what is not known is not claimed. A committed action of which a rank was lost before it spoke is *torn*, even if
that rank died long before the step.

Reference: J. Gray, Notes on data base operating systems, 1978 (two-phase commit, and why it must block or doubt).
"""

from collections.abc import Collection, Iterable
from enum import Enum


class Side(Enum):
    """Who keeps the state."""

    CONTROLLER = "the controller"
    RANK = "a rank"


class State(Enum):
    """How far an attempt has come. The last ones are final."""

    NEW = "nothing was said"
    PROPOSED = "the ranks are asked for their promise"
    PROMISED = "this rank will not pass the step without the decision"
    COMMITTED = "it is decided that all apply it"
    APPLIED = "applied after the step"
    REFUSED = "a rank refused it"
    LATE = "a rank was past the step, or waited at it in vain: another step has to be found"
    LOST = "a rank has ended or is gone"
    NOWHERE = "committed, but no rank came to apply it"
    TORN = "some ranks applied it and some did not, or nobody knows"
    ABORTED = "it is decided that nobody applies it"
    DOUBTED = "this rank could not learn the decision, and has applied nothing"
    FAILED = "the author's function raised"
    ENDED = "the simulation ended before the step"


class Word(Enum):
    """What a rank says of an attempt; *lost* is what the controller says of a rank that is gone."""

    PROMISE = "promise"
    REFUSE = "refuse"
    LATE = "late"
    URGE = "urge"
    APPLIED = "applied"
    FAILED = "failed"
    DOUBT = "doubt"
    ENDED = "ended"
    LOST = "lost"


class Event(Enum):
    """What moves a side on."""

    PROPOSE = "a step is proposed"
    ALL_PROMISE = "all have promised"
    ONE_REFUSES = "one refuses"
    ONE_LATE = "one is late, urges or doubts"
    ONE_LOST = "one has ended or is gone"
    ALL_APPLY = "all that came to the step have applied it"
    NONE_APPLIES = "none has applied it"
    SOME_APPLY = "some have applied it, or one is gone"
    AGREES = "proposed, and fit to be applied"
    REFUSES = "proposed, and unfit"
    PASSED = "proposed, but the step is past"
    COMMIT = "commit"
    ABORT = "abort, or another proposal"
    PATIENCE = "max_wait is over at the step"
    STEP = "the step is closed"
    FAULT = "the step is closed, and the function raises"
    END = "the simulation ends"


#: What may happen in which state, and which state follows.
TRANSITIONS: dict[Side, dict[State, dict[Event, State]]] = {
    Side.CONTROLLER: {
        State.NEW: {Event.PROPOSE: State.PROPOSED},
        State.PROPOSED: {
            Event.ALL_PROMISE: State.COMMITTED,
            Event.ONE_REFUSES: State.REFUSED,
            Event.ONE_LATE: State.LATE,
            Event.ONE_LOST: State.LOST,
        },
        State.COMMITTED: {
            Event.ALL_APPLY: State.APPLIED,
            Event.NONE_APPLIES: State.NOWHERE,
            Event.SOME_APPLY: State.TORN,
        },
    },
    Side.RANK: {
        State.NEW: {Event.AGREES: State.PROMISED, Event.REFUSES: State.REFUSED, Event.PASSED: State.LATE},
        State.PROMISED: {
            Event.COMMIT: State.COMMITTED,
            Event.ABORT: State.ABORTED,
            Event.PATIENCE: State.DOUBTED,
            Event.END: State.ENDED,
        },
        State.COMMITTED: {Event.STEP: State.APPLIED, Event.FAULT: State.FAILED, Event.END: State.ENDED},
    },
}

#: A rank's last words on a committed action.
LAST_WORDS = frozenset({Word.APPLIED, Word.FAILED, Word.DOUBT, Word.ENDED, Word.LOST})
#: The words by which an attempt that is not committed fails.
_FAILS = {
    Word.REFUSE: Event.ONE_REFUSES,
    Word.LATE: Event.ONE_LATE,
    Word.URGE: Event.ONE_LATE,
    Word.DOUBT: Event.ONE_LATE,
    Word.FAILED: Event.ONE_REFUSES,
    Word.ENDED: Event.ONE_LOST,
    Word.LOST: Event.ONE_LOST,
}


class _Machine:
    def __init__(self, side: Side) -> None:
        self.state = State.NEW
        self._table = TRANSITIONS[side]

    @property
    def over(self) -> bool:
        """Whether nothing can change any more."""
        return self.state not in self._table

    def move(self, event: Event) -> bool:
        """Move on, if this event means anything now; return whether it does."""
        after = self._table.get(self.state, {}).get(event)
        if after is not None:
            self.state = after
        return after is not None


class Proposal(_Machine):
    """The controller's side of one attempt: an action, to be applied at boundary `at` by all `ranks`.

    `voters` are those that have to promise (default: all). With `spare`, a rank that has ended or is gone is left out
    instead of being the end of it: so a simulation can be stopped that has lost a rank.

    >>> proposal = Proposal(at=7, ranks=[0, 1])
    >>> proposal.hear(0, Word.PROMISE)
    False
    >>> proposal.hear(1, Word.PROMISE), proposal.state.name
    (True, 'COMMITTED')
    >>> proposal.hear(0, Word.APPLIED), proposal.hear(1, Word.DOUBT), proposal.state.name
    (False, True, 'TORN')
    """

    def __init__(
        self, at: int, ranks: Iterable[int], *, voters: Collection[int] | None = None, spare: bool = False
    ) -> None:
        super().__init__(Side.CONTROLLER)
        self.at = at
        self.ranks = frozenset(ranks)
        self.words: dict[int, Word] = {}
        #: What those said that could not apply it.
        self.reasons: dict[int, str] = {}
        #: The ranks that could not learn the decision, whatever it was.
        self.doubting: set[int] = set()
        self._voters = self.ranks if voters is None else frozenset(voters)
        self._spare = spare
        self.move(Event.PROPOSE)

    @property
    def applied(self) -> tuple[int, ...]:
        """The ranks that have applied it, as far as is known."""
        return tuple(sorted(rank for rank, word in self.words.items() if word is Word.APPLIED))

    @property
    def silent(self) -> frozenset[int]:
        """The ranks of which a word is waited for."""
        if self.state is State.PROPOSED:
            return self._voters - self.words.keys()
        said = {rank for rank, word in self.words.items() if word in LAST_WORDS}
        return self.ranks - said if self.state is State.COMMITTED else frozenset()

    def hear(self, rank: int, word: Word, reason: str = "") -> bool:
        """Take in what a rank says; return whether the attempt has come to another state by it."""
        if rank not in self.ranks:
            return False
        if word is Word.DOUBT:
            self.doubting.add(rank)
        if self.words.get(rank) in LAST_WORDS or self.over:
            return False
        if reason:
            self.reasons[rank] = reason
        if self._spare and word is Word.LOST:
            word = Word.ENDED
        if self.state is State.PROPOSED and rank in self._voters:
            return self._hear_of_promise(rank, word)
        if word in LAST_WORDS:
            self.words[rank] = word
        # Where one promises for all, another may have applied it before that promise is heard of here.
        return self.state is State.COMMITTED and not self.silent and self.move(self._tally())

    def _hear_of_promise(self, rank: int, word: Word) -> bool:
        if word is Word.PROMISE or word in _FAILS:
            self.words[rank] = word
        if word is Word.PROMISE or (self._spare and word is Word.ENDED):
            if self.silent:
                return False
            self.move(Event.ALL_PROMISE)
            # Where all that were asked have ended there is nobody left to apply it.
            if not self.silent:
                self.move(self._tally())
            return True
        return word in _FAILS and self.move(_FAILS[word])

    def _tally(self) -> Event:
        last = set(self.words.values())
        if Word.LOST not in last and Word.APPLIED not in last:
            return Event.NONE_APPLIES
        return Event.SOME_APPLY if last & {Word.LOST, Word.DOUBT, Word.FAILED} else Event.ALL_APPLY


class Pledge(_Machine):
    """A rank's side of one attempt, from its promise on.

    >>> pledge = Pledge(at=7, max_wait_s=1.0)
    >>> pledge.waits(6), pledge.waits(7)
    (False, True)
    >>> pledge.waited(0.1), pledge.waited(0.6), pledge.waited(0.7), pledge.waited(1.0)
    (None, <Word.URGE: 'urge'>, None, <Word.DOUBT: 'doubt'>)
    >>> pledge.waits(7), pledge.decide(apply=True), pledge.applies(7)
    (False, False, False)
    """

    def __init__(self, at: int, max_wait_s: float) -> None:
        super().__init__(Side.RANK)
        self.at = at
        self._max_wait_s = max_wait_s
        self._urged = False
        self.move(Event.AGREES)

    def decide(self, *, apply: bool) -> bool:
        """Hear the decision; return whether it still means anything."""
        return self.move(Event.COMMIT if apply else Event.ABORT)

    def waits(self, boundary: int) -> bool:
        """Whether the rank must not pass this boundary yet."""
        return self.state is State.PROMISED and boundary >= self.at

    def waited(self, seconds: float) -> Word | None:
        """Say what is to be said after a wait of so long at the step; after `Word.DOUBT` it is over."""
        if seconds >= self._max_wait_s and self.move(Event.PATIENCE):
            return Word.DOUBT
        if seconds >= self._max_wait_s / 2 and not self._urged and self.state is State.PROMISED:
            self._urged = True
            return Word.URGE
        return None

    def applies(self, boundary: int) -> bool:
        """Whether the rank is to apply it now."""
        return self.state is State.COMMITTED and boundary >= self.at
