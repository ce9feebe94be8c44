# SPDX-License-Identifier: Apache-2.0
"""The data model: variables, blocks and steps, as plain data.

The words are ADIOS2's (shape, start, count) and xarray's (dims). Arrays are in C order everywhere behind `put`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Extent = tuple[int, ...]

#: The dtype kinds that a variable may have: bool, signed, unsigned, float, complex.
NUMERIC_KINDS = "biufc"

#: What stands before the name of a parameter of the simulation, in rules and wherever a variable may be named.
PARAMETERS = "parameters"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a simulation.

    `sequence` counts the published steps from 0 and orders them; `index` is the author's own step number, which may
    have strides; `time` is physical time in the author's unit.
    """

    sequence: int
    index: int
    time: float


@dataclass(frozen=True, slots=True)
class Variable:
    """A named global array.

    `shape` is the global shape, or ``None`` for a *joined* variable, whose blocks are put together along the first
    dimension in the order of the ranks (particles: their number may change from step to step); `row` is then the
    shape of one row. `dims` names every dimension, `units` is a UDUNITS string.

    >>> Variable("u", np.dtype("f8"), (512, 512), ("y", "x"), units="mol/L").ndim
    2
    >>> Variable("velocity", np.dtype("f8"), None, ("particle", "axis"), row=(3,)).joined
    True
    """

    name: str
    dtype: np.dtype[Any]
    shape: Extent | None
    dims: tuple[str, ...]
    units: str = ""
    long_name: str = ""
    row: Extent = ()

    @property
    def joined(self) -> bool:
        return self.shape is None

    @property
    def ndim(self) -> int:
        return len(self.dims)

    def renamed(self, name: str) -> "Variable":
        return replace(self, name=name)


def parameter_of(name: str) -> str | None:
    """Return the parameter that is meant where a variable is named, or ``None`` for a variable.

    >>> parameter_of("parameters.feed"), parameter_of("feed")
    ('feed', None)
    """
    root, dot, parameter = name.partition(".")
    return parameter if dot and root == PARAMETERS else None


def has_cells(variable: Variable, cells: tuple[str, ...]) -> bool:
    """Whether a result ends in these dims, the cells of the places that it is put together from."""
    return variable.dims[variable.ndim - len(cells) :] == cells


@dataclass(frozen=True, slots=True)
class Block:
    """What one rank contributes to a variable in one step: `data` placed at `start` of the global array.

    For a joined variable `start` is zero in the first dimension. `data` is C-contiguous and read-only.
    """

    variable: Variable
    start: Extent
    data: Array

    @property
    def count(self) -> Extent:
        return self.data.shape
