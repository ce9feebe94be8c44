# SPDX-License-Identifier: Apache-2.0
"""Clocks that jump: waits are measured by a clock that cannot, and the wall clock only dates things for people."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Where the wall clock is looked at, and what for.
DATES = {
    "insitu/controller/directory.py": "the time of an event",
    "insitu/controller/feed.py": "when a run began",
    "insitu/steering/actions.py": "when an action was asked for",
    "insitu/wire/segment.py": "the age of a file",
    "insitu/wire/tracing.py": "when a span begins and ends",
}
#: What tells the wall time, as it is called.
WALL = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "datetime.datetime.now"}


def test_only_what_dates_things_looks_at_the_wall_clock() -> None:
    found = set()
    for path in [*ROOT.glob("insitu/**/*.py"), *ROOT.glob("analytics/**/*.py"), *ROOT.glob("adapters/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Attribute) and ast.unparse(node) in WALL
            imported = (
                isinstance(node, ast.ImportFrom)
                and node.module == "time"
                and any(name.name in ("time", "time_ns") for name in node.names)
            )
            if called or imported:
                found.add(str(path.relative_to(ROOT)))
    assert found == DATES.keys()
