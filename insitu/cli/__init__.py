# SPDX-License-Identifier: Apache-2.0
"""The command line: ``insitu COMMAND``.

Rules: a command is a module of this package and is imported only when it is called, so that ``insitu --help`` loads
neither Dask nor a plugin; errors are sentences on stderr and an exit status, never a traceback; what a program may want
to read goes to stdout, what only people want to stderr.

============  =============================================================
exit status   meaning
============  =============================================================
0             done
1             the run failed
2             the configuration or the call is wrong
============  =============================================================
"""

import importlib
import sys

import click

from insitu import __version__
from insitu.errors import ConfigError, InsituError
from insitu.kept import keep_from_the_start, kept

keep_from_the_start()

#: name -> what ``insitu --help`` says of it; the command is found in the module of that name.
COMMANDS = {
    "run": "Run the simulation of CONFIG and fold what it publishes.",
    "replay": "Fold what a run has recorded, without its simulation.",
    "steer": "Change a running simulation, on all ranks after the same step.",
    "scale": "Give a run that goes on more staging nodes, or fewer.",
    "check": "Check a configuration and say what it will do.",
    "operators": "List the operators, learners and controllers, or describe one.",
    "report": "Show what a run did.",
    "dashboard": "Show runs in a browser.",
    "attach": "Look at the steps of a run that goes on.",
    "top": "Show in the terminal how a run does.",
    "doctor": "Say what this machine offers to a run.",
    "schema": "Print the JSON Schema of the configuration.",
}


class Commands(click.Group):
    """A group that imports its commands when they are called, and turns our errors into exit statuses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        with kept():
            command: click.Command = importlib.import_module(f"insitu.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except InsituError as error:
            click.echo(str(error), err=True)
            sys.exit(2 if isinstance(error, ConfigError) else 1)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="insitu")
def main() -> None:
    """Statistics and more of a simulation, computed while it runs."""
