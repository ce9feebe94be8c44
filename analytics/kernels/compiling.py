# SPDX-License-Identifier: Apache-2.0
"""How kernels are compiled: released from the GIL, cached on disk, free to reorder sums but not to lose NaN.

A kernel that has variants (an order, a policy) is built by a factory whose arguments numba sees as constants, so that
what a variant does not need is not in its code. numba's cache has two gaps:

* it numbers what it saves by counting, so of two processes that compile for different dtypes at once, one could later
  take the other's code for its own; so one at a time compiles a kernel, and the staging nodes of a machine, which need
  the same at the same time, compile it once;
* it looks at the kernel's own file when it decides whether code is current, not at the helpers' files; so the name of a
  kernel, and with it of its files, ends in a digest of all of them.
"""

import fcntl
import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numba


class Kernel(Protocol):
    """A compiled function. numba's own types do not say what it takes and returns; its docstring does."""

    def __call__(self, *arguments: Any) -> Any: ...


#: Sums may be reordered and products fused, which is what makes loops vectorise; without "nnan" and "ninf", NaN and
#: infinity keep their meaning.
FASTMATH = {"contract", "reassoc", "arcp", "nsz"}

#: No way in for C code, which nobody takes; and a quotient by zero is infinite or NaN, as in NumPy, since an exception
#: that might be raised there keeps a loop from being vectorised. Both take a quarter off the time to compile.
_njit: Any = partial(numba.njit, nogil=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True)

_SOURCES = sorted(Path(__file__).parent.glob("*.py"))
_DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:12]


def compiled(function: Callable[..., Any], *variant: object) -> Kernel:
    """Return `function` as a kernel that is compiled at its first call, or read from the cache.

    Where no cache can be written (a read-only installation without a home directory) it is compiled in each process.
    """
    function.__qualname__ = "_".join(map(str, (function.__name__, *variant, _DIGEST)))
    kernel: Any = _njit()(function)
    with suppress(RuntimeError):  # "cannot cache function ...: no locator available"
        kernel.enable_caching()
        kernel.compile = _one_at_a_time(kernel)
    return cast(Kernel, kernel)


def _one_at_a_time(kernel: Any) -> Callable[[Any], Any]:
    """Return the kernel's way to compile, or to read from the cache, for one process on this machine at a time."""
    compile_ = kernel.compile
    folder, name = Path(kernel.stats.cache_path), kernel._cache._impl.filename_base

    def alone(signature: Any) -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{name}.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return compile_(signature)

    return alone


def inlined(function: Callable[..., Any]) -> Kernel:
    """Return a helper of kernels, which becomes part of those that call it; nothing else can."""
    kernel: Kernel = _njit(no_cpython_wrapper=True)(function)
    return kernel
