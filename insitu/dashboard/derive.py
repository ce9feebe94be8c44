# SPDX-License-Identifier: Apache-2.0
"""What follows from a snapshot: rates, where the ranks' time went, and who holds the run back. Plain functions."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from insitu.text import size

Snapshot = Mapping[str, Any]
Columns = dict[str, list[float]]

#: What the time of a rank can go into, in the order in which it is drawn: it computes, or waits for one of the others.
SHARES = ("computing", "fold", "trainer", "recording", "memory", "network", "action")
#: Over how long a rate is taken that is said as one number.
RATE_S = 5.0
#: From this share of the ranks' time on, waiting is worth a word.
WORTH_SAYING = 0.05


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


def drawn(columns: Columns, snapshot: Snapshot) -> Columns:
    """Return columns of intervals as they are drawn: from the begin of the first, so that a single one is seen too.

    >>> drawn({"at_s": [2.0], "rate": [7.0]}, {"timeline": {"at_s": [1.0, 2.0]}})
    {'at_s': [1.0, 2.0], 'rate': [7.0, 7.0]}
    """
    before = [at for at in snapshot.get("timeline", {}).get("at_s", []) if columns["at_s"] and at < columns["at_s"][0]]
    if not before:
        return columns
    return {name: [before[-1] if name == "at_s" else values[0], *values] for name, values in columns.items()}


def rate(snapshot: Snapshot, name: str) -> float:
    """Return how much of a total came a second of late."""
    timeline = columns(snapshot)
    at, totals = timeline.get("at_s", []), timeline.get(name, [])
    if not at:
        return 0.0
    first = next(k for k, moment in enumerate(at) if moment >= at[-1] - RATE_S)
    return (totals[-1] - totals[first]) / (at[-1] - at[first]) if at[-1] > at[first] else 0.0


def left_s(snapshot: Snapshot) -> float | None:
    """Return how many seconds the run is going to take, by its pace of late; ``None`` where that is not known.

    >>> timeline = {"at_s": [0.0, 5.0], "steps": [0, 50]}
    >>> left_s({"phase": "streaming", "expected_steps": 200, "progress": {"steps": 50}, "timeline": timeline})
    15.0
    """
    expected, pace = snapshot.get("expected_steps"), rate(snapshot, "steps")
    if not expected or not pace or snapshot.get("phase") != "streaming":
        return None
    return max(0.0, (float(expected) - float(snapshot["progress"]["steps"])) / pace)


def shares(snapshot: Snapshot) -> Columns:
    """Return where the time of the ranks went in each interval, as shares that sum up to 1: `at_s` and `SHARES`.

    A rank that did not say how long it waited has computed. Intervals without any rank are left out.

    A rank knows that it waits for room on the staging nodes, these know what their steps wait for meanwhile: a fold, a
    learner, the recording, or memory, which results that are on their way still hold. So the first is divided as the
    second is, over all nodes; where no step waited for anybody, the memory is simply too small for one more.
    """
    timeline = columns(snapshot)
    at = timeline.get("at_s", [])
    found: Columns = {name: [] for name in ("at_s", *SHARES)}
    nothing = [0.0] * max(0, len(at) - 1)
    gains = {name: differences(timeline[name]) if name in timeline else nothing for name in _TOTALS}
    for k, length in enumerate(differences(at)):
        ranks = max(timeline["ranks"][k], timeline["ranks"][k + 1])
        if not ranks or not length:
            continue
        staging, network, action = (
            min(1.0, gains[name][k] / (ranks * length)) for name in ("staging_s", "network_s", "action_s")
        )
        # Ranks say how they do twice a second, which is not the timeline's second: more than all of it is all of it.
        scale = 1 / max(1.0, staging + network + action)
        parts = _divided(scale * staging, {name: gains[name][k] for name in _WAITED_FOR})
        waits = {**parts, "network": scale * network, "action": scale * action}
        found["at_s"].append(at[k + 1])
        for name in SHARES:
            found[name].append(max(0.0, 1 - sum(waits.values())) if name == "computing" else waits[name])
    return found


def _divided(staging: float, waited: Mapping[str, float]) -> dict[str, float]:
    """Divide a wait for the staging nodes as these say for what steps have waited there."""
    fold, trainer, recording, room = (waited[name] for name in _WAITED_FOR)
    whole = fold + trainer + recording
    if not whole:
        return {"fold": 0.0, "trainer": 0.0, "recording": 0.0, "memory": staging}
    room = min(room, fold)  # a folder that waits for room folds nothing meanwhile
    parts = {"fold": fold - room, "trainer": trainer, "recording": recording, "memory": room}
    return {name: staging * part / whole for name, part in parts.items()}


_WAITED_FOR = ("waited_for_fold_s", "waited_for_trainer_s", "waited_for_recording_s", "waited_for_room_s")
_TOTALS = ("staging_s", "network_s", "action_s", *_WAITED_FOR)
_VERDICTS = {
    "fold": "The folds hold the simulation back: it waits for {} of its time for the nodes, which fold.",
    "recording": "The recording holds the simulation back: it waits for {} of its time for the disk.",
    "trainer": "The trainer holds the simulation back: it waits for {} of its time until a learner takes its steps.",
    "network": "The network holds the simulation back: it waits for {} of its time until steps have left the ranks.",
    "action": "The simulation stands still for {} of its time: it is paused, or its ranks agree on an action.",
}


def verdict(snapshot: Snapshot) -> str:
    """Say in one sentence who holds the run back, over the last intervals of its timeline.

    >>> verdict({"phase": "streaming", "timeline": {}})
    'Nothing was published yet.'
    """
    recent = {name: values[-5:] for name, values in shares(snapshot).items()}
    count = len(recent["at_s"])
    if not count:
        return "Nothing was published yet."
    means = {name: sum(recent[name]) / count for name in SHARES[1:]}
    waits = _percent(sum(means.values()))
    if sum(means.values()) < WORTH_SAYING:
        return f"The simulation computes: it waits for {waits} of its time."
    worst = max(means, key=lambda name: means[name])
    if worst in ("network", "action"):
        return _VERDICTS[worst].format(_percent(means[worst]))
    waits = _percent(sum(means[name] for name in ("fold", "trainer", "recording", "memory")))
    if worst in _VERDICTS:
        return _VERDICTS[worst].format(waits)
    room = size(snapshot.get("budgets", {}).get("node_bytes", 0))
    return (
        f"The staging nodes' memory ({room} each) holds the simulation back: it waits for {waits} of its time for room "
        "on them."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
