# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a run goes on: one live line on a terminal, a plain line now and then elsewhere."""

import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from insitu.text import duration, size

#: How often the live line is drawn, and how often a plain one is printed.
LIVE_S = 0.2
PLAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How the run does at one moment. Bytes and waits are totals since the first step."""

    steps: int = 0
    time: float = 0.0
    dropped: int = 0
    received_bytes: int = 0
    waiting_bytes: int = 0
    waited_s: float = 0.0
    windows: int = 0

    def line(self, rate: float) -> str:
        """Say it in one line, the most asked-for first, so that a narrow terminal cuts off the least."""
        parts = [f"step {self.steps}", f"{size(rate)}/s", f"waited {duration(self.waited_s)}"]
        parts += [f"queued {size(self.waiting_bytes)}", f"{self.windows} results"]
        if self.dropped:
            parts.insert(1, f"{self.dropped} dropped")
        return " | ".join(parts)


class Progress(Protocol):
    """Where the run says how it does. `show` prints lines of the simulation's own, from any thread."""

    def show(self, lines: str) -> None: ...
    def say(self, text: str) -> None: ...
    def update(self, snapshot: Snapshot) -> None: ...
    def close(self) -> None: ...


class _Rate:
    """Bytes per second over the last second or so."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._bytes = 0
        self._rate = 0.0

    def of(self, nbytes: int) -> float:
        now = time.monotonic()
        if now - self._at > 1.0:
            self._rate = (nbytes - self._bytes) / (now - self._at)
            self._at, self._bytes = now, nbytes
        return self._rate


class LiveProgress:
    """For a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rate = _Rate()
        self._drawn_at = 0.0
        self._live = Live(Text("starting"), console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, lines: str) -> None:
        self._console.print(Text(lines))

    def say(self, text: str) -> None:
        self._console.print(Text(text, style="bold"))

    def update(self, snapshot: Snapshot) -> None:
        if time.monotonic() - self._drawn_at > LIVE_S:
            self._drawn_at = time.monotonic()
            line = Text(snapshot.line(self._rate.of(snapshot.received_bytes)), no_wrap=True, overflow="ellipsis")
            self._live.update(line, refresh=True)

    def close(self) -> None:
        self._live.stop()


class PlainProgress:
    """For a log file or a pipe: what the simulation writes goes to stdout, what the run says to stderr."""

    def __init__(self) -> None:
        self._rate = _Rate()
        self._said_at = time.monotonic()
        self._lock = threading.Lock()

    def show(self, lines: str) -> None:
        self._print(lines, sys.stdout)

    def say(self, text: str) -> None:
        self._print(text, sys.stderr)

    def update(self, snapshot: Snapshot) -> None:
        rate = self._rate.of(snapshot.received_bytes)
        if time.monotonic() - self._said_at > PLAIN_S:
            self._said_at = time.monotonic()
            self.say(snapshot.line(rate))

    def close(self) -> None:
        pass

    def _print(self, line: str, stream: TextIO) -> None:
        with self._lock:
            try:
                print(line, file=stream, flush=True)
            except BrokenPipeError:
                # Whoever read it has left, as `| head` does. That is no reason to end a simulation: go on in silence.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def new_progress() -> Progress:
    """Return the progress that fits where the output goes."""
    console = Console(stderr=True)
    return LiveProgress(console) if console.is_terminal else PlainProgress()
