# SPDX-License-Identifier: Apache-2.0
"""What leaves this rank: the contract that the run's analysis made with it.

The controller knows what every operator folds and says it once, when the rank joins: one `Need` for each variable. What
nobody needs is declared, so that a misspelt name can be told from one that nobody puts, and goes no further.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from insitu.model import Array, Extent, Variable
from insitu.selection import cut, faults_of_selection, selected
from insitu.wire.messages import BlockSpec, Message, Need, Offer


class Sent(NamedTuple):
    """What is sent of a block: where it lies, a number that is the same for equal places, and its cells (or all)."""

    spec: BlockSpec
    spec_id: int
    cells: tuple[slice, ...] | None

    @property
    def whole(self) -> bool:
        """Whether the block is sent as it is put."""
        return self.cells is None

    def of(self, data: Array) -> Array:
        """Return a view of what is sent."""
        return data if self.cells is None else data[self.cells]


class Contract:
    """The needs of a run, as one rank meets them. `say` tells the controller."""

    def __init__(self, needs: Iterable[Need], say: Callable[[Message], None]) -> None:
        self._needs = {need.name: need for need in needs}
        self._say = say
        self._spec_ids: dict[BlockSpec, int] = {}

    def offer(self, variable: Variable) -> None:
        """Declare a variable at its first put."""
        self._say(Offer(variable))

    def sent(self, variable: Variable, start: Extent, count: Extent) -> Sent | None:
        """Return what is sent of a block; ``None`` where nobody needs any of its variable, or the need does not fit.

        The controller finds what does not fit by the variable's offer, and says so with the line of the configuration.
        """
        need = self._needs.get(variable.name)
        if need is None or faults_of_selection(variable, need.select):
            return None
        part = cut(variable, need.select, start, count)
        spec = BlockSpec(selected(variable, need.select), part.start, part.count)
        spec_id = self._spec_ids.setdefault(spec, len(self._spec_ids))
        return Sent(spec, spec_id, part.cells if need.select else None)
