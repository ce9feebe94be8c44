# SPDX-License-Identifier: Apache-2.0
"""What a run yields: results with their provenance, and the store that keeps them.

A `Result` is plain data, a row of an operator's arrays. `insitu.results.store` writes rows to ``results.zarr``;
`insitu.results.chunks` says how a row is cut, for those who write the parts of a large one from many places.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from insitu.model import Array


@dataclass(frozen=True, slots=True)
class Provenance:
    """What went into one row of results.

    `index` is the window's number, or the author's step index for an operator that keeps steps. `first_step` and
    `last_step` are author's indices too, both -1 where no step was folded; `time` is the last one's physical time, NaN
    where there is none. `steps` were folded and `dropped` are missing. `complete` is false where the window ended
    early, or where a part of it was lost.
    """

    index: int
    first_step: int
    last_step: int
    time: float
    steps: int
    dropped: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Result:
    """One row of an operator's results: `arrays` as `Operator.describe` names them, without the leading dimension."""

    operator: str
    provenance: Provenance
    arrays: Mapping[str, Array]
