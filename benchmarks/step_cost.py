# SPDX-License-Identifier: Apache-2.0
"""What a step of one small block costs each process of a run: CPU time and thread switches, by thread.

    python -m benchmarks.step_cost [--rounds 3] [--quick]

One rank publishes blocks of 64 KiB as fast as it is let, through shared memory, and a staging node reads each element
once. While the clock runs, the kernel's account of every thread (``/proc``) is read every few milliseconds; what lies
between the first and the last step counts. Linux only.
"""

import json
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, arguments, report
from benchmarks.streaming import insitu_run
from benchmarks.workload import Timing, Workload

BLOCK_BYTES = 64 << 10
STEPS, QUICK_STEPS, LEAD = 20_000, 6_000, 500
SAMPLE_S = 0.01


@dataclass
class Account:
    """What a thread has used by some moments: of each the time, the CPU seconds and how often it was switched."""

    name: str
    at_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    switches: list[int] = field(default_factory=list)

    def between(self, begin_s: float, end_s: float) -> tuple[float, float]:
        """Return CPU seconds and switches between two moments, as near as the samples are."""
        first = max((k for k, at in enumerate(self.at_s) if at <= begin_s), default=0)
        last = max((k for k, at in enumerate(self.at_s) if at <= end_s + SAMPLE_S), default=0)
        return self.cpu_s[last] - self.cpu_s[first], self.switches[last] - self.switches[first]


class Sampler(threading.Thread):
    """Reads the accounts of all threads of the processes that left a note ``threads.NAME`` in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.accounts: dict[tuple[str, int], Account] = {}
        self._folder = folder
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            for note in self._folder.glob("threads.*.json"):
                said = json.loads(note.read_text())
                for task in _tasks(said["pid"]):
                    self._take(note.name.split(".")[1], task, said["names"])

    def end(self) -> None:
        self._ended.set()
        self.join()

    def _take(self, process: str, task: Path, names: dict[str, str]) -> None:
        try:
            cpu_ns = int((task / "schedstat").read_text().split()[0])
            status = (task / "status").read_text()
            comm = (task / "comm").read_text().strip()
        except OSError:
            return  # it has just ended
        switches = sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
        account = self.accounts.setdefault((process, int(task.name)), Account(names.get(task.name, comm)))
        account.at_s.append(time.monotonic())
        account.cpu_s.append(cpu_ns / 1e9)
        account.switches.append(switches)


def _tasks(pid: int) -> Iterator[Path]:
    try:
        yield from Path(f"/proc/{pid}/task").iterdir()
    except OSError:
        return


def measured(steps: int) -> list[dict[str, Any]]:
    """Return a row for each thread that took at least a hundredth of a microsecond a step, and one for the whole."""
    with tempfile.TemporaryDirectory() as folder:
        sampler = Sampler(Path(folder))
        sampler.start()
        work = Workload(folder, 1, (BLOCK_BYTES // 8,), steps, LEAD)
        took: Timing = insitu_run(work, {}, transport="shm", read=True)
        sampler.end()
        begin_s = float((Path(folder) / "begin.0").read_text())
    total: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for (process, _), account in sampler.accounts.items():
        cpu_s, switches = account.between(begin_s, begin_s + took.seconds)
        total[process, account.name][0] += cpu_s / steps * 1e6
        total[process, account.name][1] += switches / steps
    rows: list[dict[str, Any]] = [
        {"process": process, "thread": name, "cpu_us": cpu, "switches": switches}
        for (process, name), (cpu, switches) in sorted(total.items())
        if cpu >= 0.2
    ]
    both = [sum(row[key] for row in rows) for key in ("cpu_us", "switches")]
    rows.append({"process": "all", "thread": "", "cpu_us": both[0], "switches": both[1]})
    rows.append({"process": "wall clock", "thread": "", "cpu_us": took.seconds / steps * 1e6, "switches": 0.0})
    return rows


def main() -> None:
    options = arguments(__doc__)
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for _ in range(options.rounds):
        for row in measured(QUICK_STEPS if options.quick else STEPS):
            found[row["process"], row["thread"]].append(row)
    rows = [
        {
            "process": process,
            "thread": thread,
            "CPU us a step": _median([row["cpu_us"] for row in kept]),
            "switches a step": _median([row["switches"] for row in kept]),
        }
        for (process, thread), kept in found.items()
    ]
    report("A step of one block of 64 KiB through shared memory", rows, RESULTS / "step_cost.json")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()
