# SPDX-License-Identifier: Apache-2.0
"""What insitu wants to reach, as ratios to what was measured in the same rounds, and bounds of its own calls."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Rows = list[dict[str, Any]]

#: Blocks from here on are large.
LARGE_KIB = 1024


@dataclass(frozen=True)
class Goal:
    """A bound and what was measured; `sign` says on which side of the bound that should be."""

    what: str
    sign: str
    bound: float
    value: float

    @property
    def reached(self) -> bool:
        return self.value >= self.bound if self.sign == "≥" else self.value <= self.bound


def goals(throughput: Rows, answers: Rows, statistics: Rows) -> list[Goal]:
    """Return the goals for which everything was measured."""
    return [*_throughput(throughput), *_calls(throughput), *_round_trip(answers), *_statistics(statistics)]


def _throughput(rows: Rows) -> Iterator[Goal]:
    at = {(row["contender"], row["block_KiB"]): float(row["MiB/s"]) for row in rows}
    for kib in dict.fromkeys(row["block_KiB"] for row in rows):
        size = f"{kib} KiB" if kib < LARGE_KIB else f"{kib >> 10} MiB"
        share = 0.8 if kib >= LARGE_KIB else 0.6
        # The better of several peers counts.
        wanted = [
            ("insitu shm, in place", ["ring, in place"], share),
            ("insitu shm", ["ring, copy in"], share),
            ("insitu shm", ["ADIOS2 SST"], 2.5),
        ]
        if kib >= LARGE_KIB:
            wanted.append(("insitu tcp", ["pyzmq", "pyzmq, copying"], 0.9))
        for ours, peers, bound in wanted:
            if all((name, kib) in at for name in (ours, *peers)):
                best = max(at[name, kib] for name in peers)
                yield Goal(f"{ours} to {peers[0]}, {size}", "≥", bound, at[ours, kib] / best)


def _calls(rows: Rows) -> Iterator[Goal]:
    at = {(row["contender"], row["block_KiB"]): row for row in rows}
    for kib in dict.fromkeys(row["block_KiB"] for row in rows):
        size = f"{kib} KiB" if kib < LARGE_KIB else f"{kib >> 10} MiB"
        for key, name in (("call_p50_us", "median"), ("call_p95_us", "95 %"), ("call_max_us", "longest")):
            ratio = at["insitu shm", kib][key] / at["memcpy", kib][key]
            yield Goal(f"time inside put to memcpy, shm, {name}, {size}", "≤", 1.2, float(ratio))
        median = float(at["insitu shm, in place", kib]["call_p50_us"])
        yield Goal(f"time inside empty and the step's end, median, {size}, µs", "≤", 30.0, median)


def _round_trip(rows: Rows) -> Iterator[Goal]:
    for row in rows:
        if row["contender"].startswith("insitu"):
            yield Goal(f"round trip of 64 KiB, {row['contender']}, µs", "≤", 250.0, float(row["round_trip_p50_us"]))


def _statistics(rows: Rows) -> Iterator[Goal]:
    rate = {row["contender"]: float(row["steps/s"]) for row in rows}
    for peer, bound in (("ring + numba", 0.9), ("ADIOS2 SST + numba", 2.0)):
        if peer in rate:
            yield Goal(f"statistics, insitu shm to {peer}", "≥", bound, rate["insitu shm"] / rate[peer])
