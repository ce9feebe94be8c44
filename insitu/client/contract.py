# SPDX-License-Identifier: Apache-2.0
"""What leaves this rank: the contract that the run's analysis made with it.

The controller knows what every operator folds and says it once, when the rank joins: one `Need` for each variable. What
nobody needs is declared, so that a misspelt name can be told from one that nobody puts, and goes no further. Of the
rest, the cells that are needed are copied in the dtype that is needed: in one pass, straight to where they wait.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from insitu.model import Array, Extent, Variable, parameter_of
from insitu.selection import cut, faults_of_selection, sent, takes_step
from insitu.wire.blocks import ALL_STEPS, BlockSpec
from insitu.wire.messages import Event, Message, Need, Offer, Tally, Traffic


class Sent(NamedTuple):
    """What is sent of a block: where it lies, and a number that is the same for equal places.

    `cells` are those of the block (``None``: all), and `narrows` tells whether their dtype becomes smaller.
    """

    spec: BlockSpec
    spec_id: int
    cells: tuple[slice, ...] | None
    narrows: bool

    @property
    def as_put(self) -> bool:
        """Whether the block is sent as it is put."""
        return self.cells is None and not self.narrows

    def of(self, data: Array) -> Array:
        """Return a view of the cells that are sent."""
        return data if self.cells is None else data[self.cells]


@dataclass(slots=True)
class Volume:
    """The bytes of one variable that were put, and of these what is needed, in the dtype that is sent."""

    produced: int = 0
    selected: int = 0


class Contract:
    """The needs of a run, as one rank meets them. `say` tells the controller."""

    def __init__(self, rank: int, needs: Iterable[Need], say: Callable[[Message], None]) -> None:
        self.rank = rank
        needs = tuple(needs)
        self._needs = {need.name: need for need in needs}
        self._say = say
        #: Whether anybody wants to know the parameters of each step.
        self.wants_parameters = any(parameter_of(need.name) is not None for need in needs)
        self._steps = {need.name: need.steps for need in needs if need.steps != ALL_STEPS}
        self._spec_ids: dict[BlockSpec, int] = {}
        self._overflowed: set[str] = set()
        self._volumes: dict[str, Volume] = {}

    def offer(self, variable: Variable) -> None:
        """Declare a variable at its first put."""
        self._say(Offer(variable))

    def sent(self, variable: Variable, start: Extent, count: Extent) -> Sent | None:
        """Return what is sent of a block; ``None`` where nobody needs any of its variable, or the need does not fit.

        The controller finds what does not fit by the variable's offer, and says so with the line of the configuration.
        """
        need = self._needs.get(variable.name) or self._needs.get("*")
        if need is None or faults_of_selection(variable, need.select):
            return None
        part, leaves = cut(variable, need.select, start, count), sent(variable, need)
        spec = BlockSpec(leaves, part.start, part.count)
        spec_id = self._spec_ids.setdefault(spec, len(self._spec_ids))
        return Sent(spec, spec_id, part.cells if need.select else None, leaves.dtype != variable.dtype)

    def wants(self, name: str, sequence: int) -> bool:
        """Whether a variable is needed of this step."""
        return name not in self._steps or takes_step(self._steps[name], sequence)

    def volume(self, name: str) -> Volume:
        """Return where the puts of a variable are counted."""
        return self._volumes.setdefault(name, Volume())

    def volume_of(self, block: Array, sent: Sent | None) -> Volume:
        """Return what a put of this block adds. A single number is rank 0's, whoever else puts it."""
        if not block.ndim and self.rank != 0:
            return Volume()
        return Volume(block.nbytes, 0 if sent is None else sent.of(block).size * sent.spec.variable.dtype.itemsize)

    def tally(self, sent: Counter[str], lossless: Counter[str]) -> Tally:
        """Say what was done with each variable so far; the links know what has left, and how."""
        return Tally(
            tuple(
                Traffic(name, volume.produced, volume.selected, sent[name], lossless[name])
                for name, volume in self._volumes.items()
            )
        )

    def watched(self, variable: Variable, step_index: int) -> np.errstate:
        """Return a context for a narrowing copy, in which a number that becomes infinite is told of, once a variable.

        The processor notes it while it converts, so that nothing is looked at twice.
        """

        def overflow(*_: object) -> None:
            if variable.name not in self._overflowed:
                self._overflowed.add(variable.name)
                text = (
                    f"Variable '{variable.name}' has values beyond the range of {variable.dtype}, which are infinite "
                    f"there; so it is on rank {self.rank} from step {step_index} on."
                )
                details = {"variable": variable.name, "step": step_index, "dtype": str(variable.dtype)}
                self._say(Event("warning", "overflow", text, details))

        return np.errstate(over="call", call=overflow)
