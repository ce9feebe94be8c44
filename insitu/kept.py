# SPDX-License-Identifier: Apache-2.0
"""Loading what stays: modules and compiled code."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept() -> Iterator[None]:
    """Keep the collector of garbage from ever looking at what is there at the end of this block.

    Each of the many objects that a module consists of brings the next collection nearer, and each collection looks
    through all modules loaded so far: a fifth of the time that a command, a node or a learner takes to start. It is for
    processes of our own: what is garbage at the end stays too.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # first: the collector would begin at once
        if before:
            gc.enable()
