# SPDX-License-Identifier: Apache-2.0
"""``insitu schema``: what an editor needs to complete and check the YAML."""

import json

import click

from insitu.config.schema import json_schema


@click.command()
def command() -> None:
    """Print the JSON Schema of the configuration.

    Most editors take it from a first line such as "# yaml-language-server: $schema=insitu.json".
    """
    click.echo(json.dumps(json_schema(), indent=2))
