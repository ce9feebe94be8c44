# SPDX-License-Identifier: Apache-2.0
"""Starting a dashboard, and what may keep one from starting."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from insitu.dashboard import launch
from insitu.dashboard.access import Access, Role
from insitu.dashboard.server import NEXT_PORTS, bind
from insitu.errors import RunError
from tests.waiting import wait_until


@pytest.fixture
def taken():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


def test_the_next_free_port_is_taken_and_said(taken: int) -> None:
    with bind("127.0.0.1", taken) as listening:
        port = listening.getsockname()[1]
    assert taken < port < taken + NEXT_PORTS
    said: list[str] = []
    launch.tell(launch.Address(port, "http://a", "http://b"), taken, said.append)
    assert said[0] == f"Port {taken} is taken: the dashboard has port {port}."


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(RunError, match=r"cannot listen at 192\.0\.2\.1"):
        bind("192.0.2.1", 8787)


def test_without_its_libraries_there_is_one_sentence_and_the_run_goes_on(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "NEEDS", ("no_such_library",))
    said: list[str] = []
    with launch.beside(tmp_path / "contact.json", "127.0.0.1", 0, said.append):
        went_on = True
    assert went_on
    assert said == [
        "There is no dashboard: The dashboard needs no_such_library: pip install 'insitu[dashboard]'. The run goes on "
        "without it."
    ]


def test_what_keeps_it_from_starting_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    with launch.beside(tmp_path / "contact.json", "127.0.0.1", 0, said.append):
        wait_until(lambda: said, 30.0, "the reason")
    assert len(said) == 1
    assert "Cannot read the contact file" in said[0]


def test_a_fault_of_the_run_is_the_runs(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "NEEDS", ("no_such_library",))
    with pytest.raises(RunError, match="the disk"), launch.beside(tmp_path, "127.0.0.1", 0, lambda text: None):
        raise RunError("the disk is full")


def test_what_runs_beside_a_run_loads_no_plotting_library() -> None:
    code = "import sys, insitu.cli.run, insitu.cli.top\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"bokeh", "prometheus_client"} & set(done.stdout.split())


def test_tokens_differ_and_are_not_shown() -> None:
    access = Access()
    assert len({access.operator, access.observer, Access().operator}) == 3
    assert access.operator not in repr(access)
    assert access.role("") is None
    assert access.role("ä") is None
    assert access.role(access.observer) is Role.OBSERVER
