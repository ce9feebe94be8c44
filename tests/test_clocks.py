# SPDX-License-Identifier: Apache-2.0
"""Clocks that jump: waits are measured by a clock that cannot, and the wall clock only dates things for people.

``end_to_end/test_clock_jumps.py`` has a run in which they do.
"""

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
OF_TIME = {
    "time",
    "time_ns",
    "clock_gettime",
    "clock_gettime_ns",
    "localtime",
    "gmtime",
    "ctime",
    "strftime",
    "asctime",
}
OF_DATES = {f"{name}.{call}" for name in ("datetime", "date") for call in ("now", "utcnow", "today", "fromtimestamp")}
WALL = {f"time.{name}" for name in OF_TIME} | OF_DATES | {f"datetime.{call}" for call in OF_DATES}


def test_only_what_dates_things_looks_at_the_wall_clock() -> None:
    found = set()
    for path in [*ROOT.glob("insitu/**/*.py"), *ROOT.glob("analytics/**/*.py"), *ROOT.glob("adapters/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Attribute) and ast.unparse(node) in WALL
            imported = (
                isinstance(node, ast.ImportFrom)
                and node.module == "time"
                and any(name.name in OF_TIME for name in node.names)
            )
            if called or imported:
                found.add(str(path.relative_to(ROOT)))
    assert found == DATES.keys()
