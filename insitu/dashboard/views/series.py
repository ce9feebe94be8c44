# SPDX-License-Identifier: Apache-2.0
"""*Series*: every scalar result over the steps, and the newest row of every short one (histograms, spectra, modes).

Results of the same name of several runs share a figure, so that runs can be compared.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle

from insitu.dashboard import plots
from insitu.dashboard.colours import COLOURS
from insitu.dashboard.sources import Source
from insitu.dashboard.stored import Stored, kind_of
from insitu.dashboard.views import Part, Update

NAME, TITLE, EVERY_S, READS = "series", "Series", 2.0, True

#: Figures on the page; of a pipeline with more results the first ones, by operator, are drawn.
FIGURES = 36
NOTHING = (
    "There are no series yet. A result is one when its operator reduces space (over: space, or over: [step, space]); "
    "results with cells are under Fields."
)


def parts(runs: Sequence[Source]) -> list[Part]:
    """Return a figure for each result that any of the runs has."""
    found = [Part("text", "none", "")]
    colours = zip((run.name for run in runs), cycle(COLOURS), strict=False)
    legend = tuple(colours) if len(runs) > 1 else ()
    for stored in shown(runs):
        x_label = "step" if kind_of(stored) == "series" else stored.dims[0]
        figure = partial(plots.lines, stored.key, len(runs), x_label, stored.title)
        found.append(Part("figure", stored.key, heading(stored), None, figure, stored.long_name, legend))
    return found


def update(runs: Sequence[Source], choice: Mapping[str, str]) -> Update:
    """Return the lines: of results over steps all of them, of others the newest row."""
    update = Update()
    found = shown(runs)
    total = sum(kind_of(stored) in ("series", "profile") for run in runs for stored in run.store.results.values())
    hidden = f"{total - len(found)} more results are in results.zarr." if len(runs) == 1 and total > len(found) else ""
    update.texts["none"] = hidden if found else NOTHING
    for stored in found:
        for k, run in enumerate(runs):
            update.sources[f"{stored.key}-{k}"] = _line(run, stored.key)
    return update


def heading(stored: Stored) -> str:
    """Name a result for people."""
    what = "over the steps" if kind_of(stored) == "series" else "in the newest row"
    return f"{stored.operator}: {stored.name} {what}"


def shown(runs: Sequence[Source]) -> list[Stored]:
    """Return the results that have a figure."""
    everything = {key: stored for run in runs for key, stored in run.store.results.items()}
    return [stored for stored in everything.values() if kind_of(stored) in ("series", "profile")][:FIGURES]


def _line(run: Source, key: str) -> dict[str, list[float]]:
    stored = run.store.results.get(key)
    if stored is None or not run.store.rows(stored):
        return {"x": [], "y": []}
    if kind_of(stored) == "series":
        columns = run.store.series(stored)
        return {"x": columns["step"].tolist(), "y": columns["value"].tolist()}
    where, values = run.store.profile(stored)
    return {"x": where.tolist(), "y": values.tolist()}
