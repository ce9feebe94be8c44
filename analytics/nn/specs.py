# SPDX-License-Identifier: Apache-2.0
"""How a network is trained, as a configuration says it. Imports no PyTorch, so that `insitu check` is quick."""

import math
import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from analytics.nn.architectures import Architecture, Foreign
from insitu.text import read_size

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=1)]


def _size(value: object) -> int:
    if (size := read_size(value)) is None:
        raise ValueError('expected a size such as "256 MiB" or "2 GB", or a positive number of bytes')
    return size


Size = Annotated[int, BeforeValidator(_size), WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]})]


def by_kind(value: object) -> object:
    """Let YAML say ``optimizer: sgd`` for ``optimizer: {kind: sgd}``."""
    return {"kind": value} if isinstance(value, str) else value


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Loss(Spec):
    """What is made small; a mean over the numbers of all samples of a batch."""

    kind: Literal["mse", "mae", "huber", "cross_entropy", "relative_l2"] = Field(
        default="mse",
        description="relative_l2: the mean over samples of |prediction - target| / |target|, in raw units",
    )
    delta: Positive = Field(default=1.0, description="huber: where the square ends and the line begins")
    classes: Annotated[int, Field(ge=2)] | None = Field(default=None, description="cross_entropy: how many there are")

    @model_validator(mode="after")
    def _classes_are_counted(self) -> "Loss":
        if (self.kind == "cross_entropy") != (self.classes is not None):
            raise ValueError(
                f"kind: {self.kind} and classes: {self.classes}; cross_entropy needs classes, no other does"
            )
        return self


class Optimizer(Spec):
    kind: Literal["sgd", "adam", "adamw", "lars"] = Field(default="adam", description="the rule of a step")
    learning_rate: Positive = Field(default=1e-3, description="before the schedule")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.9, description="of sgd and lars")
    weight_decay: NotNegative = Field(default=0.0, description="lars leaves out biases and norms")
    trust: Positive = Field(default=1e-3, description="lars: a layer's step relative to its weights")


class Schedule(Spec):
    """The learning rate is a function of the batch's number alone."""

    kind: Literal["constant", "cosine", "step"] = Field(default="constant", description="after the warm-up")
    batches: Number = Field(default=10_000, description="cosine: until it is at its end; step: between two drops")
    factor: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="cosine: the part of the learning rate that is left at its end; step: of each drop"
    )
    warm_up: Annotated[int, Field(ge=0)] = Field(default=0, description="batches in which the rate rises from 0")
    reference: Number | None = Field(
        default=None,
        description="the batch for which the learning rate is meant: it is scaled by samples per step / this",
    )

    def at(self, batch: int, samples: int = 1) -> float:
        """Return what the learning rate is multiplied by in a batch, of so many samples over all trainers.

        >>> [round(Schedule(kind="cosine", batches=4, factor=0.0, warm_up=2).at(k), 3) for k in range(8)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
        """
        scale = 1.0 if self.reference is None else samples / self.reference
        if batch < self.warm_up:
            return scale * (batch + 1) / self.warm_up
        since = batch - self.warm_up
        if self.kind == "cosine":
            left = 0.5 * (1 + math.cos(math.pi * min(since / self.batches, 1.0)))
            return scale * (self.factor + (1 - self.factor) * left)
        return scale * (self.factor ** (since // self.batches) if self.kind == "step" else 1.0)


class Spill(Spec):
    """Samples beyond the memory of a buffer go compressed to a disk, from which they are drawn like the others."""

    capacity: Size = Field(description="bytes of samples there at most, as they would be in memory")
    directory: str | None = Field(default=None, description="on the node's own disk; none: TMPDIR, or /tmp")

    @property
    def fault(self) -> str | None:
        """Say why nothing can be written there, if that is so on this machine."""
        if self.directory is None or os.access(self.directory, os.W_OK | os.X_OK):
            return None
        return f"buffer: spill: {self.directory} is no folder that can be written to here; make it, or name another"


class Buffering(Spec):
    kind: Literal["fifo", "firo", "reservoir"] = Field(default="reservoir", description="who is drawn, and who leaves")
    capacity: Size = Field(default=256 * 2**20, description="bytes of memory, all of it allocated at the start")
    threshold: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="samples that must be held more of before a batch is drawn; none: one batch"
    )
    max_reuse: Number | None = Field(
        default=None, description="how often a sample is drawn; none: fifo, firo 1, else any"
    )
    spill: Spill | None = Field(default=None, description="what goes to a disk beyond capacity; none: nothing does")
    ratio: Positive | None = Field(default=None, description="new samples per batch; none: as they come")
    slack: Positive | None = Field(default=None, description="samples that ratio may be off by; none: four batches")


class Normalising(Spec):
    """Inputs and targets are brought to mean 0 and standard deviation 1 by what the stream has shown so far."""

    per: Literal["feature", "channel", "all", "none"] = Field(
        default="feature", description="feature: each number of a sample; channel: each entry of its first dimension"
    )
    freeze: Number | None = Field(
        default=1000,
        description="samples after which mean and deviation stay as they are; none: they follow the stream",
    )


class Validation(Spec):
    samples: Annotated[int, Field(ge=0)] = Field(default=256, description="held out of the stream at most")
    share: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.1, description="of the stream held out at most")
    every: Number = Field(default=100, description="batches from one validation to the next")


class Compression(Spec):
    """Only the largest entries of a gradient are sent, the rest later (`analytics.nn.compression`)."""

    top_k: Annotated[float, Field(gt=0, lt=1)] = Field(description="the part of each weight's gradient that is sent")
    warm_up: Annotated[int, Field(ge=0)] = Field(
        default=0, description="batches in which it falls from a quarter to top_k"
    )


#: Updates that a gradient may lack where nothing is said: one that takes five times as long holds up nobody.
STALENESS = 4


class Parallel(Spec):
    """Several processes that train one network together, each with a share of the steps (data-parallel)."""

    model_config = ConfigDict(serialize_by_alias=True)

    trainers: Annotated[int, Field(strict=True, ge=1)] = Field(
        default=1, description="processes, over the staging nodes in turn; batch is that of each of them"
    )
    timeout: Annotated[float, Field(gt=0, le=100)] = Field(
        default=30.0, description="seconds that they wait for each other, until the one that is missing is named"
    )
    compression: Compression | None = Field(
        default=None, description="of the gradients that they send to each other, with optimizer: sgd; none: all of it"
    )
    largest_batch: Number | None = Field(
        default=None, description="batch grows to that at most, as the noise of gradients asks for; none: it stays"
    )
    asynchronous: bool = Field(
        default=False, alias="async", description="nobody waits for the others before staleness is reached"
    )
    staleness: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="async: updates of the weights that a gradient may lack; none: 4; 0: as without async"
    )

    @property
    def bound(self) -> int:
        """Updates that a gradient may lack."""
        return STALENESS if self.staleness is None else self.staleness


class Training(Spec):
    """All that a `Trainer` needs to know but the shapes."""

    model: Architecture = Field(description="mlp, unet, ... or module.function")
    ensemble: Number = Field(default=1, description="networks side by side, whose mean is the model")
    loss: Annotated[Loss, BeforeValidator(by_kind)] = Field(default=Loss(), description="what is made small")
    optimizer: Annotated[Optimizer, BeforeValidator(by_kind)] = Field(
        default=Optimizer(), description="how weights move"
    )
    schedule: Annotated[Schedule, BeforeValidator(by_kind)] = Field(
        default=Schedule(), description="of the learning rate"
    )
    batch: Number = Field(default=64, description="samples of a step of the optimizer")
    buffer: Annotated[Buffering, BeforeValidator(by_kind)] = Field(
        default=Buffering(), description="what samples wait in"
    )
    normalise: Normalising = Field(default=Normalising(), description="how inputs and targets are scaled")
    validation: Validation = Field(default=Validation(), description="what is held out, and when")
    precision: Literal["fp32", "bf16", "amp"] = Field(
        default="fp32", description="of products and activations; weights stay float32. amp: float16, on a GPU"
    )
    device: str = Field(default="auto", description="auto (a GPU, if any), cpu, cuda:1")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(default=0, description="of weights, draws and what is held out")
    parallel: Parallel = Field(default=Parallel(), description="several trainers of one network")

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "Training":
        buffer = self.buffer
        reuse = buffer.max_reuse or (math.inf if buffer.kind == "reservoir" else 1)
        if buffer.kind == "fifo" and reuse != 1:
            raise ValueError(f"buffer: max_reuse: {reuse} has no meaning for fifo, which draws each sample once")
        if buffer.threshold is not None and buffer.threshold < self.batch - 1:
            raise ValueError(f"buffer: threshold: {buffer.threshold} samples make no batch of {self.batch}")
        # Else the buffer would run dry, or fill up with what no batch has held, and the ratio could not be kept.
        if buffer.ratio is not None and not self.batch / reuse <= buffer.ratio <= self.batch:
            raise ValueError(
                f"buffer: ratio: {buffer.ratio:g} cannot be kept with batches of {self.batch} in which a sample is "
                f"drawn {reuse} times at most; take {self.batch / reuse:g} to {self.batch}"
            )
        if buffer.slack is not None and buffer.ratio is None:
            raise ValueError("buffer: slack has no meaning without ratio")
        return self

    @model_validator(mode="after")
    def _trainers_can_do_it(self) -> "Training":
        parallel = self.parallel
        for name in ("compression", "largest_batch"):
            if parallel.trainers == 1 and getattr(parallel, name) is not None:
                raise ValueError(f"parallel: {name} has no meaning with trainers: 1, whose gradient is the only one")
        if parallel.asynchronous:
            self._nobody_need_wait()
        elif parallel.staleness is not None:
            raise ValueError(f"parallel: staleness: {parallel.staleness} has no meaning without async: true")
        if parallel.compression is not None and self.optimizer.kind != "sgd":
            # Its momentum is applied before sending; the second moments of others would be those of what was sent.
            raise ValueError(f"parallel: compression needs optimizer: sgd, got {self.optimizer.kind}")
        if (largest := parallel.largest_batch) is not None:
            if largest < self.batch:
                raise ValueError(f"parallel: largest_batch: {largest} is below batch: {self.batch}, where it begins")
            if parallel.compression or self.precision == "amp" or self.buffer.ratio:
                raise ValueError("parallel: largest_batch needs whole gradients (no compression or amp), and no ratio")
        return self

    def _nobody_need_wait(self) -> None:
        parallel = self.parallel
        if parallel.trainers == 1:
            raise ValueError("parallel: async has no meaning with trainers: 1, who has nobody to wait for")
        if parallel.compression or parallel.largest_batch or self.precision == "amp":
            raise ValueError("parallel: async goes with neither compression nor largest_batch nor amp")
        if self.normalise.freeze is None and self.normalise.per != "none":
            raise ValueError("parallel: async needs normalise: freeze: means that follow the stream are those of all")

    @property
    def slack(self) -> float:
        return float(self.buffer.slack or 4 * self.batch)


class Uncertainty(Spec):
    """How a network says how sure it is: several answers to one question, which differ where it has learned nothing."""

    kind: Literal["dropout", "ensemble"] = Field(
        description="dropout: it is asked several times, with some of it left out; ensemble: several networks are asked"
    )
    samples: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="dropout: how often it is asked; none: 16"
    )

    @model_validator(mode="after")
    def _samples_are_of_dropout(self) -> "Uncertainty":
        if self.kind == "ensemble" and self.samples is not None:
            raise ValueError("samples has no meaning for an ensemble, whose networks the train operator counts")
        return self

    def fault(self, name: str, training: Training) -> str | None:
        """Say why a model that was trained so cannot tell, with the cure."""
        if self.kind == "ensemble" and training.ensemble < 2:
            return f"uncertainty: ensemble: '{name}' is one network; give it ensemble: 4"
        foreign = isinstance(training.model, Foreign)
        if self.kind == "dropout" and not foreign and not getattr(training.model, "dropout", 0.0):
            return f"uncertainty: dropout: '{name}' is trained without; give its model dropout: 0.1"
        return None


def training(**keys: Any) -> Training:
    """Return a spec from plain values, as YAML has them."""
    return Training.model_validate(keys)
