# SPDX-License-Identifier: Apache-2.0
"""The section ``steering`` of the YAML: rules and controllers, which act on the simulation by what results say."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from insitu.config.plugins import ControllerEntry
from insitu.config.section import Section
from insitu.config.values import Identifier, Seconds, expected
from insitu.steering.actions import VERBS

_STEPS = re.compile(r"\s*(\d{1,15})\s*(?:steps?)?\s*")
_ONE_ACTION = "a word such as pause, or a mapping with one action such as {set: {feed: 0.03}}"


def read_steps(value: object) -> int:
    """Read a number of published steps.

    >>> read_steps("10 steps"), read_steps("1 step"), read_steps(50)
    (10, 1, 50)
    """
    match = _STEPS.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if match is None or int(match[1]) < 1:
        raise expected('a number of published steps, such as "10 steps"')
    return int(match[1])


def _as_action(value: object) -> object:
    """Let YAML say ``pause`` for ``{pause: {}}``, and ``{trate: 10}`` for ``{trate: {every: 10}}``."""
    if isinstance(value, str):
        return {value: {}}
    if not isinstance(value, dict) or len(value) != 1:
        raise expected(_ONE_ACTION)
    ((kind, values),) = value.items()
    if kind == "trate" and not isinstance(values, dict):
        values = {"every": values}
    return {kind: {} if values is None else values}


def _as_list(value: object) -> object:
    """Let YAML say ``do: pause`` for ``do: [pause]``."""
    return [value] if isinstance(value, str | dict) else value


def _wanted(value: object) -> object:
    """A number, true, false, or a text, which is an expression; a small array is a list of numbers."""
    plain = isinstance(value, bool | int | float | str)
    if plain or (isinstance(value, list) and value and all(type(each) in (int, float) for each in value)):
        return value
    raise expected("a number, true or false, an expression, or a list of numbers")


_NUMBER_OR_TEXT = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
_WANTED = {"type": ["number", "boolean", "string", "array"]}
_ACTION = {"anyOf": [{"type": "string"}, {"type": "object", "minProperties": 1, "maxProperties": 1}]}

Steps = Annotated[int, BeforeValidator(read_steps), WithJsonSchema(_NUMBER_OR_TEXT)]
Wanted = Annotated[Any, PlainValidator(_wanted), WithJsonSchema(_WANTED)]
OneAction = Annotated[dict[Identifier, dict[Identifier, Wanted]], BeforeValidator(_as_action), WithJsonSchema(_ACTION)]
Actions = Annotated[
    tuple[OneAction, ...], BeforeValidator(_as_list), WithJsonSchema({"type": "array", "items": _ACTION})
]


class RuleEntry(Section):
    """When a condition over results holds, actions follow."""

    model_config = ConfigDict(serialize_by_alias=True)

    when: str = Field(description="a condition over results, such as stats.max > 0.9")
    set: dict[Identifier, Wanted] = Field(
        default={}, description="parameters and the values that they get; short for an action set under do"
    )
    do: Actions = Field(default=(), description="actions, in order: " + ", ".join(VERBS) + ", or the simulation's own")
    notify: str = Field(default="", description="what is said when it fires")
    holds: Steps = Field(
        default=1, alias="for", description="published steps over which the condition must have been true, as 10 steps"
    )
    cooldown: Steps | None = Field(
        default=None, description="published steps after which it fires again while the condition stays true; null: not"
    )
    once: bool = Field(default=False, description="whether it fires no more than once in a run")
    priority: int = Field(default=0, description="of two that want different values at one step, the higher is heard")
    name: Identifier | None = Field(default=None, description="how receipts call it; null: by its place, as rule_1")

    @model_validator(mode="after")
    def _does_something(self) -> "RuleEntry":
        if not (self.set or self.do or self.notify):
            raise ValueError("does nothing; give it set, do or notify")
        return self

    @property
    def actions(self) -> list[tuple[tuple[str | int, ...], str, dict[str, Any]]]:
        """All actions: where each stands below the rule, its kind and its values."""
        short = [(("set",), "set", dict(self.set))] if self.set else []
        listed = [(("do", k), kind, values) for k, each in enumerate(self.do) for kind, values in each.items()]
        return [*short, *listed]


class Steering(Section):
    """What acts on the simulation while it runs, and how actions are agreed on over all ranks."""

    max_wait: Seconds = Field(
        default=1.0, description="longest wait of a rank, at the step of an action, for the decision on it"
    )
    max_pause: Seconds = Field(default=3600.0, description="longest pause; then the simulation goes on by itself")
    pause_after: Steps | None = Field(
        default=None,
        description="published steps after which the run pauses for the first time, for whoever steers it from there",
    )
    in_doubt: Literal["stop", "revert"] = Field(
        default="stop",
        description="what follows where a rank could not learn a decision. stop: the simulation stops, this rank at "
        "once and the others at the next common step; revert: it goes on, and what others have set is set back",
    )
    agree: Literal["promise", "mpi"] = Field(
        default="promise",
        description="promise: each rank promises before an action is decided; mpi: rank 0 decides and tells the others "
        "by MPI, at each step; the simulation then passes its communicator to the client",
    )
    rules: tuple[RuleEntry, ...] = Field(default=(), description="conditions over results, and what follows them")
    controllers: dict[Identifier, ControllerEntry] = Field(
        default={}, description="controllers in Python, by a name of your choice"
    )


def _as_steering(value: object) -> object:
    """Let Python say ``steering=[...]``; in a file, `insitu.config.loading` has put the list in its place before."""
    return {"rules": value} if isinstance(value, list | tuple) else value


SteeringOrRules = Annotated[
    Steering, BeforeValidator(_as_steering, json_schema_input_type=Steering | tuple[RuleEntry, ...])
]
