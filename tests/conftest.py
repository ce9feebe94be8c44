# SPDX-License-Identifier: Apache-2.0
"""A test that leaves something behind fails, whatever else it proved.

Looked at: threads, file descriptors (and with them sockets and ZeroMQ contexts), processes and their descendants, and
segments of shared memory. What is on its way out has a few seconds to go. Tests of a module that share something which
comes and goes by itself, such as a Dask cluster, say ``pytestmark = pytest.mark.leaks_per_module``: then the module is
looked at as a whole.

The idea is zict's: https://github.com/dask/zict/blob/main/zict/tests/conftest.py
"""

import ctypes
import gc
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from tests.waiting import wait_until

# How long an example takes is the machine's business.
settings.register_profile("insitu", deadline=None)
settings.load_profile("insitu")

SHARED_MEMORY = Path("/dev/shm")

#: Pools that a library keeps for the life of the process and fills when it likes, by the start of their threads' names.
POOLS = ("Dask-Offload", "asyncio_", "zarr_")

#: Folders of tests in the order in which they are begun. First those that compile kernels: a process that tests loads
#: the compiler once, and staging nodes then find what they need compiled. Then those with the longest modules, and what
#: starts processes and waits for them; all others take seconds.
ORDER = ({"analytics"}, {"docs", "demos"}, {"end_to_end", "steering", "adapters", "learning"}, {"staging"})

_THRESHOLDS = gc.get_threshold()

#: Programs that tests start are no modules with examples.
collect_ignore_glob = ["*/programs/*"]


def _start_zmq() -> None:
    """Start pyzmq's collector, the thread that lets go of what was sent without a copy."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.PAIR) as a, context.socket(zmq.PAIR) as b:
        a.bind("inproc://collector")
        b.connect("inproc://collector")
        a.send(bytes(1 << 20), copy=False, track=True)
        b.recv()


def _start_zarr() -> None:
    """Start zarr's event loop, a thread of its own."""
    import zarr

    zarr.array([0])


def _start_matplotlib() -> None:
    """It keeps the files of its fonts open."""
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0.0, 0.0, "text")
    figure.savefig(io.BytesIO())


#: What a library starts once and keeps for the life of the process, by the module that does so.
PROCESS_WIDE: dict[str, Callable[[], None]] = {
    "matplotlib.font_manager": _start_matplotlib,
    "multiprocessing.resource_tracker": resource_tracker.ensure_running,
    "zarr": _start_zarr,
    "zmq": _start_zmq,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stress", type=int, default=1, metavar="N", help="how often a test marked stress is run")
    parser.addoption(
        "--grace", type=float, default=5.0, metavar="S", help="seconds that leftovers of a test have to go"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with modules that take long: the last one should not be awaited alone.

    The tests of a module that are marked ``in_order`` are put back into the order in which they stand there.
    """
    items.sort(key=lambda item: next((n for n, names in enumerate(ORDER) if names & set(item.path.parts)), len(ORDER)))
    places: dict[Path, list[int]] = {}
    for place, item in enumerate(items):
        if item.get_closest_marker("in_order"):
            places.setdefault(item.path, []).append(place)
    for several in places.values():
        ordered = sorted((items[place] for place in several), key=lambda item: item.location[1] or 0)
        for place, item in zip(several, ordered, strict=True):
            items[place] = item


def pytest_configure() -> None:
    """Spare the collector of garbage what is imported and collected, which stays: a third of the time that it takes.

    By its threshold, as `insitu.kept` does: else Dask would turn it off for good.
    """
    gc.set_threshold(0)


def pytest_collection_finish() -> None:
    """Have it never look at that later either: a look would take 0.7 s."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("stress"):
        metafunc.fixturenames.append("stress_round")
        metafunc.parametrize("stress_round", range(metafunc.config.getoption("--stress")))


@pytest.fixture(scope="session", autouse=True)
def _orphans_are_ours() -> None:
    """Become the parent of every orphan among our descendants, so that a process nobody waits for is seen too."""
    pr_set_child_subreaper = 36  # linux/prctl.h
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _threads() -> dict[int, str]:
    return {
        thread.ident: thread.name
        for thread in threading.enumerate()
        if thread.ident is not None and not thread.name.startswith(POOLS)
    }


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listdir itself used
    return found


#: Orphans that have ended, for which nobody waits: there are dozens after some runs, and each look met all of them.
_ENDED: set[int] = set()


def _descendants() -> list[int]:
    """Linux tells at once; psutil reads of every process on the machine whose child it is, twice for each test."""
    found, parents = [], [os.getpid()]
    try:
        while parents:
            tasks = f"/proc/{parents.pop()}/task"
            for thread in os.listdir(tasks):
                with open(f"{tasks}/{thread}/children", "rb", buffering=0) as told:
                    children = [pid for pid in map(int, told.read().split()) if pid not in _ENDED]
                found += children
                parents += children
    except OSError:  # a thread or process that has just ended, or a kernel that does not tell: one has to look
        return [process.pid for process in psutil.Process().children(recursive=True)]
    return found


def _processes() -> dict[int, str]:
    found = {}
    for pid in _descendants():
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                _ENDED.add(pid)
                continue
            found[process.pid] = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue  # it ended between the two calls
    return found


def _segments() -> dict[str, str]:
    return {path.name: str(path) for path in SHARED_MEMORY.iterdir()}


def _used_by_others(segment: str) -> bool:
    """Say whether a process that is not ours has mapped this segment: another run on the same machine.

    By its number, since a semaphore is made under another name, which is what its maker's maps go on to say.
    """
    try:
        number = str(os.stat(segment).st_ino)
    except FileNotFoundError:
        return True  # it is gone
    ours = {os.getpid(), *_processes()}
    for pid in set(psutil.pids()) - ours:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:
            continue  # it ended, or belongs to another user
        if any(line.split(maxsplit=5)[4] == number for line in lines if str(SHARED_MEMORY) in line):
            return True
    return False


LOOKS: dict[str, Callable[[], dict]] = {
    "threads": _threads,
    "file descriptors": _descriptors,
    "processes": _processes,
    "shared memory": _segments,
}


def _look() -> dict[str, dict]:
    return {kind: look() for kind, look in LOOKS.items()}


def _fresh(before: dict[str, dict]) -> dict[str, dict]:
    """What is there now and was not there before, by kind."""
    fresh = {kind: {k: v for k, v in now.items() if before[kind].get(k) != v} for kind, now in _look().items()}
    # A process has another name between fork and exec; no other one gets its number within a test.
    fresh["processes"] = {pid: name for pid, name in fresh["processes"].items() if pid not in before["processes"]}
    fresh["shared memory"] = {k: v for k, v in fresh["shared memory"].items() if not _used_by_others(v)}
    return {kind: found for kind, found in fresh.items() if found}


def _told(fresh: dict[str, dict]) -> str:
    """What was left behind, with where sockets lead: of the number of one nobody knows whose it is."""
    connections = psutil.Process().net_connections("all")
    ends = {each.fd: f"{each.laddr or 'nowhere'} to {each.raddr or 'nowhere'}" for each in connections}
    descriptors = fresh.get("file descriptors", {})
    for number in descriptors.keys() & ends.keys():
        descriptors[number] += f" ({ends[number]})"
    return "; ".join(f"{kind}: {', '.join(map(str, left.values()))}" for kind, left in fresh.items())


def _start_process_wide(started: set[str]) -> None:
    """Start what the modules imported so far keep for good."""
    for name in PROCESS_WIDE.keys() - started:
        if name in sys.modules:
            PROCESS_WIDE[name]()
            started.add(name)


def _leaks_nothing(request: pytest.FixtureRequest, started: set[str]) -> Iterator[None]:
    _start_process_wide(started)
    before, started_before = _look(), set(started)
    yield
    _start_process_wide(started)
    if started != started_before or not _fresh(before):
        return  # the first to import a library that keeps things is let off: they cannot be told apart
    gc.unfreeze()  # a command that was called in this process has frozen what was garbage too
    gc.collect()
    gc.freeze()
    try:
        wait_until(lambda: not _fresh(before), request.config.getoption("--grace"))
    except AssertionError:
        if found := _told(_fresh(before)):  # else the last of it went with the last look
            pytest.fail(f"{request.node.name} left behind {found}", pytrace=False)


@pytest.fixture(scope="session")
def _started() -> set[str]:
    return set()


@pytest.fixture(scope="module", autouse=True)
def _module_leaks_nothing(
    request: pytest.FixtureRequest, _orphans_are_ours: None, _started: set[str]
) -> Iterator[None]:
    yield from _leaks_nothing(request, _started)


@pytest.fixture(autouse=True)
def _test_leaks_nothing(request: pytest.FixtureRequest, _started: set[str]) -> Iterator[None]:
    if request.node.get_closest_marker("leaks_per_module"):
        yield
    else:
        yield from _leaks_nothing(request, _started)
