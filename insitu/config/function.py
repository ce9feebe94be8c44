# SPDX-License-Identifier: Apache-2.0
"""Functions of a window: an operator whose fold is to keep the blocks, for a plain function to see all of them."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from insitu.config.section import Section
from insitu.config.values import Count, DtypeName, Identifier, Indices, indices
from insitu.errors import OperatorError
from insitu.model import Array, Variable
from insitu.operator import Batch, Operator, Over, State
from insitu.selection import cut, faults_of_selection, selected
from insitu.wire.blocks import Range


class Yielded(Section):
    """What a function is going to return under a name; by default a number."""

    dims: tuple[str, ...] = Field(default=(), description="the names of its dimensions")
    shape: tuple[Count, ...] = Field(default=(), description="its shape, the same for every window")
    dtype: DtypeName = Field(default="float64", description="its dtype; what can be cast to it without loss is")
    units: str = Field(default="", description="its units, as a UDUNITS string")

    @model_validator(mode="after")
    def _one_length_for_each(self) -> "Yielded":
        if len(self.dims) != len(self.shape):
            raise ValueError(f"dims names {len(self.dims)} dimensions and shape has {len(self.shape)} lengths")
        return self


class Function(Operator):
    """A function that is called for each window with an xarray.Dataset of Dask arrays.

    The dataset has the variables of `of`, with dims, units and the dimension ``step`` first, and the coordinates
    ``step`` (the author's index) and ``time``. Blocks of all ranks are put together where they lie, when the function
    asks for them. It returns a Dataset, a DataArray, a dict of numbers, or a matplotlib figure.

    What it returns is known when it has returned for the first time. Where `yields` says it before, ``insitu check``
    knows it too, and other operators can take it, as ``NAME.speed``: so much of it, up to 1 MiB, comes to the
    controller. What a window then returns must be just that.

    **Cost.** The blocks of a window stay in the memory of the staging nodes, and count against it, until the function
    has returned; twice while windows overlap. `select` keeps less.
    """

    grows: ClassVar[bool] = True
    stays: ClassVar[bool] = True
    not_on_ranks: ClassVar[str] = "is given the blocks of all ranks, and keeps them instead of folding them"

    use: str = Field(description="the function, as module:function")
    over: Over = Field(default=("step", "space"), exclude=True, description="has no meaning for a function")
    when: Literal["all", "any"] = Field(
        default="all", description="which steps are given: those with all variables of `of`, or with any of them"
    )
    select: dict[str, Indices] = Field(
        default={}, description='by dim, which indices are kept, as slices: "0:256", "::4", "-8:"'
    )
    yields: dict[Identifier, Yielded] = Field(
        default={},
        description="what it returns, by name, so that others can take it: {speed: {units: m s-1}}; of an array also "
        "dims and shape",
    )

    @model_validator(mode="after")
    def _has_no_over(self) -> "Function":
        if "over" in self.model_fields_set and self.over != ("step", "space"):
            raise ValueError(f"over: {list(self.over)} has no meaning for a function, which is given whole windows")
        return self

    @property
    def needs_all(self) -> bool:
        return False  # which steps have all variables is known only when all ranks' blocks are seen together

    @property
    def ranges(self) -> tuple[Range, ...]:
        """What is kept of each dim."""
        return tuple(Range(dim, *indices(text)) for dim, text in self.select.items())

    def ranges_of(self, variable: Variable) -> tuple[Range, ...]:
        """What is kept of the dims that a variable has."""
        return tuple(one for one in self.ranges if one.dim in variable.dims)

    def kept(self, variable: Variable) -> Variable:
        """Return a variable as it is kept."""
        return selected(variable, self.ranges_of(variable))

    @property
    def yielded(self) -> dict[str, Variable]:
        """What it is said to return; nothing where that is to be seen."""
        return {
            name: Variable(name, np.dtype(one.dtype), one.shape, one.dims, one.units)
            for name, one in self.yields.items()
        }

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        for one in self.ranges:
            having = [variable for variable in inputs.values() if one.dim in variable.dims]
            for variable in having or list(inputs.values())[:1]:
                if fault := faults_of_selection(variable, [one]).get(one.dim):
                    raise OperatorError(f"select: {one.dim}: {fault}")
        return self.yielded

    def init(self) -> State:
        return {"steps": {}, "blocks": []}

    def update(self, state: State, batch: Batch) -> State:
        for step in batch.steps:
            state["steps"][str(step.sequence)] = {"index": step.index, "time": step.time}
        for name, arrays in batch.arrays.items():
            variable, start = batch.variables[name], batch.start[name]
            for step, data in zip(batch.steps, arrays, strict=True):
                part = cut(variable, self.ranges_of(variable), start, data.shape)
                if variable.joined or 0 not in part.count:  # no rows are something to know
                    cells = np.array(data[part.cells], order="C")
                    where = {"name": name, "sequence": step.sequence, "rank": batch.rank, "start": list(part.start)}
                    state["blocks"].append({**where, "data": cells})
        return state

    def merge(self, a: State, b: State) -> State:
        return {"steps": {**a["steps"], **b["steps"]}, "blocks": [*a["blocks"], *b["blocks"]]}

    def finalize(self, state: State) -> dict[str, Array]:
        return {}
