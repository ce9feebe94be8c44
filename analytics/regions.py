# SPDX-License-Identifier: Apache-2.0
"""Connected regions of a field that comes in blocks: the one door to scipy.ndimage.

Cells are connected where they share a face. Each block is labelled by itself. A state keeps a line for each region, and
the cells of regions on the block's own faces, by their place in the whole field. When two states are joined, regions
that meet at a face become one, and the cells that met are forgotten. So the regions of the whole field come out of any
split, in any order.

A state is a dict of these, for n regions in d dimensions:

=========  ===========================================================================================================
``size``   int64 (n,): cells
``first``  int64 (n,): the first of them, in C order of the whole field
``peak``   float64 (n,): the largest value, or minus the smallest, as is looked for
``sums``   float64 (n, d, 2): sums of places along each dimension, and zero; of a periodic one, of their cosine and sine
``faces``  one dict per dimension: ``low``, cells that may have a neighbour at their upper side, and ``high``, at their
           lower side; both int64 (2, cells): the index of the lower one of the two neighbours, and the region
=========  ===========================================================================================================
"""

import functools
import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from insitu.errors import OperatorError
from insitu.model import Array, Extent
from insitu.operator import State


@functools.cache
def scipy_part(name: str, who: str = "events") -> Any:
    """Import a part of SciPy only where `who` needs it; raise `OperatorError` where it is not installed."""
    try:
        return importlib.import_module(f"scipy.{name}")
    except ImportError as error:
        raise OperatorError(
            f"{who} needs the package scipy, which cannot be imported here ({error}); install it with "
            "pip install 'insitu[events]'"
        ) from error


@dataclass(frozen=True, slots=True)
class Regions:
    """Regions of a field of this global shape, in which some dimensions may be periodic."""

    shape: Extent
    periodic: tuple[bool, ...]

    def none(self) -> State:
        """Return a field without regions, of which nothing is known."""
        nothing = np.zeros((0, len(self.shape), 2))
        return {"size": np.zeros(0, np.int64), "first": np.zeros(0, np.int64), "peak": np.zeros(0), "sums": nothing}

    def of_block(self, beyond: Array, field: Array, sign: float, start: Extent) -> State:
        """Return the regions of a block, of whose cells some are beyond; the larger `sign` times `field`, the more."""
        labels, n = scipy_part("ndimage").label(beyond)
        at = np.flatnonzero(beyond)
        region = labels.reshape(-1)[at].astype(np.int64) - 1
        index, sums = np.zeros(len(at), np.int64), np.zeros((n, len(self.shape), 2))
        for d in range(len(self.shape)):
            place = at // math.prod(beyond.shape[d + 1 :]) % beyond.shape[d] + start[d]
            index += place * self._stride(d)
            for k, part in enumerate(self._parts(place, d)):
                sums[:, d, k] = np.bincount(region, part, n)
        faces = [self._faces(d, start[d], beyond.shape[d], index, region) for d in range(len(self.shape))]
        first, peak = np.full(n, math.prod(self.shape), np.int64), np.full(n, -np.inf)
        np.minimum.at(first, region, index)
        np.maximum.at(peak, region, sign * field.reshape(-1)[at].astype(np.float64))
        size = np.bincount(region, minlength=n).astype(np.int64)
        return _met({"size": size, "first": first, "peak": peak, "sums": sums, "faces": faces})

    def centroids(self, state: State) -> Array:
        """Return the mean place of each region: of a periodic dimension, in the direction of the mean on its circle."""
        middle = state["sums"][:, :, 0] / state["size"][:, np.newaxis]
        for d in np.flatnonzero(self.periodic):
            cosine, sine = state["sums"][:, d].T
            place = np.arctan2(sine, cosine) / (2 * np.pi) % 1.0 * self.shape[d]
            everywhere = np.hypot(cosine, sine) < 1e-9 * state["size"]
            middle[:, d] = np.where(everywhere, np.nan, place % self.shape[d])
        return np.asarray(middle)

    def _stride(self, d: int) -> int:
        return math.prod(self.shape[d + 1 :])

    def _parts(self, place: Array, d: int) -> tuple[Array, ...]:
        """Return what is summed up for the mean of places along a dimension."""
        if not self.periodic[d]:
            return (place,)
        angle = place * (2 * np.pi / self.shape[d])
        return np.cos(angle), np.sin(angle)

    def _faces(self, d: int, start: int, count: int, index: Array, region: Array) -> State:
        """Return the cells of a block's two faces across a dimension, but of no face at the end of the field."""
        stride, length = self._stride(d), self.shape[d]
        place = index // stride % length
        low, high = place == start + count - 1, place == start
        if not self.periodic[d]:
            low &= place < length - 1
            high &= place > 0
        before = index[high] + stride * np.where(place[high] > 0, -1, length - 1)
        return {"low": np.stack([index[low], region[low]]), "high": np.stack([before, region[high]])}


def joined(a: State, b: State) -> State:
    """Return the regions of both."""
    n = len(a["size"])
    faces = [
        {side: np.concatenate([x[side], y[side] + [[0], [n]]], axis=1) for side in ("low", "high")}
        for x, y in zip(a["faces"], b["faces"], strict=True)
    ]
    return _met(
        {**{key: np.concatenate([a[key], b[key]]) for key in ("size", "first", "peak", "sums")}, "faces": faces}
    )


def _met(state: State) -> State:
    """Make those regions one that meet, and forget where they did."""
    pairs = []
    for face in state["faces"]:
        low, high = face["low"], face["high"]
        _, i, j = np.intersect1d(low[0], high[0], return_indices=True)
        pairs.append((low[1, i], high[1, j]))
        face["low"], face["high"] = np.delete(low, i, axis=1), np.delete(high, j, axis=1)
    one, other = np.concatenate(pairs, axis=1)
    if not len(one):
        return state
    n = len(state["size"])
    graph = scipy_part("sparse").coo_array((np.ones(len(one), np.int8), (one, other)), (n, n))
    n, group = scipy_part("sparse.csgraph").connected_components(graph, directed=False)
    size, sums = np.zeros(n, np.int64), np.zeros((n, *state["sums"].shape[1:]))
    first, peak = np.full(n, np.iinfo(np.int64).max), np.full(n, -np.inf)
    np.add.at(size, group, state["size"])
    np.add.at(sums, group, state["sums"])
    np.minimum.at(first, group, state["first"])
    np.maximum.at(peak, group, state["peak"])
    for side in (face[key] for face in state["faces"] for key in ("low", "high")):
        side[1] = group[side[1]]
    return {"size": size, "first": first, "peak": peak, "sums": sums, "faces": state["faces"]}
