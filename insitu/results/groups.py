# SPDX-License-Identifier: Apache-2.0
"""What an operator's group of ``results.zarr`` holds: its arrays, their coordinates and the words of CF on them.

Every array of a group leads with ``window``, or with ``step`` where the operator keeps steps. The coordinates of that
dimension are the provenance of its rows; the leading one, of the same name, is the last to grow: its length is the
number of rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.group import ConsolidatedMetadata, GroupMetadata

from insitu.errors import OperatorError
from insitu.learner import Learner
from insitu.model import Extent, Variable
from insitu.operator import Operator
from insitu.results.chunks import SERIES_ROWS, is_small, rows_per_chunk, slab_shape

#: What a coordinate says of its row: dtype and meaning.
COORDINATES: dict[str, tuple[str, str]] = {
    "first_step": ("int64", "index of the first step folded, -1 for none"),
    "last_step": ("int64", "index of the last step folded, -1 for none"),
    "time": ("float64", "physical time of the last step folded"),
    "steps": ("int64", "number of steps folded"),
    "dropped": ("int64", "number of steps missing"),
    "complete": ("bool", "whether nothing of it is missing"),
    "window": ("int64", "number of the window"),
    "step": ("int64", "index of the step"),
}

#: The coordinates of a group by its leading dimension, which comes last. A single step has little to say.
COORDINATES_OF = {
    "window": ("first_step", "last_step", "time", "steps", "dropped", "complete", "window"),
    "step": ("time", "complete", "step"),
}

#: The methods of CF 1.11, appendix E, by the names that a result can have.
CELL_METHODS = {
    **{name: name for name in ("maximum", "mean", "median", "minimum", "mode", "range", "sum", "variance")},
    "max": "maximum",
    "min": "minimum",
    "std": "standard_deviation",
    "standard_deviation": "standard_deviation",
}


def create_group(
    store: Path, name: str, operator: Operator, inputs: Mapping[str, Variable], attrs: Mapping[str, Any]
) -> tuple[dict[str, Variable], GroupMetadata]:
    """Make the group of operator `name` over `inputs`, with no rows; return what `Operator.describe` says of it, and
    the metadata of group and arrays.

    Raises `OperatorError` for results that one group cannot hold, before anything is written.
    """
    described = operator.describe(operator.seen(inputs))
    leading = "step" if operator.keeps_steps else "window"
    reduced = _reduced(operator, inputs)
    return described, make_group(store, name, leading, described, reduced, {"operator": entry_of(operator), **attrs})


def entry_of(operator: Operator | Learner) -> str:
    """Return an operator's configuration as JSON."""
    return operator.model_dump_json()


def make_group(
    store: Path,
    name: str,
    leading: str,
    described: Mapping[str, Variable],
    reduced: Sequence[str],
    attrs: Mapping[str, Any],
) -> GroupMetadata:
    """Make a group of the results `described` that lead with the dimension `leading`; `reduced` are gone from them.

    Return its metadata, with those of its arrays.
    """
    _require_storable(name, described, leading)
    # As a store of its own: below another group, Zarr reads all of that one's metadata for each array that is made.
    group = zarr.create_group(store / name, attributes=dict(attrs))
    several = leading == "step" or is_small(described)
    arrays = {
        **{key: _array(group, each.renamed(key), leading, reduced, several) for key, each in described.items()},
        **{coordinate: _coordinate(group, coordinate, leading) for coordinate in COORDINATES_OF[leading]},
    }
    known = ConsolidatedMetadata({key: array.metadata for key, array in arrays.items()})
    return replace(group.metadata, consolidated_metadata=known)


def known_of(group: zarr.Group) -> dict[str, Any]:
    """Return the metadata of a group's arrays by their names, as consolidated; they are the store's own, to be changed.

    What Zarr is asked for an array or a name costs a turn of its event loop, in another thread, each time.
    """
    consolidated = group.metadata.consolidated_metadata
    assert consolidated is not None
    return consolidated.metadata


def leading_of(group: zarr.Group) -> str:
    """Name a group's leading dimension."""
    known = known_of(group)
    return next(leading for leading in COORDINATES_OF if leading in known)


def rows_of(group: zarr.Group) -> int:
    """Return how many rows a group has."""
    return int(known_of(group)[leading_of(group)].shape[0])


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return an array of a group, which has it."""
    return zarr.Array(zarr.AsyncArray(known_of(group)[name], group.store_path / name))


def _array(
    group: zarr.Group, result: Variable, leading: str, reduced: Sequence[str], several_rows: bool
) -> zarr.Array[Any]:
    shape, itemsize = _shape(result), result.dtype.itemsize
    others = [name for name in COORDINATES_OF[leading] if name != leading]
    attrs = {
        "units": result.units,
        "long_name": result.long_name,
        "cell_methods": _cell_methods(result.name, [dim for dim in reduced if dim not in result.dims]),
        "coordinates": " ".join(others),
    }
    return group.create_array(
        result.name,
        shape=(0, *shape),
        chunks=(rows_per_chunk(shape, itemsize) if several_rows else 1, *slab_shape(shape, itemsize)),
        dtype=result.dtype,
        dimension_names=(leading, *result.dims),
        fill_value=np.nan if result.dtype.kind in "fc" else 0,
        attributes={key: value for key, value in attrs.items() if value},
    )


def _coordinate(group: zarr.Group, name: str, leading: str) -> zarr.Array[Any]:
    dtype, meaning = COORDINATES[name]
    return group.create_array(
        name,
        shape=(0,),
        chunks=(SERIES_ROWS,),
        dtype=dtype,
        dimension_names=(leading,),
        fill_value=0,
        attributes={"long_name": meaning},
    )


def _shape(result: Variable) -> Extent:
    assert result.shape is not None  # see _require_storable
    return result.shape


def _reduced(operator: Operator, inputs: Mapping[str, Variable]) -> tuple[str, ...]:
    """Name the dimensions of the input that are gone from the results."""
    cells = () if operator.keeps_cells else inputs[operator.of[0]].dims
    return (*(each for each in ("member", "step") if each in operator.over), *cells)


def _cell_methods(name: str, reduced: Sequence[str]) -> str:
    """Say in CF's words what a result is, where its name ends in the name of a method.

    >>> _cell_methods("max", ["step"]), _cell_methods("speed_variance", ["y", "x"]), _cell_methods("counts", ["step"])
    ('step: maximum', 'y: x: variance', '')
    """
    methods = [method for word, method in CELL_METHODS.items() if name == word or name.endswith(f"_{word}")]
    return " ".join([*(f"{dim}:" for dim in reduced), methods[0]]) if methods and reduced else ""


def _require_storable(name: str, described: Mapping[str, Variable], leading: str) -> None:
    lengths: dict[str, int] = {}
    for key, result in described.items():
        place = f"Operator '{name}' yields '{key}'"
        if key in COORDINATES:
            raise OperatorError(f"{place}, a name that the store keeps for a coordinate; choose another one.")
        if result.shape is None:
            raise OperatorError(f"{place} without a shape, and a row of results needs one.")
        for dim, length in zip(result.dims, result.shape, strict=True):
            if dim in (leading, key):
                raise OperatorError(f"{place} with the dimension '{dim}', a name that is taken; choose another one.")
            if lengths.setdefault(dim, length) != length:
                raise OperatorError(
                    f"{place} with {length} cells along '{dim}', of which another result has {lengths[dim]}; "
                    "choose another name for one of the two dimensions."
                )
