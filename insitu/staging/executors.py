# SPDX-License-Identifier: Apache-2.0
"""What the controller does with Dask: starts staging nodes inside workers (`hosting`), keeps their large states, merges
and writes those there.

**What passes the scheduler.** Keys, tasks and sizes; a task of a window costs it 1 to 2 ms, and a window has as many as
it has staging nodes and slabs, never ranks or steps. States and results move between workers, and to the disk.

**Whose is a held state.** A state is registered as data of its worker and, in the same message, as wanted by the
controller's client: so Dask keeps it until that client lets go of it, or is gone. It cannot be computed again. A worker
that dies takes its states along, and whatever waits for them fails at once.
"""

import asyncio
import json
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, wait
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Protocol

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, Security
from distributed.comm.core import connect

from insitu.errors import InsituError, OperatorError, RunError
from insitu.model import Array
from insitu.operator import Operator, State
from insitu.staging import tasks
from insitu.staging.hosting import MakeNode, NodePlugin
from insitu.staging.merging import Part, Place, Recipe, Target, fault_of_places, join_numbers
from insitu.staging.node import StagingNode
from insitu.steering.series import Reference
from insitu.wire.contact import Contact

#: Each wait on Dask has a limit. Workers import NumPy, numba and Zarr when they start, on a machine that may be busy.
START_S = 60.0
#: Operators that never ran on a machine are compiled there first: 5 to 10 s, and many times that on a busy one.
WARM_S = 300.0
#: A window of 100 GiB is written in about this time by one worker.
WRITE_S = 600.0
CONNECT_S = 15.0
CLOSE_S = 10.0
REMOVE_S = 2.0
#: Between two looks whether something is still wanted.
LOOK_S = 0.05

#: A worker of ours has one thread for tasks; its staging node has its own. What libraries would add gets in their way.
#: Dask's own setting of MALLOC_TRIM_THRESHOLD_ would give every received message's memory back to the system.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), 1)

#: No stealing, since a task belongs where its data is; no second try, since the data died with the worker; no pages.
#: No worker is killed for being silent: Dask tells that by the wall clock, which may jump.
SETTINGS: dict[str, Any] = {
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-ttl": None,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
}


class HeldStates(Protocol):
    """What is known of a worker's held states: the key, and where their cells lie."""

    @property
    def key(self) -> str: ...
    @property
    def places(self) -> tuple[Place, ...]: ...


def _never() -> bool:
    """Whether staging nodes are unwanted by now, where nobody can change that."""
    return False


class Cluster:
    """The workers of a run, at `addresses`, as the controller sees them. Its methods may be called by any thread.

    `own` is the cluster that ends with this one and its folder, ``None`` where it belongs to somebody else.
    """

    def __init__(self, client: Client, nodes: int, own: tuple[LocalCluster, str] | None) -> None:
        self._client = client
        self._own = own
        self._plugins: list[str] = []
        self._run = ""
        self._made: Callable[[str, Mapping[str, int]], NodePlugin]
        self._kept: dict[str, Any] = {}
        workers = client.scheduler_info()["workers"]
        self.addresses = sorted(workers, key=lambda address: str(workers[address]["name"]))[:nodes]

    @property
    def scheduler(self) -> str:
        """The scheduler's own address, such as ``tcp://10.0.0.7:8786``."""
        return str(self._client.scheduler_info()["address"])

    @property
    def told(self) -> dict[str, str]:
        """Say where the scheduler is (`scheduler`), and its own pages (`pages`); those are empty where it has none."""
        served = self._own is None and "dashboard" in self._client.scheduler_info().get("services", {})
        return {"scheduler": self.scheduler, "pages": str(self._client.dashboard_link) if served else ""}

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def install(
        self,
        contact: Contact,
        operators: Mapping[str, Operator],
        memory_bytes: int,
        make: MakeNode = StagingNode,
        unwanted: Callable[[], bool] = _never,
    ) -> None:
        """Start a staging node in each worker by ``make(contact, number, operators, memory_bytes, holder)``.

        Compiling operators may take minutes; it waits no longer once they are `unwanted`. Raises what `make` raises,
        and `RunError` where workers do not answer.
        """
        arguments = (contact, dict(operators), memory_bytes)
        self._made = lambda name, numbers: NodePlugin(name, make, numbers, self._client.id, arguments)
        self._run = contact.run
        self._register({address: number for number, address in enumerate(self.addresses)}, unwanted)

    def spare(self, number: int) -> list[str]:
        """Return the workers that have no staging node, and never had one.

        Where there are not so many, and the cluster is our own, it starts more, which are there some time later.
        """
        workers = self._client.scheduler_info()["workers"]
        spare = sorted(set(workers).difference(self.addresses))
        if self._own is not None and len(spare) < number:
            cluster, folder = self._own
            wanted = len(workers) + number - len(spare)
            # A worker that was killed is started anew by itself.
            if len(cluster.worker_spec) < wanted:
                with _settings_for(folder), _deaf_children():
                    cluster.scale(wanted)
                    end = time.monotonic() + START_S
                    while len(cluster.workers) < wanted and time.monotonic() < end:
                        threading.Event().wait(REMOVE_S / 20)  # they read these settings when they are made
        return spare

    def add(self, address: str, number: int) -> None:
        """Start staging node `number` in a worker that came after the others; as `install` does, and as long."""
        self.addresses.append(address)
        self._register({address: number})

    def _register(self, numbers: Mapping[str, int], unwanted: Callable[[], bool] = _never) -> None:
        name = f"insitu-{self._run}-{min(numbers.values())}"
        self._plugins.append(name)
        register = partial(self._client.register_plugin, self._made(name, numbers))
        self._within(WARM_S, register, "start their staging nodes", unwanted)

    def write(
        self,
        recipe: Recipe,
        path: Path | None,
        window: int,
        row: int,
        held: Sequence[HeldStates],
        parts: Sequence[Part] = (),
        memory: State | None = None,
    ) -> tasks.Done:
        """Merge the `held` states of a window and the `parts` that are here; write row `row` of the store at `path`.

        Returns what was finalised, which stays where it is for as long as that is kept, when the row is written; it is
        not shown yet. Without a path nothing is written. Lets go of the held states, whatever happens. Raises
        `RunError` where one of them was lost with its worker, `OperatorError` where the operator cannot merge them.
        """
        states: list[Any] = [Future(each.key, self._client) for each in held]
        with self._named(f"Operator '{recipe.name}', window {window}"):
            try:
                _require_apart([*(place for each in held for place in each.places), *(part[:2] for part in parts)])
                places = [each.places for each in held]
                done = tasks.finalized(self._task, recipe, states, places, parts, memory)
                if path is not None:
                    self._result(tasks.written(self._task, Target(recipe, path, row), done))
                return done
            finally:
                for state in states:
                    self._kept.pop(state.key, None)
                    state.release()

    def row(self, recipe: Recipe, done: tasks.Done, which: str) -> dict[str, Array]:
        """Return a small row."""
        with self._named(which):
            row: dict[str, Array] = self._result(tasks.gathered(self._task, recipe, done))
            return row

    def series(self, done: tasks.Done, which: str) -> Any:
        """Return what `SeriesOperator.series` says of a window."""
        with self._named(which):
            return self._result(done.series)

    def numbers(
        self, recipe: Recipe, done: tasks.Done, wanted: Collection[Reference], which: str
    ) -> dict[Reference, float]:
        """Return numbers of a window's row, each computed where its cells lie."""
        with self._named(which):
            numbers = [self._task(recipe.numbers, each, tuple(wanted)) for each in done.parts] if wanted else []
            return join_numbers([self._result(each) for each in numbers])

    def fetch(self, which: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function of small result makes of data that lies at a worker."""
        with self._named(which):
            return self._result(self._task(function, *arguments))

    def task(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have a function called where most of its arguments lie; return what stands for its result."""
        return self._task(function, *arguments)

    def held(self, key: str) -> Any:
        """Return what stands for data that a worker holds."""
        return Future(key, self._client)

    def hold(self, future: Any) -> str:
        """Keep the result of a task until `release`; return its key."""
        self._kept[future.key] = future
        return str(future.key)

    def release(self, keys: Iterable[str]) -> None:
        """Let go of held states that nobody will merge."""
        for key in keys:
            self._kept.pop(key, None)
            Future(key, self._client).release()

    def close(self) -> None:
        """End the staging nodes, and the workers that are ours. May be called twice."""
        if self._client.status == "running":
            for plugin in self._plugins if self._own is None else ():
                unregister = partial(self._client.unregister_worker_plugin, plugin)
                self._within(CLOSE_S, unregister, "end their staging nodes")
            self._client.close()
        if self._own is not None:
            cluster, folder = self._own
            cluster.close(CLOSE_S)
            _remove(folder)

    def _within(
        self, limit_s: float, call: Callable[[], Any], what: str, unwanted: Callable[[], bool] = _never
    ) -> None:
        """Call a method of the client in its event loop, where it can be given up."""

        async def called() -> None:
            await call()

        loop: Any = self._client.loop
        done = asyncio.run_coroutine_threadsafe(called(), loop.asyncio_loop)
        end = time.monotonic() + limit_s
        # Looks, since a signal does not end this thread's wait where the system has given it to another thread.
        while not wait([done], LOOK_S).done and not unwanted() and time.monotonic() < end:
            """Still under way."""
        if done.done():
            return done.result()
        done.cancel()
        if not unwanted():
            raise RunError(
                f"The Dask workers did not {what} within {limit_s:g} s. See whether their processes run and their "
                "machines have processors to spare."
            )

    @contextmanager
    def _named(self, which: str) -> Iterator[None]:
        """Turn what goes wrong at workers into errors that name what it was about."""
        try:
            yield
        except (KilledWorker, CancelledError) as error:
            raise RunError(f"{which}: the states are lost with the Dask worker that held them ({error}).") from error
        except TimeoutError as error:
            raise RunError(f"{which}: not written within {WRITE_S:g} s. See whether all workers run.") from error
        except InsituError as error:
            raise type(error)(f"{which}: {error}") from error
        except Exception as error:  # an operator is foreign code, and so may its errors be
            raise OperatorError(f"{which}: {type(error).__name__}: {error}") from error

    @staticmethod
    def _result(future: Any) -> Any:
        return future.result(timeout=WRITE_S)

    def _task(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._client.submit(function, *arguments, pure=False)


def start_cluster(cluster: str, nodes: int) -> Cluster:
    """Start `nodes` workers on this machine where `cluster` is ``local``, else use as many of a cluster that runs.

    That one is given by its scheduler's address or the path of its scheduler file; insitu and the operators must be
    installed there. Takes about half a second. Raises `RunError` where the workers do not come.
    """
    return _start_local(nodes) if cluster == "local" else _connect(cluster, nodes)


def _start_local(nodes: int) -> Cluster:
    folder = tempfile.mkdtemp(prefix="insitu-dask-")
    try:
        with _settings_for(folder), _deaf_children():
            own = LocalCluster(
                n_workers=nodes,
                threads_per_worker=1,
                host="127.0.0.1",
                memory_limit=None,
                local_directory=folder,
                silence_logs=logging.CRITICAL,
                # What a killed process leaves goes with the folder. As a setting it would yield to a TMPDIR of ours.
                env={"TMPDIR": folder},
                death_timeout=START_S,
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            )
            return Cluster(Client(own, set_as_default=False), nodes, (own, folder))
    except (OSError, RuntimeError, AssertionError) as error:
        _remove(folder)
        # Dask gives up a worker that is late by an assertion of its own, which says nothing.
        late = isinstance(error, TimeoutError | AssertionError)
        why = f"they did not come up within {START_S:g} s" if late else str(error)
        raise RunError(
            f"Cannot start {nodes} Dask workers on this machine: {why}. See whether it has memory and processors to "
            "spare and what its Dask configuration has them load, or lower staging.nodes."
        ) from error


def _settings_for(folder: str) -> "dask.config.set":
    """Return the settings of our own workers.

    What the scheduler would put into a folder that is shared by all of Dask on this machine goes into theirs too.
    """
    settings = {**SETTINGS, "temporary-directory": folder, "distributed.nanny.pre-spawn-environ": THREADS}
    return dask.config.set(settings)


def _remove(folder: str) -> None:
    """Remove what a run had for itself, though a learner's process whose worker was killed may be removing its part."""
    end = time.monotonic() + REMOVE_S
    while os.path.exists(folder) and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)
        if os.path.exists(folder):
            threading.Event().wait(0.01)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Let the processes that are started here never hear of Ctrl-C, which reaches all processes of a terminal.

    What it means is for the controller to say, and a worker that is still importing would die of it with a traceback.
    What a thread blocks is inherited by the threads and processes that it starts, now and later. A Ctrl-C that comes
    meanwhile is not lost: it is waiting when the block ends.
    """
    resource_tracker.ensure_running()  # Python 3.11 starts it with the first worker, and then lifts the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _connect(cluster: str, nodes: int) -> Cluster:
    address = cluster if "://" in cluster else _address_in(Path(cluster))
    try:
        # Greeted first: a client that cannot connect leaves its event loop running for good.
        asyncio.run(_greet(address))
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise RunError(
            f"No Dask scheduler answers at {address}: {error}. Start one, or take staging.cluster: local."
        ) from error
    try:
        client.wait_for_workers(nodes, timeout=CONNECT_S)
    except TimeoutError as error:
        there = len(client.scheduler_info()["workers"])
        client.close()
        raise RunError(
            f"The Dask cluster at {address} has {there} workers, and staging.nodes asks for {nodes}. Start more with "
            "'dask worker', or lower staging.nodes."
        ) from error
    return Cluster(client, nodes, None)


def _address_in(file: Path) -> str:
    """Return the scheduler's address in a scheduler file."""
    try:
        return str(json.loads(file.read_text())["address"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(
            f"No scheduler's address can be read from {file}: {error!r}. Start a Dask scheduler with "
            f"--scheduler-file {file}."
        ) from error


async def _greet(address: str) -> None:
    comm = await connect(address, timeout=CONNECT_S, **Security().get_connection_args("client"))
    await comm.close()


def _require_apart(places: Sequence[Place]) -> None:
    fault = fault_of_places(tuple(places))
    if fault is not None:
        raise OperatorError(
            f"blocks moved within the window, so that no state has all steps of a cell: {fault}. Choose windows that "
            "end where the blocks move."
        )
