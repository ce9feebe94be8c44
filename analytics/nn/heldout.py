# SPDX-License-Identifier: Apache-2.0
"""Samples that a network is tested with: a uniform sample of the whole stream that no batch has held."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from analytics.nn.samples import Ids, Storage
from analytics.sampling import mixed
from insitu.model import Array, Extent
from insitu.operator import State


class Heldout:
    """At most `samples` of the stream, and no more than a `share` of it, held back from training.

    **Uniform.** Each sample draws a lot, mixed from the seed and what it is (member, step, place). Those whose lot is
    in the lowest `share` are held out, and of these the `samples` lowest: a reservoir (J. Vitter, 1985) by random keys,
    so that every sample of the stream is in it with the same probability, whatever came when. The set does not depend
    on the order in which samples came, only on which: runs with other delays are tested with the same.

    **Never leaks.** A sample is decided upon when it arrives, and changes side at most once, and only from here to
    training: when one with a lower lot takes its place. So every validation is of samples that no batch before it has
    held, and no sample of the stream is lost to training for ever but those that are here in the end.

    Memory: `samples` rows, allocated once.
    """

    def __init__(
        self, columns: Mapping[str, tuple[Extent, np.dtype[Any]]], samples: int, share: float, seed: int = 0
    ) -> None:
        self.samples = samples
        self.held = 0
        self._share = np.uint64(min(share, 1.0) * float(2**64 - 2**11))
        self._salt = mixed(np.array([seed], np.uint64) + np.uint64(1))[0]
        self._storage = Storage(columns, samples)
        self._lots = np.empty(samples, np.uint64)
        self._ids = np.empty(samples, np.uint32)

    @property
    def nbytes(self) -> int:
        return self._storage.nbytes + self._lots.nbytes + self._ids.nbytes

    def exchange(self, origins: Array, ids: Ids, rows: Mapping[str, Array]) -> tuple[Ids, dict[str, Array]]:
        """Hold back some of these samples; return those to train on, among them any that leave in exchange.

        `origins` is (n, 3): member, step and place. The arguments stay as they are.
        """
        lots = self._drawn(origins)
        chosen = np.flatnonzero(lots < self._bar())
        if not len(chosen):
            return ids, dict(rows)
        kept, mine = np.ones(len(ids), bool), False
        for k in chosen:
            if self.held < self.samples:
                slot, kept[k] = self.held, False
                self.held += 1
                self._hold(slot, lots[k], ids[k], {name: values[k] for name, values in rows.items()})
                continue
            slot = int(self._lots.argmax())
            if lots[k] < self._lots[slot]:
                leaver = self._ids[slot], self._storage.read(np.array(slot))
                if not mine:  # few samples change sides, so that a copy of all is hardly ever needed
                    ids, rows, mine = ids.copy(), {name: values.copy() for name, values in rows.items()}, True
                self._hold(slot, lots[k], ids[k], {name: values[k] for name, values in rows.items()})
                ids[k] = leaver[0]
                for name, values in rows.items():
                    values[k] = leaver[1][name]
        if kept.all():
            return ids, dict(rows)
        return ids[kept], {name: values[kept] for name, values in rows.items()}

    def rows(self) -> dict[str, Array]:
        """Return all that is held out, as views in no order that means anything."""
        return {name: column[: self.held] for name, column in self._storage.columns.items()}

    @property
    def ids(self) -> Ids:
        return self._ids[: self.held]

    def state(self) -> State:
        rows = {name: column.copy() for name, column in self.rows().items()}
        return {"lots": self._lots[: self.held].copy(), "ids": self.ids.copy(), "rows": rows}

    def load(self, state: State) -> None:
        self.held = len(state["ids"])
        self._lots[: self.held], self._ids[: self.held] = state["lots"], state["ids"]
        self._storage.write(np.arange(self.held), state["rows"])

    def _hold(self, slot: int, lot: np.uint64, ident: np.uint32, row: Mapping[str, Array]) -> None:
        self._lots[slot], self._ids[slot] = lot, ident
        self._storage.write(np.array(slot), row)

    def _drawn(self, origins: Array) -> Array:
        lots = np.full(len(origins), self._salt, np.uint64)
        for column in origins.T.astype(np.uint64):
            lots = mixed(lots ^ column)
        return lots

    def _bar(self) -> np.uint64:
        if not self.samples:
            return np.uint64(0)
        full = self.held == self.samples
        return min(self._share, self._lots.max()) if full else self._share
