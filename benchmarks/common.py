# SPDX-License-Identifier: Apache-2.0
"""Rounds and reports, for all benchmarks.

What is compared runs in the same rounds, one contender after the other, so that a change in the machine's mood meets
all of them; and medians are compared, so that a single bad round decides nothing.
"""

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def rounds(contenders: Mapping[str, Callable[[], float]], n: int) -> dict[str, float]:
    """Call every contender in turn, `n` times over; return the median of what each returned."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(n):
        for name, run in contenders.items():
            found[name].append(run())
            print(f"round {k + 1} of {n}: {name}: {found[name][-1]:.4g}", flush=True)
    return {name: statistics.median(values) for name, values in found.items()}


def report(title: str, rows: Sequence[Mapping[str, Any]], json_path: Path) -> None:
    """Print the rows, which all have the same keys, as a table; keep them in a file."""
    cells = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}\n")
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    json_path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    json_path.write_text(json.dumps({"title": title, "machine": machine, "rows": list(rows)}, indent=2) + "\n")
    print(f"\nwritten: {json_path}")


def _text(value: Any) -> str:
    """Numbers with three digits that count.

    >>> _text(12345.6), _text(0.012345), _text("ring")
    ('12,346', '0.0123', 'ring')
    """
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
