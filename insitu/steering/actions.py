# SPDX-License-Identifier: Apache-2.0
"""Actions and their receipts, as plain data.

=============  =====================================================  ================================================
kind           values                                                 what happens on every rank, after the same step
=============  =====================================================  ================================================
``set``        a value for each parameter or state                    they are set, all of them or none
``pause``      none                                                   the simulation waits
``resume``     none, or ``steps``: a whole number of at least 1       it goes on; pauses again after so many published
                                                                      steps, on all ranks after the same one
``checkpoint`` none                                                   the author's `Client.on_checkpoint` is called
``stop``       none                                                   `Client.stopping` is true
``trate``      ``every``: a whole number of at least 1                of so many steps one is published
another name   the arguments that `Client.action` declared            the author's function of that name is called
=============  =====================================================  ================================================

The verbs are IMDv3's where it has them (``pause``, ``resume``, ``trate``). One kind concerns no rank: ``rules``
switches rules of the run on or off, by a truth for each name, in the controller and at once.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from insitu.errors import ActionError
from insitu.model import Array
from insitu.steering.parameters import ARRAY_CELLS, ParameterSpec, Value, plain

#: The kinds that every simulation knows; a simulation adds names of its own.
VERBS = ("set", "pause", "resume", "checkpoint", "stop", "trate")

#: Switches rules; no simulation has an action of that name.
RULES = "rules"

Outcome = Literal["applied", "refused", "expired", "torn"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

#: How often a simulation publishes, as a parameter of the action ``trate``.
TRATE = ParameterSpec("every", "int", 1, minimum=1, description="of so many steps one is published")
#: How far a simulation runs until it pauses again, as a parameter of the action ``resume``.
STEPS = ParameterSpec("steps", "int", 1, minimum=1, description="published steps until it pauses again")

_DEFAULTS: tuple[tuple[str, Any], ...] = (("by", ""), ("why", ""), ("asked_s", 0.0), ("id", 0))


@dataclass(frozen=True, slots=True)
class Action:
    """A change that somebody asks a simulation for.

    `by` says who: ``command line``, ``rule:NAME``, ``user:NAME``, ``controller:NAME``. `why` is for people.
    `asked_s` is wall time, in seconds since 1970. `id` is the run's own number of it, from 1; 0 before it has one.

    >>> Action("set", {"feed": 0.03}, by="rule:cool down", why="stats.max > 0.9").describe()
    'set feed=0.03'
    """

    kind: str
    values: Mapping[str, Value] = field(default_factory=dict)
    by: str = ""
    why: str = ""
    asked_s: float = field(default_factory=time.time)
    id: int = 0

    def numbered(self, number: int) -> "Action":
        return replace(self, id=number)

    def describe(self) -> str:
        """Return the action in one line, as it is written on the command line."""
        return " ".join([self.kind, *(f"{name}={_shown(value)}" for name, value in self.values.items())])

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON data that `from_plain` takes."""
        return {
            "id": self.id,
            "kind": self.kind,
            "values": {name: plain(value) for name, value in self.values.items()},
            "by": self.by,
            "why": self.why,
            "asked_s": self.asked_s,
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> "Action":
        """Return what `to_plain` described; only `kind` is needed. Raises `ActionError` for anything else."""
        kind, values = data.get("kind"), data.get("values") or {}
        if not isinstance(kind, str) or not kind:
            raise ActionError(f"{data!r:.200} is no action: its kind is {kind!r}.")
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
            raise ActionError(f"{data!r:.200} is no action: its values are {values!r:.80}, not a value for each name.")
        by, why, asked_s, number = (data.get(*pair) for pair in _DEFAULTS)
        if not (
            isinstance(by, str) and isinstance(why, str) and isinstance(asked_s, (int, float)) and type(number) is int
        ):
            raise ActionError(f"{data!r:.200} is no action: by, why, asked_s or id is of another type.")
        return cls(kind, dict(values), by, why, float(asked_s), number)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an action.

    ==========  ========================================================================================
    outcome     meaning
    ==========  ========================================================================================
    applied     on all ranks, after the step of index `step`; `old` and `new` hold the values
    refused     nowhere, and asking again is of no use: `reason` says what is wrong with it
    expired     nowhere: there was no step left for it, or it was not agreed on in time
    torn        on `ranks` but not on all, or nobody knows; `reason` says what follows
    ==========  ========================================================================================

    `boundary` counts the steps of the simulation from 0, whatever their author's index is, and `time` is physical.
    `latency_s` and `latency_steps` are from the request to the step at which it was applied, as the controller saw it.
    """

    action: Action
    outcome: Outcome
    reason: str = ""
    step: int | None = None
    boundary: int | None = None
    time: float | None = None
    old: Mapping[str, Value] = field(default_factory=dict)
    new: Mapping[str, Value] = field(default_factory=dict)
    ranks: tuple[int, ...] = ()
    latency_s: float | None = None
    latency_steps: int | None = None

    def describe(self) -> str:
        """Return the receipt in one line.

        >>> action = Action("set", {"feed": 0.03}, by="user:ada", id=3)
        >>> Receipt(action, "applied", step=120, old={"feed": 0.035}, new={"feed": 0.03}).describe()
        '3: set feed=0.03 (user:ada): applied after step 120, feed 0.035 -> 0.03'
        """
        who = f" ({self.action.by})" if self.action.by else ""
        text = f"{self.action.id}: {self.action.describe()}{who}: {self.outcome}"
        if self.step is not None:
            text += f" after step {self.step}"
        for name, value in self.new.items():
            old = f"{_shown(self.old[name])} -> " if name in self.old else ""
            text += f", {name} {old}{_shown(value)}"
        return f"{text}: {self.reason}" if self.reason else text

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON data that `from_plain` takes: what stands in ``actions.jsonl``."""
        return {
            **self.action.to_plain(),
            "outcome": self.outcome,
            "reason": self.reason,
            "step": self.step,
            "boundary": self.boundary,
            "time": self.time,
            "old": {name: plain(value) for name, value in self.old.items()},
            "new": {name: plain(value) for name, value in self.new.items()},
            "ranks": list(self.ranks),
            "latency_s": self.latency_s,
            "latency_steps": self.latency_steps,
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> "Receipt":
        """Return what `to_plain` described. Raises `ActionError` for anything else."""
        outcome = data.get("outcome")
        if outcome not in OUTCOMES:
            raise ActionError(f"{data!r:.200} is no receipt: its outcome is {outcome!r}, not {', '.join(OUTCOMES)}.")
        return cls(
            Action.from_plain(data), outcome, str(data.get("reason", "")), data.get("step"), data.get("boundary"),
            data.get("time"), dict(data.get("old") or {}), dict(data.get("new") or {}), tuple(data.get("ranks") or ()),
            data.get("latency_s"), data.get("latency_steps"),
        )  # fmt: skip


def large(action: Action) -> list[tuple[str, Array]]:
    """Return the values of an action that are fields."""
    return [
        (name, value)
        for name, value in action.values.items()
        if isinstance(value, np.ndarray) and value.size > ARRAY_CELLS
    ]


def substituted(receipt: Receipt, values: Mapping[str, Any]) -> Receipt:
    """Return a receipt with something else in the place of some values, which are too large for where it goes."""
    action = replace(receipt.action, values={**receipt.action.values, **values})
    return replace(receipt, action=action, new={name: values.get(name, new) for name, new in receipt.new.items()})


def check_values(
    action: Action,
    parameters: Mapping[str, ParameterSpec],
    functions: Mapping[str, Mapping[str, ParameterSpec]],
) -> dict[str, Value]:
    """Return the values of an action as a simulation takes them, those left out by a custom action included.

    `parameters` are what was declared, states included; `functions` the arguments of each action that has a function
    of the author's, ``checkpoint`` included. Raises `ActionError` that names what is wrong with it.
    """
    if action.kind == "set":
        if not action.values:
            raise ActionError("set sets nothing; give it a parameter and a value, as in feed=0.03.")
        return {name: _known(name, parameters).check(value) for name, value in action.values.items()}
    if action.kind == "trate":
        arguments: Mapping[str, ParameterSpec] = {"every": TRATE}
    elif action.kind == "resume":
        arguments = {"steps": STEPS} if action.values else {}
    elif action.kind == "checkpoint" and action.kind not in functions:
        raise ActionError("checkpoint: the simulation has not said how it does that; see Client.on_checkpoint.")
    elif action.kind in functions:
        arguments = functions[action.kind]
    elif action.kind in VERBS:
        arguments = {}
    else:
        known = ", ".join(dict.fromkeys([*VERBS, *functions]))
        raise ActionError(f"'{action.kind}' is no action of this simulation, which knows {known}.")
    for name in action.values:
        if name not in arguments:
            takes = f"takes {', '.join(arguments)}" if arguments else "takes none"
            raise ActionError(f"{action.kind}: there is no argument '{name}'; it {takes}.")
    if action.kind == "trate" and "every" not in action.values:
        raise ActionError("trate: 'every' is missing; write every=10 to publish each tenth step.")
    return {name: spec.check(action.values.get(name, spec.default)) for name, spec in arguments.items()}


def _known(name: str, parameters: Mapping[str, ParameterSpec]) -> ParameterSpec:
    if name not in parameters:
        has = f"it declares {', '.join(sorted(parameters))}" if parameters else "it declares none"
        raise ActionError(f"'{name}' is no parameter of this simulation; {has}.")
    return parameters[name]


def _shown(value: object) -> str:
    if isinstance(value, np.ndarray):
        return str(value.tolist()) if value.size <= 8 else f"<array {value.dtype.name} {value.shape}>"
    if isinstance(value, list):
        array = np.asarray(value)
        return str(value) if array.size <= 8 else f"<array {array.shape}>"
    return str(value)


def pauses_after(boundary: int, steps: int, every: int) -> int:
    """Return the boundary of the pause that a ``resume`` with `steps`, applied at a boundary, leads to.

    Of so many steps (`every`) one is published: those whose boundary is a multiple of it. The place is fixed when the
    action is applied; a ``trate`` on the way there does not move it.

    >>> pauses_after(9, 5, 1), pauses_after(9, 2, 10), pauses_after(10, 2, 10)
    (14, 20, 30)
    """
    return (boundary // every + steps) * every
