# SPDX-License-Identifier: Apache-2.0
"""What a rank does with a step for which its buffer has no room. No sockets, no clock.

===============  ============================================  ================================================
policy           the new step                                  steps that wait to be sent
===============  ============================================  ================================================
``block``        waits                                         stay
``drop_newest``  is dropped                                    stay
``drop_oldest``  takes their place                             the oldest are dropped until there is room
``latest``       takes their place                             are dropped as soon as a newer one is there
``every``        waits if its sequence is a multiple of        stay
                 `every`, else is dropped
``spill``        goes to the disk, and waits where that is     stay; those on the disk follow in their order
                 full
===============  ============================================  ================================================

A rank decides by itself and at once, and tells the controller, which tells the other ranks: they drop the same step
where it has not left them, and do not begin it where they have not come to it. Nobody waits for any of that.
"""

from dataclasses import dataclass

#: The names of all policies.
POLICIES = ("block", "latest", "drop_oldest", "drop_newest", "every", "spill")
#: Steps that are under way to a staging node, or being folded there, while others wait to be replaced: one to fold, and
#: one to fold next.
UNDER_WAY = 2


@dataclass(frozen=True, slots=True)
class Policy:
    """One of `POLICIES`; `every` counts only for ``every``.

    >>> Policy("every", 10).waits(20), Policy("every", 10).waits(21), Policy("block").waits(21)
    (True, False, True)
    """

    name: str
    every: int = 1

    def waits(self, sequence: int) -> bool:
        """Whether a step waits for room."""
        return self.name == "block" or (self.name == "every" and sequence % self.every == 0)

    @property
    def spills(self) -> bool:
        """Whether a step for which there is no room goes to the disk at once."""
        return self.name == "spill"

    def ends(self, sequence: int) -> bool:
        """Whether it is for `then` to say what becomes of a step that has waited long enough."""
        return self.spills or self.waits(sequence)

    @property
    def replaces(self) -> bool:
        """Whether a new step takes the place of older ones."""
        return self.name in ("latest", "drop_oldest")

    @property
    def keeps_one(self) -> bool:
        """Whether only the newest step waits, also where there is room for more."""
        return self.name == "latest"

    @property
    def under_way(self) -> int | None:
        """How many steps may be at a staging node: what has left the rank can be replaced no more."""
        return UNDER_WAY if self.replaces else None
