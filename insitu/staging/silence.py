# SPDX-License-Identifier: Apache-2.0
"""A controller that says nothing any more: what is kept for it is bounded, and at last it is given up. No clock here.

It pings each 2 s. When it is killed nobody tells its staging nodes, and a Dask worker that is not the run's own lives
on: so the node has to end by itself.
"""

from collections.abc import Iterable

from insitu.operator import state_nbytes
from insitu.steering.waits import Wait
from insitu.wire.messages import Closed, Message, Partial

#: From such a silence on it is counted what is said: five pings.
SILENT_S = 10.0
#: So long a silence is taken for the controller's end. One that was stopped goes on, a network heals, and before the
#: first step the controller waits for operators that are compiled elsewhere, 300 s at most: nobody is to lose a node
#: for that, which meanwhile is only in the way of others.
ABANDONED_S = 600.0
#: What a message takes beside its arrays, and a closed step in it: more than any does.
_MESSAGE_BYTES, _STEP_BYTES = 512, 128


class Silence:
    """How long the controller has said nothing. Of what it has not heard of at most `room_bytes` are to be kept.

    Begun at `now`. Time in which this process was stopped itself counts for little (`insitu.steering.waits`).
    """

    def __init__(self, room_bytes: int, now: float) -> None:
        self._room_bytes = room_bytes
        self._unheard_bytes = 0
        self._wait = Wait(ABANDONED_S, now)

    def heard(self, now: float) -> None:
        """The controller has said something."""
        self._wait = Wait(ABANDONED_S, now)
        self._unheard_bytes = 0

    def look(self, now: float) -> bool:
        """Count the time since the look before; return whether the controller is given up."""
        self._wait.look(now)
        return self._wait.over

    def said(self, messages: Iterable[Message]) -> None:
        """Count what was said to the controller, if that is silent."""
        if self._wait.waited_s > SILENT_S:
            self._unheard_bytes += sum(map(_nbytes, messages))

    @property
    def limit_s(self) -> float:
        """How long a silence may last."""
        return self._wait.limit_s

    @property
    def full(self) -> bool:
        """Whether so much is kept for the controller that nothing more should be folded until it says something."""
        return self._unheard_bytes > self._room_bytes


def _nbytes(message: Message) -> int:
    match message:
        case Partial():
            return _MESSAGE_BYTES + sum(_STEP_BYTES + state_nbytes(entry.state) for entry in message.entries)
        case Closed():
            return _MESSAGE_BYTES + _STEP_BYTES * len(message.steps)
        case _:
            return _MESSAGE_BYTES
