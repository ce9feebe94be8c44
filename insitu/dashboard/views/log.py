# SPDX-License-Identifier: Apache-2.0
"""*Log*: what happened, newest first, and why a run ended as it did."""

from collections.abc import Mapping, Sequence

from insitu.dashboard import tables
from insitu.dashboard.sources import Source
from insitu.dashboard.views import Part, Update

NAME, TITLE, EVERY_S, READS = "log", "Log", 1.0, False

#: Events on the page; all of them are in log.jsonl.
SHOWN = 200


def parts(runs: Sequence[Source]) -> list[Part]:
    """Return what the page has."""
    found = []
    for k, _ in enumerate(runs):
        found += [Part("text", f"end-{k}", "", k), Part("table", f"events-{k}", "Events", k)]
    return found


def update(runs: Sequence[Source], choice: Mapping[str, str]) -> Update:
    """Return what stands there now."""
    update = Update()
    for k, run in enumerate(runs):
        reasons = "; ".join(run.snapshot.get("reasons", []))
        status = run.snapshot.get("status", "")
        ended = f"The run ended: {status}{f', because {reasons}' if reasons else ''}." if status else ""
        events = list(run.log.events)[: -SHOWN - 1 : -1]
        update.texts[f"end-{k}"] = ended or ("" if events else "Nothing worth a line has happened yet.")
        update.tables[f"events-{k}"] = tables.events(events)
    return update
