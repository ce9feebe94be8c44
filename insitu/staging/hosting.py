# SPDX-License-Identifier: Apache-2.0
"""What is of a staging node in its Dask worker: it is started and ended there, and large states are held as its data.

**Threads.** A staging node's threads are foreign to the worker's event loop. They reach it through `WorkerHolder` only,
and nothing here ever blocks that loop: it would keep the worker from its heartbeat and a state from being held.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from distributed import Worker, WorkerPlugin

from insitu.errors import RunError
from insitu.kept import begun
from insitu.operator import Operator
from insitu.staging.folder import Holder
from insitu.wire.contact import Contact

#: A registration takes a millisecond or two; a scheduler that does not answer for so long is gone or overrun.
HOLD_S = 30.0


class Closable(Protocol):
    """A running staging node, as far as this module knows it."""

    def close(self) -> None: ...


MakeNode = Callable[[Contact, int, Mapping[str, Operator], int, Holder], Closable]


class WorkerHolder:
    """Keeps values as data of one Dask worker for the client `client`.

    Made in the worker's event loop, used by any other thread.
    """

    def __init__(self, worker: Worker, client: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._worker = worker
        self._client = client
        self._nbytes: dict[str, int] = {}

    def hold(self, key: str, value: object, nbytes: int) -> None:
        """Keep `value` until the client lets go of `key`; return when the scheduler knows of it."""
        coming = asyncio.run_coroutine_threadsafe(self._register(key, value, nbytes), self._loop)
        try:
            coming.result(HOLD_S)
        except (TimeoutError, OSError) as error:
            raise RunError(
                f"The Dask scheduler did not take note of '{key}' within {HOLD_S:g} s ({error or 'no answer'}). "
                "See whether its process is alive."
            ) from error
        self._nbytes[key] = nbytes

    def held_bytes(self) -> int:
        """Return how many bytes of what was held are still there."""
        for key in list(self._nbytes):
            if key not in self._worker.data:
                self._nbytes.pop(key, None)
        return sum(list(self._nbytes.values()))

    async def _register(self, key: str, value: object, nbytes: int) -> None:
        self._worker.update_data({key: value})
        await self._worker.scheduler.update_data(
            who_has={key: [self._worker.address]}, nbytes={key: nbytes}, client=self._client
        )


class NodePlugin(WorkerPlugin):
    """Starts staging nodes in workers, by their address and with the number that it has in `numbers`.

    It ends with its worker. Other workers, such as one that came in a dead one's place, take tasks only.
    """

    def __init__(self, make: MakeNode, numbers: Mapping[str, int], client: str, arguments: tuple[Any, ...]) -> None:
        self._make = make
        self._numbers = numbers
        self._client = client
        self._arguments = arguments
        self._node: Closable | None = None

    async def setup(self, worker: Worker) -> None:
        """Start the node."""
        begun()
        if worker.address not in self._numbers:
            return
        contact, operators, memory_bytes = self._arguments
        number, holder = self._numbers[worker.address], WorkerHolder(worker, self._client)
        self._node = await asyncio.to_thread(self._make, contact, number, operators, memory_bytes, holder)

    async def teardown(self, worker: Worker) -> None:
        """End the node, while the event loop still serves its threads."""
        node, self._node = self._node, None
        if node is not None:
            await asyncio.to_thread(node.close)
