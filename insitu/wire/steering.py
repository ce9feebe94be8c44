# SPDX-License-Identifier: Apache-2.0
"""What is said of steering: between ranks and the controller, which agree on actions, and between it and the consoles
that ask for them and follow results. The rules are those of `messages`.
"""

from dataclasses import dataclass
from typing import Any

from insitu.model import Extent

#: Of parameters and states, or of a row of results: arrays, numbers, strings and booleans by their names.
Values = dict[str, Any]

# Rank to controller


@dataclass(slots=True)
class Declare:
    """Something of the simulation that can be steered: a `parameter`, a `state`, or an `action` of the author's own.

    `spec` is what `insitu.steering` says of it, as plain data. Of a state, this rank has the part at `start` with
    `count`.
    """

    what: str
    name: str
    spec: dict[str, Any]
    start: Extent
    count: Extent


@dataclass(slots=True)
class Reached:
    """The rank has passed `passed` boundaries: it has closed as many steps, the last one of this index and time."""

    passed: int
    index: int
    time: float


@dataclass(slots=True)
class Answer:
    """What a rank says to attempt `round` at an action; `word` is one of `insitu.steering.agreement`.

    `passed` is as in `Reached`; `index` and `time` are those of the step after which the action was applied, and `old`
    the values before it. `waited_s` is how long the rank stood at the step, and `spare` how many boundaries before it
    the decision was there.
    """

    round: int
    word: str
    passed: int
    index: int
    time: float
    reason: str
    old: dict[str, Any]
    waited_s: float
    spare: int


@dataclass(slots=True)
class Standing:
    """The rank stands still in a pause, at boundary `passed`, behind the step of this index and time."""

    passed: int
    index: int
    time: float


# Controller to rank


@dataclass(slots=True)
class SteeringTerms:
    """How actions are agreed on: by a `promise` of each rank, or by rank 0, which tells the others over `mpi`.

    A rank waits for a decision at most `max_wait_s`, and in a pause at most `max_pause_s`; a rank `in_doubt` stops, or
    goes on and is reverted. Behind the `Welcome` come so many `scheduled` actions, each as a `Propose` that is decided.
    """

    agree: str
    max_wait_s: float
    max_pause_s: float
    in_doubt: str
    scheduled: int


@dataclass(slots=True)
class Propose:
    """Attempt `round` at an action: it is to be applied at boundary `at`, if all ranks promise (-1: at the next one).

    `values` hold the whole of a state, or the rank's own part of it. Where it is `decided`, nobody is asked any more.
    """

    round: int
    at: int
    decided: bool
    kind: str
    values: Values


@dataclass(slots=True)
class Decide:
    """All ranks `apply` the action of this attempt at its boundary, or none."""

    round: int
    apply: bool


# Console to controller


@dataclass(slots=True)
class ConsoleHello:
    """A console asks to look at a run and to steer it, for `user`."""

    version: int
    run: str
    user: str
    host: str
    pid: int


@dataclass(slots=True)
class Request:
    """The console asks for an action, and will know what became of it by its `token`."""

    token: int
    kind: str
    values: Values
    by: str
    why: str


@dataclass(slots=True)
class Follow:
    """The console wants the results of these operators: the newest that there is of each, and all that follow."""

    operators: tuple[str, ...]


@dataclass(slots=True)
class Scale:
    """The console wants the run to go on with so many staging nodes."""

    nodes: int


@dataclass(slots=True)
class Leave:
    """The console ends."""


# Controller to console


@dataclass(slots=True)
class ConsoleWelcome:
    """The console takes part."""

    run: str


@dataclass(slots=True)
class Steerable:
    """What can be steered: parameters and states, the author's own actions, and the values of all that are known.

    They are what `insitu.steering` says of them, as plain data. Said again when there are more of them; `ready` once
    all ranks have said what they have.
    """

    ready: bool
    parameters: tuple[dict[str, Any], ...]
    actions: dict[str, Any]
    values: dict[str, Any]


@dataclass(slots=True)
class Settled:
    """The receipt of an action, as plain data: of the request with this `token`, or -1 where another asked for it."""

    token: int
    receipt: dict[str, Any]


@dataclass(slots=True)
class Scaled:
    """The answer to `Scale`: so many staging nodes are wanted now. `why` says why it is not what was asked for."""

    nodes: int
    why: str


@dataclass(slots=True)
class Paused:
    """All ranks stand still at this boundary, behind the step of this index and time; -1 where they do not."""

    boundary: int
    index: int
    time: float


@dataclass(slots=True)
class Shown:
    """A result of an operator that the console follows: its arrays, and the fields of its provenance.

    `time` is ``None`` where no step was folded. `why` says why there are no results to be shown, and is else empty.
    """

    operator: str
    why: str
    index: int
    first_step: int
    last_step: int
    time: float | None
    steps: int
    dropped: int
    complete: bool
    arrays: Values
