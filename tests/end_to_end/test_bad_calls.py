# SPDX-License-Identifier: Apache-2.0
"""A call that cannot work ends with status 2 and one sentence, before anything is started or overwritten."""

from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import Running, program


def refused(running: Running) -> str:
    """Wait for the end of a call that is wrong; return the sentence."""
    left = running.wait()
    assert left.status == 2, left.stderr
    assert left.stdout == ""
    assert not list(running.folder.glob("begun-*"))
    [sentence] = left.stderr.splitlines()
    return sentence


@pytest.mark.parametrize(
    ("simulation", "words"),
    [
        ({"command": ["no-such-program", "-x"]}, "simulation.command: 'no-such-program' is not found"),
        ({"command": ["true"], "directory": "nowhere"}, "simulation.directory: there is no folder 'nowhere'"),
    ],
)
def test_a_simulation_that_cannot_be_started(start: Start, simulation: dict[str, Any], words: str) -> None:
    running = start(simulation=simulation)
    assert words in refused(running)
    assert not running.directory.exists()


def test_a_file_in_the_place_of_the_directory(start: Start) -> None:
    running = start(*program("steady"), directory=__file__)
    sentence = refused(running)
    assert f"{Path(__file__) / 'test0'}: the run's directory cannot be made" in sentence
    assert "--set directory=PATH" in sentence


def test_a_directory_that_is_there_is_kept_unless_it_is_to_be_replaced(start: Start, tmp_path: Path) -> None:
    first = start("true", run="same", impatient=True).wait()
    kept = {path: path.stat().st_mtime_ns for path in first.directory.rglob("*")}
    second = start("true", run="same")
    sentence = refused(second)
    assert "runs/same: this run's directory is there already; replace it by --force" in sentence
    assert {path: path.stat().st_mtime_ns for path in first.directory.rglob("*")} == kept
    (first.directory / "mine.txt").touch()
    third = start(*program("steady"), run="same", arguments=("--force",)).wait()
    assert third.status == 0, third.stderr
    assert not (first.directory / "mine.txt").exists()


def test_a_folder_that_is_no_runs_is_not_replaced(start: Start, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis" / "runs" / "thesis" / "chapter1.tex"
    thesis.parent.mkdir(parents=True)
    thesis.touch()
    running = start("true", run="thesis", arguments=("--force",))
    assert "holds no config.yaml, so it is no run's directory" in refused(running)
    assert thesis.exists()


def test_a_yaml_mistake_has_its_line(start: Start) -> None:
    running = start("true", operators={"stats": {"use": "momens", "of": "u", "over": "step"}})
    assert '.yaml:10: operators.stats.use: no operator is called "momens"; did you mean "moments"?' in refused(running)
