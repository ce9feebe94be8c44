# SPDX-License-Identifier: Apache-2.0
"""Which parameters of an ensemble a field depends on: Sobol' indices, cell by cell."""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from analytics.fields import OneName, label, power, require_real
from analytics.sampling import Reals
from insitu.model import Array, Variable
from insitu.operator import Batch, Operator, Over, State, require_array

#: A standard deviation of so many rounding errors of the mean is none.
ROUNDING = 16 * float(np.finfo(np.float64).eps)


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
    Intervals by Fisher's z, tanh(artanh(r) ± 1.96 / √(N - 3)) for 0.95; NaN for N < 4. They hold at that rate for
    outputs that are about normal; for others they may be too narrow or too wide. At N = 400, 0.95 turned out as 0.91 to
    0.96 for Sobol's G function, and as 0.76 (total index of the first parameter) to 0.97 for Ishigami's.

    **Masked.** Where the variance is no larger than `floor`, or than rounding makes it, indices are NaN, not 0: nothing
    depends on anything there. A value that is NaN or infinite makes what it enters NaN in its cell: of a C, the indices
    of its parameter; of A or B, all.

    **Accuracy.** Exact but for rounding in any order, tree and split; right where the mean is 1e8 times the standard
    deviation: means and co-moments are merged (P. Pébay, SAND2008-6212, 2008), never sums of products.

    **Cost.** State: (4 `parameters` + 4) float64 per cell and step, and the fields of members that wait for their
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
        n, means, squares, products = _sums(state, self.parameters)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = (squares[0] + squares[1]) / (2 * (n - 1)) if n > 1 else np.full(squares[0].shape, np.nan)
            known = (variance > self.floor) & (np.sqrt(variance) > ROUNDING * np.abs(means[:2]).max(axis=0))
            correlations = np.clip(products / np.sqrt(squares[:2, np.newaxis] * squares[2:]), -1.0, 1.0)
            correlations = np.where(known, correlations, np.nan)
            with_a, with_b = correlations
            (low_a, low_b), (high_a, high_b) = self._interval(correlations, n)
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

    def _interval(self, correlations: Reals, n: int) -> tuple[Reals, Reals]:
        """Return the limits of correlations over `n` pairs, by Fisher's z."""
        if n < 4:
            return np.full_like(correlations, np.nan), np.full_like(correlations, np.nan)
        z, half = np.arctanh(correlations), NormalDist().inv_cdf((1 + self.level) / 2) / np.sqrt(n - 3)
        return np.tanh(z - half), np.tanh(z + half)

    def _folded(self, state: State) -> State:
        """Return the state with the groups that are whole folded."""
        waiting = dict(state["waiting"])
        whole = [waiting.pop(key) for key, group in state["waiting"].items() if len(group) == self._size]
        if not whole:
            return state
        outputs = np.array([[group[str(role)] for role in range(self._size)] for group in whole])
        means = outputs.mean(axis=0)
        outputs -= means
        new = {
            "groups": len(whole),
            "means": means,
            "squares": np.einsum("gr...,gr...->r...", outputs, outputs),
            "products": np.stack([np.einsum("g...,gr...->r...", outputs[:, k], outputs[:, 2:]) for k in (0, 1)]),
        }
        return _merged(state, new) | {"waiting": waiting}


def _merged(a: State, b: State) -> State:
    """Return the sums of the groups of both."""
    if not a.get("groups") or not b.get("groups"):
        return {key: part for key, part in (a if a.get("groups") else b).items() if key != "waiting"}
    n = a["groups"] + b["groups"]
    between, weight = b["means"] - a["means"], a["groups"] * b["groups"] / n
    return {
        "groups": n,
        "means": a["means"] + between * (b["groups"] / n),
        "squares": a["squares"] + b["squares"] + weight * between**2,
        "products": a["products"] + b["products"] + weight * between[:2, np.newaxis] * between[2:],
    }


def _sums(state: State, parameters: int) -> tuple[int, Reals, Reals, Reals]:
    """Return the number of groups, and means, squares and products; of none, zeros for the cells that are known."""
    if state.get("groups"):
        return state["groups"], state["means"], state["squares"], state["products"]
    some = next((values.shape for group in state.get("waiting", {}).values() for values in group.values()), ())
    none = np.zeros((parameters + 2, *some))
    return 0, none, none, np.zeros((2, parameters, *some))
