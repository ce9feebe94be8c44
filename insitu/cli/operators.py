# SPDX-License-Identifier: Apache-2.0
"""``insitu operators``: what can be folded, read from the operators themselves."""

import inspect
from typing import Any

import click

from insitu import registry
from insitu.config.function import Function
from insitu.config.words import expectation, shown
from insitu.errors import ConfigError
from insitu.operator import Operator

_WIDTH = 80


@click.command()
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the operators, or describe one.

    NAME is an operator of the list, module:Class, or module:function of a function of a window.
    """
    formatter = click.HelpFormatter(width=_WIDTH)
    if name is None:
        formatter.write_dl([(known, _first_line(known)) for known in sorted(registry.OPERATORS)])
    else:
        _describe(formatter, name, Function if registry.is_function(name) else registry.load(name))
    click.echo(formatter.getvalue(), nl=False)


def _first_line(name: str) -> str:
    try:
        return _documentation(registry.load(name)).partition("\n")[0]
    except ConfigError as error:
        return f"not available: {error}"


def _documentation(kind: type[Operator]) -> str:
    """Return the class's own docstring; pydantic's or the base's would describe something else."""
    return inspect.cleandoc(kind.__dict__.get("__doc__") or "(it has no docstring)")


def _describe(formatter: click.HelpFormatter, name: str, kind: type[Operator]) -> None:
    schema = kind.model_json_schema()
    formatter.write(f"{name}: {_documentation(kind)}\n\nKeys:\n")
    with formatter.indentation():
        own = [(key, _key(key, part, schema)) for key, part in schema["properties"].items()]
        formatter.write_dl([("use", name), *own])


def _key(key: str, part: dict[str, Any], schema: dict[str, Any]) -> str:
    needed = "required" if key in schema.get("required", ()) else f"default {shown(part.get('default'))}"
    about = [part["description"]] if "description" in part else []
    return "; ".join([*about, expectation(part, schema), needed])
