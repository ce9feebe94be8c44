# SPDX-License-Identifier: Apache-2.0
"""Processes that learn one network together, and what is said when one of them is missing."""

import contextlib
import datetime
import importlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from analytics.nn.needs import torch
from insitu.errors import RunError
from insitu.model import Array

_T = TypeVar("_T")

# What it gives out is not all declared.
_distributed: Any = torch.distributed

#: What a trainer that waits for the others to begin is at.
START = "the start"


class Torn(RunError):
    """A collective has failed: `what` is it, and others of the group may be gone."""

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message)
        self.what = what


class TrainerMissing(RunError):
    """Trainers that did not come to a collective within its time; `missing` are their numbers."""

    def __init__(self, message: str, missing: tuple[int, ...]) -> None:
        super().__init__(message)
        self.missing = missing


class Group:
    """Trainer `number` among `members`, who meet at a file that all can reach (a run's directory) and talk by gloo.

    A collective that fails, because another is gone or does not come within `timeout_s`, raises `Torn`, in each that is
    left. Each then has said in the file that it is there: `absent` are those who have not. Until that happens it costs
    nothing. What is torn stays so: those who are left make another group, of another `name`.

    A context manager, which waits for all at its begin. The group is the process's own: one at a time. `local`: no
    other machine takes part, and nothing listens beyond loopback.
    """

    def __init__(
        self,
        meeting: Path,
        number: int,
        members: Sequence[int],
        timeout_s: float = 30.0,
        name: str = "0",
        local: bool = True,
    ) -> None:
        self.number, self.members, self.timeout_s = number, tuple(members), timeout_s
        self.rank, self.size = self.members.index(number), len(self.members)
        self._limit = datetime.timedelta(seconds=timeout_s)
        self._store = _distributed.PrefixStore(name, _distributed.FileStore(str(meeting), -1))
        self._store.set_timeout(self._limit)
        self._open = False
        #: What has failed, if anything has.
        self.torn: Torn | None = None
        if local:
            # Where a machine's name stands for an address of its network, gloo would listen there.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", next(n for _, n in socket.if_nameindex() if n.startswith("lo")))
        # Whatever is parallel or exported imports it sooner or later; with a group open, it would keep that group, and
        # its connections, after `close`.
        importlib.import_module("torch._dynamo")
        self._say(START)

    def __enter__(self) -> "Group":
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open(self) -> None:
        """Begin, when all have come. Raises `TrainerMissing` where they do not within the time, or are gone again."""
        self.require(START)
        begin = torch.distributed.init_process_group
        try:
            begin("gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=self._limit)
        except RuntimeError as error:
            raise Torn(f"trainer {self.number} of {self.size}: {START} failed: {error}", START) from error
        self._open = True

    def close(self) -> None:
        """Leave: whoever still waits for this one is told so at once. May be called twice."""
        if self._open:
            self._open = False
            torch.distributed.destroy_process_group()

    def sum(self, values: Array, what: str) -> Array:
        """Return the sum over all, float64, the same to the last bit in each; `what` names it in an error."""
        tensor = torch.from_numpy(np.array(values, np.float64))
        self.watched(lambda: torch.distributed.all_reduce(tensor), what)
        return tensor.numpy()

    def gathered(self, values: Array, what: str) -> Array:
        """Return what each has, (size, *shape) float64; the shape is the same in all."""
        tensor = torch.from_numpy(np.array(values, np.float64))
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        self.watched(lambda: torch.distributed.all_gather(found, tensor), what)
        return torch.stack(found).numpy()

    def told(self, said: bytes, rank: int, what: str) -> bytes:
        """Return what the one of this `rank` in the group has `said`."""
        length = int(self.gathered(np.array(len(said)), what)[rank])
        tensor = torch.empty(length, dtype=torch.uint8)
        if self.rank == rank:
            tensor = torch.from_numpy(np.frombuffer(said, np.uint8).copy())
        self.watched(lambda: torch.distributed.broadcast(tensor, rank), what)
        return tensor.numpy().tobytes()

    def send(self, values: torch.Tensor, rank: int, what: str) -> None:
        """Send to the one of this `rank`, who must `receive` as much."""
        self.watched(lambda: torch.distributed.send(values, rank), what)

    def receive(self, values: torch.Tensor, rank: int, what: str) -> None:
        """Fill `values` with what the one of this `rank` sends. May be called from a thread of its own."""
        self.watched(lambda: torch.distributed.recv(values, rank), what)

    def watched(self, call: Callable[[], _T], what: str) -> _T:
        """Return what a collective returns; raise `Torn` where it fails."""
        try:
            return call()
        except RuntimeError as error:
            raise self.failed(what, str(error)) from error

    def failed(self, what: str, why: str) -> Torn:
        """Say to the others that this one was there when it failed, and return the error."""
        with contextlib.suppress(RuntimeError):  # a file that cannot be written either says less, and no more
            self._say(what)
        self.torn = Torn(f"trainer {self.number} of {self.size}: {what} failed: {why}", what)
        return self.torn

    def absent(self, what: str) -> tuple[int, ...]:
        """Return those that have not said by now that they are at a collective which failed, or at the start."""
        return tuple(member for member in self.members if not self._store.check([f"{what}/{member}"]))

    def require(self, what: str) -> None:
        """Wait until all have said that they are there; `TrainerMissing` for those that do not within the time."""
        with contextlib.suppress(RuntimeError):  # torch.distributed.DistStoreError: not within the time
            self._store.wait([f"{what}/{member}" for member in self.members], self._limit)
        if missing := self.absent(what):
            raise self.missed(what, missing)

    def missed(self, what: str, missing: tuple[int, ...]) -> TrainerMissing:
        """Return the error that names those who did not come."""
        names = ", ".join(map(str, missing))
        return TrainerMissing(
            f"trainer {self.number} of {self.size} waited {self.timeout_s:g} s at {what} for trainer {names}, which is "
            "not there any more, or stalls",
            missing,
        )

    def _say(self, what: str) -> None:
        self._store.set(f"{what}/{self.number}", "1")
