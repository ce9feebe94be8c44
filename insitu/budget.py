# SPDX-License-Identifier: Apache-2.0
"""Byte budgets, without sockets or clocks.

A budget is asked *before* bytes are taken, and never gives more than it has. There are two, one behind the other:

* a rank's **buffer** (`insitu.client.pool`) holds the steps that a staging node still needs: until it has received
  them, or, where it reads the buffer itself as shared memory, until it has folded them. When it is full, `put` waits;
* a staging node's **credit** to a rank, a `Budget`, is what may be under way to the node and not yet folded there; when
  it is used up, steps stay in the rank's buffer. The credits of all ranks together are the node's memory for blocks.
"""

from insitu.errors import LocalProtocolError


class Budget:
    """A number of bytes, some of them taken.

    >>> budget = Budget(100)
    >>> budget.take(60); budget.fits(50), budget.could_fit(50), budget.could_fit(101)
    (False, True, False)
    >>> budget.give(60); budget.fits(50)
    True
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.taken_bytes = 0
        self.peak_bytes = 0

    def fits(self, nbytes: int) -> bool:
        """Whether `nbytes` more are free now."""
        return self.taken_bytes + nbytes <= self.limit_bytes

    def could_fit(self, nbytes: int) -> bool:
        """Whether `nbytes` would fit if nothing else were taken: if not, waiting cannot help."""
        return nbytes <= self.limit_bytes

    def take(self, nbytes: int) -> None:
        """Take bytes that fit; to take what does not is a fault of the caller."""
        if not self.fits(nbytes):
            raise LocalProtocolError(
                f"{nbytes} bytes do not fit beside the {self.taken_bytes} taken of {self.limit_bytes}; ask fits()."
            )
        self.taken_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.taken_bytes)

    def give(self, nbytes: int) -> None:
        """Give back what was taken."""
        if nbytes > self.taken_bytes:
            raise LocalProtocolError(f"{nbytes} bytes were given back, but only {self.taken_bytes} were taken.")
        self.taken_bytes -= nbytes
