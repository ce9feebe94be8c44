# SPDX-License-Identifier: Apache-2.0
"""Operators for tests of what stands around operators: they have keys and results, and fold nothing."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from insitu.errors import OperatorError
from insitu.model import Array, Variable
from insitu.operator import Batch, Operator, State


class Count(Operator):
    """Count what comes by.

    This is no line of a list.
    """

    bins: int = Field(default=8, ge=1, description="how many bins")
    range: tuple[float, float] | Literal["auto"] = "auto"
    along: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.of if self.along is None else (*self.of, self.along)

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        for name, variable in inputs.items():
            if variable.dtype.kind == "c":
                raise OperatorError(f"'{name}' is complex")
        return {"count": next(iter(inputs.values())).renamed("count")}

    def init(self) -> State:
        return {}

    def update(self, state: State, batch: Batch) -> State:
        return state

    def merge(self, a: State, b: State) -> State:
        return a

    def finalize(self, state: State) -> dict[str, Array]:
        return {}


class Half(Operator):
    def init(self) -> State:
        return {}


class NoOperator:
    pass
