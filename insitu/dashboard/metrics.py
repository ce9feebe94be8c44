# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told of runs, in its text format and by its conventions: base units, ``_total`` on counters.

There is no label for a rank: a thousand of them would be a thousand series. Staging nodes are few, and have one.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST

#: name -> what it is, and where in the `progress` of a snapshot it stands.
_COUNTERS = {
    "insitu_steps_published": ("Steps that every rank has closed.", "steps"),
    "insitu_bytes_sent": ("Bytes of blocks that reached the staging nodes.", "bytes"),
    "insitu_bytes_put": ("Bytes that ranks have put, sent or not.", "put_bytes"),
    "insitu_results_stored": ("Rows of results that were stored.", "results"),
}
_NODES = {
    "insitu_queue_bytes": ("Bytes of blocks that wait on a staging node to be folded.", "waiting_bytes"),
    "insitu_queue_peak_bytes": ("The most that ever waited there.", "peak_bytes"),
    "insitu_state_bytes": ("Bytes of operators' states on a staging node.", "state_bytes"),
    "insitu_reader_lag_steps": ("Steps that a staging node has a part of and has not folded.", "waiting_steps"),
}


class _Runs(Collector):
    def __init__(self, snapshots: Sequence[Mapping[str, Any]]) -> None:
        self._snapshots = [snapshot for snapshot in snapshots if snapshot]

    def collect(self) -> Iterable[Metric]:
        for name, (about, key) in _COUNTERS.items():
            family = CounterMetricFamily(name, about, labels=["run"])
            for snapshot in self._snapshots:
                family.add_metric([str(snapshot["run"])], snapshot["progress"][key])
            yield family
        yield self._drops()
        yield from self._waits_and_actions()
        yield from self._nodes()
        yield from self._rest()

    def _drops(self) -> CounterMetricFamily:
        family = CounterMetricFamily("insitu_steps_dropped", "Steps dropped.", labels=["run", "policy", "reason"])
        for snapshot in self._snapshots:
            for reason, number in snapshot["progress"]["dropped_because"].items():
                family.add_metric([str(snapshot["run"]), snapshot["budgets"]["policy"], reason], number)
        return family

    def _waits_and_actions(self) -> Iterable[CounterMetricFamily | HistogramMetricFamily]:
        waits = HistogramMetricFamily(
            "insitu_publish_block_seconds", "How long ranks waited in a step.", labels=["run", "cause"]
        )
        actions = CounterMetricFamily("insitu_steering_applied", "Actions that were applied.", labels=["run"])
        for snapshot in self._snapshots:
            for cause in ("staging", "network") if "waits" in snapshot else ():
                bounds = [*map(str, snapshot["waits"]["up_to_s"]), "+Inf"]
                buckets = list(zip(bounds, accumulate(snapshot["waits"][cause]), strict=True))
                waits.add_metric([str(snapshot["run"]), cause], buckets, snapshot["progress"][f"{cause}_s"])
            actions.add_metric([str(snapshot["run"])], snapshot.get("actions", {}).get("applied", 0))
        return [waits, actions]

    def _nodes(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        for name, (about, key) in _NODES.items():
            gauge = GaugeMetricFamily(name, about, labels=["run", "node"])
            for run, node in self._each_node():
                gauge.add_metric([run, str(node["node"])], node.get(key, 0))
            yield gauge
        silence = GaugeMetricFamily(
            "insitu_heartbeat_age_seconds", "Seconds since a staging node said anything.", labels=["run", "node"]
        )
        folds = CounterMetricFamily("insitu_fold_seconds", "Seconds of folding.", labels=["run", "node"])
        for run, node in self._each_node():
            if "silent_s" in node:
                silence.add_metric([run, str(node["node"])], node["silent_s"])
            folds.add_metric([run, str(node["node"])], node.get("fold_s", 0.0))
        yield silence
        yield folds

    def _rest(self) -> Iterable[GaugeMetricFamily]:
        ranks = GaugeMetricFamily("insitu_ranks", "Ranks by state.", labels=["run", "state"])
        nodes = GaugeMetricFamily("insitu_staging_nodes", "Staging nodes by state.", labels=["run", "state"])
        budget = GaugeMetricFamily("insitu_node_memory_bytes", "Bytes one staging node may hold.", labels=["run"])
        loss = GaugeMetricFamily("insitu_train_loss", "The newest loss of a learner.", labels=["run", "operator"])
        lasted = GaugeMetricFamily("insitu_run_duration_seconds", "Seconds since the run began.", labels=["run"])
        for snapshot in self._snapshots:
            run = str(snapshot["run"])
            for state in ("running", "ended", "gone"):
                ranks.add_metric([run, state], snapshot["ranks"][state])
            for state in ("running", "gone"):
                nodes.add_metric([run, state], sum(node["state"] == state for node in snapshot["nodes"]))
            budget.add_metric([run], snapshot["budgets"]["node_bytes"])
            lasted.add_metric([run], snapshot["duration_s"])
            for learner in snapshot.get("learners", []):
                if "loss" in learner:
                    loss.add_metric([run, learner["name"]], learner["loss"])
        return [ranks, nodes, budget, lasted, loss]

    def _each_node(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        for snapshot in self._snapshots:
            for node in snapshot["nodes"]:
                yield str(snapshot["run"]), node


def metrics(snapshots: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the metrics of some runs; a run that nothing is known of yet is left out."""
    registry = CollectorRegistry()
    registry.register(_Runs(snapshots))
    return generate_latest(registry)
