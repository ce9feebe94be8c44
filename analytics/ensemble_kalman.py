# SPDX-License-Identifier: Apache-2.0
"""The ensemble Kalman filter: numbers and states of a model, from what a simulation or a machine shows of itself."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ImportString, PrivateAttr, model_validator

from insitu.model import Array
from insitu.steering.controller import Action, OneResult, Parameters, Result

#: ``forecast(members, result, parameters)`` takes the members before a result, of shape (size, n), and returns them at
#: that result, with what each predicts of the observed numbers, of shape (size, m).
Forecast = Callable[[Array, Result, Parameters], tuple[Array, Array]]
Method = Literal["stochastic", "etkf"]


def analyse(
    members: Array,
    predicted: Array,
    observed: Array,
    noise: Array,
    *,
    method: Method = "etkf",
    random: np.random.Generator | None = None,
    taper: tuple[Array, Array] | None = None,
) -> Array:
    """Return the members after an observation: the update of Kalman with the ensemble's own covariances.

    `members` has shape (size, n), `predicted` (size, m), `observed` (m,); `noise` is the observations' covariance
    (m, m), or (m,) variances of independent ones. With anomalies X and Y, size N, and d = observed - mean(predicted):

    ``etkf``: x̄ + X (w + W), w = P Yᵀ R⁻¹ d, W = ((N - 1) P)^½ symmetric, P = ((N - 1) I + Yᵀ R⁻¹ Y)⁻¹ (Bishop et al.
    2001 in the form of Hunt, Kostelich, Szunyogh 2007). No noise is drawn, and the mean and covariance of what comes
    out are exactly Kalman's for those that go in.

    ``stochastic``: each member sees the observation with noise of its own, drawn from `random` and centred (Evensen,
    Ocean Dynamics 53 (2003) 343). The mean is exactly Kalman's, the covariance up to sampling error.

    `taper` (stochastic only) localises: arrays (n, m) and (m, m) by which the covariances of members with predictions
    and of predictions are multiplied, such as `gaspari_cohn` of distances.

    Cost: etkf N³, stochastic m³ + N m n. Exact or not, the filter assumes that the model is nearly linear within the
    spread of the members.
    """
    size = len(members)
    mean, centre = members.mean(axis=0), predicted.mean(axis=0)
    x, y = members - mean, predicted - centre
    covariance = np.diag(noise) if noise.ndim == 1 else noise
    if method == "etkf":
        if taper is not None:
            raise ValueError("the ensemble transform mixes whole members and cannot be localised; take stochastic")
        scaled = np.linalg.solve(covariance, y.T)
        values, vectors = np.linalg.eigh((size - 1) * np.eye(size) + y @ scaled)
        weights = vectors @ ((vectors.T @ (scaled.T @ (observed - centre))) / values)
        roots = (vectors * np.sqrt((size - 1) / values)) @ vectors.T
        return np.asarray(mean + (weights + roots) @ x)
    random = random or np.random.default_rng()
    drawn = random.multivariate_normal(np.zeros(len(observed)), covariance, size=size, method="cholesky")
    drawn -= drawn.mean(axis=0)
    cross, own = x.T @ y / (size - 1), y.T @ y / (size - 1)
    if taper is not None:
        cross, own = cross * taper[0], own * taper[1]
    innovations = observed + drawn - predicted
    return np.asarray(members + np.linalg.solve(own + covariance, innovations.T).T @ cross.T)


def gaspari_cohn(distance: Array, radius: float) -> Array:
    """Return weights that fall from 1 at distance 0 to 0 at 2 `radius`, smooth and positive definite.

    Reference: G. Gaspari, S. E. Cohn, Q. J. R. Meteorol. Soc. 125 (1999) 723, equation 4.10.

    >>> gaspari_cohn(np.array([0.0, 1.0, 2.0]), 1.0).round(4)
    array([1.    , 0.2083, 0.    ])
    """
    r = np.abs(distance) / radius
    near = 1 - 5 / 3 * r**2 + 5 / 8 * r**3 + r**4 / 2 - r**5 / 4
    with np.errstate(divide="ignore"):
        far = 4 - 5 * r + 5 / 3 * r**2 + 5 / 8 * r**3 - r**4 / 2 + r**5 / 12 - 2 / (3 * r)
    return np.where(r < 1, near, np.where(r < 2, far, 0.0))


class Prior(BaseModel):
    """What is known of one number of the model beforehand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float = Field(description="expected value; with scale: log, the median")
    std: Annotated[float, Field(gt=0)] = Field(description="standard deviation; with scale: log, that of the logarithm")
    scale: Literal["linear", "log"] = Field(default="linear", description="log: the number is positive, its log normal")

    @model_validator(mode="after")
    def _logarithm_exists(self) -> "Prior":
        if self.scale == "log" and self.mean <= 0:
            raise ValueError(f"mean: {self.mean:g} must be above 0 with scale: log")
        return self

    def inward(self, value: Array) -> Array:
        """Return what is normally distributed."""
        return np.log(value) if self.scale == "log" else np.asarray(value)

    def outward(self, value: Array) -> Array:
        """Return the number itself."""
        return np.exp(value) if self.scale == "log" else np.asarray(value)


class EnsembleKalman(OneResult):
    """Estimates the numbers of `prior` with each result, and sets parameters of the simulation to them.

    `model` is a function ``forecast(members, result, parameters)`` that gives, of members of shape (size, n) with the
    numbers in the order of `prior`, what they have become at this result and what they predict of the result `result`,
    of shape (size, m). A model of parameters alone returns its members as they are. How it computes is its own affair;
    `max_time` bounds it.

    With each result: forecast; anomalies times `inflation`; `analyse`. The estimate is the mean over the members (with
    ``scale: log``, of the logarithm); parameters named in `sets` are set to it. Observed numbers that are NaN are left
    out, as a sensor that fails would be.
    """

    model: ImportString[Any] = Field(description="module:function, the forecast")
    prior: dict[str, Prior] = Field(min_length=1, description="by name, what is known of the numbers beforehand")
    noise: Annotated[float, Field(gt=0)] = Field(description="standard deviation of the observations' error")
    sets: dict[str, str] = Field(default={}, description="by parameter of the simulation, the number it is set to")
    size: Annotated[int, Field(ge=2, le=10_000)] = Field(default=50, description="members")
    method: Method = Field(default="etkf", description="etkf: without drawn noise; stochastic: with it")
    inflation: Annotated[float, Field(ge=1, le=10)] = Field(default=1.0, description="factor of the spread, each time")
    seed: int = Field(default=0, description="of all that is drawn")

    _members: Array | None = PrivateAttr(None)
    _random: np.random.Generator = PrivateAttr(default_factory=np.random.default_rng)

    @model_validator(mode="after")
    def _names_are_known(self) -> "EnsembleKalman":
        for parameter, name in self.sets.items():
            if name not in self.prior:
                raise ValueError(f"sets: {parameter} is to be '{name}', which is not in prior: {', '.join(self.prior)}")
        return self

    @property
    def members(self) -> Array:
        """The members as they are, of shape (size, n), in the order of `prior`."""
        if self._members is None:
            self._random = np.random.default_rng(self.seed)
            priors = list(self.prior.values())
            centre = np.array([float(each.inward(np.array(each.mean))) for each in priors])
            drawn = self._random.normal(size=(self.size, len(priors)))
            self._members = self._outward(centre + drawn * [each.std for each in priors])
        return self._members

    def estimate(self) -> dict[str, float]:
        """Return the mean of each number."""
        inner = self._inward(self.members).mean(axis=0, keepdims=True)
        return dict(zip(self.prior, self._outward(inner)[0].tolist(), strict=True))

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        observed = np.ravel(self.array(result)).astype(float)
        members, predicted = self.model(self.members, result, parameters)
        self._members = members
        there = np.isfinite(observed) & np.isfinite(predicted).all(axis=0)
        if there.any():
            inner = self._inward(members)
            centre = inner.mean(axis=0)
            spread = predicted[:, there]
            middle = spread.mean(axis=0)
            inner = centre + self.inflation * (inner - centre)
            spread = middle + self.inflation * (spread - middle)
            noise = np.full(int(there.sum()), self.noise**2)
            self._members = self._outward(
                analyse(inner, spread, observed[there], noise, method=self.method, random=self._random)
            )
        estimate = self.estimate()
        values = {parameter: estimate[name] for parameter, name in self.sets.items()}
        known = ", ".join(f"{name} = {value:.4g}" for name, value in estimate.items())
        return [Action("set", values, why=known)] if values else []

    def _inward(self, members: Array) -> Array:
        return np.stack([prior.inward(members[:, k]) for k, prior in enumerate(self.prior.values())], axis=1)

    def _outward(self, members: Array) -> Array:
        return np.stack([prior.outward(members[:, k]) for k, prior in enumerate(self.prior.values())], axis=1)
