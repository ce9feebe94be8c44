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

#: The pieces of a picture: where each lies in the thinned array, in the order of the buffers.
Pieces = tuple[tuple[Extent, Extent], ...]


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
    """Show the next step of a variable, thinned to at most `most` values for each staging node.

    `at` says for some dims the one index that is wanted: a slice. `number` comes back with each part of the answer.
    """

    number: int
    variable: str
    at: tuple[tuple[str, int], ...]
    most: int


@dataclass(slots=True)
class Sight:
    """One staging node's part of a `Look`, of `parts` in all.

    `variable` is as it was sent by the ranks, before it was thinned. Every `stride` of its cells along each dim is
    here, as float32, in `pieces`, one for each buffer. Of a joined variable the pieces are rows, whose places mean
    nothing. `why` says why there is no picture, and is else empty.
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
    """A `Look`, as the controller passes it on to a staging node."""

    number: int
    variable: str
    at: tuple[tuple[str, int], ...]
    most: int


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
