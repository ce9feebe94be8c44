# SPDX-License-Identifier: Apache-2.0
"""Dynamic modes of a field: patterns that grow, decay and swing, each at its own rate."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from analytics.decomposition import Decomposition, padded
from analytics.factors import Reals
from analytics.fields import label
from insitu.errors import OperatorError
from insitu.model import Array, Variable
from insitu.operator import Batch, State

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
    ``residual``    float64                       ‖y - Kx‖ / ‖y‖ over all pairs (x, y) of a step and the next, K the map
    ``drift``       float64     step              the same for the pair that ends in each step; NaN where there is none
    ``truncation``  float64                       bound on the error of what was cut off on the way, as a share
    ``modes``       complex128  component, cells  φ, of length one over all cells; 0 beyond the rank
    ==============  ==========  ================  =====================================================================

    With several variables there are modes for each, as ``u_modes``. With ``window: run`` there is no ``drift``.

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
            Variable("residual", real, (), (), "1", "error of the map, relative"),
        ]
        if self.window != "run":
            results.append(Variable("drift", real, (self.window,), ("step",), "1", "error of the map in each step"))
        results.append(Variable("truncation", real, (), (), "1", "bound on the error of what was cut off on the way"))
        for variable in variables:
            name, of = self._named(variable.name, "modes"), variable.units if self.scale else "1"
            results.append(
                Variable(name, both, (*k, *shape), (*each, *dims), of, f"dynamic modes of {label(variable)}")
            )
        return {result.name: result for result in results}

    def update(self, state: State, batch: Batch) -> State:
        times = np.array([(step.sequence, step.time) for step in batch.steps])
        return super().update(state, batch) | {"times": [*state.get("times", []), times]}

    def merge(self, a: State, b: State) -> State:
        if not a or not b:
            return a or b
        return super().merge(a, b) | {"times": [*a["times"], *b["times"]]}

    def summarize(self, state: State) -> State:
        if not state:
            return {}
        times = np.concatenate(state["times"])
        return super().summarize(state) | {"times": times[np.argsort(times[:, 0]), 1]}

    def combine(self, a: State, b: State) -> State:
        if not a or not b:
            return a or b
        both = super().combine(a, b)
        return both | {"times": a["times"][np.isin(a["steps"], both["steps"])]}

    def finalize_place(self, state: State, summary: State) -> dict[str, Array]:
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
        table = np.zeros((len(steps), r), complex)
        table[earlier] = inverse @ vectors[:, order]
        phase = _phase(summary["seen"] @ table)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = np.log(values[order].astype(complex)) / _spacing(steps, summary["times"])
            residual = np.linalg.norm(misses) / np.linalg.norm(y)
            drift = np.linalg.norm(misses, axis=1) / np.linalg.norm(y, axis=1)
            truncation = summary["error"] / np.hypot(np.linalg.norm(z), summary["error"])
        modes = self._patterns(state, steps, table / phase)
        return {
            "rank": np.array(r),
            "growth": padded(rates.real, k, np.nan),
            "frequency": padded(rates.imag / (2 * np.pi), k, np.nan),
            "amplitude": padded(amplitude[order] * phase, k),
            "residual": np.array(residual),
            **({} if self.window == "run" else {"drift": self._placed(steps[earlier + 1], drift)}),
            "truncation": np.array(truncation),
            **self._by_variable("modes", padded(modes.T, k).T, state["count"]),
        }

    def _patterns(self, state: State, steps: Array, table: Complex) -> Complex:
        """Return the steps of a place times a complex table, (columns, cells)."""
        both = np.hstack([table.real, table.imag])
        found, _ = self._factors.products(state["known"], steps, both, np.zeros(len(steps)))
        patterns = np.empty((table.shape[1], found.shape[1]), np.complex128)
        patterns.real, patterns.imag = np.split(found, 2)
        return patterns


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
