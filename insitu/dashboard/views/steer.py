# SPDX-License-Identifier: Apache-2.0
"""*Steer*: what the simulation lets be set, its actions, and the receipts of all that was asked of it, by whoever."""

from collections.abc import Mapping, Sequence
from typing import Any

from insitu.dashboard.helm import VERBS
from insitu.dashboard.sources import Source
from insitu.dashboard.tables import receipts
from insitu.dashboard.views import Control, Part, Update
from insitu.steering.parameters import ParameterSpec

NAME, TITLE, EVERY_S, READS = "steer", "Steer", 0.2, False

#: Receipts on the page; all of them are in actions.jsonl.
SHOWN = 100
#: What an action does, for people.
ABOUT = {
    "pause": "The simulation waits after a step that is common to all ranks.",
    "resume": "It goes on.",
    "checkpoint": "It writes its checkpoint, if it has one.",
    "stop": "It ends after a common step.",
    "rules": "Those with a tick act on the simulation.",
}
QUESTION = "Stop the simulation? It ends after its next common step, and cannot be resumed."


def parts(runs: Sequence[Source]) -> list[Part]:
    """Return for each run its widgets and its receipts."""
    found = []
    for k, _ in enumerate(runs):
        found += [
            Part("text", f"say-{k}", "", k),
            Part("controls", f"actions-{k}", "Actions", k),
            Part("controls", f"parameters-{k}", "Parameters", k),
            Part("table", f"receipts-{k}", "Receipts, newest first", k),
        ]
    return found


def update(runs: Sequence[Source], choice: Mapping[str, str]) -> Update:
    """Return the widgets with the values of now, and the receipts."""
    update = Update()
    for k, run in enumerate(runs):
        update.tables[f"receipts-{k}"] = receipts(list(run.actions.events)[: -SHOWN - 1 : -1])
        helm = run.helm
        if helm is None or not run.live:
            update.texts[f"say-{k}"] = "The run has ended, and cannot be steered any more."
            update.hidden += [f"actions-{k}", f"parameters-{k}"]
            continue
        helm.open()
        update.texts[f"say-{k}"] = helm.trouble or ("" if helm.ready else "Waiting for the first step of all ranks.")
        update.controls[f"actions-{k}"] = [_button(k, verb, {}) for verb in VERBS] + [
            _button(k, name, arguments) for name, arguments in helm.actions.items() if name not in VERBS
        ]
        update.controls[f"parameters-{k}"] = [
            _widget(k, spec, helm.values.get(name)) for name, spec in helm.parameters.items() if spec.kind != "field"
        ]
        if helm.ready and not update.controls[f"parameters-{k}"]:
            update.hidden.append(f"parameters-{k}")
            update.texts[f"say-{k}"] = helm.trouble or "This simulation declares no parameter: sim.parameter(...)."
    return update


def _button(k: int, verb: str, arguments: Mapping[str, ParameterSpec]) -> Control:
    inputs = [_widget(k, spec, spec.default) for spec in arguments.values()]
    return Control(
        k, verb, "button", verb, about=ABOUT.get(verb, ""), ask=QUESTION if verb == "stop" else "", inputs=inputs
    )


def _widget(k: int, spec: ParameterSpec, value: Any) -> Control:
    """Return the widget that fits a parameter."""
    label = f"{spec.name} [{spec.units}]" if spec.units else spec.name
    kind = "text"
    if spec.choices:
        kind = "select"
    elif spec.kind == "bool":
        kind = "checkbox"
    elif spec.kind in ("float", "int"):
        kind = "number" if spec.minimum is None or spec.maximum is None else "slider"
    step = 1 if spec.kind == "int" else "any"
    shown = str(value).lower() if isinstance(value, bool) else value
    options = [str(each) for each in spec.choices]
    return Control(k, spec.name, kind, label, shown, options, spec.minimum, spec.maximum, step=step, about=_about(spec))


def _about(spec: ParameterSpec) -> str:
    found = [spec.description] if spec.description else []
    if spec.minimum is not None or spec.maximum is not None:
        low = "" if spec.minimum is None else f"from {spec.minimum:g} "
        high = "" if spec.maximum is None else f"to {spec.maximum:g}"
        found.append(f"{low}{high}".strip())
    return ", ".join(found)
