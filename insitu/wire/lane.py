# SPDX-License-Identifier: Apache-2.0
"""Messages between a rank and a staging node of the same machine, through memory that both have mapped.

A message of ZeroMQ costs some tens of microseconds at each end, and lets go of the interpreter's lock each time. What
goes between a rank and a node that share memory is small: places of blocks, and how far they are folded. Here such a
message is a copy of its bytes into a ring, and none of that. What a message says, and when, is the same (`Session`).

Rule 1: a ring has one writer and one reader. Each writes its own count of bytes and reads the other's. So it needs a
processor that lets others see its writes in their order, and one that says of itself that it does: x86-64. Elsewhere
there are no lanes, and ZeroMQ carries these messages too.

Rule 2: who is about to wait says so in the ring, and then looks once more; who has written looks for that, and then
rings the other's `Bell`. Between a write and a look stands a fence. If a ring should be missed all the same, the wait
ends at its own limit: no wait here is without one.

Rule 3: the other end may be broken. What it says of lengths is checked against the ring, and bytes are copied out
before they are looked into.
"""

import os
import platform
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

from insitu.errors import RemoteProtocolError
from insitu.wire.limits import HEADER_BYTES
from insitu.wire.segment import Segment

#: Room of one ring: some hundred steps of a few variables, and small enough to stay in a core's cache.
RING_BYTES = 1 << 15
#: A longer message goes in pieces of this size.
PIECE_BYTES = RING_BYTES // 4
#: Before the room of a ring: two cache lines, of which the writer writes the first and the reader the second.
_HEAD_BYTES = 128
LANE_BYTES = 2 * (_HEAD_BYTES + RING_BYTES)
#: Words of the head: bytes that were written and read since the beginning, and whether the reader is to be rung.
_WRITTEN, _READ, _WAITS = 0, 8, 9

#: All bells are called so.
_BELL = "insitu-bell-"

_PIECE = struct.Struct("<II")
#: What follows a piece: nothing, more of the same message, or room that is left out up to the ring's end.
_LAST, _MORE, _SKIP = 0, 1, 2

#: Acquiring a free lock is an atomic exchange, which on x86-64 is a fence too.
_fence = threading.Lock()


def lanes_work() -> bool:
    """Whether this machine can have lanes: x86-64, with local sockets that are no files (Linux)."""
    return platform.machine() in ("x86_64", "AMD64") and Path("/proc/net/unix").exists()


class _Writer:
    """The writing end of one ring."""

    def __init__(self, ring: memoryview) -> None:
        self._words = ring[:_HEAD_BYTES].cast("Q")
        self._room = ring[_HEAD_BYTES:]
        self._written = 0

    def put(self, piece: bytes, mark: int) -> bool:
        """Write a piece, where there is room for it."""
        size = _PIECE.size + (len(piece) + 7 & ~7)
        at = self._written % RING_BYTES
        left_out = RING_BYTES - at if at + size > RING_BYTES else 0
        written = self._written + left_out + size
        if written - self._words[_READ] > RING_BYTES:
            return False
        if left_out:
            _PIECE.pack_into(self._room, at, 0, _SKIP)
            at = 0
        _PIECE.pack_into(self._room, at, len(piece), mark)
        self._room[at + _PIECE.size : at + _PIECE.size + len(piece)] = piece
        self._words[_WRITTEN] = self._written = written
        return True

    @property
    def awaited(self) -> bool:
        return bool(self._words[_WAITS])

    def rouse(self) -> bool:
        """Return whether the reader waits, and take it as rung."""
        with _fence:
            pass
        if not self._words[_WAITS]:
            return False
        self._words[_WAITS] = 0
        return True

    def close(self) -> None:
        self._words.release()
        self._room.release()


class _Reader:
    """The reading end of one ring."""

    def __init__(self, ring: memoryview) -> None:
        self._words = ring[:_HEAD_BYTES].cast("Q")
        self._room = ring[_HEAD_BYTES:]
        self._read = 0

    @property
    def waiting(self) -> bool:
        """Whether anything is there."""
        return self._words[_WRITTEN] != self._read

    def wait(self, waits: bool) -> None:
        """Say whether the writer is to ring."""
        self._words[_WAITS] = waits

    def take(self) -> tuple[bytes, int] | None:
        """Return the next piece and its mark. Raises `RemoteProtocolError` for what is none."""
        there = self._words[_WRITTEN] - self._read
        if there == 0:
            return None
        at = self._read % RING_BYTES
        if not _PIECE.size <= there <= RING_BYTES:
            raise RemoteProtocolError(f"A ring of {RING_BYTES} bytes cannot hold {there}.")
        length, mark = _PIECE.unpack_from(self._room, at)
        size = RING_BYTES - at if mark == _SKIP else _PIECE.size + (length + 7 & ~7)
        if mark > _SKIP or size > there or at + size > RING_BYTES:
            raise RemoteProtocolError(f"A piece of {length} bytes with mark {mark} where {there} were written.")
        piece = bytes(self._room[at + _PIECE.size : at + _PIECE.size + length]) if mark != _SKIP else b""
        self._read += size
        self._words[_READ] = self._read
        return (piece, mark) if mark != _SKIP else self.take()

    def close(self) -> None:
        self._words.release()
        self._room.release()


class Lane:
    """One end of a lane in `segment`; `makes` says whether it is that of the process that made the segment.

    `bell` is this process's own; the other end is rung by the name of its bell, once that is known (`rings`). Messages
    have one frame. Nothing here waits. Used by one thread.

    >>> bell, segment = Bell(), Segment.create(LANE_BYTES)
    >>> ours = Lane(segment, bell, makes=True)
    >>> theirs = Lane(Segment.open(segment.name, segment.secret, LANE_BYTES, writable=True), bell, makes=False)
    >>> ours.send(b"17 is written"), theirs.receive(), theirs.receive()
    (True, b'17 is written', None)
    >>> ours.close(), theirs.close(), bell.close()
    (None, None, None)
    """

    def __init__(self, segment: Segment | None, bell: "Bell", *, makes: bool, other: str = "") -> None:
        assert segment is not None
        self.segment = segment
        self._bell = bell
        self._other = other
        self._closed = False
        memory = segment.view()
        middle = LANE_BYTES // 2
        mine, theirs = (memory[:middle], memory[middle:]) if makes else (memory[middle:], memory[:middle])
        self._out, self._in = _Writer(mine), _Reader(theirs)
        #: Pieces of a long message that have no room yet, and those of one that has not come whole.
        self._left: deque[tuple[bytes, int]] = deque()
        self._came: list[bytes] = []

    def rings(self, bell: str) -> None:
        """The other end is to be rung by this bell from now on."""
        self._other = bell

    def send(self, message: bytes) -> bool:
        """Send a message, whole or not at all; return whether it was taken."""
        if self._left and not self.flush():
            return False
        if len(message) <= PIECE_BYTES:
            taken = self._out.put(message, _LAST)
        else:
            cuts = range(0, len(message), PIECE_BYTES)
            marks = [*(_MORE for _ in cuts[1:]), _LAST]
            self._left.extend((message[cut : cut + PIECE_BYTES], mark) for cut, mark in zip(cuts, marks, strict=True))
            taken = True
            self.flush()
        if self._out.rouse():
            self._bell.ring(self._other)
        return taken

    @property
    def is_full(self) -> bool:
        """Whether a part of a long message still waits for room."""
        return bool(self._left)

    def flush(self) -> bool:
        """Go on with a long message; return whether all of it has left."""
        went = False
        while self._left and self._out.put(*self._left[0]):
            self._left.popleft()
            went = True
        if went and self._out.rouse():
            self._bell.ring(self._other)
        return not self._left

    @property
    def waiting(self) -> bool:
        """Whether anything is to be received."""
        return self._in.waiting

    @property
    def awaited(self) -> bool:
        """Whether the other end waits for something."""
        return self._out.awaited

    def receive(self) -> bytes | None:
        """Return the next message. Raises `RemoteProtocolError` for what is none, and for one that is too long."""
        while (taken := self._in.take()) is not None:
            piece, mark = taken
            if mark == _LAST and not self._came:
                return piece
            self._came.append(piece)
            if sum(map(len, self._came)) > HEADER_BYTES:
                raise RemoteProtocolError(f"A message of more than {HEADER_BYTES} bytes.")
            if mark == _LAST:
                whole = b"".join(self._came)
                self._came.clear()
                return whole
        return None

    def wait(self, waits: bool) -> None:
        """Say whether this end is to be rung."""
        self._in.wait(waits)

    def close(self) -> None:
        """Let go of the memory, and of its name. May be called twice."""
        if not self._closed:
            self._closed = True
            self._out.close()
            self._in.close()
            self.segment.unlink()
            self.segment.close()


class Bell:
    """Ends this process's `poll` when a lane that it waits for has something. A name in the kernel, not a file.

    Anybody on the machine can ring it, and all that comes of it is a look.
    """

    def __init__(self) -> None:
        self.name = f"{_BELL}{os.getpid()}-{os.urandom(8).hex()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(f"\0{self.name}")

    @property
    def pollable(self) -> int:
        return self._socket.fileno()

    def listens(self, lanes: Iterable[Lane], wait_s: float) -> float:
        """Say in all lanes that they are waited for; return for how long: not at all where anything is there."""
        if wait_s <= 0:
            return 0.0
        lanes = list(lanes)
        for lane in lanes:
            lane.wait(True)
        with _fence:
            pass
        return 0.0 if any(lane.waiting for lane in lanes) else wait_s

    def listened(self, lanes: Iterable[Lane]) -> None:
        """The wait is over: nobody is to ring any more, and who did is heard."""
        for lane in lanes:
            lane.wait(False)
        with suppress(BlockingIOError):
            while self._socket.recv(16):
                pass

    def ring(self, name: str) -> bool:
        """Ring another bell; return whether it is there. One that has not been heard yet need not be rung again."""
        if not name.startswith(_BELL):
            return False  # a peer names bells, not any socket of this machine
        try:
            self._socket.sendto(b"!", f"\0{name}")
        except BlockingIOError:
            return True  # it was rung so often already
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close. May be called twice."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
