# SPDX-License-Identifier: Apache-2.0
"""The contact file: where a run is found, and the keys that it takes to talk to it.

Whoever can read the file can take part in the run, so only its owner can: mode 0600, as with ssh's keys. The server's
secret key is never in it.
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from insitu.errors import RunError
from insitu.wire.keys import CurveKeys
from insitu.wire.messages import VERSION

#: A contact file has some 500 bytes, and more where ranks fold operators with many keys. Whatever is much larger is
#: another file.
FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Contact:
    """Where run `run` is found: its controller listens at `address`, and leaves what it writes in `directory`.

    `pid` and `host` are for people. Without `keys` only processes of the same machine can connect. `folds` are the
    entries of the operators that ranks fold themselves: what names code to import comes from this file, which only its
    owner can write, and never in a message.
    """

    run: str
    address: str
    pid: int
    host: str
    directory: str
    keys: CurveKeys | None = None
    folds: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all, with mode 0600 and without the server's secret key.

        Raises `RunError` where it cannot be written.
        """
        keys = self.keys and {name: key for name, key in asdict(self.keys).items() if name in _KEYS}
        text = json.dumps({"version": VERSION, **asdict(self), "keys": keys}, indent=1)
        folder = os.path.dirname(os.fspath(path)) or "."
        temporary = None
        try:
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".contact-")  # has mode 0600 from the start
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            os.replace(temporary, path)
        except OSError as error:
            if temporary is not None and os.path.exists(temporary):
                os.unlink(temporary)
            raise RunError(
                f"Cannot write the contact file {path}: {error.strerror}; choose a directory that can be written to."
            ) from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Contact":
        """Read a file that `write` wrote.

        Raises `RunError` for a file that is missing, that others than its owner may read, or that is no contact file.
        """
        try:
            with open(path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                raw = file.read(FILE_BYTES + 1)
        except OSError as error:
            raise RunError(
                f"Cannot read the contact file {path}: {error.strerror}; start the run first (insitu run), and set "
                "INSITU_CONTACT to the file that it names."
            ) from error
        if mode & 0o077:
            raise RunError(f"The contact file {path} may be read by others than its owner; say: chmod 600 {path}")
        try:
            return _contact(raw)
        except ValueError as error:
            raise RunError(
                f"{path} is no contact file of this version of insitu: {error}; set INSITU_CONTACT to the contact.json "
                "of a run that goes on."
            ) from None


def _contact(raw: bytes) -> Contact:
    """Check what the file says; raise `ValueError` with what is wrong."""
    if len(raw) > FILE_BYTES:
        raise ValueError(f"it has more than {FILE_BYTES} bytes")
    said = json.loads(raw)
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")
    if said.get("version") != VERSION:
        raise ValueError(f"it has version {said.get('version')!r}, not {VERSION}")
    fields = {name: _checked(said, name, kind) for name, kind in _FIELDS.items()}
    keys = said.get("keys")
    if keys is not None:
        if not isinstance(keys, dict):
            raise ValueError("'keys' is no object")
        keys = CurveKeys(**{name: _key(keys, name) for name in _KEYS})
    folds = _checked(said, "folds", dict)
    if not all(type(entry) is dict for entry in folds.values()):
        raise ValueError("its 'folds' are no objects")
    return Contact(**fields, keys=keys, folds=folds)


def _checked(said: dict[str, Any], name: str, kind: Callable[..., Any]) -> Any:
    value = said.get(name)
    if type(value) is not kind:
        raise ValueError(f"its '{name}' is {value!r}")
    return value


def _key(said: dict[str, Any], name: str) -> str:
    key: str = _checked(said, name, str)
    if len(key) != 40 or not key.isascii():
        raise ValueError(f"its key '{name}' has not the 40 characters of a CurveZMQ key")  # never show a key
    return key


_FIELDS: dict[str, type] = {"run": str, "address": str, "pid": int, "host": str, "directory": str}
_KEYS = ("server_public", "client_public", "client_secret")
