# SPDX-License-Identifier: Apache-2.0
"""What the operators of this folder share: keys of the YAML, checks of an input, and the units of a result."""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from insitu.errors import OperatorError
from insitu.model import Array, Extent, Step, Variable
from insitu.operator import Batch, Names


def _one(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > 1:
        raise ValueError(f"takes one variable, got {len(names)} ({', '.join(names)}); make one entry for each")
    return names


#: One variable, whose results then need no prefix.
OneName = Annotated[Names, AfterValidator(_one), Field(description="the variable to fold")]


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    if not (math.isfinite(high - low) and low < high):
        raise ValueError(f"expected [low, high] with low below high and both finite, got {[low, high]}")
    return limits


#: A length in the units of the positions.
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]

#: The limits of what is put into bins.
Range = Annotated[tuple[float, float], AfterValidator(_rising)]


def require_real(variable: Variable) -> None:
    """Raise `OperatorError` for complex numbers, which have no order and more than one kind of variance."""
    if variable.dtype.kind == "c":
        raise OperatorError(
            f"'{variable.name}' is complex ({variable.dtype}), which cannot be folded here; "
            "publish its real and imaginary part, or its magnitude and phase"
        )


def require_dimension(variable: Variable, name: str) -> int:
    """Return which dimension of a variable has this name, or raise `OperatorError` if none of its cells' has."""
    if variable.joined:
        raise OperatorError(
            f"'{variable.name}' is joined over the ranks and has no cells along '{name}'; publish it as an array"
        )
    if name not in variable.dims:
        raise OperatorError(
            f"'{variable.name}' has no dimension '{name}', only {', '.join(variable.dims) or 'none'}; name one of these"
        )
    return variable.dims.index(name)


def require_finite(name: str, index: int, array: Array) -> None:
    """Raise `OperatorError` for a particle that is nowhere."""
    known = np.isfinite(array).all(axis=1)
    if not known.all():
        raise OperatorError(
            f"'{name}' is not finite in step {index} at row {int(known.argmin())} of a rank, so that a particle has no "
            "place; the simulation has lost it or become unstable"
        )


def require_same_grid(x: Variable, y: Variable) -> None:
    """Raise `OperatorError` unless each value of one variable has its partner in the other."""
    if (x.shape, x.row) != (y.shape, y.row):
        raise OperatorError(
            f"'{x.name}' {_extent(x)} and '{y.name}' {_extent(y)} cannot be paired value by value; "
            "publish both on the same grid"
        )


def stacked(variables: Sequence[Variable], scale: Sequence[float] | None, purpose: str) -> tuple[list[Variable], str]:
    """Return variables that are taken together, each divided by its `scale` if there is one, and their common units.

    Raises `OperatorError` where they are not real, not on one grid, or have different units and no scale; what it says
    then ends in the `purpose`.
    """
    for variable in variables:
        require_real(variable)
        require_same_grid(variables[0], variable)
    if scale is not None:
        return list(variables), "1"
    if len({variable.units for variable in variables}) > 1:
        units = ", ".join(f"'{variable.name}' in {variable.units or 'no unit'}" for variable in variables)
        raise OperatorError(f"{units}: what has different units cannot be {purpose}; give a scale for each")
    return list(variables), variables[0].units


def refuse_other_blocks(batch: Batch, x: str, y: str) -> None:
    """Raise `OperatorError` unless every value of one variable has its partner in the other."""
    for step, a, b in zip(batch.steps, batch[x], batch[y], strict=True):
        if (a.shape, batch.start[x]) != (b.shape, batch.start[y]):
            raise OperatorError(
                f"'{x}' and '{y}' cannot be paired value by value in step {step.index}: a rank's block is at "
                f"{batch.start[x]} with count {a.shape} of one, at {batch.start[y]} with count {b.shape} of the "
                "other; publish both in the same blocks"
            )


def label(variable: Variable) -> str:
    return variable.long_name or variable.name


def power(units: str, exponent: int) -> str:
    """Return a UDUNITS string raised to a power.

    >>> power("m s-1", 2), power("mol/L", -3), power("1", 2), power("", 2)
    ('(m s-1)2', '(mol/L)-3', '1', '')
    """
    return f"({units}){exponent}" if units not in ("", "1") else units


def in_hand(variables: Sequence[Variable]) -> Batch:
    """Return a batch of one step with one zero of each variable, to compile on."""
    arrays = {v.name: np.zeros((1,) * v.ndim if v.row == () else (1, *v.row), v.dtype) for v in variables}
    return Batch(
        (Step(0, 0, 0.0),),
        {v.name: v for v in variables},
        {name: _origin(array) for name, array in arrays.items()},
        {name: (array,) for name, array in arrays.items()},
    )


def _extent(variable: Variable) -> str:
    return f"(joined, with rows {variable.row})" if variable.joined else str(variable.shape)


def _origin(array: Array) -> Extent:
    return (0,) * array.ndim
