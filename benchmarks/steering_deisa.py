# SPDX-License-Identifier: Apache-2.0
"""The feedback of deisa-dask on the work of `benchmarks.steering`: ``set`` in the analytics, ``get`` in each step.

    pip install deisa-dask==0.6.3 && python -m benchmarks.steering_deisa

Ranks sleep through their steps and look once in each, rank 0 at a queue of the Dask scheduler, from which it tells the
others by MPI. Latencies are from ``set`` to the step in which rank 0 has the value. Who looks pays for it in each step,
whether anybody has set anything or not.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from distributed import LocalCluster

from benchmarks.common import report
from benchmarks.steering import REQUESTS, RESULTS, SECONDS, STEPS_MS

RANKS = (1, 4)


def main() -> None:
    rows = [measured(ranks, step_ms) for step_ms in STEPS_MS for ranks in RANKS]
    report("From deisa-dask's set to its get", rows, RESULTS / "steering_deisa.json")


def measured(ranks: int, step_ms: int) -> dict[str, Any]:
    """Set again and again; return when the ranks had it, and what a look costs a step."""
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        os.environ["DEISA_DASK_SCHEDULER_ADDRESS"] = cluster.scheduler_address
        mpiexec = str(Path(sys.executable).with_name("mpiexec"))
        command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "benchmarks.steering_deisa", "rank", str(step_ms)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulation:
            from deisa.dask import Deisa

            deisa = Deisa()
            took, steps, pause, begin = [], [], threading.Event(), time.monotonic()
            for token in range(REQUESTS):
                if time.monotonic() - begin > SECONDS:
                    break
                pause.wait(step_ms * 1e-3)
                asked = time.monotonic()
                deisa.set("value", token, timestep=token)
                seen, seconds_a_step = told(simulation, token)
                took.append(1e3 * (seen - asked))
                steps.append((seen - asked) / seconds_a_step)
            deisa.set("value", -1, timestep=-1)
            look_us = float(told(simulation, -1)[1])
            simulation.wait()
            deisa.client.close()
    return {
        "step_ms": step_ms, "ranks": ranks, "requests": len(took),
        "p50_ms": float(np.percentile(took, 50)), "p99_ms": float(np.percentile(took, 99)),
        "p50_steps": float(np.percentile(steps, 50)), "p99_steps": float(np.percentile(steps, 99)),
        "look_us": look_us,
    }  # fmt: skip


def told(simulation: "subprocess.Popen[str]", token: int) -> tuple[float, float]:
    """Return what rank 0 says of a token."""
    assert simulation.stdout is not None
    for line in simulation.stdout:
        words = line.split()
        if words[:1] == ["seen"] and int(words[1]) == token:
            return float(words[2]), float(words[3])
    raise RuntimeError("The ranks have ended.")


def rank(step_ms: int) -> None:
    """Take steps, look in each, and say when a value came and how long a step took; at the end, how long a look."""
    from deisa.dask import Bridge
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    place = {"global_shape": [4 * comm.size], "chunk_shape": [4], "chunk_position": [comm.rank]}
    bridge = Bridge(comm, {"x": place})
    looks, known, pause, begin, n = [], None, threading.Event(), time.monotonic(), 0
    while known != -1:
        pause.wait(step_ms * 1e-3)
        before = time.perf_counter()
        values = bridge.get("value")
        looks.append(time.perf_counter() - before)
        n += 1
        if values and values[-1][1] != known:
            known, now = values[-1][1], time.monotonic()
            if comm.rank == 0:
                last = 1e6 * float(np.median(looks)) if known == -1 else (now - begin) / n
                print("seen", known, now, last, flush=True)
    os._exit(0)  # its client waits for the scheduler, which is gone by then


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        rank(int(sys.argv[2]))
    else:
        main()
