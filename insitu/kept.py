# SPDX-License-Identifier: Apache-2.0
"""Loading what stays: modules and compiled code.

The collector of garbage is held by its threshold, not turned off: Dask notes at its import whether it is on, and would
leave it as it was then, for good.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: What `keep_from_the_start` has found, until `begun`.
_held: list[tuple[int, int, int]] = []


@contextmanager
def kept() -> Iterator[None]:
    """Keep the collector of garbage from ever looking at what is there at the end of this block.

    Each of the many objects that a module consists of brings the next collection nearer, and each collection looks
    through all modules loaded so far: a fifth of the time that a command, a node or a learner takes to start. It is for
    processes of our own: what is garbage at the end stays too.
    """
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        yield
    finally:
        gc.freeze()  # first: the collector would begin at once
        gc.set_threshold(*before)


def keep_from_the_start() -> None:
    """Do the same in a process that ``multiprocessing`` has started, as it does Dask workers, until `begun`.

    To be called by what such a process loads first: the main module of its parent. Dask itself comes next.
    """
    if "--multiprocessing-fork" in sys.orig_argv:
        _held.append(gc.get_threshold())
        gc.set_threshold(0)


def begun() -> None:
    """Let the collector begin where `keep_from_the_start` has held it."""
    if _held:
        gc.freeze()
        gc.set_threshold(*_held.pop())
