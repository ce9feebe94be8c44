# SPDX-License-Identifier: Apache-2.0
"""What follows from a snapshot: rates, where the ranks' time went, and who holds the run back. Plain functions."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from insitu.text import size

Snapshot = Mapping[str, Any]
Columns = dict[str, list[float]]

#: What the time of a rank can go into, in the order in which it is drawn.
SHARES = ("computing", "staging", "network")
#: Over how long a rate is taken that is said as one number.
RATE_S = 5.0
#: From this share of the ranks' time on, waiting is worth a word.
WORTH_SAYING = 0.05
#: A staging node that folds for more than this part of the time has no time left.
BUSY = 0.8


def columns(snapshot: Snapshot) -> Columns:
    """Return the timeline by column; empty columns where nothing was noted yet."""
    return {name: list(values) for name, values in snapshot.get("timeline", {}).items()}


def differences(values: Sequence[float]) -> list[float]:
    """Return how much each value is above the one before; never less than nothing, since all count upward.

    >>> differences([0, 3, 3, 2])
    [3, 0, 0]
    """
    return [max(0, after - before) for before, after in pairwise(values)]


def rates(snapshot: Snapshot, name: str) -> tuple[list[float], list[float]]:
    """Return the ends of the timeline's intervals, and how much of a total came a second in each."""
    timeline = columns(snapshot)
    at, totals = timeline.get("at_s", []), timeline.get(name, [])
    gains = zip(differences(totals), differences(at), strict=True)
    return at[1:], [gained / length if length else 0.0 for gained, length in gains]


def rate(snapshot: Snapshot, name: str) -> float:
    """Return how much of a total came a second of late."""
    timeline = columns(snapshot)
    at, totals = timeline.get("at_s", []), timeline.get(name, [])
    if not at:
        return 0.0
    first = next(k for k, moment in enumerate(at) if moment >= at[-1] - RATE_S)
    return (totals[-1] - totals[first]) / (at[-1] - at[first]) if at[-1] > at[first] else 0.0


def shares(snapshot: Snapshot) -> Columns:
    """Return where the time of the ranks went in each interval, as shares that sum up to 1: `at_s` and `SHARES`.

    A rank that did not say how long it waited has computed. Intervals without any rank are left out.
    """
    timeline = columns(snapshot)
    at = timeline.get("at_s", [])
    found: Columns = {name: [] for name in ("at_s", *SHARES)}
    waits = {name: differences(timeline.get(f"{name}_s", [])) for name in SHARES[1:]}
    for k, length in enumerate(differences(at)):
        ranks = max(timeline["ranks"][k], timeline["ranks"][k + 1])
        if not ranks or not length:
            continue
        waited = [min(1.0, waits[name][k] / (ranks * length)) for name in SHARES[1:]]
        scale = 1 / max(1.0, sum(waited))  # ranks say how they do twice a second, which is not the timeline's second
        found["at_s"].append(at[k + 1])
        for name, share in zip(SHARES, [max(0.0, 1 - sum(waited)), *waited], strict=True):
            found[name].append(share * scale if name != "computing" else share)
    return found


def verdict(snapshot: Snapshot) -> str:
    """Say in one sentence who holds the run back, over the last intervals of its timeline.

    >>> verdict({"phase": "streaming", "timeline": {}})
    'Nothing was published yet.'
    """
    recent = {name: values[-5:] for name, values in shares(snapshot).items()}
    count = len(recent["at_s"])
    if not count:
        return "Nothing was published yet."
    means = {name: sum(recent[name]) / count for name in SHARES}
    if means["staging"] + means["network"] < WORTH_SAYING:
        return f"The simulation computes: it waits for {_percent(means['staging'] + means['network'])} of its time."
    if means["network"] > means["staging"]:
        return (
            f"The network holds the simulation back: it waits for {_percent(means['network'])} of its time until steps "
            "have left the ranks."
        )
    budgets = snapshot.get("budgets", {})
    nodes = max(1, len(snapshot.get("nodes", [])))
    busy = rate(snapshot, "fold_s") / nodes
    waits = f"it waits for {_percent(means['staging'])} of its time for room on the staging nodes"
    if busy > BUSY:
        return f"The folds hold the simulation back: {waits}, which fold for {_percent(min(1.0, busy))} of theirs."
    return f"The staging nodes' memory ({size(budgets.get('node_bytes', 0))} each) holds the simulation back: {waits}."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
