# SPDX-License-Identifier: Apache-2.0
"""Waits for the staging nodes' parts of each window and says when all are there. No sockets, no clock.

Every node that is fed hands over one part of each window of each operator, be it empty; of an operator that keeps steps
it says up to which sequence it has said all. Nodes come and go: one is waited for where the window has any of the steps
in its *life*. That of a node that is gone ends with the last step that was decided then, and it is not waited for: the
window is then incomplete, and steps whose states it alone had are lost. One that leaves is waited for until it has
handed over all.
"""

from collections import Counter
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
    robbed: bool = False
    said: list[Partial | Held] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
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
        #: The first sequence of each node, and of those that are lost the one behind the last that was decided then.
        self._begin = dict.fromkeys(everywhere, 0)
        self._end: dict[int, int] = {}
        self._lost: set[int] = set()
        self._leaving: set[int] = set()
        self._left: set[int] = set()
        #: Steps whose states were lost with a node, by operator.
        self.lost_steps: Counter[str] = Counter()
        self._windows: dict[tuple[str, int], _Waiting] = {}
        #: Up to which sequence each operator's windows went that are done.
        self._reached = dict.fromkeys(operators, -1)
        self._steps: dict[str, dict[int, list[tuple[int, Entry]]]] = {name: {} for name in operators}
        self._upto: dict[str, dict[int, int]] = {name: dict.fromkeys(self._nodes[name], -1) for name in operators}

    def partial(self, node: int, partial: Partial) -> list[Window | Rows]:
        """Take in small states; return what is complete by it."""
        if partial.operator not in self._operators:
            return []
        if not self._operators[partial.operator].keeps_steps:
            if self._is_strange(node, partial.upto):
                return []
            waiting = self._waiting(partial, node)
            waiting.entries += [(node, entry) for entry in partial.entries]
            return self._complete_windows()
        for entry in partial.entries:
            self._steps[partial.operator].setdefault(entry.key, []).append((node, entry))
        if node in self._begin:
            self._upto[partial.operator][node] = partial.upto
        return self._complete_rows(partial.operator)

    def held(self, node: int, held: Held) -> list[Window | Rows]:
        """Take note of large states; return what is complete by it."""
        if held.operator not in self._operators or self._is_strange(node, held.upto):
            return []
        self._waiting(held, node).held.append((node, held))
        return self._complete_windows()

    def fail(self, operator: str) -> list[Held]:
        """Forget an operator that was stopped; return what of it is still held at nodes."""
        if self._operators.pop(operator, None) is None:
            return []
        gone = [key for key in self._windows if key[0] == operator]
        return [held for key in gone for _, held in self._windows.pop(key).held]

    def conclude(self) -> list[Window | Rows]:
        """All nodes have said all: return windows in which no step followed after a node had left."""
        return self._complete_windows(concluded=True)

    def abandon(self) -> list[tuple[str, int, list[Held]]]:
        """All nodes have said all: return windows that not all of them came to, with what of them is held.

        So it is where a rank has ended before it had sent its state; the other ranks' alone are no result.
        """
        left = [(*key, [held for _, held in waiting.held]) for key, waiting in sorted(self._windows.items())]
        self._windows.clear()
        return left

    def join(self, node: int, begin: int) -> None:
        """A node is fed from this sequence on, if it was not before; none of a step was decided that it has."""
        if begin >= self._begin.get(node, begin + 1):
            return
        self._begin[node] = begin
        for name, nodes in self._nodes.items():
            self._nodes[name] = nodes | {node}
            self._upto[name][node] = min(begin - 1, self._upto[name].get(node, begin - 1))

    def leave(self, node: int) -> None:
        """A node takes no step any more, and hands over what it has, be the windows full or not."""
        self._leaving.add(node)

    def left(self, node: int) -> list[Window | Rows]:
        """A node that leaves has handed over all: wait for it no longer."""
        self._left.add(node)
        done: list[Window | Rows] = list(self._complete_windows())
        for operator in self._operators:
            done += self._complete_rows(operator)
        return done

    def lose(self, node: int, decided: int) -> list[Window | Rows]:
        """A node is gone, after sequence `decided`: wait for it no longer, and give up what only it holds."""
        self._lost.add(node)
        self._end[node] = min(decided + 1, self._end.get(node, decided + 1))
        for waiting in self._windows.values():
            kept = [(at, held) for at, held in waiting.held if at != node]
            waiting.robbed = waiting.robbed or len(kept) < len(waiting.held)
            waiting.held = kept
        done: list[Window | Rows] = list(self._complete_windows())
        for operator in self._operators:
            done += self._complete_rows(operator)
        return done

    def _is_strange(self, node: int, upto: int) -> bool:
        """Whether a node speaks of a window that was over before it was fed: it has nothing of it."""
        return upto < self._begin.get(node, upto + 1)

    def _waiting(self, said: Partial | Held, node: int) -> _Waiting:
        waiting = self._windows.setdefault((said.operator, said.window), _Waiting())
        waiting.nodes.add(node)
        waiting.order.append(node)
        waiting.said.append(said)
        return waiting

    def _goes_on(self, waiting: _Waiting) -> bool:
        """Whether all that is known of a window is from nodes that have left in the middle of it."""
        return all(
            node in self._leaving and not one.full for node, one in zip(waiting.order, waiting.said, strict=True)
        )

    def _complete_windows(self, concluded: bool = False) -> list[Window | Rows]:
        """Take the windows that wait for no node any more, oldest first."""
        done: list[Window | Rows] = []
        for key in sorted(self._windows):
            waiting = self._windows[key]
            since, upto = _span(waiting.said)
            missing = self._parties(key[0], since, upto) - waiting.nodes
            goes_on = self._goes_on(waiting)
            if missing - self._lost or (goes_on and not concluded):
                continue
            full = not goes_on and all(
                one.full or node in self._leaving for node, one in zip(waiting.order, waiting.said, strict=True)
            )
            held = tuple(sorted(waiting.held, key=_node))
            whole = not (waiting.robbed or missing)
            since, upto = self._with_gap(key[0], since, upto)
            done.append(Window(*key, since, upto, full, _in_order(waiting.entries), held, complete=whole))
            del self._windows[key]
        return done

    def _with_gap(self, operator: str, since: int, upto: int) -> tuple[int, int]:
        """Return the span of a window with the steps before it that no window had.

        Where nobody who folds is left for a while, no node saw those steps. In which window of time they would have
        been is not known; here they are missing for certain.
        """
        reached = self._reached[operator]
        self._reached[operator] = max(reached, upto)
        gap = self._operators[operator].panes.by_time and 0 <= reached + 1 < since
        return (reached + 1 if gap else since), upto

    def _parties(self, operator: str, since: int, upto: int) -> frozenset[int]:
        """Return the nodes that were fed with any of these steps."""
        return frozenset(
            node
            for node in self._nodes[operator] - self._left
            if self._begin[node] <= upto and since < self._end.get(node, upto + 1)
        )

    def _complete_rows(self, operator: str) -> list[Window | Rows]:
        said, steps = self._upto[operator], self._steps[operator]
        upto = min((said[node] for node in self._nodes[operator] - self._lost - self._left), default=-1)
        ready: list[Entry] = []
        for key in [key for key in sorted(steps) if key <= upto]:
            entries = _in_order(steps.pop(key))
            if all(said[node] >= key for node in self._parties(operator, key, key)):
                ready.append(_merged(self._operators[operator], entries))
            else:
                self.lost_steps[operator] += 1
        return [Rows(operator, tuple(ready))] if ready else []


def _span(said: Sequence[Partial | Held]) -> tuple[int, int]:
    """Return the first sequence and the last one that nodes say of a window."""
    return min((one.since for one in said if one.since >= 0), default=-1), max(one.upto for one in said)


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
