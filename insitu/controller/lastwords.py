# SPDX-License-Identifier: Apache-2.0
"""How far a rank came that is gone without a goodbye. No sockets, no clock."""

from collections.abc import Iterable


class LastWords:
    """What staging nodes say of ranks that are gone: each tells the newest step that it has of one.

    >>> words = LastWords()
    >>> words.ask(3, nodes=[0, 1])
    >>> words.hear(3, 0, 41)
    >>> words.take()
    []
    >>> words.hear(3, 1, 40)  # no later step has all parts of rank 3
    >>> words.take(), words.awaited
    ([(3, 40)], False)
    """

    def __init__(self) -> None:
        self._silent: dict[int, set[int]] = {}
        self._newest: dict[int, int] = {}

    @property
    def awaited(self) -> bool:
        """Whether the end of any rank is still to be taken."""
        return bool(self._silent)

    def ask(self, rank: int, nodes: Iterable[int]) -> None:
        """A rank is gone, and these staging nodes can say how far it came."""
        self._silent[rank] = set(nodes)

    def asked(self, rank: int, node: int) -> bool:
        """Whether a node has yet to say how far a rank came."""
        return node in self._silent.get(rank, ())

    def hear(self, rank: int, node: int, newest: int) -> None:
        """A node has steps of a rank up to the sequence `newest`."""
        if self.asked(rank, node):
            self._silent[rank].discard(node)
            self._newest[rank] = min(newest, self._newest.get(rank, newest))

    def lose(self, node: int) -> None:
        """A node can say nothing any more."""
        for silent in self._silent.values():
            silent.discard(node)

    def wait_no_longer(self) -> None:
        """What was said until now has to do."""
        for silent in self._silent.values():
            silent.clear()

    def take(self) -> list[tuple[int, int | None]]:
        """Return the ranks of which all is said, once, with the last sequence that is whole; ``None``: nobody knows."""
        known = [rank for rank, silent in self._silent.items() if not silent]
        for rank in known:
            del self._silent[rank]
        return [(rank, self._newest.get(rank)) for rank in known]
