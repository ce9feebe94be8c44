# SPDX-License-Identifier: Apache-2.0
"""Results as a controller gets them."""

import numpy as np
import numpy.typing as npt

from insitu.results import Provenance, Result


def result(value: npt.ArrayLike, step: int = 0, time: float | None = None, name: str = "value") -> Result:
    """A result of one array at one step."""
    when = float(step) if time is None else time
    return Result("series", Provenance(step, step, step, when, 1, 0, complete=True), {name: np.asarray(value, float)})
