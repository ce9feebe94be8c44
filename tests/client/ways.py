# SPDX-License-Identifier: Apache-2.0
"""A step's way through a rank: the table from which ``docs/dataflow.md`` is drawn, and a watch that holds code to it.

The code keeps no such state: where a step is follows from who has it, so that publishing costs nothing for it. The
watch sees who takes and who gives a step, and says where it was and where it is.
"""

from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import Any

import pytest

from insitu.client.controller import ControllerLink
from insitu.client.link import NodeLink
from insitu.client.outbox import Outbox
from insitu.client.publisher import Publisher
from insitu.client.spool import Spool
from insitu.wire.messages import Dropped


class At(Enum):
    """Where a step is."""

    OPEN = "is filled"
    WAITS = "waits to be sent"
    DISK = "on the disk"
    UNDER_WAY = "under way"
    FREE = "not needed any more"
    DROPPED = "dropped"


#: From where to where, and when.
WAYS: dict[At, dict[At, str]] = {
    At.OPEN: {
        At.WAITS: "closed",
        At.DISK: "closed, no room (spill)",
        At.DROPPED: "no room, or dropped elsewhere, or it was broken off",
    },
    At.WAITS: {
        At.UNDER_WAY: "all its nodes have credit",
        At.DROPPED: "a newer one takes its place, or dropped elsewhere, or the rank ends",
        At.FREE: "its node is gone",
    },
    At.DISK: {
        At.WAITS: "there is room again",
        At.DROPPED: "damaged, or dropped elsewhere, or its node is gone, or the rank ends",
    },
    At.UNDER_WAY: {
        At.FREE: "received; lent memory, free folded: folded",
        At.DROPPED: "lost with a connection",
    },
}


class Watch:
    """Sees the steps of the one publisher of a test."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        #: Which ways were gone, and which of them are in no table.
        self.gone: set[tuple[At, At]] = set()
        self.wrong: list[str] = []
        self._at: dict[int, At] = {}
        self._publisher: Publisher | None = None
        self._patch = patch
        self._after(Publisher, "open", self._opened, before=self._opens)
        self._after(Publisher, "close", self._closed)
        self._after(Outbox, "queue", lambda outbox, _, step, *rest: self._move(step.sequence, At.WAITS))
        self._after(Outbox, "done", self._done)
        self._after(Outbox, "withdraw", lambda outbox, _, sequence: self._move(sequence, At.DROPPED))
        self._after(NodeLink, "send", self._sent)
        self._after(Spool, "push", lambda spool, took, step, blocks: took and self._move(step.sequence, At.DISK))
        self._after(Spool, "forget", self._forgot)
        self._after(ControllerLink, "say", self._said)

    def forget(self) -> None:
        """Let go of the publisher, and so of its memory."""
        self._publisher = None

    def _after(
        self, cls: type, name: str, see: Callable[..., object], before: Callable[..., object] = lambda *_: None
    ) -> None:
        """Call `see` with what a method returned (an exception: ``None``) and was given."""
        method = getattr(cls, name)

        @wraps(method)
        def watched(this: Any, *arguments: Any) -> Any:
            before(this, *arguments)
            found = None
            try:
                found = method(this, *arguments)
            except BaseException:
                if cls is Publisher:
                    see(this, None, *arguments)
                raise
            see(this, found, *arguments)
            return found

        self._patch.setattr(cls, name, watched)

    def _move(self, sequence: int, to: At) -> None:
        before = self._at.get(sequence)
        if before in (None, to, At.DROPPED):
            return
        self._at[sequence] = to
        self.gone.add((before, to))
        if to not in WAYS.get(before, {}):
            self.wrong.append(f"step {sequence}: {before.value} -> {to.value}")

    def _opens(self, publisher: Publisher, step: Any) -> None:
        self._publisher = publisher
        self._at[step.sequence] = At.OPEN

    def _opened(self, publisher: Publisher, _: object, step: Any) -> None:
        if publisher._step is None:  # it raised
            self._move(step.sequence, At.DROPPED)

    def _closed(self, publisher: Publisher, _: object) -> None:
        for sequence, at in list(self._at.items()):
            if at is At.OPEN:
                self._move(sequence, At.DROPPED)

    def _sent(self, link: NodeLink, _: object) -> None:
        if self._publisher is None:
            return
        unsent = {message.sequence for each in self._publisher.links for message in each.unsent}
        for sequence, at in list(self._at.items()):
            if at is At.WAITS and sequence not in unsent:
                self._move(sequence, At.UNDER_WAY)

    def _done(self, outbox: Outbox, _: object, sequence: int) -> None:
        if sequence not in outbox:
            self._move(sequence, At.FREE)

    def _forgot(self, spool: Spool, was_here: bool, sequence: int) -> None:
        if was_here and self._at.get(sequence) is At.DISK:
            self._move(sequence, At.DROPPED)

    def _said(self, link: ControllerLink, _: object, message: object) -> None:
        if isinstance(message, Dropped):
            self._move(message.sequence, At.DROPPED)
