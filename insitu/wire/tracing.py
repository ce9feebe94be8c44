# SPDX-License-Identifier: Apache-2.0
"""What is said of steps that are traced: the contexts of spans, which travel ahead of what was made within them.

A context is a ``traceparent`` of W3C Trace Context (www.w3.org/TR/trace-context, section 3.2): version, trace, span and
flags in hexadecimal digits. It has a message of its own, so that the headers of steps that are not traced, nearly all,
say and cost nothing of it. The rules are those of `messages`.
"""

import os
import re
import time
from dataclasses import dataclass
from typing import Any

from insitu.wire.fields import Field, Wrong

#: Spans in one message, and contexts of one window: those of all that a node folded of it.
SPANS = 1024

_CONTEXT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]")


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took from `begin_ns` to `end_ns`, in nanoseconds since 1970 by the clock of its machine.

    `parent` is the context of the span that it is a part of, empty for the first of a trace. `kind` is one of
    OpenTelemetry's: internal, producer, consumer.
    """

    name: str
    kind: str
    context: str
    parent: str
    begin_ns: int
    end_ns: int
    attributes: dict[str, bool | int | float | str]


@dataclass(slots=True)
class Traced:
    """The rank's step `sequence`, which follows on this link, was published within this span."""

    sequence: int
    context: str


@dataclass(slots=True)
class TracedWindow:
    """States of an operator, which follow on this link, were folded within these spans.

    `key` is that of their `Entry`: the window's index, or a step's sequence where the operator keeps steps.
    """

    operator: str
    key: int
    contexts: tuple[str, ...]


@dataclass(slots=True)
class Spans:
    """What this process has to tell of steps that are traced."""

    spans: tuple[Span, ...]


def now_ns() -> int:
    """Return when a span begins or ends: nanoseconds since 1970, by this machine's wall clock."""
    return time.time_ns()


def root_of(seed: str, member: int, sequence: int) -> str:
    """Return the context of the first span of a step's trace. All ranks say the same, without a word between them.

    >>> root_of("5eed", 0, 100) == root_of("5eed", 0, 100) != root_of("5eed", 0, 200)
    True
    """
    from hashlib import blake2b  # with OpenSSL, which takes as long to load as half of this package

    digits = blake2b(f"{seed}/{member}/{sequence}".encode(), digest_size=24).hexdigest()
    return f"00-{digits[:32]}-{digits[32:]}-01"


def child_of(context: str) -> str:
    """Return a new context of the same trace.

    >>> child = child_of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    >>> child[:36], len(child)
    ('00-0af7651916cd43dd8448eb211c80319c-', 55)
    """
    return f"{context[:36]}{os.urandom(8).hex()}-01"


def ids_of(context: str) -> tuple[int, int]:
    """Return the numbers of the trace and of the span.

    >>> ids_of("00-0000000000000000000000000000002a-0000000000000007-01")
    (42, 7)
    """
    return int(context[3:35], 16), int(context[36:52], 16)


def _context(value: Any) -> str:
    if type(value) is not str or not _CONTEXT.fullmatch(value):
        raise Wrong("a traceparent of W3C Trace Context", value)
    return value


context = Field(_context, _context)
parent = Field(lambda value: value and _context(value), lambda value: "" if value == "" else _context(value))
