# SPDX-License-Identifier: Apache-2.0
"""What is of a staging node in its Dask worker: it is started and ended there, and large states are held as its data.

**Threads.** A staging node's threads are foreign to the worker's event loop. They reach it through `WorkerHolder` only,
and nothing here ever blocks that loop: it would keep the worker from its heartbeat and a state from being held.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from distributed import Worker, WorkerPlugin
from distributed.protocol.pickle import dumps

from insitu.errors import RunError
from insitu.kept import begun
from insitu.operator import Operator
from insitu.staging.folder import Host
from insitu.wire.contact import Contact

log = logging.getLogger("insitu.staging")

#: A registration takes a millisecond or two; a scheduler that does not answer for so long is gone or overrun.
HOLD_S = 30.0


class Closable(Protocol):
    """A running staging node, as far as this module knows it."""

    def close(self) -> None: ...


MakeNode = Callable[[Contact, int, Mapping[str, Operator], int, Host], Closable]


class WorkerHolder:
    """Keeps values as data of one Dask worker for the client `client`.

    Made in the worker's event loop, used by any other thread. `leave` is called there once the node has ended itself.
    """

    def __init__(self, worker: Worker, client: str, leave: Callable[[], Awaitable[None]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._leave = leave
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

    def abandoned(self) -> None:
        """Have the worker let go of a node that has ended by itself."""

        async def leave() -> None:
            try:
                await self._leave()
            except (OSError, ValueError) as error:  # no scheduler any more, or one that runs no functions of others
                log.warning("a staging node has ended, and the cluster may keep what it held: %s", error)

        with suppress(RuntimeError):  # the loop has ended, and the worker with it
            asyncio.run_coroutine_threadsafe(leave(), self._loop)

    async def _register(self, key: str, value: object, nbytes: int) -> None:
        self._worker.update_data({key: value})
        await self._worker.scheduler.update_data(
            who_has={key: [self._worker.address]}, nbytes={key: nbytes}, client=self._client
        )


class NodePlugin(WorkerPlugin):
    """Starts staging nodes in workers, by their address and with the number that it has in `numbers`.

    It ends with its worker, or by itself where its controller is gone; the worker lives on then. Other workers, such as
    one that came in a dead one's place, take tasks only. Dask knows it as `name`.
    """

    def __init__(
        self, name: str, make: MakeNode, numbers: Mapping[str, int], client: str, arguments: tuple[Any, ...]
    ) -> None:
        self.name = name
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
        number, holder = self._numbers[worker.address], WorkerHolder(worker, self._client, lambda: self._leave(worker))
        self._node = await asyncio.to_thread(self._make, contact, number, operators, memory_bytes, holder)

    async def teardown(self, worker: Worker) -> None:
        """End the node, while the event loop still serves its threads."""
        node, self._node = self._node, None
        if node is not None:
            await asyncio.to_thread(node.close)

    async def _leave(self, worker: Worker) -> None:
        """Let go of a node that has ended by itself, and of what the cluster keeps for a controller that is gone.

        What such nodes held after Dask had seen the controller's client go would be kept for good, since nobody wants
        it and nobody can let go of it. Where Dask still has that client it was only this node that heard nothing.
        """
        await self.teardown(worker)
        client = self._client

        def let_go(dask_scheduler: Any) -> bool:  # pickled by value: a scheduler need not have insitu installed
            gone = client not in dask_scheduler.client_comms
            if gone:
                dask_scheduler.remove_client(client)
            return gone

        asked = {"function": dumps(let_go), "args": dumps(()), "kwargs": dumps({}), "wait": True}
        if (await worker.scheduler.run_function(**asked)).get("result"):
            with suppress(ValueError):  # another node of the same run was faster
                await worker.scheduler.unregister_worker_plugin(name=self.name)
