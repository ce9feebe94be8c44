# SPDX-License-Identifier: Apache-2.0
"""Which parameters of an ensemble a field depends on: Sobol' indices, cell by cell."""

from collections.abc import Mapping
from math import comb
from statistics import NormalDist
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from analytics.fields import OneName, label, power, require_real
from analytics.sampling import Reals
from insitu.model import Array, Variable
from insitu.operator import Batch, Operator, Over, State, require_array

#: A standard deviation of so many rounding errors of the mean is none.
ROUNDING = 16 * float(np.finfo(np.float64).eps)

#: Which powers of what A and B deviate from their means, times which of C's, are summed up over the groups.
MIXED = ((1, 1), (2, 1), (1, 2), (3, 1), (2, 2), (1, 3))


class Until(BaseModel):
    """What is known well enough for the simulation to stop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interval: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        description="how wide the widest interval may be"
    )


class Sobol(Operator):
    """First and total Sobol' indices of a field's cells for the parameters of an ensemble, with their intervals.

    The first index of a parameter is the share of the variance that it makes by itself, the total index its share with
    all that it makes together with others.

    **Members** come in groups of `parameters` + 2 (pick-freeze: I. Sobol', Math. Comput. Simul. 55, 2001): A and B with
    parameters drawn independently, and C1, C2 ... with those of A, but the first, second ... parameter of B. Member
    number m is of group m // (parameters + 2), in this order. `of` has a first dimension ``member`` for them; the
    members of a group may come from different ranks, in any order and at different times (an ensemble with a stream for
    each member feeds the same fold): what is there waits for the others. A group that never becomes whole is left out
    as a whole, so a failed member costs its group and biases nothing.

    ==============  =======  ================  ====================================================================
    result          dtype    dims              value
    ==============  =======  ================  ====================================================================
    ``groups``      int64    cells             N, how many groups were whole
    ``variance``    float64  cells             of A and B, with N - 1; the squared units
    ``first``       float64  parameter, cells  S = r(B, C), the correlation of the two outputs over the groups
    ``first_low``   float64  parameter, cells  limits of the interval that holds it at `level`
    ``first_high``  float64  parameter, cells
    ``total``       float64  parameter, cells  T = 1 - r(A, C)
    ``total_low``   float64  parameter, cells  likewise
    ``total_high``  float64  parameter, cells
    ``interval``    float64  cells             width of the widest of these intervals: add groups until it is small
    ==============  =======  ================  ====================================================================

    J.-M. Martinez, Analyse de sensibilité globale par décomposition de la variance, 2011; M. Baudin and others, 2016.
    Intervals on Fisher's scale, tanh(artanh(r) ± 1.96 s / √(N - 3)) for 0.95; NaN for N < 4. For normal outputs s is 1,
    as Fisher has it; here it is what the outputs' fourth moments make it, by the influence of a pair on a correlation,
    xy - r (x² + y²) / 2 (S. J. Devlin and others, Biometrika 62, 1975), over 1 - r². At N = 400, 0.95 turned out as
    0.92 to 0.96 for normal outputs, Sobol's G function and Ishigami's (where s = 1 gave 0.78 to 0.98); at N = 50, as
    0.90 to 0.96.

    **Masked.** Where the variance is no larger than `floor`, or than rounding makes it, indices are NaN, not 0: nothing
    depends on anything there. A value that is NaN or infinite makes what it enters NaN in its cell: of a C, the indices
    of its parameter; of A or B, all.

    **Until.** ``until: {interval: 0.05}`` is short for a rule that stops the simulation once the widest interval of all
    cells that are not masked is no wider than that: ``{when: NAME.interval.max <= 0.05, do: stop, once: true}``. More
    than that (another action, several steps in a row) says a rule of one's own.

    **Accuracy.** Exact but for rounding in any order, tree and split; right where the mean is 1e8 times the standard
    deviation: means and co-moments are merged (P. Pébay, SAND2008-6212, 2008), never sums of products.

    **Cost.** State: (16 `parameters` + 8) float64 per cell and step, and the fields of members that wait for their
    group, however many groups there are.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> a, b = np.random.default_rng(0).normal(size=(2, 2000, 2))  # two parameters; y = 2 x0 + x1
    >>> y = np.array([2, 1])
    >>> members = np.stack([a @ y, b @ y, a @ y + 2 * (b - a)[:, 0], a @ y + (b - a)[:, 1]], axis=1).reshape(-1)
    >>> u = Variable("u", np.dtype("f8"), (8000,), ("member",))
    >>> sobol = Sobol(of="u", parameters=2)
    >>> found = sobol.finalize(sobol.update(sobol.init(), sobol.seen_batch(batch([u], {"u": [members]}))))
    >>> [round(float(each), 1) for each in found["first"]], int(found["groups"])
    ([0.8, 0.2], 2000)
    """

    reductions: ClassVar[frozenset[frozenset[str]]] = frozenset({frozenset({"member"})})

    of: OneName
    over: Over = Field(default=("member",), description="what is reduced: member")
    window: Annotated[int, Field(ge=1)] | Literal["run"] = Field(default=1, description="1: each step has indices")
    parameters: Annotated[int, Field(ge=1)] = Field(description="how many parameters the ensemble varies")
    level: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="how sure the intervals are")
    floor: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="the variance, in squared units, up to which a cell is masked"
    )
    until: Until | None = Field(
        default=None, description="{interval: 0.05} stops the simulation once no interval is wider"
    )

    def stop_when(self, name: str, dims: Mapping[str, int] | None) -> str:
        if self.until is None:
            return ""
        widest = f"{name}.interval" if (dims or {}).get("interval") == 0 else f"{name}.interval.max"
        return f"{widest} <= {self.until.interval!r}"

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        require_array(self, inputs)
        of = inputs[self.of[0]]
        require_real(of)
        real, shape, dims = np.dtype(np.float64), of.shape or (), of.dims
        results = [
            Variable("groups", np.dtype(np.int64), shape, dims, "1", "number of groups"),
            Variable("variance", real, shape, dims, power(of.units, 2), f"variance of {label(of)}"),
        ]
        for name, what in (("first", "first"), ("total", "total")):
            for end, about in (("", ""), ("_low", ", lower limit"), ("_high", ", upper limit")):
                about = f"{what} Sobol' index of {label(of)}{about}"
                results.append(Variable(name + end, real, (self.parameters, *shape), ("parameter", *dims), "1", about))
        results.append(Variable("interval", real, shape, dims, "1", "width of the widest interval"))
        return {result.name: result for result in results}

    def init(self) -> State:
        return {}

    def update(self, state: State, batch: Batch) -> State:
        waiting = {key: dict(group) for key, group in state.get("waiting", {}).items()}
        for step, member, values in zip(batch.steps, batch.members, batch[self.of[0]], strict=True):
            group, role = divmod(member, self._size)
            waiting.setdefault(f"{step.sequence}/{group}", {})[str(role)] = values.astype(np.float64)
        return self._folded(state | {"waiting": waiting})

    def merge(self, a: State, b: State) -> State:
        if not a or not b:
            return a or dict(b)
        waiting = {key: a["waiting"].get(key, {}) | b["waiting"].get(key, {}) for key in a["waiting"] | b["waiting"]}
        return self._folded(_merged(a, b) | {"waiting": waiting})

    def finalize(self, state: State) -> dict[str, Array]:
        part = _sums(state, self.parameters)
        n, means, squares = part["groups"], part["means"], part["powers"][0]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            variance = (squares[0] + squares[1]) / (2 * (n - 1)) if n > 1 else np.full(squares[0].shape, np.nan)
            known = (variance > self.floor) & (np.sqrt(variance) > ROUNDING * np.abs(means[:2]).max(axis=0))
            correlations = np.clip(_correlated(part, 1, 1), -1.0, 1.0)
            correlations = np.where(known, correlations, np.nan)
            with_a, with_b = correlations
            (low_a, low_b), (high_a, high_b) = self._interval(correlations, part)
        widths = np.stack([high_a - low_a, high_b - low_b])
        return {
            "groups": np.full(variance.shape, n, np.int64),
            "variance": variance,
            "first": with_b,
            "first_low": low_b,
            "first_high": high_b,
            "total": 1.0 - with_a,
            "total_low": 1.0 - high_a,
            "total_high": 1.0 - low_a,
            "interval": widths.max(axis=(0, 1)),
        }

    @property
    def _size(self) -> int:
        return self.parameters + 2

    def _interval(self, r: Reals, part: State) -> tuple[Reals, Reals]:
        """Return the limits of the correlations `r` of the pairs in `part`."""
        n = part["groups"]
        if n < 4:
            return np.full_like(r, np.nan), np.full_like(r, np.nan)
        both = _correlated(part, 2, 2)
        fourth = _correlated(part, 4, 0) + 2 * both + _correlated(part, 0, 4)
        influence = both - r * (_correlated(part, 3, 1) + _correlated(part, 1, 3)) + r**2 / 4 * fourth
        # Outputs that are the same in all groups have one correlation, whatever rounding leaves of their influence.
        s = np.where(r**2 < 1, np.sqrt(np.maximum(influence, 0.0)) / (1 - r**2), 0.0)
        z, half = np.arctanh(r), s * NormalDist().inv_cdf((1 + self.level) / 2) / np.sqrt(n - 3)
        return np.tanh(z - half), np.tanh(z + half)

    def _folded(self, state: State) -> State:
        """Return the state with the groups that are whole folded."""
        waiting = dict(state["waiting"])
        whole = [waiting.pop(key) for key, group in state["waiting"].items() if len(group) == self._size]
        if not whole:
            return state
        outputs = np.array([[group[str(role)] for role in range(self._size)] for group in whole])
        with np.errstate(over="ignore", invalid="ignore"):  # of what is too large, the intervals are not known
            means = outputs.mean(axis=0)
            outputs -= means
            powers = [outputs**k for k in range(5)]
            mixed = [
                [np.einsum("g...,gr...->r...", powers[i][:, k], powers[j][:, 2:]) for k in (0, 1)] for i, j in MIXED
            ]
            new = {
                "groups": len(whole),
                "means": means,
                "powers": np.stack([powers[k].sum(axis=0) for k in (2, 3, 4)]),
                "mixed": np.array(mixed),
            }
            return _merged(state, new) | {"waiting": waiting}


def _merged(a: State, b: State) -> State:
    """Return the sums of the groups of both."""
    if not a.get("groups") or not b.get("groups"):
        return {key: part for key, part in (a if a.get("groups") else b).items() if key != "waiting"}
    n = a["groups"] + b["groups"]
    between = b["means"] - a["means"]
    parts = ((a, -between * (b["groups"] / n)), (b, between * (a["groups"] / n)))
    return {
        "groups": n,
        "means": a["means"] + between * (b["groups"] / n),
        "powers": np.stack([sum(_moved_power(part, off, k) for part, off in parts) for k in (2, 3, 4)]),
        "mixed": np.stack([sum(_moved(part, off, i, j) for part, off in parts) for i, j in MIXED]),
    }


def _sum(part: State, i: int, j: int) -> Reals:
    """Sum up over the groups: power `i` of what A and B deviate, times power `j` of what the C do."""
    if i + j < 2:
        return np.array(0.0 if i + j else part["groups"])
    if j == 0:
        return np.asarray(part["powers"][i - 2][:2, np.newaxis])
    return np.asarray(part["powers"][j - 2][2:] if i == 0 else part["mixed"][MIXED.index((i, j))])


def _moved(part: State, off: Reals, i: int, j: int) -> Reals:
    """Return the same sum of deviations from other means, which the means of `part` are `off`."""
    x, y = off[:2, np.newaxis], off[2:]
    terms = [(comb(i, p) * comb(j, q), i - p, j - q, p, q) for p in range(i + 1) for q in range(j + 1) if p + q != 1]
    return np.asarray(sum(c * x**a * y**b * _sum(part, p, q) for c, a, b, p, q in terms))


def _moved_power(part: State, off: Reals, k: int) -> Reals:
    """Return the sum of the `k`-th powers of deviations from other means, for every member of a group."""
    moved = part["groups"] * off**k
    for p in range(2, k + 1):
        moved = moved + comb(k, p) * off ** (k - p) * part["powers"][p - 2]
    return np.asarray(moved)


def _correlated(part: State, i: int, j: int) -> Reals:
    """Return the mean of the product of powers, in standard deviations: of powers 1 and 1, the correlation."""
    n, spread_x, spread_y = part["groups"], np.sqrt(_sum(part, 2, 0)), np.sqrt(_sum(part, 0, 2))
    return np.asarray(_sum(part, i, j) / (spread_x**i * spread_y**j) * float(max(n, 1)) ** ((i + j) / 2 - 1))


def _sums(state: State, parameters: int) -> State:
    """Return what is known of the groups; of none, zeros for the cells that are known."""
    if state.get("groups"):
        return state
    some = next((values.shape for group in state.get("waiting", {}).values() for values in group.values()), ())
    none = np.zeros((parameters + 2, *some))
    return {
        "groups": 0,
        "means": none,
        "powers": np.stack([none] * 3),
        "mixed": np.zeros((len(MIXED), 2, parameters, *some)),
    }
