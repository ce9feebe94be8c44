# SPDX-License-Identifier: Apache-2.0
"""How a network is trained on the stream, as a configuration says it. Imports no PyTorch."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from analytics.nn.specs import Number, Training
from analytics.nn.steps import Feature, Sampler, Sampling, variables_of
from insitu.model import Variable
from insitu.operator import Names


class Checkpoint(BaseModel):
    """When all that going on needs is written to the disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: Number = Field(default=1000, description="batches from one to the next, or a tenth of the time if longer")


class Streaming(Training):
    """A `Training` whose samples come from steps, and what comes of it while it goes on."""

    inputs: Names = Field(
        description='what goes in: variables, parameters.NAME, "u[-1]" (the step before), time, "@x" (a place)'
    )
    targets: Names | None = Field(default=None, description="what is to come out; none: the inputs")
    sample: Sampling = Field(default="step", description="what one sample is: a whole step, a row, or a cell")
    per_step: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="samples of one step at most, drawn by lot; none: all"
    )
    report: Number = Field(default=50, description="batches of one row of the results")
    publish: Number | None = Field(
        default=None, description="batches from one version of the model to the next; none: only the one of the end"
    )
    checkpoint: Checkpoint = Field(default=Checkpoint(), description="what a process that was killed goes on from")

    @field_validator("inputs", "targets")
    @classmethod
    def _names_are_understood(cls, names: Names | None) -> Names | None:
        for name in names or ():
            Feature.of(name)
        return names

    @model_validator(mode="after")
    def _something_is_learned(self) -> "Streaming":
        if not variables_of(self.targets or self.inputs):
            what = "targets" if self.targets else "inputs"
            raise ValueError(f"{what}: {list(self.targets or self.inputs)} names no variable, and nothing is learned")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """The variables that samples are made of."""
        return variables_of([*self.inputs, *(self.targets or ())])

    @property
    def lags(self) -> frozenset[int]:
        """How many published steps before they look, and 0."""
        return frozenset({0, *(Feature.of(name).lag for name in [*self.inputs, *(self.targets or ())])})

    @property
    def training(self) -> Training:
        """What of it is told to a `Trainer`."""
        return Training.model_validate({name: getattr(self, name) for name in Training.model_fields})

    def sampler(self, variables: Mapping[str, Variable]) -> Sampler:
        """Return what makes samples of these variables; raises `OperatorError` where it cannot."""
        classes = self.loss.kind == "cross_entropy"
        return Sampler(
            self.inputs, self.targets, self.sample, variables, classes=classes, per_step=self.per_step, seed=self.seed
        )
