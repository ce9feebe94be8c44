# SPDX-License-Identifier: Apache-2.0
"""Starts a dashboard in a process of its own, and ends it. Needs none of its libraries itself."""

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import IO

from insitu.errors import RunError

#: The extra's libraries.
NEEDS = ("bokeh", "jinja2", "prometheus_client")
NO_DASHBOARD = "There is no dashboard: {} The run goes on without it."
#: How long a dashboard may take to bring its last news out when it is told to end.
END_S = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a dashboard is: to operate, and to look only."""

    port: int
    operator: str
    observer: str

    def _repr_html_(self) -> str:
        """Show the addresses in a notebook, to be followed from there."""
        links = ((self.operator, "Open the dashboard"), (self.observer, "To look only"))
        return " &middot; ".join(f'<a href="{escape(url)}" target="_blank">{text}</a>' for url, text in links)


def lacking() -> str:
    """Say in a sentence what has to be installed for a dashboard, or nothing."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    return f"The dashboard needs {' and '.join(missing)}: pip install 'insitu[dashboard]'."


@contextmanager
def dashboard(places: Sequence[Path], host: str, port: int) -> Iterator[Callable[[], Address]]:
    """Serve a dashboard of some runs while the context lasts; what is returned waits until it is there.

    That takes a second, for its libraries. Raises `RunError` where it cannot be started, then or at once.
    """
    if reason := lacking():
        raise RunError(reason)
    command = [sys.executable, "-m", "insitu.dashboard", host, str(port), *(str(place.resolve()) for place in places)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield partial(_address, process.stdout)
    finally:
        process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextmanager
def beside(contact: Path, host: str, port: int, say: Callable[[str], None]) -> Iterator[None]:
    """Serve the dashboard of a run that goes on, and say where; without one, where it cannot be, the run goes on.

    The run does not wait for it: where it is, is said when it is there.
    """

    def wait(address: Callable[[], Address]) -> None:
        try:
            tell(address(), port, say)
        except RunError as error:
            say(NO_DASHBOARD.format(error))

    with ExitStack() as stack:
        try:
            address = stack.enter_context(dashboard([contact], host, port))
        except RunError as error:
            say(NO_DASHBOARD.format(error))
            yield
            return
        waiting = threading.Thread(target=wait, args=(address,), name="insitu-dashboard", daemon=True)
        waiting.start()
        try:
            yield
        finally:
            stack.close()
            waiting.join()


def tell(address: Address, wanted: int, say: Callable[[str], None]) -> None:
    """Say where a dashboard is, and where not."""
    if wanted not in (0, address.port):
        say(f"Port {wanted} is taken: the dashboard has port {address.port}.")
    say(f"Dashboard: {address.operator}")
    say(f"To look only: {address.observer}")


def _address(said_by: IO[str]) -> Address:
    """Read what the process says of itself."""
    line = said_by.readline()
    if not line:
        raise RunError("The dashboard's process ended before it said where it is; its error stands above.")
    said = json.loads(line)
    if "error" in said:
        raise RunError(said["error"])
    return Address(said["port"], said["operator"], said["observer"])
