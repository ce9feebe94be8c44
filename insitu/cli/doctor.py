# SPDX-License-Identifier: Apache-2.0
"""``insitu doctor``: what this machine offers to a run, and what would keep one from working."""

import json
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby

import click

from insitu.controller import machine
from insitu.controller.machine import Finding

#: What fits a terminal of the usual width, whatever this one's is.
WIDTH = 80
NAME = 24


@click.command()
@click.option("--clean", is_flag=True, help="Remove shared memory that dead processes left behind.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of all findings.")
def command(clean: bool, as_json: bool) -> None:
    """Say what this machine offers to a run.

    Versions, addresses, ports, memory, and measured speeds. The exit status is 1 where something would keep a run from
    working; then the cure is said.
    """
    removed = machine.clean() if clean else []
    for name in removed:
        click.echo(f"removed {name}", err=True)
    findings = list(machine.look())
    click.echo(json.dumps([asdict(each) for each in findings], indent=2) if as_json else _table(findings))
    sys.exit(any(each.fatal for each in findings))


def _table(findings: Iterable[Finding]) -> str:
    lines = []
    for section, group in groupby(findings, key=lambda each: each.section):
        lines.append(section)
        for each in group:
            lines += _wrapped(f"  {each.name:<{NAME}}", each.value)
            if each.wrong:
                lines += _wrapped(" " * 4 + ("WRONG: " if each.fatal else "note: "), each.wrong)
    return "\n".join(lines)


def _wrapped(begin: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin))
