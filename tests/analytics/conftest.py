# SPDX-License-Identifier: Apache-2.0
"""MDAnalysis, for the operators that it knows as well."""

from collections.abc import Callable
from typing import Any

import pytest

from insitu.model import Array


@pytest.fixture
def universe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make a universe of MDAnalysis from positions of shape (steps, particles, 3), and a box if there is one."""
    mda = pytest.importorskip("MDAnalysis")
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # else its progress bars leave a thread behind

    def universe(positions: Array, box: tuple[float, ...] | None = None) -> Any:
        made = mda.Universe.empty(positions.shape[1], trajectory=True)
        return made.load_new(positions, dimensions=None if box is None else [*box, 90, 90, 90])

    return universe
