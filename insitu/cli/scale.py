# SPDX-License-Identifier: Apache-2.0
"""``insitu scale``: give a run that goes on more staging nodes, or fewer."""

import click

from insitu.console import steer


@click.command()
@click.argument("contact", metavar="CONTACT")
@click.argument("nodes", metavar="NODES", type=click.IntRange(min=1))
@click.option("--timeout", default=60.0, show_default=True, help="How many seconds to wait for the answer.")
def command(contact: str, nodes: int, timeout: float) -> None:
    """Give a run that goes on more staging nodes, or fewer.

    It goes on with NODES of them. CONTACT is its directory, or its contact file. Nobody waits: parts of the domain move
    between two steps, and results stay what they were. A local run starts Dask workers; of another cluster it takes
    workers that have no node, as soon as there are some. The log of the run tells when each node has joined or left.
    """
    with steer(contact) as run:
        run.scale(nodes, timeout)
    click.echo(f"{nodes} staging node{'s' * (nodes != 1)} wanted; log.jsonl tells when they have joined or left.")
