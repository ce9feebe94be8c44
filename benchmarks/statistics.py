# SPDX-License-Identifier: Apache-2.0
"""Statistics while the data streams: 4 ranks, each 256 x 256 float64 of a 512 x 512 field; steps per second.

    python -m benchmarks.statistics [--rounds 3] [--quick]

Folded are mean and variance of every cell and one histogram of all values. Contenders, in turn:

* ``ring + numba``: shared memory by hand; one process folds each block when it comes, in one pass of a numba kernel,
  cells and histogram together.
* ``pyzmq + numba``, ``MPI + numba``, ``ADIOS2 SST + numba``: the same consumer behind other transports.
* ``insitu``: a whole ``insitu run``, one staging node, with `moments` and `histogram`; over tcp, as between machines,
  and through shared memory, as it does by itself on one.
* ``Dask graph a step``: the blocks are scattered to a Dask worker, and one graph for each step folds them there by the
  same kernel. No process sends anything: this is the cost of the scheduler.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from dask.delayed import delayed
from distributed import Client, LocalCluster

from benchmarks.by_hand import ByHand
from benchmarks.common import RESULTS, arguments, present, report, rounds
from benchmarks.kernel import fold
from benchmarks.streaming import insitu_run
from benchmarks.workload import BINS, HIGH, LOW, Array, Timing, Workload, blocks_of

BLOCK = (256, 256)
RANKS = 4
STEPS, QUICK_STEPS, LEAD = 1500, 600, 100
#: Dask is slow enough to be known after fewer.
DASK_STEPS, DASK_LEAD = 40, 5


def insitu(work: Workload, *, transport: str) -> Timing:
    """Take it through a whole run."""
    operators = {
        "stats": {"use": "moments", "of": "u", "over": "step", "extremes": False},
        "spread": {"use": "histogram", "of": "u", "over": ["step", "space"], "bins": BINS - 2, "range": [LOW, HIGH]},
    }
    return insitu_run(work, operators, transport=transport)


def dask_graph(work: Workload) -> Timing:
    """Submit one graph for each step, which folds its blocks into states that stay with the worker."""
    work = replace(work, steps=DASK_STEPS, lead=DASK_LEAD)
    blocks = [blocks_of(rank, work.block) for rank in range(work.ranks)]
    calls = np.empty(work.steps)
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None, memory_limit=None) as cluster,
        Client(cluster) as client,
    ):
        states: list[Any] = [None] * work.ranks
        begin = 0.0
        for n in range(work.total):
            if n == work.lead:
                begin = time.monotonic()
            before = time.perf_counter()
            here = client.scatter([of[n % len(of)] for of in blocks], direct=True, hash=False)
            graph = [delayed(folded)(state, block) for state, block in zip(states, here, strict=True)]
            states = client.compute(graph)
            client.gather(client.compute(delayed(len)([delayed(counted)(state) for state in states])))
            calls[n - work.lead] = time.perf_counter() - before
        return Timing(time.monotonic() - begin, calls * 1e6)


def folded(state: Any, block: Array) -> Any:
    """Fold one block; a task must not change what it was given, but this state goes no other way."""
    n, mean, m2, counts = state or (0, np.zeros(block.size), np.zeros(block.size), np.zeros(BINS, np.int64))
    fold(block.reshape(-1), n + 1, mean, m2, counts)
    return n + 1, mean, m2, counts


def counted(state: Any) -> int:
    return int(state[0])


@dataclass(frozen=True)
class Contender:
    """How a contender is run, and how many steps it takes in the time that was measured."""

    run: Callable[[Workload], Timing]
    steps: int = 0

    @property
    def missing(self) -> str:
        return self.run.missing if isinstance(self.run, ByHand) else ""

    def rate(self, work: Workload) -> float:
        """Return steps per second of one go, in a folder of its own."""
        with tempfile.TemporaryDirectory() as folder:
            return (self.steps or work.steps) / self.run(replace(work, folder=folder)).seconds


CONTENDERS = {
    "ring + numba": Contender(ByHand("ring")),
    "insitu shm": Contender(partial(insitu, transport="shm")),
    "pyzmq + numba": Contender(ByHand("pyzmq")),
    "insitu tcp": Contender(partial(insitu, transport="tcp")),
    "MPI + numba": Contender(ByHand("mpi", "mpi", mpi=True)),
    "ADIOS2 SST + numba": Contender(ByHand("sst", "adios2")),
    "Dask graph a step": Contender(dask_graph, DASK_STEPS),
}


def main() -> None:
    options = arguments(__doc__)
    work = Workload("", RANKS, BLOCK, QUICK_STEPS if options.quick else STEPS, LEAD, fold="statistics")
    contenders, missing = present(CONTENDERS)
    found = rounds({name: partial(each.rate, work) for name, each in contenders.items()}, options.rounds)
    rows = [{"contender": name, "steps/s": rate} for name, rate in found.items()]
    report("Statistics of 4 ranks while they stream", rows, RESULTS / "statistics.json", missing)


if __name__ == "__main__":
    main()
