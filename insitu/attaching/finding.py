# SPDX-License-Identifier: Apache-2.0
"""Which run is meant where none is named: that of INSITU_CONTACT, else the newest under ``./runs`` that goes on."""

import os
import socket
from pathlib import Path

import psutil

from insitu.errors import RunError
from insitu.wire.contact import Contact

#: Runs that are named where none goes on.
NAMED = 10


def find(contact: str | os.PathLike[str] | None) -> Path:
    """Return the contact file of a run, given as that file or as the run's directory.

    Without either it is found, as above. Raises `RunError` where there is none, with what is there.
    """
    contact = contact or os.environ.get("INSITU_CONTACT") or None
    if contact is not None:
        path = Path(contact)
        return path / "contact.json" if path.is_dir() else path
    folder = Path("runs")
    directories = sorted((path for path in folder.glob("*") if path.is_dir()), key=lambda path: path.stat().st_mtime)
    why: list[str] = []
    live: list[tuple[float, Path]] = []
    for directory in directories:
        path = directory / "contact.json"
        ended = why_ended(path)
        if ended:
            why.append(f"{directory.name}: {ended}")
        else:
            live.append((path.stat().st_mtime, path))
    if live:
        return max(live)[1]
    found = "; ".join(why[-NAMED:]) or "there is none"
    raise RunError(
        f"No run goes on in {folder.resolve()} ({found}); name one by its directory, or by its contact file in "
        "INSITU_CONTACT."
    )


def why_ended(path: Path) -> str:
    """Say why the run of a contact file cannot go on; empty where it may."""
    if not path.exists():
        return "it has ended"
    try:
        contact = Contact.read(path)
    except RunError as error:
        return str(error).rstrip(".")
    if contact.host == socket.gethostname() and not psutil.pid_exists(contact.pid):
        return f"its process {contact.pid} is gone"
    return ""
