# SPDX-License-Identifier: Apache-2.0
"""What ``insitu doctor`` finds on this machine, says of it, and cleans up."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from insitu.controller import machine
from insitu.controller.machine import Finding
from insitu.wire import segment, speed
from tests.cli.calls import insitu

HOLDER = """
import sys
from pathlib import Path
from insitu.wire import segment
segment.FOLDER = Path(sys.argv[1])
print(segment.Segment.create(4096).name, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where segments live in this test, and how long they are left alone."""
    monkeypatch.setattr(segment, "FOLDER", tmp_path)
    monkeypatch.setattr(segment, "SETTLED_S", -1.0)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(speed, "MESSAGE_BYTES", 1 << 12)


@contextmanager
def holder(folder: Path) -> Iterator[Path]:
    """A process with a segment; it is killed at the end, and the segment stays."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield folder / process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_a_healthy_machine_fits_80_columns_and_ends_with_status_0() -> None:
    result = insitu("doctor")
    assert result.exit_code == 0, result.stdout
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    names = {line[2:26].strip() for line in lines}
    assert names >= {"insitu", "pyzmq", "libzmq", "dask", "lo", "available", "left behind", "copy"}
    assert "with CURVE" in result.stdout
    speeds = re.findall(r"^  (tcp over loopback|the same, encrypted) +([\d.]+) [KMG]iB/s$", result.stdout, re.MULTILINE)
    assert [name for name, speed in speeds if float(speed) > 0] == ["tcp over loopback", "the same, encrypted"]


@pytest.mark.usefixtures("quick")
def test_as_json() -> None:
    findings = [Finding(**each) for each in json.loads(insitu("doctor", "--json").stdout)]
    assert {each.section for each in findings} >= {"versions", "network", "ports", "memory", "shared memory", "speed"}
    assert not any(each.fatal for each in findings)
    assert [each.value for each in findings if each.name == "lo"] == [
        "127.0.0.1  (network.interface: auto, with cluster: local)",
        "can be listened at",
    ]


def test_what_keeps_a_run_from_working_ends_with_status_1_and_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", {"no-such-package": True, "nor-this-one": False})
    monkeypatch.setattr(machine, "look", machine.versions)
    result = insitu("doctor")
    assert result.exit_code == 1
    assert "WRONG: pip install no-such-package" in result.stdout
    assert "nor-this-one            not installed" in result.stdout
    assert "pip install nor-this-one" not in result.stdout


def test_little_room_for_shared_memory_is_noted_and_keeps_no_run_from_working(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SEGMENT_BYTES", 1 << 62)
    monkeypatch.setattr(machine, "look", machine.shared_memory)
    result = insitu("doctor")
    assert result.exit_code == 0
    assert "note: free some, or lower variables.'*'.buffer" in result.stdout


@pytest.mark.usefixtures("quick")
def test_only_what_dead_processes_left_is_removed(folder: Path) -> None:
    with holder(folder) as dead:
        assert segment.left_behind() == []
    with holder(folder) as alive:
        other = folder / "insitu-notes.txt"
        other.touch()
        assert "1 of dead processes, 4.06 KiB" in insitu("doctor").stdout
        result = insitu("doctor", "--clean")
        assert result.stderr == f"removed {dead.name}\n"
        assert not dead.exists()
        assert alive.exists()
        assert other.exists()


def test_a_segment_that_was_just_made_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with holder(folder):
        pass
    monkeypatch.setattr(segment, "SETTLED_S", 60.0)
    assert segment.left_behind() == []
    assert machine.clean() == []
