# SPDX-License-Identifier: Apache-2.0
"""deisa-dask: a bridge in the simulation, and a callback that has one Dask worker make a sum of every step."""

import os
import threading

from benchmarks.consumers import Consumer
from benchmarks.workload import LIMIT_S, Array, Workload, produce, wait_for, write


def consume(work: Workload) -> None:
    import numpy as np
    from dask.base import compute
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=None
    ) as cluster:
        os.environ["DEISA_DASK_SCHEDULER_ADDRESS"] = cluster.scheduler_address
        write(work.note("scheduler"), cluster.scheduler_address)
        from deisa.dask import Deisa

        consumer, deisa = Consumer(work), Deisa()
        lock, done = threading.Lock(), threading.Event()

        def step(window: list[object]) -> None:
            (total,) = compute(window[-1].sum())  # type: ignore[attr-defined]
            with lock:  # callbacks run in several threads
                consumer.take(0, np.asarray(total))
                if not consumer:
                    done.set()

        deisa.register_callback(step, "u")
        deisa.client.run_on_scheduler(lambda: None)  # behind this, the scheduler knows of the callback
        write(work.note("registered"), "")
        if not done.wait(LIMIT_S):
            raise TimeoutError("deisa-dask has not done with all steps.")
        deisa.client.close()


def publish(work: Workload, rank: int) -> None:
    os.environ["DEISA_DASK_SCHEDULER_ADDRESS"] = wait_for(work.note("scheduler"))
    from deisa.dask import Bridge
    from mpi4py import MPI

    extent = list(work.block)
    place = {"global_shape": extent, "chunk_shape": extent, "chunk_position": [0] * len(extent)}
    bridge = Bridge(MPI.COMM_WORLD, {"u": place})
    wait_for(work.note("registered"))  # what is sent before nobody gets

    def send(n: int, block: Array) -> None:
        bridge.send("u", block, timestep=n)

    produce(work, rank, send)
    wait_for(work.note("end"))
    bridge.client.close()
    MPI.Finalize()  # else its segment stays
    os._exit(0)  # what is left of it waits for the scheduler, which is gone by then
