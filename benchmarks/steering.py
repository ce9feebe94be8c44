# SPDX-License-Identifier: Apache-2.0
"""From the request to the step at which all ranks have applied it; and what steering costs who is not steered.

    python -m benchmarks.steering [--quick]

Ranks are processes that sleep through their steps, so that 16 of them have room on a small machine; a clock holds them
together, as the exchange of halos does in a solver. Requests come one after the other, at random moments. The
controller has no staging nodes: nothing else passes over the links.
"""

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import insitu
from benchmarks.common import report
from insitu.controller.admission import Terms
from insitu.controller.record import ActionRecord
from insitu.controller.service import Service
from insitu.steering.actions import Action, Receipt
from insitu.wire.contact import Contact
from insitu.wire.sockets import listen
from insitu.wire.steering import SteeringTerms

RANKS = (1, 4, 16)
STEPS_MS = (1, 10, 100)
#: Requests of each combination, at most, and for how long at most.
REQUESTS = 100
SECONDS = 4.0
QUICK_S = 1.0
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    seconds = QUICK_S if quick() else SECONDS
    latencies = []
    for step_ms in STEPS_MS:
        for ranks in RANKS:
            latencies.append(latency(ranks, step_ms, seconds))
            print("{step_ms} ms a step, {ranks} ranks: {p50_ms:.1f} ms".format(**latencies[-1]), flush=True)
    report("From request to applied", latencies, RESULTS / "steering_latency.json")
    report("What it costs who is not steered", costs(), RESULTS / "steering_cost.json")


def quick() -> bool:
    """Return whether it is to take seconds instead of minutes."""
    parser = argparse.ArgumentParser(description="From the request to the step at which all ranks have applied it.")
    parser.add_argument("--quick", action="store_true", help="fewer requests: to see that it works")
    return bool(parser.parse_args().quick)


@contextmanager
def controller(ranks: int) -> Iterator[tuple[Service, Path]]:
    """A controller in a thread of its own, and its contact file."""
    done = threading.Event()
    with tempfile.TemporaryDirectory() as folder, listen("tcp://127.0.0.1:*") as listener:
        record = ActionRecord(Path(folder) / "actions.jsonl")
        steering = SteeringTerms("promise", 1.0, 60.0, "stop", 0)
        terms = Terms("benchmark", ranks, 1 << 20, 5.0, "block", 1, "drop", 0, "", "tcp", (), steering)
        ignored: Callable[..., None] = lambda *_: None  # noqa: E731
        service = Service(
            listener, terms, {}, 0, journal=ignored, describe=ignored, deliver=ignored, release=ignored, record=record,
            snapshot=lambda service: {},
        )  # fmt: skip
        contact = Path(folder) / "contact.json"
        Contact("benchmark", listener.address, os.getpid(), socket.gethostname(), folder).write(contact)

        def turn() -> None:
            while not done.is_set():
                service.turn(0.1)

        thread = threading.Thread(target=turn)
        thread.start()
        try:
            yield service, contact
        finally:
            done.set()
            thread.join()
            service.close()
            record.close()


def latency(ranks: int, step_ms: int, seconds: float) -> dict[str, Any]:
    """Ask again and again; return what the receipts say."""
    with controller(ranks) as (service, contact):
        go = contact.with_name("go")
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.steering_rank", str(step_ms)],
                env=os.environ
                | {"INSITU_CONTACT": str(contact), "INSITU_RANK": str(rank), "INSITU_SIZE": str(ranks)}
                | {"GO": str(go)},
            )
            for rank in range(ranks)
        ]
        receipts: list[Receipt] = []
        pause = threading.Event()
        while len(service.ranks) < ranks:
            pause.wait(0.01)
        fresh = contact.with_name("going")
        fresh.write_text(str(time.monotonic()))
        fresh.rename(go)
        service.steering.ask(Action("set", {"value": 0.0})).receipt(60)
        begin = time.monotonic()
        while len(receipts) < REQUESTS and time.monotonic() - begin < seconds:
            pause.wait(random.random() * step_ms * 2e-3)
            receipts.append(service.steering.ask(Action("set", {"value": random.random()})).receipt(60))
        service.steering.ask(Action("stop")).receipt(60)
        for process in processes:
            process.wait()
    took = np.array([receipt.latency_s for receipt in receipts], float) * 1e3
    steps = np.array([receipt.latency_steps for receipt in receipts], float)
    return {
        "ranks": ranks,
        "step_ms": step_ms,
        "requests": len(receipts),
        "p50_ms": float(np.percentile(took, 50)),
        "p99_ms": float(np.percentile(took, 99)),
        "p50_steps": float(np.percentile(steps, 50)),
        "p99_steps": float(np.percentile(steps, 99)),
    }


def costs() -> list[dict[str, Any]]:
    """Microseconds a call, with nobody who steers and without a run."""
    free = insitu.Client()
    array = np.zeros(4)
    calls: dict[str, Callable[[], Any]] = {
        "parameter, no run": lambda: free.parameter("feed", 0.035, minimum=0.0, maximum=0.1),
        "state, no run": lambda: free.state("u", array, start=(0,), shape=(4,)),
        "action, no run": lambda: free.action("perturb", print, amplitude=0.1),
        "stopping, no run": lambda: free.stopping,
    }
    rows = [{"what": what, "us": microseconds(call)} for what, call in calls.items()]
    with controller(1) as (_, contact):
        os.environ["INSITU_RANK"], os.environ["INSITU_SIZE"] = "0", "1"
        with insitu.Client(contact) as sim:
            feed = sim.parameter("feed", 0.035)
            index = iter(range(1 << 40))

            def step() -> None:
                with sim.step(next(index)):
                    pass

            steered: Any = sim._steered
            steered_us, boundary = [], steered.boundary
            bare_us = []
            for _ in range(5):
                steered_us.append(microseconds(step))
                steered.boundary = lambda index, time: None
                bare_us.append(microseconds(step))
                steered.boundary = boundary
            rows.append({"what": "an empty step", "us": statistics.median(steered_us)})
            rows.append({"what": "an empty step without its boundary", "us": statistics.median(bare_us)})
            rows.append({"what": "a boundary alone", "us": microseconds(lambda: boundary(0, 0.0))})
            rows.append({"what": "stopping and one value", "us": microseconds(lambda: (sim.stopping, feed.value))})
    return rows


def microseconds(call: Callable[[], object], n: int = 20_000) -> float:
    """Return the time of one call, of many."""
    begin = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - begin) / n * 1e6


if __name__ == "__main__":
    main()
