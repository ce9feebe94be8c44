# SPDX-License-Identifier: Apache-2.0
"""MPI's Isend and Irecv, by mpi4py and the wheel of MPICH; it polls, so both cores are busy while it waits.

The last rank is the consumer. Producers send their own arrays and wait for the oldest of some requests.
"""

from collections import deque
from typing import Any

import numpy as np

from benchmarks.consumers import Consumer
from benchmarks.workload import Array, Workload, produce

#: Messages of a rank under way, and receives that wait for them.
REQUESTS = 8


def consume(work: Workload) -> None:
    from mpi4py import MPI

    comm, consumer = MPI.COMM_WORLD, Consumer(work)
    count = min(REQUESTS, work.waiting)
    blocks = np.ones((work.ranks, count, *work.block))
    waits = [[comm.Irecv(blocks[rank, k], rank) for k in range(min(count, work.total))] for rank in range(work.ranks)]
    for n in range(work.total):
        for rank in range(work.ranks):
            waits[rank][n % count].Wait()
            consumer.take(rank, blocks[rank, n % count])
            if work.answers:
                comm.Send(b"", rank)
            if n + count < work.total:
                waits[rank][n % count] = comm.Irecv(blocks[rank, n % count], rank)


def publish(work: Workload, rank: int) -> None:
    from mpi4py import MPI

    comm, requests = MPI.COMM_WORLD, deque[Any]()

    def send(_: int, block: Array) -> None:
        while len(requests) >= min(REQUESTS, work.waiting):
            requests.popleft().Wait()
        requests.append(comm.Isend(block, work.ranks))
        if work.answers:
            comm.Recv(bytearray(), work.ranks)

    produce(work, rank, send)
    MPI.Request.Waitall(list(requests))
