# SPDX-License-Identifier: Apache-2.0
"""Processes that learn one network together, and what is said when one of them is missing."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from analytics.nn.needs import torch
from insitu.errors import RunError
from insitu.model import Array

_T = TypeVar("_T")

# What it gives out is not all declared.
_distributed: Any = torch.distributed


class RankMissing(RunError):
    """Ranks that did not come to a collective within its time; `ranks` are their numbers."""

    def __init__(self, message: str, ranks: tuple[int, ...]) -> None:
        super().__init__(message)
        self.ranks = ranks


class Group:
    """One of `size` processes, which meet at a file that all can reach (a run's directory) and talk by gloo.

    Every collective ends within `timeout_s`, or raises `RankMissing`, in every rank that is left: each of them then
    says in the file that it is there, and those that have not said so within the same time again are the missing ones.
    Until that happens it costs nothing.

    A context manager. The group is the process's own: one at a time. `name` tells groups apart that meet at one file.
    """

    def __init__(self, meeting: Path, rank: int, size: int, timeout_s: float = 30.0, name: str = "0") -> None:
        self.rank, self.size, self.timeout_s = rank, size, timeout_s
        self._limit = datetime.timedelta(seconds=timeout_s)
        self._store = _distributed.PrefixStore(name, _distributed.FileStore(str(meeting), -1))
        self._store.set_timeout(self._limit)
        self._store.set(f"began/{rank}", "1")
        self._among("began", "the start")
        torch.distributed.init_process_group("gloo", store=self._store, rank=rank, world_size=size, timeout=self._limit)

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *error: object) -> None:
        torch.distributed.destroy_process_group()

    def sum(self, values: Array, what: str) -> Array:
        """Return the sum over all ranks, float64, the same to the last bit in each; `what` names it in an error."""
        tensor = torch.from_numpy(np.array(values, np.float64))
        self.watched(lambda: torch.distributed.all_reduce(tensor), what)
        return tensor.numpy()

    def gathered(self, values: Array, what: str) -> Array:
        """Return what each rank has, (size, *shape) float64; the shape is the same in all."""
        tensor = torch.from_numpy(np.array(values, np.float64))
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        self.watched(lambda: torch.distributed.all_gather(found, tensor), what)
        return torch.stack(found).numpy()

    def watched(self, call: Callable[[], _T], what: str) -> _T:
        """Return what a collective returns; raise `RankMissing` where it fails because somebody does not come."""
        try:
            return call()
        except RuntimeError as error:
            self._store.set(f"here/{what}/{self.rank}", "1")
            self._among(f"here/{what}", what)
            raise RunError(f"rank {self.rank} of {self.size}: {what} failed, though all ranks came: {error}") from error

    def _among(self, key: str, what: str) -> None:
        missing = tuple(rank for rank in range(self.size) if not self._has(f"{key}/{rank}"))
        if missing:
            names = ", ".join(map(str, missing))
            raise RankMissing(
                f"rank {self.rank} of {self.size} waited {self.timeout_s:g} s at {what} for rank {names}, which is not "
                "there any more, or stalls",
                missing,
            )

    def _has(self, key: str) -> bool:
        try:
            self._store.wait([key], self._limit)
        except RuntimeError:  # torch.distributed.DistStoreError: not within its time
            return False
        return True
