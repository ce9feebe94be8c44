# SPDX-License-Identifier: Apache-2.0
"""The controller's part of steering: takes requests, has all ranks agree on one after the other, writes receipts.

`Steering.ask` may be called from any thread: it puts the request into a queue and wakes the controller. All else
belongs to the controller's thread, which calls `turn`. One action is under way at a time, in the order of the requests
(a stop goes first), so that each receipt's old value is the new one of the receipt before.

What moves an attempt on is told by `insitu.steering.agreement`; this file turns words of ranks into its events, and its
states into messages and receipts.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from insitu.controller.asked import Asked, Handle, Listener, reasons_of, torn_between
from insitu.controller.declarations import Declarations
from insitu.controller.pace import Pace
from insitu.controller.pauses import Pauses
from insitu.controller.record import ActionRecord
from insitu.errors import ActionError
from insitu.steering.actions import RULES, Action, Outcome, Receipt, check_values
from insitu.steering.agreement import Proposal, State, Word
from insitu.steering.parameters import ParameterSpec, Value
from insitu.wire.messages import Event, Message
from insitu.wire.steering import Answer, Decide, Declare, Propose, Reached, Standing, SteeringTerms

#: How long an action may look for a step: ranks answer once in each of theirs, which may take minutes.
EXPIRES_S = 600.0
GONE = "is gone"


class Switched(Protocol):
    """Whoever judges rules."""

    @property
    def switches(self) -> Mapping[str, bool]:
        """Which rules there are, and whether they are on."""
        ...

    def switch(self, switches: Mapping[str, bool]) -> None:
        """Switch rules on or off."""
        ...


class Steering:
    """Has the ranks of one simulation agree on actions. `say` sends to a rank, `journal` gets events.

    `schedule` are actions of a record, with their boundaries: every rank is told of them when it joins.
    """

    def __init__(
        self,
        terms: SteeringTerms,
        say: Callable[[int, Message], None],
        journal: Callable[[str, Event], None],
        record: ActionRecord,
        schedule: Iterable[tuple[int, Action]] = (),
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.declared = Declarations(journal)
        self.listeners: list[Listener] = []
        self.counts: dict[str, int] = {}
        #: Whose rules can be switched, where there are any.
        self.rules: Switched | None = None
        self._terms = terms
        self._say = say
        self._journal = journal
        self._record = record
        self._wake = wake
        self._pace = Pace()
        self._asked: queue.SimpleQueue[tuple[Handle, float, str]] = queue.SimpleQueue()
        self._waiting: deque[Asked] = deque()
        self._now: Asked | None = None
        self._number = self._round = 0
        self._ranks: set[int] = set()
        self._size: int | None = None
        self._gone: dict[int, str] = {}
        self._pauses = Pauses()
        self._stopped: Asked | None = None
        self._stopping = False
        self._doubted = False
        self._over = False
        self._closed = False
        self._lock = threading.Lock()
        self._scheduled = {k: (at, each.numbered(k)) for k, (at, each) in enumerate(schedule, 1)}
        self._replaying = {k: Asked(Handle(each), each, 0.0, 0, k) for k, (_, each) in self._scheduled.items()}
        self._number = self._round = len(self._scheduled)

    @property
    def values(self) -> Mapping[str, Value]:
        """The values of all parameters, as far as the ranks have said what they have."""
        return self.declared.values

    @property
    def names(self) -> Collection[str]:
        """The names of all parameters and states."""
        return tuple(self.declared.parameters)

    @property
    def standing(self) -> Standing | None:
        """Where all ranks stand still, if they do."""
        return self._pauses.all_stand(self._size)

    def ask(self, action: Action) -> Handle:
        """Ask for an action. From any thread; what became of it is for the handle to say."""
        return self._ask(action, "")

    def refuse(self, action: Action, reason: str) -> Handle:
        """Write the receipt of an action that is not to be asked for. From any thread."""
        return self._ask(action, reason)

    def _ask(self, action: Action, refusal: str) -> Handle:
        handle = Handle(action)
        with self._lock:
            if not self._closed:
                self._asked.put((handle, time.monotonic(), refusal))
                self._wake()
                return handle
        handle.settle(Receipt(action, "expired", "too late: the run is over"))
        return handle

    def close(self) -> None:
        """The run is over: answer what is still asked. May be called twice."""
        with self._lock:
            self._closed = True
        self.end()

    def join(self, rank: int, size: int) -> list[Propose]:
        """A rank takes part; return what is decided already, for it to be told."""
        self._size = size
        self._ranks.add(rank)
        decided = [Propose(k, at, True, each.kind, dict(each.values)) for k, (at, each) in self._scheduled.items()]
        if self._stopped is not None and self._stopped.proposal is not None:
            decided.append(Propose(self._stopped.round, self._stopped.proposal.at, True, "stop", {}))
        return decided

    def hear(self, rank: int, message: Declare | Reached | Answer | Standing) -> None:
        """Take in what a rank says."""
        now = time.monotonic()
        if isinstance(message, Declare):
            self.declared.add(rank, message)
            return
        self._pace.reached(rank, message.passed, now)
        self._pauses.reached(message.passed)
        if isinstance(message, Standing):
            self._pauses.stands(rank, message)
            self._pace.rest(rank)
        if isinstance(message, Answer):
            self._answered(rank, message, now)
        closed = message.passed > 0 or isinstance(message, Standing)
        if closed and self.declared.complete(rank, self._ranks, self._size):
            self._record.declare(self.declared.parameters, self.declared.functions)

    def lose(self, rank: int, *, ended: bool) -> None:
        """A rank has `ended` in order, or is gone."""
        why = self._gone.setdefault(rank, "has ended" if ended else GONE)
        self._pace.forget(rank)
        word = Word.ENDED if ended else Word.LOST
        for asked in [self._now, *list(self._replaying.values())]:
            if asked is not None and asked.proposal is not None and asked.proposal.hear(rank, word, f"it {why}"):
                self._follow(asked, time.monotonic())
        if len(self._gone) == self._size:
            self.end()

    def end(self) -> None:
        """No rank is left: whatever waits has come too late."""
        self._over = True
        for asked in list(self._replaying.values()):
            self._finish(asked, "expired", "too late: the simulation has ended")
        self.turn(time.monotonic())

    def turn(self, now: float) -> None:
        """Take in requests, and begin what can be begun."""
        while not self._asked.empty():
            handle, asked_at, refusal = self._asked.get()
            self._number += 1
            asked = Asked(handle, handle.action.numbered(self._number), asked_at, self._pace.passed(asked_at))
            if refusal:
                self._settle(asked, "refused", refusal)
            elif handle.action.kind == RULES:
                self._switch(asked)
            elif handle.action.kind == "stop":
                self._waiting.appendleft(asked)
            else:
                self._waiting.append(asked)
        if self._now is not None and now - self._now.asked_at > EXPIRES_S and self._now.undecided:
            self._tell(self._now, apply=False)
            self._finish(self._now, "expired", f"no step was agreed on within {EXPIRES_S:g} s")
        while self._now is None and self._waiting and self._begin(self._waiting[0], now):
            pass

    @property
    def switches(self) -> dict[str, ParameterSpec]:
        """Each rule as a truth that can be set; the default is what it is now."""
        switches = self.rules.switches if self.rules is not None else {}
        return {name: ParameterSpec.of(name, on, description="judge this rule") for name, on in switches.items()}

    def _switch(self, asked: Asked) -> None:
        """Switch rules: no rank has to agree."""
        before = dict(self.rules.switches) if self.rules is not None else {}
        which = asked.action.values
        try:
            if not which:
                raise ActionError("rules switches nothing; give it a rule of this run, as in cool=false.")
            after = {name: bool(on) for name, on in check_values(asked.action, {}, {RULES: self.switches}).items()}
        except ActionError as error:
            self._settle(asked, "refused", str(error))
            return
        assert self.rules is not None  # else there were no names to be checked
        self.rules.switch(after)
        self.declared.version += 1  # consoles show what is on
        old, new = ({name: on for name, on in each.items() if name in which} for each in (before, after))
        self._file(asked, Receipt(asked.action, "applied", old=old, new=new))

    def _begin(self, asked: Asked, now: float) -> bool:
        """Take the next request as far as it goes now; return whether it is done with already."""
        action = asked.action
        if self._over or (self._stopping and action.kind != "stop"):
            why = "the simulation has ended" if self._over else "the simulation was asked to stop"
            return self._settle(asked, "expired", f"too late: {why}")
        if action.kind == "stop":
            if self._stopping:
                return self._settle(asked, "expired", "the simulation was asked to stop before")
            if not self._ranks - self._gone.keys():
                return False
        else:
            if not self.declared.ready:
                late = now - asked.asked_at > EXPIRES_S
                return late and self._settle(asked, "expired", f"no step was taken within {EXPIRES_S:g} s")
            if self._gone:
                dead = any(why == GONE for why in self._gone.values())
                why = "; ".join(f"rank {rank} {why}" for rank, why in sorted(self._gone.items()))
                return self._settle(asked, "refused" if dead else "expired", why if dead else f"too late: {why}")
            try:
                self.declared.check(action)
            except ActionError as error:
                return self._settle(asked, "refused", str(error))
        self._waiting.popleft()
        self._now = asked
        self._propose(asked, now)
        return self._now is None

    def _propose(self, asked: Asked, now: float) -> None:
        """Make an attempt at an action."""
        self._round += 1
        stop = asked.action.kind == "stop"
        ranks = self._ranks - self._gone.keys() if stop else self._ranks
        mpi = self._terms.agree == "mpi"
        at = -1 if mpi else self._pauses.cap(self._pace.next_boundary(now))
        asked.round, asked.answers = self._round, {}
        asked.proposal = Proposal(at, ranks, voters=[0] if mpi else None, spare=stop)
        for rank in sorted(asked.proposal.silent):
            values = self.declared.taken(asked.action)
            if not mpi:
                values = {name: self.declared.part(rank, name, value) for name, value in values.items()}
            self._say(rank, Propose(self._round, at, False, asked.action.kind, values))

    def _answered(self, rank: int, answer: Answer, now: float) -> None:
        word = Word(answer.word)
        asked = self._replaying.get(answer.round)
        if asked is not None:
            self._replayed(asked, rank, answer, word)
            return
        asked = self._now
        if asked is None or asked.proposal is None or answer.round != asked.round:
            if word is Word.DOUBT:
                self._doubt(rank)
            return
        proposal = asked.proposal
        if word not in (Word.PROMISE, Word.URGE):
            asked.answers[rank] = answer
        moved = proposal.hear(rank, word, answer.reason)
        if word is Word.URGE and proposal.state is State.COMMITTED and not moved:
            self._say(rank, Decide(asked.round, True))
        if moved:
            self._follow(asked, now)
        if word is Word.DOUBT:
            self._doubt(rank)

    def _follow(self, asked: Asked, now: float) -> None:
        """Do what the state asks for that an attempt has come to."""
        proposal = asked.proposal
        assert proposal is not None
        match proposal.state:
            case State.COMMITTED:
                self._record.commit(asked.action, proposal.at if proposal.at >= 0 else None)
                self._tell(asked, apply=True)
                if asked.action.kind == "stop":
                    self._stopped = asked
                    for rank in self._ranks - proposal.ranks:  # those that joined meanwhile
                        self._say(rank, Propose(asked.round, proposal.at, True, "stop", {}))
            case State.LATE:
                self._tell(asked, apply=False)
                self._pace.was_late()
                self._propose(asked, now)
            case State.REFUSED:
                self._tell(asked, apply=False)
                self._finish(asked, "refused", reasons_of(proposal))
            case State.LOST:
                self._tell(asked, apply=False)
                self._finish(
                    asked, "refused" if Word.LOST in proposal.words.values() else "expired", reasons_of(proposal)
                )
            case State.NOWHERE:
                failed = Word.FAILED in proposal.words.values()
                self._finish(asked, "refused" if failed else "expired", reasons_of(proposal) or "too late")
            case State.APPLIED:
                self._finish(asked, "applied", "")
            case State.TORN:
                self._finish(asked, "torn", torn_between(proposal, asked.answers))

    def _tell(self, asked: Asked, *, apply: bool) -> None:
        assert asked.proposal is not None
        told = asked.proposal.ranks if self._terms.agree != "mpi" else {0}
        for rank in sorted(told - self._gone.keys()):
            self._say(rank, Decide(asked.round, apply))

    def _finish(self, asked: Asked, outcome: Outcome, reason: str) -> None:
        """The action that is under way has come to its end."""
        if self._now is asked:
            self._now = None
        self._replaying.pop(asked.round, None)
        self._settle(asked, outcome, reason)
        if outcome == "torn":
            self._mend(asked)

    def _settle(self, asked: Asked, outcome: Outcome, reason: str) -> bool:
        """Write the receipt of what has come to its end."""
        receipt = self._receipt(asked, outcome, reason)
        if outcome == "applied":
            self._take_effect(receipt)
        return self._file(asked, receipt)

    def _file(self, asked: Asked, receipt: Receipt) -> bool:
        """Put a receipt on record, and tell everybody who wants to know."""
        if asked in self._waiting:
            self._waiting.remove(asked)
        outcome = receipt.outcome
        self.counts[outcome] = self.counts.get(outcome, 0) + 1
        self._record.settle(receipt)
        level = "error" if outcome == "torn" else "info" if outcome == "applied" else "warning"
        self._journal(
            "controller", Event(level, f"action-{outcome}", receipt.describe(), {"action": receipt.action.id})
        )
        asked.handle.settle(receipt)
        for listener in list(self.listeners):
            listener(receipt)
        return True

    def _receipt(self, asked: Asked, outcome: Outcome, reason: str) -> Receipt:
        applied = {rank: answer for rank, answer in asked.answers.items() if answer.word == Word.APPLIED.value}
        if outcome not in ("applied", "torn") or not applied:
            return Receipt(asked.action, outcome, reason)
        first = min(applied)
        answer = applied[first]
        boundary = answer.passed
        if outcome == "applied" and asked.proposal is not None and asked.proposal.at >= 0:
            self._pace.was_applied(
                max(each.waited_s for each in applied.values()), min(each.spare for each in applied.values())
            )
        new = self.declared.taken(asked.action)
        if outcome == "applied" and asked.action.kind == "resume":
            pause = self._pauses.resumes(new.get("steps"), boundary)
            reason = "" if pause is None else f"pauses again after {new['steps']} published steps, at boundary {pause}"
        return Receipt(
            asked.action, outcome, reason, answer.index, boundary, answer.time, answer.old, new, tuple(sorted(applied)),
            round(time.monotonic() - asked.asked_at, 6) if asked.asked_at else None,
            boundary - asked.passed if asked.asked_at else None,
        )  # fmt: skip

    def _take_effect(self, receipt: Receipt) -> None:
        self._pauses.follow(receipt)
        if receipt.action.kind == "set":
            self.declared.set(receipt.new)
        elif receipt.action.kind == "stop":
            self._stopping = True

    def _doubt(self, rank: int) -> None:
        """A rank stops, because it could not learn a decision; so the others have to."""
        if self._terms.in_doubt == "stop" and not self._doubted:
            self._doubted = True
            self.ask(
                Action("stop", by="steering.in_doubt", why=f"rank {rank} could not learn whether to apply an action")
            )

    def _mend(self, asked: Asked) -> None:
        """An action is torn: stop all, or set back what some have set."""
        action, old = asked.action, next((each.old for each in asked.answers.values() if each.old), {})
        why = f"action {action.id} is torn"
        if self._terms.in_doubt == "revert" and not self._gone and action.kind in ("set", "trate", "pause"):
            kind, values = ("resume", {}) if action.kind == "pause" else (action.kind, old)
            if set(action.values) <= set(values) or kind == "resume":
                self.ask(Action(kind, values, by="steering.in_doubt", why=why))
                return
        if action.kind != "stop" and not self._doubted:
            self._doubted = True
            self.ask(Action("stop", by="steering.in_doubt", why=why))

    def _replayed(self, asked: Asked, rank: int, answer: Answer, word: Word) -> None:
        """A rank has come to the boundary of a recorded action."""
        if asked.proposal is None:
            asked.proposal = Proposal(answer.passed, self._ranks, spare=True)
            for each in asked.proposal.ranks:
                asked.proposal.hear(each, Word.PROMISE)
            self._record.commit(asked.action, answer.passed)
        asked.answers[rank] = answer
        if asked.proposal.hear(rank, word, answer.reason):
            self._follow(asked, time.monotonic())
