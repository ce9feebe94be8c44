# SPDX-License-Identifier: Apache-2.0
"""All that docs/performance.md shows.

    python -m benchmarks.performance            measure it: about twenty minutes on a quiet machine
    python -m benchmarks.performance --quick    the same in four, to see that all of it works
    python -m benchmarks.performance --write    put what was measured last into docs/performance.md, and draw its plot

Peers that are not installed are left out: ``python -m benchmarks.peers`` installs them.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.by_hand import ROOT
from benchmarks.common import RESULTS, text
from benchmarks.goals import goals
from benchmarks.peers import PEERS

BENCHMARKS = ("put_receive", "statistics", "scaling", "operators")
FILES = ("put_receive", "round_trip", "statistics", "scaling", "operators", "operators_growth")
PAGE, PICTURE = ROOT / "docs" / "performance.md", ROOT / "docs" / "pictures" / "scaling.png"
PLOT = RESULTS / "scaling.png"

Rows = list[dict[str, Any]]
Measured = dict[str, dict[str, Any]]


def measure(quick: bool) -> None:
    """Run the benchmarks, one after the other, each in a process of its own."""
    begin = time.monotonic()
    for name in BENCHMARKS:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])], check=True)
    draw(measured()["scaling"]["rows"], PLOT)
    print(f"\nwritten: {PLOT}\nall of it took {(time.monotonic() - begin) / 60:.1f} minutes")


def measured() -> Measured:
    """Return what was measured last. Exits with what to do where that is nothing."""
    missing = [name for name in FILES if not (RESULTS / f"{name}.json").exists()]
    if missing:
        sys.exit(f"Not measured yet: {', '.join(missing)}. Run python -m benchmarks.performance first.")
    return {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in FILES}


def write(found: Measured) -> None:
    """Put tables between the markers of the page that have their names, and draw the plot."""
    page = PAGE.read_text()
    for name, lines in sections(found).items():
        begin, end = f"<!-- {name}: written by benchmarks.performance -->", f"<!-- end of {name} -->"
        if begin not in page or end not in page:
            sys.exit(f"{PAGE} has no place for '{name}'; put it between\n{begin}\n{end}")
        before, rest = page.split(begin, 1)
        page = "\n".join([before + begin, *lines, end + rest.split(end, 1)[1]])
    PAGE.write_text(page)
    draw(found["scaling"]["rows"], PICTURE)
    print(f"written: {PAGE}, {PICTURE}")


def sections(found: Measured) -> dict[str, list[str]]:
    """Return the lines of each part of the page."""
    throughput, answers = found["put_receive"]["rows"], found["round_trip"]["rows"]
    statistics = found["statistics"]["rows"]
    reached = goals(throughput, answers, statistics)
    return {
        "machine": [machine(found)],
        **by_size(throughput),
        "round trips": table(
            ["µs", "median", "95 %"], picked(answers, "contender", "round_trip_p50_us", "round_trip_p95_us")
        ),
        "statistics": table(["", "steps/s"], picked(statistics, "contender", "steps/s")),
        "scaling": [
            "![The cost of a step](pictures/scaling.png)",
            "",
            *table(
                ["ranks", "variables", "transport", "µs a step", "µs a block"],
                picked(found["scaling"]["rows"], "ranks", "variables", "transport", "step_us", "block_us"),
            ),
        ],
        **of_operators(found),
        "goals": table(
            ["", "goal", "measured", ""],
            (
                [goal.what, f"{goal.sign} {text(goal.bound)}", text(goal.value), "" if goal.reached else "not reached"]
                for goal in reached
            ),
        ),
    }


def by_size(throughput: Rows) -> dict[str, list[str]]:
    """Return the tables with a column for each size of a block."""
    sizes = list(dict.fromkeys(row["block_KiB"] for row in throughput))
    names = list(dict.fromkeys(row["contender"] for row in throughput))
    at = {(row["contender"], row["block_KiB"]): row for row in throughput}
    return {
        "throughput": table(
            ["MiB/s", *map(size_text, sizes)],
            ([name, *(text(float(at[name, size]["MiB/s"])) for size in sizes)] for name in names),
        ),
        "calls": table(
            ["µs: median, 95 %, longest", *map(size_text, sizes)],
            ([name, *(call_text(at[name, size]) for size in sizes)] for name in names),
        ),
    }


def of_operators(found: Measured) -> dict[str, list[str]]:
    """Return the tables of what operators take, and how that grows."""
    keys = ("operator", "folded_GB/s", "of np.sum", "with_result_GB/s", "a_16th_GB/s", "library", "library_GB/s")
    head = ["GB/s of input", "folded", "of np.sum", "with the result", "a 16th of the cells", "library", "its", "ratio"]
    grown = found["operators_growth"]["rows"]
    return {
        "operators": table(
            head,
            picked(found["operators"]["rows"], *keys, "of library"),
        ),
        "growth": table(
            ["", "against", "from", "to", "ms", "", "exponent"],
            (
                [*cells, f"{row['exponent']:.2f}"]
                for row, cells in zip(
                    grown, picked(grown, "operator", "against", "from", "to", "first_ms", "last_ms"), strict=True
                )
            ),
        ),
    }


def machine(found: Measured) -> str:
    """Say where, when and beside what."""
    on = found["put_receive"]["machine"]
    left_out = {name: why for each in found.values() for name, why in each["missing"].items()}
    said = (
        f"Measured on {on['date']}: {on['cpu']}, {on['cores']} cores, {on['memory_GiB']} GiB; {on['system']}; "
        f"CPython {on['python']}; peers: {', '.join(needs[0].replace('==', ' ') for needs in PEERS.values())}."
    )
    return said + "".join(f" Left out: {name} ({why})." for name, why in left_out.items())


def picked(rows: Rows, *keys: str) -> list[list[str]]:
    return [[text(row[key]) for key in keys] for row in rows]


def table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def size_text(kib: int) -> str:
    return f"{kib} KiB" if kib < 1024 else f"{kib >> 10} MiB"


def call_text(row: dict[str, Any]) -> str:
    return " / ".join(text(float(row[f"call_{key}_us"])) for key in ("p50", "p95", "max"))


def draw(rows: Rows, path: Path) -> None:
    """Plot what a step costs against ranks and against variables, with a line for what would be proportional."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.use("agg")
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    for axes, against, other in zip(figure.subplots(1, 2), ("ranks", "variables"), ("variables", "ranks"), strict=True):
        fewest = min(row[other] for row in rows)
        for transport in dict.fromkeys(row["transport"] for row in rows):
            some = sorted(
                (row[against], row["step_us"]) for row in rows if row["transport"] == transport and row[other] == fewest
            )
            axes.loglog(*zip(*some, strict=True), "o-", label=transport)
        numbers = [some[0][0], some[-1][0]]
        axes.loglog(numbers, [some[0][1] * n / numbers[0] for n in numbers], ":", color="grey", label="proportional")
        axes.set(xlabel=against, ylabel="µs a step", title=f"{fewest} {other if fewest > 1 else other[:-1]}")
        axes.set_xticks([n for n, _ in some], labels=[str(n) for n, _ in some], minor=False)
        axes.minorticks_off()
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, sizes and steps")
    parser.add_argument("--write", action="store_true", help="write the page; measure nothing")
    options = parser.parse_args()
    if options.write:
        write(measured())
    else:
        measure(options.quick)


if __name__ == "__main__":
    main()
