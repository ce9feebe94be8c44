# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of the YAML, for editors: what completes keys there and underlines mistakes while one types."""

from collections.abc import Callable, Iterable
from typing import Any

from insitu import registry
from insitu.config.model import Config
from insitu.config.plugins import PluginClass, load_operator

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema of a configuration; `use` decides which keys an operator or controller has.

    Imports every plugin of the tables, and raises `ConfigError` where one cannot be imported. The keys of a
    ``module:Class`` are not checked, because it may not be installed where the editor runs.
    """
    schema = Config.model_json_schema()
    schema["properties"]["operators"]["additionalProperties"] = _one_of(
        registry.OPERATORS | registry.LEARNERS, load_operator, schema
    )
    steering = schema["$defs"]["Steering"]["properties"]
    steering["controllers"]["additionalProperties"] = _one_of(registry.CONTROLLERS, registry.load_controller, schema)
    return {"$schema": DIALECT, **schema, "title": "insitu configuration"}


def _one_of(table: Iterable[str], load: Callable[[str], PluginClass], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an entry with `use`; what it needs besides is added to the definitions of `schema`."""
    known: list[dict[str, Any]] = []
    for name in sorted(table):
        entry = plugin_schema(name, load(name))
        schema["$defs"] |= entry.pop("$defs", {})
        known.append(entry)
    use = {"type": "string", "pattern": ".+:.+", "description": "module:Class"}
    foreign = {"title": "module:Class", "type": "object", "properties": {"use": use}, "required": ["use"]}
    return {"oneOf": [*known, foreign]}


def plugin_schema(use: str, kind: PluginClass) -> dict[str, Any]:
    """Return the schema of one entry, `use` included."""
    schema = kind.model_json_schema(ref_template=f"#/$defs/{use}.{{model}}")
    if "$defs" in schema:
        schema["$defs"] = {f"{use}.{model}": part for model, part in schema["$defs"].items()}
    schema["properties"] = {"use": {"const": use, "type": "string"}, **schema["properties"]}
    schema["required"] = ["use", *(key for key in schema.get("required", ()) if key != "use")]
    return schema
