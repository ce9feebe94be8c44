# SPDX-License-Identifier: Apache-2.0
"""The thread that folds: it owns all states of a staging node, so no state has a lock.

It takes every committed step that waits and folds them as one batch: the more it lags behind, the larger the batch and
the cheaper each step. What comes of it is said in messages, which the receiving thread sends.
"""

import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from insitu.operator import Operator, state_nbytes
from insitu.staging.assembler import ReadyStep
from insitu.staging.folds import Failure, Folds, Yield
from insitu.staging.shipped import Whole, merged
from insitu.staging.tracing import Tracing
from insitu.wire.messages import Event, Finished, Held, Message, Partial

#: States up to this size in all go straight to the controller: a round trip through Dask takes 10 ms, of ZeroMQ 0.1.
SMALL_BYTES = 64 * 1024
#: Single steps' states per message, so that no message grows with the length of a batch.
ENTRIES_PER_MESSAGE = 256
#: Bytes of states per message, for the same reason.
MESSAGE_BYTES = 2**20
#: Steps per batch, so that a long queue does not hold back the first acknowledgement.
STEPS_PER_BATCH = 64
#: How often room for held states is looked for.
_ROOM_S = 0.01


class Holder(Protocol):
    """Keeps values as data of this Dask worker, until the controller lets go of them."""

    def hold(self, key: str, value: object, nbytes: int) -> None: ...
    def held_bytes(self) -> int: ...


class Host(Holder, Protocol):
    """What a staging node lives in. It hears when the node has ended by itself, since its controller is gone."""

    def abandoned(self) -> None: ...


def operator_stopped(operator: str, reason: str, trace: str) -> Event:
    """Say that an operator will yield nothing more."""
    details = {"operator": operator, "reason": reason, "traceback": trace}
    return Event("error", "operator-stopped", f"Operator '{operator}' is stopped: {reason}", details)


def rows_of(item: Yield, member: int) -> list[Partial]:
    """Split single steps' states over messages; each says up to where it goes."""
    largest = max((state_nbytes(entry.state) for entry in item.entries), default=0)
    number = max(1, min(ENTRIES_PER_MESSAGE, MESSAGE_BYTES // max(1, largest)))
    cuts = range(0, max(1, len(item.entries)), number)
    groups = [item.entries[cut : cut + number] for cut in cuts]
    upto = [*(group[-1].key for group in groups[:-1]), item.upto]
    return [Partial(item.operator, member, -1, -1, end, True, group) for end, group in zip(upto, groups, strict=True)]


@dataclass(frozen=True, slots=True)
class Folded:
    """Steps that are done with, what to tell the controller, and of each rank the bytes of states that are."""

    steps: list[ReadyStep]
    messages: list[Message]
    shipped: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class FoldCounters:
    """What folding has cost so far. Written by the folder, read by anyone."""

    steps: int = 0
    batches: int = 0
    busy_s: float = 0.0
    state_bytes: int = 0
    #: How long held states left no room to fold.
    room_s: float = 0.0


class Folder:
    """Folds the steps of one `member` on one staging node, in a thread of its own.

    `memory_bytes` bounds the states, open and held ones together: while the held ones leave no room, folding waits for
    the controller to take them, and with it, by their credits, the ranks. A batch has at most `batch` steps. The first
    step is that of sequence `begin`. `done` is called from the folding thread. `tracing` knows which steps are traced.
    """

    cause = "fold"

    def __init__(
        self,
        member: int,
        operators: Mapping[str, Operator],
        memory_bytes: int,
        holder: Holder,
        prefix: str,
        done: Callable[[Folded], None],
        batch: int = STEPS_PER_BATCH,
        begin: int = 0,
        tracing: Tracing | None = None,
    ) -> None:
        self.counters = FoldCounters()
        self._tracing = tracing or Tracing()
        self._member = member
        self._operators = operators
        here = {name: each for name, each in operators.items() if each.where != "rank"}
        self._folds = Folds(here, memory_bytes, begin=begin)
        self._memory_bytes = memory_bytes
        self._holder = holder
        self._prefix = prefix
        self._done = done
        self._batch = batch
        self._closing = threading.Event()
        self._work: queue.SimpleQueue[list[ReadyStep] | Whole | int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="insitu-folder", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs. It ends by `close`, or by an error of this code, never by one of an operator's."""
        return self._thread.is_alive()

    def status(self) -> dict[str, int | float | str]:
        """What the controller is told of the folding so far."""
        counters = self.counters
        return {
            "folded_steps": counters.steps,
            "batches": counters.batches,
            "fold_s": counters.busy_s,
            "waited_for_room_s": round(counters.room_s, 3),
            "state_bytes": counters.state_bytes,
        }

    def submit(self, steps: list[ReadyStep]) -> None:
        """Queue committed steps; they come in the order of their sequence."""
        self._work.put(steps)

    def merge(self, whole: Whole) -> None:
        """Queue the states of ranks that fold themselves, to be merged and handed over."""
        self._work.put(whole)

    def finish(self, steps: int) -> None:
        """Queue the end: after `steps` steps in all (-1: others go on), everything is handed over."""
        self._work.put(steps)

    def close(self) -> None:
        """End the thread, also with work in its queue, and wait for it. May be called twice."""
        self._closing.set()
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            steps, behind = self._take()
            for begin in range(0, len(steps), self._batch):
                if not self._closing.is_set():
                    self._fold(steps[begin : begin + self._batch])
            if isinstance(behind, Whole):
                self._merge(behind)
            elif behind is not None:
                left = self._folds.finish(behind) if behind >= 0 else self._folds.leave()
                messages = self._messages(left)
                self._done(Folded([], [*messages, Finished(self._member)]))

    def _take(self) -> tuple[list[ReadyStep], Whole | int | None]:
        """Wait for work; return the steps that wait, and what waits behind them: the number of all is the end."""
        steps: list[ReadyStep] = []
        item = self._work.get()
        while isinstance(item, list):
            steps += item
            if len(steps) >= STEPS_PER_BATCH:
                return steps, None
            try:
                item = self._work.get_nowait()
            except queue.Empty:
                return steps, None
        return steps, item

    def _fold(self, steps: list[ReadyStep]) -> None:
        self._wait_for_room()
        begin = time.perf_counter()
        traced = self._tracing.fold(steps)
        messages = self._messages(self._folds.fold(steps, traced.operator if traced is not None else None))
        if traced is not None:
            messages.append(traced.spans())
        self.counters.busy_s += time.perf_counter() - begin
        self.counters.batches += 1
        self.counters.steps += len(steps)
        self.counters.state_bytes = self._folds.nbytes
        self._done(Folded(steps, messages))

    def _merge(self, whole: Whole) -> None:
        self._wait_for_room()
        begin = time.perf_counter()
        try:
            messages = self._messages([merged(self._operators[whole.operator], whole)])
        except Exception as error:  # noqa: BLE001 - an operator is foreign code; the failure is handed on
            reason = f"{type(error).__name__}: {error}"
            messages = [operator_stopped(whole.operator, reason, traceback.format_exc())]
        self.counters.busy_s += time.perf_counter() - begin
        self._done(Folded([], messages, whole.nbytes))

    def _wait_for_room(self) -> None:
        begin = time.perf_counter()
        while self._holder.held_bytes() + self._folds.nbytes > self._memory_bytes:
            if self._closing.wait(_ROOM_S):
                return
            self.counters.room_s += time.perf_counter() - begin
            begin = time.perf_counter()

    def _messages(self, yields: list[Yield | Failure]) -> list[Message]:
        messages: list[Message] = []
        for item in yields:
            if isinstance(item, Failure):
                messages.append(operator_stopped(item.operator, item.reason, item.trace))
                continue
            messages += self._tracing.handed_over(item)
            if item.window < 0:
                messages += rows_of(item, self._member)
            else:
                messages.append(self._window(item))
        return messages

    def _window(self, item: Yield) -> Message:
        nbytes = sum(state_nbytes(entry.state) for entry in item.entries)
        if not item.entries or (nbytes <= SMALL_BYTES and not self._operators[item.operator].stays):
            return Partial(item.operator, self._member, item.window, item.since, item.upto, item.full, item.entries)
        key = f"{self._prefix}-{item.operator}-{item.window}"
        places = tuple(entry.place or ((), ()) for entry in item.entries)
        parts = [(*place, entry.state) for place, entry in zip(places, item.entries, strict=True)]
        self._holder.hold(key, parts, nbytes)
        one = item.entries[0]
        return Held(
            item.operator, self._member, item.window, item.since, item.upto, item.full,
            key, nbytes, one.steps, one.first, one.last, one.time, places,
        )  # fmt: skip
