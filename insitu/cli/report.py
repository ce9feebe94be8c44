# SPDX-License-Identifier: Apache-2.0
"""``insitu report``: the ``report.json`` of a run, for people.

The report says what it holds by the names of its keys: one that ends in ``_s`` is a time, one in ``_bytes`` a size.
Nothing else is known about it here, so a new key shows up without a line of code. A mapping is a section, a list of
mappings a table. Where nobody watches (no terminal), every value is one plain line with its dotted path.
"""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from insitu.dashboard.report import write_report
from insitu.errors import ConfigError, RunError
from insitu.text import duration, size

#: A run's name for people, and its report.
Report = tuple[str, dict[str, Any]]


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("other", metavar="[OTHER]", required=False)
@click.option("--compare", is_flag=True, help="Show the numbers of RUN and OTHER beside each other.")
@click.option("--html", is_flag=True, help="Write RUN's report.html again.")
def command(run: str, other: str | None, compare: bool, html: bool) -> None:
    """Show what a run did.

    RUN is the run's directory, such as runs/gray-scott.
    """
    if compare != (other is not None):
        raise ConfigError("--compare takes two runs: insitu report --compare RUN OTHER")
    report = _read(Path(run))
    console = Console()
    if html:
        click.echo(write_report(Path(run)))
        return
    if other is not None:
        _compare(console, (run, report), (other, _read(Path(other))))
        return
    if console.is_terminal:
        _show(console, report)
        return
    for path, value in _flat(report):
        click.echo(f"{path}: {_text(path, value)}")


def _read(run: Path) -> dict[str, Any]:
    path = run / "report.json"
    if not run.is_dir():
        raise ConfigError(f"there is no run in {run}; give the directory of a run, such as runs/gray-scott")
    if not path.is_file():
        raise ConfigError(f"{run} has no report.json: it is no run's directory, or its run has not ended")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(report, dict):
        raise RunError(f"{path} is no report: expected a mapping, got {type(report).__name__}")
    return report


def _compare(console: Console, one: Report, other: Report) -> None:
    """Print a line for each number that differs, with how the second is to the first.

    Then what only one of them has (runs of other operators have other numbers), and how many numbers are the same.
    """
    (first, a), (second, b) = one, other
    left, right = dict(_flat(a)), dict(_flat(b))
    paths = [path for path in left if path in right and left[path] != right[path]]
    rows = [(path, _text(path, left[path]), _text(path, right[path])) for path in paths]
    ratios = [_ratio(left[path], right[path]) for path in paths]
    same = sum(path in right and left[path] == right[path] for path in left)
    if not console.is_terminal:
        for (path, before, after), ratio in zip(rows, ratios, strict=True):
            click.echo(f"{path}: {before} -> {after}{f' ({ratio})' if ratio else ''}")
    else:
        heads = [Column(head, overflow="fold") for head in ("", first, second, "ratio")]
        table = Table(*heads, box=None, pad_edge=False, padding=(0, 1))
        for row, ratio in zip(rows, ratios, strict=True):
            table.add_row(*(Text(cell) for cell in row), ratio)
        console.print(table)
    for name, here, there in ((first, left, right), (second, right, left)):
        for part in dict.fromkeys(_part(path, there) for path in here if path not in there):
            click.echo(f"only in {name}: {part}")
    click.echo(f"{same} more numbers are the same in both.", err=True)


def _part(path: str, others: Collection[str]) -> str:
    """Return the largest part of a report that a path is in, and that has nothing of the others.

    >>> _part("variables.u.delivered", ["variables.v.delivered"])
    'variables.u'
    """
    names = path.split(".")
    parts = (".".join(names[: k + 1]) for k in range(len(names)))
    return next((part for part in parts if not any(f"{other}.".startswith(f"{part}.") for other in others)), path)


def _ratio(a: Any, b: Any) -> str:
    """Say how the second number is to the first, where that means something.

    >>> _ratio(2.0, 3), _ratio(0, 3), _ratio("x", 3), _ratio(True, 1)
    ('x 1.5', '', '', '')
    """
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
    return f"x {b / a:.3g}" if numbers and a else ""


def _show(console: Console, report: dict[str, Any]) -> None:
    alone = {key: value for key, value in report.items() if not _is_section(value)}
    console.print(_grid(alone))
    for title, section in report.items():
        if not _is_section(section):
            continue
        console.print(f"\n{title}", style="bold")
        rows = section if isinstance(section, list) else [{"": key} | row for key, row in _rows(section)]
        console.print(_table(rows) if rows else _grid(section))


def _is_section(value: Any) -> bool:
    """Say whether a value is shown by itself: a mapping, or a list of mappings, that holds anything."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) for item in value)
    return isinstance(value, dict) and bool(value)


def _rows(section: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the rows of a mapping of mappings, which is a table; of any other, none."""
    rows = list(section.items())
    return rows if all(isinstance(row, dict) for _, row in rows) else []


def _grid(values: dict[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for path, value in _flat(values):
        grid.add_row(path, _text(path, value))
    return grid


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(path for row in rows for path, _ in _flat(row)))
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 1))
    for row in rows:
        cells = dict(_flat(row))
        table.add_row(*(_text(path, cells[path]) if path in cells else "" for path in columns))
    return table


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its dotted path; a list of plain values is one value."""
    if not _is_section(value):
        yield path, value
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield from _flat(item, f"{path}.{key}" if path else str(key))


def _text(path: str, value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, list):
        return "; ".join(_text(path, item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if path.endswith("_s"):
            return duration(value)
        return size(value) if path.endswith("_bytes") else f"{value:.10g}"
    return str(value)
