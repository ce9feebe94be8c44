# SPDX-License-Identifier: Apache-2.0
"""Entries with ``use:``, whose other keys are those of the operator or controller that it names."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from insitu import registry
from insitu.config.function import Function
from insitu.config.places import Path
from insitu.config.values import expected
from insitu.errors import ConfigError
from insitu.learner import Learner
from insitu.operator import Operator
from insitu.steering.controller import Controller

Plugin = Operator | Learner | Controller
PluginClass = type[Operator] | type[Learner] | type[Controller]


def plugin_entry(plugin: Plugin) -> dict[str, Any]:
    """Return an entry of the YAML that builds this operator or controller, as plain JSON data.

    Defaults are written out, so that the entry means the same in a later version. Not where it refuses keys that are
    set, even to their default, because they have no meaning beside others: then there is only what was set.
    """
    whole = plugin.model_dump(mode="json")
    try:
        type(plugin).model_validate(whole)
    except ValidationError:
        whole = plugin.model_dump(mode="json", exclude_unset=True)
    return whole if isinstance(plugin, Function) else {"use": registry.use_of(type(plugin)), **whole}


def load_operator(use: str) -> type[Operator] | type[Learner]:
    """Return the class of an entry under operators; that of a function of a window is `Function`."""
    if registry.is_learner(use):
        return registry.load_learner(use)
    return Function if registry.is_function(use) else registry.load(use)


def entry_of(path: Path) -> tuple[Path, Callable[[str], PluginClass], str] | None:
    """Return the entry that a path leads into: its own path, how its `use` is loaded, and what that names."""
    if path[:1] == ("operators",) and len(path) > 2:
        return path[:2], load_operator, "operator"
    if path[:2] == ("steering", "controllers") and len(path) > 3:
        return path[:3], registry.load_controller, "controller"
    return None


def plugin_class(entry: dict[str, Any], load: Callable[[str], PluginClass], what: str) -> PluginClass:
    """Return the class that an entry's `use` names; a `ValueError` says in words why there is none."""
    if "use" not in entry:
        article = "an" if what[0] in "aeiou" else "a"
        missing = f"is missing; expected the name of {article} {what}, or module:Class"
        raise PydanticCustomError("sentence", "{text}", {"text": missing})
    if not isinstance(entry["use"], str):
        raise expected(f"the name of an {what}, or module:Class" if what == "operator" else f"the name of a {what}")
    try:
        return load(entry["use"])
    except ConfigError as error:
        raise PydanticCustomError("sentence", "{text}", {"text": str(error)}) from error


def _builder(
    load: Callable[[str], PluginClass], base: tuple[PluginClass, ...], what: str
) -> Callable[[object], Plugin]:
    """Build by the plugin's own model, so that the mistakes of an entry are placed at its own keys."""

    def build(entry: object) -> Plugin:
        if isinstance(entry, base):
            return entry
        if not isinstance(entry, dict):
            raise expected(f"a mapping with the key use and the {what}'s own keys")
        try:
            kind = plugin_class(entry, load, what)
        except PydanticCustomError as error:
            at_use = InitErrorDetails(type=error, loc=("use",), input=entry.get("use"))
            raise ValidationError.from_exception_data(what, [at_use]) from error
        return kind.model_validate({key: value for key, value in entry.items() if key != "use" or kind is Function})

    return build


def _schema(what: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"use": {"type": "string", "description": f"the name of the {what}, or module:Class"}},
        "required": ["use"],
    }


OperatorEntry = Annotated[
    Operator | Learner,
    PlainValidator(_builder(load_operator, (Operator, Learner), "operator")),
    PlainSerializer(plugin_entry),
    WithJsonSchema(_schema("operator")),
]
ControllerEntry = Annotated[
    Controller,
    PlainValidator(_builder(registry.load_controller, (Controller,), "controller")),
    PlainSerializer(plugin_entry),
    WithJsonSchema(_schema("controller")),
]
