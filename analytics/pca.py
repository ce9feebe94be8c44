# SPDX-License-Identifier: Apache-2.0
"""Principal components of a field that no single place ever holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from analytics.alignment import SIGNS, rotation
from analytics.decomposition import Decomposition, padded
from analytics.factors import Factors, Reals
from analytics.fields import label, power
from insitu.model import Array, Step, Variable
from insitu.operator import State


class PCA(Decomposition):
    """Principal components of a field: its patterns, their variance, and the projection of every step on them.

    A step x of the whole field, all variables of `of` stacked, becomes x ≈ mean + p₁ φ₁ + ... + p_k φ_k, with φ the
    ``modes`` of its window, orthonormal over all cells (as far as nothing was cut off, see below) and in the order of
    their variance, and p the step's projection on them.

    ================  =======  ================  ====================================================================
    result            dtype    dims              value
    ================  =======  ================  ====================================================================
    ``rank``          int64                      r, how many components are given
    ``variance``      float64  component         of the projections, with n - 1; the squared units
    ``energy``        float64  component         the variance as a share of that of all cells together
    ``truncation``    float64                    bound on what carrying few rows has changed, as a share; see below
    ``turn``          float64  component,        R, which turns p to the directions of the series, see below
                               turned
    ``modes``         float64  component, cells  φ
    ``mean``          float64  cells             mean of the steps
    ================  =======  ================  ====================================================================

    With several variables the last two are there for each, as ``u_modes`` and ``u_mean``.

    **Series.** ``projection``, (component) float64, of every step that no window before had: p R, where R turns the
    modes of this window so that together they come closest to those of the window before, turned likewise (orthogonal
    Procrustes, of sketches: exact where both windows have the same directions, see `analytics.alignment`). So the
    series has no jumps of sign or order where modes change places or turn into each other; p is ``projection`` Rᵀ.

    **How many.** `components` at most; with ``energy: 0.99`` as few as hold that share. What is beyond, or beyond the
    rank of the data (a field that does not vary, fewer steps or cells than components), is zero: it adds nothing. A
    single step has a mean, rank 0 and no variance (NaN); where nothing varies, energy and truncation are NaN.

    **Sign and order** are the same for any ranks, nodes and windows: by variance, and so that a mode's sum with weights
    that are drawn for each cell by its place, once and for all, is positive. A mode turned by a small angle since the
    last window so keeps its sign; modes of nearly equal variance may change places, or turn into each other, as the
    two of a wave do.

    **Several variables** must lie on one grid, in the same blocks and the same units; or ``scale: [2.0, 0.1]`` divides
    each by what it usually varies by, and `modes` are multiplied by it again, so that the sum above always holds.

    **Forgetting.** ``forgetting: 0.99``: a step counts that much of the one after it, in mean, modes and variance.

    **NaN.** ``nan: propagate``: a cell that is not finite in one step has NaN in modes and mean, and takes no part in
    anything else. ``fail``: `OperatorError` names variable, step and place. Steps that some place lacks are left out.

    **Accuracy.** Each place carries 2 `components` rows and joins new steps to them. Any order, tree and split into
    places is exact but for rounding as long as the steps' rank, less the mean, is no more than that: in windows of up
    to 2 `components` + 1 steps always. Else what was cut off changes a singular value (√((n - 1) variance)) by no more
    than `truncation` times the root of the sum of all their squares, which also bounds what it adds to the error of
    the sum above. ``method: gram`` loses half of the digits to squaring: components whose variance is below some
    1e-13 of the largest are noise, and not given; ``qr`` keeps what is above 1e-26, and takes three times as long. Both
    are right where the mean is 1e8 times the standard deviation.

    **Cost.** State of a place: (2 `components` + 1) float64 for each cell and variable, up to 4 `components` steps that
    wait, as they came, and 8 (2 `components` + 1) bytes for each step of the window. At its end, places exchange 16
    `components` bytes for each step, however many cells they have.

    D. Ross, J. Lim, R.-S. Lin, M.-H. Yang, Int. J. Computer Vision 77, 2008; M. Iwen, B. Ong, SIAM J. Matrix Anal.
    Appl. 37, 2016.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (4,), ("x",), units="m")
    >>> steps = [[1.0, 2.0, 3.0, 5.0], [1.0, 2.0, 4.0, 6.0], [1.0, 2.0, 5.0, 7.0]]
    >>> pca = PCA(of="u", components=2, window=3)
    >>> found = pca.finalize(pca.update(pca.init(), batch([u], {"u": steps})))
    >>> int(found["rank"]), found["variance"], abs(found["modes"][0])
    (1, array([2., 0.]), array([0.    , 0.    , 0.7071, 0.7071]))
    """

    energy: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="the share of the variance that is enough; none: all components are given"
    )
    forgetting: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="how much a step counts of the one after it"
    )

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        variables, units = self._stacked(inputs)
        real, shape, dims = np.dtype(np.float64), variables[0].shape or (), variables[0].dims
        k = self.components
        results = [
            Variable("rank", np.dtype(np.int64), (), (), "1", "number of components given"),
            Variable("variance", real, (k,), ("component",), power(units, 2), "variance of the projections"),
            Variable("energy", real, (k,), ("component",), "1", "share of the variance"),
            Variable("truncation", real, (), (), "1", "bound on the error of what was cut off on the way"),
        ]
        turned = "rotation of the modes to the directions of the series"
        results.append(Variable("turn", real, (k, k), ("component", "turned"), "1", turned))
        for word, extent, names in (("modes", (k, *shape), ("component", *dims)), ("mean", shape, dims)):
            for each in variables:
                kept = each.units if word == "mean" or self.scale else "1"
                about = f"{'principal components' if word == 'modes' else 'mean'} of {label(each)}"
                results.append(Variable(self._named(each.name, word), real, extent, names, kept, about))
        return {result.name: result for result in results}

    def describe_series(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        _, units = self._stacked(inputs)
        about = "projection on the principal components, turned to those of the window before"
        shape = (self.components,)
        return {"projection": Variable("projection", np.dtype("f8"), shape, ("component",), units, about)}

    def follow(self, summary: State, memory: State) -> State:
        found, k = self._solved(summary), self.components
        sketches = padded(found.sketches.T, k)
        turn = rotation(memory["sketches"], sketches) if memory and found.rank else np.eye(k)
        left = sketches @ turn if found.rank or not memory else memory["sketches"]
        return summary | {"turn": turn, "sketches": left, "last": memory.get("last", -1)}

    def series(self, summary: State) -> tuple[list[tuple[Step, dict[str, Array]]], State]:
        projected = padded(self._solved(summary).projected, self.components) @ summary["turn"]
        rows = [(step, {"projection": projected[k]}) for k, step in self._new_steps(summary, summary)]
        last = max(summary["last"], int(summary["steps"].max()))
        return rows, {"sketches": summary["sketches"], "last": last}

    def finalize_place(self, state: State, summary: State) -> dict[str, Array]:
        found, k = self._solved(summary), self.components
        shares = found.weights / found.weights.sum()
        modes, average = self._factors.products(state["known"], summary["steps"], found.table, shares)
        return {
            "rank": np.array(found.rank),
            "variance": padded(found.variance, k),
            "energy": found.energy,
            "truncation": np.array(found.truncation),
            "turn": summary["turn"],
            **self._by_variable("modes", padded(modes.T, k).T, state["count"]),
            **self._by_variable("mean", average, state["count"]),
        }

    def _solved(self, summary: State) -> "_Solved":
        """Return what is found in the coordinates of all places."""
        n, k = len(summary["steps"]), self.components
        weighed, mean, weights = self._weighed(summary["steps"], summary["coordinates"])
        left, singular, turns = np.linalg.svd(weighed, full_matrices=False)
        squares = singular**2
        whole = squares.sum() + summary["error"] ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            energy = squares / whole
            freedom = weights.sum() - (weights @ weights) / weights.sum()
            r = self._rank(singular, energy, self._rounding(weighed))
            table = np.sqrt(weights)[:, np.newaxis] * left[:, :r] / singular[:r]
            variance = squares[:r] / freedom if n > 1 else np.full(k, np.nan)
            truncation = summary["error"] / np.sqrt(whole)
        sketches = turns[:r] @ summary["directions"]
        signs = np.where(sketches @ SIGNS < 0, -1.0, 1.0)
        return _Solved(
            rank=r,
            variance=variance,
            energy=padded(energy[:r], k) if whole > 0 else np.full(k, np.nan),
            truncation=float(truncation),
            weights=weights,
            table=table * signs,
            projected=(summary["coordinates"] - mean) @ turns[:r].T * signs,
            sketches=sketches * signs[:, np.newaxis],
        )

    @property
    def _factors(self) -> Factors:
        return Factors(2 * self.components, self.forgetting, self.method)

    def _rank(self, singular: Reals, energy: Reals, rounding: float) -> int:
        """Return how many components are given."""
        rank = int((singular > rounding).sum())
        enough = rank if self.energy is None else int(np.searchsorted(np.cumsum(energy), self.energy)) + 1
        return min(rank, enough, self.components)


@dataclass(frozen=True, slots=True)
class _Solved:
    """Components in the coordinates of steps: a mode is the steps times a column of `table`."""

    rank: int
    variance: Reals
    energy: Reals
    truncation: float
    weights: Reals
    table: Reals
    projected: Reals
    sketches: Reals
