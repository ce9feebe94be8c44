# SPDX-License-Identifier: Apache-2.0
"""``insitu run``: the simulation, its analysis, and the results."""

import sys
from collections.abc import Callable
from pathlib import Path

import click

from insitu import config
from insitu.cli.options import configuration
from insitu.controller.progress import Progress, new_progress
from insitu.controller.record import to_replay
from insitu.controller.report import Outcome
from insitu.controller.run import Run


@click.command()
@configuration
@click.option("--force", is_flag=True, help="Replace the directory of an earlier run of this name.")
@click.option(
    "--actions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Apply the actions of this record (an earlier run's actions.jsonl) at the steps that it names.",
)
def command(path: str, overrides: tuple[str, ...], force: bool, actions: Path | None) -> None:
    """Run the simulation of CONFIG and fold what it publishes.

    What the simulation writes is shown as it comes. Ctrl-C stops it after a common step of all ranks and keeps what was
    folded; a second Ctrl-C ends it at once.
    """
    loaded = config.load(path, overrides)
    scheduled, notes = to_replay(actions) if actions else ([], [])
    progress = new_progress()
    for note in notes:
        progress.say(f"Warning: {note}")
    carry_out(lambda: Run(loaded, progress, force=force, actions=scheduled), progress)


def carry_out(make: Callable[[], Run], progress: Progress) -> None:
    """Make a run and execute it, say how it ended, and exit with its status."""
    try:
        run = make()
        outcome = run.execute()
    finally:
        progress.close()
    _say(outcome)
    click.echo(f"{outcome.status}: {run.directory.path} (see: insitu report {run.directory.path})", err=True)
    sys.exit(outcome.exit_status)


def _say(outcome: Outcome) -> None:
    if outcome.tail:
        click.echo("The simulation's last words were:", err=True)
        for line in outcome.tail:
            click.echo(f"    {line}", err=True)
    for reason in outcome.reasons:
        click.echo(f"insitu: {reason}", err=True)
