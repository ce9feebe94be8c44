# SPDX-License-Identifier: Apache-2.0
"""Keeps the process of a learner alive: starts it, starts it anew when it dies or stalls, ends it.

The process is given its order on its standard input, which stays open: its end tells it that this side is gone. On its
standard output it writes a dot now and then, and before it ends by an error of the learner's, a line that says which.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from insitu.staging.folder import operator_stopped
from insitu.steering.waits import Wait
from insitu.wire.messages import Event

#: A process that is silent for so long is taken to hang. One batch of a large network may take many seconds.
PATIENCE_S = 120.0
#: How many times in a row it may die, each time within so many seconds of its start, until it is given up.
TRIES = 4
SOON_S = 15.0
#: How long it has to end by itself.
GRACE_S = 5.0
#: How a process ends that was stopped by an error of its learner's, and said so.
STOPPED = 3
#: How the folder of its temporary files begins.
FOLDER = "insitu-learner-"
#: Of what it wrote to its standard error, so much is told.
TAIL_CHARS = 2000


class Keeper:
    """Keeps the process of learner `operator`, which gets `order` as JSON and `threads` threads for its numbers."""

    def __init__(
        self, operator: str, order: Mapping[str, Any], threads: int = 1, *, patience_s: float = PATIENCE_S
    ) -> None:
        self.operator = operator
        self._process_number, self._several = order.get("process", 0), order.get("processes", 1) > 1
        self._order = json.dumps(order).encode() + b"\n"
        self._threads = threads
        self._patience_s = patience_s
        self._soon = 0
        self._said = b""
        self._over = False
        self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def look(self) -> list[Event]:
        """See how the process does, and start it anew where it must be; return what is to be told. Never waits."""
        if self._over:
            return []
        self._listen()
        status = self._process.poll()
        now = time.monotonic()
        if status is None:
            self._silence.look(now)
            if not self._silence.over:
                return []
            self._process.kill()
            self._process.wait()
            why = f"it has given no sign of life for {self._patience_s:g} s"
        elif status == 0:
            self._end()
            return []
        elif status == STOPPED:
            reason = self._reason()
            self._end()
            return [operator_stopped(self.operator, reason["reason"], reason["trace"])]
        else:
            why = f"its process ended by {_name_of(status)}"
        return self._again(why, now)

    def ask_to_end(self) -> None:
        """Tell the process that its time is over."""
        if not self._over:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def close(self) -> None:
        """End the process: it is asked to, and after a while killed. May be called twice."""
        if self._over:
            return
        self.ask_to_end()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._end()

    def _again(self, why: str, now: float) -> list[Event]:
        self._soon = self._soon + 1 if now - self._started_at < SOON_S else 1
        tail = self._tail()
        self._end()
        who = f"Learner '{self.operator}'"
        if self._several:
            who += f", process {self._process_number}"
        details = {"operator": self.operator, "process": self._process_number, "tail": tail}
        if self._soon > TRIES:
            why = f"{why}, {self._soon} times one soon after the other"
            if not self._several:
                return [operator_stopped(self.operator, why, tail)]
            text = f"{who}: {why}; it is given up, and what it would have learned from is lost."
            return [Event("error", "learner-lost", text, details | {"reason": why})]
        self._over = False
        self._start()
        text = f"{who}: {why}; it is started anew, and goes on from its last checkpoint."
        return [Event("warning", "learner-restarted", text, details | {"pid": self.pid})]

    def _start(self) -> None:
        numbers = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        threads = dict.fromkeys(numbers, str(self._threads))
        # Where this process finds modules that is where the learner does; its own folder may be another.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        # Its own: libraries leave their caches there, and a process that is killed cleans nothing up.
        self._folder = tempfile.mkdtemp(prefix=FOLDER)
        self._errors = open(os.path.join(self._folder, "stderr"), "w+b")  # noqa: SIM115 - open as long as it lives
        self._process = subprocess.Popen(
            [sys.executable, "-m", "insitu.learning", self.operator],  # its name is for whoever lists processes
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **threads, "PYTHONPATH": path, "TMPDIR": self._folder},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._order)
        self._process.stdin.flush()
        os.set_blocking(self._process.stdout.fileno(), False)
        self._said = b""
        self._started_at = time.monotonic()
        self._hear(self._started_at)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while said := self._process.stdout.read(4096):
            self._hear(time.monotonic())
            self._said = (self._said + said.lstrip(b"."))[-(1 << 16) :]

    def _hear(self, now: float) -> None:
        """It lives. How long it is silent from now on is counted by looks, since this process may be stopped itself."""
        self._silence = Wait(self._patience_s, now)

    def _reason(self) -> dict[str, str]:
        """Return what the process said last, as it ended."""
        try:
            reason: dict[str, str] = json.loads(self._said)
            return {"reason": str(reason["reason"]), "trace": str(reason["trace"])}
        except (ValueError, KeyError, TypeError):
            return {"reason": "its process has ended without a word", "trace": self._tail()}

    def _tail(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-TAIL_CHARS:]

    def _end(self) -> None:
        self._over = True
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _name_of(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"
