# SPDX-License-Identifier: Apache-2.0
"""Which processes of a learner work together: those that are there, until one comes or goes. No sockets, no clock.

Who works together is a *team*, and each change makes a new one, of the next generation. The first one waits for all; a
process that has waited too long asks once more, and then they begin without those that have not come.

A team ends when one of its processes is gone, or as soon as each of them has said that it does not work any more, or
was missed by another. So a process that stands still is left out, and comes in again when it goes on.
"""

from insitu.wire.learning import Meet


class Team:
    """The processes of one learner, of which there are `processes`, and who meet by the name `meeting`."""

    def __init__(self, processes: int, meeting: str) -> None:
        self.generation = 0
        self.members: tuple[int, ...] = ()
        self._processes = processes
        self._meeting = meeting
        self._here: set[int] = set()
        self._gone: set[int] = set()
        self._torn: set[int] = set()
        self._over = False

    @property
    def alive(self) -> bool:
        """Whether there is any process left that may do the work."""
        return len(self._gone) < self._processes

    def join(self, process: int, generation: int, missing: tuple[int, ...]) -> tuple[int, ...]:
        """A process would work, or cannot in the team of `generation`. Return those that are to `meet` now."""
        if self._over:
            return (process,)
        again = process in self._here
        self._here.add(process)
        if not self.members:
            return self._begin() if again or self._complete else ()
        if process not in self.members:
            return self._begin()
        if generation < self.generation:
            return ()  # it does not know yet that there is another one
        self._torn.add(process)
        self._here -= set(missing) - self._torn
        return self._begin() if self._here.intersection(self.members) <= self._torn else ()

    def lose(self, process: int, *, for_good: bool = False) -> tuple[int, ...]:
        """A process is gone: it comes again, or not. Return those that are to `meet` now."""
        self._here.discard(process)
        if for_good:
            self._gone.add(process)
        if self.members:
            return self._begin() if process in self.members else ()
        return self._begin() if for_good and self._complete else ()

    def finish(self, process: int) -> tuple[int, ...]:
        """A process has ended its work. Return those that are to `meet` now."""
        if process in self.members:
            self._over = True  # they end together
            return ()
        return self.lose(process, for_good=True)

    def meet(self) -> Meet:
        """Return what those are told that are to meet."""
        return Meet(self.generation, () if self._over else self.members, self._meeting)

    @property
    def _complete(self) -> bool:
        return len(self._here | self._gone) == self._processes

    def _begin(self) -> tuple[int, ...]:
        self.members = tuple(sorted(self._here))
        self._torn.clear()
        self.generation += bool(self.members)
        return self.members
