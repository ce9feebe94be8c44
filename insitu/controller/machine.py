# SPDX-License-Identifier: Apache-2.0
"""What this machine offers to a run, and what would keep one from working.

Everything is a `Finding`: what was looked at, what was found, and where it is wrong, the cure. Nothing is changed.
"""

import platform
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from insitu import __version__
from insitu.controller.network import interfaces
from insitu.errors import RunError
from insitu.text import size
from insitu.wire import segment, speed
from insitu.wire.addresses import LOOPBACK
from insitu.wire.sockets import library, listen, new_keys

#: Name, and whether nothing goes without it.
PACKAGES = {
    "pyzmq": True, "msgpack": True, "numpy": True, "dask": True, "distributed": True, "numba": True, "xarray": True,
    "zarr": True, "mpi4py": False, "datasketches": False,
}  # fmt: skip
#: A rank has some ten descriptors; a staging node two for each rank that feeds it.
DESCRIPTORS = 1024
#: The default of a rank's buffer, which is one segment.
SEGMENT_BYTES = 256 << 20
#: Where Linux says what a container may use, in the two generations of control groups.
CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `wrong` says what to do; `fatal` that no run would work before that."""

    section: str
    name: str
    value: str
    wrong: str = ""
    fatal: bool = False


def look() -> Iterator[Finding]:
    """Look at everything; the speeds take about a second."""
    for part in (versions, network, ports, memory, shared_memory, speeds):
        yield from part()


def versions() -> Iterator[Finding]:
    yield Finding("versions", "insitu", __version__)
    yield Finding("versions", "python", platform.python_version())
    for package, needed in PACKAGES.items():
        try:
            yield Finding("versions", package, version(package))
        except PackageNotFoundError:
            wrong = f"pip install {package}" if needed else ""
            yield Finding("versions", package, "not installed", wrong, fatal=needed)
    number, encrypts = library()
    wrong = "" if encrypts else "take pyzmq from a wheel: without CURVE nothing leaves this machine"
    yield Finding("versions", "libzmq", f"{number}, {'with' if encrypts else 'without'} CURVE", wrong)
    launcher = shutil.which("mpiexec")
    yield Finding("versions", "mpiexec", launcher or "not found")


def network() -> Iterator[Finding]:
    yield Finding("network", "host", socket.gethostname())
    for name, address in interfaces().items():
        use = "network.interface: auto, with cluster: local" if address == LOOPBACK else f"network.interface: {name}"
        yield Finding("network", name, f"{address}  ({use})")


def ports() -> Iterator[Finding]:
    """See whether each address can be listened at."""
    keys = new_keys()
    for name, address in interfaces().items():
        try:
            with listen(f"tcp://{address}:*", keys):
                yield Finding("ports", name, "can be listened at")
        except RunError as error:
            yield Finding("ports", name, "cannot be listened at", str(error), fatal=address == LOOPBACK)


def memory() -> Iterator[Finding]:
    yield Finding("memory", "of this machine", size(psutil.virtual_memory().total))
    yield Finding("memory", "available", size(psutil.virtual_memory().available))
    yield Finding("memory", "limit of its container", _limit(_cgroup_bytes()))
    yield Finding("memory", "ulimit -v", _limit(_soft(resource.RLIMIT_AS)))
    files = _soft(resource.RLIMIT_NOFILE)
    wrong = "" if files is None or files >= DESCRIPTORS else f"ulimit -n {DESCRIPTORS}: each rank takes some"
    yield Finding("memory", "ulimit -n", "none" if files is None else f"{files} open files", wrong)


def _limit(nbytes: int | None) -> str:
    return "none" if nbytes is None else size(nbytes)


def _soft(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _cgroup_bytes() -> int | None:
    """Return the limit of the control group that this process sees as its root, where there is one."""
    for path in CGROUPS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue  # another system, or the other generation
        if text.isdecimal() and int(text) < psutil.virtual_memory().total:
            return int(text)
    return None


def shared_memory() -> Iterator[Finding]:
    usage = shutil.disk_usage(segment.FOLDER)
    short = "" if usage.free >= SEGMENT_BYTES else "free some, or lower variables.'*'.buffer; else blocks go over tcp"
    yield Finding("shared memory", str(segment.FOLDER), f"{size(usage.total)}, {size(usage.free)} free", short)
    left = segment.left_behind()
    nbytes = sum(path.stat().st_size for path in left)
    text = f"{len(left)} of dead processes, {size(nbytes)}" if left else "none"
    yield Finding("shared memory", "left behind", text, "insitu doctor --clean removes them" if left else "")


def speeds() -> Iterator[Finding]:
    yield _speed("copy", speed.copy_speed)
    yield _speed("tcp over loopback", speed.link_speed)
    _, encrypts = library()
    if encrypts:
        keys = new_keys()
        yield _speed("the same, encrypted", lambda: speed.link_speed(keys))


def _speed(name: str, measure: Callable[[], float]) -> Finding:
    try:
        return Finding("speed", name, f"{size(measure())}/s")
    except RunError as error:
        return Finding("speed", name, "cannot be measured", str(error), fatal=True)


def clean() -> list[str]:
    """Remove the segments that were left behind; return their names."""
    left = segment.left_behind()
    for path in left:
        path.unlink(missing_ok=True)
    return [path.name for path in left]
