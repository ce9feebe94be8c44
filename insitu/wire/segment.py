# SPDX-License-Identifier: Apache-2.0
"""Memory that a rank and a staging node of the same machine share.

The rank makes a segment and says its name; each staging node that can open it maps it, read-only. Once all have
answered, the rank takes the name away. From then on the memory lives exactly as long as the processes that map it:
nothing is left behind however they end. (`multiprocessing.shared_memory` cannot do this: on Python 3.11 whoever
attaches may unlink at its exit.)

Whether two processes share a machine is tried, not guessed: host names lie in containers. The first bytes of a segment
are a secret that the rank also says; a node that finds another one there has found another segment.
"""

import mmap
import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from insitu.errors import RunError

#: Where segments live: memory on Linux, files that stay in the page cache elsewhere (macOS has no such folder). All
#: processes of a machine have to look in the same place, so that is not TMPDIR, which workers have of their own.
FOLDER = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp")
#: All names begin like this, so that what a crash left in the moment before its name went can be found.
PREFIX = "insitu-"
#: The secret at the beginning; a whole cache line, so that what follows is aligned for any dtype.
HEAD_BYTES = 64
#: Written at once where the system cannot allocate.
_PIECE_BYTES = 1 << 20
#: A name lives while a rank joins, which has a limit of 30 s for each answer that it waits for.
SETTLED_S = 120.0
#: Have the pages mapped at once, where the system knows how: a page fault takes longer than the copy of its page.
_POPULATE: int = getattr(mmap, "MAP_POPULATE", 0)


class Segment:
    """`nbytes` of shared memory behind `data`. Made by `create` in one process and by `open` in others.

    >>> ours = Segment.create(1000)
    >>> theirs = Segment.open(ours.name, ours.secret, 1000)
    >>> ours.unlink(); ours.data[3] = 7; int(theirs.data[3])
    7
    >>> theirs.close(); ours.close()
    """

    def __init__(self, path: Path, secret: str, memory: mmap.mmap, nbytes: int) -> None:
        self.name = path.name
        self.secret = secret
        self.data: npt.NDArray[np.uint8] = np.frombuffer(memory, np.uint8, nbytes, HEAD_BYTES)
        self.named = True
        self._path = path
        self._memory = memory

    @classmethod
    def create(cls, nbytes: int) -> "Segment":
        """Make a segment and touch all of it, so that a full file system is found now and no page fault later.

        Takes some 0.7 ms a MiB. Raises `RunError` where there is no room.
        """
        path = FOLDER / f"{PREFIX}{os.getpid()}-{os.urandom(8).hex()}"
        secret = os.urandom(16).hex()
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            try:
                _allocate(handle, HEAD_BYTES + nbytes)
                memory = mmap.mmap(handle, HEAD_BYTES + nbytes, flags=mmap.MAP_SHARED | _POPULATE)
            except BaseException:
                os.unlink(path)
                raise
            finally:
                os.close(handle)
        except OSError as error:
            raise RunError(
                f"No shared memory of {nbytes} bytes can be had in {FOLDER} ({error.strerror}); free some, lower "
                "variables.'*'.buffer, or take transport: tcp."
            ) from error
        memory[: len(secret)] = secret.encode()
        return cls(path, secret, memory, nbytes)

    @classmethod
    def open(cls, name: str, secret: str, nbytes: int, *, writable: bool = False) -> "Segment | None":
        """Map another process's segment, read-only if not `writable`; ``None`` where it is not on this machine."""
        path = FOLDER / name
        if not name.startswith(PREFIX) or path.name != name:
            return None  # a peer names segments, not files
        try:
            handle = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            if os.fstat(handle).st_size < HEAD_BYTES + nbytes:
                return None
            protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
            memory = mmap.mmap(handle, HEAD_BYTES + nbytes, prot=protection)
        finally:
            os.close(handle)
        if memory[: len(secret)] != secret.encode():
            memory.close()
            return None
        return cls(path, secret, memory, nbytes)

    def view(self) -> memoryview:
        """Return all its bytes, writable where it is mapped so; to be released before `close`."""
        return memoryview(self._memory)[HEAD_BYTES : HEAD_BYTES + self.data.nbytes]

    def unlink(self) -> None:
        """Take the name away; the memory stays for those who have mapped it. May be called twice."""
        self.named = False
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the memory. Arrays that still look into it keep it mapped until they are gone."""
        self.data = np.empty(0, np.uint8)
        with suppress(BufferError):  # whoever still holds an array of it lets go of the map with the last one
            self._memory.close()


def _allocate(handle: int, nbytes: int) -> None:
    """Give a file its size and its room. Raises `OSError` where there is not so much."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, nbytes)
        return
    zeros, offset = bytes(min(nbytes, _PIECE_BYTES)), 0
    while offset < nbytes:  # macOS: what is written has its room, and is not sparse
        offset += os.pwrite(handle, zeros[: nbytes - offset], offset)


def sweep(pid: int) -> None:
    """Remove what a process of this machine that is gone left in the moment before it could take the name away."""
    for path in FOLDER.glob(f"{PREFIX}{pid}-*"):
        path.unlink(missing_ok=True)


def left_behind() -> list[Path]:
    """Return the segments of this user whose process is gone.

    A process of another container looks as if it were gone, so what was made within the last `SETTLED_S` is left out;
    a rank hardly takes that long to join. If it did, it would find no node that maps its memory, and go on over tcp.
    """
    return [path for path in FOLDER.glob(f"{PREFIX}*-*") if _is_left_behind(path)]


def _is_left_behind(path: Path) -> bool:
    number = path.name.removeprefix(PREFIX).partition("-")[0]
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False  # its owner has just taken the name away
    if not number.isdecimal() or status.st_uid != os.getuid() or time.time() - status.st_mtime < SETTLED_S:
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False  # it is somebody else's, or no number of a process
    return False
