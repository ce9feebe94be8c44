# SPDX-License-Identifier: Apache-2.0
"""How kernels are compiled: released from the GIL, cached on disk, free to reorder sums but not to lose NaN.

A kernel that has variants (an order, a policy) is built by a factory whose arguments numba sees as constants, so that
what a variant does not need is not in its code. numba's cache has two gaps:

* it numbers what it saves by counting, so of two processes that compile for different dtypes at once, one could later
  take the other's code for its own; so one at a time saves;
* it looks at the kernel's own file when it decides whether code is current, not at the helpers' files; so the name of a
  kernel, and with it of its files, ends in a digest of all of them.
"""

import fcntl
import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast

import numba
from numba.core.caching import FunctionCache


class Kernel(Protocol):
    """A compiled function. numba's own types do not say what it takes and returns; its docstring does."""

    def __call__(self, *arguments: Any) -> Any: ...


#: Sums may be reordered and products fused, which is what makes loops vectorise; without "nnan" and "ninf", NaN and
#: infinity keep their meaning.
FASTMATH = {"contract", "reassoc", "arcp", "nsz"}

_SOURCES = sorted(Path(__file__).parent.glob("*.py"))
_DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:12]


class _OneAtATime(FunctionCache):
    """numba's cache of one function, to which one process at a time saves."""

    def save_overload(self, sig: Any, data: Any) -> None:
        folder = Path(self.cache_path)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{_DIGEST}.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def compiled(function: Callable[..., Any], *variant: object) -> Kernel:
    """Return `function` as a kernel that is compiled at its first call, or read from the cache.

    Where no cache can be written (a read-only installation without a home directory) it is compiled in each process.
    """
    function.__qualname__ = "_".join(map(str, (function.__name__, *variant, _DIGEST)))
    kernel: Any = inlined(function)
    with suppress(RuntimeError):  # "cannot cache function ...: no locator available"
        kernel._cache = _OneAtATime(function)  # type: ignore[no-untyped-call]
    return cast(Kernel, kernel)


def inlined(function: Callable[..., Any]) -> Kernel:
    """Return a helper of kernels, which becomes part of each kernel that calls it."""
    kernel: Kernel = numba.njit(nogil=True, fastmath=FASTMATH)(function)
    return kernel
