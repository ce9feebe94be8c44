# SPDX-License-Identifier: Apache-2.0
"""What those who look at a run say and hear: the dashboard, `insitu top`. The rules are those of `messages`.

Whoever looks asks, and gets one answer: nothing is sent that nobody asked for, and what is under way to one viewer is
one answer to each question. A run that nobody looks at does none of this.
"""

import json
from dataclasses import dataclass
from typing import Any

from insitu.errors import RemoteProtocolError
from insitu.model import Array, Extent, Variable
from insitu.wire.blocks import Range

#: The pieces of a picture: where each lies in the thinned array, in the order of the buffers.
Pieces = tuple[tuple[Extent, Extent], ...]
#: Since when `Look` wants the newest step that is retained.
NEWEST = -1


@dataclass(slots=True)
class Watch:
    """Somebody asks to look at a run."""

    version: int
    run: str
    host: str
    pid: int


@dataclass(slots=True)
class Watching:
    """The viewer may look, and ask."""

    run: str


@dataclass(slots=True)
class Ask:
    """How does the run do?"""


@dataclass(slots=True)
class News:
    """How it does, as `insitu.controller.feed` says it: one buffer of JSON. At most one in so many milliseconds.

    JSON, since a field of the header is checked value by value in Python: a timeline of 600 rows takes ten times as
    long so.
    """

    buffers: tuple[Array | bytes | memoryview, ...]

    @classmethod
    def of(cls, snapshot: dict[str, Any]) -> "News":
        """Return the message that brings a snapshot."""
        return cls((json.dumps(snapshot).encode(),))

    @property
    def snapshot(self) -> dict[str, Any]:
        """What it brings. Raises `RemoteProtocolError` where that is no snapshot.

        >>> News.of({"steps": 7}).snapshot
        {'steps': 7}
        """
        try:
            [buffer] = self.buffers
            snapshot = json.loads(bytes(buffer))
        except (ValueError, RecursionError):
            raise RemoteProtocolError("News.buffers: expected one buffer of JSON.") from None
        if not isinstance(snapshot, dict):
            raise RemoteProtocolError("News.buffers: expected a JSON object.")
        return snapshot


@dataclass(slots=True)
class Look:
    """Show a variable at one step. `number` comes back with each part of the answer.

    `select` says for some dims which cells are wanted. Of what they leave of the variable each staging node shows

    * at most `most` values, thinned evenly, as float32; where `most` is ``None``, all of them as they are, at most
      `limits.SIGHT_BYTES`; where it is 0, none, but which steps it retains, at once;
    * of the next step that has the variable; or, where `since` is a sequence, of the first step since then that the
      node has retained, or will; or, where it is `NEWEST`, of the newest step that it has retained, without one of the
      next step. What is exact is always of a retained step.

    A node that has no part of the variable in any retained step shows nothing of the first one, and one to which no
    rank sends the variable nothing of the next step, whichever that is. Whoever asks looks whether all parts are of the
    same step, and if not asks again since the last of them.
    """

    number: int
    variable: str
    select: tuple[Range, ...]
    most: int | None
    since: int | None = None


@dataclass(slots=True)
class Sight:
    """One staging node's part of a `Look`, of `parts` in all.

    `variable` is as it was sent by the ranks, before anything was selected of it; ``None`` where the node has no part.
    Every `stride` of what is selected along each dim is here, in `pieces`, one for each buffer. Of a joined variable
    the pieces are rows, whose places mean nothing. `why` says why there is nothing to be seen, and is else empty.
    Where only that was asked for, the one piece is a table of the retained steps, oldest first, in int64: the sequence,
    the index, and 1 where a block of the variable lies on that node.
    """

    number: int
    parts: int
    variable: Variable | None
    sequence: int
    index: int
    time: float
    stride: Extent
    pieces: Pieces
    why: str
    buffers: tuple[Array | bytes | memoryview, ...]


@dataclass(slots=True)
class Peek:
    """A `Look`, as the controller passes it on to a staging node.

    What was retained before sequence `begin` is no step any more: nodes that had parts of it have left.
    """

    number: int
    variable: str
    select: tuple[Range, ...]
    most: int | None
    since: int | None = None
    begin: int = 0


@dataclass(slots=True)
class Glimpse:
    """What a staging node has of it: the fields of a `Sight`."""

    number: int
    variable: Variable | None
    sequence: int
    index: int
    time: float
    stride: Extent
    pieces: Pieces
    why: str
    buffers: tuple[Array | bytes | memoryview, ...]
