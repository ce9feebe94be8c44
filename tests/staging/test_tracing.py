# SPDX-License-Identifier: Apache-2.0
"""The spans of one staging node, and that they take no room for steps that never come."""

from insitu.model import Step
from insitu.staging.assembler import ReadyStep
from insitu.staging.folds import Yield
from insitu.staging.tracing import KEPT, Tracing
from insitu.wire.messages import Entry
from insitu.wire.tracing import Traced, child_of, root_of


def context(sequence: int) -> str:
    return root_of("5eed", 0, sequence)


def ready(sequence: int, *, dropped: bool = False) -> ReadyStep:
    return ReadyStep(Step(sequence, sequence, 0.0), {} if dropped else {0: {}}, {0: 80, 1: 20})


def test_a_window_is_said_to_be_of_the_steps_that_were_folded_into_it() -> None:
    tracing = Tracing()
    for sequence in (0, 4, 4):
        tracing.announced(Traced(sequence, child_of(context(sequence))))
    [told] = tracing.committed([ready(n) for n in range(6)])
    assert [(span.name, span.attributes["insitu.ranks"]) for span in told.spans] == [("receive", 1), ("receive", 2)]
    assert told.spans[0].attributes["messaging.message.body.size"] == 100
    fold = tracing.fold([ready(n) for n in range(6)])
    assert fold is not None
    fold.operator("stats", 1)
    spans = fold.spans().spans
    assert [span.parent for span in spans] == [span.context for span in told.spans]
    [window] = tracing.handed_over(Yield("stats", 0, 0, 3, True, ()))
    assert (window.key, window.contexts) == (0, (spans[0].context,))
    assert tracing.handed_over(Yield("other", 0, 0, 3, True, ())) == []
    entry = Entry(4, 1, 4, 4, 0.0, None, {})
    [row] = tracing.handed_over(Yield("stats", -1, -1, 5, True, (entry,)))
    assert (row.key, row.contexts) == (4, (spans[1].context,))
    assert tracing.fold([ready(6)]) is None


def test_what_is_dropped_is_told_and_not_folded() -> None:
    tracing = Tracing()
    tracing.announced(Traced(2, context(2)))
    [told] = tracing.committed([ready(2, dropped=True)])
    assert told.spans[0].attributes["insitu.dropped"] is True
    assert tracing.fold([ready(2, dropped=True)]) is None


def test_steps_that_never_come_take_no_room() -> None:
    tracing = Tracing()
    for sequence in range(10 * KEPT):
        tracing.announced(Traced(sequence, context(sequence)))
    assert len(tracing._announced) == KEPT
    assert tracing.committed([ready(20 * KEPT)]) == []
    assert not tracing._announced
