# SPDX-License-Identifier: Apache-2.0
"""A view's page as HTML: what the view says it has, with its figures, and the script that fills them."""

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bokeh
import numpy as np
from bokeh.embed import components
from jinja2 import Environment, FileSystemLoader

from insitu.dashboard.access import Role
from insitu.dashboard.plots import PALETTES
from insitu.dashboard.sources import Source
from insitu.dashboard.views import Image, Part, Update, View

HERE = Path(__file__).parent
#: Pages whose figures are kept; a page's figures change when there are more results.
FIGURES = 32
_made: dict[str, tuple[str, dict[str, str]]] = {}
_templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True)


def page(view: View, views: Sequence[View], runs: Sequence[Source], role: Role) -> str:
    """Return the page of a view."""
    parts = view.parts(runs)
    script, divs = _figures(view.NAME, parts)
    return _templates.get_template("page.html").render(
        view=view,
        views=views,
        runs=runs,
        role=role.value,
        columns=[[part for part in parts if part.run == k] for k, _ in enumerate(runs)],
        common=[part for part in parts if part.run is None],
        signature=signature(parts),
        script=script,
        divs=divs,
        bokeh_version=bokeh.__version__,
        palettes=PALETTES if any(part.kind == "choices" for part in parts) else {},
    )


def _figures(view: str, parts: Sequence[Part]) -> tuple[str, dict[str, str]]:
    """Return the script and the places of a page's figures. They have no data yet, so they are made once."""
    key = f"{view} {signature(parts)}"
    if key not in _made:
        if len(_made) > FIGURES:
            _made.clear()
        figures = {part.id: part.figure() for part in parts if part.figure is not None}
        _made[key] = components(figures) if figures else ("", {})
    return _made[key]


def gate(wrong: bool) -> str:
    """Return the page for who has no token, or a wrong one."""
    return _templates.get_template("gate.html").render(wrong=wrong)


def signature(parts: Sequence[Part]) -> str:
    """Return a short text that changes when a page has other parts than before: it then has to be loaded again."""
    return hashlib.sha256("\n".join(f"{part.kind} {part.id}" for part in parts).encode()).hexdigest()[:12]


def encoded(update: Update, runs: Sequence[Source], shape: str) -> str:
    """Return an update as JSON. Numbers that JSON has none for (NaN, infinity) become ``null``."""
    said: dict[str, Any] = {
        "signature": shape,
        "runs": [{"name": run.name, "live": run.live, "warning": run.warning, **_state(run)} for run in runs],
        "texts": update.texts,
        "cards": update.cards,
        "drawings": update.drawings,
        "links": update.links,
        "tables": {
            key: {"head": list(table.head), "rows": table.rows, "states": table.states}
            for key, table in update.tables.items()
        },
        "sources": {
            key: {name: [_finite(value) for value in column] for name, column in columns.items()}
            for key, columns in update.sources.items()
        },
        "choices": {key: [asdict(choice) for choice in choices] for key, choices in update.choices.items()},
        "controls": {key: [asdict(control) for control in controls] for key, controls in update.controls.items()},
        "images": {key: _packed(image) for key, image in update.images.items()},
        "hidden": update.hidden,
    }
    return json.dumps(said, separators=(",", ":"))


def _packed(image: Image) -> dict[str, Any]:
    """Return an image in a form that a browser takes at ten a second: each value as one of 255 steps, and 255 for NaN.

    Costs some 5 ms for 512 x 512 values, once for all who look.
    """
    span = image.high - image.low
    scaled = np.clip((image.values - np.float32(image.low)) * np.float32(254 / span), 0, 254)
    bytes_ = np.where(np.isnan(image.values), 255, np.round(np.nan_to_num(scaled))).astype(np.uint8)
    return {
        "shape": list(image.values.shape),
        "data": base64.b64encode(zlib.compress(bytes_.tobytes(), 1)).decode(),
        "place": [float(value) for value in image.place],
        "labels": list(image.labels),
        "low": image.low,
        "high": image.high,
        "palette": image.palette,
    }


def _state(run: Source) -> dict[str, Any]:
    snapshot = run.snapshot
    return {"phase": snapshot.get("phase", ""), "status": snapshot.get("status", "")}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and value - value != 0 else value
