# SPDX-License-Identifier: Apache-2.0
"""States that ranks have folded themselves, put together on the staging node that gets them. No sockets, no clock.

A window is whole when every rank that ships here has sent its state of it: all of them fold committed steps only, so
their states have the same steps. It then goes on as if this node had folded it. What a rank had not sent when it ended
is lost with it, and the window's other states are of no use any more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from insitu.operator import Operator
from insitu.staging.folds import Yield
from insitu.wire.messages import Entry, Partial, Ship


@dataclass(frozen=True, slots=True)
class Whole:
    """The states of all ranks, of one window or of single steps; `nbytes` tells what each rank shipped of them."""

    operator: str
    partials: tuple[Partial, ...]
    nbytes: dict[int, int]


@dataclass(slots=True)
class _Steps:
    """Single steps' states of one operator: by rank, those that not every rank has sent."""

    waiting: dict[int, list[Ship]]
    upto: dict[int, int]


@dataclass(slots=True)
class Shipped:
    """The states of `ranks` that are not whole yet, of the named `operators`."""

    operators: frozenset[str]
    ranks: tuple[int, ...]
    _windows: dict[tuple[str, int], dict[int, Ship]] = field(default_factory=dict)
    _steps: dict[str, _Steps] = field(default_factory=dict)
    _dismissed: set[str] = field(default_factory=set)

    def take(self, rank: int, ship: Ship) -> list[Whole]:
        """Take in what a rank has shipped; return what is whole by it, or of no use: then it has no states."""
        name = ship.partial.operator
        if name in self._dismissed or name not in self.operators or rank not in self.ranks:
            return [Whole(name, (), {rank: ship.nbytes})]
        if ship.partial.window < 0:
            return self._take_steps(rank, ship)
        waiting = self._windows.setdefault((name, ship.partial.window), {})
        waiting[rank] = ship
        if len(waiting) < len(self.ranks):
            return []
        return [_whole(name, self._windows.pop((name, ship.partial.window)))]

    def dismiss(self, operator: str) -> list[Whole]:
        """Nobody wants an operator's states any more; return what of them is here, without its states."""
        self._dismissed.add(operator)
        gone = [self._windows.pop(key) for key in [*self._windows] if key[0] == operator]
        steps = self._steps.pop(operator, None)
        ships = [(rank, ship) for ships in gone for rank, ship in ships.items()]
        ships += [(rank, ship) for rank, several in (steps.waiting if steps else {}).items() for ship in several]
        return [Whole(operator, (), {rank: ship.nbytes}) for rank, ship in ships]

    def finish(self) -> tuple[list[Whole], list[tuple[str, int, tuple[int, ...]]]]:
        """Nothing more will come: return windows that are whole though not all ranks came to them, and those lost.

        A rank that ended before the others did not come to windows of steps that are all dropped. A lost window is
        given by its operator, its number and the ranks whose states are missing.
        """
        whole, lost = [], []
        for (name, window), ships in sorted(self._windows.items()):
            if any(ship.partial.entries for ship in ships.values()):
                lost.append((name, window, tuple(rank for rank in self.ranks if rank not in ships)))
            else:
                whole.append(_whole(name, ships))
        self._windows.clear()
        return whole, lost

    def _take_steps(self, rank: int, ship: Ship) -> list[Whole]:
        name = ship.partial.operator
        steps = self._steps.setdefault(name, _Steps({each: [] for each in self.ranks}, dict.fromkeys(self.ranks, -1)))
        before = min(steps.upto.values())
        steps.waiting[rank].append(ship)
        steps.upto[rank] = ship.partial.upto
        upto = min(steps.upto.values())
        if upto == before:
            return []
        partials: list[Partial] = []
        nbytes: dict[int, int] = {}
        for each, ships in steps.waiting.items():
            partials += [_upto(one.partial, upto) for one in ships]
            nbytes[each] = sum(one.nbytes for one in ships if one.partial.upto <= upto)
            steps.waiting[each] = [
                Ship(one.nbytes, _beyond(one.partial, upto)) for one in ships if one.partial.upto > upto
            ]
        return [Whole(name, tuple(partials), nbytes)]


def merged(operator: Operator, whole: Whole) -> Yield:
    """Return what this node hands over: one state for each place, or for each step. Uses the states up."""
    entries: dict[object, Entry] = {}
    for entry in (entry for partial in whole.partials for entry in partial.entries):
        key = entry.key, entry.place
        entries[key] = _joined(operator, entries[key], entry) if key in entries else entry
    first = whole.partials[0]
    if first.window < 0:
        ordered = tuple(sorted(entries.values(), key=lambda entry: entry.key))
        return Yield(whole.operator, -1, -1, max(each.upto for each in whole.partials), True, ordered)
    return Yield(
        whole.operator,
        first.window,
        min((each.since for each in whole.partials if each.since >= 0), default=-1),
        max(each.upto for each in whole.partials),
        all(each.full for each in whole.partials),
        tuple(entries.values()),
    )


def _whole(name: str, ships: Mapping[int, Ship]) -> Whole:
    """Put the ranks in order, whoever came first: rounding is then the same in every run."""
    ordered = dict(sorted(ships.items()))
    nbytes = {rank: ship.nbytes for rank, ship in ordered.items()}
    return Whole(name, tuple(ship.partial for ship in ordered.values()), nbytes)


def _joined(operator: Operator, a: Entry, b: Entry) -> Entry:
    """Join the states of one place; a rank may lack steps in which it put nothing."""
    latest = a if (a.last, a.time) >= (b.last, b.time) else b
    state = operator.merge(a.state, b.state)
    return Entry(a.key, max(a.steps, b.steps), min(a.first, b.first), latest.last, latest.time, a.place, state)


def _upto(partial: Partial, upto: int) -> Partial:
    return _with(partial, (entry for entry in partial.entries if entry.key <= upto), min(partial.upto, upto))


def _beyond(partial: Partial, upto: int) -> Partial:
    return _with(partial, (entry for entry in partial.entries if entry.key > upto), partial.upto)


def _with(partial: Partial, entries: Iterable[Entry], upto: int) -> Partial:
    return Partial(partial.operator, partial.member, -1, -1, upto, True, tuple(entries))
