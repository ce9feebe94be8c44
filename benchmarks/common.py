# SPDX-License-Identifier: Apache-2.0
"""Rounds and reports, for all benchmarks.

What is compared runs in the same rounds, one contender after the other, so that a change in the machine's mood meets
all of them; and medians are compared, so that a single bad round decides nothing.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

RESULTS = Path(__file__).parent / "results"


class Optional(Protocol):
    """A contender that may have to be left out."""

    @property
    def missing(self) -> str:
        """Why it cannot take part, or nothing."""


C = TypeVar("C", bound=Optional)


def arguments(doc: str | None, rounds: int = 3) -> argparse.Namespace:
    """Return what the command line says: ``--rounds``, and ``--quick`` for one round of the least that tells anything.

    `doc` is the module's docstring.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"rounds, of which the median counts (default: {rounds})")
    parser.add_argument("--quick", action="store_true", help="one round, fewer steps: to try it out")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else rounds)
    return options


def present(contenders: Mapping[str, C]) -> tuple[dict[str, C], dict[str, str]]:
    """Return the contenders that can take part, and of the others why not, which is said here too."""
    missing = {name: each.missing for name, each in contenders.items() if each.missing}
    for name, why in missing.items():
        print(f"left out: {name}: {why}", flush=True)
    return {name: each for name, each in contenders.items() if name not in missing}, missing


def rounds(contenders: Mapping[str, Callable[[], float]], n: int) -> dict[str, float]:
    """Call every contender in turn, `n` times over; return the median of what each returned."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(n):
        for name, run in contenders.items():
            found[name].append(run())
            print(f"round {k + 1} of {n}: {name}: {found[name][-1]:.4g}", flush=True)
    return {name: statistics.median(values) for name, values in found.items()}


def report(
    title: str, rows: Sequence[Mapping[str, Any]], json_path: Path, missing: Mapping[str, str] | None = None
) -> None:
    """Print the rows, which all have the same keys, as a table; keep them in a file, with what was `missing`."""
    cells = [list(rows[0]), *([text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}\n")
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    json_path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"title": title, "machine": _machine(), "missing": dict(missing or {}), "rows": list(rows)}
    json_path.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"\nwritten: {json_path}")


def _machine() -> dict[str, Any]:
    """Return where and when this was measured."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = next((line.split(": ", 1)[1] for line in info.read_text().splitlines() if "model name" in line), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def text(value: Any) -> str:
    """Numbers with three digits that count.

    >>> text(12345.6), text(0.012345), text("ring")
    ('12,346', '0.0123', 'ring')
    """
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
