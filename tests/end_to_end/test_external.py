# SPDX-License-Identifier: Apache-2.0
"""A simulation that is started by hand: it finds the run by the contact file, or is told why it cannot take part."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import insitu
from insitu.errors import InsituError
from insitu.wire.contact import Contact
from insitu.wire.messages import VERSION
from insitu.wire.sockets import listen, new_keys, poll
from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import LIMIT_S, SLACK_S, Running, environment, program, told
from tests.waiting import wait_until


@pytest.fixture
def running(start: Start) -> Running:
    return start(simulation={"command": [], "launcher": "external"})


def contact_of(running: Running) -> Path:
    """The file that the run prints."""
    wait_until(lambda: "INSITU_CONTACT=" in running.stderr, LIMIT_S, "the contact file")
    found = re.search(r"INSITU_CONTACT=(\S+)", running.stderr)
    assert found is not None
    return Path(found[1])


@contextmanager
def rank(contact: Path, number: int, size: int, folder: Path, *options: object) -> Iterator[subprocess.Popen[str]]:
    """A rank's process, as a user would start it."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, *program("steady", *options)[1:]],
        cwd=folder,
        env=environment() | {"INSITU_CONTACT": str(contact), "INSITU_RANK": str(number), "INSITU_SIZE": str(size)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def refused(contact: Path, number: int, size: int, folder: Path) -> str:
    """Start a rank that must fail at once; return its last words."""
    with rank(contact, number, size, folder) as process:
        stderr = process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode == 1, stderr
        return stderr.splitlines()[-1]


def test_ranks_started_by_hand_are_one_simulation_and_those_who_do_not_belong_disturb_nobody(
    running: Running, tmp_path: Path
) -> None:
    contact = contact_of(running)
    assert contact.stat().st_mode & 0o777 == 0o600
    other = tmp_path / "other.json"
    other.write_text(contact.read_text().replace('"test0"', '"yesterday"'))
    other.chmod(0o600)
    elsewhere = tmp_path / "elsewhere"
    with rank(contact, 0, 2, running.folder, "--steps", 30, "--pause", 0.001) as first:
        running.until("begun-0")
        assert "says it is rank 1 of 3, but this run has 2" in refused(contact, 1, 3, elsewhere)
        assert re.search(r"rank 0 is there already \(process \d+ on ", refused(contact, 0, 2, elsewhere))
        assert "this is run 'test0', not 'yesterday'; its contact file is an old one" in refused(other, 1, 2, elsewhere)
        with rank(contact, 1, 2, running.folder, "--steps", 30) as second:
            assert [process.wait(LIMIT_S) for process in (first, second)] == [0, 0]
    left = running.wait()
    assert left.status == 0, left.stderr
    assert left.report["steps"]["delivered"] == 30
    np.testing.assert_array_equal(left.results("sum")["total"][0], 30 * np.arange(16) + sum(range(30)))
    assert len(left.events("rank-refused")) == 3
    assert not contact.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "Cannot read the contact file"),
        ({"version": 0}, "is no contact file of this version of insitu: it has version 0"),
        ({"address": 7}, "its 'address' is 7"),
    ],
)
def test_a_contact_file_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any] | None, words: str
) -> None:
    contact = tmp_path / "contact.json"
    if change is not None:
        said = {"version": VERSION, "run": "a", "address": "tcp://127.0.0.1:1", "pid": 1, "host": "", "directory": ""}
        contact.write_text(json.dumps(said | change))
        contact.chmod(0o600)
    monkeypatch.setenv("INSITU_CONTACT", str(contact))
    with pytest.raises(InsituError, match=words) as caught:
        insitu.Client()
    assert str(contact) in str(caught.value)


def test_an_old_contact_file_costs_a_wait_and_the_simulation_goes_on(tmp_path: Path) -> None:
    """Nobody listens there any more."""
    contact = tmp_path / "contact.json"
    said = {
        "version": VERSION,
        "run": "a",
        "address": "tcp://127.0.0.1:1",
        "pid": 1,
        "host": "",
        "directory": "",
        "folds": {},
    }
    contact.write_text(json.dumps(said))
    contact.chmod(0o600)
    wait_s = 0.5
    code = (
        f"import runpy; from insitu.client import client; client.CONNECT_TIMEOUT_S = {wait_s}; "
        "runpy.run_path({!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code.format(program("steady")[1])],
        cwd=tmp_path,
        env=environment() | {"INSITU_CONTACT": str(contact)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    assert "no answer from the controller of run 'a' at tcp://127.0.0.1:1 within 0.5 s; going on" in done.stderr
    [said] = told(tmp_path, 1)
    assert said["steps"] == 20
    assert wait_s <= said["join_s"] < wait_s + SLACK_S
    assert said["longest_s"] < 0.1 + SLACK_S  # without a run each call does nothing
    assert said["close_s"] < SLACK_S


@pytest.mark.parametrize("wrong", ["the listener's", "its own", "none"])
def test_a_contact_file_with_other_keys_is_told_at_once(tmp_path: Path, wrong: str) -> None:
    """Somebody listens there; be it with the keys of another run, or with keys where the file has none."""
    keys, others = new_keys(), new_keys().for_clients()
    foreign = {"client_public": others.client_public, "client_secret": others.client_secret}
    shown = {
        "the listener's": replace(keys.for_clients(), server_public=others.server_public),
        "its own": replace(keys.for_clients(), **foreign),
        "none": None,
    }[wrong]
    path = tmp_path / "contact.json"
    with listen("tcp://127.0.0.1:*", keys) as listener:
        Contact("melt", listener.address, 1, "n17", str(tmp_path), shown).write(path)
        with rank(path, 0, 1, tmp_path) as process:
            begin = time.monotonic()
            wait_until(lambda: poll([listener], 0.05) or process.poll() is not None, LIMIT_S, "the rank's end")
            stderr = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 1
    assert time.monotonic() - begin < 10.0  # of the 30 that it would wait for an answer
    assert "does not let this process in" in stderr
    assert "take the contact.json of a run that goes on" in stderr


def test_one_that_never_comes_is_ended_by_ctrl_c(running: Running) -> None:
    contact_of(running)
    running.interrupt()
    left = running.wait()
    assert left.status == 1
    assert left.report["status"] == "interrupted"
    assert "Traceback" not in left.stderr
