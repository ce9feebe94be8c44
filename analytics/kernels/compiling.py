# SPDX-License-Identifier: Apache-2.0
"""How kernels are compiled: released from the GIL, cached on disk, free to reorder sums but not to lose NaN.

A kernel that has variants (an order, a policy) is built by a factory whose arguments numba sees as constants, so that
what a variant does not need is not in its code. The cache has two gaps, both closed by giving each variant a name, and
with it a cache file, of its own:

* it numbers the files of one name by counting, so two processes that compile different variants at once would take each
  other's code for their own;
* it looks at the kernel's own file when it decides whether code is current, not at the helpers' files; so the name ends
  in a digest of all of them.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numba


class Kernel(Protocol):
    """A compiled function. numba's own types do not say what it takes and returns; its docstring does."""

    def __call__(self, *arguments: Any) -> Any: ...


#: Sums may be reordered and products fused, which is what makes loops vectorise; without "nnan" and "ninf", NaN and
#: infinity keep their meaning.
FASTMATH = {"contract", "reassoc", "arcp", "nsz"}

_SOURCES = sorted(Path(__file__).parent.glob("*.py"))
_DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:12]


def compiled(function: Callable[..., Any], *variant: object) -> Kernel:
    """Return `function` as a kernel that is compiled at its first call, or read from the cache.

    Where no cache can be written (a read-only installation without a home directory) it is compiled in each process.
    """
    function.__qualname__ = "_".join(map(str, (function.__name__, *variant, _DIGEST)))
    try:
        kernel: Kernel = numba.njit(nogil=True, fastmath=FASTMATH, cache=True)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        kernel = inlined(function)
    return kernel


def inlined(function: Callable[..., Any]) -> Kernel:
    """Return a helper of kernels, which becomes part of each kernel that calls it."""
    kernel: Kernel = numba.njit(nogil=True, fastmath=FASTMATH)(function)
    return kernel
