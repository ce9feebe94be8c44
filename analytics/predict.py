# SPDX-License-Identifier: Apache-2.0
"""What a trained network makes of each step, against what the step shows, as an entry of the YAML."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from analytics.nn.conformal import TrustGate
from analytics.nn.needed import fault
from analytics.nn.specs import Training, Uncertainty, by_kind
from analytics.nn.steps import Sampler, Sampling, variables_of
from analytics.propose import PARAMETER
from insitu.errors import OperatorError
from insitu.learner import Learner, Learning, Workspace
from insitu.model import Extent, Variable, parameter_of
from insitu.operator import Names

#: What each row holds: dtype, units, meaning.
SERIES: dict[str, tuple[str, str, str]] = {
    "error": ("f8", "1", "distance of prediction and truth, over the size of the truth, of all samples of the step"),
    "threshold": ("f8", "1", "the largest {judge} that is trusted, by those of the steps before"),
    "trusted": ("bool", "1", "whether the network may stand for the truth here"),
    "version": ("i8", "1", "version of the model that was asked, 0 for none yet"),
}

#: What each row holds beside that of a model that tells classes apart.
OF_CLASSES: dict[str, tuple[str, str, str]] = {
    "error": ("f8", "1", "1 - probability of the class that is true, mean over all samples of the step"),
    "accuracy": ("f8", "1", "part of the samples of the step that are taken for their class"),
    "confidence": ("f8", "1", "probability of the class that a sample is taken for, mean over all samples of the step"),
    "calibration_error": (
        "f8",
        "1",
        "distance of confidence and accuracy, mean over all samples of the version",
    ),
}

#: A sample with more bytes is not stored with each step; it is read where the variable is.
EXAMPLE_BYTES = 1 << 18


class Predict(Learner):
    """Asks a trained network about each step, and says how far it is from what the step shows.

    `model` is the name of a ``train`` operator of the same run, whose newest version is asked, or the folder of one
    version of another run, ``runs/heat/models/surrogate/3``. `inputs`, `targets`, `sample` and `per_step` are as for
    ``train``; without targets the error is that of the reconstruction.

    **Results**, a row for each step, for rules to act on: the relative error |prediction - truth| / |truth|, NaN while
    there is no model; the trust gate's threshold and verdict, and the version that was asked. The gate
    (`analytics.nn.conformal.TrustGate`) knows the errors of the steps before, and refuses what is larger than all but a
    part `false_alarms` of them: where steps are as those before were, so many are refused without a reason.

    **Classes.** With `classes` the model is one that was trained with ``loss: {kind: cross_entropy}``, and `targets`
    are integers from 0. ``error`` is then 1 - the probability of the class that is true, a mean over the samples of the
    step; and there are ``accuracy``, ``confusion`` (class, taken_for) int64 of the step, ``confidence`` and
    ``calibration_error`` (`analytics.nn.judging.Classes`): how far the probabilities are from how often they are right.

    `judge` says what the gate looks at: ``error``, which needs the truth, or ``uncertainty``, which does not.

    With `uncertainty` also ``uncertainty``: the standard deviation of what is predicted over its size, √(Σ variances) /
    |mean|, sum and size over all numbers of all samples of the step. ``dropout`` (Y. Gal, Z. Ghahramani, 2016) asks the
    network `samples` times with dropout on; ``ensemble`` (B. Lakshminarayanan et al., 2017) asks the networks that
    ``train`` has taught side by side. Neither needs the truth. Both tell what the network has not learned, and not the
    noise of what it learned from; neither is a probability.

    For each parameter among the inputs that is a number also ``parameter_NAME``: what it was in the step.

    With `example` also the first sample of each step, as the step shows it and as the network makes it: ``truth`` and
    ``prediction``, float32 of the shape of the targets, NaN while there is no model. They are stored with every step,
    so a sample may have at most 256 KiB.
    """

    model: str = Field(description="a train operator of this run, or the folder of a version of another run's model")
    inputs: Names = Field(description="what goes in, as for train")
    targets: Names | None = Field(default=None, description="what is to come out; none: the inputs")
    sample: Sampling = Field(default="step", description="what one sample is: a whole step, a row, or a cell")
    per_step: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="samples of one step at most, drawn by lot; none: all"
    )
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="part of the steps that the gate refuses though they are as those before"
    )
    uncertainty: Annotated[Uncertainty, BeforeValidator(by_kind)] | None = Field(
        default=None, description="dropout or ensemble: how sure the network is; none: it is not asked for that"
    )
    classes: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="how many classes the model tells apart; none: it yields numbers"
    )
    judge: Literal["error", "uncertainty"] = Field(default="error", description="what the gate trusts a step by")
    example: bool = Field(
        default=False, description="whether the first sample of each step is stored beside what the network makes of it"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(default=0, description="of the lots of per_step")

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "Predict":
        if self.judge == "uncertainty" and self.uncertainty is None:
            raise ValueError("judge: uncertainty needs an uncertainty to look at; add uncertainty: ensemble")
        if self.classes is not None and self.targets is None:
            raise ValueError("classes: targets say which class is true; name them")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return variables_of([*self.inputs, *(self.targets or ())])

    @property
    def asks(self) -> tuple[str, ...]:
        return () if "/" in self.model else (self.model,)

    def fault(self) -> str | None:
        folder = Path(self.model)
        if "/" in self.model and not (folder.name.isdecimal() and (folder / "card.json").is_file()):
            return f"model: {self.model} is no folder of a version, such as runs/heat/models/surrogate/3"
        if missing := fault("predict"):
            return missing
        if "/" not in self.model:
            return None
        training = json.loads((folder / "card.json").read_text())["training"]
        return self._fault_of(Training.model_validate(training))

    def fault_of_asked(self, asked: Learner) -> str | None:
        return self._fault_of(asked) if isinstance(asked, Training) else None

    def _fault_of(self, asked: Training) -> str | None:
        if (classes := asked.loss.classes) != self.classes:
            cure = "leave classes out" if classes is None else f"add classes: {classes}"
            return f"classes: {self.classes}: '{self.model}' is trained with loss: {asked.loss.kind}; {cure}"
        return None if self.uncertainty is None else self.uncertainty.fault(self.model, asked)

    def sampler(self, variables: Mapping[str, Variable]) -> Sampler:
        """Return what makes samples of these variables; raises `OperatorError` where it cannot."""
        return Sampler(
            self.inputs,
            self.targets,
            self.sample,
            variables,
            classes=self.classes is not None,
            per_step=self.per_step,
            seed=self.seed,
        )

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        shapes = self.sampler(inputs).shapes
        found = {
            name: Variable(name, np.dtype(kind), (), (), units, text.format(judge=self.judge))
            for name, (kind, units, text) in (SERIES | ({} if self.classes is None else OF_CLASSES)).items()
        }
        if self.classes is not None:
            about, shape = "samples of the step by their class and the class they are taken for", (self.classes,) * 2
            found["confusion"] = Variable("confusion", np.dtype("i8"), shape, ("class", "taken_for"), "1", about)
        if self.uncertainty is not None:
            text = "standard deviation of the prediction, over its size, of all samples of the step"
            found["uncertainty"] = Variable("uncertainty", np.dtype("f8"), (), (), "1", text)
        for name, parameter in self._parameters(inputs).items():
            text = f"what {parameter} was in the step"
            found[name] = Variable(name, np.dtype("f8"), (), (), inputs[parameter].units, text)
        return found | self._examples(shapes.inputs if shapes.targets is None else shapes.targets, inputs)

    def _parameters(self, inputs: Mapping[str, Variable]) -> dict[str, str]:
        """Return the parameters among the inputs that are numbers, by the result that tells what each was."""
        named = {f"{PARAMETER}{parameter_of(name)}": name for name in variables_of(self.inputs) if parameter_of(name)}
        return {result: name for result, name in named.items() if inputs[name].shape == ()}

    def _examples(self, shape: Extent, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        """Describe the sample that is stored with each step; none where none is wanted."""
        if not self.example:
            return {}
        nbytes = 4 * math.prod(shape)
        if nbytes > EXAMPLE_BYTES:
            raise OperatorError(
                f"example: a sample has {nbytes} bytes, and at most {EXAMPLE_BYTES} are stored with each step; leave "
                "it out, or select fewer cells"
            )
        names = self.targets or self.inputs
        whole = inputs.get(names[0]) if len(names) == 1 else None
        dims = whole.dims[len(whole.dims) - len(shape) :] if whole is not None else ()
        if len(dims) != len(shape):
            dims = tuple(f"target_{k}" for k in range(len(shape)))
        units = whole.units if whole is not None else ""
        about = {"truth": "first sample of the step", "prediction": "what the network makes of it"}
        return {name: Variable(name, np.dtype("f4"), shape, dims, units, text) for name, text in about.items()}

    def begin(self, inputs: Mapping[str, Variable], workspace: Workspace) -> Learning:
        from analytics.nn.asking import Asking  # brings PyTorch, which the process of the run does without

        models, name, version = workspace.models, self.model, None
        if "/" in self.model:
            folder = Path(self.model)
            models, name, version = folder.parent.parent, folder.parent.name, int(folder.name)
        gate = TrustGate(self.false_alarms)
        asking = name, models, version, self.sampler(inputs), gate, self.threads
        return Asking(*asking, self.example, self.uncertainty, self._parameters(inputs), self.classes, self.judge)
