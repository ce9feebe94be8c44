# SPDX-License-Identifier: Apache-2.0
"""Snapshots to test with: of a run of some ranks on two staging nodes, told once a second."""

from collections.abc import Mapping
from typing import Any


def snapshot(
    staging_s: list[float],
    network_s: list[float],
    ranks: int = 2,
    fold_s: float = 0.0,
    action_s: float = 0.0,
    waited: Mapping[str, float] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Return a snapshot whose ranks have waited so long by each second, in all."""
    seconds = len(staging_s)
    waited = {"fold": 0.0, "trainer": 0.0, "recording": 0.0, "room": 0.0, **(waited or {})}
    timeline = {
        "at_s": [float(k) for k in range(seconds)],
        "steps": [10 * k for k in range(seconds)],
        "bytes": [k << 20 for k in range(seconds)],
        "dropped": [0] * seconds,
        "staging_s": staging_s,
        "network_s": network_s,
        "ranks": [ranks] * seconds,
        "waiting_bytes": [0] * seconds,
        "state_bytes": [0] * seconds,
        "fold_s": [fold_s * k for k in range(seconds)],
        "action_s": [action_s * k for k in range(seconds)],
        **{f"waited_for_{name}_s": [each * k for k in range(seconds)] for name, each in waited.items()},
        "results": list(range(seconds)),
    }
    node: dict[str, Any] = {
        "host": "n17",
        "pid": 1,
        "state": "running",
        "folded_steps": 7,
        "waiting_bytes": 4096,
        "waiting_steps": 3,
    }
    node["silent_s"] = 0.25
    rank = {"host": "n16", "pid": 2, "state": "running", "steps": 10, "dropped": 0, "put_bytes": 1 << 20}
    return {
        "run": "melt", "phase": "streaming", "status": "", "reasons": [], "duration_s": float(seconds),
        "progress": {
            "steps": 30, "bytes": 3 << 20, "put_bytes": 3 << 20, "staging_s": 1.5, "network_s": 0.5, "results": 3,
            "dropped": 2, "dropped_because": {"no room": 2}, "index": 290, "time": 2.5,
        },
        "ranks": {
            "expected": ranks, "here": ranks, "running": ranks, "ended": 0, "gone": 0,
            "told": [{"rank": k, "wait_staging_s": 0.0, "wait_network_s": 0.0, **rank} for k in range(ranks)],
        },
        "nodes": [{"node": k, **node} for k in range(2)],
        "variables": [], "operators": [], "learners": [{"name": "net", "loss": 0.5}],
        "actions": {"applied": 4, "refused": 1},
        "waits": {"up_to_s": [0.001, 1.0], "staging": [5, 2, 1], "network": [0, 3, 0]},
        "budgets": {"policy": "block", "rank_bytes": 1 << 28, "node_bytes": 1 << 30},
        "timeline": timeline,
        **changes,
    }  # fmt: skip
