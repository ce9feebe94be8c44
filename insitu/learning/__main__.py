# SPDX-License-Identifier: Apache-2.0
"""``python -m insitu.learning``: the process of one learner, with its order on the standard input."""

import json
import os
import shutil
import signal
import sys
import traceback

from insitu.errors import InsituError
from insitu.learning.process import Order, Working
from insitu.staging.keeper import FOLDER, STOPPED


class Parent:
    """Readable when the process that started this one has closed its end, as it does when it ends in whatever way."""

    pollable = 0


def main() -> None:
    """Work; an error of the learner's is said in the last line of the standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what Ctrl-C means is for the controller to say
    # Whatever the learner prints goes with its errors: the standard output belongs to the keeper.
    line = os.dup(1)
    os.dup2(2, 1)
    order = json.loads(_line(0))
    try:
        Working(Order(order), Parent(), lambda: _tell(line, b".")).run()
    except Exception as error:  # noqa: BLE001 - a learner is foreign code; its keeper tells what it raised
        reason = str(error) if isinstance(error, InsituError) else f"{type(error).__name__}: {error}"
        _tell(line, json.dumps({"reason": reason, "trace": traceback.format_exc()}).encode())
        _end(STOPPED)
    _end(0)


def _end(status: int) -> None:
    """End at once: all sockets are closed, and what libraries do last takes seconds that somebody waits for."""
    folder = os.environ.get("TMPDIR", "")
    if os.path.basename(folder).startswith(FOLDER):  # the keeper's, who may be gone
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(status)


def _line(descriptor: int) -> bytes:
    """Read one line and not a byte more: what follows is the end."""
    said = b""
    while not said.endswith(b"\n"):
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            raise EOFError("The order of this learner never came.")
        said += piece
    return said


def _tell(descriptor: int, said: bytes) -> None:
    try:
        os.write(descriptor, said)
    except BrokenPipeError:
        sys.exit(0)  # the keeper is gone, and with it whoever would hear


if __name__ == "__main__":
    main()
