# SPDX-License-Identifier: Apache-2.0
"""Chooses the next parameters of the simulation where a network knows least."""

import math
from collections import deque
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr, model_validator

from insitu.steering.controller import Action, OneResult, Parameters, Result

Reals = npt.NDArray[np.float64]
Bound = Annotated[float, Field(allow_inf_nan=False)]

#: What stands before a parameter's name among the results of ``predict``.
PARAMETER = "parameter_"
#: Reflections on either side that a kernel no wider than the bounds can have.
IMAGES = np.arange(-4, 5) * 2.0


class Propose(OneResult):
    """Sets parameters anew each `every` steps, where the loss of what was seen so far is large.

    For surrogates that learn on line: after the manner of Breed (adaptive multiple importance sampling of a solver's
    parameters by training losses, as in Melissa). `of` is a ``predict`` operator whose `inputs` name these parameters,
    as ``parameters.feed``; its row tells which value held in the step. `result` is what is to become small: ``error``,
    or ``uncertainty``, which needs no truth. The loss of parameters θ is the mean over the rows in which θ held.

    **A proposal** is uniform within the bounds of `sets` with probability `uniform`, and as long as fewer than `learn`
    different parameters were seen. Else one of the last `memory` is drawn with weight (loss - smallest loss)^`power`,
    and what is proposed is normally distributed around it, with a standard deviation of `width` times the bounds'
    distance, reflected at the bounds. Where all losses are alike it is uniform.

    **Density.** The receipt's ``why`` says with which density θ was drawn, over that of the uniform distribution
    (`density`). Statistics of what such a run has shown are unbiased with weights of 1 / density.

    It asks by an ordinary action ``set``: bounds that the simulation has declared hold too, and a value beyond them is
    refused with a receipt. Whole numbers are rounded. Results that are not finite are passed over. What is drawn
    depends on the `seed`, on the results, and on nothing else.

    >>> from insitu.results import Provenance
    >>> propose = Propose(of="trust", result="error", sets={"feed": (0.0, 1.0)}, every=1, learn=2)
    >>> row = {"error": np.array(0.2), "parameter_feed": np.array(0.5)}
    >>> [action] = propose.on_result(Result("trust", Provenance(0, 0, 0, 0.0, 1, 0, True), row), {"feed": 0.5})
    >>> action.why
    'uniform: fewer than 2 were seen; density 1'
    """

    result: str = Field(default="error", description="what is to become small: error, or uncertainty")
    sets: dict[str, tuple[Bound, Bound]] = Field(
        min_length=1, description="by parameter, between which values it is chosen: {feed: [0.01, 0.08]}"
    )
    every: Annotated[int, Field(ge=1)] = Field(description="published steps from one proposal to the next")
    uniform: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.25, description="part of the proposals that looks at no loss"
    )
    learn: Annotated[int, Field(ge=2)] = Field(default=8, description="different parameters to be seen first")
    memory: Annotated[int, Field(ge=2)] = Field(default=64, description="parameters whose losses count; older ones go")
    power: Annotated[float, Field(ge=0, le=10)] = Field(default=1.0, description="1: by loss; higher: larger ones more")
    width: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="standard deviation around what was seen, over the bounds' distance"
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="of all that is drawn")

    _seen: deque[tuple[tuple[float, ...], int, float]] = PrivateAttr(default_factory=deque)
    _steps: int = PrivateAttr(0)
    _proposals: int = PrivateAttr(0)

    @model_validator(mode="after")
    def _bounds_are_apart(self) -> "Propose":
        for name, (low, high) in self.sets.items():
            if not low < high:
                raise ValueError(f"sets: {name}: {low:g} is not below {high:g}")
        if self.learn > self.memory:
            raise ValueError(f"learn: {self.learn} parameters do not fit a memory of {self.memory}")
        return self

    @property
    def wanted(self) -> tuple[str, ...]:
        return (self.result, *(PARAMETER + name for name in self.sets))

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        self._steps += result.provenance.steps
        loss = self.number(result)
        if math.isfinite(loss):
            self._learn(self._inward(result), loss)
        if self._steps < self.every:
            return []
        self._steps = 0
        rng = np.random.default_rng([self.seed, self._proposals])
        self._proposals += 1
        inner, why = self._drawn(rng)
        values: dict[str, Any] = {}
        for value, (name, (low, high)) in zip(inner.tolist(), self.sets.items(), strict=True):
            outer = low + (high - low) * value
            values[name] = round(outer) if type(parameters.get(name)) is int else outer
        return [Action("set", values, why=f"{why}; density {self.density(values):.4g}")]

    def density(self, values: dict[str, float]) -> float:
        """Return with which density these parameters would be proposed now, over that of the uniform distribution."""
        known = self._weights()
        if known is None:
            return 1.0
        at = np.array([(values[name] - low) / (high - low) for name, (low, high) in self.sets.items()])
        centres, weights = known
        far = np.concatenate([at - centres + shift for shift in IMAGES[:, None, None]], axis=0)
        far = far.reshape(len(IMAGES), *centres.shape)
        near = (at + centres)[None] + IMAGES[:, None, None]
        normal = sum(np.exp(-0.5 * (part / self.width) ** 2).sum(axis=0) for part in (far, near))
        kernels = np.prod(normal / (self.width * math.sqrt(2 * math.pi)), axis=1)
        return float(self.uniform + (1 - self.uniform) * (weights @ kernels))

    def _inward(self, result: Result) -> tuple[float, ...]:
        """Return the parameters of a result, from 0 to 1 between their bounds."""
        for name in self.sets:
            if PARAMETER + name not in result.arrays:
                known = ", ".join(result.arrays)
                raise ValueError(
                    f"'{result.operator}' does not say what {name} was (it yields {known}); name parameters.{name} in "
                    "its inputs"
                )
        return tuple(
            (float(result.arrays[PARAMETER + name]) - low) / (high - low) for name, (low, high) in self.sets.items()
        )

    def _learn(self, inner: tuple[float, ...], loss: float) -> None:
        """Take in a loss; the same parameters in a row are one sample of it."""
        if self._seen and self._seen[-1][0] == inner:
            _, number, mean = self._seen.pop()
            self._seen.append((inner, number + 1, mean + (loss - mean) / (number + 1)))
            return
        self._seen.append((inner, 1, loss))
        if len(self._seen) > self.memory:
            self._seen.popleft()

    def _weights(self) -> tuple[Reals, Reals] | None:
        """Return what was seen, (n, parameters), and the weight of each; ``None`` where nothing tells them apart."""
        if len(self._seen) < self.learn:
            return None
        losses = np.array([mean for _, _, mean in self._seen])
        above = losses - losses.min()
        if not above.any():
            return None
        weights = (above / above.max()) ** self.power
        return np.array([inner for inner, _, _ in self._seen]), weights / weights.sum()

    def _drawn(self, rng: np.random.Generator) -> tuple[Reals, str]:
        """Return a proposal, from 0 to 1 between the bounds, and why it is this one."""
        anywhere, chosen = rng.random(len(self.sets)), rng.random() >= self.uniform
        known = self._weights()
        if known is None:
            few = len(self._seen) < self.learn
            return anywhere, f"uniform: fewer than {self.learn} were seen" if few else "uniform: all losses are alike"
        if not chosen:
            return anywhere, "uniform"
        centres, weights = known
        k = int(rng.choice(len(weights), p=weights))
        drawn = np.abs((centres[k] + self.width * rng.normal(size=len(self.sets)) + 1) % 2 - 1)
        return drawn, f"near one whose {self.result} is {self._seen[k][2]:.4g}"
