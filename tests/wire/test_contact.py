# SPDX-License-Identifier: Apache-2.0
"""The contact file: whole or not there, and for its owner's eyes only."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from insitu.errors import RunError
from insitu.wire.contact import FILE_BYTES, Contact
from insitu.wire.sockets import new_keys

CONTACT = Contact("melt", "tcp://127.0.0.1:5555", 4711, "n17", "/scratch/runs/melt")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "contact.json"


def test_what_was_written_is_read(path: Path) -> None:
    CONTACT.write(path)
    assert Contact.read(path) == CONTACT


def test_the_keys_of_clients_travel_and_the_servers_secret_stays(path: Path) -> None:
    keys = new_keys()
    replace(CONTACT, keys=keys).write(path)
    assert Contact.read(path).keys == keys.for_clients()
    assert keys.server_secret not in path.read_text()


def test_keys_are_never_shown() -> None:
    keys = new_keys()
    shown = repr(replace(CONTACT, keys=keys))
    assert not any(key in shown for key in (keys.server_public, keys.server_secret, keys.client_secret))


def test_only_the_owner_can_read_it(path: Path) -> None:
    path.write_text("an older one")
    path.chmod(0o644)
    CONTACT.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused(path: Path, mode: int) -> None:
    CONTACT.write(path)
    path.chmod(mode)
    with pytest.raises(RunError, match=f"may be read by others .* chmod 600 {path}"):
        Contact.read(path)


def test_it_is_replaced_whole_and_leaves_nothing_beside_it(path: Path) -> None:
    CONTACT.write(path)
    replace(CONTACT, pid=1).write(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["contact.json"]
    assert Contact.read(path).pid == 1


def test_where_it_cannot_be_written_nothing_is_left(path: Path) -> None:
    path.mkdir()
    with pytest.raises(RunError, match=r"Cannot write the contact file .*contact.json: .*; choose a directory"):
        CONTACT.write(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["contact.json"]
    with pytest.raises(RunError, match="No such file or directory; choose a directory"):
        CONTACT.write(path.parent / "missing" / "contact.json")


def test_a_missing_file_is_told_with_the_cure(path: Path) -> None:
    with pytest.raises(RunError, match=f"Cannot read the contact file {path}: No such file.*insitu run"):
        Contact.read(path)


RIGHT = {
    "version": 2,
    "run": "melt",
    "address": "a",
    "pid": 1,
    "host": "h",
    "directory": "d",
    "keys": None,
    "folds": {},
}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "it is no JSON object"),
        ("\xff", "codec can't decode"),
        ("x" * (FILE_BYTES + 1), f"more than {FILE_BYTES} bytes"),
        (RIGHT | {"version": 3}, "it has version 3, not 2"),
        ({"run": "melt"}, "it has version None, not 2"),
        (RIGHT | {"pid": "1"}, "its 'pid' is '1'"),
        (RIGHT | {"pid": True}, "its 'pid' is True"),
        (RIGHT | {"address": None}, "its 'address' is None"),
        (RIGHT | {"keys": []}, "'keys' is no object"),
        (RIGHT | {"folds": []}, r"its 'folds' is \[\]"),
        (RIGHT | {"folds": {"stats": 1}}, "its 'folds' are no objects"),
        (RIGHT | {"keys": {}}, "its 'server_public' is None"),
        (RIGHT | {"keys": dict.fromkeys(("server_public", "client_public", "client_secret"), "x")}, "40 characters"),
    ],
)
def test_what_is_no_contact_file_is_told_why(path: Path, text: str | dict[str, object], reason: str) -> None:
    path.write_bytes(text.encode("latin1") if isinstance(text, str) else json.dumps(text).encode())
    path.chmod(0o600)
    with pytest.raises(RunError, match=f"contact.json is no contact file .*{reason}.*; set INSITU_CONTACT"):
        Contact.read(path)


def test_the_whole_of_right_is_right(path: Path) -> None:
    path.write_text(json.dumps(RIGHT))
    path.chmod(0o600)
    assert Contact.read(path) == Contact("melt", "a", 1, "h", "d")
