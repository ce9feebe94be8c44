# SPDX-License-Identifier: Apache-2.0
"""One network that several processes teach, each with samples of its own."""

import math
from contextlib import suppress

import numpy as np

from analytics.nn.compression import TopK
from analytics.nn.draws import WEIGHTS, Draws
from analytics.nn.groups import Group, Torn
from analytics.nn.learning import Learner
from analytics.nn.needs import torch
from analytics.nn.noise import NoiseScale
from analytics.nn.samples import Rows, Shapes
from analytics.nn.saving import packed, unpacked
from analytics.nn.specs import Training
from insitu.operator import State

Tensor = torch.Tensor
Future = torch.futures.Future[Tensor]
Bucket = torch._C._distributed_c10d.GradBucket


class _NobodyError(Exception):
    """No trainer has samples, so there is no step."""


class ParallelLearner(Learner):
    """A learner whose steps are those of all in a `Group` together (DistributedDataParallel); this is trainer `number`.

    Each step has two collectives: loss and number of samples, then gradients. A gradient is the sum over trainers of
    each one's times its number of samples, divided by the number of all: as if all had been one batch, however uneven.
    One without samples calls `idle` instead of `learn`, and weighs nothing. All must do one of both for each step, also
    after their stream has ended, until they are `finished`; weights then stay the same in all. Where nobody has samples
    there is no step.

    A batch of n in one process and of n/2 in each of two give the same weights but for rounding (1e-5). The learning
    rate is scaled by trainers (`Schedule.reference`), and means and deviations are those of all trainers' samples.

    With ``parallel.compression`` only the largest entries of gradients are sent (`TopK`), with the momentum of the
    optimizer, which has none then. `sent_bytes` counts what this trainer's gradients took.

    With ``parallel.largest_batch`` the `batch` of each grows from ``batch`` up to that, so that all together have as
    many samples as the noise of their gradients is worth (`NoiseScale`); with ``schedule.reference`` the rate follows.

    **Who learns together may change**: `join` a group, and `leave` it. Whoever joins takes over weights, optimizer and
    what is frozen of means and deviations, of the one in it that has made most steps. A step that fails raises
    `groups.Torn`; its batch was not learned here, or is forgotten with the next group. What compression has kept back
    of it is lost; all else that it keeps stays.
    """

    def __init__(self, spec: Training, shapes: Shapes, number: int = 0) -> None:
        compression, self._compress = spec.parallel.compression, None
        if compression is not None:
            self._compress = TopK(compression.top_k, spec.optimizer.momentum, compression.warm_up)
            plain = spec.optimizer.model_copy(update={"momentum": 0.0})
            spec = spec.model_copy(update={"optimizer": plain})
        super().__init__(spec, shapes)
        self.number = number
        self._noise = Draws(spec.seed + (number << 32), WEIGHTS)
        self._group: Group | None = None
        self._parallel: torch.nn.parallel.DistributedDataParallel | None = None
        self._samples, self._drained, self._all_drained = 0, False, False
        self._share = 0.0
        #: The mean loss over all samples of all, of the weights before it, of each step that the last call has made.
        self.losses: list[float] = []
        #: Whether this one is to leave; it is then agreed with the next step, and said in each by `parting`.
        self.leaving = self.parting = False
        self.sent_bytes = 0
        self._noise_scale = NoiseScale() if spec.parallel.largest_batch is not None else None
        self._square = self._joint_square = 0.0

    @property
    def batch(self) -> int:
        largest, noise = self.spec.parallel.largest_batch, self._noise_scale
        if largest is None or noise is None or math.isnan(noise.scale):
            return self.spec.batch
        return int(min(max(self.spec.batch, noise.scale / self.group.size), largest))

    @property
    def group(self) -> Group:
        assert self._group is not None, "joined no group"
        return self._group

    def join(self, group: Group) -> None:
        """Learn with these from now on, all with the weights of the one that has made most steps."""
        self._group, self.leaving, self.parting, self._all_drained = group, False, False, False
        steps = group.gathered(np.array(self.steps), "the meeting")
        first = int(steps.argmax())
        said = group.told(packed(self._shared()) if group.rank == first else b"", first, "the weights")
        if group.rank != first:
            self._adopt(unpacked(said))
        gpus = [self.device.index or 0] if self.device.type == "cuda" else None
        self._parallel = group.watched(
            lambda: torch.nn.parallel.DistributedDataParallel(self.module, device_ids=gpus), "the meeting"
        )
        self._parallel.register_comm_hook(self, _all if self._compress is None else _largest)

    def leave(self) -> None:
        """Learn with nobody until the next `join`."""
        if self._group is not None:
            # Before the group, which its reducer uses; this one is held by it in turn, as the state of its hook.
            self._parallel = None
            self._group.close()
            self._group = None

    @property
    def finished(self) -> bool:
        return self._all_drained

    def rate(self) -> float:
        samples = self.batch * self.group.size
        return self.spec.optimizer.learning_rate * self.spec.schedule.at(self.steps, samples)

    def learn(self, rows: Rows) -> float:
        """Train one batch together with the others; return the mean loss over all samples of all."""
        self._samples, self._drained = len(rows["inputs"]), False
        return self._together(rows)

    def idle(self, drained: bool) -> None:
        """Take part in a step without samples. When all say that they are `drained`, all are `finished`."""
        nothing = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in self.shapes.columns.items()}
        self._samples, self._drained = 0, drained
        with suppress(_NobodyError):
            self._together(nothing)

    def state(self) -> State:
        noise = self._noise_scale
        return super().state() | ({} if noise is None else {"noise": noise.state()})

    def load(self, state: State) -> None:
        super().load(state)
        if self._noise_scale is not None and "noise" in state:
            self._noise_scale.load(state["noise"])

    def _together(self, rows: Rows) -> float:
        self._unite()
        self._square = self._joint_square = 0.0
        try:
            loss = super().learn(rows)
        except RuntimeError:
            # What is raised in the midst of a backward pass may come out of it as another error.
            if self.group.torn is not None:
                raise self.group.torn from None
            raise
        if self._noise_scale is not None and math.isfinite(loss):
            mine = np.array([self._square, self._samples])
            squares, samples = self.group.gathered(mine, f"the noise of step {self.steps}").T
            self._noise_scale.add(squares, samples, self._joint_square)
        return loss

    def _shared(self) -> State:
        """Return what is the same in all: of means and deviations only those that stay, since others are one's own."""
        state = self.state()
        own = [name for name in ("inputs", "outputs") if name in state and not state[name]["united"]]
        return {name: part for name, part in state.items() if name not in own}

    def _adopt(self, state: State) -> None:
        self.load(self.state() | state)

    def _forward(self, x: Tensor) -> Tensor:
        parallel = self._parallel
        if parallel is None or not torch.is_grad_enabled():
            return super()._forward(x)
        if next(self.module.buffers(), None) is None:
            made: Tensor = parallel(x)
            return made
        # Running means and the like are those of the first trainer, which sends them before each step.
        made = self.group.watched(lambda: parallel(x), f"the buffers of step {self.steps}")
        return made

    def _agreed(self, loss: float) -> float:
        mine = np.array([loss * self._samples if self._samples else 0.0, self._samples, self._drained, self.leaving])
        of_all = self.group.gathered(mine, f"the loss of step {self.steps}")
        total, samples, drained, leaving = of_all.sum(axis=0).tolist()
        self._all_drained, self.parting = drained == self.group.size, leaving > 0
        if not samples:
            raise _NobodyError
        self._share, loss_of_all = self._samples / samples, total / samples
        if not math.isfinite(total) and math.isfinite(mine[0]):
            # The one whose batch it is says so, with its samples, and ends.
            whose = self.group.members[int(np.flatnonzero(~np.isfinite(of_all[:, 0]))[0])]
            what = f"the loss of step {self.steps}"
            raise Torn(f"trainer {self.number} of {self.group.size}: {what} is {total} by trainer {whose}", what)
        self.losses = [loss_of_all]
        return float(loss_of_all)

    def _unite(self) -> None:
        """Let means and deviations be those of the samples of all."""
        for normaliser in {id(each): each for each in (self.inputs, self.outputs) if each is not None}.values():
            if not normaliser.united:
                normaliser.unite(self.group.gathered(normaliser.packed(), f"the means of step {self.steps}"))


def _all(learner: ParallelLearner, bucket: Bucket) -> Future:
    """Sum all entries, each trainer's by its share of the samples."""
    if learner._noise_scale is not None and learner._share:
        learner._square += float(bucket.buffer().square().sum())
    # What has no samples may have no finite gradient either.
    buffer = bucket.buffer().mul_(learner._share) if learner._share else bucket.buffer().zero_()
    learner.sent_bytes += buffer.nbytes
    learner.group.watched(lambda: torch.distributed.all_reduce(buffer), f"the gradients of step {learner.steps}")
    if learner._noise_scale is not None:
        learner._joint_square += float(buffer.square().sum())
    return _done(buffer)


def _largest(learner: ParallelLearner, bucket: Bucket) -> Future:
    """Sum the entries that each trainer has chosen."""
    compress, offset = learner._compress, 0
    assert compress is not None
    chosen = []
    for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
        weighted = gradient * learner._share if learner._share else torch.zeros_like(gradient)
        indices, values = compress.select(id(parameter), weighted, learner.steps)
        chosen.append((indices + offset, values))
        offset += gradient.numel()
    # gloo gathers from the host's memory alone.
    indices = torch.cat([each for each, _ in chosen]).to(torch.int32).cpu()
    values = torch.cat([each for _, each in chosen]).cpu()
    learner.sent_bytes += indices.nbytes + values.nbytes
    places = [torch.empty_like(indices) for _ in range(learner.group.size)]
    parts = [torch.empty_like(values) for _ in range(learner.group.size)]
    what = f"the gradients of step {learner.steps}"
    learner.group.watched(lambda: torch.distributed.all_gather(places, indices), what)
    learner.group.watched(lambda: torch.distributed.all_gather(parts, values), what)
    buffer = bucket.buffer().zero_()
    for place, part in zip(places, parts, strict=True):
        buffer.index_add_(0, place.to(buffer.device), part.to(buffer.device))
    return _done(buffer)


def _done(buffer: Tensor) -> Future:
    future: Future = torch.futures.Future()
    future.set_result(buffer)
    return future
