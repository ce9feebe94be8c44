# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks that stream have in common: the producers, and one whole run of ``insitu run`` as a contender.

Every contender is fed by the same producers: processes that warm up, wait until the consumer has done with that, then
publish as fast as they are let, and note how long each call took. The clock starts when the last of them begins and
stops when the consumer has done with the last step. Both ends are read off the monotonic clock, which all processes of
a machine share.

    python -m benchmarks.streaming WORKLOAD.json    one rank of a workload; ``insitu run`` starts it so
"""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import yaml

import insitu
from insitu.model import Array, Variable
from insitu.operator import Batch, Operator, State

ROOT = Path(__file__).parents[1]

#: Different blocks that a rank publishes in turn, so that no contender finds its input in the nearest cache.
BLOCKS = 4
#: A contender that takes longer than this is stuck.
LIMIT_S = 120.0

processes = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Workload:
    """What is published: `steps` steps after `lead` others, from `ranks` ranks, each a block of `block` float64.

    The blocks are stacked along the first dimension. `folder` is where the processes leave their notes.
    """

    folder: str
    ranks: int
    block: tuple[int, ...]
    steps: int
    lead: int

    @property
    def block_bytes(self) -> int:
        return 8 * int(np.prod(self.block))

    @property
    def mib(self) -> float:
        """Everything that is published while the clock runs."""
        return self.steps * self.ranks * self.block_bytes / 2**20

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
    for n in range(work.lead):
        publish(n, blocks[n % BLOCKS])
    _wait_for(work.warm)
    calls = np.empty(work.steps)
    begin = time.monotonic()
    for n in range(work.steps):
        before = time.perf_counter()
        publish(work.lead + n, blocks[n % BLOCKS])
        calls[n] = time.perf_counter() - before
    np.save(work.note(f"calls.{rank}.npy"), calls)
    work.note(f"begin.{rank}").write_text(repr(begin))


def _wait_for(note: Path) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + LIMIT_S
    while not note.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"The consumer was not warm after {LIMIT_S:g} s.")
        pause.wait(0.01)


def timing(work: Workload, end_s: float) -> Timing:
    """Put together what the producers noted and when the consumer had done."""
    begin = max(float(work.note(f"begin.{rank}").read_text()) for rank in range(work.ranks))
    calls = np.concatenate([np.load(work.note(f"calls.{rank}.npy")) for rank in range(work.ranks)])
    return Timing(end_s - begin, calls * 1e6)


class Total(Operator):
    """Reads every element once, and says when it last did.

    The sum of all values; with ``read: false`` nothing is read. ``end_s`` is the monotonic clock at the end of the last
    update: listed behind other operators, it tells when they had folded everything. `warm` is the note to leave when
    `lead` steps are done with.
    """

    warm: str
    lead: int
    read: bool = True

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        return {name: Variable(name, np.dtype("f8"), (), ()) for name in ("total", "end_s")}

    def init(self) -> State:
        return {"total": 0.0, "end_s": 0.0}

    def update(self, state: State, batch: Batch) -> State:
        if self.read:
            state["total"] += sum(float(np.sum(array)) for array in batch[self.of[0]])
        state["end_s"] = time.monotonic()
        if batch.steps[0].index < self.lead <= batch.steps[-1].index + 1:
            Path(self.warm).touch()
        return state

    def merge(self, a: State, b: State) -> State:
        return {"total": a["total"] + b["total"], "end_s": max(a["end_s"], b["end_s"])}

    def finalize(self, state: State) -> dict[str, Array]:
        return {name: np.array(value) for name, value in state.items()}


def insitu_run(
    work: Workload, operators: Mapping[str, Mapping[str, Any]], *, transport: str, read: bool = False
) -> Timing:
    """Take a workload through ``insitu run``: its client, one staging node in a Dask worker, its controller.

    The variable is called ``u``. To `operators` one is added that says when all was done, and with `read` reads it all.
    """
    clock = {"use": "benchmarks.streaming:Total", "of": "u", "over": ["step", "space"], "read": read}
    clock |= {"warm": str(work.warm), "lead": work.lead}
    config = {
        "run": "benchmark",
        "directory": work.folder,
        "simulation": {
            "command": [sys.executable, "-m", "benchmarks.streaming", str(work.save())],
            "ranks": work.ranks,
            "directory": str(ROOT),
        },
        "staging": {"nodes": 1, "transport": transport},
        "operators": {**operators, "clock": clock},
    }
    path = work.note("config.yaml")
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    start_insitu(path)
    with xr.open_datatree(work.note("benchmark") / "results.zarr", engine="zarr", consolidated=False) as results:
        return timing(work, float(results["clock"]["end_s"].values[-1]))


def start_insitu(config: Path) -> None:
    """Run a configuration to its end. Raises `RuntimeError` with what it said where it fails."""
    command = [str(Path(sys.executable).with_name("insitu")), "run", str(config), "--force"]
    # `use: benchmarks...` has to be found by the workers too.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {ended.returncode}:\n{ended.stdout}{ended.stderr}")


def main() -> None:
    work = Workload.load(sys.argv[1])
    with insitu.Client() as sim:
        rank, rows = sim.rank, work.block[0]
        shape, start = (rows * work.ranks, *work.block[1:]), (rows * rank, *(0 for _ in work.block[1:]))

        def publish(n: int, block: Array) -> None:
            with sim.step(n) as step:
                step.put("u", block, start=start, shape=shape)

        produce(work, rank, publish)


if __name__ == "__main__":
    main()
