# SPDX-License-Identifier: Apache-2.0
"""Has staging nodes started in Dask workers that came later, in the place of such as were lost.

A local cluster starts a worker anew that was killed; to another one somebody may add a worker. Finding them and
compiling operators there takes from a second to minutes, and so a thread does it, one node after the other.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Protocol

from insitu.errors import InsituError
from insitu.wire.messages import Event

#: How often spare workers are looked for while nodes are lacking.
LOOK_S = 0.5


class Workers(Protocol):
    """The cluster (`insitu.staging.executors.Cluster`), as far as it is needed here."""

    def spare(self, number: int) -> list[str]: ...
    def add(self, address: str, number: int) -> None: ...


class Recruiting:
    """Starts staging nodes in `workers` that have none. `number` gives each a number; `event` tells what went wrong."""

    def __init__(self, workers: Workers, number: Callable[[], int], event: Callable[[Event], None]) -> None:
        self._workers = workers
        self._number = number
        self._event = event
        self._closing = False
        self._looked_at = 0.0
        self._thread: threading.Thread | None = None

    def look(self, lacking: int) -> None:
        """Look for workers where so many nodes are lacking, unless that is being done. To be called often."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
        now = time.monotonic()
        if lacking > 0 and self._thread is None and now - self._looked_at > LOOK_S:
            self._looked_at = now
            self._thread = threading.Thread(target=self._start, args=(lacking,), name="insitu-recruiting", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Start no more; what is being started ends with the cluster."""
        self._closing = True

    def _start(self, lacking: int) -> None:
        try:
            for address in self._workers.spare(lacking)[:lacking]:
                if not self._closing:
                    self._workers.add(address, self._number())
        except (InsituError, OSError, RuntimeError, TimeoutError, CancelledError) as error:
            if not self._closing:
                self._event(Event("error", "node-not-started", f"A staging node did not start: {error}"))
