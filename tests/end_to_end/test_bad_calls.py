# SPDX-License-Identifier: Apache-2.0
"""A call that cannot work ends with status 2 and one sentence, before anything is started or overwritten."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.calls import insitu
from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import program, total, write


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(*arguments: str, **keys: Any) -> str:
    """Call ``insitu run`` with a configuration; return the sentence that refuses it."""
    config: dict[str, Any] = {"run": "wrong", "simulation": {"command": "touch begun"}, "operators": {"sum": total()}}
    result = insitu("run", write(Path(), config | keys), *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert not Path("begun").exists()
    [sentence] = result.stderr.splitlines()
    return sentence


@pytest.mark.parametrize(
    ("simulation", "words"),
    [
        ({"command": ["no-such-program", "-x"]}, "simulation.command: 'no-such-program' is not found"),
        ({"command": ["true"], "directory": "nowhere"}, "simulation.directory: there is no folder 'nowhere'"),
    ],
)
def test_a_simulation_that_cannot_be_started(simulation: dict[str, Any], words: str) -> None:
    assert words in refused(simulation=simulation)
    assert not Path("runs").exists()


def test_a_file_in_the_place_of_the_directory() -> None:
    sentence = refused(directory=__file__)
    assert f"{Path(__file__) / 'wrong'}: the run's directory cannot be made" in sentence
    assert "--set directory=PATH" in sentence


def test_a_directory_that_is_there_is_kept_unless_it_is_to_be_replaced(start: Start) -> None:
    directory = Path("same", "runs", "same")
    directory.mkdir(parents=True)
    for name in ("config.yaml", "report.json"):
        (directory / name).write_text("mine")
    kept = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    sentence = refused(run="same", directory="same/runs")
    assert "runs/same: this run's directory is there already; replace it by --force" in sentence
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == kept
    (directory / "mine.txt").touch()
    left = start(*program("steady"), run="same", arguments=("--force",)).wait()
    assert left.status == 0, left.stderr
    assert left.directory.samefile(directory)
    assert left.report["status"] == "done"
    assert not (directory / "mine.txt").exists()


def test_a_folder_that_is_no_runs_is_not_replaced() -> None:
    thesis = Path("runs", "thesis", "chapter1.tex")
    thesis.parent.mkdir(parents=True)
    thesis.touch()
    assert "holds no config.yaml, so it is no run's directory" in refused("--force", run="thesis")
    assert thesis.exists()


def test_a_yaml_mistake_has_its_line() -> None:
    sentence = refused(operators={"stats": {"use": "momens", "of": "u", "over": "step"}})
    assert 'wrong.yaml:6: operators.stats.use: no operator is called "momens"; did you mean "moments"?' in sentence
