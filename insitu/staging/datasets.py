# SPDX-License-Identifier: Apache-2.0
"""A window as a dataset: the blocks that staging nodes have kept, put together when somebody asks for them.

`index_of` says what a node has kept, without the data. From all nodes' indices `chunks_of` decides on boxes: one for
each node where its blocks fill one, else one for each place; so a variable has as many chunks as staging nodes, and
more only where they would pass `CHUNK_BYTES`. `dataset` makes Dask arrays of that; a chunk is put together by a task at
the node that has its blocks. Joined variables follow each other by rank; where ranks' rows go to several nodes, by
node.

The second of the two modules that know Dask: this one runs inside tasks of its workers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, product
from math import prod
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from distributed import Future, get_client

from insitu.errors import OperatorError
from insitu.model import Array, Extent, Variable
from insitu.staging.merging import Part, Place, bounding_box, fault_of_places

#: A Dask array; Dask has no types for what makes one.
Lazy = Any

#: The largest chunk: a worker can hold a few of them beside the blocks.
CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Piece:
    """One kept block: of which variable, step and rank, and where it lies."""

    name: str
    sequence: int
    rank: int
    start: Extent
    count: Extent


@dataclass(frozen=True, slots=True)
class Index:
    """What a node has kept: the index and the time of each step by its sequence, and the blocks."""

    steps: Mapping[int, tuple[int, float]]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a variable that one node has: its steps, and its cells; of joined ones only the number of rows."""

    node: int
    sequences: tuple[int, ...]
    box: Place


def index_of(parts: Sequence[Part]) -> Index:
    """Say what is in the states of a node."""
    states = [state for *_, state in parts]
    steps = {int(key): (one["index"], one["time"]) for state in states for key, one in state["steps"].items()}
    pieces = tuple(
        Piece(one["name"], one["sequence"], one["rank"], tuple(one["start"]), one["data"].shape)
        for state in states
        for one in state["blocks"]
    )
    return Index(steps, pieces)


def put_together(
    parts: Sequence[Part], name: str, sequences: Sequence[int], box: Place, joined: bool, dtype: np.dtype[Any]
) -> Array:
    """Return a chunk of a variable, (steps, cells). Cells of no block are NaN, or zero in an array of integers."""
    start, count = box
    whole: Any = np.full((len(sequences), *count), np.nan if dtype.kind in "fc" else 0, dtype)
    number: dict[int, int] = {sequence: k for k, sequence in enumerate(sequences)}
    rows = [0] * len(sequences)
    blocks = [
        one for *_, state in parts for one in state["blocks"] if one["name"] == name and one["sequence"] in number
    ]
    for one in sorted(blocks, key=lambda one: int(one["rank"])):
        k, data, at = number[int(one["sequence"])], one["data"], one["start"]
        if joined:
            at, rows[k] = [rows[k], *at[1:]], rows[k] + len(data)
        into: list[slice] = []
        out: list[slice] = []
        for low, length, first, n in zip(start, count, at, data.shape, strict=True):
            a, b = max(low, first), min(low + length, first + n)
            into.append(slice(a - low, max(a, b) - low))
            out.append(slice(a - first, max(a, b) - first))
        whole[(k, *into)] = data[tuple(out)]
    return np.asarray(whole)


def chunks_of(variable: Variable, indices: Sequence[Index], sequences: Sequence[int]) -> list[Chunk]:
    """Return the parts that a variable is made of; raise `OperatorError` where they cannot be put together."""
    if variable.joined:
        return list(_rows(variable, indices, sequences))
    boxes: list[tuple[int, Place]] = []
    for node, index in enumerate(indices):
        places = list(dict.fromkeys((one.start, one.count) for one in index.pieces if one.name == variable.name))
        if places:
            boxes += [(node, box) for box in _boxes(places)]
    if fault := fault_of_places(tuple(box for _, box in boxes)):
        raise OperatorError(f"blocks of '{variable.name}' moved within the window: {fault}; choose shorter windows")
    return [Chunk(node, some, box) for node, box in boxes for some in _some(sequences, box, variable.dtype.itemsize)]


def _boxes(places: Sequence[Place]) -> list[Place]:
    """Return the box that places fill, or the places where they fill none."""
    box = bounding_box(places)
    filled = sum(prod(count) for _, count in places) == prod(box[1]) and fault_of_places(tuple(places)) is None
    return [box] if filled else list(places)


def _some(sequences: Sequence[int], box: Place, itemsize: int) -> Iterator[tuple[int, ...]]:
    """Cut steps so that a chunk is not too large."""
    several = max(1, CHUNK_BYTES // max(1, prod(box[1]) * itemsize))
    for first in range(0, len(sequences), several):
        yield tuple(sequences[first : first + several])


def _rows(variable: Variable, indices: Sequence[Index], sequences: Sequence[int]) -> Iterator[Chunk]:
    """Return the parts of a joined variable, of steps that follow each other and have the same rows at each node."""

    def counts(sequence: int) -> tuple[int, ...]:
        return tuple(
            sum(one.count[0] for one in index.pieces if (one.name, one.sequence) == (variable.name, sequence))
            for index in indices
        )

    totals = {sequence: sum(counts(sequence)) for sequence in sequences}
    if len(set(totals.values())) > 1:
        few, many = min(totals.values()), max(totals.values())
        raise OperatorError(
            f"'{variable.name}' has {few} rows in one step of the window and {many} in another, which make no array; "
            "take window: 1, or publish as many in every step"
        )
    inner = next(
        (one.count[1:] for index in indices for one in index.pieces if one.name == variable.name), variable.row
    )
    for rows, some in groupby(sequences, key=counts):
        together = tuple(some)
        for node, length in enumerate(rows):
            yield Chunk(node, together, ((0,) * variable.ndim, (length, *inner)))


def dataset(
    variables: Mapping[str, Variable], indices: Sequence[Index], keys: Sequence[str], *, any_step: bool
) -> xr.Dataset:
    """Return the window as a dataset of Dask arrays; to be called in a task of a worker."""
    steps = {sequence: told for index in indices for sequence, told in index.steps.items()}
    having = {name: _sequences_of(name, indices) for name in variables}
    chosen = sorted(set.union(*having.values()) if any_step else set.intersection(*having.values()))
    if not chosen:
        raise OperatorError(
            f"no step of the window has all of {', '.join(variables)}; take when: any, or one at a time"
        )
    client = get_client()
    states: list[Any] = [Future(key, client) for key in keys]
    arrays = {}
    for name, variable in variables.items():
        lacking = not set(chosen) <= having[name]
        dtype = np.promote_types(variable.dtype, np.float32) if lacking else variable.dtype
        array = _array(variable, indices, states, chosen, dtype)
        attrs = {key: value for key in ("units", "long_name") if (value := getattr(variable, key))}
        arrays[name] = xr.Variable(("step", *variable.dims), array, attrs)
    told = [steps[sequence] for sequence in chosen]
    coords = {
        "step": ("step", np.array([index for index, _ in told], np.int64), {"long_name": "index of the step"}),
        "time": ("step", np.array([time for _, time in told], float), {"long_name": "physical time"}),
    }
    return xr.Dataset(arrays, coords)


def _sequences_of(name: str, indices: Sequence[Index]) -> set[int]:
    return {one.sequence for index in indices for one in index.pieces if one.name == name}


def _array(
    variable: Variable, indices: Sequence[Index], states: Sequence[Any], chosen: Sequence[int], dtype: np.dtype[Any]
) -> Lazy:
    lazily = delayed(put_together, pure=False, traverse=False)
    chunks = chunks_of(variable, indices, chosen)
    rows = []
    for sequences, some in groupby(sorted(chunks, key=lambda one: one.sequences), key=lambda one: one.sequences):
        parts = [
            (
                one.box,
                da.from_delayed(
                    lazily(states[one.node], variable.name, sequences, one.box, variable.joined, dtype),
                    (len(sequences), *one.box[1]),
                    dtype,
                ),
            )
            for one in some
        ]
        if variable.joined:
            rows.append(da.concatenate([array for _, array in parts], axis=1))
        else:
            rows.append(_tiled(parts, variable.shape or (), len(sequences), dtype))
    return da.concatenate(rows, axis=0) if len(rows) > 1 else rows[0]


def _tiled(parts: Sequence[tuple[Place, Lazy]], shape: Extent, steps: int, dtype: np.dtype[Any]) -> Lazy:
    """Lay boxes side by side: the grid of all their edges is filled from the boxes."""
    if not shape:
        return parts[0][1]
    edges = [
        sorted(
            {0, length, *(start[k] for (start, _), _ in parts), *(start[k] + count[k] for (start, count), _ in parts)}
        )
        for k, length in enumerate(shape)
    ]
    grid = np.empty([len(each) - 1 for each in edges], object)
    for at in product(*(range(n) for n in grid.shape)):
        cell = [tuple(pairwise(each))[k] for each, k in zip(edges, at, strict=True)]
        grid[at] = _cell(parts, cell, steps, dtype)
    return da.block(_nested(grid))


def _cell(
    parts: Sequence[tuple[Place, Lazy]], cell: Sequence[tuple[int, int]], steps: int, dtype: np.dtype[Any]
) -> Lazy:
    for (start, count), array in parts:
        if all(s <= low and high <= s + n for s, n, (low, high) in zip(start, count, cell, strict=True)):
            inside = tuple(slice(low - s, high - s) for s, (low, high) in zip(start, cell, strict=True))
            return array[(slice(None), *inside)]
    return da.full((steps, *(high - low for low, high in cell)), np.nan if dtype.kind in "fc" else 0, dtype)


def _nested(grid: Any) -> Any:
    return [_nested(each) for each in grid] if isinstance(grid, np.ndarray) else grid
