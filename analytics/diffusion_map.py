# SPDX-License-Identifier: Apache-2.0
"""The few coordinates in which the states of a simulation are far apart when it takes long from one to the other."""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from analytics.fields import Length
from analytics.sampling import Reals, Sampling, Whole, by_lot, common, require_squares, squared_distances, steps_of
from insitu.errors import OperatorError
from insitu.model import Array, Variable
from insitu.operator import Over, State


class DiffusionMap(Sampling):
    """Diffusion map of whole steps: how a walk that hops between similar steps would spread, as coordinates of each.

    A walk goes from step a to step b with a probability that falls with their distance d, P ∝ exp(-d² / `width`²). The
    slowest ways in which it spreads, the leading eigenvectors ψ of P, follow the curved surface that the steps lie on,
    where `pca` finds flat directions only: basins of a molecule, states of a flow.

    ===============  =======  =================  ===================================================================
    result           dtype    dims               value
    ===============  =======  =================  ===================================================================
    ``coordinates``  float64  sample, component  Pψ = λψ of each step that was kept; NaN where there is none
    ``sampled``      int64    sample             the index of that step, in their order; -1 where there is none
    ``eigenvalues``  float64  component          λ, falling, without the first one, which is 1
    ``slow``         int64                       how many components stand before the largest gap of λ
    ``gap``          float64                     that gap
    ``width``        float64                     what was taken for it, in units of the distance
    ``samples``      int64                       how many steps have coordinates
    ===============  =======  =================  ===================================================================

    R. Coifman, S. Lafon, Appl. Comput. Harmon. Anal. 21, 2006. ψ has a mean square of 1 over the walk's resting
    distribution, and its third moment is positive: the rarer end is on the positive side. With ``alpha: 1`` the density
    of the steps is divided out, with 0 it is not; 0.5 is for steps drawn by a potential and a temperature.

    **Distance** is the root of the mean squared difference over all cells. ``align: true`` is for positions of
    particles, an array with a last dimension of 3: it is the RMSD after the best shift and rotation of one onto the
    other (W. Kabsch, Acta Cryst. A32, 1976), over particles. Molecules must be whole, not cut by a periodic box; a
    variable that is joined over the ranks is refused, as its particles change places: publish an array in the order of
    their numbers.

    **Landmarks.** The eigenvectors are those of `landmarks` steps, drawn by lot, uniformly over the window
    (`analytics.sampling`). All others of up to `sample` steps that were kept get theirs by Nyström's extension, which
    is the same formula, Pψ. With at least as many landmarks as steps it is the whole diffusion map, but for rounding;
    with fewer, an approximation, which another number of landmarks tells the quality of.

    **Width.** ``auto`` takes the median distance of a landmark from its √m-th nearest of m. Wider ones smear, narrower
    ones break the steps into islands, which shows as eigenvalues of 1.

    **Places.** The same for any order, tree and split, but for rounding: what places exchange is a table of steps by
    landmarks of squared distances, or with `align` of 3 by 3 products, however many cells they have: 8 (or 72) bytes
    for each of `sample` times `landmarks`. State: 8 bytes for each value of `sample` steps. NaN and infinite values: as
    `kmeans`.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (2,), ("x",))
    >>> steps = [[0.0, 0.0], [0.1, 0.0], [3.0, 3.0], [0.0, 0.1], [3.1, 3.0]]
    >>> operator = DiffusionMap(of="u", components=1, sample=5, width=1.5)
    >>> found = operator.finalize(operator.update(operator.init(), batch([u], {"u": steps})))
    >>> found["coordinates"][:, 0] > 0, int(found["slow"])
    (array([False, False,  True, False,  True]), 1)
    """

    reductions: ClassVar[frozenset[frozenset[str]]] = frozenset({frozenset({"step"})})

    over: Over = Field(default=("step",), description="what is reduced: step")
    components: Annotated[int, Field(ge=1)] = Field(default=3, description="how many coordinates")
    landmarks: Annotated[int, Field(ge=2)] = Field(default=200, description="how many steps the map is made of")
    align: bool = Field(default=False, description="whether steps are shifted and rotated onto each other first")
    width: Length | Literal["auto"] = Field(
        default="auto", description="the distance over which similarity falls to 1/e"
    )
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="how much of the density is divided out"
    )

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "DiffusionMap":
        if self.align and len(self.of) > 1:
            raise ValueError(f"align: true takes the positions of one molecule, got {len(self.of)} variables")
        return self

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        variables, units = self._stacked(inputs)
        if self.align and (variables[0].ndim < 2 or (variables[0].shape or ())[-1] != 3):
            raise OperatorError(
                f"'{self.of[0]}' holds no positions in space, which would be an array with a last dimension of 3; its "
                f"dimensions are {', '.join(variables[0].dims) or 'none'}"
            )
        real, whole, k = np.dtype(np.float64), np.dtype(np.int64), (self.components,)
        each = (self.sample, self.components)
        results = [
            Variable("coordinates", real, each, ("sample", "component"), "1", "diffusion coordinates of the step"),
            Variable("sampled", whole, (self.sample,), ("sample",), "1", "index of the step"),
            Variable("eigenvalues", real, k, ("component",), "1", "eigenvalues of the diffusion"),
            Variable("slow", whole, (), (), "1", "components before the spectral gap"),
            Variable("gap", real, (), (), "1", "spectral gap"),
            Variable("width", real, (), (), units, "distance over which similarity falls to 1/e"),
            Variable("samples", whole, (), (), "1", "number of steps with coordinates"),
        ]
        return {result.name: result for result in results}

    def summarize(self, state: State) -> State:
        if not state:
            return {}
        steps, indices, values = steps_of(state)
        chosen = np.sort(by_lot(steps)[: self.landmarks])
        told = {"steps": steps, "index": indices, "landmarks": steps[chosen]}
        if not self.align:
            return told | {"cells": values.shape[1], "squares": squared_distances(values, chosen)}
        if state["count"][-1] != 3:
            raise OperatorError(f"'{self.of[0]}' is cut between x, y and z; each rank must publish whole positions")
        return told | _products(values.reshape(len(steps), values.shape[1] // 3, 3), chosen)

    def combine(self, a: State, b: State) -> State:
        if not a or not b:
            return a or b
        steps, here, there = common(a["steps"], b["steps"])
        landmarks, mine, theirs = common(a["landmarks"], b["landmarks"])
        told = {"steps": steps, "index": a["index"][here], "landmarks": landmarks}
        join = _joined if self.align else _added
        return told | join(_part(a, here, mine), _part(b, there, theirs), np.searchsorted(steps, landmarks))

    def finalize_place(self, state: State, summary: State) -> dict[str, Array]:
        at = np.asarray(np.searchsorted(summary["steps"], summary["landmarks"]))
        squares = squared_rmsd(summary, at) if self.align else summary["squares"] / max(1, summary["cells"])
        good = np.flatnonzero(np.isfinite(squares[at, np.arange(len(at))]))
        squares = squares[:, good]
        known = np.flatnonzero(np.isfinite(squares).all(axis=1)) if len(good) else good
        coordinates = np.full((self.sample, self.components), np.nan)
        sampled = np.full(self.sample, -1)
        eigenvalues = np.full(self.components + 1, np.nan)
        n, width = len(known), math.nan
        if n:
            near = np.searchsorted(known, at[good])
            width = _width(squares[known][near]) if self.width == "auto" else self.width
            found, values = diffused(squares[known], near, width, self.alpha, self.components + 1)
            most = min(self.components, found.shape[1])
            coordinates[:n, :most], eigenvalues[: len(values)] = found[:, :most], values
            sampled[:n] = summary["index"][known]
        falls = -np.diff(np.nan_to_num(eigenvalues)) if n > 1 else np.zeros(1)
        return {
            "coordinates": coordinates,
            "sampled": sampled,
            "eigenvalues": eigenvalues[:-1],
            "slow": np.array(falls.argmax() + 1 if n > 1 else 0),
            "gap": np.array(falls.max() if n > 1 else np.nan),
            "width": np.array(width),
            "samples": np.array(n),
        }


def diffused(squares: Reals, landmarks: Whole, width: float, alpha: float, components: int) -> tuple[Reals, Reals]:
    """Return diffusion coordinates, (steps, at most `components`), and eigenvalues, the trivial one left out.

    `squares` are squared distances of all steps from the `landmarks` among them, (steps, landmarks).
    """
    scaled = squares / width**2 if width > 0 else np.zeros_like(squares)
    near = np.exp(-(scaled[landmarks] + scaled[landmarks].T) / 2)
    density = near.sum(axis=1) ** alpha
    near /= np.outer(density, density)
    degree = near.sum(axis=1)
    rest = np.sqrt(degree / degree.sum())
    # The first eigenvector is known: it is put last, as those of islands would mix with it.
    values, vectors = np.linalg.eigh(near / np.sqrt(np.outer(degree, degree)) - 2 * np.outer(rest, rest))
    most = min(components, len(landmarks) - 1)
    order = np.argsort(values)[::-1][:most]
    psi = vectors[:, order] / rest[:, np.newaxis]
    psi *= np.where((rest[:, np.newaxis] ** 2 * psi**3).sum(axis=0) < 0, -1.0, 1.0)
    onward = np.exp(scaled.min(axis=1, keepdims=True) - scaled) / density
    return onward @ psi / onward.sum(axis=1, keepdims=True), values[order]


def _width(squares: Reals) -> float:
    """Return the median distance of a landmark from its √m-th nearest; of landmarks that are all the same, 0."""
    nearest = np.sort(squares, axis=1)[:, min(len(squares) - 1, math.isqrt(len(squares) - 1) + 1)]
    median = float(np.sqrt(np.median(nearest)))
    return median or float(np.sqrt(squares.max()))


def _part(summary: State, steps: Array, landmarks: Array) -> State:
    """Return what a summary says of some steps and landmarks."""
    part: State = {key: summary[key] for key in ("cells", "particles") if key in summary}
    for key in ("means", "norms"):
        part |= {key: summary[key][steps]} if key in summary else {}
    for key in ("squares", "products"):
        part |= {key: summary[key][np.ix_(steps, landmarks)]} if key in summary else {}
    return part


def _added(a: State, b: State, landmarks: Array) -> State:
    return {"cells": a["cells"] + b["cells"], "squares": a["squares"] + b["squares"]}


def _products(positions: Reals, landmarks: Array) -> State:
    """Return what superposing needs of some particles, (steps, particles, 3): products of deviations from the mean."""
    n, particles, _ = positions.shape
    finite = np.asarray(np.isfinite(positions).all(axis=(1, 2)))
    positions = np.where(finite[:, np.newaxis, np.newaxis], positions, 0.0)
    means = positions.mean(axis=1) if particles else np.zeros((n, 3))
    apart = np.ascontiguousarray((positions - means[:, np.newaxis]).transpose(0, 2, 1))
    require_squares(apart)
    flat = apart.reshape(3 * n, particles)
    products = (flat @ apart[landmarks].reshape(3 * len(landmarks), particles).T).reshape(n, 3, len(landmarks), 3)
    norms = np.where(finite, np.einsum("nip,nip->n", apart, apart), np.nan)
    return {"particles": particles, "means": means, "norms": norms, "products": products.transpose(0, 2, 1, 3).copy()}


def _joined(a: State, b: State, landmarks: Array) -> State:
    """Return the products of the particles of both."""
    n = a["particles"] + b["particles"]
    weight, between = a["particles"] * b["particles"] / max(1, n), b["means"] - a["means"]
    across = between[:, np.newaxis, :, np.newaxis] * between[landmarks][np.newaxis, :, np.newaxis, :]
    return {
        "particles": n,
        "means": a["means"] + between * (b["particles"] / max(1, n)),
        "norms": a["norms"] + b["norms"] + weight * (between**2).sum(axis=1),
        "products": a["products"] + b["products"] + weight * across,
    }


def squared_rmsd(summary: State, landmarks: Array) -> Reals:
    """Return the squared RMSD of all steps from the landmarks after superposing; NaN of steps that are not finite."""
    norms, products = summary["norms"], summary["products"]
    lengths = np.linalg.svd(products, compute_uv=False)
    lengths[..., 2] *= np.sign(np.linalg.det(products))  # rotations only, no mirror images
    found = norms[:, np.newaxis] + norms[landmarks] - 2 * lengths.sum(axis=-1)
    found = np.maximum(found, 0.0) / max(1, summary["particles"])
    found[landmarks, np.arange(len(landmarks))] *= 0.0
    return np.asarray(found)
