# SPDX-License-Identifier: Apache-2.0
"""Steps that this rank folds itself (``where: rank``), from when they are closed until their states have left.

Rule 1: a step is folded when the controller has committed it, which it does when every rank has closed it. A step that
is dropped anywhere is folded nowhere, and the states of all ranks have the same steps. Until then the step's blocks
stay where they are, in the rank's buffer; so what waits to be decided is bounded, and has the policies of any other
step.

Rule 2: states take at most as many bytes as the buffer, those that wait to leave among them. Where they are at it,
committed steps wait in the buffer too.

Rule 3: who folds is imported by name, when the run says that this rank has to; a rank that only publishes never loads
it. An operator that cannot be loaded, or raises, is stopped, and the simulation goes on.
"""

import importlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from insitu.client.cutting import Filled
from insitu.client.link import NodeLink
from insitu.model import Block, Step
from insitu.wire.messages import Commit, Event, Message, Ship

#: Who folds: a part of the staging side, which this side must not import before it is told to.
ENGINE = "insitu.staging.rankside"
#: Steps that are folded at once, so that the time between two looks at the run has a bound.
STEPS_AT_ONCE = 8


class Engine(Protocol):
    """The operators of this rank, and their states (`insitu.staging.rankside.RankFolds`)."""

    inputs: frozenset[str]
    failures: list[Event]

    @property
    def nbytes(self) -> int: ...
    def fold(self, steps: Sequence[Any]) -> list[Ship | Event]: ...
    def finish(self, steps: int) -> list[Ship | Event]: ...


@dataclass(frozen=True, slots=True)
class _Held:
    """A step that waits to be decided, with its blocks that are to be folded."""

    step: Step
    blocks: Mapping[str, Block]


class Folding:
    """What rank `rank` folds of its own steps. `say` tells the controller.

    `entries` are the operators that the contact file describes. Importing and compiling them takes a second or two, at
    the handshake and never in a step.
    """

    def __init__(
        self,
        rank: int,
        member: int,
        entries: Mapping[str, Mapping[str, Any]],
        memory_bytes: int,
        say: Callable[[Message], None],
    ) -> None:
        self.counters = {"rank_folded_steps": 0, "rank_fold_s": 0.0, "states_sent_bytes": 0}
        engine = importlib.import_module(ENGINE)
        self._engine: Engine = engine.RankFolds(rank, member, entries, memory_bytes)
        self._committed: Callable[[Step, Mapping[str, Block] | None], Any] = engine.Committed
        self._rank = rank
        self._memory_bytes = memory_bytes
        self._say = say
        self._held: dict[int, _Held] = {}
        self._ready: deque[Any] = deque()
        self._decided = -1
        for failure in self._engine.failures:
            say(failure)

    def hold(self, step: Step, puts: Sequence[Filled]) -> bool:
        """Keep a closed step until it is decided; whether its blocks must stay where they are."""
        if step.sequence <= self._decided:
            return False
        blocks = {put.spec.variable.name: _block(put) for put in puts if self._takes(put)}
        self._held[step.sequence] = _Held(step, blocks)
        return bool(blocks)

    def forget(self, sequence: int) -> None:
        """A step was withdrawn before it left: nobody will fold it."""
        self._held.pop(sequence, None)

    def decide(self, commit: Commit) -> list[int]:
        """Note what the controller decided; return the steps whose blocks are needed no more, as they are dropped."""
        freed, without = [], dict(commit.without)
        for sequence in range(self._decided + 1, commit.upto + 1):
            held = self._held.pop(sequence, None)
            if held is None or sequence in commit.dropped:
                self._ready.append(self._committed(held.step if held else Step(sequence, -1, 0.0), None))
                freed += [sequence] if held and held.blocks else []
            else:
                left_out = without.get(sequence, ())
                blocks = {name: block for name, block in held.blocks.items() if name not in left_out}
                self._ready.append(self._committed(held.step, blocks))
                freed += [sequence] if held.blocks and not blocks else []
        self._decided = max(self._decided, commit.upto)
        return freed

    def fold(self, home: NodeLink) -> list[int]:
        """Fold committed steps, as far as their states have room; return those whose blocks are needed no more.

        States go to the staging node `home`.
        """
        done: list[int] = []
        while self._ready and self._engine.nbytes + home.shipping_bytes <= self._memory_bytes:
            some = [self._ready.popleft() for _ in range(min(STEPS_AT_ONCE, len(self._ready)))]
            begin = time.perf_counter()
            self._pass_on(self._engine.fold(some), home)
            self.counters["rank_fold_s"] += time.perf_counter() - begin
            self.counters["rank_folded_steps"] += sum(bool(each.blocks) for each in some)
            done += [each.step.sequence for each in some if each.blocks]
        return done

    def is_done(self, steps: int) -> bool:
        """Whether all of `steps` steps are decided and folded."""
        return self._decided >= steps - 1 and not self._ready

    def finish(self, steps: int, home: NodeLink) -> None:
        """Send the states of windows that are open when the rank ends after `steps` steps.

        Where not all of these are folded, such a state has not the steps of the other ranks': it is lost, and said so.
        """
        if self.is_done(steps):
            self._pass_on(self._engine.finish(steps), home)
            return
        text = (
            f"Rank {self._rank} ends with steps that nobody has decided on; what it had folded of windows that are "
            "open is lost."
        )
        self._say(Event("error", "states-lost", text, {"rank": self._rank, "decided": self._decided}))

    def _takes(self, put: Filled) -> bool:
        """A single number is rank 0's."""
        variable = put.spec.variable
        return variable.name in self._engine.inputs and (variable.ndim > 0 or self._rank == 0)

    def _pass_on(self, said: Sequence[Ship | Event], home: NodeLink) -> None:
        for message in said:
            if isinstance(message, Event):
                self._say(message)
            elif not home.accepts(message.nbytes):
                self._say(_too_large(self._rank, message, home))
            else:
                home.ship(message)
                self.counters["states_sent_bytes"] += message.nbytes


def _block(put: Filled) -> Block:
    data = put.data.view()
    data.flags.writeable = False
    return Block(put.spec.variable, put.spec.start, data)


def _too_large(rank: int, ship: Ship, home: NodeLink) -> Event:
    operator = ship.partial.operator
    reason = (
        f"its states on rank {rank} take {ship.nbytes} bytes, and staging node {home.node} takes "
        f"{home.credit_bytes} of this rank; raise staging.memory, or take where: staging"
    )
    details = {"operator": operator, "reason": reason, "traceback": ""}
    return Event("error", "operator-stopped", f"Operator '{operator}' is stopped: {reason}", details)
