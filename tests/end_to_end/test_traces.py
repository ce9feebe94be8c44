# SPDX-License-Identifier: Apache-2.0
"""The traces of a real run, as a collector gets them: from the put on a rank to the stored result, over processes."""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import program, total

service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

EVERY = 4


@dataclass(frozen=True)
class Got:
    """A span as the collector has it."""

    process: str
    pid: int
    name: str
    trace: bytes
    id: bytes
    parent: bytes
    links: list[bytes]
    begin_ns: int
    end_ns: int
    attributes: dict[str, Any]


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Got]]]:
    """Take OTLP over HTTP, as a collector does; yield its address and all that came."""
    came: list[Got] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            came.extend(spans_of(service.ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", came
        server.shutdown()
        thread.join()


def plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def spans_of(request: Any) -> Iterator[Got]:
    for of in request.resource_spans:
        who = plain(of.resource.attributes)
        for span in (one for scope in of.scope_spans for one in scope.spans):
            yield Got(
                who["service.instance.id"], who["process.pid"], span.name, span.trace_id, span.span_id,
                span.parent_span_id, [link.span_id for link in span.links], span.start_time_unix_nano,
                span.end_time_unix_nano, plain(span.attributes),
            )  # fmt: skip


def test_a_windows_trace_leads_from_put_to_result_over_all_processes(
    start: Start, collector: tuple[str, list[Got]]
) -> None:
    address, came = collector
    operators = {"sum": total(window=5), "series": total(over="space")}
    left = start(
        *program("steady", "--steps", 10, "--pause", 0.02),
        ranks=2, nodes=2, operators=operators, traces={"to": address, "every": EVERY},
    ).wait()  # fmt: skip
    assert left.status == 0, left.stderr
    assert "opentelemetry" not in left.stderr.lower()

    by_id = {span.id: span for span in came}
    assert len(by_id) == len(came)
    published = [span for span in came if span.name == "publish"]
    assert {(span.process, span.attributes["insitu.step"]) for span in published} == {
        (f"test0/rank {rank}", step) for rank in (0, 1) for step in (0, 4, 8)
    }
    roots = [span for span in came if not span.parent]
    assert {span.process for span in roots} == {"test0/rank 0"}
    assert len({span.trace for span in came}) == len(roots) == 3

    for window, first in ((0, 0), (1, 8)):
        [store] = [s for s in came if s.name == "store sum" and s.attributes["insitu.window"] == window]
        way = [store]
        while way[-1].parent:
            way.append(by_id[way[-1].parent])
        assert [span.name for span in way[:4]] == ["store sum", "merge sum", "fold sum", "receive"]
        assert all(span.name == "publish" for span in way[4:])
        assert way[-1].attributes["insitu.step"] == first
        assert len({span.trace for span in way}) == 1
        assert len({span.pid for span in way}) >= 3
        assert all(span.begin_ns <= span.end_ns for span in way)
        begun = [(s.name, s.begin_ns - way[-1].begin_ns) for s in way[:5]]  # rank 0 need not be the first to begin
        assert all(child >= parent for (_, child), (_, parent) in itertools.pairwise(begun)), begun
        folds = [by_id[link] for link in way[1].links] + [way[2]]
        steps = {0: {0, 4}, 1: {8}}[window]
        assert {(fold.process, fold.attributes["insitu.sequence"]) for fold in folds} == {
            (f"test0/staging node {node}", step) for node in (0, 1) for step in steps
        }
    assert {s.attributes["insitu.window"] for s in came if s.name == "store series"} == {0, 4, 8}
    [first] = [s for s in published if not s.parent and s.attributes["insitu.step"] == 0]
    assert first.attributes["messaging.message.body.size"] > 0
    assert left.events("traces-lost") == []
