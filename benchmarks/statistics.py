# SPDX-License-Identifier: Apache-2.0
"""Statistics while the data streams: 4 ranks, each 256 x 256 float64 of a 512 x 512 field; steps per second.

    python -m benchmarks.statistics [--rounds 5]

Folded are mean and variance of every cell and one histogram of all values. Contenders, in turn:

* ``by hand``: four processes push over tcp, one pulls; a numba kernel folds each block when it comes, in one pass,
  cells and histogram together. What somebody would write who needs just this: no windows, no step is atomic, nothing
  is bounded but the number of messages.
* ``insitu``: a whole ``insitu run``, one staging node, with `moments` and `histogram`; over tcp, as between machines,
  and through shared memory, as it does by itself on one.
* ``Dask graph a step``: the blocks are scattered to a Dask worker, and one graph for each step folds them there by the
  same kernel. No process sends anything: this is the cost of the scheduler.

Each process of ``by hand`` has the pages of its messages kept mapped, as those of insitu have.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from dask import delayed
from distributed import Client, LocalCluster
from numba import njit

from benchmarks.common import report, rounds
from benchmarks.streaming import LIMIT_S, Timing, Workload, blocks_of, insitu_run, processes, produce, timing
from insitu.model import Array
from insitu.wire.sockets import keep_pages_mapped

BLOCK = (256, 256)
RANKS = 4
STEPS = 1500
LEAD = 100
#: Dask is slow enough to be known after fewer.
DASK_STEPS = 40
BINS, LOW, HIGH = 100, -4.0, 4.0
#: Messages that may wait at each end of a link by hand: 32 MiB.
WAITING = 64


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "arcp", "nsz"})
def fold(x: Array, n: int, mean: Array, m2: Array, counts: Array) -> None:
    """Fold the `n`-th block into mean and sum of squared deviations of its cells (Welford), and into the histogram."""
    scale = (BINS - 2) / (HIGH - LOW)
    for i in range(x.size):
        v = x[i]
        d = v - mean[i]
        mean[i] += d / n
        m2[i] += d * (v - mean[i])
        # The first and the last bin count what lies below and above.
        b = int((v - LOW) * scale) + 1
        counts[0 if v < LOW else BINS - 1 if v >= HIGH else b] += 1


class State:
    """What is known of the field so far."""

    def __init__(self) -> None:
        cells = BLOCK[0] * BLOCK[1]
        self.n = [0] * RANKS
        self.mean, self.m2 = np.zeros((RANKS, cells)), np.zeros((RANKS, cells))
        self.counts = np.zeros(BINS, np.int64)

    def fold(self, rank: int, block: Array) -> None:
        self.n[rank] += 1
        fold(block.reshape(-1), self.n[rank], self.mean[rank], self.m2[rank], self.counts)


def by_hand(work: Workload) -> Timing:
    """Push blocks from every rank to one process."""
    answers: Any = processes.Queue()
    consumer = processes.Process(target=pull, args=(work, answers))
    consumer.start()
    port = answers.get(timeout=LIMIT_S)
    producers = [processes.Process(target=push, args=(work, rank, port)) for rank in range(work.ranks)]
    for producer in producers:
        producer.start()
    for process in (*producers, consumer):
        process.join(LIMIT_S)
        if process.exitcode != 0:
            process.kill()
            raise RuntimeError(f"A process of the contender by hand ended with {process.exitcode}.")
    return timing(work, answers.get(timeout=LIMIT_S))


def pull(work: Workload, answers: Any) -> None:
    """Fold everything; say where, then when it was done."""
    keep_pages_mapped()
    state = State()
    State().fold(0, np.zeros(BLOCK))  # compiles the kernel
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.RCVHWM, WAITING)
        answers.put(socket.bind_to_random_port("tcp://127.0.0.1"))
        for n in range(work.ranks * (work.lead + work.steps)):
            rank, block = socket.recv_multipart(copy=False)
            state.fold(rank.bytes[0], np.frombuffer(block, np.float64))
            if n + 1 == work.ranks * work.lead:
                work.warm.touch()
        answers.put(time.monotonic())
    assert state.counts.sum() == work.ranks * (work.lead + work.steps) * np.prod(BLOCK)


def push(work: Workload, rank: int, port: int) -> None:
    """Send every block, without a copy where that is faster; the simulation's array is sent itself."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.setsockopt(zmq.SNDHWM, WAITING)
        socket.connect(f"tcp://127.0.0.1:{port}")

        def publish(_: int, block: Array) -> None:
            socket.send_multipart([bytes([rank]), block], copy=False)

        produce(work, rank, publish)


def insitu(work: Workload, *, transport: str) -> Timing:
    """Take it through a whole run."""
    operators = {
        "stats": {"use": "moments", "of": "u", "over": "step", "extremes": False},
        "spread": {"use": "histogram", "of": "u", "over": ["step", "space"], "bins": BINS - 2, "range": [LOW, HIGH]},
    }
    return insitu_run(work, operators, transport=transport)


def dask_graph(work: Workload) -> Timing:
    """Submit one graph for each step, which folds its blocks into states that stay with the worker."""
    blocks = [blocks_of(rank, work.block) for rank in range(work.ranks)]
    calls = np.empty(work.steps)
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None, memory_limit=None) as cluster,
        Client(cluster) as client,
    ):
        states: list[Any] = [None] * work.ranks
        begin = 0.0
        for n in range(work.lead + work.steps):
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


def contender(run: Callable[[Workload], Timing], work: Workload) -> Callable[[], float]:
    """Return what `rounds` calls: steps per second of one go, in a folder of its own."""

    def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return work.steps / run(replace(work, folder=folder)).seconds

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "statistics.json")
    options = parser.parse_args()
    work = Workload("", RANKS, BLOCK, STEPS, LEAD)
    found = rounds(
        {
            "by hand": contender(by_hand, work),
            "insitu tcp": contender(partial(insitu, transport="tcp"), work),
            "insitu shared memory": contender(partial(insitu, transport="shm"), work),
            "Dask graph a step": contender(dask_graph, replace(work, steps=DASK_STEPS, lead=5)),
        },
        options.rounds,
    )
    hand = found["by hand"]
    rows = [{"contender": name, "steps/s": rate, "of by hand": rate / hand} for name, rate in found.items()]
    report("Statistics of 4 ranks while they stream", rows, options.json)


if __name__ == "__main__":
    main()
