# SPDX-License-Identifier: Apache-2.0
"""What a step costs against the number of ranks, and against the number of variables; through shared memory and tcp.

    python -m benchmarks.scaling [--rounds 3] [--quick]

Blocks are small (8 KiB), so that what is measured is insitu and not the memory: a sum of every block of every variable
in each step, on one staging node. Ranks are threads of two processes, each with a client and sockets of its own, so
that a machine of two cores has room for 256 of them; their Python is part of what a step costs.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import yaml

import insitu
from benchmarks.common import RESULTS, arguments, report, rounds
from benchmarks.streaming import ROOT, end_of, insitu_command
from benchmarks.workload import LIMIT_S, wait_for
from insitu.testing import Place

RANKS, QUICK_RANKS = (4, 16, 64, 256), (4, 64)
VARIABLES, QUICK_VARIABLES = (1, 3, 10, 30, 100), (1, 30)
#: Of the other number.
FEW_RANKS, FEW_VARIABLES = 4, 1
#: Blocks of a measurement, and the steps that they are at least and at most.
BLOCKS, LEAST, MOST = 40_000, 100, 2_000
PROCESSES = 2
CELLS = 1024


def publish(place: Place, variables: int, steps: int, start: threading.Barrier, folder: Path) -> None:
    """Be one rank: a tenth of the steps to warm up, then all ranks of this process begin together."""
    names, block = [f"v{k}" for k in range(variables)], np.ones(CELLS)
    begin, shape = (CELLS * place.rank,), (CELLS * place.size,)
    with insitu.Client(comm=place) as sim:
        for n in range(steps + steps // 10):
            if n == steps // 10:
                start.wait(LIMIT_S)
                (folder / f"begin.{place.rank}").write_text(repr(time.monotonic()))
            with sim.step(n) as step:
                for name in names:
                    step.put(name, block, start=begin, shape=shape)


def crowd(first: int, count: int, size: int, variables: int, steps: int, *, folder: Path) -> None:
    """Be several ranks."""
    start = threading.Barrier(count)
    threads = [
        threading.Thread(target=publish, args=(Place(rank, size), variables, steps, start, folder))
        for rank in range(first, first + count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def step_us(ranks: int, variables: int, transport: str) -> float:
    """Return what a step takes, of one whole run."""
    steps = min(MOST, max(LEAST, BLOCKS // (ranks * variables)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clock = {
            "use": "benchmarks.streaming:Total",
            "of": [f"v{k}" for k in range(variables)],
            "over": ["step", "space"],
            "warm": str(folder / "warm"),
            "lead": 1,
        }
        config = {
            "run": "benchmark",
            "directory": name,
            "simulation": {"launcher": "external"},
            "staging": {"nodes": 1, "transport": transport},
            "variables": {"*": {"buffer": "8 MiB"}},
            "operators": {"clock": clock},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        contact = folder / "benchmark" / "contact.json"
        share = ranks // PROCESSES
        rank = [sys.executable, "-m", "benchmarks.scaling", "ranks"]
        with open(folder / "said", "w+") as said:
            start = partial(subprocess.Popen, env=environment | {"INSITU_CONTACT": str(contact)}, cwd=ROOT, stderr=said)
            processes = [start(insitu_command(folder / "config.yaml"), stdout=said)]
            try:
                wait_for(contact)
                processes += [
                    start([*rank, *map(str, (first, share, ranks, variables, steps, folder))])
                    for first in range(0, ranks, share)
                ]
                if any(process.wait(LIMIT_S) for process in processes):
                    said.seek(0)
                    raise RuntimeError(f"A run with {ranks} ranks and {variables} variables failed:\n{said.read()}")
            finally:
                for process in processes:
                    process.kill()
                    process.wait()
        begin = max(float((folder / f"begin.{rank}").read_text()) for rank in range(ranks))
        end = end_of(folder / "benchmark")
    return (end - begin) / steps * 1e6


def main() -> None:
    options = arguments(__doc__)
    against_ranks, against_variables = (QUICK_RANKS, QUICK_VARIABLES) if options.quick else (RANKS, VARIABLES)
    works = [(ranks, FEW_VARIABLES) for ranks in against_ranks]
    works += [(FEW_RANKS, variables) for variables in against_variables if variables != FEW_VARIABLES]
    contenders = {
        (ranks, variables, transport): partial(step_us, ranks, variables, transport)
        for ranks, variables in works
        for transport in ("shm", "tcp")
    }
    found = rounds({" ".join(map(str, key)): run for key, run in contenders.items()}, options.rounds)
    rows = [
        {
            "ranks": ranks, "variables": variables, "transport": transport, "step_us": took,
            "block_us": took / ranks / variables,
        }
        for (ranks, variables, transport), took in zip(contenders, found.values(), strict=True)
    ]  # fmt: skip
    report("What a step costs (8 KiB a block)", rows, RESULTS / "scaling.json")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ranks"]:
        *numbers, folder = sys.argv[2:]
        crowd(*map(int, numbers), folder=Path(folder))
    else:
        main()
