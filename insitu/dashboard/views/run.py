# SPDX-License-Identifier: Apache-2.0
"""*Run*: how far it is, where the time goes and who holds it back; ranks, staging nodes, variables and operators."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from insitu.dashboard import derive, graph, plots, tables
from insitu.dashboard.colours import TIME_LEGEND
from insitu.dashboard.sources import Source
from insitu.dashboard.views import Part, Update

NAME, TITLE, EVERY_S, READS = "run", "Run", 0.5, False

MIB = 2**20


def parts(runs: Sequence[Source]) -> list[Part]:
    """Return what the page has: the same for each run."""
    found = []
    for k, _ in enumerate(runs):
        found += [
            Part("cards", f"progress-{k}", "Progress", k),
            Part("text", f"verdict-{k}", "", k),
            Part(
                "figure", f"time-{k}", "Where the ranks' time went", k, partial(plots.time_strip, f"time-{k}"),
                legend=TIME_LEGEND,
            ),
            Part("drawing", f"pipeline-{k}", "Pipeline, and what flows through it", k),
            Part("figure", f"rate-{k}", "From the ranks to the staging nodes", k, partial(plots.rates, f"rate-{k}")),
            Part(
                "figure", f"queues-{k}", "Memory of the staging nodes in use", k, partial(plots.queues, f"queues-{k}"),
                legend=plots.QUEUES_LEGEND,
            ),
            Part("table", f"nodes-{k}", "Staging nodes", k),
            Part("table", f"ranks-{k}", "Ranks", k),
            Part("table", f"drops-{k}", "Dropped steps", k),
            Part("table", f"operators-{k}", "Operators", k),
            Part("table", f"variables-{k}", "Variables", k),
        ]  # fmt: skip
    return found


def update(runs: Sequence[Source], choice: Mapping[str, str]) -> Update:
    """Return what stands there now."""
    update = Update()
    for k, run in enumerate(runs):
        _one(update, k, run.snapshot, run.earlier)
    return update


def _one(update: Update, k: int, snapshot: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    update.cards[f"progress-{k}"] = tables.cards(snapshot)
    update.texts[f"verdict-{k}"] = derive.verdict(snapshot)
    update.sources[f"time-{k}"] = derive.drawn(derive.shares(snapshot), snapshot)
    at, moved = derive.rates(snapshot, "bytes")
    update.sources[f"rate-{k}"] = derive.drawn({"at_s": at, "rate": [value / MIB for value in moved]}, snapshot)
    timeline = derive.columns(snapshot)
    update.sources[f"queues-{k}"] = {
        "at_s": timeline.get("at_s", []),
        "waiting": [value / MIB for value in timeline.get("waiting_bytes", [])],
        "states": [value / MIB for value in timeline.get("state_bytes", [])],
    }
    update.drawings[f"pipeline-{k}"] = graph.svg(graph.of_snapshot(snapshot, earlier))
    update.tables[f"nodes-{k}"] = tables.nodes(snapshot)
    update.tables[f"ranks-{k}"] = tables.ranks(snapshot)
    update.tables[f"drops-{k}"] = tables.drops(snapshot)
    update.tables[f"operators-{k}"] = tables.operators(snapshot)
    update.tables[f"variables-{k}"] = tables.variables(snapshot)
