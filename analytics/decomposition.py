# SPDX-License-Identifier: Apache-2.0
"""What operators that find a few patterns in the steps of a whole field have in common.

Each place factors its own steps (`analytics.factors`). At the end of a window it says how its steps look in its own few
directions: `coordinates`, (steps, directions), that have the distances and angles of its steps. Those of several places
side by side have the distances and angles of all their cells together, and are turned to the leading directions again
when they are more than `carry`. With them go sketches of the `directions` (`analytics.alignment`), by which patterns
get their signs, and are told apart by those of the window before. So whatever is to be found is found in one small
matrix, and each place's patterns are its steps times a table that the summary gives.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from analytics.alignment import sketch
from analytics.factors import Factors, Method, Reals, coefficients, steps_of
from analytics.fields import refuse_other_blocks, stacked
from analytics.kernels.values import refuse_nan
from insitu.errors import OperatorError
from insitu.model import Array, Extent, Step, Variable
from insitu.operator import Batch, Names, Over, SeriesOperator, State, require_array


class Decomposition(SeriesOperator):
    """Keys and folding of `pca` and `dmd`."""

    reductions = frozenset({frozenset({"step"})})
    #: Whether coordinates are of deviations from the mean.
    centred: ClassVar[bool] = True

    of: Names = Field(
        description="the variable, or several of one grid and one unit (or with a scale) that are stacked"
    )
    over: Over = Field(default=("step",), description="what is reduced: step")
    components: Annotated[int, Field(ge=1)] = Field(default=8, description="how many patterns are looked for at most")
    scale: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = Field(
        default=None, description="what each variable of `of` is divided by, in its units, before they are stacked"
    )
    method: Method = Field(
        default="gram", description="gram: fast, sees what is above 1e-7 of the largest; qr: slower, 1e-14"
    )
    nan: Literal["propagate", "fail"] = Field(
        default="propagate", description="what a NaN does: its cell takes no part and is NaN, or the fold fails"
    )

    @model_validator(mode="after")
    def _a_scale_for_each(self) -> "Decomposition":
        if self.scale is not None and len(self.scale) != len(self.of):
            raise ValueError(f"scale: expected one number for each of {list(self.of)}, got {list(self.scale)}")
        return self

    def init(self) -> State:
        return {}

    def update(self, state: State, batch: Batch) -> State:
        first = self.of[0]
        for name in self.of:
            refuse_other_blocks(batch, first, name)
            if self.nan == "fail":
                refuse_nan(batch, name)
        steps = [step.sequence for step in batch.steps]
        samples = [self._flat([batch[name][k] for name in self.of]) for k in range(len(batch))]
        return {
            "start": list(batch.start[first]),
            "count": list(batch[first][0].shape),
            "shape": list(batch.variables[first].shape or ()),
            "known": self._factors.update(state.get("known", {}), steps, samples),
            "steps": _evened([*state.get("steps", []), _table(batch.steps)]),
        }

    def merge(self, a: State, b: State) -> State:
        if not a or not b:
            return a or b
        return a | {"known": self._factors.merge(a["known"], b["known"]), "steps": _evened([*a["steps"], *b["steps"]])}

    def summarize(self, state: State) -> State:
        if not state:
            return {}
        factor = self._factors.settled(state["known"])
        steps = steps_of(factor)
        order = np.argsort(steps)
        rows, mean, lead = factor["rows"][:-1], np.nan_to_num(factor["rows"][-1]), coefficients(factor)[order, :-1]
        lengths = np.sqrt(np.einsum("rc,rc->r", rows, rows))
        sketched = sketch([(k, state["start"], state["count"], state["shape"]) for k in range(len(self.of))])
        coordinates, directions = lead * lengths, sketched(rows / lengths[:, np.newaxis])
        if not self.centred:
            along = rows @ mean / lengths
            rest = mean - along / lengths @ rows
            beside = np.linalg.norm(rest)
            coordinates = np.column_stack([coordinates + along, np.full(len(order), beside)])
            directions = np.vstack([directions, sketched(rest[np.newaxis] / (beside or 1.0))])
        error = float(np.sqrt(factor["cut_off"]))
        told = {key: np.concatenate([each[key] for each in state["steps"]]) for key in ("sequence", "index", "time")}
        its = np.argsort(told["sequence"])
        return {
            "steps": steps[order],
            "index": told["index"][its],
            "time": told["time"][its],
            "coordinates": coordinates,
            "directions": directions,
            "error": error,
        }

    def combine(self, a: State, b: State) -> State:
        if not a or not b:
            return a or b
        steps, here, there = np.intersect1d(a["steps"], b["steps"], assume_unique=True, return_indices=True)
        if not len(steps):
            raise OperatorError(
                f"no step of this window has {' and '.join(self.of)} at every place; publish them on all ranks at the "
                "same steps, or take longer windows"
            )
        coordinates = np.hstack([a["coordinates"][here], b["coordinates"][there]])
        directions = np.vstack([a["directions"], b["directions"]])
        error = float(np.hypot(a["error"], b["error"]))
        most = self._factors.carry + (not self.centred)
        if coordinates.shape[1] > most:
            weighed = self._weighed(steps, coordinates)[0]
            _, singular, turns = np.linalg.svd(weighed, full_matrices=False)
            coordinates, directions = coordinates @ turns[:most].T, turns[:most] @ directions
            lost = singular[most:]
            error += float(np.linalg.norm(lost[lost > self._rounding(weighed)]))
        of_steps = {"steps": steps, "index": a["index"][here], "time": a["time"][here]}
        return {**of_steps, "coordinates": coordinates, "directions": directions, "error": error}

    def _new_steps(self, summary: State, memory: State) -> list[tuple[int, Step]]:
        """Return the steps that no window before had, each with its row in the summary."""
        told = zip(summary["steps"].tolist(), summary["index"].tolist(), summary["time"].tolist(), strict=True)
        return [(k, Step(*each)) for k, each in enumerate(told) if each[0] > memory.get("last", -1)]

    @property
    def _factors(self) -> Factors:
        return Factors(2 * self.components, method=self.method)

    def _weighed(self, steps: Array, coordinates: Reals) -> tuple[Reals, Reals, Reals]:
        """Return coordinates as they count: weighted, and without their mean if so; the mean; and the weights."""
        weights = self._factors.weights(steps, int(steps.max()))
        mean = weights @ coordinates / weights.sum() if self.centred else np.zeros(coordinates.shape[1])
        return np.sqrt(weights)[:, np.newaxis] * (coordinates - mean), mean, weights

    def _rounding(self, coordinates: Reals) -> float:
        """Return the singular value of coordinates below which there is nothing but rounding.

        Only deviations from the mean may have gone through squares.
        """
        if not coordinates.size:
            return 0.0
        own = Factors(1, method="qr").floor(len(coordinates)) * np.linalg.norm(coordinates, 2)
        deviations = np.linalg.norm(coordinates - coordinates.mean(axis=0), 2)
        return float(max(own, self._factors.floor(self._factors.carry) * deviations))

    def _flat(self, arrays: Sequence[Array]) -> Array:
        """Return the cells of all variables in a step as one row."""
        if self.scale is not None:
            arrays = [array / scale for array, scale in zip(arrays, self.scale, strict=True)]
        flat = [array.reshape(-1) for array in arrays]
        return flat[0] if len(flat) == 1 else np.concatenate(flat)

    def _stacked(self, inputs: Mapping[str, Variable]) -> tuple[list[Variable], str]:
        """Return the variables, and the units of what they become; raise `OperatorError` where they do not fit."""
        require_array(self, inputs)
        return stacked([inputs[name] for name in self.of], self.scale, "added up")

    def _by_variable(self, word: str, flat: Array, count: Extent) -> dict[str, Array]:
        """Cut patterns of all variables, (..., cells of all), into results for each."""
        parts = np.split(flat, len(self.of), axis=-1)
        scales = self.scale or (1.0,) * len(self.of)
        names = [self._named(name, word) for name in self.of]
        return {
            name: (part * scale).reshape((*part.shape[:-1], *count))
            for name, part, scale in zip(names, parts, scales, strict=True)
        }

    def _named(self, variable: str, word: str) -> str:
        return word if len(self.of) == 1 else f"{variable}_{word}"


def padded(values: Array, length: int, fill: float = 0.0) -> Array:
    """Return `values` with their last dimension filled up to `length`."""
    widths = [(0, 0)] * (values.ndim - 1) + [(0, length - values.shape[-1])]
    return np.pad(values, widths, constant_values=fill)


def _table(steps: Sequence[Step]) -> State:
    return {
        "sequence": np.array([step.sequence for step in steps], np.int64),
        "index": np.array([step.index for step in steps], np.int64),
        "time": np.array([step.time for step in steps]),
    }


def _evened(pieces: list[State]) -> list[State]:
    """Join the last pieces while they are of about one length, so that there are few."""
    while len(pieces) > 1 and len(pieces[-2]["sequence"]) <= len(pieces[-1]["sequence"]):
        before, last = pieces[-2:]
        pieces = [*pieces[:-2], {key: np.concatenate([before[key], last[key]]) for key in before}]
    return pieces
