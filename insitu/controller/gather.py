# SPDX-License-Identifier: Apache-2.0
"""Waits for the staging nodes' parts of each window and says when all are there. No sockets, no clock.

Every node that is fed hands over one part of each window of each operator, be it empty; of an operator that keeps steps
it says up to which sequence it has said all. A node that is gone is not waited for: the window is then incomplete.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from insitu.operator import Operator, State
from insitu.wire.messages import Entry, Held, Partial


@dataclass(frozen=True, slots=True)
class Window:
    """All parts of one window: small ones that came here, large ones that stay at their nodes.

    It goes from sequence `since` to `upto`, -1 if no step went by, and is `full` unless the stream ended before it.
    """

    operator: str
    window: int
    since: int
    upto: int
    full: bool
    entries: tuple[Entry, ...]
    held: tuple[tuple[int, Held], ...]
    complete: bool

    @property
    def parts(self) -> list[Entry | Held]:
        """The parts that any step went into."""
        parts: list[Entry | Held] = [*self.entries, *(held for _, held in self.held)]
        return [part for part in parts if part.steps]


@dataclass(frozen=True, slots=True)
class Rows:
    """Merged states of single steps, in order: of an operator that keeps steps."""

    operator: str
    entries: tuple[Entry, ...]


@dataclass(slots=True)
class _Waiting:
    said: list[Partial | Held] = field(default_factory=list)
    nodes: set[int] = field(default_factory=set)
    entries: list[tuple[int, Entry]] = field(default_factory=list)
    held: list[tuple[int, Held]] = field(default_factory=list)


class Gather:
    """The open windows of one member, fed by staging nodes `nodes`; ranks' own states come to `homes`."""

    def __init__(
        self, operators: Mapping[str, Operator], nodes: Iterable[int], homes: Iterable[int] | None = None
    ) -> None:
        self._operators = dict(operators)
        everywhere = frozenset(nodes)
        shipped = everywhere if homes is None else frozenset(homes)
        self._nodes = {name: shipped if each.where == "rank" else everywhere for name, each in operators.items()}
        self._lost: set[int] = set()
        self._windows: dict[tuple[str, int], _Waiting] = {}
        self._steps: dict[str, dict[int, list[tuple[int, Entry]]]] = {name: {} for name in operators}
        self._upto: dict[str, dict[int, int]] = {name: dict.fromkeys(self._nodes[name], -1) for name in operators}

    def partial(self, node: int, partial: Partial) -> list[Window | Rows]:
        """Take in small states; return what is complete by it."""
        if partial.operator not in self._operators:
            return []
        if not self._operators[partial.operator].keeps_steps:
            waiting = self._waiting(partial, node)
            waiting.entries += [(node, entry) for entry in partial.entries]
            return self._complete_windows()
        for entry in partial.entries:
            self._steps[partial.operator].setdefault(entry.key, []).append((node, entry))
        self._upto[partial.operator][node] = partial.upto
        return self._complete_rows(partial.operator)

    def held(self, node: int, held: Held) -> list[Window | Rows]:
        """Take note of large states; return what is complete by it."""
        if held.operator not in self._operators:
            return []
        self._waiting(held, node).held.append((node, held))
        return self._complete_windows()

    def fail(self, operator: str) -> list[Held]:
        """Forget an operator that was stopped; return what of it is still held at nodes."""
        if self._operators.pop(operator, None) is None:
            return []
        gone = [key for key in self._windows if key[0] == operator]
        return [held for key in gone for _, held in self._windows.pop(key).held]

    def abandon(self) -> list[tuple[str, int, list[Held]]]:
        """All nodes have said all: return windows that not all of them came to, with what of them is held.

        So it is where a rank has ended before it had sent its state; the other ranks' alone are no result.
        """
        left = [(*key, [held for _, held in waiting.held]) for key, waiting in sorted(self._windows.items())]
        self._windows.clear()
        return left

    def lose(self, node: int) -> list[Window | Rows]:
        """A node is gone: wait for it no longer, and give up what only it holds."""
        self._lost.add(node)
        for waiting in self._windows.values():
            waiting.held = [(at, held) for at, held in waiting.held if at != node]
        done: list[Window | Rows] = list(self._complete_windows())
        for operator in self._operators:
            done += self._complete_rows(operator)
        return done

    def _waiting(self, said: Partial | Held, node: int) -> _Waiting:
        waiting = self._windows.setdefault((said.operator, said.window), _Waiting())
        waiting.nodes.add(node)
        waiting.said.append(said)
        return waiting

    def _complete_windows(self) -> list[Window | Rows]:
        """Take the windows that wait for no node any more, oldest first."""
        ready = sorted(
            key for key, waiting in self._windows.items() if waiting.nodes >= self._nodes[key[0]] - self._lost
        )
        done: list[Window | Rows] = []
        for key in ready:
            waiting = self._windows.pop(key)
            held = tuple(sorted(waiting.held, key=_node))
            done.append(
                Window(
                    *key,
                    min((one.since for one in waiting.said if one.since >= 0), default=-1),
                    max(one.upto for one in waiting.said),
                    all(one.full for one in waiting.said),
                    _in_order(waiting.entries),
                    held,
                    complete=not self._lost,
                )
            )
        return done

    def _complete_rows(self, operator: str) -> list[Window | Rows]:
        nodes = self._nodes[operator] - self._lost
        upto = min((self._upto[operator][node] for node in nodes), default=-1)
        steps = self._steps[operator]
        ready = [_merged(self._operators[operator], _in_order(steps.pop(key))) for key in sorted(steps) if key <= upto]
        return [Rows(operator, tuple(ready))] if ready else []


def _node(at: tuple[int, object]) -> int:
    return at[0]


def _in_order(entries: list[tuple[int, Entry]]) -> tuple[Entry, ...]:
    """Return the entries by their nodes' numbers, whichever spoke first: rounding is then the same in every run."""
    return tuple(entry for _, entry in sorted(entries, key=_node))


def _merged(operator: Operator, entries: Sequence[Entry]) -> Entry:
    """Join the nodes' states of one step."""
    state: State = operator.init()
    for entry in entries:
        state = operator.merge(state, entry.state)
    first = entries[0]
    return Entry(first.key, 1, first.first, first.last, first.time, None, state)
