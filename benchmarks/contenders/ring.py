# SPDX-License-Identifier: Apache-2.0
"""A ring of slots in shared memory by hand, with pipes for descriptors: the least that one machine asks for.

Each rank has its slots; it says in a pipe which it has filled, two bytes a block, and hears in another which are free
again. The consumer takes whatever waits in the pipe at once. Nothing is bounded but the slots, nobody notices a process
that dies.
"""

import mmap
import os
import tempfile
from collections import deque
from pathlib import Path

import numpy as np

from benchmarks.consumers import Consumer
from benchmarks.workload import Array, Workload, produce, produce_in_place, wait_for, write

#: More slots than these would only push each other out of the caches.
SLOTS = 32


def consume(work: Workload) -> None:
    consumer, count = Consumer(work), slots(work)
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as memory:
        memory.truncate(work.ranks * count * work.block_bytes)
        rings = mapped(memory.fileno(), work)
        rings.fill(0.0)  # its pages are there before the clock runs
        os.mkfifo(work.note("full"))
        for rank in range(work.ranks):
            os.mkfifo(work.note(f"free.{rank}"))
        write(work.note("memory"), memory.name)
        full = os.open(work.note("full"), os.O_RDONLY)
        free = [os.open(work.note(f"free.{rank}"), os.O_WRONLY) for rank in range(work.ranks)]
    while consumer:
        said = os.read(full, 4096)
        for rank, slot in zip(said[::2], said[1::2], strict=True):
            consumer.take(rank, rings[rank, slot])
            os.write(free[rank], bytes([slot]))


def publish(work: Workload, rank: int) -> None:
    with open(wait_for(work.note("memory")), "r+b") as memory:
        full = os.open(work.note("full"), os.O_WRONLY)
        free = os.open(work.note(f"free.{rank}"), os.O_RDONLY)
        ring = mapped(memory.fileno(), work)[rank]
    ring.fill(0.0)
    room = deque(range(slots(work)))

    def reserve(_: int) -> Array:
        if not room:
            room.extend(os.read(free, 4096))
        slot: Array = ring[room[0]]
        return slot

    def commit(_: int) -> None:
        os.write(full, bytes([rank, room.popleft()]))
        if work.answers:
            room.extend(os.read(free, 1))

    def copy(n: int, block: Array) -> None:
        np.copyto(reserve(n), block)
        commit(n)

    if work.in_place:
        produce_in_place(work, rank, reserve, commit)
    else:
        produce(work, rank, copy)
    while os.read(free, 4096):
        """Not gone before the consumer has done: it would write into a pipe that nobody reads."""


def slots(work: Workload) -> int:
    return min(SLOTS, work.waiting)


def mapped(file: int, work: Workload) -> Array:
    """Return the slots of all ranks."""
    return np.frombuffer(mmap.mmap(file, 0), np.float64).reshape(work.ranks, slots(work), *work.block)
