# SPDX-License-Identifier: Apache-2.0
"""How gradients get to the one that puts them in order, and updates back: the first of a `Group` does it for all.

It has a thread for each of the others, so that nobody is kept waiting by its own batches.
"""

import threading
from contextlib import suppress

import numpy as np

from analytics.nn.groups import Group, Torn
from analytics.nn.needs import torch
from analytics.nn.sequencing import Answer, Given, Sequencer, Update

#: What is waited for, as it stands in an error.
WHAT = "an update"
#: Numbers of what is told first, and what it means where the others are gone.
_HEAD = 4
_TORN = -1.0


class Exchange:
    """A trainer's side of the sequence of updates; in the first of the group the sequencer, too.

    Gradients have `numbers` float32. `give` brings something and waits for the answer; raises `Torn` where others are
    gone, or do not come within the time of the group. `close` when nobody calls any more.
    """

    def __init__(self, group: Group, numbers: int, sequencer: Sequencer) -> None:
        self._group, self._numbers = group, numbers
        self._sequencer = sequencer if group.rank == 0 else None
        self._changed = threading.Condition()
        self._answers: dict[int, Answer] = {}
        self._torn: Torn | None = None
        #: Bytes that this one has sent.
        self.sent_bytes = 0
        others = range(1, group.size) if self._sequencer is not None else ()
        self._servants = [threading.Thread(target=self._serve, args=(rank,), daemon=True) for rank in others]
        for servant in self._servants:
            servant.start()

    def give(self, given: Given) -> Answer:
        """Bring what there is, and wait for the updates that this one has not made."""
        if self._sequencer is not None:
            return self._ordered(0, given)
        self._tell(0, np.array([given.samples, given.loss, given.drained, given.leaving], np.float64))
        if given.gradient is not None:
            self._send(0, given.gradient)
        number, drained, leaving, _ = self._hear(0, _HEAD)
        if number == _TORN:
            raise self._group.failed(WHAT, "others of the group are gone")
        about = self._hear(0, 2 * int(number)).reshape(-1, 2)
        updates = tuple(Update(self._received(0), loss, int(trainers)) for loss, trainers in about)
        return Answer(updates, bool(drained), bool(leaving))

    def close(self) -> None:
        """Let nobody wait for this one."""
        with self._changed:
            self._torn = self._torn or Torn("it has left", WHAT)
            self._changed.notify_all()
        for servant in self._servants:
            servant.join()

    def _ordered(self, rank: int, given: Given) -> Answer:
        """Bring it to the sequencer, and wait for the answer."""
        assert self._sequencer is not None
        with self._changed:
            if self._torn is None:
                self._answers |= self._sequencer.put(rank, given)
                self._changed.notify_all()
            there = self._changed.wait_for(lambda: rank in self._answers or self._torn, self._group.timeout_s)
            if rank in self._answers:
                return self._answers.pop(rank)
            if not there:
                self._torn = self._group.failed(WHAT, f"it did not come within {self._group.timeout_s:g} s")
                self._changed.notify_all()
            assert self._torn is not None
            raise self._torn

    def _serve(self, rank: int) -> None:
        """Do for another what it asks, until all leave."""
        try:
            while True:
                samples, loss, drained, leaving = self._hear(rank, _HEAD)
                gradient = self._received(rank) if samples else None
                answer = self._ordered(rank, Given(int(samples), gradient, loss, bool(drained), bool(leaving)))
                self._tell(rank, np.array([len(answer.updates), answer.drained, answer.leaving, 0], np.float64))
                self._tell(rank, np.array([[each.loss, each.trainers] for each in answer.updates], np.float64))
                for update in answer.updates:
                    self._send(rank, update.gradient)
                if answer.drained or answer.leaving:
                    return
        except Torn as torn:
            with self._changed:
                self._torn = self._torn or torn
                self._changed.notify_all()
            with suppress(Torn):  # it may be the one that is gone
                self._tell(rank, np.full(_HEAD, _TORN))

    def _tell(self, rank: int, numbers: np.ndarray) -> None:
        if numbers.size:
            self._send(rank, torch.from_numpy(numbers.ravel()))

    def _hear(self, rank: int, numbers: int) -> np.ndarray:
        found = torch.empty(numbers, dtype=torch.float64)
        if numbers:
            self._group.receive(found, rank, WHAT)
        return found.numpy()

    def _send(self, rank: int, values: torch.Tensor) -> None:
        self._group.send(values, rank, WHAT)
        self.sent_bytes += values.nbytes

    def _received(self, rank: int) -> torch.Tensor:
        gradient = torch.empty(self._numbers)
        self._group.receive(gradient, rank, WHAT)
        return gradient
