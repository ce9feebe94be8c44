# SPDX-License-Identifier: Apache-2.0
"""Training from a stream: samples are put as they come, batches are drawn as they may."""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from analytics.nn.buffers import KINDS
from analytics.nn.heldout import Heldout
from analytics.nn.learning import Learner, Network
from analytics.nn.ledger import Ledger
from analytics.nn.limiter import Limiter
from analytics.nn.samples import Ids, Rows, Samples, Shapes
from analytics.nn.specs import Training
from insitu.errors import OperatorError
from insitu.model import Array
from insitu.operator import State


class _Part(Protocol):
    """What a checkpoint is made of."""

    def state(self) -> State: ...

    def load(self, state: State) -> None: ...


class Diverged(OperatorError):
    """The loss of a batch is not finite. The weights are the last ones known to be good; training cannot go on.

    `batch` is its number and `ids` its samples, by the ledger.
    """

    def __init__(self, message: str, batch: int, ids: Ids) -> None:
        super().__init__(message)
        self.batch, self.ids = batch, ids


@dataclass(frozen=True, slots=True)
class Trained:
    """One batch: its number from 0, its mean loss before the step, and the learning rate of the step."""

    batch: int
    loss: float
    learning_rate: float
    ids: Ids


class Trainer:
    """A network, and the samples that it learns from.

    One thread at a time; nothing here waits. `put` takes as many samples as there is `room` for, `batch` trains one
    batch if it is `ready`, and whoever calls them waits for the other. After `end` the buffer drains, and then it is
    `finished`. What is learned is a function of the configuration and of the order of calls: the `ledger` holds it, and
    `replaying.Replay` does it again. On one thread (``torch.set_num_threads(1)``) to the last bit.

    With a `parallel.ParallelLearner` as `learner` several trainers teach one network, each from its own buffer; each
    must then call `batch`, ready or not, until it is `finished`, and waits there for the others.

    Raises `OperatorError` where the shapes do not fit the network or the capacity, or the device is not there.

    >>> from analytics.nn.specs import training
    >>> rng = np.random.default_rng(0)
    >>> x = rng.uniform(-1, 1, (512, 2)).astype(np.float32)
    >>> spec = training(model={"kind": "mlp", "hidden": [16]}, batch=16, optimizer={"learning_rate": 0.01})
    >>> trainer = Trainer(spec, Shapes(inputs=(2,), targets=(1,)))
    >>> trainer.put(Samples(x, x[:, :1] * x[:, 1:], step=np.arange(512)))
    512
    >>> losses = [trainer.batch().loss for _ in range(300)]
    >>> losses[0] > 0.5, losses[-1] < 0.1
    (True, True)
    """

    def __init__(self, spec: Training, shapes: Shapes, learner: Learner | None = None) -> None:
        shapes = replace(shapes, classes=spec.loss.kind == "cross_entropy")
        buffer, validation, columns = spec.buffer, spec.validation, shapes.columns
        self.spec, self.shapes = spec, shapes
        self.learner = Learner(spec, shapes) if learner is None else learner
        # Those who learn together draw differently: seeds are below 2^32.
        seed = spec.seed + (self.learner.number << 32)
        self.buffer = KINDS[buffer.kind](
            columns, buffer.capacity, spec.batch, buffer.threshold, buffer.max_reuse, seed, buffer.spill
        )
        self.heldout = Heldout(columns, validation.samples, validation.share, spec.seed)
        self.ledger = Ledger()
        self.limiter = Limiter(buffer.ratio, spec.slack) if buffer.ratio is not None else None
        self._drawn: tuple[Ids, Rows] | None = None

    @property
    def room(self) -> int:
        """How many samples `put` would take now."""
        if self.limiter is None or not self.limiter.batches or not self.buffer.ready:
            return self.buffer.room
        return min(self.buffer.room, self.limiter.room)

    @property
    def ready(self) -> bool:
        """Whether `batch` would train now."""
        if self.limiter is None or self.buffer.over or not self.buffer.room:
            return self.buffer.ready
        return self.buffer.ready and self.limiter.ready

    @property
    def finished(self) -> bool:
        """Whether all is learned: the stream has ended and the buffer is empty, and those of all who learn together."""
        return self.buffer.drained and self.learner.finished

    @property
    def batches(self) -> int:
        """How many batches were trained; the number of the next one."""
        return self.ledger.batches

    @property
    def nbytes(self) -> int:
        """Bytes of samples and records, without the network."""
        return self.buffer.nbytes + self.heldout.nbytes + self.ledger.nbytes

    def put(self, samples: Samples) -> int:
        """Take the first samples, as many as there is room for, and return how many; put the rest again later.

        `OperatorError` for a shape that does not fit, a value that is not finite, or a class that there is none of.
        """
        rows, origins = samples.rows(self.shapes), samples.origins()
        for name, values in rows.items():
            self._require_sound(name, values, origins)
        taken = min(len(samples), self.room)
        if not taken:
            return 0
        rows, origins = {name: values[:taken] for name, values in rows.items()}, origins[:taken]
        ids = self.ledger.arrive(origins)
        self.learner.observe(rows)
        if self.limiter is not None:
            self.limiter.take(taken)
        self.buffer.put(*self.heldout.exchange(origins, ids, rows))
        return taken

    def end(self) -> None:
        """Say that no more samples will come."""
        if not self.buffer.over:
            self.buffer.over = True
            self.ledger.end()

    def batch(self) -> Trained | None:
        """Train one batch; ``None`` where it is not `ready`. Raises `Diverged`.

        A batch that could not be learned, since others who learn together were gone (`groups.Torn`), is the next one.
        """
        self._drawn = self._drawn or self._draw()
        if self._drawn is None:
            self.learner.idle(self.buffer.drained)
            return None
        number, (ids, rows) = self.batches - 1, self._drawn
        rate = self.learner.rate()
        loss = self.learner.learn(rows)
        self._drawn = None
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss of batch {number} is {loss}; the weights are restored to those before batch "
                f"{self.learner.good}. Its samples: {self.ledger.named(ids)}. Lower the learning rate, or look at them",
                number,
                ids,
            )
        return Trained(number, loss, rate, ids)

    def validate(self) -> float:
        """Return the mean loss of the samples that are held out; NaN where there are none."""
        return self.learner.loss(self.heldout.rows())

    def confusion(self) -> Array:
        """Return which classes of the held-out samples are taken for which, (classes, classes) int64."""
        return self.learner.confusion(self.heldout.rows())

    def network(self) -> Network:
        """Return a copy of the network as it is now, from raw inputs to raw outputs."""
        return self.learner.network()

    def state(self) -> State:
        """Return all that going on needs: a copy of weights, optimizer, normalisation, buffer, held-out set, ledger.

        Schedule and generators have no state: they are functions of the batch's number.
        """
        return {name: part.state() for name, part in self._parts().items()}

    def load(self, state: State) -> None:
        """Go on where `state` was taken, by a trainer of the same spec and shapes, as if nothing had been between."""
        for name, part in self._parts().items():
            part.load(state[name])

    def _draw(self) -> tuple[Ids, Rows] | None:
        """Return the samples of the next batch, which is then counted as trained."""
        self.buffer.batch = self.learner.batch
        drawn = self.buffer.get(self.batches) if self.ready else None
        if drawn is not None:
            self.ledger.train(drawn[0])
            if self.limiter is not None:
                self.limiter.train()
        return drawn

    def _parts(self) -> dict[str, _Part]:
        parts: dict[str, _Part] = {
            "learner": self.learner,
            "buffer": self.buffer,
            "heldout": self.heldout,
            "ledger": self.ledger,
        }
        return parts | ({} if self.limiter is None else {"limiter": self.limiter})

    def _require_sound(self, name: str, values: Array, origins: Array) -> None:
        classes = self.spec.loss.classes
        if name == "targets" and classes is not None:
            sound, what = (values >= 0) & (values < classes), f"a class from 0 to {classes - 1}"
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                if np.isfinite(values.sum()):  # half the time of a look at each; a sum may be infinite by itself
                    return
            sound, what = np.isfinite(values), "finite"
        if not sound.all():
            member, step, place = origins[int(sound.reshape(len(values), -1).all(axis=1).argmin())]
            raise OperatorError(f"{name} of member {member} step {step} place {place} are not {what}")
