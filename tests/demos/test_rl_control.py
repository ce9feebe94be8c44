# SPDX-License-Identifier: Apache-2.0
"""The demo that learns, for as long as it takes to see that it does: real runs, real episodes, few of them."""

from pathlib import Path

import pytest

from tests.demos.conftest import Start


def test_some_steps_of_learning_are_steps_of_the_simulation(start: Start, tmp_path: Path) -> None:
    for library in ("stable_baselines3", "gymnasium", "matplotlib"):
        pytest.importorskip(library)
    done = start("rl_control", tmp_path, "--steps", 40, "--episode", 5)
    assert done.returncode == 0, done.stderr
    assert "40 steps of learning" in done.stdout
    assert "within 2 of the wanted state" in done.stdout
    assert (tmp_path / "rl_control.png").stat().st_size > 10_000
