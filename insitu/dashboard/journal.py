# SPDX-License-Identifier: Apache-2.0
"""Reads ``log.jsonl`` while it grows."""

import json
from collections import deque
from pathlib import Path
from typing import Any

#: Events that are kept to be shown; those before are in the file.
EVENTS = 500
#: Bytes that are read at a time, so that a log of gigabytes costs no more than its end.
READ_BYTES = 1 << 20


class LogTail:
    """The last events of a run's log. A line that is not whole yet is read the next time."""

    def __init__(self, path: Path) -> None:
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._path = path
        self._at = 0

    def refresh(self) -> bool:
        """Take in what is new; return whether anything is."""
        try:
            length = self._path.stat().st_size
        except OSError:
            return False  # not there yet
        if length <= self._at:
            return False
        skipped = length - self._at > READ_BYTES
        with self._path.open("rb") as file:
            file.seek(max(self._at, length - READ_BYTES))
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._at = length - len(text) + len(whole)
        lines = whole.splitlines()[1 if skipped else 0 :]
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a crash may have cut a line
            if isinstance(event, dict):
                self.events.append(event)
        return bool(lines)
