# SPDX-License-Identifier: Apache-2.0
"""Scenes, and their end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.steering.scene import Scene

Make = Callable[..., Scene]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Make]:
    scenes: list[Scene] = []

    def make(name: str = "scene", ranks: int = 2, **options: object) -> Scene:
        folder = tmp_path / name
        folder.mkdir()
        scenes.append(Scene(folder, ranks, **options))
        return scenes[-1]

    yield make
    for each in scenes:
        each.close()
