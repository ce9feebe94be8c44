# SPDX-License-Identifier: Apache-2.0
"""From steps of the simulation to samples of a network: which numbers go in, and which are to come out.

**Names**, of inputs and targets alike:

===================  ====================================================================================
``u``                a variable
``parameters.feed``  a parameter of the simulation, with the value that held in the step; the same for all its samples
``u[-2]``            the same two published steps before; a step that lacks it is left out
``time``             the physical time of the step
``@x``               where a cell lies along its dim ``x``, from 0 to 1; only of samples that are cells
===================  ====================================================================================

**Samples** of one step:

==============  =========================================================================================
``step``        one of each step: whole fields. Where variables begin with the dim ``member``, one of each
                member; what has no members is the same for all of them
``row``         one of each row of joined variables, or of the first dim of the first input (particles)
``cell``        one of each cell, of each member. What has no cells is the same for all of them
==============  =========================================================================================

**Shapes.** One name keeps its shape. Several fields of one shape, with two dims or more, become channels, and numbers
beside them channels of one value; all else is laid flat, one after the other.
"""

import math
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analytics.nn.draws import Draws
from analytics.nn.samples import Samples, Shapes
from insitu.errors import OperatorError
from insitu.learner import Taken
from insitu.model import NUMERIC_KINDS, Array, Extent, Variable

Sampling = Literal["step", "row", "cell"]

_NAME = re.compile(r"(@)?([^\s@\[\]]+)(?:\[-([1-9]\d{0,3})\])?")
MEMBER = "member"
#: What chooses cells by lot, among all that draws by one seed.
CELLS = 7


@dataclass(frozen=True, slots=True)
class Feature:
    """One name: a variable `lag` published steps before, the ``time``, or the coordinate of a dim.

    >>> Feature.of("u[-2]")
    Feature(name='u', lag=2, coordinate=False)
    >>> Feature.of("u[1]")
    Traceback (most recent call last):
        ...
    ValueError: "u[1]" is no variable, u[-1] (a step before), time, or @x (where a cell lies along its dim x)
    """

    name: str
    lag: int = 0
    coordinate: bool = False

    @classmethod
    def of(cls, text: str) -> "Feature":
        match = _NAME.fullmatch(text)
        if match is None or (match[1] and match[3]) or (match[2] == "time" and match[3]):
            raise ValueError(
                f'"{text}" is no variable, u[-1] (a step before), time, or @x (where a cell lies along its dim x)'
            )
        return cls(match[2], int(match[3] or 0), bool(match[1]))

    @property
    def variable(self) -> bool:
        """Whether it is one of the simulation."""
        return not self.coordinate and self.name != "time"


def variables_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the variables among names, each once, in their order."""
    return tuple(dict.fromkeys(feature.name for feature in map(Feature.of, names) if feature.variable))


@dataclass(frozen=True, slots=True)
class _Scene:
    """The samples of one step: how many members, and how many cells or rows of each; `members` and `cells` of each."""

    members: Array
    cells: Array


class Sampler:
    """Makes samples of `variables`, of each step `per_step` at most, which are drawn by lot where there are more.

    Raises `OperatorError` for variables of which no such samples can be made.

    >>> u = Variable("u", np.dtype("f8"), (2, 3, 4), ("member", "y", "x"))
    >>> p = Variable("p", np.dtype("f8"), (2, 5), ("member", "number"))
    >>> Sampler(["p", "time"], ["u"], "step", {"u": u, "p": p}).shapes
    Shapes(inputs=(6,), targets=(3, 4), classes=False)
    >>> Sampler(["@y", "@x", "time", "p"], ["u"], "cell", {"u": u, "p": p}).shapes
    Shapes(inputs=(8,), targets=(1,), classes=False)
    """

    def __init__(
        self,
        inputs: Sequence[str],
        targets: Sequence[str] | None,
        sample: Sampling,
        variables: Mapping[str, Variable],
        *,
        classes: bool = False,
        per_step: int | None = None,
        seed: int = 0,
    ) -> None:
        self._inputs = [Feature.of(name) for name in inputs]
        self._targets = [Feature.of(name) for name in targets] if targets else None
        self._sample = sample
        self._variables = variables
        self._classes = classes
        self._per_step = per_step
        self._lots = Draws(seed, CELLS)
        both = [*self._inputs, *(self._targets or [])]
        self._lags = max((feature.lag for feature in both), default=0)
        self._past: deque[Taken] = deque(maxlen=max(1, self._lags))
        self._cells = self._cells_of(both)
        self._require_sound(both)
        self.shapes = Shapes(
            _shape([self._shape(feature) for feature in self._inputs]),
            None if self._targets is None else _shape([self._shape(feature) for feature in self._targets], classes),
        )

    def samples(self, taken: Taken) -> Samples | None:
        """Return the samples of a step; ``None`` of one that lacks a step before it, or has none."""
        there = {0: taken} | {taken.step.sequence - past.step.sequence: past for past in self._past}
        if self._lags:
            self._past.append(taken)
        if not all(feature.lag in there for feature in [*self._inputs, *(self._targets or [])]):
            return None
        scene = self._scene(taken)
        if not len(scene.members):
            return None
        inputs = self._combined(self._inputs, there, scene, classes=False)
        targets = None if self._targets is None else self._combined(self._targets, there, scene, self._classes)
        return Samples(inputs, targets, scene.members, taken.step.sequence, scene.cells)

    def _cells_of(self, features: Sequence[Feature]) -> tuple[str, ...]:
        """Return the dims of the cells: those of the variable that has most of them."""
        if self._sample != "cell":
            return ()
        dims = [_inner(self._variables[feature.name]) for feature in features if feature.variable]
        return max(dims, key=len, default=())

    def _require_sound(self, features: Sequence[Feature]) -> None:
        for feature in features:
            if feature.coordinate:
                if feature.name not in self._cells:
                    known = f"cells have {', '.join(self._cells)}" if self._cells else "only with sample: cell"
                    raise OperatorError(f"@{feature.name} is no coordinate of a sample ({known})")
            elif feature.variable:
                variable = self._variables[feature.name]
                if variable.dtype.kind not in NUMERIC_KINDS.replace("c", ""):
                    raise OperatorError(f"'{variable.name}' is {variable.dtype}; networks here learn from real numbers")
                if variable.joined and self._sample != "row":
                    raise OperatorError(
                        f"'{variable.name}' is joined over the ranks and its rows change in number; take sample: row"
                    )
                if feature.lag and variable.joined:
                    raise OperatorError(f"'{variable.name}' is joined, and its rows of a step before may be others")
        if not any(feature.variable for feature in features):
            raise OperatorError("inputs and targets name no variable of the simulation")

    def _shape(self, feature: Feature) -> Extent:
        """Return the shape of one sample of one name."""
        if not feature.variable:
            return ()
        variable = self._variables[feature.name]
        if self._sample == "row" and self._in_rows(variable):
            return variable.row if variable.shape is None else variable.shape[1:]
        shape = variable.shape or ()
        if variable.dims[:1] == (MEMBER,) and self._sample != "row":
            shape = shape[1:]
        return () if self._cells and _inner(variable) == self._cells else shape

    def _in_rows(self, variable: Variable) -> bool:
        """Whether a variable has a row for each sample: it is joined, or has the first dim of the first input."""
        first = next(self._variables[feature.name] for feature in self._inputs if feature.variable)
        return variable.joined or (bool(variable.dims) and variable.dims[:1] == first.dims[:1])

    def _scene(self, taken: Taken) -> _Scene:
        """Return of which member and cell (or row) each sample of a step is."""
        lengths = [
            len(taken.fields[name])
            for name, variable in self._variables.items()
            if name in taken.fields and (self._in_rows(variable) if self._sample == "row" else _has_members(variable))
        ]
        if lengths and min(lengths) != max(lengths):
            what = "rows" if self._sample == "row" else "members"
            raise OperatorError(f"variables of step {taken.step.index} have {min(lengths)} and {max(lengths)} {what}")
        number = lengths[0] if lengths else 1
        if self._sample == "row":
            rows = self._some(taken, number)
            return _Scene(np.zeros(len(rows), np.int64), rows)
        cells = math.prod(self._lengths) if self._cells else 1
        some = self._some(taken, number * cells)
        return _Scene(some // cells, some % cells)

    @property
    def _lengths(self) -> Extent:
        whole = next(variable for variable in self._variables.values() if _inner(variable) == self._cells)
        shape = whole.shape or ()
        return shape[1:] if _has_members(whole) else shape

    def _some(self, taken: Taken, number: int) -> Array:
        if self._per_step is None or number <= self._per_step:
            return np.arange(number)
        drawn: Array = np.sort(self._lots.distinct(taken.step.sequence, self._per_step, number)).astype(np.int64)
        return drawn

    def _combined(self, features: Sequence[Feature], there: Mapping[int, Taken], scene: _Scene, classes: bool) -> Array:
        parts = [self._values(feature, there, scene) for feature in features]
        dtype = np.int64 if classes else np.float32
        if len(parts) == 1 and (parts[0].ndim > 1 or classes):
            return np.ascontiguousarray(parts[0], dtype)
        shapes = [part.shape[1:] for part in parts]
        if channels := _channels(shapes):
            spread = [part.reshape(len(part), *(1,) * len(channels)) if part.ndim == 1 else part for part in parts]
            return np.stack([np.broadcast_to(part, (len(part), *channels)) for part in spread], axis=1).astype(dtype)
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1, dtype=dtype, casting="unsafe")

    def _values(self, feature: Feature, there: Mapping[int, Taken], scene: _Scene) -> Array:
        """Return one name's values for each sample, (n, *shape)."""
        number = len(scene.members)
        taken = there[feature.lag]
        if feature.coordinate:
            length = self._lengths[self._cells.index(feature.name)]
            index = np.unravel_index(scene.cells, self._lengths)[self._cells.index(feature.name)]
            return np.asarray(index / max(1, length - 1))
        if not feature.variable:
            return np.full(number, taken.step.time)
        variable, field = self._variables[feature.name], taken.fields[feature.name]
        if self._sample == "row":
            return field[scene.cells] if self._in_rows(variable) else _repeated(field, number)
        members = _has_members(variable)
        if self._cells and _inner(variable) == self._cells:
            flat = field.reshape(len(field) if members else 1, -1)
            return np.asarray(flat[scene.members if members else 0, scene.cells])
        if members:
            return field if number == len(field) and not self._cells else field[scene.members]
        return _repeated(field, number)


def _has_members(variable: Variable) -> bool:
    return variable.dims[:1] == (MEMBER,) and not variable.joined


def _inner(variable: Variable) -> tuple[str, ...]:
    """Return the dims of one member."""
    return variable.dims[1:] if _has_members(variable) else variable.dims


def _repeated(field: Array, number: int) -> Array:
    return np.broadcast_to(field, (number, *field.shape))


def _channels(shapes: Sequence[Extent]) -> Extent | None:
    """Return the shape of fields that become channels, numbers among them, or ``None``."""
    fields = {shape for shape in shapes if shape}
    return next(iter(fields)) if len(fields) == 1 and len(next(iter(fields))) > 1 else None


def _shape(shapes: Sequence[Extent], classes: bool = False) -> Extent:
    """Return the shape of a sample of names with these shapes."""
    if len(shapes) == 1 and (shapes[0] or classes):
        return shapes[0]
    if channels := _channels(shapes):
        return (len(shapes), *channels)
    return (sum(math.prod(shape) for shape in shapes),)
