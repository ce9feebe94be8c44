# SPDX-License-Identifier: Apache-2.0
"""*Training*: how networks learn while the simulation goes on, who waits for whom, and how far they are from the truth.

A result tells what it is by its name, whatever learner yields it: ``loss`` belongs to one that is trained, ``error``
with ``trusted`` to one that is asked. Runs are drawn into the same figures, told apart by dashes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from insitu.dashboard import plots
from insitu.dashboard.colours import COLOURS
from insitu.dashboard.sources import Source
from insitu.dashboard.stored import Stored
from insitu.dashboard.views import Part, Update
from insitu.dashboard.views.fields import image_of
from insitu.model import Array
from insitu.text import count

NAME, TITLE, EVERY_S, READS = "training", "Training", 1.0, True

NOTHING = (
    "Nothing is learnt in this run: it has no operator such as train or predict, or none of them has a result yet."
)
#: Of a trained network: figures by an id, with title, what it shows, and whether its axis is logarithmic.
TRAINED: dict[str, tuple[str, dict[str, str], str, bool]] = {
    "loss": ("loss", {"batches": "loss", "held out": "validation_loss"}, "loss", True),
    "rate": ("learning rate", {"learning rate": "learning_rate"}, "learning rate", True),
    "samples": ("samples", {"came": "samples", "unseen": "unseen"}, "samples", False),
    "reuse": ("how often a sample is used", {"draws of a sample": "reuse"}, "draws", False),
    "stalls": (
        "who waits for whom",
        {"the network, for samples": "starving", "steps, for the network": "full"},
        "share of the time",
        False,
    ),
}
ASKED = {"error": "error", "threshold": "threshold"}
#: A network that waits for so large a part of the time, or is waited for, is worth a word.
WORTH_SAYING = 0.1


def parts(runs: Sequence[Source]) -> list[Part]:
    """Return the figures of each learner that any of the runs has results of."""
    found = [Part("text", "none", "")]
    drawn = (f"{run.name} {dash}" for run, dash in zip(runs, cycle(plots.DASHES), strict=False))
    dashes = f"Lines: {', '.join(drawn)}." if len(runs) > 1 else ""
    for name in _with(runs, "loss"):
        for k in _having(runs, name):
            found += [Part("text", f"say-{name}-{k}", "", None), Part("cards", f"cards-{name}-{k}", _of(runs, name, k))]
        for key, (title, labels, y_label, log) in TRAINED.items():
            made = partial(plots.curves, f"{key}-{name}", len(runs), list(labels), "batches", y_label, log)
            found.append(Part("figure", f"{key}-{name}", f"{name}: {title}", None, made, dashes, _legend(labels)))
        for k in _having(runs, name, "confusion"):
            made = partial(plots.image, f"confusion-{name}-{k}")
            about = "Held-out samples: their class, upwards, and the class that they are taken for."
            found.append(Part("figure", f"confusion-{name}-{k}", f"{_of(runs, name, k)}: confusion", None, made, about))
    for name in _with(runs, "error", "trusted"):
        found += [Part("text", f"say-{name}-{k}", "") for k in _having(runs, name)]
        made = partial(plots.curves, f"error-{name}", len(runs), list(ASKED), "step", "relative error", True)
        found.append(Part("figure", f"error-{name}", f"{name}: error", None, made, dashes, _legend(ASKED)))
        for k in _having(runs, name, "prediction"):
            found += _pair_parts(runs, name, k)
    return found


def update(runs: Sequence[Source], choice: Mapping[str, str]) -> Update:
    """Return what the learners have told so far."""
    update = Update()
    trained, asked = _with(runs, "loss"), _with(runs, "error", "trusted")
    update.texts["none"] = "" if trained or asked else NOTHING
    for name in trained:
        for k in _having(runs, name):
            _show_trained(update, runs[k], name, k)
    for name in asked:
        for k in _having(runs, name):
            _show_asked(update, runs[k], name, k)
    return update


def _show_trained(update: Update, run: Source, name: str, k: int) -> None:
    wanted = sorted({column for _, labels, _, _ in TRAINED.values() for column in labels.values()} | {"batches"})
    there = [column for column in wanted if f"{name}.{column}" in run.store.results]
    columns = run.store.together(name, there)
    for key, (_, labels, _, log) in TRAINED.items():
        shown = {label: _column(columns, column, log) for label, column in labels.items()}
        update.sources[f"{key}-{name}-{k}"] = {"x": columns.get("batches", columns["step"]).tolist(), **shown}
    told: Mapping[str, Any] = next((one for one in run.snapshot.get("learners", []) if one["name"] == name), {})
    update.cards[f"cards-{name}-{k}"] = _cards(columns, told)
    update.texts[f"say-{name}-{k}"] = _who_waits(name, columns)
    confusion = run.store.results.get(f"{name}.confusion")
    if confusion is not None and run.store.rows(confusion):
        values = np.asarray(run.store.newest(confusion), np.float32)
        place = (-0.5, -0.5, float(len(values)), float(len(values)))  # a class is in the middle of its cells
        update.images[f"confusion-{name}-{k}"] = image_of(values, place, ("taken for", "class"), (0, None))


def _show_asked(update: Update, run: Source, name: str, k: int) -> None:
    columns = run.store.together(name, ["error", "threshold", "trusted"])
    asked = np.isfinite(columns["error"])
    if not asked.any():
        update.texts[f"say-{name}-{k}"] = f"{name} was not asked yet: there was no version of its model."
        update.sources[f"error-{name}-{k}"] = {key: [] for key in ("x", *ASKED)}
        update.hidden += [f"{part}-{name}-{k}" for part in ("pair", "truth", "prediction")]
        return
    shown = {label: _column(columns, column, log=True) for label, column in ASKED.items()}
    if "uncertainty" in run.store.results[f"{name}.threshold"].long_name:
        shown["threshold"] = [math.nan] * len(shown["threshold"])  # the gate looks at that, and not at the error
    update.sources[f"error-{name}-{k}"] = {"x": columns["step"].tolist(), **shown}
    share = 100 * float(columns["trusted"][asked].mean())
    update.texts[f"say-{name}-{k}"] = (
        f"{name} may stand for the truth in {share:.0f} % of the steps that it was asked about."
    )
    pair = [run.store.results.get(f"{name}.{one}") for one in ("truth", "prediction")]
    if not all(one is not None and run.store.rows(one) for one in pair):
        return
    truth, prediction = (_flat(run.store.newest(one)) for one in pair if one is not None)
    if truth.ndim == 1:
        where = np.arange(len(truth)).tolist()
        update.sources[f"pair-{name}-{k}"] = {"x": where, "truth": truth.tolist(), "prediction": prediction.tolist()}
        return
    both = np.concatenate([truth, prediction])
    finite = both[np.isfinite(both)]
    limits = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
    place, labels = (0.0, 0.0, float(truth.shape[1]), float(truth.shape[0])), _axes(run, name)
    update.images[f"truth-{name}-{k}"] = image_of(truth, place, labels, limits)
    update.images[f"prediction-{name}-{k}"] = image_of(prediction, place, labels, limits)


def _pair_parts(runs: Sequence[Source], name: str, k: int) -> list[Part]:
    """Return where the newest sample stands, beside what the network makes of it."""
    stored, whose = runs[k].store.results[f"{name}.prediction"], _of(runs, name, k)
    if len(stored.shape) < 2:
        made = partial(
            plots.curves, f"pair-{name}", 1, ["truth", "prediction"], "cell", stored.units or "value", first=k
        )
        legend = _legend({"truth": "", "prediction": ""})
        return [Part("figure", f"pair-{name}-{k}", f"{whose}: newest sample", None, made, legend=legend)]
    return [
        Part("figure", f"{one}-{name}-{k}", f"{whose}: {title}", None, partial(plots.image, f"{one}-{name}-{k}"))
        for one, title in (("truth", "newest sample, as it is"), ("prediction", "as the network makes it"))
    ]


def _cards(columns: Mapping[str, Array], told: Mapping[str, Any]) -> list[tuple[str, str]]:
    def last(name: str, form: str = "{:,.0f}") -> str:
        column = columns.get(name)
        known = column is not None and len(column) and np.isfinite(column[-1])
        return form.format(column[-1]) if column is not None and known else "none"

    return [
        ("batches", last("batches")),
        ("loss", last("loss", "{:.4g}")),
        ("held out", last("validation_loss", "{:.4g}")),
        ("learning rate", last("learning_rate", "{:.3g}")),
        ("samples", last("samples")),
        ("unseen", last("unseen")),
        ("draws of a sample", last("reuse", "{:.3g}")),
        ("versions", f"{told.get('versions', 0):,}"),
        ("started anew", count(int(told.get("restarts", 0)), "time")),
    ]


def _who_waits(name: str, columns: Mapping[str, Array]) -> str:
    """Say who was the slower one over the last rows."""
    recent = {key: columns[key][-5:] for key in ("starving", "full") if key in columns}
    starving, full = (
        float(np.nanmean(recent[key])) if len(recent.get(key, ())) else 0.0 for key in ("starving", "full")
    )
    if max(starving, full) < WORTH_SAYING:
        return f"{name} and the simulation keep pace with each other."
    if starving > full:
        return f"The simulation is the slower one: {name} waits for samples for {100 * starving:.0f} % of its time."
    share = f"{100 * full:.0f} %"
    return f"The network is the slower one: steps wait for room in the buffer of {name} for {share} of the time."


def _column(columns: Mapping[str, Array], name: str, log: bool) -> list[float]:
    """Return a column; on a logarithmic axis what is not above zero has no place."""
    values = columns.get(name, np.full(len(columns["step"]), np.nan))
    shown: list[float] = (np.where(values > 0, values, np.nan) if log else values).tolist()
    return shown


def _with(runs: Iterable[Source], *names: str) -> list[str]:
    """Return the operators that yield all of these."""
    operators = dict.fromkeys(one.operator for run in runs for one in run.store.results.values())
    return [each for each in operators if any(_yields(run.store.results, each, names) for run in runs)]


def _having(runs: Sequence[Source], operator: str, *names: str) -> list[int]:
    return [k for k, run in enumerate(runs) if _yields(run.store.results, operator, names or ("",))]


def _yields(results: Mapping[str, Stored], operator: str, names: Sequence[str]) -> bool:
    if names == ("",):
        return any(one.operator == operator for one in results.values())
    return all(f"{operator}.{name}" in results for name in names)


def _of(runs: Sequence[Source], name: str, k: int) -> str:
    return name if len(runs) == 1 else f"{name} of {runs[k].name}"


def _flat(values: Array) -> Array:
    """Return the last two dims of an array, of the first index of all others."""
    values = np.asarray(values, np.float32)
    return values if values.ndim < 3 else values.reshape(-1, *values.shape[-2:])[0]


def _axes(run: Source, name: str) -> tuple[str, str]:
    dims = run.store.results[f"{name}.prediction"].dims
    return dims[-1], dims[-2]


def _legend(labels: Iterable[str]) -> list[tuple[str, str]]:
    return list(zip(labels, COLOURS, strict=False)) if len(list(labels)) > 1 else []
