# SPDX-License-Identifier: Apache-2.0
"""The traces of a run on their way to a file or a collector, by OpenTelemetry's SDK.

Ranks and staging nodes tell the controller of their spans (`insitu.wire.tracing`), which adds its own, of merging and
storing, and alone needs the library and a way to the collector. Sending is done by the SDK's own thread; at most
`WAITING` spans wait for it, and where the other side takes none the run goes on without.
"""

import base64
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator

from insitu.controller.admission import Peer
from insitu.errors import RunError
from insitu.wire.messages import Event
from insitu.wire.tracing import Span, TracedWindow, child_of, ids_of, now_ns

#: Spans that wait to be sent: those of some ten seconds of a large run.
WAITING = 4096
#: How often they are sent, and how long a collector may take each time; a run ends twice that later at most.
SEND_S = 1.0
PATIENCE_S = 2.0
#: Traced windows that are not stored yet.
WINDOWS = 1024

_KINDS = {
    "internal": trace.SpanKind.INTERNAL,
    "producer": trace.SpanKind.PRODUCER,
    "consumer": trace.SpanKind.CONSUMER,
}


class FileExporter(SpanExporter):
    """Appends each batch to a file as one line of OTLP's JSON, which a collector's ``otlpjsonfile`` receiver takes.

    See opentelemetry.io/docs/specs/otel/protocol/file-exporter: identifiers are hexadecimal there, not base64.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        said = MessageToDict(encode_spans(spans), use_integers_for_enums=True)
        for span in (one for of in said["resourceSpans"] for scope in of["scopeSpans"] for one in scope["spans"]):
            for one in (span, *span.get("links", ())):
                one.update({key: base64.b64decode(one[key]).hex() for key in _IDS if key in one})
        try:
            self._file.write(json.dumps(said, separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._file.close()


_IDS = ("traceId", "spanId", "parentSpanId")


class _Watched(SpanExporter):
    """Counts what was not taken, and says so once. A collector that takes nothing at the end is tried no more."""

    def __init__(self, exporter: SpanExporter, say: Callable[[int], None]) -> None:
        self._exporter = exporter
        self._say = say
        self._failed = False
        self.closing = False
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        vain = self._failed and self.closing
        result = SpanExportResult.FAILURE if vain else self._exporter.export(spans)
        self._failed = result is not SpanExportResult.SUCCESS
        if self._failed:
            self.lost += len(spans)
            if self.lost == len(spans):
                self._say(self.lost)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Ids(IdGenerator):
    """Gives the span that is begun next the identifiers that it has already."""

    def __init__(self) -> None:
        self.trace = self.span = 1

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span


@dataclass(slots=True)
class _Window:
    """States of a window that were folded in these spans; the first of them came at `begin_ns`."""

    begin_ns: int
    contexts: list[str] = field(default_factory=list)


class Traces:
    """Exports the traces of `run` to `to`: a file, or the address of a collector that takes OTLP over HTTP.

    `hear` and `note` are for the thread that converses with ranks and nodes, `merged` and `stored` for the one that
    stores. Raises `RunError` for a file that cannot be written.
    """

    def __init__(self, run: str, to: str, journal: Callable[[str, Event], None]) -> None:
        self.seed = os.urandom(16).hex()
        self._run = run
        self._to = to
        self._journal = journal
        self._exporter = _Watched(_exporter(to), self._say_lost)
        self._processor = BatchSpanProcessor(
            self._exporter, WAITING, schedule_delay_millis=SEND_S * 1e3, max_export_batch_size=512
        )
        self._ids = _Ids()
        self._tracers: dict[str, trace.Tracer] = {}
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, int], _Window] = {}
        self._merged: dict[tuple[str, int], tuple[str, int]] = {}
        # What becomes of spans is said in the log of the run, not by the library in the middle of its output.
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())

    def hear(self, peer: Peer, spans: Iterable[Span]) -> None:
        """A rank or a staging node tells of its spans."""
        service = "insitu-rank" if peer.name.startswith("rank") else "insitu-staging-node"
        for span in spans:
            self._export(service, peer.name, peer.host, peer.pid, span, ())

    def note(self, window: TracedWindow) -> None:
        """States that follow were folded within these spans."""
        with self._lock:
            known = self._windows.setdefault((window.operator, window.key), _Window(now_ns()))
            known.contexts += window.contexts
            if len(self._windows) > WINDOWS:
                del self._windows[next(iter(self._windows))]

    def merged(self, operator: str, rows: Mapping[int, int]) -> None:
        """States were merged and are a result now: of each its key, and the index of its row."""
        for key, index in rows.items():
            with self._lock:
                window = self._windows.pop((operator, key), None)
            if window is None or not window.contexts:
                continue
            end_ns, context = now_ns(), child_of(window.contexts[0])
            self._merged[operator, index] = (context, end_ns)
            said: dict[str, bool | int | float | str] = {"insitu.operator": operator, "insitu.window": index}
            span = Span(f"merge {operator}", "internal", context, window.contexts[0], window.begin_ns, end_ns, said)
            self._export_own(span, window.contexts[1:])

    def stored(self, operator: str, indices: Iterable[int]) -> None:
        """These rows of an operator's results can be read."""
        for index in indices:
            merged = self._merged.pop((operator, index), None)
            if merged is not None:
                context, begin_ns = merged
                said: dict[str, bool | int | float | str] = {"insitu.operator": operator, "insitu.window": index}
                span = Span(f"store {operator}", "internal", child_of(context), context, begin_ns, now_ns(), said)
                self._export_own(span, ())
        while len(self._merged) > WINDOWS:  # of results that are not stored
            del self._merged[next(iter(self._merged))]

    def close(self) -> None:
        """Send what is left, for at most some `PATIENCE_S` where nobody takes it. May be called twice."""
        self._exporter.closing = True
        self._processor.shutdown()
        if self._exporter.lost:
            text = f"In all {self._exporter.lost} spans of traces were lost, which {self._to} did not take."
            self._journal("controller", Event("warning", "traces-lost", text, {"spans": self._exporter.lost}))
            self._exporter.lost = 0

    def _say_lost(self, spans: int) -> None:
        text = f"Traces do not arrive at {self._to}: {spans} spans are lost, and so are those to come while that is so."
        self._journal("controller", Event("warning", "traces-lost", text, {"spans": spans}))

    def _export_own(self, span: Span, links: Iterable[str]) -> None:
        self._export("insitu-controller", "controller", socket.gethostname(), os.getpid(), span, links)

    def _export(self, service: str, name: str, host: str, pid: int, span: Span, links: Iterable[str]) -> None:
        with self._lock:
            tracer = self._tracers.get(name) or self._tracer(service, name, host, pid)
            self._ids.trace, self._ids.span = ids_of(span.context)
            parent = trace.set_span_in_context(trace.NonRecordingSpan(_context(span.parent))) if span.parent else None
            started = tracer.start_span(
                span.name,
                parent if parent is not None else Context(),
                _KINDS[span.kind],
                span.attributes,
                [trace.Link(_context(link)) for link in links],
                span.begin_ns,
            )
        started.end(span.end_ns)

    def _tracer(self, service: str, name: str, host: str, pid: int) -> trace.Tracer:
        """Return what begins the spans of one process: its name and place stand by them."""
        resource = Resource(
            {
                "service.namespace": "insitu",
                "service.name": service,
                "service.instance.id": f"{self._run}/{name}",
                "insitu.run": self._run,
                "host.name": host,
                "process.pid": pid,
            }
        )
        provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        return self._tracers.setdefault(name, provider.get_tracer("insitu"))


def _exporter(to: str) -> SpanExporter:
    if "://" in to:
        return OTLPSpanExporter(endpoint=to, timeout=PATIENCE_S)
    try:
        return FileExporter(Path(to))
    except OSError as error:
        raise RunError(f"Cannot write traces to {to}: {error.strerror}; set traces.to to another file.") from error


def _context(text: str) -> trace.SpanContext:
    number, span = ids_of(text)
    return trace.SpanContext(number, span, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
