# SPDX-License-Identifier: Apache-2.0
"""The power spectrum of a variable in time, or along a dimension."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from analytics.fields import OneName, label, power, require_dimension, require_real
from analytics.kernels.values import refuse_nan
from analytics.welch import BLOCK_BYTES, Welch, periodogram
from insitu.errors import OperatorError
from insitu.model import Array, Variable
from insitu.operator import Batch, NanPolicy, Operator, State, require_array


class Spectrum(Operator):
    """Power spectral density in time of every cell, or along a dimension of the whole field.

    With ``over: step``, in time: the steps of a window are cut into segments of `segment` steps that overlap by half,
    and each cell's periodograms are averaged (P. Welch, 1967). With ``over: space`` or both, along the dimension
    `along`: each line of cells is a segment, and the periodograms of all lines (and steps) are averaged::

        rhythm: {use: spectrum, of: u, over: step, segment: 256, window: 4096}
        scales: {use: spectrum, of: u, over: space, along: x, periodic: true}

    ===============  =======  ==================  =================================================================
    result           dtype    dims                value
    ===============  =======  ==================  =================================================================
    ``density``      float64  frequency (,cells)  one-sided: its sum times the distance of the frequencies is the
                                                  variance
    ``frequencies``  float64  frequency           n // 2 + 1 of them for segments of n, in cycles
    ``segments``     int64    (cells)             how many segments were averaged
    ===============  =======  ==================  =================================================================

    A segment is freed from its mean and weighted by Hann's window; not so a line that is `periodic`. The same as
    ``scipy.signal.welch(x, fs, nperseg=n)``.

    **Frequencies** are in cycles per published step or per cell, and the density in the variable's units, squared. With
    ``per: time`` they are in cycles per unit of the steps' time, and with `spacing`, the distance of two cells, per
    unit of that; the density is in squared units times that unit, which nobody told. Steps must then be equally far
    apart, to 1 %, else `OperatorError` names them.

    Over steps, a segment that lacks one (lost, or without the variable) is left out, and so is what is left of a window
    behind its last segment. Where there was no segment, the density is NaN, and so are frequencies per time.

    **Input.** Any real dtype, computed in float64. What does not vary has a density of 0. Infinite values make that of
    their cell, or of all, NaN. **NaN.** ``nan: propagate``: so do they. ``skip``: the segments that hold one are left
    out. ``fail``: `OperatorError` names variable, step and place.

    **Whole lines.** The transform of a line needs all of it in one place. So no rank may cut the dimension `along`:
    `OperatorError` names those that do not. Over steps, variables that are joined over the ranks have no cells.

    **Merge.** Exact but for rounding, in any order and tree: over steps, segments begin at fixed steps of the window,
    and a state keeps the fields of those that another state may complete.

    **Cost.** Over steps, state: segment / 2 + 1 float64 per cell, and the fields of at most the last `segment` steps
    (in a state that begins in mid-window, of the first ones, too); two transforms per segment's length. Else, state:
    n / 2 + 1 float64; one transform per line, at 0.4 GB/s of one core.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (), (), units="m")
    >>> tone = Spectrum(of="u", over="step", segment=8)
    >>> found = tone.finalize(tone.update(tone.init(), batch([u], {"u": [0.0, 1.0, 0.0, -1.0] * 8})))
    >>> found["frequencies"], found["density"].round(3), int(found["segments"])
    (array([0.   , 0.125, 0.25 , 0.375, 0.5  ]), array([0.   , 0.667, 2.667, 0.667, 0.   ]), 7)
    """

    slides = False

    of: OneName
    segment: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="over step: how many steps are transformed together"
    )
    per: Literal["step", "time"] = Field(default="step", description="over step: of what frequencies are the inverse")
    along: str | None = Field(default=None, description="over space: a dimension of the variable")
    periodic: bool = Field(default=False, description="over space: whether a line's end meets its beginning")
    spacing: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="over space: distance of two cells; without it frequencies are per cell"
    )
    nan: NanPolicy = Field(default="propagate", description="what a NaN does: propagate, skip or fail")

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "Spectrum":
        in_time, in_space = ("segment", "per"), ("along", "periodic", "spacing")
        needed, foreign = ("segment", in_space) if self.keeps_cells else ("along", in_time)
        if getattr(self, needed) is None:
            raise ValueError(f"{needed} is needed with over: {', '.join(self.over)}")
        for key in foreign:
            if key in self.model_fields_set:
                raise ValueError(f"{key} has no meaning with over: {', '.join(self.over)}; leave it out")
        if self.segment is not None and isinstance(self.window, int) and self.window < self.segment:
            raise ValueError(
                f"segment: {self.segment} is longer than the window of {self.window} steps; "
                "make the window longer or the segment shorter"
            )
        return self

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        require_array(self, inputs)
        of = inputs[self.of[0]]
        require_real(of)
        if self.keeps_cells:
            length, shape, dims, told = self._welch.segment, of.shape or (), of.dims, self.per == "step"
        else:
            length, shape, dims, told = _length(of, self._dimension(of)), (), (), self.spacing is None
        square, cycles = (power(of.units, 2), "1") if told else ("", "")
        step = self.per if self.keeps_cells else "cell" if told else "length"
        real, n = np.dtype(np.float64), length // 2 + 1
        results = [
            Variable("density", real, (n, *shape), ("frequency", *dims), square, f"power spectrum of {label(of)}"),
            Variable("frequencies", real, (n,), ("frequency",), cycles, f"cycles per {step}"),
            Variable("segments", np.dtype(np.int64), shape, dims, "1", "number of segments"),
        ]
        return {result.name: result for result in results}

    def init(self) -> State:
        return {}

    def update(self, state: State, batch: Batch) -> State:
        if self.nan == "fail":
            refuse_nan(batch, self.of[0])
        if self.keeps_cells:
            return self._welch.update(state, batch.steps, batch[self.of[0]])
        return self._fold_lines(state, batch)

    def merge(self, a: State, b: State) -> State:
        if self.keeps_cells:
            return self._welch.merge(a, b)
        if not (a and b):
            return a or deepcopy(b)
        a["sum"] += b["sum"]
        a["segments"] += b["segments"]
        return a

    def finalize(self, state: State) -> dict[str, Array]:
        if self.keeps_cells:
            total, segments, distance = self._welch.read(state)
            length = self._welch.segment
        else:
            state = state or _no_lines(0)
            total, segments, length = state["sum"], np.array(state["segments"]), state["length"]
            distance = self.spacing or 1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            density = total / segments * distance
        return {"density": density, "frequencies": np.fft.rfftfreq(max(length, 1), distance), "segments": segments}

    @property
    def _welch(self) -> Welch:
        window: int | Literal["run"] = self.window if isinstance(self.window, int) else "run"
        return Welch(self.of[0], self.segment or 0, window, self.per, self.nan == "skip")

    def _dimension(self, of: Variable) -> int:
        """Return which dimension lines run along."""
        dimension = require_dimension(of, self.along or "")
        if _length(of, dimension) < 2:
            raise OperatorError(f"'{of.name}' has one cell along '{self.along}', which has no spectrum; name another")
        return dimension

    def _fold_lines(self, state: State, batch: Batch) -> State:
        of = batch.variables[self.of[0]]
        dimension = self._dimension(of)
        length = _length(of, dimension)
        state = state or _no_lines(length)
        for array in batch[of.name]:
            if array.size == 0:
                continue
            if array.shape[dimension] != length:
                first = batch.start[of.name][dimension]
                raise OperatorError(
                    f"a rank holds the cells {first} to {first + array.shape[dimension] - 1} of '{of.name}' along "
                    f"'{self.along}', which has {length}, and a spectrum needs whole lines; name a dimension in along "
                    "that the ranks do not cut, or cut the field along another one"
                )
            for lines in _columns(array, dimension):
                if self.nan == "skip":
                    lines = lines[:, ~np.isnan(lines).any(axis=0)]
                state["sum"] += periodogram(lines, periodic=self.periodic).sum(axis=1)
                state["segments"] += lines.shape[1]
        return state


def _length(of: Variable, dimension: int) -> int:
    return (of.shape or ())[dimension]


def _no_lines(length: int) -> State:
    return {"sum": np.zeros(length // 2 + 1), "segments": 0, "length": length}


def _columns(array: Array, dimension: int) -> Iterator[Array]:
    """Yield the lines along a dimension as columns, in float64 copies of a bounded size."""
    length = array.shape[dimension]
    layers = array.reshape(int(np.prod(array.shape[:dimension])), length, -1)
    several = max(1, BLOCK_BYTES // (8 * length))
    deep = max(1, several // layers.shape[2])
    for i in range(0, layers.shape[0], deep):
        for j in range(0, layers.shape[2], several):
            some = layers[i : i + deep, :, j : j + several]
            yield np.array(some.swapaxes(0, 1), np.float64).reshape(length, -1)
