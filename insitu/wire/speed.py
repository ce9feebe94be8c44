# SPDX-License-Identifier: Apache-2.0
"""How fast this machine copies, and sends over loopback with and without encryption. Each takes a fraction of a second.

Sender and receiver are two threads of ZeroMQ's in one process: good for a ratio, and for telling a slow machine.
"""

import time

import numpy as np

from insitu.errors import RunError
from insitu.wire.addresses import LOOPBACK
from insitu.wire.keys import CurveKeys
from insitu.wire.sockets import connect, listen, poll

#: More than fits any cache, so that it is memory that is measured.
COPY_BYTES = 128 << 20
MESSAGE_BYTES = 4 << 20
#: The first messages make the connection and fault in their pages; they are not timed.
WARM_UP, MESSAGES = 2, 24
LIMIT_S = 20.0


def copy_speed() -> float:
    """Return bytes per second of the best of three copies into memory that was touched before."""
    source, target = np.ones(COPY_BYTES, np.uint8), np.zeros(COPY_BYTES, np.uint8)
    best_s = min(_timed(source, target) for _ in range(3))
    return COPY_BYTES / best_s


def _timed(source: np.ndarray, target: np.ndarray) -> float:
    begin = time.perf_counter()
    np.copyto(target, source)
    return time.perf_counter() - begin


def link_speed(keys: CurveKeys | None = None) -> float:
    """Return bytes per second over a tcp connection of this process with itself, encrypted where there are `keys`.

    Raises `RunError` where no port can be had, or nothing arrives within `LIMIT_S`.
    """
    data = np.ones(MESSAGE_BYTES, np.uint8)
    with listen(f"tcp://{LOOPBACK}:*", keys) as listener, connect(listener.address, keys) as sender:
        for _ in range(WARM_UP + MESSAGES):
            sender.send([data])
        started = begin = time.perf_counter()
        arrived = 0
        while arrived < WARM_UP + MESSAGES:
            if time.perf_counter() - started > LIMIT_S:
                sender.close(linger_s=0)
                raise RunError(f"Over loopback {arrived} messages arrived within {LIMIT_S:g} s; see whether it is up.")
            poll([listener], 0.1)
            while listener.receive() is not None:
                arrived += 1
                if arrived == WARM_UP:
                    begin = time.perf_counter()
        return MESSAGES * MESSAGE_BYTES / (time.perf_counter() - begin)
