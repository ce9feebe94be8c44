# SPDX-License-Identifier: Apache-2.0
"""Starts the simulation's processes, shows what they write, and ends them.

Each launcher is a way to write the command line. The processes get sessions of their own, so that Ctrl-C reaches the
controller alone, which then stops the simulation in an orderly way; what does not end by itself is ended with its
children.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from insitu.client import CONTACT
from insitu.config import Simulation as Settings
from insitu.controller.output import TAIL_LINES, Output, Outputs
from insitu.errors import ConfigError


class Simulation:
    """The processes of the simulation; none of them for the launcher ``external``.

    `contact` is the file that tells them where the run is. What they write goes into files of the folder `output`;
    `show` gets the lines, from a thread.
    """

    def __init__(self, settings: Settings, contact: Path, output: Path, show: Callable[[str], None]) -> None:
        self._settings = settings
        self._contact = contact
        self._outputs = Outputs(output, show)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._status = 0
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    @staticmethod
    def require(settings: Settings) -> None:
        """Raise `ConfigError` where the command or its launcher is not there, before anything is started."""
        if settings.launcher == "external":
            return
        if settings.launcher == "mpiexec":
            _mpiexec()
        directory = Path(settings.directory or ".")
        if not directory.is_dir():
            raise ConfigError(f"simulation.directory: there is no folder {settings.directory!r}")
        program = settings.command[0]
        found = program if program == "python" else shutil.which(program) or shutil.which(directory / program)
        if not found:
            raise ConfigError(
                f"simulation.command: {program!r} is not found; give a program on the PATH, or the path of one that "
                "may be executed"
            )

    def start(self) -> None:
        """Start all processes.

        Raises `ConfigError` where the command or the launcher is not there, `RunError` where their output has no place.
        """
        for name, command, environment in self._commands():
            stdout = self._outputs.open(f"{name}.out", deque(maxlen=0))
            stderr = self._outputs.open(f"{name}.err", self._tail)
            self._processes.append(self._spawn(command, environment, stdout, stderr))
        self._outputs.start()

    @property
    def running(self) -> bool:
        """Whether any process runs; an external simulation is never known to have ended."""
        return self._settings.launcher == "external" or any(_status(process) is None for process in self._processes)

    @property
    def status(self) -> int:
        """The exit status of the process that was seen to fail first, else 0; negative for a signal."""
        if not self._status:  # whoever has to be ended after it fails too, and tells nothing
            self._status = next((code for process in self._processes if (code := _status(process))), 0)
        return self._status

    @property
    def tail(self) -> list[str]:
        """The last lines that the simulation wrote to stderr; all of them are there once it is closed."""
        return list(self._tail)

    def close(self, grace_s: float = 5.0) -> None:
        """End what still runs, by force after `grace_s`, and wait until it is gone. May be called twice.

        That includes what a process that has ended left running in the background.
        """
        processes = [process for process in self._processes if process.returncode is None]
        for process in processes:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()
        self._outputs.close()

    def _commands(self) -> list[tuple[str, list[str], dict[str, str]]]:
        """Return what each process is called, its command line, and what is added to its environment."""
        settings = self._settings
        if settings.launcher == "external":
            return []
        # The interpreter that runs the controller has the client installed; the one of the PATH may not.
        program, *arguments = settings.command
        command = [sys.executable if program == "python" else program, *arguments]
        if settings.launcher == "mpiexec":
            return [("mpiexec", [_mpiexec(), "-n", str(settings.ranks), *command], {})]
        size = str(settings.ranks)
        ranks = range(settings.ranks)
        return [(f"rank-{rank}", command, {"INSITU_RANK": str(rank), "INSITU_SIZE": size}) for rank in ranks]

    def _spawn(
        self, command: Sequence[str], environment: dict[str, str], stdout: Output, stderr: Output
    ) -> subprocess.Popen[bytes]:
        everything = {**os.environ, **environment, **self._settings.environment, CONTACT: str(self._contact.resolve())}
        try:
            return subprocess.Popen(
                command,
                env=everything,
                cwd=self._settings.directory,
                stdin=subprocess.DEVNULL,
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
                start_new_session=True,
            )
        except OSError as error:
            self.close()
            raise ConfigError(
                f"simulation.command: {command[0]!r} cannot be started ({error.strerror}); give a program on the PATH "
                "or the full path of one."
            ) from error


def _status(process: subprocess.Popen[bytes]) -> int | None:
    """Return a process's exit status, ``None`` while it runs, without reaping it.

    Until it is reaped its number is given to nobody else, so that signals to its group reach no stranger.
    """
    if process.returncode is not None:
        return process.returncode
    if not hasattr(os, "waitid"):  # macOS, whose Python has it from 3.13 on
        return _ended(process)
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """As `_status`, where only reaping tells the status: so what it left in the background is ended first."""
    if psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        return None
    _signal(process, signal.SIGKILL)
    return process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and to all that it started, as far as they stayed in its group."""
    with suppress(ProcessLookupError, PermissionError):  # nobody is left of it, but for who has ended (macOS)
        os.killpg(process.pid, number)


def _mpiexec() -> str:
    """Return the launcher that belongs to this interpreter's MPI wheel, else that of the PATH."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise ConfigError(
            "simulation.launcher: mpiexec is not installed; run pip install 'insitu[mpi]', load your cluster's MPI "
            "module, or take launcher: local."
        )
    return found
