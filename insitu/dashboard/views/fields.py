# SPDX-License-Identifier: Apache-2.0
"""*Fields*: the newest step of any variable as a picture, a line or a density, beside what was stored of it.

The picture of a variable comes thinned from the staging nodes, and only while somebody looks. Fields that operators
have yielded are read from ``results.zarr``. A run that has ended has only the latter.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from insitu.dashboard import plots
from insitu.dashboard.pictures import CELLS, Picture, Wanted
from insitu.dashboard.sources import Source
from insitu.dashboard.stored import Stored, kind_of
from insitu.dashboard.views import Choice, Image, Part, Update
from insitu.model import Array

NAME, TITLE, EVERY_S, READS = "fields", "Fields", 0.1, True

#: Bins of a density of particles, along each of its axes.
BINS = 128
#: Variables that a page offers.
OFFERED = 200
NONE = "none"


def parts(runs: Sequence[Source]) -> list[Part]:
    """Return the choices, and for each run a place for the newest step and one for a stored result."""
    found = [Part("choices", "what", "What to show")]
    for k, _ in enumerate(runs):
        found += [
            Part("text", f"say-{k}", "", k),
            Part("figure", f"field-{k}", "Newest step", k, partial(plots.image, f"field-{k}")),
            Part("figure", f"line-{k}", "Newest step", k, partial(plots.lines, f"line-{k}", 1, "cell", "value")),
            Part("text", f"about-{k}", "", k),
            Part("figure", f"stored-{k}", "Newest window of the results", k, partial(plots.image, f"stored-{k}")),
        ]
    return found


def update(runs: Sequence[Source], choice: Mapping[str, str]) -> Update:
    """Return the pictures of what was chosen."""
    update = Update()
    variables = _variables(runs)
    name = choice.get("variable", "")
    if name not in variables:
        folded = (name for run in runs for one in run.snapshot.get("operators", []) for name in one["of"])
        name = next((name for name in folded if name in variables), next(iter(variables), ""))
    shape, dims = variables.get(name, {}).get("shape"), variables.get(name, {}).get("dims", [])
    at = tuple(
        (dim, min(_whole(choice.get(f"at {dim}"), length // 2), length - 1))
        for dim, length in zip(dims[: max(0, len(dims) - 2)], shape or (), strict=False)
    )
    results = _results(runs)
    stored = choice.get("result", "")
    if stored not in results and stored != NONE:
        stored = _first_of(results, runs, name)
    palette = choice.get("colours", "viridis")
    if palette not in plots.PALETTES:
        palette = "viridis"
    update.choices["what"] = _choices(choice, variables, results, name, at, stored, palette)
    limits = _number(choice.get("low")), _number(choice.get("high"))
    for k, run in enumerate(runs):
        _live(update, k, run, variables.get(name, {}), Wanted(name, at), limits, palette)
        _stored(update, k, run, results.get(stored), _whole(choice.get("row"), 0), palette)
    return update


def _choices(
    choice: Mapping[str, str],
    variables: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Stored],
    name: str,
    at: Sequence[tuple[str, int]],
    stored: str,
    palette: str,
) -> list[Choice]:
    found = [Choice("variable", "variable", "select", name, list(variables))] if variables else []
    lengths = dict(
        zip(variables.get(name, {}).get("dims", []), variables.get(name, {}).get("shape") or (), strict=False)
    )
    found += [Choice(f"at {dim}", f"index of {dim}", "slider", index, maximum=lengths[dim] - 1) for dim, index in at]
    found.append(Choice("result", "result beside it", "select", stored, [NONE, *results]))
    if stored in results and len(results[stored].shape) == 3:
        last = results[stored].shape[0] - 1
        row = min(_whole(choice.get("row"), 0), last)
        found.append(Choice("row", f"index of {results[stored].dims[0]}", "slider", row, maximum=last))
    found.append(Choice("colours", "colours", "select", palette, list(plots.PALETTES)))
    for key, label in (("low", "lowest colour"), ("high", "highest colour")):
        found.append(Choice(key, f"{label} (empty: follows)", "number", choice.get(key, "")))
    return found


def _live(
    update: Update,
    k: int,
    run: Source,
    variable: Mapping[str, Any],
    wanted: Wanted,
    limits: tuple[float | None, float | None],
    palette: str,
) -> None:
    """Show the newest step of a variable, or say why it cannot be shown."""
    shown = ""
    if not run.live:
        update.texts[f"say-{k}"] = "The run has ended: of its variables only what operators made of them is left."
    elif not wanted.variable:
        update.texts[f"say-{k}"] = "No variable was put yet."
    elif not _needed(variable):
        update.texts[f"say-{k}"] = (
            f"'{wanted.variable}' does not leave its rank, because no staging node folds it; "
            "fold it there or record it to see it."
        )
    else:
        picture = run.looks.want(wanted, time.monotonic())
        shown = _draw(update, k, picture, limits, palette)
    update.hidden += [part for part in (f"field-{k}", f"line-{k}") if part != shown]


def _draw(
    update: Update, k: int, picture: Picture | None, limits: tuple[float | None, float | None], palette: str
) -> str:
    """Draw a picture as what it is, and return the part that shows it."""
    if picture is None:
        update.texts[f"say-{k}"] = "Waiting for a step that has it."
        return ""
    variable = picture.variable
    if picture.why or variable is None:
        update.texts[f"say-{k}"] = f"There is no picture: {picture.why}."
        return ""
    unit = f" [{variable.units}]" if variable.units else ""
    thinned = "" if max(picture.stride, default=1) == 1 else f", every {max(picture.stride)}. cell of each dim"
    if variable.joined:
        thinned = "" if picture.stride[0] == 1 else f", one of {picture.stride[0]}"
    text = f"{variable.name}{unit} at step {picture.index}, time {picture.time:.6g}{thinned}"
    update.texts[f"say-{k}"] = f"{text}: {variable.long_name}" if variable.long_name else text
    if variable.joined:
        return _particles(update, k, picture, limits, palette)
    if picture.values.ndim == 2:
        stride_y, stride_x = picture.stride
        update.images[f"field-{k}"] = image_of(
            picture.values, (0, 0, picture.values.shape[1] * stride_x, picture.values.shape[0] * stride_y),
            tuple(variable.dims[:-3:-1]), limits, palette,
        )  # fmt: skip
        return f"field-{k}"
    values = np.atleast_1d(picture.values)
    stride = picture.stride[0] if picture.stride else 1
    where = (stride * np.arange(len(values))).tolist()
    update.sources[f"line-{k}-0"] = {"x": where, "y": values.astype(float).tolist()}
    return f"line-{k}"


def _particles(
    update: Update, k: int, picture: Picture, limits: tuple[float | None, float | None], palette: str
) -> str:
    """Draw particles: where they have two columns or more, as a density over the first two; else their spread."""
    values = picture.values.reshape(len(picture.values), prod(picture.values.shape[1:])).astype(float)
    finite = values[np.isfinite(values).all(axis=1)] if values.size else values
    if not finite.size:
        update.texts[f"say-{k}"] += " No particle has finite values."
        return ""
    many = picture.stride[0]
    if finite.shape[1] < 2:
        counts, edges = np.histogram(finite[:, 0], BINS)
        update.sources[f"line-{k}-0"] = {"x": ((edges[1:] + edges[:-1]) / 2).tolist(), "y": (counts * many).tolist()}
        return f"line-{k}"
    density, x, y = np.histogram2d(finite[:, 0], finite[:, 1], BINS)
    place = (x[0], y[0], x[-1] - x[0], y[-1] - y[0])
    update.texts[f"say-{k}"] += " Shown is how many particles there are, over their first two columns."
    values = (density.T * many).astype(np.float32)
    update.images[f"field-{k}"] = image_of(values, place, ("column 0", "column 1"), limits, palette)
    return f"field-{k}"


def _stored(update: Update, k: int, run: Source, chosen: Stored | None, row: int, palette: str) -> None:
    """Show the newest row of a stored result."""
    stored = run.store.results.get(chosen.key) if chosen is not None else None
    rows = run.store.rows(stored) if stored is not None else 0
    if stored is None or not rows:
        update.hidden.append(f"stored-{k}")
        update.texts[f"about-{k}"] = _why_none(run, chosen)
        return
    values = run.store.field(stored, min(row, stored.shape[0] - 1), CELLS)
    update.texts[f"about-{k}"] = f"{stored.title}, result {rows}" + (
        f": {stored.long_name}" if stored.long_name else ""
    )
    height, width = stored.shape[-2:]
    update.images[f"stored-{k}"] = image_of(values, (0, 0, width, height), stored.dims[:-3:-1], (None, None), palette)


def _why_none(run: Source, chosen: Stored | None) -> str:
    """Say why there is no stored field to be shown."""
    if chosen is None:
        fields = _results([run])
        return "" if fields or run.live else "No result of this run is a field; see Series."
    known = any(one["name"] == chosen.operator for one in run.snapshot.get("operators", []))
    return f"{chosen.key} has no results yet." if known and run.live else f"{chosen.key} is no result of this run."


def image_of(
    values: Array,
    place: tuple[float, float, float, float],
    labels: Sequence[str],
    limits: tuple[float | None, float | None] = (None, None),
    palette: str = "viridis",
) -> Image:
    """Return a picture whose colours go from the first limit to the second; where there is none, as the values do."""
    finite = values[np.isfinite(values)]
    low = limits[0] if limits[0] is not None else float(finite.min()) if finite.size else 0.0
    high = limits[1] if limits[1] is not None else float(finite.max()) if finite.size else 1.0
    if high <= low:
        high = low + (abs(low) or 1.0) * 1e-6
    return Image(values, place, (labels[0], labels[1]), low, high, palette)


def _variables(runs: Sequence[Source]) -> dict[str, Mapping[str, Any]]:
    """Return what ranks put, by name, as the newest snapshots tell; first what can be seen."""
    told = [one for run in runs if run.live for one in run.snapshot.get("variables", [])]
    told.sort(key=lambda one: not _needed(one))
    return {str(one["name"]): one for one in told[:OFFERED]}


def _needed(variable: Mapping[str, Any]) -> bool:
    return bool(variable.get("needed"))


def _results(runs: Iterable[Source]) -> dict[str, Stored]:
    """Return the stored results that are fields."""
    return {key: one for run in runs for key, one in run.store.results.items() if kind_of(one) == "field"}


def _first_of(results: Mapping[str, Stored], runs: Sequence[Source], variable: str) -> str:
    """Return the result that is shown first: a mean of the variable, rather of it alone, else any of it."""
    operators = [one for run in runs for one in run.snapshot.get("operators", []) if variable in one["of"]]
    names = [one["name"] for one in sorted(operators, key=lambda one: len(one["of"]))]
    here = [key for name in dict.fromkeys(names) for key, one in results.items() if one.operator == name]
    here = here or list(results)
    return next((key for key in here if key.endswith("mean")), here[0] if here else NONE)


def _whole(text: str | None, default: int) -> int:
    try:
        return max(0, int(text or ""))
    except ValueError:
        return default


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if np.isfinite(value) else None
