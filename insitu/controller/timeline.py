# SPDX-License-Identifier: Apache-2.0
"""What a run has counted, once a second since its beginning, in bounded memory. No clock: whoever calls says the time.

All values but the time are totals, so that a difference of two rows is right whatever was left out between them.
"""

#: Rows that are kept; when there are more, every second one goes, and new ones come half as often.
ROWS = 600
#: How far apart rows are at first.
EVERY_S = 1.0
#: How far the last one is behind the others at least.
LAST_S = 0.05


class Timeline:
    """Rows of totals at growing distances.

    >>> timeline = Timeline(rows=4)
    >>> for second in range(9):
    ...     timeline.add(float(second), {"steps": 10 * second})
    >>> timeline.columns
    {'at_s': [0.0, 4.0, 8.0], 'steps': [0, 40, 80]}
    >>> timeline.add(8.5, {"steps": 85})
    >>> timeline.add(8.5, {"steps": 85}, last=True)
    >>> timeline.columns
    {'at_s': [0.0, 4.0, 8.0, 8.5], 'steps': [0, 40, 80, 85]}
    """

    def __init__(self, rows: int = ROWS, every_s: float = EVERY_S) -> None:
        #: By name, one value for each row; ``at_s`` is when.
        self.columns: dict[str, list[int | float]] = {"at_s": []}
        self._rows = rows
        self._every_s = every_s

    def due(self, now: float, *, last: bool = False) -> bool:
        """Whether it is time for another row; for the `last` one it is soon."""
        at = self.columns["at_s"]
        return not at or now - at[-1] >= (LAST_S if last else self._every_s)

    def add(self, now: float, totals: dict[str, int | float], *, last: bool = False) -> None:
        """Add a row, if it is time for one. The same names each time."""
        if not self.due(now, last=last):
            return
        for name, value in {"at_s": round(now, 3), **totals}.items():
            self.columns.setdefault(name, []).append(value)
        if len(self.columns["at_s"]) > self._rows:
            self._every_s *= 2
            self.columns = {name: values[::2] for name, values in self.columns.items()}
