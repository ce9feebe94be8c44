# SPDX-License-Identifier: Apache-2.0
"""Where a run listens, by its configuration, and with which keys."""

import socket
from pathlib import Path

import pytest

from insitu import config
from insitu.controller.network import dask_in_the_clear, interfaces, keys_for, own_address
from insitu.errors import ConfigError, RunError
from insitu.wire.addresses import toward

TEXT = """\
run: melt
simulation: {command: "true"}
operators: {mean: {use: moments, of: u, over: step}}
"""


def loaded(folder: Path, *overrides: str, text: str = TEXT) -> config.Config:
    path = folder / "melt.yaml"
    path.write_text(text)
    return config.load(str(path), overrides)


def test_of_itself_a_run_stays_on_loopback_and_has_no_keys(tmp_path: Path) -> None:
    checked = loaded(tmp_path)
    assert own_address(checked) == "127.0.0.1"
    assert keys_for(checked, "127.0.0.1") is None


def test_with_a_dask_cluster_it_is_the_cluster_that_decides(tmp_path: Path) -> None:
    assert own_address(loaded(tmp_path, "staging.cluster=tcp://10.0.0.7:8786")) is None


@pytest.mark.parametrize("interface", ["lo", "127.0.0.1", "127.0.0.9"])
def test_an_interface_is_named_by_its_name_or_its_address(tmp_path: Path, interface: str) -> None:
    found = own_address(loaded(tmp_path, f"network.interface={interface}"))
    assert found == interfaces().get(interface, interface)


def test_what_is_none_of_this_machines_is_told_with_line_and_what_there_is(tmp_path: Path) -> None:
    checked = loaded(tmp_path, text=TEXT + "network:\n  interface: 198.51.100.7\n")
    with pytest.raises(ConfigError, match=r"melt.yaml:5: network.interface: this machine has no .* 198.51.100.7; it"):
        own_address(checked)


@pytest.mark.parametrize("interface", ["0.0.0.0", "tcp://10.0.0.1", "10.0.0.1:5555", "''"])
def test_what_is_no_interface_is_told_before_the_run(tmp_path: Path, interface: str) -> None:
    with pytest.raises(ConfigError, match=r"network.interface: expected auto, the name of an interface"):
        loaded(tmp_path, f"network.interface={interface}")


def test_there_are_keys_beyond_loopback_and_where_they_are_asked_for(tmp_path: Path) -> None:
    assert keys_for(loaded(tmp_path), "10.0.0.7") is not None
    assert keys_for(loaded(tmp_path, "network.security=curve"), "127.0.0.1") is not None


@pytest.mark.parametrize(
    ("scheduler", "warned"),
    [("tcp://10.0.0.7:8786", True), ("tls://10.0.0.7:8786", False), ("tcp://127.0.0.1:8786", False)],
)
def test_a_dask_cluster_without_tls_is_warned_of(scheduler: str, warned: bool) -> None:
    assert (dask_in_the_clear(scheduler) is not None) == warned


def test_the_way_to_an_own_address_is_that_address() -> None:
    for address in interfaces().values():
        assert toward(f"tcp://{address}:5555") == address


def test_no_way_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_way(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", no_way)
    with pytest.raises(RunError, match=r"No way leads .* to 198.51.100.7 \(Network is unreachable\); name the"):
        toward("tcp://198.51.100.7:8786")
