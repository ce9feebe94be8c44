# SPDX-License-Identifier: Apache-2.0
"""``insitu operators``: what can be folded, and what can act on results, read from the classes themselves."""

import inspect
from collections.abc import Callable
from typing import Any

import click

from insitu import registry
from insitu.config.plugins import PluginClass, load_operator
from insitu.config.words import expectation, shown
from insitu.errors import ConfigError

_WIDTH = 80


@click.command()
@click.argument("name", required=False)
def command(name: str | None) -> None:
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
        _describe(formatter, name, load(name))
    click.echo(formatter.getvalue(), nl=False)


def _first_line(load: Callable[[str], PluginClass], name: str) -> str:
    try:
        return _documentation(load(name)).partition("\n")[0]
    except ConfigError as error:
        return f"not available: {error}"


def _documentation(kind: PluginClass) -> str:
    """Return the class's own docstring; pydantic's or the base's would describe something else."""
    return inspect.cleandoc(kind.__dict__.get("__doc__") or "(it has no docstring)")


def _describe(formatter: click.HelpFormatter, name: str, kind: PluginClass) -> None:
    schema = kind.model_json_schema()
    formatter.write(f"{name}: {_documentation(kind)}\n\nKeys:\n")
    with formatter.indentation():
        own = [(key, _key(key, part, schema)) for key, part in schema["properties"].items()]
        formatter.write_dl([("use", name), *own])


def _key(key: str, part: dict[str, Any], schema: dict[str, Any]) -> str:
    needed = "required" if key in schema.get("required", ()) else f"default {shown(part.get('default'))}"
    about = [part["description"]] if "description" in part else []
    return "; ".join([*about, expectation(part, schema), needed])
