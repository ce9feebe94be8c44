# SPDX-License-Identifier: Apache-2.0
"""What was learned from what, in which order: enough to learn the same again, to the last bit."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from analytics.nn.samples import Ids
from insitu.model import Array
from insitu.operator import State

#: Where a sample is from, and how many batches there were when it came.
SAMPLE = np.dtype([("member", "i4"), ("step", "i8"), ("place", "i8"), ("batch", "u4")], align=False)


class Column:
    """An array that grows at its end. Doubles its memory when it is full, so an append costs O(1) on average."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._memory: npt.NDArray[Any] = np.empty(64, dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def array(self) -> npt.NDArray[Any]:
        """All of it, as a view."""
        return self._memory[: self._length]

    def append(self, values: npt.ArrayLike) -> None:
        values = np.atleast_1d(np.asarray(values, self._memory.dtype))
        needed = self._length + len(values)
        if needed > len(self._memory):
            grown = np.empty(max(needed, 2 * len(self._memory)), self._memory.dtype)
            grown[: self._length] = self.array
            self._memory = grown
        self._memory[self._length : needed] = values
        self._length = needed


class Ledger:
    """Three append-only columns: samples as they came, draws of samples, and events.

    ===========  ================================================================  =============================
    column       an entry                                                          bytes
    ===========  ================================================================  =============================
    `samples`    member, step, place, and the batch before which it came; its      24 for each sample
                 index is the sample's id
    `draws`      the id of a sample that a batch held                              4 for each draw
    `events`     +n: n samples were taken together; -n: a batch of n was trained;  4 for each put and batch
                 0: the stream ended
    ===========  ================================================================  =============================

    So a ledger of a million samples, drawn four times each, is 40 MB.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._samples, self._draws, self._events = Column(SAMPLE), Column(np.uint32), Column(np.int32)
        self._ends = Column(np.int64)

    @property
    def nbytes(self) -> int:
        return sum(column.array.nbytes for column in (self._samples, self._draws, self._events, self._ends))

    @property
    def samples(self) -> npt.NDArray[Any]:
        return self._samples.array

    @property
    def events(self) -> npt.NDArray[np.int32]:
        return self._events.array

    @property
    def batches(self) -> int:
        """How many batches were trained."""
        return len(self._ends)

    def arrive(self, origins: Array) -> Ids:
        """Write down samples, (n, 3): member, step and place. Return their ids."""
        first, rows = len(self._samples), np.empty(len(origins), SAMPLE)
        for name, column in zip(("member", "step", "place"), origins.T, strict=True):
            rows[name] = column
        rows["batch"] = self.batches
        self._samples.append(rows)
        self._events.append(len(origins))
        return np.arange(first, first + len(origins), dtype=np.uint32)

    def train(self, ids: Ids) -> None:
        """Write down a batch."""
        self._draws.append(ids)
        self._ends.append(len(self._draws))
        self._events.append(-len(ids))

    def end(self) -> None:
        """Write down that no more samples will come."""
        self._events.append(0)

    def batch(self, number: int) -> Ids:
        """Return the ids that a batch held, in their order."""
        ends = self._ends.array
        ids: Ids = self._draws.array[ends[number - 1] if number else 0 : ends[number]]
        return ids

    def counts(self) -> npt.NDArray[np.int64]:
        """Return how often each sample was drawn."""
        return np.bincount(self._draws.array, minlength=len(self._samples))

    def named(self, ids: Ids, most: int = 8) -> str:
        """Say where samples are from, for people: the first few of them.

        >>> ledger = Ledger()
        >>> ledger.named(ledger.arrive(np.array([[0, 12, 3], [1, 12, 3]])))
        'member 0 step 12 place 3, member 1 step 12 place 3'
        """
        some = [f"member {m} step {s} place {p}" for m, s, p, _ in self.samples[ids[:most]].tolist()]
        return ", ".join(some) + (f" and {len(ids) - most} more" if len(ids) > most else "")

    def replay(self) -> Iterator[tuple[str, Array]]:
        """Yield what happened, in order: ``("put", origins)`` of (n, 3), ``("batch", ids)``, or ``("end", ...)``."""
        came = trained = 0
        for event in self.events.tolist():
            if event == 0:
                yield "end", np.empty(0, np.int64)
            elif event > 0:
                rows = self.samples[came : came + event]
                came += event
                yield "put", np.stack([rows[name].astype(np.int64) for name in ("member", "step", "place")], axis=1)
            else:
                yield "batch", self.batch(trained)
                trained += 1

    def state(self) -> State:
        columns = {name: self.samples[name].copy() for name in SAMPLE.names or ()}
        return columns | {"draws": self._draws.array.copy(), "events": self.events.copy()}

    def load(self, state: State) -> None:
        self._clear()
        rows = np.empty(len(state["step"]), SAMPLE)
        for name in SAMPLE.names or ():
            rows[name] = state[name]
        self._samples.append(rows)
        self._draws.append(state["draws"])
        self._events.append(state["events"])
        self._ends.append(np.cumsum(-state["events"][state["events"] < 0]))
