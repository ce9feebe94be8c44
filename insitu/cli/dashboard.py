# SPDX-License-Identifier: Apache-2.0
"""``insitu dashboard``: runs in a browser, those that have ended as those that go on."""

import signal
import threading
from pathlib import Path

import click

from insitu.dashboard.launch import dashboard, tell
from insitu.errors import ConfigError


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--port", default=8787, show_default=True, help="Where to listen; the next free one if it is taken.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
def command(runs: tuple[str, ...], port: int, host: str) -> None:
    """Show runs in a browser.

    Each RUN is a run's directory, such as runs/gray-scott, or the contact file of a run that goes on. Several stand
    side by side, to be compared. Ctrl-C ends it.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with dashboard([_place(Path(run)) for run in runs], host, port) as address:
        tell(address(), port, click.echo)
        click.echo("Press Ctrl-C to end it.")
        while not ended.wait(1.0):
            continue


def _place(run: Path) -> Path:
    """Return the contact file of a run that goes on, else its directory."""
    contact = run / "contact.json"
    if contact.is_file():
        return contact
    if run.is_file() or (run / "config.yaml").is_file():
        return run
    raise ConfigError(f"there is no run in {run}; give the directory of a run, such as runs/gray-scott")
