# SPDX-License-Identifier: Apache-2.0
"""Shared memory: seen by who may see it, and gone with its processes however they end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from insitu.errors import RunError
from insitu.wire import segment
from insitu.wire.segment import HEAD_BYTES, PREFIX, Segment, sweep

HOLDER = """
import sys
from insitu.wire.segment import Segment
ours = Segment.create(4096)
ours.data[:] = 7
print(ours.name, ours.secret, flush=True)
if sys.stdin.readline().strip() == "unlink":
    ours.unlink()
    print("unlinked", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(segment, "FOLDER", tmp_path)
    return tmp_path


def holder() -> tuple[subprocess.Popen[str], str, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    name, secret = process.stdout.readline().split()
    return process, name, secret


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_another_process_sees_what_is_written_and_cannot_write() -> None:
    process, name, secret = holder()
    theirs = Segment.open(name, secret, 4096)
    assert theirs is not None
    assert (theirs.data == 7).all()
    with pytest.raises(ValueError, match="read-only"):
        theirs.data[0] = 1
    theirs.close()
    end(process)
    sweep(process.pid)


def test_nothing_is_left_of_a_process_that_was_killed_and_what_was_mapped_stays_readable() -> None:
    process, name, secret = holder()
    theirs = Segment.open(name, secret, 4096)
    assert theirs is not None
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("unlink\n")
    assert process.stdout.readline() == "unlinked\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (segment.FOLDER / name).exists()
    assert (theirs.data == 7).all()
    theirs.close()


def test_what_was_left_before_the_name_went_is_swept_up() -> None:
    process, name, _ = holder()
    end(process)
    assert (segment.FOLDER / name).exists()
    sweep(process.pid)
    assert not (segment.FOLDER / name).exists()


def test_a_segment_is_its_owners_alone_and_aligned() -> None:
    ours = Segment.create(100)
    assert (segment.FOLDER / ours.name).stat().st_mode & 0o777 == 0o600
    assert ours.data.ctypes.data % HEAD_BYTES == 0
    ours.unlink()
    ours.close()


@pytest.mark.parametrize("name", ["insitu-1-00", "../etc/passwd", "/etc/passwd", "passwd", f"{PREFIX}../x"])
def test_a_name_that_is_none_is_not_opened(folder: Path, name: str) -> None:
    assert Segment.open(name, "s", 10) is None


def test_a_segment_of_that_name_that_is_another_or_too_small_is_not_taken(folder: Path) -> None:
    ours = Segment.create(1000)
    assert Segment.open(ours.name, "0" * 32, 1000) is None
    assert Segment.open(ours.name, ours.secret, 10**9) is None
    (folder / f"{PREFIX}link").symlink_to(folder / ours.name)
    assert Segment.open(f"{PREFIX}link", ours.secret, 1000) is None
    ours.close()


def test_no_room_is_said_before_a_step_is_written_and_leaves_nothing(folder: Path) -> None:
    room = os.statvfs(folder)
    with pytest.raises(RunError, match=r"No shared memory of .* take transport: tcp"):
        Segment.create(room.f_bavail * room.f_frsize + (1 << 40))
    assert list(folder.iterdir()) == []


#: A file of this process may have no more than a MiB: writing fails as on a disk that is full.
FULL = """
import os, resource
from pathlib import Path
from insitu.wire import segment
del os.posix_fallocate
segment.FOLDER = Path(os.getcwd())
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
segment.Segment.create(100_000).close()
try:
    segment.Segment.create(3 << 20)
except segment.RunError as error:
    print(error)
"""


def test_where_the_system_cannot_allocate_room_is_taken_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, with more than is written at once."""
    monkeypatch.delattr(os, "posix_fallocate")
    ours = Segment.create(segment._PIECE_BYTES + 1000)
    theirs = Segment.open(ours.name, ours.secret, segment._PIECE_BYTES + 1000)
    assert theirs is not None
    assert (folder / ours.name).stat().st_blocks * 512 > segment._PIECE_BYTES
    ours.data[-1] = 7
    assert (theirs.data[-1], theirs.data.sum(dtype=int)) == (7, 7)
    theirs.close()
    ours.close()


def test_where_the_system_cannot_allocate_no_room_is_said_too_and_nothing_is_left(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL], cwd=folder, capture_output=True, text=True, check=True)
    assert "No shared memory of 3145728 bytes can be had" in done.stdout
    assert len(list(folder.iterdir())) == 1  # the one that had room


def test_an_array_outlives_the_segment_it_came_from() -> None:
    ours = Segment.create(64)
    part: np.ndarray[tuple[int], np.dtype[np.uint8]] = ours.data[:8]
    ours.unlink()
    ours.close()
    part[:] = 3
    assert part.sum() == 24
