# SPDX-License-Identifier: Apache-2.0
"""One rank to one staging node: MiB/s end to end, time inside `put`, and the round trip of a small block.

    python -m benchmarks.put_receive [--rounds 5] [--quick]

Every element is read once by whoever receives it (`np.sum`). Contenders, in turn:

* ``memcpy``: the limit. The producer copies its block into memory that is mapped already; nobody receives.
* ``ring``: a ring of slots in shared memory by hand, copied in, or filled in place (`benchmarks.contenders.ring`).
* ``pyzmq``: over tcp by hand, with and without a copy (`benchmarks.contenders.pyzmq`).
* ``MPI``, ``ADIOS2 SST``, ``deisa-dask``: peers, in environments of their own (`benchmarks.peers`).
* ``insitu``: a whole ``insitu run`` with its client, a staging node in a Dask worker, the controller; through shared
  memory, as it does by itself on one machine, with `put` and with `empty`; and over tcp, as between machines.

In place the producer fills the memory that it is given, and the time of that is its own, not the call's. For the round
trip it waits after each block until that was read, one block at a time.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.by_hand import ByHand, memcpy
from benchmarks.common import RESULTS, arguments, present, report, rounds
from benchmarks.streaming import insitu_run
from benchmarks.workload import Timing, Workload

#: Bytes of a block, and how many are sent: about half a second's worth.
SIZES = {64 << 10: 6_000, 1 << 20: 1_500, 16 << 20: 100, 64 << 20: 30}
QUICK_SIZES = {64 << 10: 4_000, 16 << 20: 50}
#: deisa-dask takes some ten milliseconds for a block of any size.
MOST_STEPS = {"deisa-dask": 60}
#: The round trip is that of a block of so many bytes.
ANSWERED_BYTES, ANSWERED_STEPS = 64 << 10, 1_000


def insitu(work: Workload, *, transport: str) -> Timing:
    """Take it through a whole run."""
    return insitu_run(work, {}, transport=transport, read=True)


@dataclass(frozen=True)
class Contender:
    """How a contender is run, whether in place, and whether it can answer."""

    run: Callable[[Workload], Timing]
    in_place: bool = False
    answers: bool = True

    @property
    def missing(self) -> str:
        return self.run.missing if isinstance(self.run, ByHand) else ""


CONTENDERS = {
    "memcpy": Contender(memcpy, answers=False),
    "ring, in place": Contender(ByHand("ring"), in_place=True, answers=False),
    "ring, copy in": Contender(ByHand("ring")),
    "insitu shm, in place": Contender(partial(insitu, transport="shm"), in_place=True, answers=False),
    "insitu shm": Contender(partial(insitu, transport="shm")),
    "MPI": Contender(ByHand("mpi", "mpi", mpi=True)),
    "pyzmq": Contender(ByHand("pyzmq")),
    "pyzmq, copying": Contender(ByHand("pyzmq_copy"), answers=False),
    "insitu tcp": Contender(partial(insitu, transport="tcp")),
    "ADIOS2 SST": Contender(ByHand("sst", "adios2")),
    "deisa-dask": Contender(ByHand("deisa", "deisa-dask"), answers=False),
}


def timed(contender: Contender, work: Workload, taken: list[Timing]) -> Callable[[], float]:
    """Return what `rounds` calls: MiB/s of one go, in a folder of its own; keep the rest in `taken`."""

    def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            took = contender.run(replace(work, folder=folder, in_place=contender.in_place))
        taken.append(took)
        return work.mib / took.seconds

    return once


def throughput(contenders: dict[str, Contender], nbytes: int, steps: int, n: int) -> list[dict[str, Any]]:
    """Return a row for each contender at one size."""
    taken: dict[str, list[Timing]] = {name: [] for name in contenders}
    works = {name: min(steps, MOST_STEPS.get(name, steps)) for name in contenders}
    once = {
        name: timed(each, Workload("", 1, (nbytes // 8,), works[name], max(8, works[name] // 10)), taken[name])
        for name, each in contenders.items()
    }
    found = rounds(once, n)
    rows = []
    for name, rate in found.items():
        calls = [took.calls_us for took in taken[name]]
        p50, p95 = np.percentile(np.concatenate(calls), [50, 95])
        rows.append({
            "block_KiB": nbytes >> 10, "contender": name, "MiB/s": rate,
            "call_p50_us": float(p50), "call_p95_us": float(p95),
            "call_max_us": float(np.median([each.max() for each in calls])),
        })  # fmt: skip
    return rows


def round_trips(contenders: dict[str, Contender], n: int) -> list[dict[str, Any]]:
    """Return a row for each contender that can answer."""
    work = Workload("", 1, (ANSWERED_BYTES // 8,), ANSWERED_STEPS, 50, answers=True)
    taken: dict[str, list[Timing]] = {name: [] for name, each in contenders.items() if each.answers}
    rounds({name: timed(contenders[name], work, kept) for name, kept in taken.items()}, n)
    rows = []
    for name, kept in taken.items():
        p50, p95 = np.median([np.percentile(took.calls_us, [50, 95]) for took in kept], axis=0)
        rows.append({"contender": name, "round_trip_p50_us": float(p50), "round_trip_p95_us": float(p95)})
    return rows


def main() -> None:
    options = arguments(__doc__, rounds=5)
    contenders, missing = present(CONTENDERS)
    rows = [
        row
        for nbytes, steps in (QUICK_SIZES if options.quick else SIZES).items()
        for row in throughput(contenders, nbytes, steps, options.rounds)
    ]
    answers = round_trips(contenders, options.rounds)
    report("One rank to one staging node", rows, RESULTS / "put_receive.json", missing)
    report("Round trip of 64 KiB", answers, RESULTS / "round_trip.json", missing)


if __name__ == "__main__":
    main()
