# SPDX-License-Identifier: Apache-2.0
"""What leaves this rank: the contract that the run's analysis made with it.

The controller knows what every operator folds and says it once, when the rank joins: one `Need` for each variable. What
nobody needs is declared, so that a misspelt name can be told from one that nobody puts, and goes no further.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from insitu.model import Extent, Variable
from insitu.wire.messages import BlockSpec, Message, Need, Offer


class Sent(NamedTuple):
    """What is sent of a block: where it lies, and a number that is the same for equal places."""

    spec: BlockSpec
    spec_id: int


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
        """Return what is sent of a block; ``None`` where nobody needs any of its variable."""
        if variable.name not in self._needs:
            return None
        spec = BlockSpec(variable, start, count)
        return Sent(spec, self._spec_ids.setdefault(spec, len(self._spec_ids)))
