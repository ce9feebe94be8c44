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
class Workspace:
    """Where a learner of this `name` keeps what outlives its process, and whom it tells.

    `directory` is that of the run; models and checkpoints have their place there. `config_hash` tells with which
    configuration something was made. What is `tell`-ed is a warning in the run's log.
    """

    name: str
    directory: Path
    config_hash: str = ""
    tell: Callable[[str], None] = print

    @property
    def models(self) -> Path:
        """The folder of all models of the run: ``NAME/VERSION/`` for each."""
        return self.directory / "models"

    @property
    def checkpoint(self) -> Path:
        """The file from which the learner goes on where its process has died."""
        return self.directory / "checkpoints" / f"{self.name}.ckpt"


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

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """The variables that it is given; a step without one of them is left out."""

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
