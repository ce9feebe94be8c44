# SPDX-License-Identifier: Apache-2.0
"""How runs, pipelines and dashboards show themselves in a notebook. All that comes from a run is escaped."""

from collections.abc import Mapping
from html import escape
from typing import Any

from insitu.config import Config
from insitu.dashboard import derive, graph, tables
from insitu.registry import use_of


def run_html(snapshot: Mapping[str, Any]) -> str:
    """Return a run in short: how far it is, who holds it back, and what flows through it.

    `snapshot` is one of `insitu.controller.feed`.
    """
    name = escape(str(snapshot.get("run", "unknown")))
    cells = "".join(
        f"<tr><th style='text-align: left'>{escape(label)}</th><td style='text-align: left'>{escape(value)}</td></tr>"
        for label, value in tables.cards(snapshot)
    )
    drawn = graph.svg(graph.of_snapshot(snapshot, {}))
    about = escape(derive.verdict(snapshot))
    return f"<div><b>Run {name}</b><p>{about}</p>{_scrolled(drawn)}<table>{cells}</table></div>"


def pipeline_html(config: Config) -> str:
    """Return a configuration as a graph of its operators."""
    stored = {name for output in config.outputs if output.to == "zarr" for name in output.of}
    taken = {name: each.of for name, each in config.folds.items()}
    taken |= {name: each.needs for name, each in config.learners.items()}
    operators = [
        {"name": name, "use": use_of(type(each)), "of": taken[name], "stored": not stored.isdisjoint({"*", name})}
        for name, each in config.operators.items()
    ]
    return f"<div><b>Pipeline {escape(config.run)}</b>{_scrolled(graph.svg(graph.of_operators(operators)))}</div>"


def mistakes_html(error: Exception) -> str:
    """Return why there is nothing to be shown."""
    return f"<pre>{escape(str(error))}</pre>"


def _scrolled(drawn: str) -> str:
    return f"<div style='overflow-x: auto'>{drawn}</div>"
