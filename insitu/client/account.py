# SPDX-License-Identifier: Apache-2.0
"""What became of a rank's steps, as far as the rank itself knows: for when there is no controller to report to."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator

#: Reasons that are told apart; they may hold what an exception of the simulation says, which is another one each time.
_REASONS = 100
_OTHERS = "other reasons"


class Runs:
    """Sequences that ascend, which are taken off at their beginning. Takes memory for each gap, not for each of them.

    >>> runs = Runs()
    >>> for sequence in (0, 1, 2, 7): runs.append(sequence)
    >>> runs.take(1); list(runs), len(runs)
    ([2, 7], 2)
    """

    def __init__(self) -> None:
        self._runs: deque[list[int]] = deque()
        self._number = 0

    def append(self, sequence: int) -> None:
        """Add one that is above all others."""
        self._number += 1
        if self._runs and self._runs[-1][1] == sequence:
            self._runs[-1][1] = sequence + 1
        else:
            self._runs.append([sequence, sequence + 1])

    def take(self, upto: int) -> None:
        """Take off all up to this one."""
        while self._runs and self._runs[0][0] <= upto:
            run = self._runs[0]
            begin = min(run[1], upto + 1)
            self._number -= begin - run[0]
            run[0] = begin
            if begin == run[1]:
                self._runs.popleft()

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[int]:
        return (sequence for begin, end in self._runs for sequence in range(begin, end))


class Account:
    """Why steps of this rank were dropped."""

    def __init__(self) -> None:
        self.dropped = 0
        self._because: Counter[str] = Counter()
        self._sent: set[int] = set()

    def drop(self, reason: str, sent: int | None = None) -> None:
        """Count a step; one of which a part may have left needs its sequence, `sent`."""
        self.dropped += 1
        self._because[reason if reason in self._because or len(self._because) < _REASONS else _OTHERS] += 1
        if sent is not None:
            self._sent.add(sent)

    def told(self, steps: int, unfolded: Iterable[int]) -> str:
        """Say what became of so many steps; of those sent, some are `unfolded` at a node or more.

        >>> account = Account()
        >>> account.drop("no room in its buffer"); account.drop("no room in its buffer")
        >>> account.told(10, [8, 9])
        '10 steps: 6 folded, 2 dropped (no room in its buffer: 2), 2 sent, of which nothing was heard'
        """
        unheard = len(set(unfolded) - self._sent)
        because = ", ".join(f"{reason}: {number}" for reason, number in self._because.items())
        dropped = f"{self.dropped} dropped ({because})" if because else "0 dropped"
        folded = steps - self.dropped - unheard
        return f"{steps} steps: {folded} folded, {dropped}, {unheard} sent, of which nothing was heard"
