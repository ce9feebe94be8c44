# SPDX-License-Identifier: Apache-2.0
"""Where blocks lie and which cells are meant, as messages say it."""

from dataclasses import dataclass

from insitu.model import Extent, Variable


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """Where a block lies. For a joined variable ``count[0]`` is 0: it may change from step to step."""

    variable: Variable
    start: Extent
    count: Extent


@dataclass(frozen=True, slots=True)
class Range:
    """Some indices of a dim, as Python's slices say it; `step` is at least 1."""

    dim: str
    start: int | None
    stop: int | None
    step: int


ALL_STEPS = Range("step", None, None, 1)
