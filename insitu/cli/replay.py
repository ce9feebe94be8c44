# SPDX-License-Identifier: Apache-2.0
"""``insitu replay``: a recording in the place of the simulation that made it."""

from pathlib import Path

import click

from insitu.cli.options import overriding
from insitu.cli.run import carry_out
from insitu.controller.progress import new_progress
from insitu.controller.replay import Pace, replay
from insitu.controller.run import Run


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("path", metavar="[CONFIG]", required=False)
@overriding
@click.option(
    "--pace",
    type=click.Choice(["full", "recorded"]),
    default="full",
    help="full: as fast as steps are taken (default); recorded: as far apart as they came.",
)
@click.option(
    "--actions",
    is_flag=True,
    help="Declare the run's parameters, and apply its actions to them after the steps after which they came.",
)
@click.option("--force", is_flag=True, help="Replace the directory of an earlier run of this name.")
def command(run: str, path: str | None, overrides: tuple[str, ...], pace: Pace, actions: bool, force: bool) -> None:
    """Fold what a run has recorded, without its simulation.

    RUN is the directory of a run with a recording, such as runs/gray-scott. CONFIG says what is folded; its simulation
    is replaced. Without CONFIG it is the recorded run's own, and what comes of it goes to RUN-replay: with as many
    staging nodes the results are the same, bit for bit.
    """
    replayed = replay(Path(run), path, overrides, pace, actions=actions)
    progress = new_progress()
    for note in replayed.notes:
        progress.say(f"Warning: {note}")
    if replayed.recording.left_out:
        progress.say(f"Left out: {replayed.recording.left_out} steps that not all staging nodes have recorded.")
    carry_out(lambda: Run(replayed.config, progress, force=force, replay=replayed, actions=replayed.actions), progress)
