# SPDX-License-Identifier: Apache-2.0
"""The pages of `docs/` that show programs and commands are run as they stand.

A block ``file=NAME`` is saved; the lines of a ``console`` block behind ``$`` are run in order and must end with the
block's ``status`` (0 if it names none); what the page shows of the output must be there.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.calls import insitu
from tests.waiting import wait_until

DOCS = Path(__file__).parents[2] / "docs"
#: What makes a line one for a shell.
SHELL = {">", "2>&1", "|", "&", "&&", ";"}
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(command: str, where: Path, status: int) -> str:
    """Do what a line says, and return what it prints.

    What calls ``insitu`` and nothing else does so in this process, where libraries are loaded already; a run has its
    own.
    """
    name, *arguments = shlex.split(command)
    if name == "insitu" and not set(arguments) & SHELL and not (status == 0 and arguments[0] == "run"):
        with contextlib.chdir(where):
            said = insitu(*arguments)
        assert isinstance(said.exception, SystemExit | None), f"{command}: {said.exception!r}"
        assert said.exit_code == status, f"{command}: {said.output}"
        return said.stdout
    beside = Path(sys.executable).parent
    done = subprocess.run(
        command,
        shell=True,
        cwd=where,
        env={**os.environ, "PATH": f"{beside}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def follow(page: Path, where: Path) -> str:
    """Do what a reader of the page would do; return all that was printed."""
    printed = ""
    for kind, options, text in BLOCK.findall(page.read_text()):
        given = dict(option.split("=", 1) for option in options.split())
        if "file" in given:
            (where / given["file"]).write_text(text)
        elif kind == "console":
            lines = text.splitlines()
            outputs = [run(line[2:], where, int(given.get("status", 0))) for line in lines if line.startswith("$ ")]
            printed += "".join(outputs)
            for expected in (line for line in lines if not line.startswith("$ ")):
                assert expected in printed
    return printed


@pytest.mark.timeout(200)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    printed = follow(DOCS / "tutorial.md", tmp_path)
    assert "steps.delivered: 400" in printed
    assert f"values counted: {400 * 64 * 64}" in printed
    assert "mean of the plate at the end" in printed


@pytest.mark.timeout(200)
def test_the_page_about_steering_does_what_it_says(tmp_path: Path) -> None:
    printed = follow(DOCS / "steering.md", tmp_path)
    assert "2: pause (command line): applied after step" in printed
    assert "5: cool by=0.5 (command line): applied after step" in printed
    assert (tmp_path / "checkpoint.npy").exists()


@pytest.mark.timeout(200)
def test_the_page_about_attaching_does_what_it_says(tmp_path: Path) -> None:
    """Its simulation is that of the checkout, and ends because the page stops it."""
    pytest.importorskip("matplotlib")
    (tmp_path / "demos").symlink_to(DOCS.parent / "demos")
    try:
        printed = follow(DOCS / "attach.md", tmp_path)
    finally:
        contact = tmp_path / "runs" / "gray-scott" / "contact.json"
        if contact.exists():  # the page did not come to its end
            os.kill(json.loads(contact.read_text())["pid"], signal.SIGTERM)
            wait_until(lambda: not contact.exists(), 30.0, "the end of the run")
        log = (tmp_path / "run.log").read_text()
    assert "the feed is 0.018" in printed, log
    assert re.search(r"v has \(64, 64\) cells, of \('y', 'x'\) float64 at step \d*0\n", printed)
    assert re.search(r"the last row has \('x',\) at step \d*0 after [1-9]\d* more", printed)
    assert re.search(r"step +\d*0  time \d+ +v \S+ 0\.\d+ 0\.\d+\n", printed)
    with np.load(tmp_path / "v.npz") as saved:
        assert saved["v"].shape == (32, 64)
    assert "windows of moments so far" in printed
    assert (tmp_path / "newest.png").stat().st_size > 1000
    report = json.loads((tmp_path / "runs" / "gray-scott" / "report.json").read_text())
    assert (report["status"], report["reasons"]) == ("done", [])


@pytest.mark.timeout(300)
def test_windows_and_chains_do_what_their_page_says(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    printed = follow(DOCS / "windows.md", tmp_path)
    assert "Not known before the run" not in printed
    assert (tmp_path / "runs" / "wave" / "figures" / "picture-000000.png").stat().st_size > 1000


@pytest.mark.timeout(300)
def test_the_page_about_training_does_what_it_says(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    follow(DOCS / "training.md", tmp_path)
    assert "the network is better than a guess" in (tmp_path / "runs" / "plates" / "log.jsonl").read_text()
