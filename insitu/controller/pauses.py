# SPDX-License-Identifier: Apache-2.0
"""Where the ranks stand still, or will. No sockets, no clock.

No rank passes the boundary of a pause before it is told to go on; so nothing may be proposed for a boundary behind it,
where it would wait for a resume that waits for it.
"""

from insitu.steering.actions import Receipt, pauses_after
from insitu.wire.steering import Standing


class Pauses:
    """The pauses of one simulation.

    >>> from insitu.steering.actions import Action
    >>> pauses = Pauses()
    >>> pauses.cap(7)
    7
    >>> pauses.follow(Receipt(Action("resume", {"steps": 3}), "applied", boundary=2, new={"steps": 3}))
    >>> pauses.at, pauses.cap(7), pauses.cap(4)
    (5, 5, 4)
    """

    def __init__(self) -> None:
        #: The boundary that no rank passes before it is told to go on, if there is one.
        self.at: int | None = None
        self._every = 1
        self._standing: dict[int, Standing] = {}

    def cap(self, boundary: int) -> int:
        """Return the boundary to propose in the place of this one."""
        return boundary if self.at is None else min(boundary, self.at)

    def reached(self, passed: int) -> None:
        """A rank has passed so many boundaries: whoever passes that of a pause has waited too long in it."""
        if self.at is not None and passed > self.at:
            self.at = None

    def stands(self, rank: int, standing: Standing) -> None:
        """A rank stands still."""
        self._standing[rank] = standing

    def all_stand(self, size: int | None) -> Standing | None:
        """Return where all ranks stand still, if they do."""
        there = [each for each in self._standing.values() if each.passed == self.at]
        return there[0] if there and len(there) == size else None

    def resumes(self, steps: object, boundary: int) -> int | None:
        """Return the boundary of the pause that a ``resume`` with so many steps leads to, if it leads to one."""
        return pauses_after(boundary, steps, self._every) if isinstance(steps, int) else None

    def follow(self, receipt: Receipt) -> None:
        """An action was applied on all ranks."""
        kind, boundary = receipt.action.kind, receipt.boundary
        if kind == "pause":
            self.at = boundary
        elif kind == "resume":
            self.at = None if boundary is None else self.resumes(receipt.new.get("steps"), boundary)
        elif kind == "trate":
            every = receipt.new["every"]
            assert isinstance(every, int)
            self._every = every
