# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told, read by its own parser."""

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from insitu.dashboard.metrics import metrics
from tests.dashboard.snapshots import snapshot

LABELS = ("run", "node", "state", "policy", "reason", "cause", "operator", "le")


def samples(*snapshots: dict) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(metrics(snapshots).decode())
    return {
        (sample.name, *(sample.labels[key] for key in LABELS if key in sample.labels)): sample.value
        for family in families
        for sample in family.samples
    }


def test_counters_and_gauges_are_those_of_the_snapshot() -> None:
    found = samples(snapshot([0.0], [0.0]))
    assert found["insitu_steps_published_total", "melt"] == 30
    assert found["insitu_steps_dropped_total", "melt", "block", "no room"] == 2
    assert found["insitu_bytes_sent_total", "melt"] == 3 << 20
    assert found["insitu_publish_block_seconds_sum", "melt", "staging"] == 1.5
    assert found["insitu_publish_block_seconds_sum", "melt", "network"] == 0.5
    assert [found["insitu_publish_block_seconds_bucket", "melt", "staging", le] for le in ("0.001", "1.0", "+Inf")] == [
        5,
        7,
        8,
    ]
    assert found["insitu_publish_block_seconds_count", "melt", "network"] == 3
    assert found["insitu_steering_applied_total", "melt"] == 4
    assert found["insitu_queue_bytes", "melt", "1"] == 4096
    assert found["insitu_reader_lag_steps", "melt", "0"] == 3
    assert found["insitu_heartbeat_age_seconds", "melt", "1"] == 0.25
    assert found["insitu_train_loss", "melt", "net"] == 0.5
    assert found["insitu_staging_nodes", "melt", "running"] == 2


def test_there_is_no_series_for_a_rank() -> None:
    assert len(samples(snapshot([0.0], [0.0], ranks=200))) == len(samples(snapshot([0.0], [0.0], ranks=2)))


def test_runs_stand_side_by_side_and_one_without_news_is_left_out() -> None:
    found = samples(snapshot([0.0], [0.0]), snapshot([0.0], [0.0], run='a "b" {c}'), {})
    assert {labels[0] for name, *labels in found if name == "insitu_steps_published_total"} == {"melt", 'a "b" {c}'}


def test_the_grafana_dashboard_asks_for_what_there_is() -> None:
    told = json.loads((Path(__file__).parents[2] / "docs" / "grafana.json").read_text())
    asked = {
        name for panel in told["panels"] for one in panel["targets"] for name in re.findall(r"insitu_\w+", one["expr"])
    }
    assert asked
    assert asked <= {name for name, *_ in samples(snapshot([0.0], [0.0]))}
