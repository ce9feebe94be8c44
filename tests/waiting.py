# SPDX-License-Identifier: Apache-2.0
"""Waiting in tests: on a condition, with a limit, never for a fixed time."""

import time
from collections.abc import Callable
from threading import Event

#: Seconds between two looks: at least, and at most where one look takes long.
SHORTEST_S, LONGEST_S = 0.005, 0.2


def wait_until(condition: Callable[[], object], limit_s: float = 60.0, what: str = "") -> None:
    """Return once `condition` holds; fail when it does not within `limit_s`, naming what was waited for.

    Between two looks it waits three times as long as a look takes, so that looking leaves the cores to what is awaited.
    """
    pause = Event()  # never set: its wait is the pause between two looks
    deadline = time.monotonic() + limit_s
    while True:
        begin = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < deadline, f"waited {limit_s} s in vain for {what or condition}"
        pause.wait(min(max(SHORTEST_S, 3 * (now - begin)), LONGEST_S))
