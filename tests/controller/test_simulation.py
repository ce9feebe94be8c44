# SPDX-License-Identifier: Apache-2.0
"""The simulation's processes: what they leave running in the background ends with them, on every system."""

import os
from pathlib import Path

import psutil
import pytest

from insitu.config import Simulation as Settings
from insitu.controller.simulation import Simulation
from tests.waiting import wait_until


@pytest.mark.parametrize("system", ["linux", "macos"])
def test_the_status_is_that_of_its_end_and_its_background_goes_too(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system == "macos":
        monkeypatch.delattr(os, "waitid")
    shown: list[str] = []
    command = ("sh", "-c", "sleep 300 & echo $!; exit 3")
    simulation = Simulation(Settings(command=command), tmp_path / "contact.json", tmp_path / "output", shown.append)
    simulation.start()
    wait_until(lambda: not simulation.running, what="its end")
    assert simulation.status == 3
    simulation.close()
    (number,) = shown
    wait_until(lambda: not _runs(int(number)), what="the end of the background")


def _runs(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
