# SPDX-License-Identifier: Apache-2.0
"""A simulation whose every rank writes down what it used in each step, and waits where it is told to.

A step `n` is begun once the number in the file ``gate-RANK`` is at least `n`; without the file at once. A line of
``rank-RANK.jsonl`` says which values the computation after a step has used, and what has come of them.
"""

import argparse
import json
import threading
from pathlib import Path

import numpy as np

import insitu
from insitu.client.launcher import rank_and_size


def main() -> None:
    options = parse_options()
    comm = None
    if options.mpi:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
    rank, size = rank_and_size(comm)
    pause = threading.Event()
    x, u = np.full(4, 0.1 + rank), np.zeros((2, 4))
    checkpoints: list[int] = []
    with insitu.Client(comm=comm) as sim, Path(f"rank-{rank}.jsonl").open("w", buffering=1) as log:
        feed = sim.parameter("feed", 0.035, minimum=0.0, maximum=0.1)
        solver = sim.parameter("solver", "cg", choices=["cg", "gmres"])
        inlets = sim.parameter("inlets", [1.0, 2.0], minimum=0.0)
        if rank == options.odd_one:
            sim.parameter("odd", 1)
        sim.state("u", u, start=(0, 2 * rank), shape=(2, 2 * size), halo=((0, 0), (1, 1)))
        sim.action("perturb", lambda amplitude: perturb(x, amplitude), amplitude={"default": 0.1, "minimum": 0.0})
        sim.action("slip", lambda who: slip(rank, who), who=0)
        sim.on_checkpoint(lambda: checkpoints.append(n))
        for n in range(0, options.steps * options.stride, options.stride):
            wait_for(rank, n, pause)
            with sim.step(n, time=0.5 * n) as step:
                step.put("x", x, start=(4 * rank,), shape=(4 * size,))
            advance(x, feed.value, inlets.value)
            said = {"n": n, "feed": feed.value, "solver": solver.value, "inlets": list(map(float, inlets.value))}
            log.write(json.dumps(said | {"x": x.tolist(), "u": u[:, 1:-1].tolist(), "checkpoints": checkpoints}) + "\n")
            if sim.stopping:
                break
            pause.wait(options.pause)


def advance(x: "np.ndarray[tuple[int], np.dtype[np.float64]]", feed: float, inlets: object) -> None:
    """A logistic map, so that whatever differs in one bit differs in all of them soon."""
    x %= 1.0
    x *= (3.9 + feed) * (1.0 - x) + 1e-3 * float(np.sum(np.asarray(inlets)))


def perturb(x: "np.ndarray[tuple[int], np.dtype[np.float64]]", amplitude: float) -> None:
    if amplitude > 1.0:
        raise ValueError(f"an amplitude of {amplitude} is too much")
    x += amplitude


def slip(rank: int, who: int) -> None:
    if rank == who:
        raise RuntimeError(f"rank {who} has slipped")


def wait_for(rank: int, n: int, pause: threading.Event) -> None:
    gate = Path(f"gate-{rank}")
    while gate.exists() and int(gate.read_text() or -1) < n:
        pause.wait(0.002)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--stride", type=int, default=1, help="between the indices of steps")
    parser.add_argument("--pause", type=float, default=0.005, help="seconds after each step")
    parser.add_argument("--odd-one", type=int, default=-1, help="the rank that declares something of its own")
    parser.add_argument("--mpi", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
