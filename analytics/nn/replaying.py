# SPDX-License-Identifier: Apache-2.0
"""Learning once more what a ledger says, whatever order the samples come in this time."""

import numpy as np

from analytics.nn.ledger import Ledger
from analytics.nn.samples import Samples
from analytics.nn.training import Trained, Trainer
from insitu.errors import OperatorError
from insitu.model import Array

_Origin = tuple[int, int, int]


class Replay:
    """Drives a new trainer of the same configuration through the calls that a ledger recorded.

    Samples may come in another order and in other pieces than they did; each waits until its turn. The weights are then
    those of the recorded run, to the last bit on one thread.

    `OperatorError` where the ledger is of another configuration, or tells of samples that never come. At most `most`
    samples wait: the order may differ by so much.
    """

    def __init__(self, trainer: Trainer, ledger: Ledger, most: int | None = None) -> None:
        self.trainer = trainer
        self._events = ledger.replay()
        self._next = next(self._events, None)
        self._waiting: dict[_Origin, tuple[Array, Array | None]] = {}
        self._most = trainer.buffer.slots if most is None else most
        self._ended = False

    @property
    def finished(self) -> bool:
        return self._next is None

    def put(self, samples: Samples) -> int:
        """Take all samples; `OperatorError` where too many wait for one that has not come."""
        for k, origin in enumerate(samples.origins().tolist()):
            target = None if samples.targets is None else samples.targets[k].copy()
            self._waiting[tuple(origin)] = (samples.inputs[k].copy(), target)
        if len(self._waiting) > self._most:
            self._deliver()
        if len(self._waiting) > self._most:
            raise OperatorError(
                f"more than {self._most} samples wait for {self._missing()}, which the ledger has before"
            )
        return len(samples)

    def end(self) -> None:
        """Say that no more samples will come."""
        self._ended = True

    def batch(self) -> Trained | None:
        """Train the next batch of the ledger; ``None`` where its samples have not all come, or there is none left."""
        self._deliver()
        if self._next is None:
            return None
        kind, ids = self._next
        if kind == "put":
            if self._ended:
                raise OperatorError(f"the ledger tells of {self._missing()}, which did not come")
            return None
        trained = self.trainer.batch()
        if trained is None or not np.array_equal(trained.ids, ids):
            raise OperatorError("the ledger is of another configuration or seed: it draws other samples")
        self._next = next(self._events, None)
        return trained

    def _deliver(self) -> None:
        """Put what has come and is next, as it was put."""
        while self._next is not None and self._next[0] != "batch":
            kind, origins = self._next
            if kind == "end":
                self.trainer.end()
            else:
                keys = [tuple(origin) for origin in origins.tolist()]
                if any(key not in self._waiting for key in keys):
                    return
                rows = [self._waiting.pop(key) for key in keys]
                targets = None if rows[0][1] is None else np.stack([np.asarray(target) for _, target in rows])
                samples = Samples(np.stack([inputs for inputs, _ in rows]), targets, *origins.T)
                if self.trainer.put(samples) != len(samples):
                    raise OperatorError("the ledger is of another configuration: its buffer took more")
            self._next = next(self._events, None)

    def _missing(self) -> str:
        origins = [] if self._next is None else self._next[1].tolist()
        member, step, place = next(origin for origin in origins if tuple(origin) not in self._waiting)
        return f"member {member} step {step} place {place}"
