# SPDX-License-Identifier: Apache-2.0
"""*Series*: every scalar result over the steps, and the newest row of every short one: histograms, spectra, indices.

Results of the same name of several runs share a figure, so that runs can be compared. Across a series lie the numbers
with which rules compare it, and the steps after which actions were applied.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import cycle

import numpy as np

from insitu.dashboard import plots
from insitu.dashboard.colours import COLOURS
from insitu.dashboard.sources import Source
from insitu.dashboard.stored import Stored, kind_of
from insitu.dashboard.tables import applied
from insitu.dashboard.thresholds import of_result
from insitu.dashboard.views import Columns, Part, Update

NAME, TITLE, EVERY_S, READS = "series", "Series", 2.0, True

#: Figures on the page; of a pipeline with more results the first ones, by operator, are drawn.
FIGURES = 36
NOTHING = (
    "There are no series yet. A result is one when its operator reduces space (over: space, or over: [step, space]); "
    "results with cells are under Fields."
)
KINDS = {
    "series": "over the steps",
    "profile": "in the newest row",
    "bars": "in the newest row",
    "circle": "about the unit circle",
    "plane": "in the plane of the first two",
}


def parts(runs: Sequence[Source]) -> list[Part]:
    """Return a figure for each result that any of the runs has."""
    found = [Part("text", "none", "")]
    colours = zip((run.name for run in runs), cycle(COLOURS), strict=False)
    legend = tuple(colours) if len(runs) > 1 else ()
    for stored in shown(runs):
        marks = plots.LEVEL_LEGEND if any(_levels(run, stored) for run in runs) else ()
        about = stored.long_name
        found.append(
            Part("figure", stored.key, heading(stored), None, _figure(stored, len(runs)), about, legend + marks)
        )
    return found


def update(runs: Sequence[Source], choice: Mapping[str, str]) -> Update:
    """Return the lines: of results over steps all of them, of others the newest row."""
    update = Update()
    found = shown(runs)
    total = len(list(_drawn(runs)))
    steps = sorted({step for run in runs for step in applied(run.actions.events)})
    said = [f"{total - len(found)} more results are in results.zarr."] if total > len(found) else []
    said += ["Dotted lines are the steps after which actions were applied."] if steps else []
    update.texts["none"] = " ".join(said) if found else NOTHING
    for stored in found:
        for k, run in enumerate(runs):
            own = run.store.results.get(stored.key)
            if own is not None and run.store.rows(own):
                update.sources |= _columns(run, own, k)
        if kind_of(stored) == "series":
            levels = {level for run in runs for level in _levels(run, stored)}
            update.sources[f"{stored.key}-levels"] = {"y": sorted(levels)}
            update.sources[f"{stored.key}-actions"] = {"x": steps}
    return update


def heading(stored: Stored) -> str:
    """Name a result for people."""
    return f"{stored.operator}: {stored.name} {KINDS[kind_of(stored)]}"


def shown(runs: Sequence[Source]) -> list[Stored]:
    """Return the results that have a figure."""
    return list(_drawn(runs))[:FIGURES]


def _drawn(runs: Sequence[Source]) -> Iterable[Stored]:
    everything = {key: stored for run in runs for key, stored in run.store.results.items()}
    for stored in everything.values():
        ends = stored.key.removesuffix("_low").removesuffix("_high")
        if kind_of(stored) in KINDS and (ends == stored.key or ends not in everything):
            yield stored


def _figure(stored: Stored, runs: int) -> partial[object]:
    """Return what makes the figure of a result."""
    match kind_of(stored):
        case "bars":
            return partial(plots.bars, stored.key, runs, stored.dims[0], stored.title)
        case "circle":
            return partial(plots.circle, stored.key, runs)
        case "plane":
            return partial(plots.plane, stored.key, runs, f"{stored.dims[0]} 0", f"{stored.dims[0]} 1")
        case "series":
            return partial(plots.lines, stored.key, runs, "step", stored.title)
        case _:
            return partial(plots.lines, stored.key, runs, stored.dims[0], stored.title)


def _columns(run: Source, stored: Stored, k: int) -> dict[str, Columns]:
    """Return what run k's part of a figure shows."""
    name = f"{stored.key}-{k}"
    match kind_of(stored):
        case "series":
            columns = run.store.series(stored)
            return {name: {"x": columns["step"].tolist(), "y": columns["value"].tolist()}}
        case "plane":
            way = run.store.way(stored)
            newest = {"x": way["x"][-1:].tolist(), "y": way["y"][-1:].tolist()}
            return {name: {key: column.tolist() for key, column in way.items()}, f"{stored.key}-newest{k}": newest}
        case "circle":
            values = run.store.newest(stored)
            return {name: {"x": values.real.tolist(), "y": values.imag.tolist()}}
        case "bars":
            return {name: _bars(run, stored)}
        case _:
            where, values = run.store.profile(stored)
            return {name: {"x": where.tolist(), "y": values.tolist()}}


def _bars(run: Source, stored: Stored) -> Columns:
    """Return bars; with whiskers where there are results of the same name with _low and _high."""
    values = np.asarray(run.store.newest(stored), float)
    ends = [run.store.results.get(f"{stored.key}_{end}") for end in ("low", "high")]
    low, high = (values if end is None else np.asarray(run.store.newest(end), float) for end in ends)
    columns = {"x": np.arange(len(values)), "y": values, "low": low, "high": high}
    return {key: column.tolist() for key, column in columns.items()}


def _levels(run: Source, stored: Stored) -> list[float]:
    alone = sum(each.operator == stored.operator for each in run.store.results.values()) == 1
    return of_result(run.thresholds, stored.operator, stored.name, alone)
