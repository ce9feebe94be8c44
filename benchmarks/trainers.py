# SPDX-License-Identifier: Apache-2.0
"""What several trainers of one network are worth: samples learned per second, and bytes sent for the same loss.

    python -m benchmarks.trainers [--rounds 3] [--quick]

Each trainer is a process with one thread on this machine, with samples of its own in memory and batches of 64. First
the network of `benchmarks.training` (4-256-256-1024, Adam), which every sample passes once. Then one of 8-64-64-16 with
SGD, which learns another network of the same kind: two trainers learn so many batches with whole gradients, and with
compressed ones until they are at the same held-out loss. Last, one of the two takes four times as long for each batch:
what they learn in the same time when they wait for each other, and when they do not.
"""

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from analytics.nn.groups import Group
from analytics.nn.models import build
from analytics.nn.needs import torch
from analytics.nn.parallel import ParallelLearner
from analytics.nn.samples import Rows, Samples, Shapes
from analytics.nn.specs import Training, training
from analytics.nn.stale import StaleLearner
from analytics.nn.training import Trainer
from benchmarks.common import RESULTS, arguments, report, rounds
from benchmarks.training import BATCH, SHAPES, SPEC

SMALL = Shapes((8,), (16,))
#: Batches between two looks at the held-out loss.
LOOK = 20
#: Times as many batches as with whole gradients, after which compressed ones are given up.
PATIENCE = 5

#: What a batch takes beside its computation where one of two trainers is hindered, and how many times as long in that.
BATCH_S, SLOW = 0.01, 4

Result = dict[str, float]


def main() -> None:
    options = arguments(__doc__)
    samples = 4096 if options.quick else 32768
    contenders = {str(n): partial(speed, samples, n) for n in (1, 2)}
    found = rounds(contenders, options.rounds)
    rows = [{"trainers": int(n), "samples/s": rate, "of one": rate / found["1"]} for n, rate in found.items()]
    report("Samples learned per second by several trainers", rows, RESULTS / "trainers.json")

    batches = 200 if options.quick else 1000
    whole = together(2, partial(learn, None, batches, 0.0))[0]
    sent = [{"top_k": "all", **whole, "of all": 1.0}]
    for top_k in (0.1, 0.01):
        compression = {"top_k": top_k, "warm_up": batches // 10}
        one = together(2, partial(learn, compression, PATIENCE * batches, whole["loss"]))[0]
        sent.append({"top_k": str(top_k), **one, "of all": one["MB"] / whole["MB"]})
    report("Bytes of gradients that one of two trainers sends until it is there", sent, RESULTS / "compression.json")

    seconds = 3.0 if options.quick else 10.0
    bounds = {"synchronous": None, **{f"async, staleness {k}": k for k in (1, 4, 16)}}
    apart = []
    for name, bound in bounds.items():
        fast, slow = together(2, partial(hindered, bound, seconds))
        of_slow = {"of the slow one": slow["samples/s"], "samples/s": fast["samples/s"] + slow["samples/s"]}
        apart.append({"trainers": name, **fast, **of_slow})
    report(f"Two trainers in {seconds:g} s, of which one takes {SLOW} times as long", apart, RESULTS / "async.json")


def speed(samples: int, trainers: int) -> float:
    """Return samples per second of all trainers together, of which each has a part of the samples."""
    found = together(trainers, partial(pass_once, samples // trainers))
    return samples / max(each["s"] for each in found)


def pass_once(samples: int, group: Group) -> Result:
    rng = np.random.default_rng(group.number)
    x = rng.normal(size=(samples, 4)).astype(np.float32)
    y = rng.normal(size=(samples, 1024)).astype(np.float32)
    trainer = Trainer(SPEC, SHAPES, joined(SPEC, SHAPES, group))
    at, begin = 0, time.perf_counter()
    while not trainer.finished:
        if at < samples:
            at += trainer.put(Samples(x[at : at + BATCH], y[at : at + BATCH], step=np.arange(at, at + BATCH)))
        else:
            trainer.end()
        trainer.batch()
    return {"s": time.perf_counter() - begin}


def learn(compression: dict[str, Any] | None, batches: int, loss: float, group: Group) -> Result:
    """Learn so many batches, or until the held-out loss is as low; say when that was, and what was sent."""
    spec = training(
        model={"kind": "mlp", "hidden": [64, 64]},
        optimizer={"kind": "sgd", "learning_rate": 0.02, "momentum": 0.9},
        batch=BATCH,
        parallel={"trainers": group.size, "compression": compression},
    )
    learner = joined(spec, SMALL, group)
    mine, held_out = rows(group.number, 4096), rows(99, 1024)
    learner.observe(mine)
    now = float("nan")
    for k in range(batches):
        first = k * BATCH % 4096
        learner.learn({name: values[first : first + BATCH] for name, values in mine.items()})
        if (k + 1) % LOOK == 0 and (now := learner.loss(held_out)) <= loss:
            break
    return {"batches": learner.steps, "loss": now, "MB": learner.sent_bytes / 1e6}


def hindered(bound: int | None, seconds: float, group: Group) -> Result:
    """Learn for so long, of which trainer 1 waits for most; say how many samples that were, and what was learned."""
    parallel: dict[str, Any] = {"trainers": group.size}
    if bound is not None:
        parallel |= {"async": True, "staleness": bound}
    spec = training(
        model={"kind": "mlp", "hidden": [64, 64]}, optimizer={"learning_rate": 0.002}, batch=BATCH, parallel=parallel
    )
    learner = joined(spec, SMALL, group)
    mine, held_out = rows(group.number, 4096), rows(99, 1024)
    learner.observe(mine)
    busy, batches, begin = threading.Event(), 0, time.perf_counter()
    while not learner.parting:
        learner.leaving = time.perf_counter() - begin > seconds
        busy.wait(BATCH_S * (SLOW if group.number else 1))
        first = batches * BATCH % 4096
        learner.learn({name: values[first : first + BATCH] for name, values in mine.items()})
        batches += 1
    passed_s = time.perf_counter() - begin
    found = {"samples/s": batches * BATCH / passed_s, "updates": learner.steps, "loss": learner.loss(held_out)}
    learner.leave()
    return found


def rows(seed: int, number: int) -> Rows:
    """Return samples of a network that nobody knows."""
    x = np.random.default_rng(seed).normal(size=(number, *SMALL.inputs)).astype(np.float32)
    teacher = build(training(model={"kind": "mlp", "hidden": [64]}).model, SMALL.inputs, SMALL.targets or (), 7)
    with torch.no_grad():
        return {"inputs": x, "targets": teacher(torch.from_numpy(x)).numpy()}


def joined(spec: Training, shapes: Shapes, group: Group) -> ParallelLearner:
    learner = (StaleLearner if spec.parallel.asynchronous else ParallelLearner)(spec, shapes, group.number)
    learner.join(group)
    return learner


def together(trainers: int, work: Callable[[Group], Result]) -> list[Result]:
    """Let so many processes do the work in one group; return what came of it in each."""
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(trainers) as pool:
        members = range(trainers)
        return pool.starmap(_one, [(Path(folder) / "meeting", k, tuple(members), work) for k in members], chunksize=1)


def _one(meeting: Path, number: int, members: tuple[int, ...], work: Callable[[Group], Result]) -> Result:
    torch.set_num_threads(1)
    with Group(meeting, number, members, timeout_s=60.0) as group:
        return work(group)


if __name__ == "__main__":
    main()
