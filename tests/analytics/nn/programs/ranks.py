# SPDX-License-Identifier: Apache-2.0
"""One of two trainers that learn together: python ranks.py FOLDER NUMBER. What it finds goes to FOLDER/NUMBER.npz."""

import faulthandler
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analytics.nn.groups import Group, Torn, TrainerMissing
from analytics.nn.parallel import ParallelLearner
from analytics.nn.samples import Samples, Shapes
from analytics.nn.specs import Training, training
from analytics.nn.stale import StaleLearner
from analytics.nn.training import Trainer
from insitu.model import Array

SHAPES = Shapes((3,), (2,))
KEYS: dict[str, Any] = {"model": {"kind": "mlp", "hidden": [16]}, "batch": 8, "optimizer": {"learning_rate": 0.01}}

#: Steps are synchronous until means are those of so many samples.
ASYNC: dict[str, Any] = {"normalise": {"freeze": 160}}


def rows(number: int = 160) -> dict[str, Array]:
    x = np.random.default_rng(0).normal(2.0, 3.0, (number, 3)).astype(np.float32)
    return {"inputs": x, "targets": np.stack([x[:, 0] * x[:, 1], np.sin(x[:, 2])], axis=1)}


def part(of: dict[str, Array], which: slice) -> dict[str, Array]:
    return {name: values[which] for name, values in of.items()}


def weights(learner: ParallelLearner) -> Array:
    return np.concatenate([each.detach().numpy().ravel() for each in learner.module.parameters()])


def joined(group: Group, spec: Training) -> ParallelLearner:
    learner = (StaleLearner if spec.parallel.asynchronous else ParallelLearner)(spec, SHAPES, group.number)
    learner.join(group)
    return learner


def equal_batches(group: Group, name: str = "equal", **keys: Any) -> dict[str, Array]:
    """Each rank has half of every batch of 16."""
    learner = joined(group, training(**KEYS | keys))
    learner.observe(part(rows(), slice(80 * group.number, 80 * group.number + 80)))
    losses = []
    for k in range(10):
        first = 16 * k + 8 * group.number
        losses.append(learner.learn(part(rows(), slice(first, first + 8))))
    found = {f"{name}_losses": np.array(losses), f"{name}_weights": weights(learner)}
    if isinstance(learner, StaleLearner):
        part_from(learner)
    return found


def apart(group: Group) -> dict[str, Array]:
    """Rank 1 is slow, and rank 0 does not wait for it before its gradient would be stale by more than three."""
    spec = training(**KEYS | ASYNC, parallel={"trainers": 2, "async": True, "staleness": 3})
    learner = joined(group, spec)
    learner.observe(part(rows(), slice(80 * group.number, 80 * group.number + 80)))
    busy, stale, mine = threading.Event(), [], part(rows(), slice(group.number, None, 2))
    while not learner.parting:
        learner.leaving = group.number == 0 and len(stale) == 80
        busy.wait(0.02 * group.number)
        before, first = learner.steps, 8 * len(stale) % 80
        learner.learn(part(mine, slice(first, first + 8)))
        stale.append(learner.steps - before - 1)
    part_from(learner)
    return {"apart_stale": np.array(stale), "apart_weights": weights(learner), "apart_oldest": np.array(learner.oldest)}


def part_from(learner: ParallelLearner) -> None:
    """Leave when all do."""
    learner.leaving = True
    while not learner.parting:
        learner.idle(drained=False)
    learner.leave()


def uneven(group: Group) -> dict[str, Array]:
    """Rank 0 has 30 samples and rank 1 has 130: it goes on alone, and both end together."""
    spec = training(**KEYS, buffer={"kind": "fifo", "capacity": "64 KiB"}, validation={"samples": 0})
    trainer = Trainer(spec, SHAPES, joined(group, spec))
    mine = part(rows(), slice(0, 30) if group.number == 0 else slice(30, 160))
    trainer.put(Samples(mine["inputs"], mine["targets"], group.number, np.arange(len(mine["inputs"]))))
    trainer.end()
    while not trainer.finished:
        trainer.batch()
    drawn = trainer.ledger.counts()
    assert isinstance(trainer.learner, ParallelLearner)
    return {
        "uneven_weights": weights(trainer.learner),
        "uneven_drawn": drawn,
        "uneven_steps": np.array(trainer.learner.steps),
    }


def compressed(group: Group) -> dict[str, Array]:
    sgd = {"optimizer": {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9}}
    found: dict[str, Array] = {}
    for name, compression in (("whole", None), ("compressed", {"top_k": 0.05, "warm_up": 10})):
        learner = joined(group, training(**KEYS | sgd, parallel={"trainers": 2, "compression": compression}))
        learner.observe(part(rows(), slice(80 * group.number, 80 * group.number + 80)))
        mine = part(rows(), slice(group.number, None, 2))
        losses = [learner.learn(part(mine, slice(8 * k % 80, 8 * k % 80 + 8))) for k in range(80)]
        found[f"{name}_loss"] = np.array([losses[0], np.mean(losses[-10:])])
        found[f"{name}_bytes"] = np.array(learner.sent_bytes)
        found[f"{name}_weights"] = weights(learner)
    return found


def grown(group: Group) -> dict[str, Array]:
    """Targets are noise, of which a larger batch has less."""
    learner = joined(group, training(**KEYS, parallel={"trainers": 2, "largest_batch": 64}))
    batches, rng = [learner.batch], np.random.default_rng(group.number)
    for _ in range(60):
        some = {"inputs": rng.normal(size=(8, 3)), "targets": rng.normal(size=(8, 2))}
        learner.learn({name: values.astype(np.float32) for name, values in some.items()})
        batches.append(learner.batch)
    return {"grown_batches": np.array(batches)}


def missing(group: Group, folder: Path) -> dict[str, Array]:
    """Trainer 1 dies in the midst of a step; trainer 0 must say so, and goes on alone with the same batch."""
    learner = joined(group, training(**KEYS))
    learner.observe(part(rows(), slice(0, 40)))
    some = part(rows(), slice(0, 8))
    learner.learn(some)
    if group.number == 1:
        torch.distributed.all_reduce = lambda *_: os._exit(9)  # the gradients
    try:
        learner.learn(some)
    except Torn as torn:
        before = weights(learner)
        try:
            group.require(torn.what)
        except TrainerMissing as error:
            learner.leave()
            with Group(folder / "meeting", 0, (0,), name="alone") as alone:
                learner.join(alone)
                learner.learn(some)
            moved = np.abs(weights(learner) - before).max()
            return {"message": np.array(str(error)), "missing": np.array(error.missing), "moved": moved}
    return {"message": np.array("nothing was missed"), "missing": np.array([])}


def main(folder: Path, number: int) -> None:
    faulthandler.dump_traceback_later(70, exit=True)  # a hang is seen by whoever reads this one's errors
    torch.set_num_threads(1)
    with Group(folder / "meeting", number, (0, 1), timeout_s=60, name="work") as group:
        found = equal_batches(group) | uneven(group) | compressed(group) | grown(group)
    with Group(folder / "meeting", number, (0, 1), timeout_s=60, name="bound") as group:
        bound = {"trainers": 2, "async": True, "staleness": 0}
        found |= equal_batches(group, "bound", **ASYNC, parallel=bound)
    with Group(folder / "meeting", number, (0, 1), timeout_s=60, name="apart") as group:
        found |= apart(group)
    np.savez(folder / f"{number}.npz", **found)
    with Group(folder / "meeting", number, (0, 1), timeout_s=4, name="death") as group:
        np.savez(folder / "missing.npz", **missing(group, folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
