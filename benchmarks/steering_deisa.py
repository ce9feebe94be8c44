# SPDX-License-Identifier: Apache-2.0
"""Steering beside the feedback of deisa-dask: the same ranks, steps and requests, one side after the other.

    pip install deisa-dask==0.6.3 && python -m benchmarks.steering_deisa [--quick]

The ranks are one MPI program, whose steps come by the clock and take no time of their own. In each it looks whether
something was set: by closing a step of `insitu`, or by ``get`` of deisa-dask, in which rank 0 asks a queue of the Dask
scheduler and tells the others by MPI. Requests come one after the other. Latencies are from the request to the moment
at which the last rank has the value; ``look_us`` is what a step pays for looking, whether anything was set or not.
"""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from distributed import LocalCluster

from benchmarks.common import report
from benchmarks.steering import QUICK_S, RESULTS, STEPS_MS, controller, quick
from insitu.steering.actions import Action

RANKS = (1, 4)
ROUNDS = 2
SECONDS = 2.0
END = -1
Ask = Callable[[int], object]


def main() -> None:
    rounds, seconds = (1, QUICK_S) if quick() else (ROUNDS, SECONDS)
    rows = []
    for step_ms, ranks in itertools.product(STEPS_MS, RANKS):
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                found[side].append(measured(side, ranks, step_ms, seconds))
                print(f"{step_ms} ms a step, {ranks} ranks, {side}: {found[side][-1]['look_us']:.0f} us", flush=True)
        rows += [row(side, ranks, step_ms, several) for side, several in found.items()]
    report("From the request to the last rank that has the value", rows, RESULTS / "steering_deisa.json")


def row(side: str, ranks: int, step_ms: int, several: list[dict[str, Any]]) -> dict[str, Any]:
    """Put together what the rounds of one side have found."""
    took = np.concatenate([each["took_ms"] for each in several])
    steps = np.concatenate([np.array(each["took_ms"]) / each["step_ms"] for each in several])
    return {
        "ranks": ranks, "step_ms": step_ms, "side": side, "requests": len(took),
        "p50_ms": float(np.percentile(took, 50)), "p99_ms": float(np.percentile(took, 99)),
        "p50_steps": float(np.percentile(steps, 50)), "p99_steps": float(np.percentile(steps, 99)),
        "look_us": float(np.median([each["look_us"] for each in several])),
    }  # fmt: skip


def measured(side: str, ranks: int, step_ms: int, seconds: float) -> dict[str, Any]:
    """Set again and again; return in how many ms all ranks had each value, and what a step and a look took."""
    mpiexec = str(Path(sys.executable).with_name("mpiexec"))
    command = [sys.executable, "-m", "benchmarks.steering_deisa", "rank", side, str(step_ms)]
    asked: list[float] = []
    with (
        SIDES[side][0](ranks) as connected,
        subprocess.Popen([mpiexec, "-n", str(ranks), *command], stdout=subprocess.PIPE, text=True) as simulation,
    ):
        ask = connected()
        pause, random, begin = threading.Event(), np.random.default_rng(0), time.monotonic()
        for token in itertools.count(1):
            pause.wait(2e-3 * step_ms * random.random())
            over = token > 1 and time.monotonic() - begin > seconds
            asked.append(time.monotonic())
            ask(END if over else token)
            assert simulation.stdout is not None
            if over:
                said = json.loads(simulation.stdout.readline())
                break
            seen = int(simulation.stdout.readline())
            assert seen == token, f"rank 0 has {seen} instead of {token}"
            begin = time.monotonic() if token == 1 else begin  # the first one waits for all to be there
    last = np.max(said["seen"], axis=0)[1:-1]  # at the end ranks are leaving
    return {
        "took_ms": (1e3 * (last - np.array(asked[1:-1]))).tolist(),
        "step_ms": said["step_ms"],
        "look_us": said["look_us"],
    }


@contextmanager
def insitu_side(ranks: int) -> Iterator[Callable[[], Ask]]:
    """A controller in this process."""
    with controller(ranks) as (service, contact):
        os.environ["INSITU_CONTACT"] = str(contact)

        pause = threading.Event()

        def connected() -> Ask:
            while len(service.ranks) < ranks:
                pause.wait(0.01)
            return lambda token: service.steering.ask(Action("set", {"value": token}))

        try:
            yield connected
        finally:
            del os.environ["INSITU_CONTACT"]


@contextmanager
def deisa_side(ranks: int) -> Iterator[Callable[[], Ask]]:
    """A Dask cluster with one worker."""
    from deisa.dask import Deisa

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        os.environ["DEISA_DASK_SCHEDULER_ADDRESS"] = cluster.scheduler_address
        made: list[Any] = []

        def connected() -> Ask:
            made.append(Deisa())
            return lambda token: made[0].set("value", token, timestep=token)

        yield connected
        for deisa in made:
            deisa.client.close()


def insitu_look(comm: Any) -> Callable[[int], int]:
    import insitu

    sim = insitu.Client(comm=comm)
    value = sim.parameter("value", 0)

    def look(n: int) -> int:
        with sim.step(n):
            pass
        return int(value.value)

    return look


def deisa_look(comm: Any) -> Callable[[int], int]:
    from deisa.dask import Bridge

    bridge = Bridge(comm, {"x": {"global_shape": [4 * comm.size], "chunk_shape": [4], "chunk_position": [comm.rank]}})

    def look(n: int) -> int:
        values = bridge.get("value")
        return int(values[-1][1]) if values else 0

    return look


SIDES: dict[str, tuple[Any, Callable[[Any], Callable[[int], int]]]] = {
    "insitu": (insitu_side, insitu_look),
    "deisa-dask": (deisa_side, deisa_look),
}


def rank(side: str, step_s: float) -> None:
    """Take steps by the clock and look in each. Rank 0 says what it sees; at the end, when all have seen it."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    look = SIDES[side][1](comm)
    comm.Barrier()
    known, seen, looks, pause, begin = 0, [], [], threading.Event(), time.monotonic()
    for n in itertools.count():
        pause.wait(max(0.0, begin + n * step_s - time.monotonic()))
        before = time.perf_counter()
        value = look(n)
        looks.append(time.perf_counter() - before)
        if value in (0, known):
            continue
        known = value
        seen.append(time.monotonic())
        if value == END:
            break
        if comm.rank == 0:
            print(value, flush=True)
    all_seen = comm.gather(seen)
    if comm.rank == 0:
        step_ms = 1e3 * (time.monotonic() - begin) / len(looks)
        said = {"seen": all_seen, "step_ms": step_ms, "look_us": 1e6 * float(np.median(looks))}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        rank(sys.argv[2], 1e-3 * int(sys.argv[3]))
    else:
        main()
