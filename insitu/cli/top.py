# SPDX-License-Identifier: Apache-2.0
"""``insitu top``: how a run does, in the terminal."""

import click
from rich.console import Console

from insitu.dashboard.top import watch


@click.command()
@click.argument("contact", metavar="CONTACT")
@click.option("--once", is_flag=True, help="Say it once and end.")
def command(contact: str, once: bool) -> None:
    """Show in the terminal how a run does.

    CONTACT is the contact file of a run that goes on, or its directory. It is shown until the run ends, or Ctrl-C.
    """
    watch(contact, Console(), once=once)
