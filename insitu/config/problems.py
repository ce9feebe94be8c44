# SPDX-License-Identifier: Apache-2.0
"""Pydantic's errors in people's words: where, what was expected, what was found.

Pydantic says what is wrong with a value ("unable to parse string as an integer"); whoever wrote it wants to know what
would be right. So the text is made from the schema of the key, and an error of pydantic only tells which key it is. An
error that a validator of ours raised in words is passed on as it is. Mistakes of one key become one problem: a union
fails once per branch.
"""

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from insitu.config.document import Document
from insitu.config.places import Path
from insitu.config.plugins import entry_of, plugin_class
from insitu.config.schema import plugin_schema
from insitu.config.words import Schema, descend, expectation, keys, nearest, shown
from insitu.errors import Problem

#: How pydantic ends the location of a mapping's key, where that of its value would be the key alone.
_KEY = "[key]"


def translate(error: ValidationError, schema: Schema, document: Document) -> list[Problem]:
    """Return one problem per key."""
    found: dict[Path, Problem] = {}
    for details in error.errors(include_url=False):
        root, base = _schema_of(details["loc"], schema, document.data)
        path, message = _explain(details, base, root, document.data)
        found.setdefault(path, document.places.problem(path, message))
    return list(found.values())


def _schema_of(loc: Path, schema: Schema, data: Any) -> tuple[Schema, Path]:
    """Return the schema that rules at `loc`, and the path at which it begins: a plugin's own, or the whole."""
    found = entry_of(loc)
    if found is None or loc[len(found[0])] == _KEY:
        return schema, ()
    base, load, what = found
    entry: Any = data
    for key in base:
        entry = entry[key]
    try:
        kind = plugin_class(entry, load, what)
    except ValueError:  # reported at the key use itself
        return schema, ()
    return plugin_schema(entry["use"], kind), base


def _explain(details: ErrorDetails, base: Path, root: Schema, data: Any) -> tuple[Path, str]:
    loc, kind = details["loc"], details["type"]
    if loc[-1:] == (_KEY,):
        return loc[:-1], _sentence(details)
    if kind == "extra_forbidden":
        known = keys(descend(root, loc[len(base) : -1], root)[0], root)
        return loc, f"unknown key{nearest(loc[-1], known)} (known are {', '.join(known)})"
    if kind == "missing":
        here, _ = descend(root, loc[len(base) :], root)
        return loc, f"is missing; expected {expectation(here, root)}"
    if kind in ("expected", "sentence"):
        return loc, _sentence(details)
    here, inner = descend(root, _present(data, loc)[len(base) :], root)
    path = base + inner
    if kind == "value_error":
        return path, str(details["ctx"]["error"])
    return path, f"expected {expectation(here, root)}, got {shown(_value(data, path))}"


def _sentence(details: ErrorDetails) -> str:
    """Return what a validator of ours said in words."""
    if details["type"] == "expected":
        return f"expected {details['msg']}, got {shown(details['input'])}"
    return details["msg"]


def _present(data: Any, loc: Path) -> Path:
    """Cut a location to what the file has: a validator may have made a list of one word, a union names its branch."""
    for depth, key in enumerate(loc):
        if not _has(data, key):
            return loc[:depth]
        data = data[key]
    return loc


def _has(data: Any, key: str | int) -> bool:
    if isinstance(data, dict):
        return key in data
    return isinstance(data, list) and isinstance(key, int) and key < len(data)


def _value(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data
