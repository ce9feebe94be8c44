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
from insitu.controller.run import Companion, Run
from insitu.dashboard.launch import beside
from insitu.dashboard.report import write_report
from insitu.errors import InsituError


@click.command()
@configuration
@click.option("--force", is_flag=True, help="Replace the directory of an earlier run of this name.")
@click.option(
    "--actions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Apply the actions of this record (an earlier run's actions.jsonl) at the steps that it names.",
)
@click.option("--dashboard", is_flag=True, help="Show the run in a browser, as the key dashboard does.")
def command(path: str, overrides: tuple[str, ...], force: bool, actions: Path | None, dashboard: bool) -> None:
    """Run the simulation of CONFIG and fold what it publishes.

    What the simulation writes is shown as it comes. Ctrl-C stops it after a common step of all ranks and keeps what was
    folded; a second Ctrl-C ends it at once.
    """
    loaded = config.load(path, overrides)
    scheduled, notes = to_replay(actions) if actions else ([], [])
    progress = new_progress()
    for note in notes:
        progress.say(f"Warning: {note}")
    companion = _dashboard(loaded, progress, wanted=dashboard)
    carry_out(lambda: Run(loaded, progress, force=force, actions=scheduled, companion=companion), progress)


def _dashboard(loaded: config.Config, progress: Progress, *, wanted: bool) -> Companion | None:
    """Return what shows the run in a browser, where that is asked for."""
    settings = loaded.dashboard or (config.Dashboard() if wanted else None)
    if settings is None:
        return None
    return lambda contact: beside(contact, settings.host, settings.port, progress.say)


def carry_out(make: Callable[[], Run], progress: Progress) -> None:
    """Make a run and execute it, say how it ended, and exit with its status."""
    try:
        run = make()
        outcome = run.execute()
    finally:
        progress.close()
    _say(outcome)
    _write_report(run)
    click.echo(f"{outcome.status}: {run.directory.path} (see: insitu report {run.directory.path})", err=True)
    sys.exit(outcome.exit_status)


def _write_report(run: Run) -> None:
    """Write the report for people; that it cannot be written changes nothing about how the run ended."""
    try:
        write_report(run.directory.path)
    except InsituError as error:
        click.echo(f"insitu: {error}", err=True)


def _say(outcome: Outcome) -> None:
    if outcome.tail:
        click.echo("The simulation's last words were:", err=True)
        for line in outcome.tail:
            click.echo(f"    {line}", err=True)
    for reason in outcome.reasons:
        click.echo(f"insitu: {reason}", err=True)
