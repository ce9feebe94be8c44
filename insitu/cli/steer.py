# SPDX-License-Identifier: Apache-2.0
"""``insitu steer``: change a running simulation by hand."""

import sys
from typing import Any

import click
import yaml

from insitu.console import Console, steer
from insitu.errors import ConfigError
from insitu.steering.parameters import ParameterSpec


@click.command()
@click.argument("contact", metavar="CONTACT")
@click.argument("verb", metavar="[ACTION]", required=False)
@click.argument("values", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--why", default="", help="A reason, for the record.")
@click.option("--timeout", default=60.0, show_default=True, help="How many seconds to wait for the receipt.")
def command(contact: str, verb: str | None, values: tuple[str, ...], why: str, timeout: float) -> None:
    """Change a running simulation, on all ranks after the same step.

    CONTACT is the directory of a run, or its contact file. ACTION is set, pause, resume, checkpoint, stop, trate, or a
    name that the simulation declares; set feed=0.03 sets a parameter, trate every=10 publishes each tenth step, rules
    cool=false switches a rule of the run off. Without an ACTION, what can be steered is listed. The exit status is 0
    when the action was applied.
    """
    with steer(contact) as run:
        if verb is None:
            run.wait(lambda: run.ready, timeout, "what can be steered, after its first step")
            _list(run)
            return
        try:
            receipt = run.act(verb, _parsed(values, run), by="command line", why=why).receipt(timeout)
        except TimeoutError as error:
            click.echo(f"{error} It is still under way; actions.jsonl will tell.", err=True)
            sys.exit(1)
    click.echo(receipt.describe())
    sys.exit(0 if receipt.outcome == "applied" else 1)


def _parsed(values: tuple[str, ...], run: Console) -> dict[str, Any]:
    """Read NAME=VALUE; a value is YAML, so that lists and truths can be given. To YAML 1.1, 1e-3 is a text."""
    parsed = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"'{text}' sets nothing; write NAME=VALUE, as in feed=0.03")
        try:
            parsed[name] = yaml.safe_load(value)
            if isinstance(parsed[name], str) and name in run.parameters and run.parameters[name].kind == "float":
                parsed[name] = float(value)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"'{text}': the value cannot be read; write feed=0.03 or 'inlets=[1.0, 2.0]'") from error
    return parsed


def _list(run: Console) -> None:
    for name, spec in run.parameters.items():
        click.echo(f"{name} = {run.values.get(name, 'a field')}{_about(spec)}")
    for name, arguments in run.actions.items():
        click.echo(" ".join([name, *(f"{each.name}={each.default}{_about(each)}" for each in arguments.values())]))
    if not run.parameters and not run.actions:
        click.echo("The simulation declares nothing; it can be paused, resumed, stopped, and told its trate.")


def _about(spec: ParameterSpec) -> str:
    """Say what a parameter may be set to."""
    low = "" if spec.minimum is None else f"{spec.minimum:g} <= "
    high = "" if spec.maximum is None else f" <= {spec.maximum:g}"
    bounds = f"{low}{spec.name}{high}" if low or high else " | ".join(str(choice) for choice in spec.choices)
    about = ", ".join(
        part for part in (spec.kind + (f" {spec.shape}" if spec.shape else ""), spec.units, bounds) if part
    )
    return f"  ({about})" + (f"  {spec.description}" if spec.description else "")
