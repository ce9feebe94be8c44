# SPDX-License-Identifier: Apache-2.0
"""JSON Schema in people's words: what a key expects, and what was found instead.

The models say what is right; this reads it back out of their schema, so that every mistake about a key, and
``insitu operators``, describe it in the same words.
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from insitu.config.places import Path

Schema = Mapping[str, Any]

_LONGEST = 60
_NUMBERS = {"integer": "an integer", "number": "a number"}
_BOUNDS = {
    "minimum": "of at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "of at most {}",
    "exclusiveMaximum": "below {}",
}


def shown(value: object) -> str:
    """Show a value as YAML would have it, cut to one line.

    >>> shown("many"), shown(True), shown(None), shown({"a": 1}), shown([1, 2])
    ('"many"', 'true', 'nothing', 'a mapping', '[1, 2]')
    """
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``; did you mean "..."?`` where a known name is near, else nothing."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def options(schema: Schema, root: Schema) -> list[Schema]:
    """Return what a schema allows: itself, or the parts of its unions, without references."""
    if "$ref" in schema:
        return options(root["$defs"][str(schema["$ref"]).rsplit("/", 1)[-1]], root)
    parts = schema.get("anyOf") or schema.get("oneOf")
    return [schema] if parts is None else [option for part in parts for option in options(part, root)]


def keys(schema: Schema, root: Schema) -> list[str]:
    """Return the keys that a mapping may have."""
    return [key for option in options(schema, root) for key in option.get("properties", ())]


def descend(schema: Schema, path: Path, root: Schema) -> tuple[Schema, Path]:
    """Follow a path as far as the schema knows it; return the schema there and that part of the path."""
    for depth, key in enumerate(path):
        below = next((found for option in options(schema, root) if (found := _child(option, key)) is not None), None)
        if below is None:
            return schema, path[:depth]
        schema = below
    return schema, path


def _child(schema: Schema, key: str | int) -> Schema | None:
    if isinstance(key, int):
        prefix = schema.get("prefixItems", ())
        found = prefix[key] if key < len(prefix) else schema.get("items")
    else:
        found = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
    return found if isinstance(found, Mapping) else None


def expectation(schema: Schema, root: Schema) -> str:
    """Say what a schema expects.

    >>> run = {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "run"}]}
    >>> expectation(run, {}), expectation({"enum": ["drop", "abort"]}, {})
    ('an integer of at least 1 or "run"', '"drop" or "abort"')
    >>> expectation({"type": "integer", "minimum": 0, "maximum": 4}, {})
    'an integer from 0 to 4'
    >>> pair = {"type": "array", "prefixItems": [{"type": "number"}] * 2, "minItems": 2, "maxItems": 2}
    >>> expectation(pair, {}), expectation({"type": "array", "items": {"type": "string"}, "minItems": 1}, {})
    ('a list of 2 numbers', 'a list of strings (at least 1)')
    >>> expectation({"type": "object", "properties": {"interval": {"type": "number"}}, "required": ["interval"]}, {})
    'a mapping with interval'
    """
    parts = [_one(option, root) for option in options(schema, root) if option.get("type") != "null"]
    return _either(list(dict.fromkeys(parts)))


def _one(schema: Schema, root: Schema) -> str:
    if "const" in schema:
        return shown(schema["const"])
    if "enum" in schema:
        return _either([shown(value) for value in schema["enum"]])
    kind = schema.get("type")
    if kind in _NUMBERS:
        if {"minimum", "maximum"} <= schema.keys():
            return f"{_NUMBERS[kind]} from {schema['minimum']} to {schema['maximum']}"
        bounds = [text.format(schema[name]) for name, text in _BOUNDS.items() if name in schema]
        return " ".join([_NUMBERS[kind], " and ".join(bounds)]).strip()
    if kind == "array":
        return _list(schema, root)
    if kind == "object" and schema.get("minProperties"):
        return "a mapping that is not empty"
    if kind == "object" and schema.get("required"):
        return f"a mapping with {', '.join(schema['required'])}"
    if kind == "string" and schema.get("examples"):
        return f"a string such as {shown(schema['examples'][0])}"
    return {"string": "a string", "boolean": "true or false", "object": "a mapping"}.get(str(kind), "a value")


def _list(schema: Schema, root: Schema) -> str:
    prefix = schema.get("prefixItems")
    item = _plural(expectation(prefix[0] if prefix else schema.get("items", {}), root))
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if most is not None and least == most:
        return f"a list of {most} {item}"
    limits = [f"at least {least}"] * (least > 0) + [f"at most {most}"] * (most is not None)
    return f"a list of {item}" + (f" ({', '.join(limits)})" if limits else "")


def _plural(item: str) -> str:
    first, _, rest = item.partition(" ")
    if first not in ("a", "an"):
        return item
    noun, _, tail = rest.partition(" ")
    return " ".join(part for part in (noun + "s", tail) if part)


def _either(parts: list[str]) -> str:
    return " or ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)
