# SPDX-License-Identifier: Apache-2.0
"""``insitu operators``: what can be folded, and what can act on results, read from the classes themselves."""

from collections.abc import Callable
from typing import Any, get_args

import click

from insitu import registry
from insitu.cli.docstrings import documentation, plain, results, whole
from insitu.config.function import Function
from insitu.config.plugins import PluginClass, load_operator
from insitu.config.words import expectation, shown
from insitu.errors import ConfigError
from insitu.operator import Dimension, Operator

_WIDTH = 80


@click.command()
@click.argument("name", required=False)
@click.option("--all", "all_of_it", is_flag=True, help="The whole specification: accuracy, cost, NaN, sources.")
def command(name: str | None, all_of_it: bool) -> None:
    """List the operators, learners and controllers, or describe one.

    NAME is one of the list, module:Class of an operator, or module:function of a function of a window.
    """
    formatter = click.HelpFormatter(width=_WIDTH)
    if name is None:
        formatter.write_dl([(known, _first_line(registry.load, known)) for known in sorted(registry.OPERATORS)])
        formatter.write("\nLearners, which stand among the operators too:\n")
        formatter.write_dl([(known, _first_line(registry.load_learner, known)) for known in sorted(registry.LEARNERS)])
        formatter.write("\nControllers, under steering:\n")
        lines = [(known, _first_line(registry.load_controller, known)) for known in sorted(registry.CONTROLLERS)]
        formatter.write_dl(lines)
    else:
        load = registry.load_controller if name in registry.CONTROLLERS else load_operator
        kind = load(name)
        (_specify if all_of_it or kind is Function else _describe)(formatter, name, kind)
    click.echo(formatter.getvalue(), nl=False)


def _first_line(load: Callable[[str], PluginClass], name: str) -> str:
    try:
        return plain(documentation(load(name)).partition("\n")[0])
    except ConfigError as error:
        return f"not available: {error}"


def _describe(formatter: click.HelpFormatter, name: str, kind: PluginClass) -> None:
    """Say what it is, what it yields, and the keys that are its own."""
    text = documentation(kind)
    first, *_ = text.splitlines()
    formatter.write_text(f"{name}: {plain(first)}")
    if rows := results(text):
        formatter.write("\nResults:\n")
        with formatter.indentation():
            formatter.write_dl([(row["result"], _result(row)) for row in rows])
    schema = kind.model_json_schema()
    keys = Operator.model_fields if issubclass(kind, Operator) else {}
    common = [key for key, field in keys.items() if field.is_required() or key not in schema.get("required", ())]
    own = [(key, _key(key, part, schema)) for key, part in schema["properties"].items() if key not in common]
    if own:
        formatter.write("\nKeys:\n")
        with formatter.indentation():
            formatter.write_dl(own)
    formatter.write("\n")
    if issubclass(kind, Operator):
        order = get_args(Dimension)
        reductions = sorted((sorted(way, key=order.index) for way in kind.reductions), key=lambda way: (len(way), way))
        ways = ", ".join(way[0] if len(way) == 1 else f"[{', '.join(way)}]" for way in reductions)
        formatter.write_text(f"and those of every operator: of, window, every, where, and over: {ways}.")
    formatter.write_text(f"All of it, accuracy and cost: insitu operators {name} --all")


def _result(row: dict[str, str]) -> str:
    what = ", ".join(part for key in ("dtype", "dims") if (part := row.get(key, "")))
    value = next(part for heading, part in row.items() if heading.startswith("value"))
    units = f"[{row['units']}]" if row.get("units") else ""
    return " ".join(part for part in (value, units, f"({what})" if what else "") if part)


def _specify(formatter: click.HelpFormatter, name: str, kind: PluginClass) -> None:
    """Say all that its docstring says, and every key."""
    schema = kind.model_json_schema()
    formatter.write(whole(f"{name}: {documentation(kind)}", _WIDTH) + "\n\nKeys:\n")
    with formatter.indentation():
        own = [(key, _key(key, part, schema)) for key, part in schema["properties"].items()]
        formatter.write_dl([("use", name), *own])


def _key(key: str, part: dict[str, Any], schema: dict[str, Any]) -> str:
    needed = "required" if key in schema.get("required", ()) else f"default {shown(part.get('default'))}"
    about = [part["description"]] if "description" in part else []
    return "; ".join([*about, expectation(part, schema), needed])
