# SPDX-License-Identifier: Apache-2.0
"""What every contender of the benchmarks that stream is given: what to publish, how, and what to do with it.

All are fed by the same producers: processes that warm up, wait until the consumer has done with that, then publish as
fast as they are let, and note how long each call took. The clock starts when the last of them begins and stops when
the consumer has done with the last step. Both ends are read off the monotonic clock, which all processes of a machine
share.

This module imports nothing but NumPy, because contenders run in environments of their own (`benchmarks.peers`).
"""

import gc
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Different blocks that a rank publishes in turn, so that no contender finds its input in the nearest cache.
BLOCKS = 4
#: A contender that takes longer than this is stuck.
LIMIT_S = 120.0
#: What may be under way, as in the default configuration of insitu.
WAITING_BYTES = 256 << 20
#: The histogram of `statistics`: bins, of which the first and the last count what lies below and above, and its range.
BINS, LOW, HIGH = 100, -4.0, 4.0


@dataclass(frozen=True)
class Workload:
    """What is published: `steps` steps after `lead` others, from `ranks` ranks, each a block of `block` float64.

    The blocks are stacked along the first dimension. `fold` says what is made of a block: ``sum`` or ``statistics``
    (`benchmarks.consumers`). With `in_place` the producer has no array of its own but fills the memory that it is
    given, which is its own work and not part of the call. With `answers` each block is answered when it was consumed,
    and the call lasts until then. `folder` is where the processes leave their notes.
    """

    folder: str
    ranks: int
    block: tuple[int, ...]
    steps: int
    lead: int
    fold: str = "sum"
    in_place: bool = False
    answers: bool = False

    @property
    def block_bytes(self) -> int:
        return 8 * int(np.prod(self.block))

    @property
    def mib(self) -> float:
        """Everything that is published while the clock runs."""
        return self.steps * self.ranks * self.block_bytes / 2**20

    @property
    def total(self) -> int:
        """All steps."""
        return self.lead + self.steps

    @property
    def waiting(self) -> int:
        """Blocks of one rank that may be under way."""
        return max(2, WAITING_BYTES // self.ranks // self.block_bytes)

    def note(self, name: str) -> Path:
        return Path(self.folder) / name

    @property
    def warm(self) -> Path:
        """The note that the consumer leaves when it has done with the steps before."""
        return self.note("warm")

    def save(self) -> Path:
        path = self.note("workload.json")
        path.write_text(json.dumps(asdict(self)))
        return path

    @staticmethod
    def load(path: str) -> "Workload":
        fields = json.loads(Path(path).read_text())
        return Workload(**{**fields, "block": tuple(fields["block"])})


@dataclass(frozen=True)
class Timing:
    """What one contender took for a workload; `calls_us` are the durations of all publishing calls of all ranks."""

    seconds: float
    calls_us: npt.NDArray[np.float64]


def blocks_of(rank: int, block: tuple[int, ...]) -> list[npt.NDArray[np.float64]]:
    """Return what a rank publishes in turn: normal numbers, the same in every run."""
    random = np.random.default_rng(rank)
    return [random.standard_normal(block) for _ in range(BLOCKS)]


def produce(work: Workload, rank: int, publish: Callable[[int, Array], None]) -> None:
    """Be one rank: call ``publish(step, block)`` for every step, and leave a note of how long it took."""
    blocks = blocks_of(rank, work.block)

    def timed(n: int) -> float:
        before = time.perf_counter()
        publish(n, blocks[n % BLOCKS])
        return time.perf_counter() - before

    _produce(work, rank, timed)


def produce_in_place(
    work: Workload, rank: int, reserve: Callable[[int], Array], publish: Callable[[int], None]
) -> None:
    """Be one rank that fills what ``reserve(step)`` gives it, then calls ``publish(step)``; its calls are these two."""

    def timed(n: int) -> float:
        before = time.perf_counter()
        room = reserve(n)
        between = time.perf_counter()
        room.fill(n)
        filled = time.perf_counter()
        publish(n)
        return time.perf_counter() - filled + between - before

    _produce(work, rank, timed)


def _produce(work: Workload, rank: int, timed: Callable[[int], float]) -> None:
    for n in range(work.lead):
        timed(n)
    wait_for(work.warm)
    # Else Python looks through all that the process has loaded at one of the steps that are timed: once in a run, which
    # one of another length does not feel, and for longer the more a contender has loaded for its own preparations.
    gc.collect()
    calls = np.empty(work.steps)
    begin = time.monotonic()
    for n in range(work.steps):
        calls[n] = timed(work.lead + n)
    np.save(work.note(f"calls.{rank}.npy"), calls)
    write(work.note(f"begin.{rank}"), repr(begin))


def write(note: Path, text: str) -> None:
    """Leave a note, which others see whole or not at all."""
    draft = note.with_name(note.name + ".draft")
    draft.write_text(text)
    draft.rename(note)


def wait_for(note: Path) -> str:
    """Return what a note says, once it is there."""
    pause = threading.Event()
    deadline = time.monotonic() + LIMIT_S
    while not note.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{note.name} was not there after {LIMIT_S:g} s.")
        pause.wait(0.005)
    return note.read_text()


def timing(work: Workload, end_s: float) -> Timing:
    """Put together what the producers noted and when the consumer had done."""
    begin = max(float(wait_for(work.note(f"begin.{rank}"))) for rank in range(work.ranks))
    calls = np.concatenate([np.load(work.note(f"calls.{rank}.npy")) for rank in range(work.ranks)])
    return Timing(end_s - begin, calls * 1e6)
