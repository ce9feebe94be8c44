# SPDX-License-Identifier: Apache-2.0
"""Waiting in tests: on a condition, with a limit, never for a fixed time."""

import time
from collections.abc import Callable
from threading import Event


def wait_until(condition: Callable[[], object], limit_s: float = 10.0, what: str = "") -> None:
    """Return once `condition` holds; fail when it does not within `limit_s`, naming what was waited for."""
    pause = Event()  # never set: its wait is the pause between two looks
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s} s in vain for {what or condition}"
        pause.wait(0.005)
