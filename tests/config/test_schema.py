# SPDX-License-Identifier: Apache-2.0
"""The schema for editors agrees with what a configuration is, and the reference configuration with both."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import BaseModel

from insitu import config, registry
from insitu.config.schema import json_schema
from insitu.config.words import Schema, options
from insitu.model import Variable
from insitu.pipeline import Pipeline
from tests.config.folds import Count


class Axis(BaseModel):
    low: float


class Nested(Count):
    axis: Axis


REFERENCE = Path(__file__).parents[2] / "configs" / "reference.yaml"
PARTICLES = REFERENCE.with_name("lammps_liquid.yaml")
ENSEMBLE = REFERENCE.with_name("ensemble.yaml")


def references(part: Any) -> Iterator[str]:
    """All ``$ref`` below a part of a schema."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            yield from references(item)


def sections(schema: Schema, root: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """All keys of the framework itself, with their dotted paths; operators have keys of their own."""
    for option in options(schema, root):
        for key, below in option.get("properties", {}).items():
            yield f"{path}{key}", below
            if key not in ("operators", "controllers"):
                yield from sections(below, root, f"{path}{key}.")
        for name, inner in (("*", option.get("additionalProperties")), ("0", option.get("items"))):
            if isinstance(inner, dict):
                yield from sections(inner, root, f"{path}{name}.")


def test_the_schema_is_json_and_its_references_lead_somewhere() -> None:
    schema = json.loads(json.dumps(json_schema()))
    for reference in references(schema):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


def test_use_decides_which_keys_an_operator_has() -> None:
    *known, foreign = json_schema()["properties"]["operators"]["additionalProperties"]["oneOf"]
    assert [entry["properties"]["use"]["const"] for entry in known] == sorted(registry.OPERATORS | registry.LEARNERS)
    for entry in known:
        assert entry["additionalProperties"] is False
        if entry["properties"]["use"]["const"] in registry.LEARNERS:
            assert {"use", "inputs"} < set(entry["required"])
            continue
        assert {"use", "of"} <= set(entry["required"])
        assert "over" in entry["required"] or "default" in entry["properties"]["over"]
        assert "window" in entry["properties"]
    assert foreign["required"] == ["use"]


def test_models_of_an_operator_do_not_collide_with_those_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LEARNERS", {})
    monkeypatch.setattr(registry, "OPERATORS", {"a": f"{__name__}:Nested", "b": f"{__name__}:Nested"})
    monkeypatch.setattr(registry, "load", lambda use: Nested)
    schema = json_schema()
    assert {"a.Axis", "b.Axis"} <= set(schema["$defs"])
    assert set(references(schema)) >= {"#/$defs/a.Axis", "#/$defs/b.Axis"}


def test_every_key_describes_itself() -> None:
    schema = json_schema()
    assert [path for path, key in sections(schema, schema) if not key.get("description")] == []


def test_the_reference_is_a_configuration() -> None:
    assert config.load(REFERENCE).run == "reference"


def test_the_resolved_reference_loads_to_the_same(tmp_path: Path) -> None:
    loaded = config.load(REFERENCE)
    (tmp_path / "config.yaml").write_text(loaded.resolved_yaml())
    again = config.load(tmp_path / "config.yaml")
    assert (again.operators, again.steering) == (loaded.operators, loaded.steering)


def test_the_operators_of_the_reference_fit_its_simulation() -> None:
    pipeline = Pipeline(config.load(REFERENCE))
    fields = {name: Variable(name, np.dtype("f8"), (256, 256), ("y", "x"), units="1") for name in ("u", "v")}
    feed = Variable("parameters.feed", np.dtype("f8"), (), ())
    described = set(pipeline.describe({**fields, feed.name: feed}))
    everything = {*pipeline.operators, *pipeline.learners}
    assert described - {"modes.series", "rates.series"} == everything == set(pipeline.stored)


def test_the_reference_names_every_key_and_its_default() -> None:
    schema = json_schema()
    data = yaml.safe_load(REFERENCE.read_text())
    resolved = config.load(REFERENCE).resolved()
    for path, key in sections(schema, schema):
        if path.startswith("steering.0."):
            continue  # the short form of steering.rules.0
        stands, holds = data, resolved
        for part in path.split("."):
            if part == "expect" and path[-len(part) :] != part:  # which no two variables have alike
                stands, holds = data["variables"]["u"], resolved["variables"]["u"]
            index = int(part) if isinstance(stands, list) else part
            stands, holds = stands[index], holds[index]
        simple = not isinstance(holds, dict | list)  # a section that is off by default is shown as it is when it is on
        of_the_demo = ".expect." in f".{path}."  # there stands what its simulation puts
        if "default" in key and simple and not of_the_demo:
            assert holds == key["default"], f"{path} shows another value than its default"


def test_every_operator_is_used_in_a_configuration() -> None:
    used = {
        entry["use"]
        for path in (REFERENCE, PARTICLES, ENSEMBLE)
        for entry in config.load(path).resolved()["operators"].values()
    }
    assert used == {*registry.OPERATORS, *registry.LEARNERS}
