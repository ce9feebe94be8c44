# SPDX-License-Identifier: Apache-2.0
"""Where a variable lies beyond a threshold: its connected regions, in every step."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from analytics.fields import OneName, label, require_dimension, require_real
from analytics.kernels.values import refuse_nan
from analytics.regions import Regions, joined, scipy_part
from insitu.errors import OperatorError
from insitu.model import Array, Variable
from insitu.operator import Batch, Operator, State


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Events(Operator):
    """Connected regions of cells beyond a threshold, per step: number, sizes, centroids and peaks.

    Cells are connected where they share a face (not an edge or a corner alone), whichever ranks hold them::

        storms: {use: events, of: wind, over: space, threshold: 30, largest: 20, periodic: longitude}

    ============  =======  ==================  ===================================================================
    result        dtype    dims                value
    ============  =======  ==================  ===================================================================
    ``number``    int64                        how many regions there are
    ``cells``     int64                        how many cells they have together
    ``size``      int64    event               cells of each of the `largest` regions, from the largest on
    ``centroid``  float64  event, dimension    mean place of its cells, in cells of the global array from 0 on
    ``peak``      float64  event               its largest value; with ``side: below`` the smallest
    ============  =======  ==================  ===================================================================

    Of regions of the same size, the one with the first cell (in C order) comes first. Where there are fewer regions
    than `largest`, sizes are 0, centroids and peaks NaN.

    ``side: above`` means greater than the threshold, ``side: below`` less; what equals it is not beyond it. In the
    dimensions named in `periodic` the last cells are neighbours of the first; a region's centroid along them is the
    direction of the mean of its places on a circle, and NaN where there is none (a region all around).

    **Input.** Any real dtype, compared in float64. Infinite values are beyond or not, as any other. A NaN is not;
    with ``nan: fail`` it is an `OperatorError` that names variable, step and place. Joined variables and scalars have
    no neighbours: `OperatorError`.

    **Merge.** Exact in any order, tree and split, but for rounding of centroids along periodic dimensions: blocks are
    labelled by themselves, and regions that meet at a face become one.

    **Cost.** State: 32 bytes and 16 per dimension for each region, 16 bytes for each of their cells on the faces
    of a block. Noise has a region for every few cells: smooth it, or take a higher threshold. Time: 15 to 27 ms of one
    core for 1,024 x 1,024 cells. Needs SciPy: ``pip install 'insitu[events]'``.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (2, 6), ("y", "x"), units="m")
    >>> storms = Events(of="u", over="space", threshold=1.0, largest=3)
    >>> held = batch([u], {"u": [[[2, 2, 0, 0, 0, 3], [0, 4, 0, 0, 0, 0]]]})
    >>> found = storms.finalize(storms.update(storms.init(), held))
    >>> int(found["number"]), found["size"], found["peak"], found["centroid"][1]
    (2, array([3, 1, 0]), array([ 4.,  3., nan]), array([0., 5.]))
    """

    reductions: ClassVar[frozenset[frozenset[str]]] = frozenset({frozenset({"space"})})

    of: OneName
    threshold: Annotated[float, Field(allow_inf_nan=False)] = Field(description="in the variable's units")
    side: Literal["above", "below"] = Field(default="above", description="which side of the threshold is looked for")
    largest: Annotated[int, Field(ge=1)] = Field(default=10, description="how many of the largest regions are told")
    periodic: Annotated[tuple[str, ...], BeforeValidator(_several, json_schema_input_type=str | tuple[str, ...])] = (
        Field(default=(), description="the dimension or dimensions whose end meets its beginning")
    )
    nan: Literal["skip", "fail"] = Field(default="skip", description="what a NaN does: skip or fail")

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        of = inputs[self.of[0]]
        require_real(of)
        if of.joined or not of.ndim:
            raise OperatorError(
                f"'{of.name}' is {'joined over the ranks' if of.joined else 'one number'} and has no cells with "
                "neighbours; events needs an array"
            )
        for name in self.periodic:
            require_dimension(of, name)
        scipy_part("ndimage")
        whole, real, k = np.dtype(np.int64), np.dtype(np.float64), (self.largest,)
        regions, place = f"regions with {label(of)} {self.side} {self.threshold:g}", ("event", "dimension")
        results = [
            Variable("number", whole, (), (), "1", f"number of {regions}"),
            Variable("cells", whole, (), (), "1", f"cells of {regions}"),
            Variable("size", whole, k, ("event",), "1", f"cells of the largest {regions}"),
            Variable("centroid", real, (*k, of.ndim), place, "1", f"centroids of the largest {regions}"),
            Variable("peak", real, k, ("event",), of.units, f"peaks of the largest {regions}"),
        ]
        return {result.name: result for result in results}

    def init(self) -> State:
        return {}

    def update(self, state: State, batch: Batch) -> State:
        of, start = batch.variables[self.of[0]], batch.start[self.of[0]]
        if self.nan == "fail":
            refuse_nan(batch, of.name)
        whole = self._regions(of.shape or (), of.dims)
        for array in batch[of.name]:
            beyond = array > np.float64(self.threshold) if self._sign > 0 else array < np.float64(self.threshold)
            found = whole.of_block(beyond, array, self._sign, start)
            state["regions"] = joined(state["regions"], found) if state else found
            state |= {"shape": list(whole.shape), "dims": list(of.dims)}
        return state

    def merge(self, a: State, b: State) -> State:
        if not (a and b):
            return a or deepcopy(b)
        return {**a, "regions": joined(a["regions"], b["regions"])}

    def finalize(self, state: State) -> dict[str, Array]:
        whole = self._regions(tuple(state.get("shape", ())), tuple(state.get("dims", ())))
        regions = state["regions"] if state else whole.none()
        order = np.lexsort((regions["first"], -regions["size"]))[: self.largest]
        size, peak = np.zeros(self.largest, np.int64), np.full(self.largest, np.nan)
        centroid = np.full((self.largest, len(whole.shape)), np.nan)
        n = len(order)
        size[:n], peak[:n] = regions["size"][order], self._sign * regions["peak"][order]
        centroid[:n] = whole.centroids(regions)[order]
        number, cells = np.array(len(regions["size"])), np.array(regions["size"].sum())
        return {"number": number, "cells": cells, "size": size, "centroid": centroid, "peak": peak}

    @property
    def _sign(self) -> float:
        return 1.0 if self.side == "above" else -1.0

    def _regions(self, shape: tuple[int, ...], dims: tuple[str, ...]) -> Regions:
        return Regions(shape, tuple(dim in self.periodic for dim in dims))
