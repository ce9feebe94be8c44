# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands take, in one form."""

from collections.abc import Callable

import click

Command = Callable[..., None]


def overriding(command: Command) -> Command:
    """Take any number of ``--set path=value``, as `overrides`."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="PATH=VALUE",
        help="Override a key, as in --set staging.nodes=2; the value is YAML.",
    )(command)


def configuration(command: Command) -> Command:
    """Take CONFIG and any number of ``--set path=value``, as `path` and `overrides`."""
    return click.argument("path", metavar="CONFIG")(overriding(command))
