# SPDX-License-Identifier: Apache-2.0
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.cli.calls import insitu

REPORT: dict[str, Any] = {
    "run": "melt",
    "status": 0,
    "complete": True,
    "wall_s": 83.2,
    "error": None,
    "versions": {"insitu": "0.1.0", "numpy": "2.4.6"},
    "variables": {
        "u": {"delivered": 2000, "dropped": {"max_wait": 3}, "sent_bytes": 4194304000},
        "v": {"delivered": 2000, "dropped": {"max_wait": 0, "disagree": 1}, "sent_bytes": 0},
    },
    "ranks": [{"rank": 0, "waited_s": 0.0123}, {"rank": 1, "waited_s": 61}],
    "events": [],
    "parameters": {},
    "failed": "",
    "missing": [3, 4],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / "melt"
    directory.mkdir()
    (directory / "report.json").write_text(json.dumps(REPORT))
    return directory


def on_a_terminal(run: Path) -> str:
    """What the command prints where a person watches, on 80 columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}
    call = "from insitu.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", call, "report", str(run)], stdin=theirs, stdout=theirs, env=environment, timeout=60
    )
    os.close(theirs)
    printed = b""
    try:
        while chunk := os.read(ours, 65536):
            printed += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert done.returncode == 0
    return printed.decode()


def test_without_a_terminal_every_value_is_a_plain_line(run: Path) -> None:
    result = insitu("report", run)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == dedent("""\
        run: melt
        status: 0
        complete: yes
        wall_s: 1 min 23 s
        error: none
        versions.insitu: 0.1.0
        versions.numpy: 2.4.6
        variables.u.delivered: 2000
        variables.u.dropped.max_wait: 3
        variables.u.sent_bytes: 3.91 GiB
        variables.v.delivered: 2000
        variables.v.dropped.max_wait: 0
        variables.v.dropped.disagree: 1
        variables.v.sent_bytes: 0 B
        ranks.0.rank: 0
        ranks.0.waited_s: 12.3 ms
        ranks.1.rank: 1
        ranks.1.waited_s: 1 min 1 s
        events: none
        parameters: none
        failed: none
        missing: 3; 4
    """)


def test_on_a_terminal_sections_are_tables(run: Path) -> None:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(run))
    lines = [line.rstrip() for line in plain.splitlines()]
    assert all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    assert re.search(r"^wall_s +1 min 23 s$", text, re.M)
    assert re.search(r"^ +delivered +dropped.max_wait +sent_bytes +dropped.disagree$", text, re.M)
    assert re.search(r"^u +2000 +3 +3.91 GiB$", text, re.M)
    assert re.search(r"^v +2000 +0 +0 B +1$", text, re.M)
    assert re.search(r"^1 +1 min 1 s$", text, re.M)
    assert re.search(r"^insitu +0.1.0$", text, re.M)


def test_no_run_at_that_place(tmp_path: Path) -> None:
    result = insitu("report", tmp_path / "melt")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no run in" in result.stderr


def test_a_folder_without_a_report(tmp_path: Path) -> None:
    result = insitu("report", tmp_path)
    assert result.exit_code == 2
    assert "has no report.json: it is no run's directory, or its run has not ended" in result.stderr


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_damaged_report(run: Path, text: str) -> None:
    (run / "report.json").write_text(text, encoding="latin-1")
    result = insitu("report", run)
    assert result.exit_code == 1
    assert "report.json" in result.stderr


def test_two_runs_are_compared_by_what_differs(tmp_path: Path) -> None:
    for name, steps in (("a", 10), ("b", 15)):
        folder = tmp_path / name
        folder.mkdir()
        told = {"run": "melt", "duration_s": 2.0, "steps": {"produced": steps, "dropped": 0}}
        (folder / "report.json").write_text(json.dumps(told))
    result = insitu("report", "--compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert result.exit_code == 0
    assert result.stdout == "steps.produced: 10 -> 15 (x 1.5)\n"
    assert result.stderr == "3 more numbers are the same in both.\n"


def test_what_only_one_run_has_is_told_by_its_part(tmp_path: Path) -> None:
    for name, variables in (("a", {"u": {"delivered": 1, "sent_bytes": 8}, "v": {"delivered": 1}}), ("b", {"v": {}})):
        (tmp_path / name).mkdir()
        told = {"run": "melt", "variables": variables, "operators": {}, name: 1}
        (tmp_path / name / "report.json").write_text(json.dumps(told))
    one, other = str(tmp_path / "a"), str(tmp_path / "b")
    said = insitu("report", "--compare", one, other).stdout.splitlines()
    assert said[:2] == [f"only in {one}: variables.u", f"only in {one}: variables.v.delivered"]
    assert f"only in {other}: b" in said


@pytest.mark.parametrize("arguments", [("--compare", "a"), ("a", "b")])
def test_a_comparison_takes_two_runs(arguments: tuple[str, ...]) -> None:
    result = insitu("report", *arguments)
    assert result.exit_code == 2
    assert "--compare takes two runs" in result.stderr
