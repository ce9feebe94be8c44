# SPDX-License-Identifier: Apache-2.0
"""``insitu check``: all mistakes of a configuration, or what it will do."""

import shlex

import click

from insitu import config, registry
from insitu.cli.options import configuration
from insitu.config import Config
from insitu.operator import Operator
from insitu.pipeline import Pipeline
from insitu.text import count, duration, size
from insitu.windows import window_words


@click.command()
@configuration
def command(path: str, overrides: tuple[str, ...]) -> None:
    """Check a configuration and say what it will do.

    Nothing is started. Whether the simulation publishes the variables that the operators fold is known only when it
    runs.
    """
    checked = config.load(path, overrides)
    click.echo(f"{path}: ok")
    for name, text in _summary(checked):
        click.echo(f"  {name:<11}{text}")


def _summary(checked: Config) -> list[tuple[str, str]]:
    simulation, staging, buffering = checked.simulation, checked.staging, checked.buffering
    pipeline = Pipeline(checked)
    full = f"when full: wait {duration(buffering.max_wait)} at most, then {buffering.then}"
    lines = [
        ("run", f"{checked.run}, in {checked.directory}/{checked.run}"),
        ("simulation", shlex.join(simulation.command) if simulation.launcher != "external" else "started by hand"),
        ("", f"{count(simulation.ranks, 'rank')}, launcher {simulation.launcher}"),
        ("staging", f"{count(staging.nodes, 'node')} of {size(staging.memory)}, cluster {staging.cluster}"),
        ("network", f"interface {checked.network.interface}, security {checked.network.security}"),
        ("buffer", f"{size(buffering.buffer)} per rank, {full}"),
    ]
    lines += [
        ("variable", f"{need.name}: {sent}")
        for need in pipeline.needs
        if need.name != "*" and (sent := _sent(checked, need.name))
    ]
    for name, operator in pipeline.operators.items():
        lines.append(("operator", f"{name}: {_does(operator)}{'' if name in pipeline.stored else ', not stored'}"))
    return lines


def _sent(checked: Config, name: str) -> str:
    """Say what of a variable leaves its rank, where that is not all of it as it is."""
    rules = checked.rules(name)
    parts = [f"{dim} {indices}" for dim, indices in rules.select.items()]
    parts += [f"as {rules.dtype}"] if rules.dtype else []
    if rules.codec != "none":
        parts.append(f"codec {rules.codec}" + (f" within {rules.tolerance:g}" if rules.tolerance else ""))
    return ", ".join(parts)


def _does(operator: Operator) -> str:
    what = f"{registry.use_of(type(operator))} of {', '.join(operator.inputs)} over {' and '.join(operator.over)}"
    if operator.keeps_steps:
        return f"{what}, one result per step"
    return f"{what}, one result per {window_words(operator.window, operator.every)}"
