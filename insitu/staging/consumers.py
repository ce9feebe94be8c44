# SPDX-License-Identifier: Apache-2.0
"""Who takes committed steps on a staging node: the folder, and beside it the recorder where one is wanted.

Each has a thread and a queue of its own. A step is done with when all of them are, and only then its memory and its
credit are free again. All take the steps in the same order, so it is enough to count. While steps wait, the time is put
down to the consumer that has most of them still to take: it is the one for whom a rank without credit waits.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from insitu.staging.assembler import ReadyStep
from insitu.staging.folder import Folded
from insitu.staging.shipped import Whole
from insitu.wire.messages import Finished

Done = Callable[[Folded], None]


class Consumer(Protocol):
    """Takes committed steps in the order of their sequence, and says through its `done` what it is done with."""

    @property
    def alive(self) -> bool: ...
    def status(self) -> dict[str, int | float | str]: ...
    def submit(self, steps: list[ReadyStep]) -> None: ...
    def finish(self, steps: int) -> None: ...
    def close(self) -> None: ...


class OneConsumer(Consumer, Protocol):
    """One of several; `cause` is what waiting for it is called: ``fold``, ``trainer`` or ``recording``."""

    @property
    def cause(self) -> str: ...


class Merger(Consumer, Protocol):
    """A consumer that also merges what ranks have folded themselves."""

    def merge(self, whole: Whole) -> None: ...


class OneMerger(OneConsumer, Merger, Protocol):
    """The one of several that merges."""


class Consumers:
    """Several consumers as one: who merges, and others. Each is made by its function, which gets the `done` to call."""

    def __init__(
        self,
        make_merger: Callable[[Done], OneMerger],
        make: Sequence[Callable[[Done], OneConsumer]],
        done: Done,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._done = done
        self._clock = clock
        self._waited_s: dict[str, float] = {}
        self._since = clock()
        self._lock = threading.Lock()
        self._steps: deque[ReadyStep] = deque()
        self._ahead = [0] * (1 + len(make))
        self._unfinished = 1 + len(make)
        self._merger = make_merger(self._done_of(0))
        self._all: list[OneConsumer] = [
            self._merger,
            *(one(self._done_of(number)) for number, one in enumerate(make, 1)),
        ]

    @property
    def alive(self) -> bool:
        """Whether all of them are."""
        return all(each.alive for each in self._all)

    def status(self) -> dict[str, int | float | str]:
        """What all of them have to say, and how long steps have waited for which, as ``waited_for_CAUSE_s``."""
        with self._lock:
            self._account()
            waited = {f"waited_for_{cause}_s": round(seconds, 3) for cause, seconds in self._waited_s.items()}
        return {name: value for each in self._all for name, value in each.status().items()} | waited

    def submit(self, steps: list[ReadyStep]) -> None:
        with self._lock:
            self._account()
            self._steps.extend(steps)
        for each in self._all:
            each.submit(steps)

    def merge(self, whole: Whole) -> None:
        self._merger.merge(whole)

    def finish(self, steps: int) -> None:
        for each in self._all:
            each.finish(steps)

    def close(self) -> None:
        for each in self._all:
            each.close()

    def _done_of(self, number: int) -> Done:
        return lambda folded: self._one_is_done(number, folded)

    def _one_is_done(self, number: int, folded: Folded) -> None:
        """Pass messages on at once, steps when the last one is done with them; `Finished` is said once."""
        with self._lock:  # held while they are passed on, so that they come in order
            self._account()
            self._ahead[number] += len(folded.steps)
            free = min(self._ahead)
            self._ahead = [count - free for count in self._ahead]
            steps = [self._steps.popleft() for _ in range(free)]
            finished = [message for message in folded.messages if isinstance(message, Finished)]
            self._unfinished -= len(finished)
            messages = [message for message in folded.messages if message not in finished]
            if finished and not self._unfinished:
                messages += finished
            if steps or messages or folded.shipped:
                self._done(Folded(steps, messages, folded.shipped))

    def _account(self) -> None:
        """Put the time since the last change down to who is the last one, if steps have waited meanwhile."""
        before, self._since = self._since, self._clock()
        if self._steps:
            cause = self._all[self._ahead.index(min(self._ahead))].cause
            self._waited_s[cause] = self._waited_s.get(cause, 0.0) + self._since - before
