# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a run: one line that fits a terminal, and plain lines where nobody watches."""

import io
import os
import sys

import pytest
from rich.console import Console

from insitu.controller import progress as module
from insitu.controller.progress import LiveProgress, PlainProgress, Snapshot, new_progress

BUSY = Snapshot(steps=123456, dropped=1234, received_bytes=10**13, waiting_bytes=10**9, waited_s=86400.0, windows=54321)


class Recorded(io.StringIO):
    """Takes what is printed."""


def live(width: int) -> tuple[LiveProgress, Recorded]:
    file = Recorded()
    return LiveProgress(Console(file=file, force_terminal=True, width=width, color_system=None)), file


def test_a_line_says_the_most_asked_for_first() -> None:
    assert Snapshot(steps=7, waiting_bytes=2048, waited_s=0.5, windows=3).line(1.5 * 2**20) == (
        "step 7 | 1.5 MiB/s | waited 500 ms | queued 2 KiB | 3 results"
    )
    assert BUSY.line(2.0**30) == ("step 123456 | 1234 dropped | 1 GiB/s | waited 24 h | queued 954 MiB | 54321 results")


@pytest.mark.parametrize("width", [80, 40])
def test_the_live_line_is_one_line_whatever_it_has_to_say(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIVE_S", 0.0)
    progress, file = live(width)
    progress.update(BUSY)
    drawn = file.getvalue()
    progress.close()
    lines = [line for line in drawn.replace("\r", "\n").splitlines() if "step" in line]
    assert lines
    for line in lines:
        text = line.split("\x1b[2K")[-1].replace("\x1b[?25l", "")
        assert text.startswith("step 123456 | 1234 dropped")
        assert len(text) <= width
    assert file.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in file.getvalue()  # the cursor is back


def test_what_the_simulation_writes_stands_above_the_live_line_as_it_is() -> None:
    progress, file = live(80)
    progress.show("[bold]Step 1[/bold] " + "x" * 20)
    progress.say("Stopping the simulation")
    progress.close()
    assert "[bold]Step 1[/bold] " + "x" * 20 in file.getvalue()
    assert "Stopping the simulation" in file.getvalue()


def test_without_a_terminal_each_goes_its_way(capsys: pytest.CaptureFixture[str]) -> None:
    progress = new_progress()
    assert isinstance(progress, PlainProgress)
    progress.show("of the simulation")
    progress.say("of the run")
    progress.update(BUSY)  # too early for a line
    progress.close()
    assert capsys.readouterr() == ("of the simulation\n", "of the run\n")


def test_without_a_terminal_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLAIN_S", 0.0)
    PlainProgress().update(Snapshot(steps=5, windows=2))
    assert capsys.readouterr() == ("", "step 5 | 0 B/s | waited 0 ms | queued 0 B | 2 results\n")


def test_the_rate_is_that_of_the_last_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    rate = module._Rate()
    seen = []
    for now[0], nbytes in [(0.5, 100), (2.0, 4000), (2.5, 9000), (4.0, 4000)]:
        seen.append(rate.of(nbytes))
    assert seen == [0.0, 2000.0, 2000.0, 0.0]


def test_a_reader_who_has_left_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        for _ in range(3):
            PlainProgress().show("nobody reads this")
