# SPDX-License-Identifier: Apache-2.0
"""The folding thread: what waits is one batch, what is large stays here, a full node folds nothing until it is not."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from insitu.model import Block, Step, Variable
from insitu.operator import Batch, State
from insitu.staging import folder as module
from insitu.staging.assembler import ReadyStep
from insitu.staging.folder import Folded, Folder
from insitu.wire.messages import Event, Finished, Held, Message, Partial
from tests.end_to_end.folds import Faulty, Total
from tests.waiting import wait_until

U = Variable("u", np.dtype("f8"), (4,), ("x",))


class Shelf:
    """Keeps what it is given until the test takes it away."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[Any, int]] = {}
        self.looks = 0

    def hold(self, key: str, value: object, nbytes: int) -> None:
        self.values[key] = value, nbytes

    def held_bytes(self) -> int:
        self.looks += 1
        return sum(nbytes for _, nbytes in list(self.values.values()))


gate, began = threading.Event(), threading.Event()


class Gated(Total):
    """Says that it began, and folds nothing before the gate is open."""

    def update(self, state: State, batch: Batch) -> State:
        began.set()
        assert gate.wait(60.0)
        return super().update(state, batch)


Make = Callable[..., Folder]
done: list[Folded] = []


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def make(shelf: Shelf) -> Iterator[Make]:
    made: list[Folder] = []
    done.clear()
    gate.clear()
    began.clear()

    def folder(memory_bytes: int = 1 << 20, **operators: Total) -> Folder:
        made.append(Folder(0, operators, memory_bytes, shelf, "insitu-melt-0", done.append))
        return made[-1]

    yield folder
    for each in made:
        each.close()


def steps(first: int, end: int, cells: int = 4) -> list[ReadyStep]:
    variable = Variable("u", np.dtype("f8"), (cells,), ("x",))
    return [
        ReadyStep(Step(n, n, float(n)), {0: {"u": Block(variable, (0,), np.full(cells, float(n)))}}, {0: 8 * cells})
        for n in range(first, end)
    ]


def messages(kind: type[Message] = Partial) -> list[Any]:  # type: ignore[assignment]
    return [message for folded in list(done) for message in folded.messages if isinstance(message, kind)]


def folded_steps() -> int:
    return sum(len(folded.steps) for folded in list(done))


def test_what_waits_meanwhile_is_one_batch_up_to_a_limit(make: Make) -> None:
    folder = make(gated=Gated(of="u", over="space"))
    folder.submit(steps(0, 1))
    assert began.wait(60.0)
    for n in range(1, 200):
        folder.submit(steps(n, n + 1))
    gate.set()
    wait_until(lambda: folded_steps() == 200)
    assert [len(folded.steps) for folded in done] == [1, 64, 64, 64, 7]
    assert (folder.counters.steps, folder.counters.batches) == (200, 5)


def test_many_steps_at_once_are_several_batches(make: Make) -> None:
    folder = make(sum=Total(of="u", over="step", window=50))
    folder.submit(steps(0, 130))
    wait_until(lambda: folded_steps() == 130)
    assert [len(folded.steps) for folded in done] == [64, 64, 2]
    assert [partial.window for partial in messages()] == [0, 1]


def test_single_steps_are_said_in_messages_of_a_bounded_size(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES_PER_MESSAGE", 20)
    folder = make(each=Total(of="u", over="space"))
    folder.submit(steps(0, 50))
    wait_until(lambda: folded_steps() == 50)
    said = messages()
    assert [len(partial.entries) for partial in said] == [20, 20, 10]
    assert [partial.upto for partial in said] == [19, 39, 49]
    assert [entry.key for partial in said for entry in partial.entries] == list(range(50))


def test_large_states_stay_and_only_their_place_is_said(
    make: Make, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_BYTES", 8 * 99)
    folder = make(sum=Total(of="u", over="step", window=2))
    folder.submit(steps(0, 2, cells=100))
    wait_until(lambda: folded_steps() == 2)
    [held] = messages(Held)  # type: ignore[type-abstract]
    assert (held.key, held.window, held.steps, held.places) == ("insitu-melt-0-sum-0", 0, 2, (((0,), (100,)),))
    [((start, count, state),), nbytes] = shelf.values[held.key]
    assert (start, count) == ((0,), (100,))
    np.testing.assert_array_equal(state["total"], np.ones(100))
    assert nbytes == held.nbytes > 800
    assert messages() == []


def test_while_held_states_leave_no_room_nothing_is_folded(
    make: Make, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_BYTES", 0)
    folder = make(memory_bytes=2000, sum=Total(of="u", over="step", window=1))
    for n in range(4):
        folder.submit(steps(n, n + 1, cells=100))
        wait_until(lambda n=n: folded_steps() == n + 1 or len(shelf.values) == 3)
    wait_until(lambda: len(shelf.values) == 3)
    looks = shelf.looks
    wait_until(lambda: shelf.looks > looks + 3, what="it to look for room again and again")
    assert folded_steps() == 3
    del shelf.values["insitu-melt-0-sum-0"]
    wait_until(lambda: folded_steps() == 4)


def test_it_can_be_ended_while_it_waits_for_room(make: Make, shelf: Shelf) -> None:
    folder = make(memory_bytes=1000, sum=Total(of="u", over="step", window=1))
    shelf.values["somebody's"] = None, 2000
    folder.submit(steps(0, 1))
    wait_until(lambda: shelf.looks > 2)
    folder.close()
    assert not folder.alive
    folder.close()


def test_an_operator_that_raises_is_stopped_and_the_thread_goes_on(make: Make) -> None:
    folder = make(good=Total(of="u", over="step", window=1), bad=Faulty(of="u", over="step", method="update", at=2))
    folder.submit(steps(0, 2))
    folder.submit(steps(2, 4))
    wait_until(lambda: folded_steps() == 4)
    [event] = messages(Event)  # type: ignore[type-abstract]
    assert (event.kind, event.details["operator"]) == ("operator-stopped", "bad")
    assert "in window 0: ZeroDivisionError: nothing to divide by in update" in event.text
    assert "Traceback" in event.details["traceback"]
    assert len(messages()) == 4
    assert folder.alive


def test_the_end_comes_behind_all_that_waits(make: Make) -> None:
    folder = make(sum=Total(of="u", over="step", window=4))
    for n in range(6):
        folder.submit(steps(n, n + 1))
    folder.finish(6)
    wait_until(lambda: messages(Finished))  # type: ignore[type-abstract]
    assert [partial.window for partial in messages()] == [0, 1]
    assert type(done[-1].messages[-1]) is Finished
    assert done[-1].steps == []
