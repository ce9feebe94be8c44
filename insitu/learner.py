# SPDX-License-Identifier: Apache-2.0
"""The contract of a learner: an operator that is no fold.

A network that is trained on the stream has no neutral element, and two of them cannot be merged: it depends on the
order of what it saw, and on how long it looked. So a learner does not pretend to be an `insitu.operator.Operator`. It
lives in a **process of its own** on a staging node, which may use as much of a processor as it is given, may die, and
is then started anew; it is given whole steps, one after the other; and what comes of it are rows of small results.

**Who does what.** The framework gathers the blocks of each committed step, from all ranks and staging nodes, and gives
them to `Learning.take` as arrays of the global shape. A learner that has no room says so, and is asked again: the step
waits at its staging node, and by the ranks' credits the policy of their buffers decides (`block`: the simulation
waits). In between `Learning.work` is called again and again: one batch, one prediction. All is called from one thread.

**Several processes** may work at one learner. Each is given a share of the steps, which `Learner.takes` decides, and
each whole step goes to one of them. They work together as a `Team` that changes: a process that has died leaves it, and
the one that is started in its place comes in again. Who is in it is told by `Learning.meet`; how they talk to each
other is theirs.

**Nothing is promised** about how many steps lie between two calls of `work`, nor how long one is waited for. A learner
whose outcome must not depend on the machine's speed counts for itself, as `analytics.nn` does with its limiter.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from insitu.errors import OperatorError
from insitu.model import Array, Step, Variable

#: 2^64 divided by the golden ratio.
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Taken:
    """One whole step: `fields` are read-only arrays of the global shapes, of all variables that the learner needs.

    The rows of a joined variable are those of all ranks, in their order. Whoever keeps an array keeps its memory.
    """

    step: Step
    fields: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of results, which covers the `steps` that were taken since the row before: from `first` to `last`.

    Without any, both are the newest step so far. `values` has the names and dtypes of `Learner.describe`.
    """

    first: Step
    last: Step
    steps: int
    values: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Team:
    """Which processes of a learner work together from now on: the numbers of its `members`, in order.

    Teams are counted by `generation`, and find each other by the name `meeting`, which is one for the whole run.
    Without members nothing is left to do: the others have ended their work.
    """

    generation: int
    members: tuple[int, ...]
    meeting: str


def _nobody(generation: int, missing: tuple[int, ...]) -> None:
    """There are no others to work with."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where a learner of this `name` keeps what outlives its process, and whom it tells.

    `directory` is that of the run; models and checkpoints have their place there. `config_hash` tells with which
    configuration something was made. What is `tell`-ed is a warning in the run's log.

    Where a learner has several processes this is number `process`. ``join(generation, missing)`` asks for a team: a
    first one (generation 0), or another one, since that of `generation` does not work together any more, and `missing`
    did not come. Nobody outside of this machine need reach a run that is `local`.
    """

    name: str
    directory: Path
    config_hash: str = ""
    tell: Callable[[str], None] = print
    process: int = 0
    local: bool = True
    join: Callable[[int, tuple[int, ...]], None] = _nobody

    @property
    def models(self) -> Path:
        """The folder of all models of the run: ``NAME/VERSION/`` for each."""
        return self.directory / "models"

    @property
    def checkpoint(self) -> Path:
        """The file from which the process goes on where the one before it has died."""
        number = f".{self.process}" if self.process else ""
        return self.directory / "checkpoints" / f"{self.name}{number}.ckpt"

    def meeting(self, team: Team) -> Path:
        """The file by which the processes of a team find each other."""
        return self.directory / "checkpoints" / f".{self.name}.{team.meeting}.meeting"


class Learning(ABC):
    """A learner at work. Called from one thread of its process; whatever it raises stops the operator."""

    @abstractmethod
    def take(self, taken: Taken) -> bool:
        """Take in the next whole step; ``False`` where there is no room, to be asked again with the same one."""

    @abstractmethod
    def end(self) -> None:
        """There are no more steps: what is left is worked off, for as long as `work` says so."""

    @abstractmethod
    def work(self) -> bool:
        """Do one piece of work of at most some tenths of a second; ``False`` where there is none before more comes."""

    @property
    def finished(self) -> bool:
        """Whether nothing will be left to do, when no step will come and `work` has said so."""
        return True

    def meet(self, team: Team) -> None:  # noqa: B027 - most have one process, and never hear of a team
        """Work with these from now on; the answer to `Workspace.join`, or because one of them has come or gone."""

    @abstractmethod
    def rows(self) -> list[Row]:
        """Return the results since the last call, in order."""

    def counters(self) -> dict[str, int | float]:
        """Return what is counted so far, for the report: names carry the unit."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Put down what is to stay: called once, after the last piece of work, and not where the operator failed."""


class Learner(BaseModel, ABC):
    """Base of all learners; also the model of its entry in the YAML, so a field here is a key there."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    threads: Annotated[int, Field(strict=True, ge=1)] = Field(
        default=1, description="threads of its process for numbers: those of torch, BLAS and numba"
    )

    #: A learner takes variables of the simulation, never results of operators.
    sources: ClassVar[tuple[str, ...]] = ()
    #: Counters that mean the same in each process, and are not added up: the largest one is told.
    shared_counters: ClassVar[frozenset[str]] = frozenset()

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """The variables that it is given; a step without one of them is left out."""

    @property
    def processes(self) -> int:
        """How many processes work at it together."""
        return 1

    def takes(self, sequence: int, process: int) -> bool:
        """Whether the step of this sequence is given to process number `process`."""
        return turn(sequence, self.processes) == process

    @property
    def asks(self) -> tuple[str, ...]:
        """The learners of the same run whose models it uses."""
        return ()

    def fault_of_asked(self, asked: "Learner") -> str | None:
        """Say why the model of a learner that it `asks` will not do, with the cure. Asked by ``insitu check``."""
        return None

    def fault(self) -> str | None:
        """Say what is missing on this machine, with the cure: a package, a device. Asked by ``insitu check`` too."""
        return None

    def warm_up(self) -> None:
        """Import and compile what the first piece of work would. Called once in its process, before the first step."""

    @abstractmethod
    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        """Say what each row will have for these inputs, without the leading ``window``.

        Called by ``insitu check`` and at the first step. Raises `OperatorError` for inputs that it can never take.
        """

    @abstractmethod
    def begin(self, inputs: Mapping[str, Variable], workspace: Workspace) -> Learning:
        """Begin, or go on from the checkpoint that the workspace has. Called in the learner's own process."""

    def require(self) -> None:
        """Raise `OperatorError` where something is missing on this machine."""
        if fault := self.fault():
            raise OperatorError(fault)


def turn(sequence: int, processes: int) -> int:
    """Return which of the processes has the turn at a step: each as often, whatever part of the steps is looked at.

    Not one after the other: of a variable that is published in every second step one of two processes would get none.
    So the turns follow the fractional parts of multiples of the golden ratio, which are spread evenly over any steps
    that are equally far apart (Weyl, 1916), the first few included.

    >>> [turn(sequence, 2) for sequence in range(10)]
    [0, 1, 0, 1, 0, 0, 1, 0, 1, 1]
    """
    return ((sequence * _GOLDEN) % 2**64 * processes) >> 64
