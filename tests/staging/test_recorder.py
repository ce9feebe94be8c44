# SPDX-License-Identifier: Apache-2.0
"""The recorder is done with a step when it is written, and with all when that is counted."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from insitu.model import Block, Step, Variable
from insitu.results import recording
from insitu.results.recorded import Recording
from insitu.staging.assembler import ReadyStep
from insitu.staging.folder import Folded
from insitu.staging.recorder import Recorder, RecordingPlan
from insitu.wire.messages import Event, Finished
from tests.waiting import wait_until

LARGE = Variable("u", np.dtype("f8"), (1 << 17,), ("x",))
SMALL = Variable("v", np.dtype("f8"), (1,), ("x",))


def ready(n: int) -> ReadyStep:
    """A step with a block that is a chunk of its own, and a small one."""
    parts = {each.name: Block(each, (0,), np.full(each.shape or (), n, "f8")) for each in (LARGE, SMALL)}
    return ReadyStep(Step(n, n, 0.0), {0: parts}, {0: 1})


@contextmanager
def recorder(path: Path, *of: str) -> Iterator[tuple[Recorder, list[Folded]]]:
    recording.create_recording(path, 1)
    told: list[Folded] = []
    one = Recorder(0, 1, RecordingPlan(path, frozenset(of)), 0, 1 << 20, told.append)
    try:
        yield one, told
    finally:
        one.close()
        assert not one.alive


def done(told: list[Folded]) -> list[int]:
    return [each.step.sequence for folded in told for each in folded.steps]


def test_only_what_was_chosen_is_recorded_and_the_end_is_said_last(tmp_path: Path) -> None:
    with recorder(tmp_path / "r", "v") as (one, told):
        one.submit([ready(0), ready(1)])
        one.submit([ready(2)])
        one.finish(3)
        wait_until(lambda: any(folded.messages for folded in told))
        assert done(told) == [0, 1, 2]
        assert told[-1].messages == [Finished(0)]
        assert one.status() == {"recorded_steps": 3, "recorded_bytes": 24}
        assert list(Recording(tmp_path / "r").variables) == ["v"]


def test_a_step_is_not_done_with_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, may, begun = recording._append, threading.Semaphore(0), threading.Event()

    def slow(*arguments: object) -> None:
        begun.set()
        assert may.acquire(timeout=60)
        append(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(recording, "_append", slow)
    with recorder(tmp_path / "r", "*") as (one, told):
        one.submit([ready(0), ready(1)])
        assert begun.wait(60.0)
        assert told == []
        may.release()
        wait_until(lambda: done(told) == [0])
        may.release(100)
        wait_until(lambda: done(told) == [0, 1])


def test_a_disk_that_fails_is_told_once_and_steps_go_on(tmp_path: Path) -> None:
    with recorder(tmp_path / "r", "*") as (one, told):
        (tmp_path / "r" / "node-0").write_text("in the way")
        one.submit([ready(0), ready(1)])
        one.finish(2)
        wait_until(lambda: told and Finished(0) in told[-1].messages)
        events = [message for folded in told for message in folded.messages if isinstance(message, Event)]
        assert [event.kind for event in events] == ["recording-stopped"]
        assert "the recording ends after 0 steps: Cannot write the recording" in events[0].text
        assert done(told) == [0, 1]


def test_what_was_recorded_is_counted_when_the_run_ends_early(tmp_path: Path) -> None:
    with recorder(tmp_path / "r", "*") as (one, told):
        one.submit([ready(0), ready(1)])
        wait_until(lambda: done(told) == [0, 1])
    assert len(Recording(tmp_path / "r").steps) == 2
