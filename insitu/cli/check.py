# SPDX-License-Identifier: Apache-2.0
"""``insitu check``: all mistakes of a configuration, or what it will do."""

import io
import shlex
import textwrap

import click
from rich.console import Console
from rich.table import Table

from insitu import config, registry
from insitu.cli.options import configuration
from insitu.config import Buffering, Config, rules
from insitu.config.function import Function
from insitu.errors import ConfigError
from insitu.forecast import STEPS, Forecast, forecast
from insitu.operator import Operator
from insitu.pipeline import Pipeline
from insitu.text import count, duration, size
from insitu.windows import window_words

#: Columns of what is shown.
WIDTH = 80


@click.command()
@configuration
def command(path: str, overrides: tuple[str, ...]) -> None:
    """Check a configuration and say what it will do.

    Nothing is started. What the simulation publishes is known only when it runs; but where the configuration says what
    a variable is going to be (variables: NAME: expect), all results are known, what staging nodes will hold, and how
    many Dask tasks a window takes.
    """
    checked = config.load(path, overrides)
    pipeline = Pipeline(checked)
    expected = forecast(pipeline)
    room = checked.staging.memory // 2
    if expected.nbytes > room:
        most = max(expected.loads, key=lambda name: expected.loads[name].nbytes or 0)
        message = (
            f"states will take {size(expected.nbytes)} on each node, most of it those of '{most}', and half of "
            f"{size(checked.staging.memory)} is for them; raise it, or staging.nodes"
        )
        raise ConfigError([checked.problem(("staging", "memory"), message)])
    click.echo(f"{path}: ok")
    for name, text in _summary(checked):
        click.echo(textwrap.fill(f"  {name:<11}{text}", WIDTH, subsequent_indent=" " * 13, break_long_words=False))
    if expected.results:
        click.echo()
        click.echo(_tables(pipeline, expected), nl=False)
    if unknown := [need.name for need in pipeline.needs if need.name not in ("*", *pipeline.expected)]:
        click.echo(f"\nNot known before the run: {', '.join(unknown)}. To see results and their size here, say under")
        click.echo(f"variables: what it is going to be, as {unknown[0]}: {{expect: {{dims: [y, x], shape: [64, 64]}}}}")


def _tables(pipeline: Pipeline, expected: Forecast) -> str:
    """Show results, and what operators cost, in 80 columns."""
    results = _table("result", "dims", "dtype", "units")
    for name, described in expected.results.items():
        leading = "window" if name in pipeline.learners else _leading(pipeline, name)
        if not described:
            results.add_row(name, "known when the function has run")
        for key, variable in described.items():
            lengths = zip(variable.dims, variable.shape or (), strict=True)
            dims = ", ".join([leading, *(f"{dim} {length}" for dim, length in lengths)])
            results.add_row(f"{name}.{key}", dims, variable.dtype.name, variable.units)
    costs = _table("operator", "held by a staging node", "tasks per window")
    for name, load in expected.loads.items():
        held = load.why if load.nbytes is None else f"{size(load.nbytes)}"
        if load.per_step > 0:
            held += f", and {size(load.per_step)} for each step of a window beyond {STEPS}"
        costs.add_row(name, held, "" if load.tasks is None else str(load.tasks))
    costs.add_row("all", size(expected.nbytes), str(sum(load.tasks or 0 for load in expected.loads.values())))
    console = Console(width=WIDTH, file=io.StringIO(), color_system=None)
    console.print(results)
    console.print()
    console.print(costs)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def _leading(pipeline: Pipeline, name: str) -> str:
    return "step" if name not in pipeline.operators or pipeline.operators[name].keeps_steps else "window"


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns:
        column.overflow = "fold"
    return table


def _summary(checked: Config) -> list[tuple[str, str]]:
    simulation, staging, buffering = checked.simulation, checked.staging, checked.buffering
    pipeline = Pipeline(checked)
    lines = [
        ("run", f"{checked.run}, in {checked.directory}/{checked.run}"),
        ("simulation", shlex.join(simulation.command) if simulation.launcher != "external" else "started by hand"),
        ("", f"{count(simulation.ranks, 'rank')}, launcher {simulation.launcher}"),
        ("staging", f"{count(staging.nodes, 'node')} of {size(staging.memory)}, cluster {staging.cluster}"),
        ("network", f"interface {checked.network.interface}, security {checked.network.security}"),
        ("buffer", f"{size(buffering.buffer)} per rank, when full: {_when_full(buffering)}"),
    ]
    lines += [
        ("variable", f"{need.name}: {sent}")
        for need in pipeline.needs
        if need.name != "*" and (sent := _sent(checked, need.name))
    ]
    for name, operator in pipeline.operators.items():
        where = {"rank": ", on the ranks", "node": ", on the ranks' own machines"}.get(operator.where, "")
        lines.append(
            ("operator", f"{name}: {_does(operator)}{where}{'' if name in pipeline.stored else ', not stored'}")
        )
    for name, learner in pipeline.learners.items():
        where = "a process of its own" if learner.processes == 1 else f"{learner.processes} processes of its own"
        what = f"{registry.use_of(type(learner))} of {', '.join(learner.needs)}, in {where}"
        lines.append(("learner", f"{name}: {what}{'' if name in pipeline.stored else ', not stored'}"))
    for _, name, rule in rules.entries(checked, rules.guessed(checked.operators)):
        does = [*(["set"] if rule.set else []), *(kind for each in rule.do for kind in each)] or ["notify"]
        lines.append(("rule", f"{name}: {', '.join(does)} when {rule.when}"))
    for name, controller in checked.steering.controllers.items():
        lines.append(("controller", f"{name}: {registry.use_of(type(controller))} of {', '.join(controller.of)}"))
    return lines


def _when_full(buffering: Buffering) -> str:
    """Say what becomes of a step without room.

    >>> _when_full(Buffering(max_wait=2, then="abort")), _when_full(Buffering(policy="latest"))
    ('wait 2 s at most, then abort', 'latest')
    """
    policy, where = buffering.policy, buffering.spill_directory or "TMPDIR"
    waits = f"wait {duration(buffering.max_wait)} at most, then {buffering.then}"
    disk = f"spill up to {size(buffering.spill)} to {where}"
    if buffering.then == "spill":
        waits += f" up to {size(buffering.spill)} to {where}, then drop"
    return {
        "block": waits,
        "every": f"one in {buffering.every}: {waits}; the others: drop",
        "spill": f"{disk}, then {waits}",
    }.get(policy, policy)


def _sent(checked: Config, name: str) -> str:
    """Say what of a variable leaves its rank, where that is not all of it as it is."""
    kept = checked.rules(name)
    stays = ["stays on its ranks, which fold it"] if name in Pipeline(checked).stays else []
    parts = [f"{dim} {indices}" for dim, indices in kept.select.items()]
    parts += [f"as {kept.dtype}"] if kept.dtype else []
    if kept.codec != "none":
        parts.append(f"codec {kept.codec}" + (f" within {kept.tolerance:g}" if kept.tolerance else ""))
    return ", ".join(stays + parts)


def _does(operator: Operator) -> str:
    if isinstance(operator, Function):
        words = window_words(operator.window, operator.every)
        return f"{operator.use} called with {', '.join(operator.of)}, once per {words}"
    what = f"{registry.use_of(type(operator))} of {', '.join(operator.inputs)} over {' and '.join(operator.over)}"
    if operator.keeps_steps:
        return f"{what}, one result per step"
    return f"{what}, one result per {window_words(operator.window, operator.every)}"
