# SPDX-License-Identifier: Apache-2.0
"""Asks a run that goes on how it does, by its contact file. What ``insitu top`` and the dashboard have in common."""

import os
import socket
import time
from pathlib import Path

from insitu.errors import RunError
from insitu.wire.contact import Contact
from insitu.wire.limits import STATES_BYTES
from insitu.wire.messages import VERSION, Message, Refuse, Shutdown
from insitu.wire.session import Link, Session, Side
from insitu.wire.sockets import connect, poll, require_admitted
from insitu.wire.viewing import Ask, Look, News, Sight, Watch, Watching

#: How long a controller may take to let somebody look: it answers within a turn, unless its machine is very busy.
ADMISSION_S = 10.0


class Viewer:
    """A link to the controller of one run. Belongs to one thread. `close` may be called twice.

    Raises `RunError` where the contact file cannot be used, and where nobody answers within `ADMISSION_S`.
    """

    def __init__(self, contact: Contact) -> None:
        #: Whether the run has said that it is over.
        self.over = False
        self._session = Session(Link.VIEWER_CONTROLLER, Side.CONNECTS)
        self._socket = connect(contact.address, contact.keys, STATES_BYTES)
        try:
            self._join(contact)
        except BaseException:
            self.close()
            raise

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> "Viewer":
        """Look at the run of a contact file, or of the directory that has one."""
        return cls(Contact.read(Path(path) / "contact.json" if Path(path).is_dir() else path))

    def ask(self) -> None:
        """Ask how the run does; the answer comes by `receive`."""
        self._say(Ask())

    def look(self, look: Look) -> None:
        """Ask for a picture of the next step; an earlier one that was not answered is forgotten."""
        self._say(look)

    def receive(self, timeout_s: float) -> list[News | Sight]:
        """Wait for answers, at most so long, and return those that came. Sets `over` when the run is."""
        if self.over:
            return []
        poll([self._socket], timeout_s)
        found: list[News | Sight] = []
        while (frames := self._socket.receive()) is not None:
            match self._session.receive(frames):
                case News() | Sight() as answer:
                    found.append(answer)
                case Shutdown():
                    self.over = True
                    break
        return found

    def close(self) -> None:
        self._socket.close(linger_s=0)

    def _join(self, contact: Contact) -> None:
        self._say(Watch(VERSION, contact.run, socket.gethostname(), os.getpid()))
        deadline = time.monotonic() + ADMISSION_S
        while (remaining_s := deadline - time.monotonic()) > 0:
            poll([self._socket], remaining_s)
            require_admitted(self._socket)
            while (frames := self._socket.receive()) is not None:
                match self._session.receive(frames):
                    case Watching():
                        return
                    case Refuse(reason):
                        raise RunError(f"The run '{contact.run}' lets nobody look: {reason}.")
        raise RunError(
            f"The controller of run '{contact.run}' at {contact.address} does not answer within {ADMISSION_S:g} s; "
            f"is process {contact.pid} still there on {contact.host}?"
        )

    def _say(self, message: Message) -> None:
        if not self.over:
            self._socket.send(self._session.send(message))
