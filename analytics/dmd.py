# SPDX-License-Identifier: Apache-2.0
"""Dynamic modes of a field: patterns that grow, decay and swing, each at its own rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from analytics.alignment import SIGNS, matching
from analytics.decomposition import Decomposition, padded
from analytics.factors import Reals
from analytics.fields import label
from insitu.errors import OperatorError
from insitu.model import Array, Step, Variable
from insitu.operator import State

Complex = npt.NDArray[np.complex128]

#: How far times between steps may differ, of their mean.
UNEVEN = 1e-6


class DMD(Decomposition):
    """Dynamic mode decomposition: the linear map that leads from each step to the next, as modes and their rates.

    A step x of the whole field, all variables of `of` stacked, at the time t after the first one of the window, becomes
    x ≈ Σ b φ exp((g + 2πi f) t), with φ the ``modes``, b the ``amplitude``, g the ``growth``, f the ``frequency``. Real
    fields have modes in conjugate pairs, of which the one that turns forward (f > 0) comes first.

    ==============  ==========  ================  =====================================================================
    result          dtype       dims              value
    ==============  ==========  ================  =====================================================================
    ``rank``        int64                         r, how many modes are given
    ``growth``      float64     component         g, per unit of the steps' time; NaN beyond the rank
    ``frequency``   float64     component         f, likewise
    ``amplitude``   complex128  component         b, fitted to the first step; 0 beyond the rank
    ``eigenvalue``  complex128  component         of K, from a step to the next; NaN beyond the rank
    ``residual``    float64                       ‖y - Kx‖ / ‖y‖ over all pairs (x, y) of a step and the next, K the map
    ``column``      int64       component         in which column of the series' ``projection`` a mode is
    ``truncation``  float64                       bound on the error of what was cut off on the way, as a share
    ``modes``       complex128  component, cells  φ, of length one over all cells; 0 beyond the rank
    ==============  ==========  ================  =====================================================================

    With several variables there are modes for each, as ``u_modes``.

    **Series**, of every step that no window before had: ``drift``, float64, the residual for the pair that ends in the
    step, NaN where there is none; and ``projection``, (component) complex128, how much of each mode is in the step, by
    least squares. Its columns are matched to those of the window before, the modes that are most alike first, and
    turned to their phase (by sketches, see `analytics.alignment`), as modes of different rates must not be mixed.

    K is found by least squares in the `components` leading directions of the steps, their mean among them (projected
    DMD: P. Schmid, J. Fluid Mechanics 656, 2010; J. Tu and others, J. Computational Dynamics 1, 2014). A pair needs two
    steps that were published one after the other; what is lost or lacks a variable makes none. Steps must be evenly
    spaced in time, else `OperatorError` says so. A window with no pair has rank 0, and NaN for what it cannot know.
    Take twice as many components as there are swings, and one for a mean.

    **Order and phase.** By the mean square of what a mode adds to the window. A mode's phase is such that its sum with
    weights that are drawn for each cell by its place, once and for all, is real and positive.

    **What else** holds for `pca` holds here: several variables and `scale`; NaN; `method`; and that results are the
    same for any order, tree and split into places, but for rounding as long as the steps' rank, less the mean, is at
    most 2 `components`, and close by `truncation` beyond. State and summaries are of the same size. As steps keep their
    mean here, one that is 1e8 times the deviations leaves them 7 digits.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (3,), ("x",))
    >>> steps = [0.5**n * np.array([1.0, 2.0, 2.0]) for n in range(6)]
    >>> dmd = DMD(of="u", components=2, window=6)
    >>> found = dmd.finalize(dmd.update(dmd.init(), batch([u], {"u": steps})))
    >>> int(found["rank"]), float(np.exp(found["growth"][0])), abs(found["modes"][0]) * 3
    (1, 0.5, array([1., 2., 2.]))
    """

    centred: ClassVar[bool] = False

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        variables, units = self._stacked(inputs)
        real, both, shape, dims = np.dtype("f8"), np.dtype("c16"), variables[0].shape or (), variables[0].dims
        k, each = (self.components,), ("component",)
        results = [
            Variable("rank", np.dtype(np.int64), (), (), "1", "number of modes given"),
            Variable("growth", real, k, each, "", "growth rate, per unit of time"),
            Variable("frequency", real, k, each, "", "frequency, per unit of time"),
            Variable("amplitude", both, k, each, units, "amplitude in the first step"),
            Variable("eigenvalue", both, k, each, "1", "eigenvalue of the map from a step to the next"),
            Variable("residual", real, (), (), "1", "error of the map, relative"),
        ]
        results.append(Variable("column", np.dtype(np.int64), k, each, "1", "column of the projection"))
        results.append(Variable("truncation", real, (), (), "1", "bound on the error of what was cut off on the way"))
        for variable in variables:
            name, of = self._named(variable.name, "modes"), variable.units if self.scale else "1"
            results.append(
                Variable(name, both, (*k, *shape), (*each, *dims), of, f"dynamic modes of {label(variable)}")
            )
        return {result.name: result for result in results}

    def describe_series(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        _, units = self._stacked(inputs)
        shape, about = (self.components,), "amplitude of each mode in the step"
        return {
            "drift": Variable("drift", np.dtype("f8"), (), (), "1", "error of the map to the step, relative"),
            "projection": Variable("projection", np.dtype("c16"), shape, ("component",), units, about),
        }

    def follow(self, summary: State, memory: State) -> State:
        found, k = self._solved(summary), self.components
        sketches = padded(found.sketches.T, k)
        known = memory and found.rank
        order, phase = matching(memory["sketches"], sketches) if known else (np.arange(k), np.ones(k, complex))
        left = sketches[:, order] * phase if found.rank or not memory else memory["sketches"]
        return summary | {"order": order, "phase": phase, "sketches": left, "last": memory.get("last", -1)}

    def series(self, summary: State) -> tuple[list[tuple[Step, dict[str, Array]]], State]:
        found = self._solved(summary)
        projected = padded(found.projected, self.components)[:, summary["order"]] / summary["phase"]
        rows = [
            (step, {"drift": found.drift[k], "projection": projected[k]})
            for k, step in self._new_steps(summary, summary)
        ]
        last = max(summary["last"], int(summary["steps"].max()))
        return rows, {"sketches": summary["sketches"], "last": last}

    def finalize_place(self, state: State, summary: State) -> dict[str, Array]:
        found, k = self._solved(summary), self.components
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = np.log(found.values) / _spacing(summary["steps"], summary["time"])
        modes = self._patterns(state, summary["steps"], found.table)
        return {
            "rank": np.array(found.rank),
            "growth": padded(rates.real, k, np.nan),
            "frequency": padded(rates.imag / (2 * np.pi), k, np.nan),
            "amplitude": padded(found.amplitude, k),
            "eigenvalue": padded(found.values, k, np.nan),
            "residual": np.array(found.residual),
            "column": np.argsort(summary["order"]),
            "truncation": np.array(found.truncation),
            **self._by_variable("modes", padded(modes.T, k).T, state["count"]),
        }

    def _solved(self, summary: State) -> "_Solved":
        """Return what is found in the coordinates of all places."""
        steps, z, k = summary["steps"], summary["coordinates"], self.components
        earlier = np.flatnonzero(np.diff(steps) == 1)
        x, y = z[earlier], z[earlier + 1]
        left, singular, right = np.linalg.svd(x, full_matrices=False)
        r = min(int((singular > self._rounding(z)).sum()), k)
        right, inverse = right[:r], left[:, :r] / singular[:r]
        onward = right @ y.T @ inverse
        misses = y - x @ right.T @ onward.T @ right
        values, vectors = np.linalg.eig(onward)
        amplitude = np.linalg.lstsq(right.T @ vectors, z[0].astype(complex), rcond=None)[0]
        order = _by_size(values, amplitude, len(steps))
        modes = right.T @ vectors[:, order]
        sketches = modes.T @ summary["directions"]
        phase = _phase(sketches @ SIGNS)
        table = np.zeros((len(steps), r), complex)
        table[earlier] = inverse @ vectors[:, order] / phase
        drift = np.full(len(steps), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            residual = np.linalg.norm(misses) / np.linalg.norm(y)
            drift[earlier + 1] = np.linalg.norm(misses, axis=1) / np.linalg.norm(y, axis=1)
            truncation = summary["error"] / np.hypot(np.linalg.norm(z), summary["error"])
        return _Solved(
            rank=r,
            values=values[order].astype(complex),
            amplitude=amplitude[order] * phase,
            residual=float(residual),
            drift=drift,
            truncation=float(truncation),
            table=table,
            projected=np.linalg.lstsq(modes / phase, z.T.astype(complex), rcond=None)[0].T,
            sketches=sketches / phase[:, np.newaxis],
        )

    def _patterns(self, state: State, steps: Array, table: Complex) -> Complex:
        """Return the steps of a place times a complex table, (columns, cells)."""
        both = np.hstack([table.real, table.imag])
        found, _ = self._factors.products(state["known"], steps, both, np.zeros(len(steps)))
        patterns = np.empty((table.shape[1], found.shape[1]), np.complex128)
        patterns.real, patterns.imag = np.split(found, 2)
        return patterns


@dataclass(frozen=True, slots=True)
class _Solved:
    """Modes in the coordinates of steps: a mode is the steps times a column of `table`."""

    rank: int
    values: Complex
    amplitude: Complex
    residual: float
    drift: Reals
    truncation: float
    table: Complex
    projected: Complex
    sketches: Complex


def _by_size(values: Complex, amplitude: Complex, steps: int) -> Array:
    """Return the order of modes by what they add to a window; a pair stays together, the one with f > 0 first."""
    with np.errstate(over="ignore", invalid="ignore"):
        powers = np.abs(values)[:, np.newaxis] ** (2 * np.arange(steps))
        size = np.abs(amplitude) ** 2 * powers.mean(axis=1)
    for first in np.flatnonzero(values.imag > 0):  # LAPACK gives pairs one after the other
        size[first + 1] = size[first]
    return np.argsort(-size, kind="stable")


def _phase(seen: Complex) -> Complex:
    phase = np.ones_like(seen)
    lengths = np.abs(seen)
    return np.divide(seen, lengths, out=phase, where=lengths > 0)


def _spacing(steps: Array, times: Reals) -> float:
    """Return the time from one published step to the next, NaN of a single one."""
    if len(steps) < 2:
        return float("nan")
    between = np.diff(times) / np.diff(steps)
    mean = (times[-1] - times[0]) / (steps[-1] - steps[0])
    if mean <= 0 or np.abs(between - mean).max() > UNEVEN * mean:
        raise OperatorError(
            f"steps are not evenly spaced in time: {between.min():g} to {between.max():g} from one to the next, which "
            "gives no rates; publish steps at even times, each later than the one before"
        )
    return float(mean)
