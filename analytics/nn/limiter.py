# SPDX-License-Identifier: Apache-2.0
"""How fast a network learns, against how fast samples come."""

import math

from insitu.errors import OperatorError
from insitu.operator import State


class Limiter:
    """Holds the number of new samples per batch, so that what is learned does not depend on who happened to be faster.

    The credit is c = received - `ratio` · batches, both counted from when the first batch was trained. Samples are
    taken while c stays at or below `slack`, and a batch is trained while c stays at or above -`slack`. Where the one
    side cannot move for another reason (a buffer below its threshold, or full of samples that no batch has held) the
    other must not be held up, and the caller does not ask.

    Either side may move as long as 2 · `slack` >= `ratio` + 1, which is checked.

    >>> limiter = Limiter(ratio=4.0, slack=8.0)
    >>> limiter.train()  # the first batch, with which it begins
    >>> limiter.ready, limiter.room
    (True, 8)
    >>> limiter.take(8)
    >>> limiter.credit, limiter.room
    (8.0, 0)
    """

    def __init__(self, ratio: float, slack: float) -> None:
        if 2 * slack < ratio + 1:
            raise OperatorError(
                f"slack: {slack:g} lets neither side move at ratio: {ratio:g} new samples per batch; "
                f"take {(ratio + 1) / 2:g} or more"
            )
        self.ratio, self.slack = ratio, slack
        self.received = self.batches = 0

    @property
    def credit(self) -> float:
        """Samples that were received beyond what the batches stand for."""
        return self.received - self.ratio * max(self.batches - 1, 0)

    @property
    def room(self) -> int:
        """How many samples may be taken now."""
        return max(0, math.floor(self.slack - self.credit))

    @property
    def ready(self) -> bool:
        """Whether a batch may be trained now."""
        return self.credit - self.ratio >= -self.slack

    def take(self, number: int) -> None:
        """Count samples; those before the first batch fill the buffer and are not counted."""
        if self.batches:
            self.received += number

    def train(self) -> None:
        """Count a batch."""
        self.batches += 1

    def state(self) -> State:
        return {"received": self.received, "batches": self.batches}

    def load(self, state: State) -> None:
        self.received, self.batches = int(state["received"]), int(state["batches"])
