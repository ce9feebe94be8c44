# SPDX-License-Identifier: Apache-2.0
"""*Dask*: where the scheduler of the staging nodes is, and its own pages where it serves some."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from insitu.dashboard.sources import Source
from insitu.dashboard.views import Part, Update
from insitu.text import count

NAME, TITLE, EVERY_S, READS = "dask", "Dask", 1.0, False

OWN = (
    "The staging nodes of this run are workers of a Dask cluster of its own, which serves no pages: they would take "
    "their time from the controller's process. What the nodes do stands under Run. To see Dask's own pages, start a "
    "cluster that has them (dask scheduler, dask worker), and give its address as staging.cluster."
)
ENDED = "The run has ended, and what was here of it in the Dask cluster is gone."
PAGES = ("status", "workers", "tasks", "system", "graph", "info/main/workers.html")


def parts(runs: Sequence[Source]) -> list[Part]:
    """Return for each run where its scheduler is, and links to that one's pages."""
    found = []
    for k, _ in enumerate(runs):
        found += [
            Part("cards", f"scheduler-{k}", "Scheduler", k),
            Part("text", f"say-{k}", "", k),
            Part(
                "links", f"pages-{k}", "Its own pages", k,
                about="They need no token, and open where your browser reaches the scheduler's machine; over a tunnel "
                "of its own else: ssh -L.",
            ),
        ]  # fmt: skip
    return found


def update(runs: Sequence[Source], choice: Mapping[str, str]) -> Update:
    """Return the address and the links."""
    update = Update()
    for k, run in enumerate(runs):
        told = run.snapshot.get("dask", {})
        pages = told.get("pages", "") if run.live else ""
        update.cards[f"scheduler-{k}"] = [
            ("address", told.get("scheduler") or "unknown"),
            ("staging nodes", count(len(run.snapshot.get("nodes", [])), "worker")),
        ]
        update.texts[f"say-{k}"] = "" if pages else ENDED if not run.live else OWN
        update.links[f"pages-{k}"] = _links(pages)
        if not update.links[f"pages-{k}"]:
            update.hidden.append(f"pages-{k}")
    return update


def _links(pages: str) -> list[tuple[str, str]]:
    """Return the pages by name and address; none for an address that is no page's."""
    split = urlsplit(pages)
    if split.scheme not in ("http", "https"):
        return []
    base = f"{split.scheme}://{split.netloc}"
    return [(name.rpartition("/")[2].removesuffix(".html"), f"{base}/{name}") for name in PAGES]
