# SPDX-License-Identifier: Apache-2.0
"""A run of one's own: ``insitu run`` as a child process, with a console to steer it.

    >>> with Launched("configs/lorenz.yaml", {"run": "mine"}, folder) as run:  # doctest: +SKIP
    ...     run.console.steer(force=1.0).receipt(timeout=5)

For programs that make runs, watch them and end them: optimisers, reinforcement learning, tests. What the run writes
goes to a file, whose end is told where it fails.
"""

import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from insitu.console import Console
from insitu.errors import RunError
from insitu.wire.contact import Contact

#: How long a run may take until it lets consoles in: staging nodes start, and compile operators that are new.
START_S = 180.0
#: How long one that was told to end has for its simulation's step, its results and its report.
END_S = 30.0
#: How long one look at a process and its console lasts.
_LOOK_S = 0.1
#: Lines of what a run wrote that are worth telling.
_TAIL = 12


class Launched:
    """A run of the configuration `config`, with `settings` over its keys, in `folder`.

    `settings` are those of ``insitu run --set``. Waits until the run lets consoles in, and raises `RunError` with the
    run's last words where it ends before. `close` ends it and leaves no process behind, its directory alone.
    """

    def __init__(self, config: str | Path, settings: Mapping[str, Any], folder: Path) -> None:
        name = str(settings.get("run", Path(config).stem))
        said = {"run": name, "directory": str(folder), **settings}
        overrides = [part for key, value in said.items() for part in ("--set", f"{key}={value}")]
        self.directory = folder / name
        self._words = folder / f"{name}.txt"
        with self._words.open("w") as words:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "insitu.cli", "run", str(config), "--force", *overrides],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the program that made it, which closes it
            )
        # Also at the end of a program that was not closed, as one that has raised.
        self._end = weakref.finalize(self, _end, self._process)
        try:
            self.console = self._connected()
        except BaseException:
            self._end()
            raise

    def _connected(self) -> Console:
        contact, deadline = self.directory / "contact.json", time.monotonic() + START_S
        while not contact.exists():
            if self.ended:
                raise RunError(f"The run has ended before it began: {self.last_words}")
            if time.monotonic() > deadline:
                raise RunError(f"The run has not begun within {START_S:g} s: {self.last_words}")
            _wait(self._process, _LOOK_S)
        return Console(Contact.read(contact))

    @property
    def ended(self) -> bool:
        """Whether the run has ended, for whatever reason."""
        return self._process.poll() is not None

    @property
    def status(self) -> int | None:
        """The exit status of ``insitu run``; ``None`` while it runs."""
        return self._process.poll()

    @property
    def last_words(self) -> str:
        """The end of what the run has written."""
        return "\n".join(self._words.read_text(errors="replace").splitlines()[-_TAIL:])

    def close(self) -> None:
        """End the run in order, or by force where it takes too long. May be called twice."""
        try:
            if not self.ended:
                self.console.stop()
                self.console.close()
                _wait(self._process, END_S)
        finally:
            self.console.close()
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a run: the first interrupt stops its simulation in order, the second one at once."""
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            _wait(process, END_S)


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait for the end, for so long."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
