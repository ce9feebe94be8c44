# SPDX-License-Identifier: Apache-2.0
"""Where blocks lie, as messages say it."""

from dataclasses import dataclass

from insitu.model import Extent, Variable


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """Where a block lies. For a joined variable ``count[0]`` is 0: it may change from step to step."""

    variable: Variable
    start: Extent
    count: Extent
