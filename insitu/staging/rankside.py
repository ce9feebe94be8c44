# SPDX-License-Identifier: Apache-2.0
"""What of a staging node a rank carries where operators are ``where: rank``: their states, and nothing else.

A rank folds its own blocks by the same code as a staging node does, after the same word of the controller: a step is
folded when it is committed, so that a dropped step is folded nowhere. No sockets, no clock, no threads of its own.

The client imports this module only when it is told to fold, for it brings pydantic, and what the operators need.
"""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from threadpoolctl import ThreadpoolController

from insitu import registry
from insitu.errors import InsituError
from insitu.model import Block, Step
from insitu.operator import Operator, state_nbytes
from insitu.staging.assembler import ReadyStep
from insitu.staging.folder import operator_stopped, rows_of
from insitu.staging.folds import Failure, Folds, Yield
from insitu.wire.messages import Event, Partial, Ship


@dataclass(frozen=True, slots=True)
class Committed:
    """A step that was decided on: this rank's blocks of it by name, or ``None`` where it was dropped."""

    step: Step
    blocks: Mapping[str, Block] | None


class RankFolds:
    """The operators that rank `rank` folds, made of their `entries` and compiled, within `memory_bytes` of states.

    An operator that cannot be made is left out, and `failures` says why: the simulation goes on without it.
    """

    def __init__(self, rank: int, member: int, entries: Mapping[str, Mapping[str, Any]], memory_bytes: int) -> None:
        self.failures: list[Event] = []
        self._rank = rank
        self._member = member
        operators = {}
        for name, entry in entries.items():
            try:
                operators[name] = _made(entry)
            except Exception as error:  # noqa: BLE001 - an operator is foreign code; the failure is handed on
                self.failures.append(_not_made(rank, name, error))
        cure = "raise variables.'*'.buffer, or take where: staging"
        self._folds = Folds(operators, memory_bytes, "rank", cure)
        self.inputs = frozenset(name for operator in operators.values() for name in operator.inputs)
        # What linear algebra would add in threads gets in the way of the other ranks of this machine.
        self._threads = ThreadpoolController()

    @property
    def nbytes(self) -> int:
        """Bytes of all states that are here."""
        return self._folds.nbytes

    def fold(self, steps: Sequence[Committed]) -> list[Ship | Event]:
        """Fold steps that follow each other; return the states of what is complete, and what went wrong."""
        ready = [
            ReadyStep(each.step, {} if each.blocks is None else {self._rank: dict(each.blocks)}, {}) for each in steps
        ]
        with self._threads.limit(limits=1):
            return self._said(self._folds.fold(ready))

    def finish(self, steps: int) -> list[Ship | Event]:
        """Return the states of what is open when the rank has ended after `steps` steps."""
        return self._said(self._folds.finish(steps))

    def _said(self, yields: Sequence[Yield | Failure]) -> list[Ship | Event]:
        said: list[Ship | Event] = []
        for item in yields:
            if isinstance(item, Failure):
                said.append(operator_stopped(item.operator, f"on rank {self._rank}: {item.reason}", item.trace))
            elif item.window < 0:
                said += [_ship(part) for part in rows_of(item, self._member)]
            else:
                said.append(
                    _ship(
                        Partial(
                            item.operator, self._member, item.window, item.since, item.upto, item.full, item.entries
                        )
                    )
                )
        return said


def _made(entry: Mapping[str, Any]) -> Operator:
    kind = registry.load(entry["use"])
    operator = kind.model_validate({key: value for key, value in entry.items() if key != "use"})
    operator.warm_up()
    return operator


def _not_made(rank: int, name: str, error: Exception) -> Event:
    kind = "" if isinstance(error, InsituError) else f"{type(error).__name__}: "
    reason = (
        f"rank {rank} cannot prepare it ({kind}{error}). Let the simulation run where insitu and the operator are "
        "installed, or take where: staging"
    )
    return operator_stopped(name, reason, "".join(traceback.format_exception(error)))


def _ship(partial: Partial) -> Ship:
    return Ship(state_nbytes([entry.state for entry in partial.entries]), partial)
