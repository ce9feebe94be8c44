# SPDX-License-Identifier: Apache-2.0
"""What a broken or hostile peer may send. Two corpora, for tests at any level.

`MALFORMED`: frames that are no message; every one of them has to end in `RemoteProtocolError`.

`INSANE`: messages in right form that make no sense: numbers at their limits, peers and steps that do not exist. They
are decoded, so whoever handles messages has to live with them.
"""

import sys
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

from insitu.model import Variable
from insitu.wire import learning as n
from insitu.wire import messages as m
from insitu.wire import steering as w
from insitu.wire import tracing as t
from insitu.wire import viewing as v
from insitu.wire.codec import encode
from insitu.wire.compression import shrink
from insitu.wire.limits import BLOCKS, HEADER_BYTES, ITEMS, STATES_BYTES, WHOLE
from insitu.wire.schema import NUMBERS
from insitu.wire.session import Link
from tests.wire.examples import BUFFERS, CONTEXT, LAYOUT, MESSAGES

Frames = list[bytes]


def header(cls: type, *fields: object) -> bytes:
    """Return a header with any fields."""
    packed: bytes = msgpack.packb([m.VERSION, NUMBERS[cls], *fields])
    return packed


def frames_of(message: m.Message) -> Frames:
    """Return a message's frames as a socket would bring them."""
    return [bytes(frame) for frame in encode(message)]


def _array(described: object, body: bytes, code: int = 1) -> Frames:
    """Return a `Partial` whose only state has one array, described by anything."""
    extension = msgpack.ExtType(code, described if isinstance(described, bytes) else msgpack.packb(described))
    return [header(m.Partial, "stats", 0, 2, 7, [[2, 5, 30, 70, 0.5, None, {"a": extension}]]), body]


def _variable(**changes: object) -> Frames:
    """Return a `Layout` of one variable that differs from a right one."""
    fields = {"name": "T", "dtype": "<f8", "shape": [4, 6], "dims": ["y", "x"], "units": "", "long_name": "", "row": []}
    return [header(m.Layout, 0, [[list((fields | changes).values()), [0, 0], [2, 6]]])]


def _block(start: object, count: object, shape: object = (4, 6), row: object = ()) -> Frames:
    """Return a `Layout` of one block."""
    variable = ["T", "<f8", shape, ["y", "x"], "", "", row]
    return [header(m.Layout, 0, [[variable, start, count]])]


def _welcome(shares: list[Any], needs: Sequence[Any] = ()) -> bytes:
    return header(
        m.Welcome, "melt", shares, 1, 1.0, "block", 1, "drop", "auto", list(needs), ["promise", 1.0, 60.0, "stop", 0]
    )


def _needs(need: object, times: int = 1) -> Frames:
    """Return a `Welcome` with one need, once or several times."""
    return [_welcome([], [need] * times)]


def _encoded(forms: object, *buffers: bytes) -> Frames:
    """Return a `PublishEncoded` of any forms."""
    return [header(m.PublishEncoded, 0, 0, 0.0, 0, forms), *buffers]


def _nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


_STATES = frames_of(next(message for message in MESSAGES if isinstance(message, m.Partial)))

MALFORMED: dict[str, Frames] = {
    "no frame": [],
    "empty header": [b""],
    "no msgpack": [b"\xc1"],
    "text of another protocol": [b"GET / HTTP/1.1\r\n\r\n"],
    "a pickle": [b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."],
    "header cut off": [frames_of(MESSAGES[0])[0][:-1]],
    "header and more": [frames_of(MESSAGES[0])[0] + b"\x00"],
    "header too long": [msgpack.packb([1, 9, bytes(HEADER_BYTES)])],
    "a list that announces 4 billion": [b"\xdd\xff\xff\xff\xff"],
    "a text that announces 4 GiB": [b"\xdb\xff\xff\xff\xff"],
    "a dict that announces 4 billion": [b"\xdf\xff\xff\xff\xff"],
    "lists in lists that announce 65535 each": [b"\xdc\xff\xff" * 1000],
    "100,000 lists in lists": [b"\x91" * 100_000 + b"\x01"],
    "a number": [msgpack.packb(1)],
    "a dict": [msgpack.packb({"version": 1})],
    "an empty list": [msgpack.packb([])],
    "no kind": [msgpack.packb([1])],
    "version 1": [msgpack.packb([1, 9])],
    "version true": [msgpack.packb([True, 9])],
    "version 2.0": [msgpack.packb([2.0, 9])],
    "kind 0": [msgpack.packb([1, 0])],
    "kind 99": [msgpack.packb([1, 99])],
    "kind -1": [msgpack.packb([1, -1])],
    "kind true": [msgpack.packb([1, True])],
    "kind a list": [msgpack.packb([1, [9]])],
    "more durable than folded": [header(m.Ack, 7, 5, 100, 50, 6, 10)],
    "more bytes durable than folded": [header(m.Ack, 7, 5, 100, 50, 5, 51)],
    "an acknowledgement below none": [header(m.Ack, -2, -2, 0, 0, -2, 0)],
    "a field too many": [header(m.Ping, 1)],
    "a field too few": [header(m.Credit)],
    "a dict for the fields": [msgpack.packb([1, NUMBERS[m.Credit], {"bytes": 1}])],
    "a frame too many": [*frames_of(m.Ping()), b""],
    "half a surrogate pair": [header(m.Refuse, "?").replace(b"\xa1?", b"\xa3\xed\xa0\x80")],
    "a timestamp for a number": [header(m.Credit, msgpack.Timestamp(1, 2))],
    "a timestamp that is none": [header(m.Credit, msgpack.ExtType(7, b"")).replace(b"\xc7\x00\x07", b"\xc7\x00\xff")],
    "an extension for a number": [header(m.Credit, msgpack.ExtType(1, b""))],
    "an array outside a state": [header(m.Credit, msgpack.ExtType(1, msgpack.packb(["<f8", [1]])))],
    "true for a number": [header(m.Credit, True)],
    "a float for a whole number": [header(m.Credit, 1.0)],
    "a negative size": [header(m.Credit, -1)],
    "a size of 2**63": [header(m.Credit, 1 << 63)],
    "a number for a time": [header(m.Dropped, 0, 0, 0, "")],
    "a time that is NaN": [header(m.Dropped, 0, 0, float("nan"), "")],
    "a time that is infinite": [header(m.Dropped, 0, 0, float("inf"), "")],
    "an empty name": [header(m.NodeWelcome, "")],
    "a name with a line break": [header(m.NodeWelcome, "melt\nERROR forged")],
    "a name of 257 characters": [header(m.NodeWelcome, "n" * 257)],
    "bytes for a name": [header(m.NodeWelcome, b"melt")],
    "a text too long": [header(m.Refuse, "x" * 65537)],
    "ranks too many": [header(m.Feed, 0, 4, [0] * (ITEMS + 1))],
    "a run of no ranks": [header(m.Hello, 1, "melt", 0, 0, 0, "n17", 1)],
    "counters with numbers for names": [header(m.Bye, 1, {b"steps": 1})],
    "counters of lists": [header(m.Bye, 1, {"steps": [1]})],
    "a share of nothing": [_welcome([[0, "tcp://h:1", 1, 1, 2]])],
    "a share beyond the whole": [_welcome([[0, "tcp://h:1", 1, 3, 2]])],
    "a share of zero parts": [_welcome([[0, "tcp://h:1", 0, 0, 0]])],
    "a need without a name": _needs(["", [], "", "none", 0.0]),
    "needs too many": _needs(["u", [], "", "none", 0.0], times=BLOCKS + 1),
    "a need of a dim twice": _needs(["u", [["x", 0, 1, 1]] * 2, "", "none", 0.0]),
    "a stride of zero": _needs(["u", [["x", 0, 1, 0]], "", "none", 0.0]),
    "a need of whole numbers": _needs(["u", [], "int8", "none", 0.0]),
    "less than nothing was sent": [header(m.Tally, [["u", 0, 0, -1, 0]])],
    "a need by an unknown codec": _needs(["u", [], "", "gzip", 0.0]),
    "a need within NaN": _needs(["u", [], "", "zfp", float("nan")]),
    "a form too few": _encoded([["zfp", 96, 1e-3]], b"", b""),
    "a form too many": _encoded([["zfp", 96, 1e-3]] * 2, b""),
    "forms too many": _encoded([["", 0, 0.0]] * (BLOCKS + 1), *[b""] * (BLOCKS + 1)),
    "a form of another codec": _encoded([["pickle", 96, 0.0]], b""),
    "a form of 8 GiB": _encoded([["lz4", 8 << 30, 0.0]], b""),
    "a form of less than nothing": _encoded([["lz4", -1, 0.0]], b""),
    "steps of no layout": [header(m.Closed, 0, [], [[7, 70, 0.7, 0, 1024, []]])],
    "an event of no level": [header(m.Event, "fatal", "k", "t", {})],
    "an event with bytes": [header(m.Event, "info", "k", "t", {"raw": b"\x00"})],
    "an event too deep": [header(m.Event, "info", "k", "t", {"deep": _nested(17)})],
    "an event with an array": [header(m.Event, "info", "k", "t", {"a": msgpack.ExtType(1, b"\x92\xa3<f8\x91\x00")})],
    "dtype of objects": _variable(dtype="|O"),
    "dtype of text": _variable(dtype="<U8"),
    "dtype of dates": _variable(dtype="<M8[s]"),
    "dtype of records": _variable(dtype="<f8,<f8"),
    "dtype big-endian": _variable(dtype=">f8"),
    "dtype long double": _variable(dtype="<f16"),
    "dtype of 10**9 bytes": _variable(dtype="V1000000000"),
    "dtype a list": _variable(dtype=[["a", "<f8"]]),
    "dims too few": _variable(dims=["y"]),
    "dims too many": _variable(shape=[1] * 33, dims=["x"] * 33),
    "negative shape": _variable(shape=[-4, 6]),
    "shape of true": _variable(shape=[True, 6]),
    "shape larger than memory can be": _variable(shape=[1 << 62, 1 << 62]),
    "row beside a shape": _variable(row=[3]),
    "a block outside": _block([3, 0], [2, 6]),
    "a block of less dimensions": _block([0], [2]),
    "a block of negative count": _block([0, 0], [-1, 6]),
    "a block of 8 TiB": _block([0, 0], [1 << 20, 1 << 20], shape=[1 << 20, 1 << 20]),
    "a joined block with rows": _block([0, 0], [5, 3], shape=None, row=[3]),
    "a joined block elsewhere": _block([1, 0], [0, 3], shape=None, row=[3]),
    "a joined block of other rows": _block([0, 0], [0, 4], shape=None, row=[3]),
    "a variable twice": [
        header(m.Layout, 0, [[["E", dtype, [], [], "", "", []], [], []] for dtype in ("<f8", "<f4")]),
    ],
    "blocks too many": [header(m.Layout, 0, [[["E", "<f8", [], [], "", "", []], [], []]] * (BLOCKS + 1))],
    "publish with a field too few": [header(m.Publish, 0, 0, 0.0)],
    "publish of sequence -1": [header(m.Publish, -1, 0, 0.0, 0)],
    "a rank of so many that a list of them has no room": [header(m.Hello, m.VERSION, "melt", 0, 0, WHOLE, "n17", 4711)],
    "publish of sequence 2**63": [header(m.Publish, WHOLE + 1, 0, 0.0, 0)],
    "publish at time NaN": [header(m.Publish, 0, 0, float("nan"), 0)],
    "publish at a whole time": [header(m.Publish, 0, 0, 0, 0)],
    "publish by layout true": [header(m.Publish, 0, 0, 0.0, True)],
    "publish with too many buffers": [header(m.Publish, 0, 0, 0.0, 0), *[b""] * (BLOCKS + 1)],
    "states without their frame": _STATES[:1],
    "states with a frame too many": [*_STATES, b""],
    "states with bytes left": [_STATES[0], _STATES[1] + b"\x00"],
    "states with bytes missing": [_STATES[0], _STATES[1][:-1]],
    "states of too many bytes": [_STATES[0], bytes(STATES_BYTES + 1)],
    "state that is a list": [header(m.Partial, "stats", 0, 2, 7, [[2, 5, 30, 70, 0.5, None, []]]), b""],
    "state with bytes": [header(m.Partial, "stats", 0, 2, 7, [[2, 5, 30, 70, 0.5, None, {"raw": b"\x00"}]]), b""],
    "state too deep": [header(m.Partial, "stats", 0, 2, 7, [[2, 5, 30, 70, 0.5, None, {"deep": _nested(17)}]]), b""],
    "array for a key": [header(m.Partial, "s", 0, 0, 0, []).replace(b"\x90", b"\x81\xd4\x01\x00\x01"), b""],
    "array of objects": _array(["|O", [1]], bytes(8)),
    "array of another extension": _array(["<f8", [1]], bytes(8), code=2),
    "array of no description": _array(b"", b""),
    "array of broken description": _array(b"\xdd\xff\xff\xff\xff", b""),
    "array without shape": _array(["<f8"], bytes(8)),
    "array of negative shape": _array(["<f8", [-1, -1]], bytes(8)),
    "array of 2**40 numbers": _array(["<f8", [1 << 40]], bytes(8)),
    "array of 2**124 numbers": _array(["<f8", [1 << 62, 1 << 62]], bytes(8)),
    "array empty and larger than memory can be": _array(["<f8", [1 << 62, 0]], b""),
    "array of 65 dimensions": _array(["<f8", [1] * 65], bytes(8)),
}  # fmt: skip

_HUGE = Variable("T", np.dtype("f8"), (1 << 30, 1 << 29), ("y", "x"))
_CROOKED = Variable("../../x 'y' %s {}", np.dtype("c16"), (2,), ("T",), units="no such unit")

#: By link, what a peer of the connecting kind could say once it has been admitted.
INSANE: dict[Link, dict[str, m.Message]] = {
    Link.RANK_CONTROLLER: {
        "a variable of 4 EiB": m.Layout(1, (m.BlockSpec(_HUGE, (0, 0), (1, 1)),)),
        "a name with path and marks": m.Layout(2, (m.BlockSpec(_CROOKED, (0,), (2,)),)),
        "an offer of a variable of 4 EiB": m.Offer(_HUGE),
        "an offer of a name with path and marks": m.Offer(_CROOKED),
        "a step with nothing in it": m.Layout(3, ()),
        "a drop at the end of time": m.Dropped(WHOLE, -WHOLE, sys.float_info.max, ""),
        "a drop again": m.Dropped(0, 0, 0.0, "x" * 65536),
        "a parameter without a kind": w.Declare("parameter", "p", {"minimum": "low"}, (), ()),
        "no counters": m.Status({}),
        "counters of text": m.Status({"steps": "many", "put_bytes": -1}),
        "more was sent than was put": m.Tally((m.Traffic("u", 0, 0, WHOLE, 0),)),
        "an event of a rank that stops an operator": m.Event("error", "operator-stopped", "", {"operator": "stats"}),
        "an answer to nothing": w.Answer(WHOLE, "applied", WHOLE, 0, 0.0, "", {"no": "such"}, -1.0, WHOLE),
        "a doubt about nothing": w.Answer(0, "urge", 0, 0, 0.0, "x" * 65536, {}, 0.0, 0),
        "a boundary beyond all": w.Reached(WHOLE, -WHOLE, -sys.float_info.max),
        "an end before the beginning": m.Bye(0, {"steps": -1.5}),
    },
    Link.RANK_NODE: {
        "a layout of nothing": m.Layout(WHOLE, ()),
        "no blocks": m.Publish(0, 0, 0.0, WHOLE, ()),
        "a trace of no step": t.Traced(WHOLE, CONTEXT),
        "the last step": m.Publish(WHOLE, WHOLE, -sys.float_info.max, WHOLE, ()),
        "an end after all steps": m.Detach(WHOLE),
    },
    Link.NODE_CONTROLLER: {
        "steps of nobody": m.Closed(WHOLE, (((WHOLE, WHOLE),),), (m.ClosedStep(WHOLE, 0, 0.0, 0, WHOLE, (WHOLE,)),)),
        "no steps": m.Closed(0, (), ()),
        "an operator that does not exist": m.Partial("no such operator", 0, 0, 0, 0, True, ()),
        "a window that cannot be": m.Partial("stats", 0, WHOLE, 0, -1, True, ()),
        "a state of nothing": m.Partial("stats", 0, 0, 0, 0, True, (m.Entry(0, 0, -1, -1, 0.0, None, {}),)),
        "a state of something else": m.Partial(
            "stats",
            0,
            0,
            0,
            0,
            True,
            (m.Entry(0, WHOLE, 9, -9, 0.0, ((0,), (1, 1)), {"n": "many", "mean": np.zeros(0)}),),
        ),
        "data that is not there": m.Held("stats", 0, 0, 0, 0, True, "no such key", WHOLE, 1, 0, 0, 0.0, ()),
        "an event without its details": m.Event("error", "operator-stopped", "", {}),
        "counters of anything": m.Status({"waiting_bytes": "lots"}),
        "the end of nobody": m.Finished(WHOLE),
        "a trace of no window": t.TracedWindow("no such operator", WHOLE, ()),
        "a span that ends before it begins": t.Spans((t.Span("x", "internal", CONTEXT, CONTEXT, WHOLE, 0, {}),)),
        "a glimpse that nobody asked for": v.Glimpse(WHOLE, _HUGE, WHOLE, 0, 0.0, (1, 1), (), "", ()),
    },
    Link.VIEWER_CONTROLLER: {
        "a question": v.Ask(),
        "a look at nothing": v.Look(
            WHOLE, "no such variable", (m.Range("no such dim", -1 << 63, WHOLE, WHOLE),), None, WHOLE
        ),
    },
    Link.CONSOLE_CONTROLLER: {
        "an action of no kind": w.Request(WHOLE, "explode", {"a": np.zeros(3), "b": [None, {}]}, "", ""),
        "what nobody knows is followed": w.Follow(("no", "such", "no")),
        "a value of everything": w.Request(0, "set", {"": {"deep": [1, "x"]}, "feed": [[1], [1, 2]]}, "rule:x", "y"),
        "a leave": w.Leave(),
    },
    Link.LEARNER_CONTROLLER: {
        "results of another operator": m.Partial("stats", 0, -1, 0, 0, True, ()),
        "results of nothing": m.Partial("surrogate", WHOLE, WHOLE, WHOLE, -1, False, ()),
        "counters of text": m.Status({"batches": "many"}),
        "the end of nobody": m.Finished(WHOLE),
        "a stop without its details": m.Event("error", "operator-stopped", "", {}),
    },
    Link.LEARNER_NODE: {
        "steps that were never sent": n.Learned(WHOLE),
        "and again": n.Learned(0),
    },
}


#: A rank's messages to a node that bring one step with a buffer of a wrong size, or too many or few of them.
WRONG_BUFFERS: dict[str, tuple[m.Layout, m.Publish]] = {
    "a buffer too short": (LAYOUT, m.Publish(0, 0, 0.0, 0, (b"", *BUFFERS[1:]))),
    "a byte too many": (LAYOUT, m.Publish(0, 0, 0.0, 0, (bytes(97), *BUFFERS[1:]))),
    "no whole row": (LAYOUT, m.Publish(0, 0, 0.0, 0, (BUFFERS[0], bytes(13), BUFFERS[2]))),
}


def _blosc(nbytes: int, said: int | None = None, **changes: int) -> bytes:
    """Return zeros encoded as lz4 is, with bytes of the header changed: what stands where is said by the name."""
    _, data = shrink("lz4", 0.0, np.zeros(nbytes, np.uint8)) or (None, b"")
    wrong = bytearray(data)
    for where, byte in changes.items():
        wrong[int(where.removeprefix("at"))] = byte
    if said is not None:
        wrong[4:8] = said.to_bytes(4, "little")
    return bytes(wrong)


#: Buffers that are no part of 8192 bytes of float64, with the form that they claim.
WRONG_PARTS: dict[str, tuple[m.Form, bytes]] = {
    "nothing": (m.Form("lz4", 8192, 0.0), b""),
    "no header": (m.Form("zstd", 8192, 0.0), bytes(31)),
    "zeros": (m.Form("zstd", 8192, 0.0), bytes(64)),
    "noise": (m.Form("lz4", 8192, 0.0), np.random.default_rng(0).bytes(100)),
    "cut off": (m.Form("lz4", 8192, 0.0), _blosc(8192)[:-1]),
    "and more": (m.Form("lz4", 8192, 0.0), _blosc(8192) + b"\0"),
    "another size": (m.Form("lz4", 8192, 0.0), _blosc(16384)),
    "a header of 2 GiB": (m.Form("lz4", 8192, 0.0), _blosc(8192, said=(1 << 31) - 1)),
    "a codec from a plugin": (m.Form("lz4", 8192, 0.0), _blosc(8192, at2=0b11100101)),
    "a filter from a plugin": (m.Form("lz4", 8192, 0.0), _blosc(8192, at21=160)),
    "a part to be read from a file": (m.Form("lz4", 8192, 0.0), _blosc(8192, at31=0b1000)),
    "not smaller": (m.Form("zfp", 8192, 1e-3), bytes(8192)),
    "zfp without a tolerance": (m.Form("zfp", 8192, 0.0), b"\xff" * 64),
    "zfp below nothing": (m.Form("zfp", 8192, -1.0), b"\xff" * 64),
}
