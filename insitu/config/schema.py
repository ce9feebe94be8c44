# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of the YAML, for editors: what completes keys there and underlines mistakes while one types."""

from typing import Any

from insitu import registry
from insitu.config.model import Config
from insitu.operator import Operator

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema of a configuration; `use` decides which keys an operator has.

    Imports every operator of the table, and raises `ConfigError` where one cannot be imported. The keys of a
    ``module:Class`` are not checked, because it may not be installed where the editor runs.
    """
    schema = Config.model_json_schema()
    known: list[dict[str, Any]] = []
    for name in sorted(registry.OPERATORS):
        entry = operator_schema(name, registry.load(name))
        schema["$defs"] |= entry.pop("$defs", {})
        known.append(entry)
    use = {"type": "string", "pattern": ".+:.+", "description": "module:Class or module:function"}
    foreign = {
        "title": "module:Class or module:function",
        "type": "object",
        "properties": {"use": use},
        "required": ["use"],
    }
    schema["properties"]["operators"]["additionalProperties"] = {"oneOf": [*known, foreign]}
    return {"$schema": DIALECT, **schema, "title": "insitu configuration"}


def operator_schema(use: str, kind: type[Operator]) -> dict[str, Any]:
    """Return the schema of one operator's entry, `use` included."""
    schema = kind.model_json_schema(ref_template=f"#/$defs/{use}.{{model}}")
    if "$defs" in schema:
        schema["$defs"] = {f"{use}.{model}": part for model, part in schema["$defs"].items()}
    schema["properties"] = {"use": {"const": use, "type": "string"}, **schema["properties"]}
    schema["required"] = ["use", *(key for key in schema.get("required", ()) if key != "use")]
    return schema
