# SPDX-License-Identifier: Apache-2.0
"""The spans of one staging node: of each traced step that it was received, and that each operator folded it.

The receiving thread says which steps are traced before it passes them on, and the folding thread asks then; each has
its own part of what is kept here. Nothing grows with the run: a rank that announces steps which never come costs
`KEPT` entries.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from insitu.staging.assembler import ReadyStep
from insitu.staging.folds import Yield
from insitu.wire.tracing import SPANS, Span, Spans, Traced, TracedWindow, child_of, now_ns

#: Traced steps that are on their way, and folds of an operator that its window is still open of.
KEPT = 64


@dataclass(slots=True)
class _Announced:
    """A step of which parts have come since `begin_ns`, of so many ranks, the first of them published in `parent`."""

    parent: str
    begin_ns: int
    ranks: int = 0


@dataclass(slots=True)
class TracedFold:
    """The fold of a batch in which some steps are traced: of each its sequence and the context of its reception."""

    of: list[tuple[int, str]]
    steps: int
    folded: dict[str, deque[tuple[int, str]]]
    _spans: list[Span] = field(default_factory=list)

    def operator(self, name: str, begin_ns: int) -> None:
        """An operator has folded the batch."""
        attributes: dict[str, bool | int | float | str] = {"insitu.operator": name, "insitu.batch": self.steps}
        kept = self.folded.setdefault(name, deque(maxlen=KEPT))
        for sequence, parent in self.of:
            span = child_of(parent)
            kept.append((sequence, span))
            said = attributes | {"insitu.sequence": sequence}
            self._spans.append(Span(f"fold {name}", "internal", span, parent, begin_ns, now_ns(), said))

    def spans(self) -> Spans:
        """Return the message that tells of it."""
        return Spans(tuple(self._spans[:SPANS]))


class Tracing:
    """Which steps are traced on this node, and within which spans."""

    def __init__(self) -> None:
        # Of the receiving thread.
        self._announced: dict[int, _Announced] = {}
        # Of both: a step is noted before it is passed on.
        self._received: dict[int, str] = {}
        # Of the folding thread: by operator, what windows that are still open were folded in.
        self._folded: dict[str, deque[tuple[int, str]]] = {}

    def announced(self, traced: Traced) -> None:
        """A rank says that its next step is traced."""
        first = self._announced.setdefault(traced.sequence, _Announced(traced.context, now_ns()))
        first.ranks += 1
        if len(self._announced) > KEPT:
            del self._announced[min(self._announced)]

    def committed(self, ready: Sequence[ReadyStep]) -> list[Spans]:
        """These steps go on to be folded: tell of those that are traced."""
        if not self._announced:
            return []
        spans = []
        for step, nbytes, folds in ((each.step, each.nbytes, bool(each.blocks)) for each in ready):
            announced = self._announced.pop(step.sequence, None)
            if announced is None:
                continue
            context = child_of(announced.parent)
            attributes: dict[str, bool | int | float | str] = {
                "insitu.sequence": step.sequence,
                "insitu.ranks": announced.ranks,
                "insitu.dropped": not folds,
                "messaging.system": "insitu",
                "messaging.operation.type": "receive",
                "messaging.message.body.size": sum(nbytes.values()),
            }
            spans.append(
                Span("receive", "consumer", context, announced.parent, announced.begin_ns, now_ns(), attributes)
            )
            if folds:
                self._received[step.sequence] = context
        for late in [sequence for sequence in self._announced if sequence < ready[-1].step.sequence]:
            del self._announced[late]
        return [Spans(tuple(spans))] if spans else []

    def fold(self, steps: Sequence[ReadyStep]) -> TracedFold | None:
        """These steps are folded now: return what watches it, where any of them is traced."""
        if not self._received:
            return None
        sequences = [ready.step.sequence for ready in steps if ready.step.sequence in self._received]
        if not sequences:
            return None
        return TracedFold([(each, self._received.pop(each)) for each in sequences], len(steps), self._folded)

    def handed_over(self, item: Yield) -> list[TracedWindow]:
        """States are handed over: say within which spans they were folded, where that is known of any step in them."""
        folded = self._folded.get(item.operator)
        if not folded:
            return []
        if item.window >= 0:
            contexts = tuple(span for sequence, span in folded if item.since <= sequence <= item.upto)
            return [TracedWindow(item.operator, item.window, contexts)] if contexts else []
        keys = {entry.key for entry in item.entries}
        windows = [TracedWindow(item.operator, sequence, (span,)) for sequence, span in folded if sequence in keys]
        folded.clear()
        return windows
