# SPDX-License-Identifier: Apache-2.0
"""Samples learned per second, by the same network from memory, through a trainer's buffer, and from files.

    python -m benchmarks.training [--rounds 3] [--samples 16384]

The network is 4-256-256-1024, fully connected, in batches of 64, with Adam, on one thread; a sample is 4 kB. "memory"
is the loop of a textbook over one shuffled array; "trainer" puts samples by 32 and trains one batch for each two puts,
with ledger, normalisation and held-out set, as on line but in one process; "npy batches" reads files of 64 samples, and
"npy samples" a file for each. Files were written just before, so they come from the page cache: a disk is slower.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from analytics.nn.models import build
from analytics.nn.needs import torch
from analytics.nn.samples import Samples, Shapes
from analytics.nn.specs import training
from analytics.nn.training import Trainer
from benchmarks.common import report, rounds
from insitu.model import Array

SHAPES, BATCH = Shapes((4,), (1024,)), 64
SPEC = training(model={"kind": "mlp", "hidden": [256, 256]}, batch=BATCH, buffer={"kind": "firo", "capacity": "32 MiB"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=16384)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(options.samples, 4)).astype(np.float32)
    y = rng.normal(size=(options.samples, 1024)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        whole = np.concatenate([x, y], axis=1)
        for k in range(0, len(whole), BATCH):
            np.save(Path(folder) / f"batch{k}.npy", whole[k : k + BATCH])
            for n in range(k, k + BATCH):
                np.save(Path(folder) / f"sample{n}.npy", whole[n])
        contenders = {
            "memory": partial(looped, lambda: from_memory(x, y)),
            "trainer": partial(trained, x, y),
            "npy batches": partial(looped, lambda: from_batches(Path(folder), len(x))),
            "npy samples": partial(looped, lambda: from_samples(Path(folder), len(x))),
        }
        found = rounds(contenders, options.rounds)
    rows = [{"from": name, "samples/s": rate, "of memory": rate / found["memory"]} for name, rate in found.items()]
    report("Samples learned per second", rows, Path(__file__).parent / "results" / "training.json")


def looped(batches: Callable[[], Iterator[tuple[Array, Array]]]) -> float:
    """Return samples per second of the plain loop over batches of tensors."""
    module = build(SPEC.model, SHAPES.inputs, SHAPES.targets or ())
    adam = torch.optim.Adam(module.parameters(), lr=1e-3)
    samples, begin = 0, time.perf_counter()
    for inputs, targets in batches():
        adam.zero_grad()
        loss = torch.nn.functional.mse_loss(module(torch.from_numpy(inputs)), torch.from_numpy(targets))
        loss.backward()
        adam.step()
        float(loss.detach())
        samples += len(inputs)
    return samples / (time.perf_counter() - begin)


def from_memory(x: Array, y: Array) -> Iterator[tuple[Array, Array]]:
    order = np.random.default_rng(1).permutation(len(x))
    for k in range(0, len(x), BATCH):
        yield x[order[k : k + BATCH]], y[order[k : k + BATCH]]


def from_batches(folder: Path, samples: int) -> Iterator[tuple[Array, Array]]:
    for k in np.random.default_rng(1).permutation(samples // BATCH) * BATCH:
        rows = np.load(folder / f"batch{k}.npy")
        yield rows[:, :4], rows[:, 4:]


def from_samples(folder: Path, samples: int) -> Iterator[tuple[Array, Array]]:
    order = np.random.default_rng(1).permutation(samples)
    for k in range(0, samples, BATCH):
        rows = np.stack([np.load(folder / f"sample{n}.npy") for n in order[k : k + BATCH]])
        yield rows[:, :4], rows[:, 4:]


def trained(x: Array, y: Array) -> float:
    """Return samples per second of a trainer that is fed while it learns, each sample once."""
    trainer, at = Trainer(SPEC, SHAPES), 0
    samples, begin = 0, time.perf_counter()
    while not trainer.finished:
        for _ in range(2):
            if at < len(x):
                at += trainer.put(Samples(x[at : at + 32], y[at : at + 32], step=np.arange(at, min(at + 32, len(x)))))
        if at == len(x):
            trainer.end()
        batch = trainer.batch()
        samples += 0 if batch is None else len(batch.ids)
    return samples / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
