# SPDX-License-Identifier: Apache-2.0
"""How a run does, as plain data for whoever looks: the dashboard, ``insitu top``, the metrics, the report.

A *snapshot* is a dict of JSON types. It is made only when somebody asks, or once at the end, when it stays in
``snapshot.json``: what is seen of a run that has ended is what was seen while it went on. Its size is bounded: the
timeline is thinned, and of many ranks those are told that have waited longest. Only the timeline costs something when
nobody looks: a dozen sums once a second.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from insitu import __version__
from insitu.client.patience import WAITS_UP_TO_S, waits_of
from insitu.config import config_hash
from insitu.controller.admission import Peer
from insitu.controller.report import MOVED, Outcome, moved_by
from insitu.controller.service import Service
from insitu.controller.sink import Sink
from insitu.controller.timeline import Timeline
from insitu.learner import Learner
from insitu.operator import Operator
from insitu.pipeline import Pipeline
from insitu.registry import use_of

#: Ranks that are told one by one; of more, those that have waited longest.
RANKS = 256
#: What a rank says of itself, and a staging node, as far as it is shown.
RANK_COUNTERS = ("steps", "dropped", "put_bytes", "wait_staging_s", "wait_network_s", "wait_action_s")
NODE_COUNTERS = (
    "received_bytes", "waiting_bytes", "waiting_steps", "peak_bytes", "state_bytes", "folded_steps", "batches",
    "fold_s", "recorded_steps", "recorded_bytes",
)  # fmt: skip
#: How long steps have waited on staging nodes, and for what.
WAITED_FOR = ("waited_for_fold_s", "waited_for_trainer_s", "waited_for_recording_s", "waited_for_room_s")


class Feed:
    """The snapshots of one run. `clock` is that of `time.monotonic`. Belongs to the controller's thread.

    `dask` says where the scheduler is, and its pages (`insitu.staging.executors.Cluster.told`).
    """

    def __init__(
        self,
        pipeline: Pipeline,
        sink: Sink,
        dask: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        #: ``staging``, ``streaming``, ``finishing`` or ``ended``.
        self.phase = "staging"
        self.outcome: Outcome | None = None
        self._pipeline = pipeline
        self._sink = sink
        self._clock = clock
        self._begin = clock()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._duration_s: float | None = None
        self._timeline = Timeline()
        # What never changes, worked out once: this is asked for twice a second.
        self._hash = config_hash(pipeline.config)
        self._needed = {need.name for need in pipeline.needs}.difference(pipeline.stays)
        self._uses = {name: use_of(type(operator)) for name, operator in pipeline.config.operators.items()}
        self._stored = frozenset(pipeline.stored)
        self._recorded = sorted(pipeline.config.recorded)
        self._dask = dict(dask or {})

    def note(self, service: Service, *, last: bool = False) -> None:
        """Add to the timeline, when it is time. To be called often, for the `last` time when the ranks have ended."""
        now = self._clock() - self._begin
        if self._timeline.due(now, last=last):
            self._timeline.add(now, self._totals(service), last=last)

    def end(self, outcome: Outcome) -> None:
        """The run has ended, and nothing changes any more."""
        self.phase, self.outcome = "ended", outcome
        self._duration_s = self._clock() - self._begin

    def snapshot(self, service: Service) -> dict[str, Any]:
        """Say how the run does. Costs O(ranks) and some 0.2 ms for a small run."""
        config = self._pipeline.config
        return {
            "run": config.run,
            "insitu": __version__,
            "config_hash": self._hash,
            "phase": self.phase,
            "status": self.outcome.status if self.outcome else "",
            "reasons": list(self.outcome.reasons) if self.outcome else [],
            "started": self._started,
            "duration_s": self._duration_s or self._clock() - self._begin,
            "progress": _progress(service, self._totals(service)),
            "ranks": _ranks(service),
            "nodes": [_node(peer, self._clock()) for _, peer in sorted(service.nodes.items())],
            "fed": len(service.fed),
            "variables": self._variables(service),
            "operators": self._operators(service),
            "learners": self._learners(service),
            "dask": self._dask,
            "expected_steps": config.simulation.steps,
            "recorded": self._recorded,
            "actions": dict(service.steering.counts),
            "budgets": {
                "policy": config.buffering.policy,
                "rank_bytes": config.buffering.buffer,
                "node_bytes": config.staging.memory,
            },
            "waits": _waits(service.ranks.values()),
            "timeline": {name: list(values) for name, values in self._timeline.columns.items()},
        }  # fmt: skip

    def _totals(self, service: Service) -> dict[str, int | float]:
        ranks, nodes = service.ranks.values(), service.nodes.values()
        counts = service.tracker.counts if service.tracker is not None else None
        return {
            "steps": counts.whole if counts else 0,
            "dropped": counts.dropped.total() if counts else 0,
            "bytes": counts.nbytes if counts else 0,
            "put_bytes": int(_sum(ranks, "put_bytes")),
            "staging_s": round(_sum(ranks, "wait_staging_s"), 3),
            "network_s": round(_sum(ranks, "wait_network_s"), 3),
            "action_s": round(_sum(ranks, "wait_action_s"), 3),
            "ranks": sum(not rank.ended for rank in ranks),
            "waiting_bytes": int(_sum(nodes, "waiting_bytes")),
            "state_bytes": int(_sum(nodes, "state_bytes")),
            "fold_s": round(_sum(nodes, "fold_s"), 3),
            **{key: round(_sum(nodes, key), 3) for key in WAITED_FOR},
            "results": self._sink.rows,
        }

    def _variables(self, service: Service) -> list[dict[str, Any]]:
        tracker = service.tracker
        if tracker is None:
            return []
        moved = moved_by(tracker, service.ranks.values())
        return [
            {
                "name": name,
                "dtype": str(variable.dtype),
                "shape": list(variable.shape) if variable.shape is not None else None,
                "dims": list(variable.dims),
                "row": list(variable.row),
                "units": variable.units,
                "long_name": variable.long_name,
                "needed": not self._needed.isdisjoint((name, "*")),
                "delivered": tracker.counts.delivered[name],
                "left_out": sum(n for (left, _), n in tracker.counts.left_out.items() if left == name),
                **{key: moved[name][key] for key in MOVED},
            }
            for name, variable in sorted(tracker.offered.items())
        ]

    def _operators(self, service: Service) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "use": self._uses[name],
                **_entry(operator),
                "results": self._sink.rows_of.get(name, 0),
                "row_bytes": self._sink.row_bytes(name),
                "stored": name in self._stored,
                "failed": service.failed.get(name) or self._sink.failures.get(name, ""),
            }
            for name, operator in self._pipeline.config.operators.items()
        ]

    def _learners(self, service: Service) -> list[dict[str, Any]]:
        """Say what each learner counts, by the names that it gives it."""
        told = service.learners
        return [
            {"name": name, "restarts": told.restarts[name], **told.counters.get(name, {}), **self._sink.loss_of(name)}
            for name in self._pipeline.learners
        ]


def _entry(operator: Operator | Learner) -> dict[str, Any]:
    if isinstance(operator, Learner):
        return {"of": list(operator.needs), "over": [], "window": "as it learns"}
    window = None if operator.keeps_steps else operator.window
    return {"of": list(operator.of), "over": list(operator.over), "window": window}


def _progress(service: Service, totals: dict[str, int | float]) -> dict[str, Any]:
    tracker = service.tracker
    if tracker is None:
        return {**totals, "index": None, "time": None, "dropped_because": {}}
    counts = tracker.counts
    return {**totals, "index": counts.index, "time": counts.time, "dropped_because": dict(counts.dropped)}


def _ranks(service: Service) -> dict[str, Any]:
    peers = sorted(service.ranks.values(), key=_waited, reverse=True)
    told = sorted(peers[:RANKS], key=lambda peer: peer.number)
    states = [_state(peer, service.gone) for peer in peers]
    return {
        "expected": service.size,
        "here": len(peers),
        **{state: states.count(state) for state in ("running", "ended", "gone")},
        "told": [
            {
                "rank": peer.number, "host": peer.host, "pid": peer.pid, "state": _state(peer, service.gone),
                **{key: _counter(peer, key) for key in RANK_COUNTERS},
            }
            for peer in told
        ],
    }  # fmt: skip


def _node(peer: Peer, now: float) -> dict[str, Any]:
    counters = {key: _counter(peer, key) for key in NODE_COUNTERS if key in peer.counters}
    state = "gone" if peer.ended else "running"
    silent = {} if peer.ended else {"silent_s": round(max(0.0, now - peer.heard_at), 3)}
    return {"node": peer.number, "host": peer.host, "pid": peer.pid, "state": state, **counters, **silent}


def _state(peer: Peer, gone: Iterable[int]) -> str:
    return "gone" if peer.number in gone else "ended" if peer.ended else "running"


def _waits(ranks: Collection[Peer]) -> dict[str, Any]:
    """Say how many waits of all ranks lasted how long: up to each of some seconds, or longer."""
    causes = {cause: [int(_sum(ranks, name)) for name in waits_of(cause)] for cause in ("staging", "network")}
    return {"up_to_s": list(WAITS_UP_TO_S), **causes}


def _waited(peer: Peer) -> float:
    return _counter(peer, "wait_staging_s") + _counter(peer, "wait_network_s")


def _sum(peers: Iterable[Peer], key: str) -> float:
    return sum(_counter(peer, key) for peer in peers)


def _counter(peer: Peer, key: str) -> int | float:
    """Return what a peer has counted. What it says is its own: text where a number belongs counts as nothing."""
    return _number(peer.counters.get(key, 0))


def _number(value: int | float | str) -> int | float:
    return 0 if isinstance(value, str) else value
