# SPDX-License-Identifier: Apache-2.0
"""A request for an action on its way to a receipt."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from insitu.steering.actions import Action, Receipt
from insitu.steering.agreement import Proposal, State, Word
from insitu.wire.steering import Answer

#: Called with every receipt, in the controller's thread.
Listener = Callable[[Receipt], None]


class Handle:
    """A request under way. `receipt` waits for what became of it; `then` calls back in the controller's thread."""

    def __init__(self, action: Action) -> None:
        self.action = action
        self._receipt: Receipt | None = None
        self._done = threading.Event()
        self._then: list[Listener] = []
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def receipt(self, timeout: float | None = None) -> Receipt:
        """Wait for the receipt, at most `timeout` seconds. Never in the controller's own thread, which would wait for
        itself; there, ask `done` or use `then`.

        Raises `TimeoutError`; the action is still under way then.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(f"No receipt of '{self.action.describe()}' within {timeout} s; it is still under way.")
        assert self._receipt is not None
        return self._receipt

    def then(self, call: Listener) -> None:
        """Have `call` called with the receipt, at once where there is one."""
        with self._lock:
            if self._receipt is None:
                self._then.append(call)
                return
        call(self._receipt)

    def settle(self, receipt: Receipt) -> None:
        """The controller says what became of it."""
        with self._lock:
            self._receipt, waiting = receipt, self._then
        self._done.set()
        for call in waiting:
            call(receipt)


@dataclass(slots=True, eq=False)
class Asked:
    """A request, and what is known of it by now."""

    handle: Handle
    action: Action
    asked_at: float
    passed: int
    round: int = 0
    proposal: Proposal | None = None
    answers: dict[int, Answer] = field(default_factory=dict)

    @property
    def undecided(self) -> bool:
        return self.proposal is not None and self.proposal.state is State.PROPOSED


def reasons_of(proposal: Proposal) -> str:
    """Join what the ranks say, each reason once."""
    by_reason: dict[str, list[int]] = {}
    for rank, reason in sorted(proposal.reasons.items()):
        by_reason.setdefault(reason, []).append(rank)
    return "; ".join(
        reason if len(ranks) == len(proposal.ranks) else f"rank {', '.join(map(str, ranks))}: {reason}"
        for reason, ranks in by_reason.items()
    )


def torn_between(proposal: Proposal, answers: Mapping[int, Any]) -> str:
    """Say which ranks have applied an action, and which have not."""
    parts = []
    for word, said in (
        (Word.APPLIED, "applied by"),
        (Word.DOUBT, "not applied by, for want of the decision,"),
        (Word.FAILED, "failed on"),
        (Word.ENDED, "not reached by"),
        (Word.LOST, "not known of, because it is gone,"),
    ):
        ranks = sorted(rank for rank, last in proposal.words.items() if last is word)
        if ranks:
            parts.append(f"{said} rank {', '.join(map(str, ranks))}")
    reasons = reasons_of(proposal)
    return "; ".join([*parts, reasons] if reasons else parts)
