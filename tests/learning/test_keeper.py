# SPDX-License-Identifier: Apache-2.0
"""The process of a learner: one that dies is started anew, one that hangs is ended, one that fails is given up."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from insitu.staging import keeper as module
from insitu.staging.keeper import TRIES, Keeper
from insitu.wire.messages import Event
from tests.waiting import wait_until

#: There is a port, but nobody answers at it: the process waits for its first word.
CONTACT = {"run": "r", "address": "tcp://127.0.0.1:9", "pid": 1, "host": "h", "directory": "/nowhere", "keys": None}


def order(entry: dict[str, object]) -> dict[str, object]:
    return {"operator": "sums", "entry": entry, "contact": CONTACT, "config_hash": "0"}


@contextmanager
def kept(entry: dict[str, object], patience_s: float = 120.0, **more: object) -> Iterator[Keeper]:
    keeper = Keeper("sums", order(entry) | more, patience_s=patience_s)
    try:
        yield keeper
    finally:
        keeper.close()


def events(keeper: Keeper) -> list[Event]:
    found: list[Event] = []

    def looked() -> bool:
        found.extend(keeper.look())
        return bool(found)

    wait_until(looked, 60, "a word of the keeper")
    return found


def test_a_killed_process_is_started_anew_until_it_dies_too_often(tmp_path: Path) -> None:
    with kept({"use": "tests.learning.sums:Sums", "of": "u"}) as keeper:
        for _ in range(TRIES):
            pid = keeper.pid
            os.kill(pid, signal.SIGKILL)
            [event] = events(keeper)
            assert (event.kind, event.details["operator"]) == ("learner-restarted", "sums")
            assert "ended by SIGKILL" in event.text
            assert keeper.pid != pid
        os.kill(keeper.pid, signal.SIGKILL)
        [event] = events(keeper)
        assert event.kind == "operator-stopped"
        assert f"{TRIES + 1} times" in event.details["reason"]
        assert keeper.look() == []


def test_one_of_several_processes_that_dies_too_often_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIES", 0)
    with kept({"use": "tests.learning.sums:Sums", "of": "u"}, process=1, processes=2) as keeper:
        os.kill(keeper.pid, signal.SIGKILL)
        [event] = events(keeper)
        assert (event.kind, event.details["operator"], event.details["process"]) == ("learner-lost", "sums", 1)
        assert "process 1: its process ended by SIGKILL, 1 times one soon after the other; it is given up" in event.text
        assert keeper.look() == []


def test_a_process_that_gives_no_sign_of_life_is_killed() -> None:
    with kept({"use": "tests.learning.sums:Sums", "of": "u"}, patience_s=0.5) as keeper:
        before = psutil.Process(keeper.pid)
        before.suspend()
        [event] = events(keeper)
        assert "no sign of life for 0.5 s" in event.text
        assert not before.is_running()


def test_a_keeper_that_was_stopped_itself_does_not_take_that_for_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    with kept({"use": "tests.learning.sums:Sums", "of": "u"}) as keeper:
        pid = keeper.pid
        now += 3600.0
        assert keeper.look() == []
        for _ in range(2):  # it hears nothing yet, and has waited for so long as it has listened
            now += 60.0
            assert keeper.look() == []
        now += 60.0
        [event] = keeper.look()
        assert "no sign of life for 120 s" in event.text
        assert keeper.pid != pid


def test_what_a_learner_raises_is_the_reason_and_it_is_not_tried_again() -> None:
    with kept({"use": "tests.learning.no_such_module:Sums", "of": "u"}) as keeper:
        [event] = events(keeper)
        assert event.kind == "operator-stopped"
        assert "tests.learning.no_such_module cannot be imported" in event.details["reason"]
        assert keeper.look() == []


def test_the_process_ends_with_whoever_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 30.0)
    with kept({"use": "tests.learning.sums:Sums", "of": "u"}) as keeper:
        process = psutil.Process(keeper.pid)
    assert not process.is_running()
