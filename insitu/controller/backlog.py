# SPDX-License-Identifier: Apache-2.0
"""Rows of results on their way to the store, which takes many as quickly as one."""

import time
from collections.abc import Callable
from functools import partial
from itertools import groupby

from insitu.results import Result
from insitu.results.store import ResultStore

#: How long rows may wait for more of their kind: an append costs tens of milliseconds at any number.
STORE_S = 1.0

#: Does a piece of work for an operator, and sees to what goes wrong there.
Attempt = Callable[[str, Callable[[], None]], None]
#: Is told of rows of an operator that can be read now, by their indices.
Stored = Callable[[str, list[int]], None]


class Backlog:
    """Rows that wait to be stored together, by operator and group. A result without arrays has its row there already.

    `is_due` may be asked by any thread; all else belongs to the one that writes the store.
    """

    def __init__(self, store: ResultStore, attempt: Attempt, stored: Stored) -> None:
        self._store = store
        self._stored = stored
        self._attempt = attempt
        self._waiting: dict[tuple[str, str], list[Result]] = {}
        self._stored_at = 0.0

    def add(self, operator: str, group: str, results: list[Result]) -> None:
        """Have rows of an operator's group wait."""
        self._waiting.setdefault((operator, group), []).extend(results)

    def is_due(self) -> bool:
        """Say whether somebody should call `store`: once in `STORE_S` while anything waits."""
        due = bool(self._waiting) and time.monotonic() - self._stored_at > STORE_S
        if due:
            self._stored_at = time.monotonic()
        return due

    def store(self) -> None:
        """Store all that waits, also of operators that have failed since."""
        added: dict[str, list[int]] = {}
        for operator, group in list(self._waiting):
            self._attempt(operator, partial(self._add_rows, operator, group, added))
        for operator, indices in added.items():
            self._attempt(operator, partial(self._show, operator, indices))

    def _add_rows(self, operator: str, group: str, added: dict[str, list[int]]) -> None:
        indices = added.setdefault(operator, [])
        for here, some in groupby(self._waiting.pop((operator, group)), key=lambda result: bool(result.arrays)):
            results = list(some)
            if here:
                self._store.append(results, show=False)
            else:
                self._store.publish(group, [result.provenance for result in results], show=False)
            if group == operator:
                indices += [result.provenance.index for result in results]

    def _show(self, operator: str, indices: list[int]) -> None:
        """Show all that was added, with the first of them; where that fails, it fails for each of them."""
        self._store.show()
        if indices:
            self._stored(operator, indices)
