# SPDX-License-Identifier: Apache-2.0
"""Where traces go: a file that a collector can read, or a collector, be it there or not."""

import json
import socket
import time
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from insitu import config
from insitu.controller import tracing
from insitu.controller.admission import Peer
from insitu.controller.tracing import Traces
from insitu.errors import ConfigError, RunError
from insitu.wire.messages import Event
from insitu.wire.session import Link, Session, Side
from insitu.wire.tracing import Span, TracedWindow, child_of, root_of

ROOT = root_of("5eed", 0, 100)
RANK = Peer(b"3", Session(Link.RANK_CONTROLLER, Side.LISTENS), "rank 3", 3, "n17", 4711)


def test_a_file_has_lines_of_otlp_json(tmp_path: Path) -> None:
    said: list[Event] = []
    traces = Traces("melt", str(tmp_path / "traces.jsonl"), lambda who, event: said.append(event))
    traces.hear(RANK, [Span("publish", "producer", ROOT, "", 10, 30, {"insitu.step": 100})])
    traces.note(TracedWindow("stats", 2, (ROOT, child_of(ROOT))))
    traces.merged("stats", {1: 1, 2: 2})
    traces.stored("stats", [1, 2])
    traces.close()
    traces.close()
    lines = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    spans = {
        span["name"]: span
        for line in lines
        for of in line["resourceSpans"]
        for scope in of["scopeSpans"]
        for span in scope["spans"]
    }
    assert sorted(spans) == ["merge stats", "publish", "store stats"]
    assert spans["publish"]["traceId"] == ROOT[3:35]
    assert spans["publish"]["spanId"] == spans["merge stats"]["parentSpanId"] == ROOT[36:52]
    assert spans["publish"]["startTimeUnixNano"] == "10"
    assert len(spans["merge stats"]["links"]) == 1
    assert spans["store stats"]["parentSpanId"] == spans["merge stats"]["spanId"]
    assert said == []


def test_what_no_collector_takes_is_counted_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PATIENCE_S", 0.2)
    said: list[Event] = []
    with socket.socket() as nobody:  # bound, and not listening: connections are refused
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1/traces"
        traces = Traces("melt", address, lambda who, event: said.append(event))
        traces.hear(RANK, [Span("publish", "producer", ROOT, "", 10, 30, {})] * 2000)  # four batches
        begin = time.monotonic()
        traces.close()
        assert time.monotonic() - begin < 2.0
    assert [event.kind for event in said] == ["traces-lost"] * 2
    assert said[-1].text == f"In all 2000 spans of traces were lost, which {address} did not take."


def test_a_file_that_cannot_be_written_is_told_of_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"set traces\.to to another file"):
        Traces("melt", str(tmp_path / "none" / "traces.jsonl"), lambda who, event: None)


def test_without_the_library_there_is_one_sentence_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insitu.config.checks.find_spec", lambda name: None)
    operators = {"stats": {"use": "moments", "of": "u", "over": "step", "window": 10}}
    with pytest.raises(ConfigError, match=r'pip install "insitu\[traces\]"'):
        config.build({"run": "x", "simulation": {"command": "x"}, "operators": operators, "traces": {}})
