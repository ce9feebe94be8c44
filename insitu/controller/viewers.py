# SPDX-License-Identifier: Apache-2.0
"""Those who look at a run, and what they get: one answer to each question, and never more often than they may.

Nothing here costs anything while nobody asks. A viewer that asks again before it was answered gets one answer; of its
looks at variables the newest counts. What all of them get of the staging nodes has a bound in bytes for each second. No
sockets: `send` says whether a peer took what was for it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from insitu.model import Array
from insitu.wire.messages import Buffer, Message, Ping, Refuse, Shutdown
from insitu.wire.session import Session
from insitu.wire.viewing import Ask, Glimpse, Look, News, Peek, Sight, Watch, Watching

#: How often one viewer is told how the run does, how often it gets a picture, and how often a part of a retained step.
NEWS_S = 0.2
SIGHT_S = 0.05
STEP_S = 0.01
#: What all viewers get of pictures and steps. On two busy cores 35 MiB/s took a tenth of a run's steps a second.
SIGHT_BYTES_PER_S = 16 << 20
#: More at once are refused. One of them is the dashboard's server, however many browsers look at it.
VIEWERS = 16


@dataclass(slots=True)
class _Viewer:
    session: Session
    asks: bool = False
    told_at: float = -NEWS_S
    look: Look | None = None
    looked_at: float = -SIGHT_S


@dataclass(slots=True)
class _Peeked:
    """A look that was passed on to some nodes."""

    viewer: bytes
    number: int
    parts: int
    nodes: set[int] = field(default_factory=set)


class Viewers:
    """The viewers of run `run`. `send` brings frames to a peer, `peek` a message to all staging nodes that are fed.

    `peek` returns the numbers of those nodes; `snapshot` says how the run does.
    """

    def __init__(
        self,
        run: str,
        *,
        send: Callable[[bytes, Sequence[Buffer]], bool],
        peek: Callable[[Peek], Iterable[int]],
        snapshot: Callable[[], dict[str, Any]],
    ) -> None:
        self._run = run
        self._send = send
        self._peek = peek
        self._snapshot = snapshot
        self._viewers: dict[bytes, _Viewer] = {}
        self._peeked: dict[int, _Peeked] = {}
        self._number = 0
        self._free_at = 0.0
        self._sent_bytes = 0

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._viewers

    def __len__(self) -> int:
        return len(self._viewers)

    def admit(self, identity: bytes, session: Session, watch: Watch) -> None:
        """Let somebody look, or say why not."""
        reason = None
        if watch.run != self._run:
            reason = f"this is run '{self._run}', not '{watch.run}'; its contact file is an old one"
        elif len(self._viewers) >= VIEWERS:
            reason = f"{VIEWERS} others look at this run already; open its dashboard, which many can look at"
        if reason is not None:
            self._send(identity, session.send(Refuse(reason)))
            return
        self._viewers[identity] = _Viewer(session)
        self._say(identity, Watching(self._run))

    def receive(self, identity: bytes, frames: Sequence[memoryview]) -> None:
        """Take in what a viewer asks, for `answer`. Raises `RemoteProtocolError` as sessions do."""
        viewer = self._viewers[identity]
        match viewer.session.receive(frames):
            case Ask():
                viewer.asks = True
            case Look() as look:
                viewer.look = look

    def answer(self, now: float) -> None:
        """Answer who has asked, as far as it is time. The snapshot is made once for all of them."""
        due = [who for who, viewer in self._viewers.items() if viewer.asks and now - viewer.told_at >= NEWS_S]
        if due:
            news = News.of(self._snapshot())
            for identity in due:
                viewer = self._viewers[identity]
                viewer.asks, viewer.told_at = False, now
                self._say(identity, news)
        self._free_at = max(now, self._free_at) + self._sent_bytes / SIGHT_BYTES_PER_S
        self._sent_bytes = 0
        looking = [(identity, viewer) for identity, viewer in self._viewers.items() if viewer.look is not None]
        for identity, viewer in sorted(looking, key=lambda pair: pair[1].looked_at):
            if viewer.look is not None and now >= self._due_at(viewer) and self._pass_on(identity, viewer.look):
                viewer.look, viewer.looked_at = None, now

    def due_s(self, now: float) -> float:
        """How long to wait at most until `answer` is called again."""
        due_at = [self._due_at(viewer) for viewer in self._viewers.values() if viewer.look is not None]
        return max(STEP_S, min(due_at) - now) if due_at else math.inf

    def _due_at(self, viewer: _Viewer) -> float:
        """When it is a viewer's turn to look."""
        picture = viewer.look is not None and viewer.look.since is None and viewer.look.most != 0
        return max(self._free_at, viewer.looked_at + (SIGHT_S if picture else STEP_S))

    def glimpse(self, node: int, glimpse: Glimpse) -> None:
        """Pass on what a staging node has of a look, unless a newer one has taken its place."""
        peeked = self._peeked.get(glimpse.number)
        if peeked is None or node not in peeked.nodes:
            return
        peeked.nodes.discard(node)
        if not peeked.nodes:
            del self._peeked[glimpse.number]
        self._sent_bytes += sum(map(_nbytes, glimpse.buffers))
        self._say(
            peeked.viewer,
            Sight(
                peeked.number, peeked.parts, glimpse.variable, glimpse.sequence, glimpse.index, glimpse.time,
                glimpse.stride, glimpse.pieces, glimpse.why, glimpse.buffers,
            ),
        )  # fmt: skip

    def ping(self) -> None:
        """Send everybody a sign of life; whoever cannot be reached any more is forgotten."""
        for identity in list(self._viewers):
            self._say(identity, Ping())

    def shut_down(self) -> None:
        """The run is over: answer for the last time."""
        news = News.of(self._snapshot()) if self._viewers else None
        for identity in list(self._viewers):
            if news is not None:
                self._say(identity, news)
            self._say(identity, Shutdown())

    def forget(self, identity: bytes) -> None:
        """Somebody looks no longer."""
        self._viewers.pop(identity, None)
        self._peeked = {number: peeked for number, peeked in self._peeked.items() if peeked.viewer != identity}

    def _pass_on(self, identity: bytes, look: Look) -> bool:
        """Ask the staging nodes; return whether there are any yet."""
        # A look that a node never answers, because nothing comes any more, makes way for the next one.
        self._peeked = {number: peeked for number, peeked in self._peeked.items() if peeked.viewer != identity}
        self._number += 1
        nodes = set(self._peek(Peek(self._number, look.variable, look.select, look.most, look.since)))
        if nodes:
            self._peeked[self._number] = _Peeked(identity, look.number, len(nodes), nodes)
        return bool(nodes)

    def _say(self, identity: bytes, message: Message) -> None:
        viewer = self._viewers.get(identity)
        if viewer is not None and not self._send(identity, viewer.session.send(message)):
            self.forget(identity)


def _nbytes(buffer: Array | bytes | memoryview) -> int:
    return len(buffer) if isinstance(buffer, bytes) else buffer.nbytes
