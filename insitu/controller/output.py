# SPDX-License-Identifier: Apache-2.0
"""What the simulation's processes write: into files, which the controller reads as they grow.

A pipe would make the simulation depend on who reads it: a full one holds a ``print``, and a broken one raises in it,
when the controller stands still or was killed. (ADR 0033 weighs the ways.) So a process gets files to append to, and
waits for nobody.

The disk that they take is bounded as long as the controller is there: what was shown and lies far back is given back.
Who writes faster than can be shown is not held either; the middle is then left out, and that is said.
"""

import codecs
import ctypes
import io
import locale
import os
import threading
from collections.abc import Callable, MutableSequence
from contextlib import suppress
from pathlib import Path

from insitu.errors import RunError

#: How often the files are looked at: a line is shown so soon.
LOOK_S = 0.05
#: Of each file so much of the newest is kept, and showing is never further behind: more than people read, and a small
#: part of any disk.
KEEP_BYTES = 16 << 20
#: Read at once of a file, before the next one has its turn; also the longest line that is shown as one.
READ_BYTES = 64 << 10
#: Lines of a process's stderr that are worth showing again at its end.
TAIL_LINES = 20


class Output:
    """The file at `path`, to be written by a process: its lines go to `show`, several at once, and to `keep`."""

    def __init__(self, path: Path, show: Callable[[str], None], keep: MutableSequence[str]) -> None:
        self._path = path
        self._show = show
        self._keep = keep
        self._file = path.open("ab+", buffering=0)
        self._shown = self._given_back = 0
        self._decoder, self._line = _new_decoder(), ""

    def fileno(self) -> int:
        """The descriptor that the process is to write to."""
        return self._file.fileno()

    def take(self) -> bool:
        """Show what has come, at most `READ_BYTES`; return whether there may be more."""
        size = os.fstat(self.fileno()).st_size
        if size < self._shown:  # the process has emptied it, as the shell's > /dev/stderr does
            self._shown = self._given_back = 0
        if size - self._shown > KEEP_BYTES:
            self._skip(size)
        data = os.pread(self.fileno(), READ_BYTES, self._shown)
        self._shown += len(data)
        self._say(self._decoder.decode(data))
        if self._shown - self._given_back > 2 * KEEP_BYTES:
            self._give_back(self._shown - KEEP_BYTES)
        return self._shown < size

    def close(self) -> None:
        """Show the rest, and leave a file that holds the newest lines; none where nothing was written."""
        with self._file:
            end = os.fstat(self.fileno()).st_size  # something in the background may write on
            while self.take() and self._shown < end:
                pass
            self._say(self._decoder.decode(b"", final=True))
            self._say("\n" if self._line else "")
            if self._shown == 0:
                self._path.unlink(missing_ok=True)
            elif self._shown > 2 * KEEP_BYTES:
                self._shorten()

    def _say(self, text: str) -> None:
        *lines, self._line = (self._line + text).split("\n")
        if len(self._line) >= READ_BYTES:
            lines, self._line = [*lines, self._line], ""
        if lines:
            self._keep.extend(lines)
            self._show("\n".join(lines))

    def _skip(self, size: int) -> None:
        """Leave out what there is no time to show, up to where a line begins."""
        self._say("\n" if self._line else "")
        begin = size - READ_BYTES
        begin += os.pread(self.fileno(), READ_BYTES, begin).find(b"\n") + 1
        left_out = f"[{begin - self._shown} bytes are left out, which came faster than they could be shown"
        self._show(f"{left_out}; {self._path} keeps the newest {KEEP_BYTES >> 20} MiB]")
        self._shown, self._decoder = begin, _new_decoder()

    def _give_back(self, upto: int) -> None:
        """Give the file system what lies before `upto`: there is a hole then, and the file's length stays.

        Where that cannot be done (it is Linux's, and not of every file system) the file grows until the end.
        """
        punch, keep_size = 2, 1  # linux/falloc.h
        fallocate = getattr(ctypes.CDLL(None), "fallocate", None)
        if fallocate is not None:
            fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
            fallocate(self.fileno(), punch | keep_size, 0, upto)
        self._given_back = upto

    def _shorten(self) -> None:
        """Put a file of the newest lines in the place of one that is large, or begins with a hole."""
        data = os.pread(self.fileno(), KEEP_BYTES, self._shown - KEEP_BYTES)
        shorter = self._path.with_suffix(f"{self._path.suffix}.shorter")
        try:
            shorter.write_bytes(data[data.find(b"\n") + 1 :])
            shorter.replace(self._path)
        except OSError:  # a disk without so much room: the long one stays
            shorter.unlink(missing_ok=True)


class Outputs:
    """What all processes of a simulation write into files of `folder`, read by one thread."""

    def __init__(self, folder: Path, show: Callable[[str], None]) -> None:
        self._folder = folder
        self._show = show
        self._outputs: list[Output] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="simulation-output", daemon=True)

    def open(self, name: str, keep: MutableSequence[str]) -> Output:
        """Return a new file for a process. Raises `RunError` where there can be none."""
        try:
            self._folder.mkdir(exist_ok=True)
            output = Output(self._folder / name, self._show, keep)
        except OSError as error:
            raise RunError(
                f"{self._folder / name}: what the simulation writes cannot go there ({error.strerror}); make room, or "
                "choose another place: --set directory=PATH"
            ) from error
        self._outputs.append(output)
        return output

    def start(self) -> None:
        """Begin to show what is written; no file is opened any more."""
        self._thread.start()

    def close(self) -> None:
        """Show the rest, of processes that have ended. May be called twice."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        while self._outputs:
            self._outputs.pop(0).close()
        with suppress(OSError):  # it is not there, or has something in it
            self._folder.rmdir()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            while sum(output.take() for output in self._outputs) and not self._ended.is_set():
                pass


def _new_decoder() -> io.IncrementalNewlineDecoder:
    """Return what makes text of bytes: whatever bytes, and with any kind of line end, as of a progress bar."""
    decoder = codecs.getincrementaldecoder(locale.getencoding())("replace")
    return io.IncrementalNewlineDecoder(decoder, translate=True)
