# SPDX-License-Identifier: Apache-2.0
"""One whole run of ``insitu run`` as a contender: its client, one staging node in a Dask worker, its controller.

python -m benchmarks.streaming WORKLOAD.json    one rank of a workload; ``insitu run`` starts it so
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

import insitu
from benchmarks.workload import LIMIT_S, Timing, Workload, produce, produce_in_place, timing, write
from insitu.model import Array, Variable
from insitu.operator import Batch, Operator, State

ROOT = Path(__file__).parents[1]


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
            state["total"] += sum(float(np.sum(array)) for name in self.of for array in batch[name])
        state["end_s"] = time.monotonic()
        if batch.steps[0].index < self.lead <= batch.steps[-1].index + 1:
            note_threads(Path(self.warm).parent, "node")
            Path(self.warm).touch()
        return state

    def merge(self, a: State, b: State) -> State:
        return {"total": a["total"] + b["total"], "end_s": max(a["end_s"], b["end_s"])}

    def finalize(self, state: State) -> dict[str, Array]:
        return {name: np.array(value) for name, value in state.items()}


def note_threads(folder: Path, process: str) -> None:
    """Leave a note of what the threads of this process are called, for whoever asks the kernel about them."""
    names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    write(folder / f"threads.{process}.json", json.dumps({"pid": os.getpid(), "names": names}))


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
    return timing(work, end_of(work.note("benchmark")))


def end_of(run: Path) -> float:
    """Return when the last step of a run was folded, by its operator `clock`."""
    with xr.open_dataset(run / "results.zarr", group="clock", engine="zarr", consolidated=False) as times:
        return float(times["end_s"].values[-1])


def start_insitu(config: Path) -> None:
    """Run a configuration to its end. Raises `RuntimeError` with what it said where it fails."""
    command = insitu_command(config)
    # `use: benchmarks...` has to be found by the workers too.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {ended.returncode}:\n{ended.stdout}{ended.stderr}")


def insitu_command(config: Path) -> list[str]:
    """Return what runs a configuration."""
    return [str(Path(sys.executable).with_name("insitu")), "run", str(config), "--force"]


def main() -> None:
    work = Workload.load(sys.argv[1])
    with insitu.Client() as sim:
        note_threads(Path(work.folder), f"rank {sim.rank}")
        if sim.rank == 0:
            write(Path(work.folder) / "threads.controller.json", json.dumps({"pid": os.getppid(), "names": {}}))
        rank, rows = sim.rank, work.block[0]
        shape, start = (rows * work.ranks, *work.block[1:]), (rows * rank, *(0 for _ in work.block[1:]))

        def publish(n: int, block: Array) -> None:
            with sim.step(n) as step:
                step.put("u", block, start=start, shape=shape)
            if work.answers:
                wait_until_folded(sim)

        def reserve(n: int) -> Array:
            opened.append(sim.step(n).__enter__())
            block: Array = opened[0].empty("u", work.block, start=start, shape=shape)
            return block

        def commit(_: int) -> None:
            opened.pop().__exit__(None, None, None)

        opened: list[Any] = []
        if work.in_place:
            produce_in_place(work, rank, reserve, commit)
        else:
            produce(work, rank, publish)


def wait_until_folded(sim: insitu.Client) -> None:
    """Wait for all that was published; a simulation never does, so the client has no call for it."""
    publisher = sim._publisher
    assert publisher is not None
    while any(link.unsent or link._folded_bytes < link.sent_bytes for link in publisher.links):
        publisher.pump(1.0)


if __name__ == "__main__":
    main()
