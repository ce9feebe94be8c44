# SPDX-License-Identifier: Apache-2.0
"""One network that several processes teach, each with samples of its own."""

from contextlib import suppress

import numpy as np

from analytics.nn.compression import TopK
from analytics.nn.draws import WEIGHTS, Draws
from analytics.nn.groups import Group
from analytics.nn.learning import Learner
from analytics.nn.needs import torch
from analytics.nn.samples import Rows, Shapes
from analytics.nn.specs import Training
from insitu.errors import OperatorError

Tensor = torch.Tensor
Future = torch.futures.Future[Tensor]
Bucket = torch._C._distributed_c10d.GradBucket


class _NobodyError(Exception):
    """No rank has samples, so there is no step."""


class ParallelLearner(Learner):
    """A learner whose steps are those of all ranks of a `Group` together (DistributedDataParallel).

    Each step has two collectives: loss and number of samples, then gradients. A gradient is the sum over ranks of each
    rank's times its number of samples, divided by the number of all: as if all had been one batch, however uneven. A
    rank without samples calls `idle` instead of `learn`, and weighs nothing. All ranks must do one of both for each
    step, also after their stream has ended, until they are `finished`; weights then stay the same in all. Where no rank
    has samples there is no step.

    A batch of n in one process and of n/2 in each of two give the same weights but for rounding (1e-5). The learning
    rate is scaled by ranks (`Schedule.reference`), and means and deviations are those of all ranks' samples.

    With `compress`, only the largest entries of gradients are sent (`TopK`), which needs ``optimizer: sgd``: its
    momentum is applied before sending. `sent_bytes` counts what this rank's gradients took.
    """

    def __init__(self, spec: Training, shapes: Shapes, group: Group, compress: TopK | None = None) -> None:
        if compress is not None:
            if spec.optimizer.kind != "sgd":
                raise OperatorError(f"compressed gradients need optimizer: sgd, got {spec.optimizer.kind}")
            plain = spec.optimizer.model_copy(update={"momentum": 0.0})
            spec = spec.model_copy(update={"optimizer": plain})
        super().__init__(spec, shapes)
        self.rank, self.group, self._compress = group.rank, group, compress
        self._noise = Draws(spec.seed + (group.rank << 32), WEIGHTS)
        self._samples, self._drained, self._all_drained = 0, False, False
        self._share = 0.0
        self.sent_bytes = 0
        gpus = [self.device.index or 0] if self.device.type == "cuda" else None
        self._parallel = torch.nn.parallel.DistributedDataParallel(self.module, device_ids=gpus)
        self._parallel.register_comm_hook(self, _all if compress is None else _largest)

    @property
    def finished(self) -> bool:
        return self._all_drained

    def rate(self) -> float:
        samples = self.spec.batch * self.group.size
        return self.spec.optimizer.learning_rate * self.spec.schedule.at(self.steps, samples)

    def learn(self, rows: Rows) -> float:
        """Train one batch together with the other ranks; return the mean loss over all samples of all."""
        self._samples, self._drained = len(rows["inputs"]), False
        self._unite()
        return super().learn(rows)

    def idle(self, drained: bool) -> None:
        """Take part in a step without samples. When all ranks say that they are `drained`, all are `finished`."""
        nothing = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in self.shapes.columns.items()}
        self._samples, self._drained = 0, drained
        self._unite()
        with suppress(_NobodyError):
            super().learn(nothing)

    def _forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super()._forward(x)
        made: Tensor = self._parallel(x)
        return made

    def _agreed(self, loss: float) -> float:
        mine = np.array([loss * self._samples if self._samples else 0.0, self._samples, self._drained])
        total, samples, drained = self.group.sum(mine, f"the loss of step {self.steps}").tolist()
        self._all_drained = drained == self.group.size
        if not samples:
            raise _NobodyError
        self._share = self._samples / samples
        return float(total / samples)

    def _unite(self) -> None:
        """Let means and deviations be those of the samples of all ranks."""
        for normaliser in {id(each): each for each in (self.inputs, self.outputs) if each is not None}.values():
            if not normaliser.united:
                normaliser.unite(self.group.gathered(normaliser.packed(), f"the means of step {self.steps}"))


def _all(learner: ParallelLearner, bucket: Bucket) -> Future:
    """Sum all entries, each rank's by its share of the samples."""
    buffer = bucket.buffer().mul_(learner._share)
    learner.sent_bytes += buffer.nbytes
    learner.group.watched(lambda: torch.distributed.all_reduce(buffer), f"the gradients of step {learner.steps}")
    return _done(buffer)


def _largest(learner: ParallelLearner, bucket: Bucket) -> Future:
    """Sum the entries that each rank has chosen."""
    compress, offset = learner._compress, 0
    assert compress is not None
    chosen = []
    for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
        indices, values = compress.select(id(parameter), gradient * learner._share, learner.steps)
        chosen.append((indices + offset, values))
        offset += gradient.numel()
    indices = torch.cat([each for each, _ in chosen]).to(torch.int32)
    values = torch.cat([each for _, each in chosen])
    learner.sent_bytes += indices.nbytes + values.nbytes
    places = [torch.empty_like(indices) for _ in range(learner.group.size)]
    parts = [torch.empty_like(values) for _ in range(learner.group.size)]
    what = f"the gradients of step {learner.steps}"
    learner.group.watched(lambda: torch.distributed.all_gather(places, indices), what)
    learner.group.watched(lambda: torch.distributed.all_gather(parts, values), what)
    buffer = bucket.buffer().zero_()
    for place, part in zip(places, parts, strict=True):
        buffer.index_add_(0, place, part)
    return _done(buffer)


def _done(buffer: Tensor) -> Future:
    future: Future = torch.futures.Future()
    future.set_result(buffer)
    return future
