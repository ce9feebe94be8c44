# SPDX-License-Identifier: Apache-2.0
"""One rank to one staging node: MiB/s end to end, and time inside `put`.

    python -m benchmarks.put_receive [--rounds 5]

Every element is read once by whoever receives it (`np.sum`). Contenders, in turn:

* ``memcpy``: the limit. The producer copies its block into memory that is mapped already; nobody receives.
* ``pyzmq``: PUSH and PULL by hand, in its four variants (``copy=``, and whether malloc keeps memory mapped). Insitu is
  measured against the best of them at each size, and against the best that copies: without a copy it sends the
  producer's own array, which a simulation could not change meanwhile, and `put` promises that it may.
* ``insitu``: a whole ``insitu run`` with its client, a staging node in a Dask worker, the controller; over tcp, as
  between machines, and through shared memory, as it does by itself on one.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from benchmarks.common import report, rounds
from benchmarks.streaming import LIMIT_S, Timing, Workload, blocks_of, insitu_run, processes, produce, timing
from insitu.model import Array
from insitu.wire.sockets import keep_pages_mapped

#: Bytes of a block, and how many are sent: about a second's worth.
SIZES = {64 << 10: 10_000, 1 << 20: 2_000, 16 << 20: 120, 64 << 20: 40}
#: What may be under way, as in the default configuration of insitu.
WAITING_BYTES = 256 << 20
VARIANTS = {
    f"pyzmq {'copy' if copy else 'zero-copy'}{', kept mapped' if keep else ''}": (copy, keep)
    for copy in (False, True)
    for keep in (False, True)
}
COPYING = [name for name, (copy, _) in VARIANTS.items() if copy]


def memcpy(work: Workload) -> Timing:
    """Copy every block into one of a few buffers."""
    blocks = blocks_of(0, work.block)
    targets = [np.ones(work.block) for _ in blocks]
    calls = np.empty(work.steps)
    begin = time.monotonic()
    for n in range(work.steps):
        before = time.perf_counter()
        np.copyto(targets[n % len(targets)], blocks[n % len(blocks)])
        calls[n] = time.perf_counter() - before
    return Timing(time.monotonic() - begin, calls * 1e6)


def pyzmq(work: Workload, *, copy: bool, keep: bool) -> Timing:
    """Push blocks from one process to another."""
    answers: Any = processes.Queue()
    consumer = processes.Process(target=pull, args=(work, keep, answers))
    consumer.start()
    producer = processes.Process(target=push, args=(work, copy, answers.get(timeout=LIMIT_S)))
    producer.start()
    for process in (producer, consumer):
        process.join(LIMIT_S)
        if process.exitcode != 0:
            process.kill()
            raise RuntimeError(f"A process of the pyzmq contender ended with {process.exitcode}.")
    return timing(work, answers.get(timeout=LIMIT_S))


def pull(work: Workload, keep: bool, answers: Any) -> None:
    """Receive and sum everything; say where, then when it was done."""
    if keep:
        keep_pages_mapped()
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.RCVHWM, _waiting(work))
        answers.put(socket.bind_to_random_port("tcp://127.0.0.1"))
        for n in range(work.lead + work.steps):
            np.sum(np.frombuffer(socket.recv(copy=False), np.float64))
            if n + 1 == work.lead:
                work.warm.touch()
        answers.put(time.monotonic())


def push(work: Workload, copy: bool, port: int) -> None:
    """Send every block; without a copy, ZeroMQ reads the producer's own memory."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.setsockopt(zmq.SNDHWM, _waiting(work))
        socket.connect(f"tcp://127.0.0.1:{port}")

        def publish(_: int, block: Array) -> None:
            socket.send(block, copy=copy)

        produce(work, 0, publish)


def _waiting(work: Workload) -> int:
    """Messages that may wait at each end: half of what may be under way."""
    return max(1, WAITING_BYTES // work.block_bytes // 2)


def insitu(work: Workload, *, transport: str) -> Timing:
    """Take it through a whole run."""
    return insitu_run(work, {}, transport=transport, read=True)


def contender(
    run: Callable[[Workload], Timing], nbytes: int, steps: int, calls: list[np.ndarray]
) -> Callable[[], float]:
    """Return what `rounds` calls: MiB/s of one go, in a folder of its own."""

    def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            work = Workload(folder, 1, (nbytes // 8,), steps, max(8, steps // 10))
            took = run(work)
        calls.append(took.calls_us)
        return work.mib / took.seconds

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "put_receive.json")
    options = parser.parse_args()
    runs: dict[str, Callable[[Workload], Timing]] = {
        "memcpy": memcpy,
        **{name: partial(pyzmq, copy=copy, keep=keep) for name, (copy, keep) in VARIANTS.items()},
        "insitu tcp": partial(insitu, transport="tcp"),
        "insitu shared memory": partial(insitu, transport="shm"),
    }
    rows = []
    for nbytes, steps in SIZES.items():
        calls: dict[str, list[np.ndarray]] = {name: [] for name in runs}
        contenders = {name: contender(run, nbytes, steps, calls[name]) for name, run in runs.items()}
        found = rounds(contenders, options.rounds)
        best, copying = (max(found[name] for name in names) for names in (VARIANTS, COPYING))
        for name, rate in found.items():
            p50, p95 = np.percentile(np.concatenate(calls[name]), [50, 95])
            worst = max(float(each.max()) for each in calls[name])
            rows.append({
                "block_KiB": nbytes >> 10, "contender": name, "MiB/s": rate, "of best pyzmq": rate / best,
                "of copying pyzmq": rate / copying, "call_p50_us": p50, "call_p95_us": p95, "call_max_us": worst,
            })  # fmt: skip
    report("One rank to one staging node", rows, options.json)


if __name__ == "__main__":
    main()
