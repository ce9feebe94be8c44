# SPDX-License-Identifier: Apache-2.0
"""What processes write is shown line by line, whoever writes it and however, and takes a bounded part of the disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from insitu.controller import output
from insitu.controller.output import Output, Outputs
from insitu.errors import RunError
from tests.waiting import wait_until


def new_output(folder: Path) -> tuple[Output, list[str]]:
    shown: list[str] = []
    return Output(folder / "some.out", lambda lines: shown.extend(lines.split("\n")), []), shown


def taken(some: Output) -> None:
    while some.take():
        pass


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"one", b"\ntw", b"o"], ["one", "two"]),
        ([b"10 %\r20 %\r", b"done\r", b"\nend\r\n"], ["10 %", "20 %", "done", "end"]),
        (["né".encode()[:2], "né".encode()[2:], b"\n\n"], ["né", ""]),
        ([b"\xff\n"], ["�"]),
        ([b"x" * 100_000 + b"\n"], ["x" * output.READ_BYTES, "x" * (100_000 - output.READ_BYTES)]),
    ],
    ids=["lines", "pieces", "progress", "letter", "bytes", "long"],
)
def test_lines_come_whole_however_they_are_written(tmp_path: Path, pieces: list[bytes], lines: list[str]) -> None:
    some, shown = new_output(tmp_path)
    for piece in pieces:
        os.write(some.fileno(), piece)
        taken(some)
    some.close()
    assert shown == lines
    assert (tmp_path / "some.out").read_bytes() == b"".join(pieces)


def test_a_file_that_its_process_empties_is_read_from_its_beginning(tmp_path: Path) -> None:
    """As ``echo ... > /dev/stderr`` does in a shell."""
    some, shown = new_output(tmp_path)
    os.write(some.fileno(), b"a long line\n")
    taken(some)
    (tmp_path / "some.out").write_bytes(b"short\n")
    some.close()
    assert shown == ["a long line", "short"]


def test_what_lies_far_back_takes_no_disk_and_the_newest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "KEEP_BYTES", 1 << 20)
    some, shown = new_output(tmp_path)
    path = tmp_path / "some.out"
    written = [f"{n:0127d}" for n in range(80_000)]
    most = 0
    for k in range(0, len(written), 4000):
        os.write(some.fileno(), "".join(f"{line}\n" for line in written[k : k + 4000]).encode())
        taken(some)
        most = max(most, path.stat().st_blocks * 512)
    assert shown == written
    assert path.stat().st_size == 80_000 * 128
    if sys.platform == "linux":  # elsewhere it is long until its end
        assert most < 4 << 20
    some.close()
    kept = path.read_text().splitlines()
    assert len(kept) > 8000
    assert kept == written[-len(kept) :]
    assert [each.name for each in tmp_path.iterdir()] == ["some.out"]


def test_who_writes_faster_than_can_be_shown_loses_the_middle_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "KEEP_BYTES", 1 << 20)
    some, shown = new_output(tmp_path)
    os.write(some.fileno(), b"first\nhalf a")
    taken(some)
    written = [f"{n:0127d}" for n in range(20_000)]
    os.write(some.fileno(), ("\n" + "".join(f"{line}\n" for line in written)).encode())
    some.close()
    *before, said = shown[:3]
    assert before == ["first", "half a"]
    rest = shown[3:]
    assert rest == written[-len(rest) :]
    left_out = 1 + (len(written) - len(rest)) * 128
    assert said.startswith(f"[{left_out} bytes are left out")
    assert str(tmp_path / "some.out") in said


def test_of_what_wrote_nothing_nothing_is_left_and_what_writes_on_is_not_waited_for(tmp_path: Path) -> None:
    shown: list[str] = []
    folder = tmp_path / "output"
    outputs = Outputs(folder, lambda lines: shown.extend(lines.split("\n")))
    silent, talking = outputs.open("silent.out", []), outputs.open("talking.out", [])
    assert silent.fileno() != talking.fileno()
    process = subprocess.Popen(["sh", "-c", "while echo on; do :; done"], stdout=talking.fileno())
    try:
        outputs.start()
        wait_until(lambda: shown, what="a line")
        outputs.close()
    finally:
        process.kill()
        process.wait()
    assert set(shown) <= {"on", ""} or any("left out" in line for line in shown)
    assert [each.name for each in folder.iterdir()] == ["talking.out"]
    outputs.close()


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("a file")
    with pytest.raises(RunError, match=r"output/rank-0.out: what the simulation writes cannot go there \(.*--set"):
        Outputs(tmp_path / "output", print).open("rank-0.out", [])
