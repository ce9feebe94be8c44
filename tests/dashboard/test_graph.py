# SPDX-License-Identifier: Apache-2.0
"""The pipeline as a graph: what is joined to what, what flows there, and that any name can be drawn."""

from typing import Any
from xml.etree import ElementTree

import insitu
from analytics.moments import Moments
from insitu.dashboard import graph
from insitu.dashboard.notebook import run_html
from tests.dashboard.snapshots import snapshot


def variable(name: str, sent_bytes: int, needed: bool = True) -> dict[str, Any]:
    return {"name": name, "shape": [4, 6], "units": "K", "needed": needed, "sent_bytes": sent_bytes}


def operator(name: str, *of: str, results: int = 0, stored: bool = True, failed: str = "") -> dict[str, Any]:
    told = {"name": name, "use": "moments", "of": list(of), "results": results, "row_bytes": 100, "stored": stored}
    return told | {"failed": failed}


def told(*variables: dict[str, Any], operators: list[dict[str, Any]], at_s: float) -> dict[str, Any]:
    return snapshot([0.0], [0.0], variables=list(variables), operators=operators) | {"duration_s": at_s}


def flows(drawn: graph.Graph) -> dict[tuple[str, str], float | None]:
    return {(edge.source, edge.target): edge.bytes_per_s for edge in drawn.edges}


def test_what_flows_is_what_came_since_the_earlier_snapshot() -> None:
    """u flows to the one that folds it and its results to the one that takes them; w leaves no rank."""
    chain = ("drift", "stats.mean")
    before = told(variable("u", 1000), operators=[operator("stats", "u", results=1), operator(*chain)], at_s=10.0)
    now = told(
        *(variable("u", 5000), variable("w", 0, needed=False)),
        operators=[operator("stats", "u", results=5, stored=False), operator(*chain, results=2)],
        at_s=14.0,
    )
    assert flows(graph.of_snapshot(now, before)) == {
        ("simulation", "variable u"): 1000.0,
        ("variable u", "operator stats"): 1000.0,
        ("operator stats", "operator drift"): 100.0,
        ("operator drift", "results.zarr"): 50.0,
    }
    assert flows(graph.of_snapshot(now, {}))["simulation", "variable u"] == 5000 / 14


def test_a_recording_takes_variables_as_they_are() -> None:
    now = told(variable("u", 5000), operators=[operator("stats", "u")], at_s=5.0) | {"recorded": ["*"]}
    assert flows(graph.of_snapshot(now, {}))["variable u", "recording.zarr"] == 1000.0


def test_any_name_is_drawn_and_many_are_told_by_their_number() -> None:
    names = ['<b>"bold"&', "\x01", "a" * 500, *map(str, range(60))]
    now = told(
        *(variable(name, 0) for name in names), operators=[operator(name, name) for name in names[:1] * 40], at_s=1.0
    )
    drawn = ElementTree.fromstring(graph.svg(graph.of_snapshot(now, {})))
    texts = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count('<b>"bold"&') == 2
    assert f"and {len(names) - graph.VARIABLES} more" in texts
    assert f"and {40 - graph.OPERATORS} more" in texts


def test_a_run_of_which_nothing_is_known_has_a_simulation() -> None:
    assert list(graph.of_snapshot({}, {}).boxes) == ["simulation"]
    assert graph.svg(graph.Graph()) == ""


def test_an_operator_that_failed_is_told_and_marked() -> None:
    now = told(variable("u", 0), operators=[operator("stats", "u", failed="ValueError")], at_s=1.0)
    assert "moments, failed" in graph.svg(graph.of_snapshot(now, {}))


def test_a_notebook_shows_pipelines_with_their_mistakes_and_runs_with_their_names() -> None:
    pipeline = insitu.Pipeline("heat").add("stats", Moments(of="u", over="step", window=10))
    chained = pipeline.add("drift", Moments(of="stats.mean", over="step", window=5)).output("drift")
    assert "u to stats; stats to drift; drift to results.zarr" in chained._repr_html_()
    assert "unknown key; did you mean &quot;nodes&quot;" in insitu.Pipeline("x", staging={"nodez": 1})._repr_html_()
    shown = run_html(snapshot([0.0, 1.0], [0.0, 0.0], run="<script>"))
    assert "Run &lt;script&gt;" in shown
    assert "it waits for 50 % of its time" in shown
