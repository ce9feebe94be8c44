# SPDX-License-Identifier: Apache-2.0
"""Starts the processes of a contender that is written by hand, or is a peer, and takes the time of a workload."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.peers import python_of
from benchmarks.workload import LIMIT_S, Timing, Workload, blocks_of, timing, wait_for

ROOT = Path(__file__).parents[1]
#: The pages of large messages stay mapped, as they do in a process of insitu: a peer is as fast as it can be.
KEPT_MAPPED = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}
#: How often a contender is started that dies of a segmentation fault.
ATTEMPTS = 5


class Crashed(RuntimeError):
    """A process of a contender died of a segmentation fault."""


@dataclass(frozen=True)
class ByHand:
    """A module of `benchmarks.contenders`; of a `peer`, in its environment; with `mpi`, all started by mpiexec."""

    module: str
    peer: str = ""
    mpi: bool = False

    @property
    def missing(self) -> str:
        """Why it cannot take part, or nothing."""
        if self.peer and python_of(self.peer) is None:
            return f"{self.peer} is not installed: python -m benchmarks.peers"
        return ""

    def __call__(self, work: Workload) -> Timing:
        """Start it all, wait for its end; start it again where it crashed, and say so."""
        for attempt in range(1, ATTEMPTS):
            try:
                return self._once(work, attempt)
            except Crashed as crash:
                print(f"{self.module} crashed: {str(crash).splitlines()[-1]}", flush=True)
        return self._once(work, ATTEMPTS)

    def _once(self, work: Workload, attempt: int) -> Timing:
        folder = Path(work.folder) / f"attempt.{attempt}"
        folder.mkdir()
        work = replace(work, folder=str(folder))
        python = python_of(self.peer) if self.peer else Path(sys.executable)
        assert python is not None
        program = [str(python), "-m", "benchmarks.contenders", self.module, str(work.save())]
        if self.mpi:
            commands = [[str(python.with_name("mpiexec")), "-n", str(work.ranks + 1), *program, "mpi"]]
        else:
            commands = [[*program, str(rank)] for rank in range(work.ranks, -1, -1)]
        environment = {**os.environ, **KEPT_MAPPED, "PYTHONPATH": str(ROOT)}
        if self.mpi or self.peer:  # where their libraries are
            environment["LD_LIBRARY_PATH"] = str(python.parents[1] / "lib")
        _run_all(commands, environment, work)
        return timing(work, float(wait_for(work.note("end"))))


def memcpy(work: Workload) -> Timing:
    """The limit: copy every block into one of a few buffers that are mapped already; nobody receives."""
    blocks = blocks_of(0, work.block)
    targets = [np.ones(work.block) for _ in blocks]
    calls = np.empty(work.steps)
    begin = time.monotonic()
    for n in range(work.steps):
        before = time.perf_counter()
        np.copyto(targets[n % len(targets)], blocks[n % len(blocks)])
        calls[n] = time.perf_counter() - before
    return Timing(time.monotonic() - begin, calls * 1e6)


def _run_all(commands: list[list[str]], environment: dict[str, str], work: Workload) -> None:
    """Wait for all processes. Raises `RuntimeError` with what it said for the first one that fails, or `Crashed`."""
    with tempfile.TemporaryFile("w+") as said:
        processes = [
            subprocess.Popen(command, env=environment, cwd=work.folder, stdout=said, stderr=said)
            for command in commands
        ]
        try:
            deadline = time.monotonic() + LIMIT_S
            while any(process.poll() is None for process in processes):
                failed = next((process for process in processes if process.poll()), None)
                if failed is not None or time.monotonic() > deadline:
                    break
                _wait_for_any(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        if any(process.returncode for process in processes):
            said.seek(0)
            crashed = any(process.returncode == -signal.SIGSEGV for process in processes)
            raise (Crashed if crashed else RuntimeError)(f"{' '.join(commands[0][1:])} failed:\n{said.read()}")


def _wait_for_any(processes: list["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        if process.poll() is None:
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
