# SPDX-License-Identifier: Apache-2.0
"""Buffers of samples: how fast they are, what memory they hold, and how well a network learns from each.

    python -m benchmarks.buffers [--rounds 3] [--seeds 5]

"draws/s" and "puts/s" are of samples of 4 kB in batches of 64, beside a bare gather of as many rows from an array. Time
is the thread's own.

"learning" is a stream with drift, as a sweep over a parameter makes it: samples come in the order of the parameter, and
a network of it must know all of its range in the end. The network trains four batches for each batch that comes (one
with fifo, which draws a sample once; firo draws each four times); loss is of samples uniform over the range that nobody
trained on, in units of the target's variance. Median over the seeds, and the least and the largest.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from analytics.nn.buffers import KINDS, Buffer
from analytics.nn.needs import torch
from analytics.nn.samples import Samples, Shapes
from analytics.nn.specs import training
from analytics.nn.training import Trainer
from benchmarks.common import report, rounds

COLUMNS = {"inputs": ((8,), np.dtype("f4")), "targets": ((1016,), np.dtype("f4"))}
BATCH, CAPACITY, PUTS = 64, 64 * 2**20, 20_000
SAMPLES, PIECE = 8_000, 64
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    speed(options.rounds)
    learning(options.seeds)


def speed(number: int) -> None:
    found: dict[str, dict[str, Any]] = {}
    for name in ("draws/s", "puts/s"):
        contenders = {kind: (lambda kind=kind, name=name: rates(kind)[name]) for kind in KINDS}
        found[name] = rounds(contenders | {"bare gather": bare}, number)
    rows: list[dict[str, Any]] = []
    for kind in [*KINDS, "bare gather"]:
        memory = made(kind).nbytes / CAPACITY if kind in KINDS else ""
        rates_of = {name: float(values[kind]) for name, values in found.items()}
        rows.append({"buffer": kind} | rates_of | {"memory / capacity": memory})
    report("Buffers: samples of 4 kB per second", rows, RESULTS / "buffers.json")


def made(kind: str) -> Buffer:
    return KINDS[kind](COLUMNS, CAPACITY, BATCH)


def rates(kind: str) -> dict[str, float]:
    buffer = made(kind)
    ids = np.arange(BATCH, dtype=np.uint32)
    rows = {name: np.ones((BATCH, *shape), dtype) for name, (shape, dtype) in COLUMNS.items()}
    put_s = draw_s = 0.0
    puts = draws = 0
    while puts < PUTS:
        begin = time.thread_time()
        for _ in range(16):
            puts += buffer.put(ids, rows)
        middle = time.thread_time()
        for k in range(16):
            drawn = buffer.get(puts + k)
            draws += 0 if drawn is None else len(drawn[0])
        put_s, draw_s = put_s + middle - begin, draw_s + time.thread_time() - middle
    return {"draws/s": draws / draw_s, "puts/s": puts / put_s}


def bare() -> float:
    array, rng = np.ones((CAPACITY // 4096, 1024), np.float32), np.random.default_rng(0)
    places = [rng.integers(0, len(array), BATCH) for _ in range(PUTS // BATCH)]
    begin = time.thread_time()
    for some in places:
        array[some]
    return PUTS / (time.thread_time() - begin)


def learning(seeds: int) -> None:
    rows = []
    for kind, batches in (("fifo", 1), ("firo", 4), ("reservoir", 4)):
        losses = [learned(kind, batches, seed) for seed in range(seeds)]
        middle = {"loss": statistics.median(losses), "least": min(losses), "largest": max(losses)}
        rows.append({"buffer": kind, "batches per batch": batches} | middle)
        print(rows[-1], flush=True)
    report("Learning from a stream with drift: loss in the end", rows, RESULTS / "buffers_learning.json")


def learned(kind: str, batches: int, seed: int) -> float:
    """Return the loss on samples from all of the range, after the stream has drifted through it once."""
    spec = training(
        model={"kind": "mlp", "hidden": [48, 48], "activation": "tanh"},
        optimizer={"learning_rate": 2e-3},
        batch=BATCH,
        buffer={"kind": kind, "capacity": "64 KiB", "max_reuse": 4 if kind == "firo" else None},
        normalise={"per": "none"},
        validation={"samples": 0},
        seed=seed,
    )
    trainer, rng, at = Trainer(spec, Shapes((3,), (4,))), np.random.default_rng(seed), 0
    stream = drifting(np.linspace(-1, 1, SAMPLES), rng)
    while at < SAMPLES:
        at += trainer.put(stream[at : at + PIECE])
        for _ in range(batches):
            trainer.batch()
    trainer.end()
    while not trainer.finished:
        trainer.batch()
    return trainer.learner.loss(drifting(rng.uniform(-1, 1, 2000), rng).rows(trainer.shapes))


def drifting(parameter: np.ndarray, rng: np.random.Generator) -> Samples:
    """Return samples (parameter, x, y) of four functions of all three, of variance about one."""
    x, y = rng.uniform(-1, 1, (2, len(parameter)))
    inputs = np.stack([parameter, x, y], axis=1)
    waves = [np.sin((k + 1) * parameter + 2 * x) * np.cos(2 * y + k * parameter) for k in range(4)]
    targets = np.stack(waves, axis=1) * 1.8
    return Samples(inputs.astype(np.float32), targets.astype(np.float32), step=np.arange(len(parameter)))


if __name__ == "__main__":
    main()
