# SPDX-License-Identifier: Apache-2.0
"""Folding a field that is split into places, and putting together what they yield."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from insitu.model import Variable
from insitu.operator import JointOperator, SeriesOperator, State
from insitu.testing import batch, cut

#: The steps of each variable.
Fields = Mapping[str, Sequence[Any] | np.ndarray]


def variable(*shape: int, name: str = "u", dtype: str = "f8", units: str = "m") -> Variable:
    return Variable(name, np.dtype(dtype), shape, ("y", "x")[: len(shape)], units=units)


def fold(
    operator: JointOperator, inputs: list[Variable], fields: Fields, sizes: int = 7, parts: int = 1
) -> list[State]:
    """The states of `parts` places, given `sizes` steps at a time."""
    states = [operator.init() for _ in range(parts)]
    for first in range(0, len(fields[inputs[0].name]), sizes):
        some = batch(inputs, {name: steps[first : first + sizes] for name, steps in fields.items()}, first=first)
        for k, piece in enumerate(cut(some, parts)):
            states[k] = operator.update(states[k], piece)
    return states


def read(operator: JointOperator, inputs: list[Variable], fields: Fields, **how: int) -> dict[str, np.ndarray]:
    """The results, those of several places put together, and the series of a window that follows no other."""
    states = fold(operator, inputs, fields, **how)
    summary = operator.init()
    for state in states:
        summary = operator.combine(summary, operator.summarize(state))
    series: dict[str, np.ndarray] = {}
    if isinstance(operator, SeriesOperator):
        summary = operator.follow(summary, {})
        rows, _ = operator.series(summary)
        series = {name: np.stack([values[name] for _, values in rows]) for name in rows[0][1]}
    found = [operator.finalize_place(state, summary) for state in states]
    dims = {name: result.dims for name, result in operator.describe({v.name: v for v in inputs}).items()}
    cells = inputs[0].dims
    return {
        name: np.concatenate([each[name] for each in found], axis=-len(cells))
        if dims[name][-len(cells) :] == cells
        else found[0][name]
        for name in dims
    } | series
