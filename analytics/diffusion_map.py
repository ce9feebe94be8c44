# SPDX-License-Identifier: Apache-2.0
"""The few coordinates in which the states of a simulation are far apart when it takes long from one to the other."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from analytics.fields import Length
from analytics.sampling import Reals, Sampling, Whole, by_lot, common, squared_distances, steps_of
from analytics.superposition import joined, products_of, squared_rmsd
from insitu.errors import OperatorError
from insitu.model import Array, Variable
from insitu.operator import Over, State

#: Squared distances that are so much smaller than the largest are rounding's.
SAME = 1e-13


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

    **Landmarks.** The eigenvectors are those of `landmarks` steps among the up to `sample` that were kept, uniformly
    over the window (`analytics.sampling`). All others get theirs by Nyström's extension, which is the same formula, Pψ.
    With at least as many landmarks as steps it is the whole diffusion map, but for rounding; with fewer, an
    approximation, which another number of landmarks tells the quality of. ``landmarks_by: reservoir`` draws them by
    lot, so they are as dense as the steps. ``farthest`` takes each as far as can be from those before (T. Gonzalez,
    Theor. Comput. Sci. 38, 1985), so rare states have some too, and gives it the weight of the steps that it is nearest
    to (A. Long, A. Ferguson, Appl. Comput. Harmon. Anal. 47, 2019): exact where all steps lie on landmarks.

    **Width.** ``auto`` takes the median distance of a landmark from its √m-th nearest of m. Wider ones smear, narrower
    ones break the steps into islands, which shows as eigenvalues of 1.

    **Places.** The same for any order, tree and split, but for rounding: what places exchange is a table of steps by
    landmarks of squared distances, or with `align` of 3 by 3 products, however many cells they have: 8 (or 72) bytes
    for each of `sample` times `landmarks`; with ``farthest``, times `sample`, as only all distances tell which are far.
    Where two steps are as far but for rounding, a split may so take the other. State: 8 bytes for each value of
    `sample` steps. NaN and infinite values: as `kmeans`.

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
    landmarks_by: Literal["reservoir", "farthest"] = Field(
        default="reservoir",
        description="which steps these are. reservoir: by lot, as dense as the steps; farthest: each the farthest from "
        "those before, so that rare states have some",
    )
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
        drawn = by_lot(steps)
        # Which are farthest is known only when the places are put together: till then all may be.
        chosen = np.sort(drawn[: self.landmarks] if self.landmarks_by == "reservoir" else drawn)
        told = {"steps": steps, "index": indices, "landmarks": steps[chosen]}
        if not self.align:
            return told | {"cells": values.shape[1], "squares": squared_distances(values, chosen)}
        if state["count"][-1] != 3:
            raise OperatorError(f"'{self.of[0]}' is cut between x, y and z; each rank must publish whole positions")
        return told | products_of(values.reshape(len(steps), values.shape[1] // 3, 3), chosen)

    def combine(self, a: State, b: State) -> State:
        if not a or not b:
            return a or b
        steps, here, there = common(a["steps"], b["steps"])
        landmarks, mine, theirs = common(a["landmarks"], b["landmarks"])
        told = {"steps": steps, "index": a["index"][here], "landmarks": landmarks}
        join = joined if self.align else _added
        return told | join(_part(a, here, mine), _part(b, there, theirs), np.searchsorted(steps, landmarks))

    def finalize_place(self, state: State, summary: State) -> dict[str, Array]:
        at, squares = self._landmarks(summary)
        known = np.flatnonzero(np.isfinite(squares).all(axis=1)) if len(at) else at
        coordinates = np.full((self.sample, self.components), np.nan)
        sampled = np.full(self.sample, -1)
        eigenvalues = np.full(self.components + 1, np.nan)
        n, width = len(known), math.nan
        if n:
            near = np.searchsorted(known, at)
            width = _width(squares[known][near]) if self.width == "auto" else self.width
            stand_for = np.ones(len(at))
            if self.landmarks_by == "farthest":
                stand_for = np.bincount(squares[known].argmin(axis=1), minlength=len(at)).astype(np.float64)
            found, values = diffused(squares[known], near, stand_for, width, self.alpha, self.components + 1)
            most = min(self.components, found.shape[1])
            coordinates[:n, :most], eigenvalues[: len(values)] = found[:, :most], values
            sampled[:n] = summary["index"][known]
        several = len(at) > 1
        falls = -np.diff(np.nan_to_num(eigenvalues)) if several else np.zeros(1)
        return {
            "coordinates": coordinates,
            "sampled": sampled,
            "eigenvalues": eigenvalues[:-1],
            "slow": np.array(falls.argmax() + 1 if several else 0),
            "gap": np.array(falls.max() if several else np.nan),
            "width": np.array(width),
            "samples": np.array(n),
        }

    def _landmarks(self, summary: State) -> tuple[Whole, Reals]:
        """Return which steps are landmarks, and the squared distances of all steps from them; NaN of some steps."""
        at = np.asarray(np.searchsorted(summary["steps"], summary["landmarks"]))

        def columns(some: Whole) -> Reals:
            if self.align:
                return squared_rmsd({**summary, "products": summary["products"][:, some]}, at[some])
            return np.asarray(summary["squares"][:, some] / max(1, summary["cells"]))

        if self.landmarks_by == "farthest":
            return farthest(columns, by_lot(summary["steps"]), self.landmarks)
        squares = columns(np.arange(len(at)))
        good = np.flatnonzero(np.isfinite(squares[at, np.arange(len(at))]))
        return at[good], squares[:, good]


def farthest(columns: Callable[[Whole], Reals], order: Whole, most: int) -> tuple[Whole, Reals]:
    """Return at most so many steps, sorted, each the farthest from those before, and the squared distances from them.

    ``columns(some)`` has the squared distances of all steps from some of them, NaN where there is none. It begins with
    the first in `order` that has a distance, and ends where no step lies apart.
    """
    found: dict[int, Reals] = {}
    for first in order:
        column = columns(np.array([first]))[:, 0]
        if np.isfinite(column[first]):
            found[int(first)] = column
            break
    else:
        return np.zeros(0, np.int64), np.zeros((len(order), 0))
    nearest = np.where(np.isfinite(column), column, 0.0)
    rounding = SAME * nearest.max()
    while len(found) < most and nearest.max() > rounding:
        step = int(nearest.argmax())
        found[step] = column = columns(np.array([step]))[:, 0]
        nearest = np.minimum(nearest, np.where(np.isfinite(column), column, 0.0))
    at = np.array(sorted(found), np.int64)
    return at, np.stack([found[int(k)] for k in at], axis=1)


def diffused(
    squares: Reals, landmarks: Whole, stand_for: Reals, width: float, alpha: float, components: int
) -> tuple[Reals, Reals]:
    """Return diffusion coordinates, (steps, at most `components`), and eigenvalues, the trivial one left out.

    `squares` are squared distances of all steps from the `landmarks` among them, (steps, landmarks), each of which is
    to `stand_for` so many steps.
    """
    scaled = squares / width**2 if width > 0 else np.zeros_like(squares)
    near = np.exp(-(scaled[landmarks] + scaled[landmarks].T) / 2)
    density = (near @ stand_for) ** alpha
    near *= np.sqrt(np.outer(stand_for, stand_for)) / np.outer(density, density)
    degree = near @ np.sqrt(stand_for) / np.sqrt(stand_for)
    rest = np.sqrt(stand_for * degree / (stand_for @ degree))
    # The first eigenvector is known: it is put last, as those of islands would mix with it.
    values, vectors = np.linalg.eigh(near / np.sqrt(np.outer(degree, degree)) - 2 * np.outer(rest, rest))
    most = min(components, len(landmarks) - 1)
    order = np.argsort(values)[::-1][:most]
    psi = vectors[:, order] / rest[:, np.newaxis]
    psi *= np.where((rest[:, np.newaxis] ** 2 * psi**3).sum(axis=0) < 0, -1.0, 1.0)
    onward = np.exp(scaled.min(axis=1, keepdims=True) - scaled) * stand_for / density
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
