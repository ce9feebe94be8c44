# SPDX-License-Identifier: Apache-2.0
"""What a snapshot says, as numbers with labels and as tables. For the pages and the report alike; plain functions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from insitu.dashboard import derive
from insitu.errors import ActionError
from insitu.steering.actions import Receipt
from insitu.text import count, duration, size

Cell = str | int | float

RANKS_HEAD = (
    "rank",
    "host",
    "state",
    "steps",
    "dropped",
    "put",
    "waited for staging",
    "for the network",
    "for actions",
)
NODES_HEAD = ("node", "host", "state", "folded steps", "queued", "states", "of", "peak queue", "busy folding")
VARIABLES_HEAD = ("variable", "dims", "shape", "dtype", "units", "put", "sent", "delivered in", "left out of")
OPERATORS_HEAD = ("operator", "use", "of", "over", "window", "results", "failed")
EVENTS_HEAD = ("since start", "who", "level", "what", "in words")
RECEIPTS_HEAD = ("number", "action", "from and to", "by", "outcome", "after step", "why")
_COLOURED = {"error": "gone", "warning": "warning"}


@dataclass(slots=True)
class Table:
    """Rows under a heading; a row may say by `states` how it is coloured."""

    head: Sequence[str]
    rows: list[list[Cell]] = field(default_factory=list)
    states: list[str] = field(default_factory=list)


def cards(snapshot: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is asked for most, each with its label."""
    progress = snapshot.get("progress", {})
    index, moment = progress.get("index"), progress.get("time")
    nodes = snapshot.get("nodes", [])
    queued = sum(node.get("waiting_bytes", 0) for node in nodes)
    room = len(nodes) * snapshot.get("budgets", {}).get("node_bytes", 0) / 2  # the other half is for states
    left_s = derive.left_s(snapshot)
    return [
        ("state", state_of(snapshot)),
        ("steps", _of(progress.get("steps", 0), snapshot.get("expected_steps"))),
        ("newest step", "none" if index is None else f"{index:,}"),
        ("physical time", "none" if moment is None else f"{moment:.6g}"),
        ("steps a second", f"{derive.rate(snapshot, 'steps'):.3g}"),
        ("data a second", size(derive.rate(snapshot, "bytes"))),
        ("received", size(progress.get("bytes", 0))),
        ("dropped steps", f"{progress.get('dropped', 0):,}"),
        ("results", f"{progress.get('results', 0):,}"),
        ("queued", f"{size(queued)} of {size(room)}"),
        ("duration", duration(snapshot.get("duration_s", 0.0))),
        *([("time left", f"about {duration(round(left_s))}")] if left_s is not None else []),
    ]


def _of(steps: int, expected: int | None) -> str:
    return f"{steps:,} of {expected:,}" if expected else f"{steps:,}"


def state_of(snapshot: Mapping[str, Any]) -> str:
    """Say in a word or two how far a run is."""
    return str(snapshot.get("status") or snapshot.get("phase") or "unknown")


def nodes(snapshot: Mapping[str, Any]) -> Table:
    """Return a row for each staging node."""
    table = Table(NODES_HEAD)
    room = snapshot.get("budgets", {}).get("node_bytes", 0)
    lasted_s = max(1e-9, snapshot.get("duration_s", 0.0))
    over = snapshot.get("phase") == "ended"
    for node in snapshot.get("nodes", []):
        state = "ended" if over and node["state"] == "running" else node["state"]
        table.rows.append(
            [
                node["node"], node["host"], state, node.get("folded_steps", 0),
                size(node.get("waiting_bytes", 0)), size(node.get("state_bytes", 0)), size(room),
                size(node.get("peak_bytes", 0)), f"{100 * node.get('fold_s', 0) / lasted_s:.0f} %",
            ]
        )  # fmt: skip
        table.states.append(node["state"])
    return table


def ranks(snapshot: Mapping[str, Any]) -> Table:
    """Return a row for each rank that is told of."""
    table = Table(RANKS_HEAD)
    for rank in snapshot.get("ranks", {}).get("told", []):
        table.rows.append(
            [
                rank["rank"], rank["host"], rank["state"], rank["steps"], rank["dropped"], size(rank["put_bytes"]),
                *(duration(rank.get(f"wait_{cause}_s", 0.0)) for cause in ("staging", "network", "action")),
            ]
        )  # fmt: skip
        table.states.append(rank["state"])
    return table


def drops(snapshot: Mapping[str, Any]) -> Table:
    """Return how many steps were dropped, by reason."""
    reasons = snapshot.get("progress", {}).get("dropped_because", {})
    return Table(("reason", "steps"), [[reason, number] for reason, number in reasons.items()])


def operators(snapshot: Mapping[str, Any]) -> Table:
    """Return a row for each operator."""
    table = Table(OPERATORS_HEAD)
    for one in snapshot.get("operators", []):
        window = "each step" if one["window"] is None else str(one["window"])
        over = ", ".join(one["over"])
        table.rows.append(
            [one["name"], one["use"], ", ".join(one["of"]), over, window, one["results"], one["failed"] or "no"]
        )
        table.states.append("gone" if one["failed"] else "running")
    return table


def variables(snapshot: Mapping[str, Any]) -> Table:
    """Return a row for each variable that ranks put."""
    table = Table(VARIABLES_HEAD)
    for one in snapshot.get("variables", []):
        shape = "joined" if one["shape"] is None else " x ".join(map(str, one["shape"])) or "one value"
        sent = size(one["sent_bytes"]) if one["needed"] else "not sent: no staging node folds it"
        table.rows.append(
            [
                one["name"], ", ".join(one["dims"]), shape, one["dtype"], one["units"], size(one["produced_bytes"]),
                sent, count(one["delivered"], "step"), count(one["left_out"], "step"),
            ]
        )  # fmt: skip
    return table


def receipts(actions: Iterable[Mapping[str, Any]]) -> Table:
    """Return a row for each receipt of ``actions.jsonl``."""
    table = Table(RECEIPTS_HEAD)
    for told in actions:
        try:
            receipt = Receipt.from_plain(told)
        except ActionError:
            continue  # a note of the record, which is no receipt
        changes = "; ".join(
            f"{name}: {_value(receipt.old.get(name))} to {_value(new)}" for name, new in receipt.new.items()
        )
        after = "none" if receipt.step is None else str(receipt.step)
        table.rows.append(
            [receipt.action.id, receipt.action.kind, changes, receipt.action.by, receipt.outcome, after, receipt.reason]
        )
        table.states.append({"applied": "", "refused": "warning"}.get(receipt.outcome, "gone"))
    return table


def applied(actions: Iterable[Mapping[str, Any]]) -> list[int]:
    """Return after which steps actions of ``actions.jsonl`` were applied."""
    steps = []
    for told in actions:
        try:
            receipt = Receipt.from_plain(told)
        except ActionError:
            continue
        if receipt.outcome == "applied" and receipt.step is not None:
            steps.append(receipt.step)
    return steps


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]


def events(log: Iterable[Mapping[str, Any]]) -> Table:
    """Return a row for each event of a log."""
    table = Table(EVENTS_HEAD)
    for event in log:
        words = [str(event.get(key, "")) for key in ("source", "level", "kind", "text")]
        table.rows.append([duration(event.get("since_start_s", 0.0)), *words])
        table.states.append(_COLOURED.get(str(event.get("level")), ""))
    return table
