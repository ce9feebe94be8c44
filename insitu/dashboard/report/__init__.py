# SPDX-License-Identifier: Apache-2.0
"""``report.html``: what a run did and found, in one file that needs no other, no network and no script.

It is made from the run's directory alone, so it can be made again at any time, and looks the same years later.
"""

import json
from collections import deque
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from insitu.dashboard import derive, graph, tables
from insitu.dashboard.colours import COLOURS, TIME, TIME_LEGEND
from insitu.dashboard.journal import LogTail
from insitu.dashboard.report import png, svg
from insitu.dashboard.sources import last_snapshot
from insitu.dashboard.stored import Store, Stored, kind_of
from insitu.errors import ConfigError, RunError
from insitu.text import duration, size

HERE = Path(__file__).parents[1]
#: Plots and pictures in a report; of more results the first ones, by operator, are shown.
PLOTS, PICTURES = 48, 16
DRAWN = ("series", "profile", "bars", "plane")
#: Cells of a picture, and bytes of a row that is read for one.
PICTURE_CELLS, PICTURE_BYTES = 256 * 256, 32 << 20
EVENTS = 200
_templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True)


def write_report(directory: Path) -> Path:
    """Write ``report.html`` of the run in `directory`, and return its path. Costs some 0.1 s.

    Raises `ConfigError` where there is no run, and `RunError` where the file cannot be written.
    """
    path = directory / "report.html"
    text = html(directory)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"Cannot write {path}: {error.strerror}; free some space, or choose another directory."
        ) from error
    return path


def html(directory: Path) -> str:
    """Return the report of the run in `directory` as HTML."""
    try:
        report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
        config = (directory / "config.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{directory} has no report of a run: {error}") from error
    snapshot, _ = last_snapshot(directory)
    snapshot = {"run": report.get("run", directory.name), "phase": "ended", **snapshot}
    store = Store(directory / "results.zarr")
    store.refresh()
    log = LogTail(directory / "log.jsonl")
    log.refresh()
    actions = LogTail(directory / "actions.jsonl")
    actions.refresh()
    return _templates.get_template("report.html").render(
        css=Markup((HERE / "static" / "page.css").read_text(encoding="utf-8")),
        report=report,
        snapshot=snapshot,
        cards=tables.cards(snapshot),
        verdict=derive.verdict(snapshot),
        tables={
            "Steps that were dropped": tables.drops(snapshot),
            "Variables": tables.variables(snapshot),
            "Operators": tables.operators(snapshot),
            "Actions": tables.receipts(deque(actions.events, EVENTS)),
            "Staging nodes": tables.nodes(snapshot),
            "Ranks": tables.ranks(snapshot),
            "Events": tables.events(deque(log.events, EVENTS)),
            "Provenance": _provenance(report),
        },
        strip=Markup(_strip(snapshot)),
        legend=TIME_LEGEND,
        rate=Markup(_rate(snapshot)),
        graph=Markup(graph.svg(graph.of_snapshot(snapshot, {}))),
        plots=[(stored, Markup(_plot(store, stored))) for stored in _of_kind(store, *DRAWN)[:PLOTS]],
        pictures=[_picture(store, stored) for stored in _of_kind(store, "field")[:PICTURES]],
        config=config,
        duration=duration,
        size=size,
    )


def _strip(snapshot: dict[str, Any]) -> str:
    shares = derive.drawn(derive.shares(snapshot), snapshot)
    return svg.stack(
        shares["at_s"], {name: shares[name] for name in derive.SHARES}, TIME, "seconds since the run began"
    )


def _rate(snapshot: dict[str, Any]) -> str:
    at, moved = derive.rates(snapshot, "bytes")
    shown = derive.drawn({"at_s": at, "rate": [value / 2**20 for value in moved]}, snapshot)
    return svg.line(shown["at_s"], shown["rate"], "seconds since the run began", "MiB a second", COLOURS[0])


def _of_kind(store: Store, *kinds: str) -> list[Stored]:
    return [stored for stored in store.results.values() if kind_of(stored) in kinds and store.rows(stored)]


def _plot(store: Store, stored: Stored) -> str:
    if kind_of(stored) == "series":
        columns = store.series(stored)
        return svg.line(columns["step"].tolist(), columns["value"].tolist(), "step", stored.title, COLOURS[0])
    if kind_of(stored) == "plane":
        way, dim = store.way(stored), stored.dims[0]
        return svg.line(way["x"].tolist(), way["y"].tolist(), f"{dim} 0", f"{dim} 1", COLOURS[0])
    where, values = store.profile(stored)
    return svg.line(where.tolist(), values.tolist(), stored.dims[0], stored.title, COLOURS[0])


def _picture(store: Store, stored: Stored) -> dict[str, Any]:
    """Return a field's picture with its range; why there is none, where it is too large to be read for one."""
    if stored.row_bytes > PICTURE_BYTES:
        why = f"a row has {size(stored.row_bytes)}; read it from results.zarr"
        return {"stored": stored, "image": "", "why": why}
    values = store.field(stored, 0, PICTURE_CELLS)
    found = png.limits(values)
    if found is None:
        return {"stored": stored, "image": "", "why": "no value is finite"}
    return {"stored": stored, "image": png.picture(values), "low": found[0], "high": found[1]}


def _provenance(report: dict[str, Any]) -> tables.Table:
    rows: list[list[tables.Cell]] = [["configuration", report.get("config_hash", "unknown")]]
    rows += [[name, version] for name, version in report.get("versions", {}).items()]
    return tables.Table(("what", "version"), rows)
