# SPDX-License-Identifier: Apache-2.0
"""Decides which steps are whole. No sockets, no clock.

A step is *whole* when every rank has closed it: then every staging node that is fed has reported it closed. It is
*dropped* when a rank says that it will not publish it, when the ranks disagree on what it is, or when it can never
become whole because a rank or a staging node is gone. The **watermark** is the newest sequence up to which all is
decided, and it only moves forward: steps are decided in order.

Who feeds which node may change between two steps, for each rank at a step of its own (`adopt`). A step is whole when
each rank's part of it is at all the nodes that the rank fed with this step.

Of a whole step, variables are taken out that the ranks' blocks do not make up: parts that overlap or are missing,
dtypes that differ. The ranks' layouts tell, so this costs nothing for a step whose layouts were there before.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from insitu.model import Variable
from insitu.plan import Piece, fault_of_cover
from insitu.wire.blocks import BlockSpec
from insitu.wire.messages import Approve, Closed, ClosedStep, Commit, Event, Layout, RankLayouts

#: What a step consists of: of each staging node that is fed the number of a combination of layouts.
_Combination = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a combination of layouts holds: the variables that are whole, and why the others are not."""

    variables: dict[str, Variable]
    faults: dict[str, str]


@dataclass(slots=True)
class _Seen:
    """A step that is not decided yet; of each staging node that has closed it, `layouts` and `nbytes` of what it got.

    A node that does not know yet that a rank has moved to it says so twice, and the second time holds.
    """

    index: int
    time: float
    layouts: dict[int, int] = field(default_factory=dict)
    nbytes: dict[int, int] = field(default_factory=dict)
    disagree: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Routes:
    """From sequence `begin` on, which ranks feed which node; `number` tells it from others."""

    number: int
    begin: int
    feeders: dict[int, frozenset[int]]

    def with_rank(self, number: int, begin: int, rank: int, nodes: Collection[int]) -> "_Routes":
        """Return these routes, with those of one rank changed."""
        feeders = {node: ranks - {rank} for node, ranks in self.feeders.items()}
        for node in nodes:
            feeders[node] = feeders.get(node, frozenset()) | {rank}
        return _Routes(number, begin, {node: ranks for node, ranks in feeders.items() if ranks})


@dataclass(slots=True)
class Counts:
    """What became of the steps of one member; `dropped` and `left_out` count by reason.

    `index` and `time` are those of the newest whole step.
    """

    whole: int = 0
    index: int | None = None
    time: float | None = None
    nbytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)


class Tracker:
    """The steps of one member; `routes` tells of each rank the staging nodes that it feeds at first."""

    def __init__(self, member: int, routes: Sequence[Collection[int]]) -> None:
        self.counts = Counts()
        self.watermark = -1
        self._events: list[Event] = []
        self._approvals: list[tuple[int, Approve]] = []
        #: What the ranks put, as they declared it; and what arrived whole of that, as it was sent.
        self.offered: dict[str, Variable] = {}
        self.variables: dict[str, Variable] = {}
        self._member = member
        self._ranks = len(routes)
        first = _Routes(0, 0, {})
        for rank, nodes in enumerate(routes):
            first = first.with_rank(0, 0, rank, nodes)
        #: By their begin; the first one holds for the step after the watermark.
        self._routes = [first]
        self._changes = 0
        self._seen: dict[int, _Seen] = {}
        self._dropped: dict[int, str] = {}
        #: Steps that were given up before any node had said that it has them: why, and by which routes they went.
        self._given_up: dict[int, tuple[str, int]] = {}
        self._ended: dict[int, int] = {}
        #: How many steps ranks that are gone said to have published, be they lost with them.
        self._said = 0
        self._gone_nodes: set[int] = set()
        self._layouts: dict[tuple[int, int], tuple[BlockSpec, ...]] = {}
        self._combinations: dict[RankLayouts, int] = {}
        self._feeding: list[frozenset[int]] = []
        self._verdicts: dict[tuple[int, _Combination], Verdict] = {}
        self._left_out: set[str] = set()

    @property
    def ended(self) -> bool:
        """Whether every rank has ended and all that any of them published is decided."""
        return len(self._ended) == self._ranks and self.watermark >= self.steps - 1

    @property
    def steps(self) -> int:
        """How many sequences there are, as far as is known."""
        known = [*self._ended.values(), *(sequence + 1 for sequence in self._seen)]
        return max([self.watermark + 1, self._said, *known])

    def offer(self, variable: Variable) -> None:
        """A rank puts a variable. Where ranks declare it differently, their blocks will not make it up."""
        self.offered.setdefault(variable.name, variable)

    def layout(self, rank: int, layout: Layout) -> None:
        """A rank announces what a step of it may consist of."""
        self._layouts[rank, layout.id] = layout.blocks

    def closed(self, node: int, closed: Closed) -> None:
        """A staging node has all that it gets of some steps. Costs O(ranks) a message, and no more for many steps."""
        numbers = [self._number(each) for each in closed.layouts]
        for step in closed.steps:
            if step.sequence > self.watermark:
                self._closed(node, step, numbers[step.layouts], closed.layouts[step.layouts])
            elif step.sequence in self._given_up:
                self._found(node, step, numbers[step.layouts])

    def _number(self, layouts: RankLayouts) -> int:
        number = self._combinations.setdefault(layouts, len(self._combinations))
        if number == len(self._feeding):
            self._feeding.append(frozenset(rank for rank, _ in layouts))
        return number

    def _closed(self, node: int, step: ClosedStep, number: int, layouts: RankLayouts) -> None:
        seen = self._seen.get(step.sequence)
        if seen is None:
            seen = self._seen[step.sequence] = _Seen(step.index, step.time)
        seen.layouts[node] = number
        seen.nbytes[node] = step.nbytes
        if step.disagree:
            seen.disagree.update(step.disagree)
        if step.index != seen.index or step.time != seen.time:
            seen.disagree.update(rank for rank, _ in layouts)

    def _found(self, node: int, step: ClosedStep, number: int) -> None:
        """A node that commits by itself had folded a step before it heard that this was given up: it is delivered."""
        reason, routes = self._given_up[step.sequence]
        verdict = self._verdicts.get((routes, ((node, number),)))
        if verdict is not None and not step.disagree:
            del self._given_up[step.sequence]
            self.counts.dropped -= Counter([reason])
            self._count(_Seen(step.index, step.time, {node: number}, {node: step.nbytes}), verdict)

    def drop(self, sequence: int, reason: str) -> bool:
        """A step will never be whole. Return whether that is news."""
        news = sequence > self.watermark and sequence not in self._dropped
        if news:
            self._dropped[sequence] = reason
        return news

    def rank_ended(self, rank: int, steps: int) -> None:
        """A rank ended after `steps` steps: later ones of the others can never be whole."""
        self._ended[rank] = steps

    def said(self, steps: int) -> None:
        """A rank that is gone said before that it had published so many steps: what is lost of them is dropped."""
        self._said = max(self._said, steps)

    def adopt(self, rank: int, sequence: int, nodes: Collection[int]) -> None:
        """From this sequence on a rank feeds these nodes. To be said before the layouts that it has from then on."""
        begin = max(sequence, self.watermark + 1)
        last = [routes for routes in self._routes if routes.begin <= begin][-1]
        if last.begin < begin:
            self._routes.insert(self._routes.index(last) + 1, _Routes(last.number, begin, last.feeders))
        for k, routes in enumerate(self._routes):
            if routes.begin >= begin:
                self._changes += 1
                self._routes[k] = routes.with_rank(self._changes, routes.begin, rank, nodes)

    def node_gone(self, node: int) -> None:
        """A staging node is gone: no step can be whole of which it has a part and that is not decided yet."""
        self._gone_nodes.add(node)

    def give_up(self, reason: str) -> None:
        """Drop all that is not whole by now, for ranks will say nothing any more.

        A node that commits by itself may yet say that it has a step: then this one was folded.
        """
        for sequence in range(self.watermark + 1, self.steps):
            seen = self._seen.get(sequence)
            if seen is not None and self._verdict(sequence, seen) is not None:
                continue
            if self.drop(sequence, reason) and seen is None:
                self._given_up[sequence] = reason, self._routes_at(sequence).number

    def take_events(self) -> list[Event]:
        """Return what people should know of what was decided since the last call."""
        events, self._events = self._events, []
        return events

    def take_approvals(self) -> list[tuple[int, Approve]]:
        """Return which staging node, as it is the only one, may decide what by itself, since the last call."""
        approvals, self._approvals = self._approvals, []
        return approvals

    def decide(self) -> Commit | None:
        """Move the watermark as far as it goes; return what the staging nodes have to know about it."""
        without: list[tuple[int, tuple[str, ...]]] = []
        dropped: list[int] = []
        before, steps = self.watermark, self.steps
        while (sequence := self.watermark + 1) < steps or sequence in self._dropped:
            seen = self._seen.get(sequence)
            reason = self._reason_to_drop(sequence, seen)
            if reason is None:
                verdict = self._verdict(sequence, seen) if seen else None
                if seen is None or verdict is None:
                    break
                self._count(seen, verdict)
                if verdict.faults:
                    without.append((sequence, tuple(sorted(verdict.faults))))
            else:
                dropped.append(sequence)
                self._count_dropped(sequence, reason)
            self._seen.pop(sequence, None)
            self._dropped.pop(sequence, None)
            self.watermark = sequence
            while len(self._routes) > 1 and self._routes[1].begin <= sequence + 1:
                del self._routes[0]
        if self.watermark == before:
            return None
        return Commit(self._member, self.watermark, tuple(without), tuple(dropped))

    def _reason_to_drop(self, sequence: int, seen: _Seen | None) -> str | None:
        if sequence in self._dropped:
            return self._dropped[sequence]
        routes = self._routes_at(sequence)
        if seen and seen.disagree and self._is_closed(seen, routes):
            return f"ranks {_listed(seen.disagree)} gave it another index or time than the others"
        short = [rank for rank, steps in self._ended.items() if steps <= sequence] if self._ended else []
        # Where a rank is gone its end may be a guess; a step that is there whole it had published.
        if short and (seen is None or self._verdict(sequence, seen) is None):
            return f"rank {min(short)} had ended before"
        return "a staging node is gone" if not self._gone_nodes.isdisjoint(routes.feeders) else None

    def _routes_at(self, sequence: int) -> _Routes:
        if len(self._routes) == 1:
            return self._routes[0]
        return next(routes for routes in reversed(self._routes) if routes.begin <= sequence)

    def _is_closed(self, seen: _Seen, routes: _Routes) -> bool:
        """Whether each node has got the parts of all ranks that feed it with this step."""
        return all(
            node in seen.layouts and ranks <= self._feeding[seen.layouts[node]]
            for node, ranks in routes.feeders.items()
        )

    def _verdict(self, sequence: int, seen: _Seen) -> Verdict | None:
        """Judge a step, or return ``None`` while something of it is still under way."""
        routes = self._routes_at(sequence)
        combination = routes.number, tuple(sorted(seen.layouts.items()))
        verdict = self._verdicts.get(combination)
        if verdict is None:
            if not self._is_closed(seen, routes):
                return None
            known = list(self._combinations)
            layouts = {layout for _, number in combination[1] for layout in known[number]}
            if len(layouts) < self._ranks or any(layout not in self._layouts for layout in layouts):
                return None
            verdict = judge({rank: self._layouts[rank, number] for rank, number in layouts})
            self._verdicts[combination] = verdict
            if len(routes.feeders) == 1:
                approve = Approve(self._member, tuple(sorted(layouts)), tuple(sorted(verdict.faults)))
                self._approvals.append((next(iter(routes.feeders)), approve))
            self.variables.update(verdict.variables)
        return verdict

    def _announce(self, seen: _Seen, verdict: Verdict) -> None:
        """Tell of the variables that were there a step before, not of each step that they are missing from."""
        for name in verdict.faults.keys() - self._left_out:
            fault = verdict.faults[name]
            text = f"Variable '{name}' is left out from step {seen.index} on: {fault}."
            self._event("warning", "variable-left-out", text, variable=name, step=seen.index, fault=fault)
        self._left_out = set(verdict.faults)

    def _count(self, seen: _Seen, verdict: Verdict) -> None:
        self.counts.whole += 1
        self.counts.index, self.counts.time = seen.index, seen.time
        self.counts.nbytes += sum(seen.nbytes.values())
        for name in verdict.variables:
            self.counts.delivered[name] += 1
        if verdict.faults or self._left_out:
            self.counts.left_out.update(verdict.faults.items())
            self._announce(seen, verdict)

    def _count_dropped(self, sequence: int, reason: str) -> None:
        if reason not in self.counts.dropped:
            self._event("warning", "step-dropped", f"Sequence {sequence} is dropped: {reason}.", sequence=sequence)
        self.counts.dropped[reason] += 1

    def _event(self, level: str, kind: str, text: str, **details: object) -> None:
        self._events.append(Event(level, kind, text, {"member": self._member, **details}))


def judge(blocks: dict[int, tuple[BlockSpec, ...]]) -> Verdict:
    """Say which variables the ranks' blocks make up, each once over, and why the others are not whole.

    >>> import numpy as np
    >>> u = Variable("u", np.dtype("f8"), (4,), ("x",))
    >>> judge({0: (BlockSpec(u, (0,), (2,)),), 1: (BlockSpec(u, (2,), (1,)),)}).faults
    {'u': '1 of its 4 cells is missing beside those of ranks 0, 1'}
    """
    by_name: dict[str, list[tuple[int, BlockSpec]]] = {}
    for rank, specs in sorted(blocks.items()):
        for spec in specs:
            by_name.setdefault(spec.variable.name, []).append((rank, spec))
    variables: dict[str, Variable] = {}
    faults: dict[str, str] = {}
    for name, held in by_name.items():
        fault = _disagreement(held) or _cover(held)
        absent = blocks.keys() - {rank for rank, _ in held}
        if fault is None:
            variables[name] = held[0][1].variable
        else:
            faults[name] = fault + (f" (it was not put by rank {_listed(absent)})" if absent else "")
    return Verdict(variables, faults)


def _disagreement(held: list[tuple[int, BlockSpec]]) -> str | None:
    first, spec = held[0]
    for attribute in ("dtype", "shape", "dims", "units", "row"):
        value = getattr(spec.variable, attribute)
        other = {rank: getattr(block.variable, attribute) for rank, block in held}
        ranks = [rank for rank in other if other[rank] != value]
        if ranks:
            return f"its {attribute} is {value} on rank {first} and {other[ranks[0]]} on rank {_listed(ranks)}"
    return None


def _cover(held: list[tuple[int, BlockSpec]]) -> str | None:
    shape = held[0][1].variable.shape
    return (
        None if shape is None else fault_of_cover(shape, [Piece(rank, spec.start, spec.count) for rank, spec in held])
    )


def _listed(ranks: Iterable[int]) -> str:
    return ", ".join(str(rank) for rank in sorted(ranks))
