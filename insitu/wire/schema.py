# SPDX-License-Identifier: Apache-2.0
"""Which values each message holds: one table, read by the encoder and the decoder.

The order of a record's fields is their order on the wire, and the numbers of the kinds are part of the protocol: a
message that goes takes its number with it, and the first change after a release raises `VERSION`.
"""

from itertools import pairwise
from operator import itemgetter

from insitu.wire import learning as n
from insitu.wire import messages as m
from insitu.wire import steering as w
from insitu.wire import tracing as t
from insitu.wire import viewing as v
from insitu.wire.blocks import Range
from insitu.wire.fields import (
    Wrong,
    buffers,
    choice,
    details,
    extent,
    label,
    many,
    mapping,
    name,
    number,
    optional,
    place,
    row,
    scalar,
    state,
    text,
    time,
    truth,
    whole,
)
from insitu.wire.limits import BLOCKS, BUFFER_BYTES, DIMENSIONS, ITEMS, SIGHT_VALUES
from insitu.wire.records import Record, any_index, block, closed_step, variable

#: What floats may be sent as, and empty for what they are.
NARROW = ("", "float32", "float16")


def _layout(layout: m.Layout) -> None:
    """A variable has several blocks where several parts of a rank come together, but then one variable they are of."""
    blocks = sorted(((each.variable.name, each) for each in layout.blocks), key=itemgetter(0))
    for (one, before), (other, after) in pairwise(blocks):
        if one == other and before.variable != after.variable:
            raise Wrong("one variable of a name", one, "blocks")


def _share(share: m.Share) -> None:
    if not share.low < share.high <= share.of:
        raise Wrong(f"a part of {share.of}, with low < high", (share.low, share.high), "high")


def _closed(closed: m.Closed) -> None:
    for step in closed.steps:
        if step.layouts >= len(closed.layouts):
            raise Wrong(f"one of the {len(closed.layouts)} layouts", step.layouts, "steps.layouts")


def _ack(ack: m.Ack) -> None:
    if ack.durable > ack.folded:
        raise Wrong(f"at most {ack.folded}, the newest that is folded", ack.durable, "durable")
    if ack.durable_bytes > ack.folded_bytes:
        raise Wrong(f"at most {ack.folded_bytes}, which are folded", ack.durable_bytes, "durable_bytes")


def _each_dim_once(dims: list[str], where: str) -> None:
    for one, other in pairwise(sorted(dims)):
        if one == other:
            raise Wrong("each dim once", one, where)


def _need(need: m.Need) -> None:
    _each_dim_once([one.dim for one in need.select], "select")
    if min(need.steps.start or 0, need.steps.stop or 0) < 0:
        raise Wrong("sequences of at least 0", need.steps, "steps")


def _look(look: v.Look | v.Peek) -> None:
    _each_dim_once([one.dim for one in look.select], "select")
    if look.most is None and look.since is None:
        raise Wrong("a sequence, since only retained steps are shown exactly", look.since, "since")


def _picture(message: v.Sight | v.Glimpse) -> None:
    if len(message.pieces) != len(message.buffers):
        raise Wrong(f"{len(message.buffers)}, one for each buffer", len(message.pieces), "pieces")


def _lesson(lesson: n.Lesson) -> None:
    if len(lesson.blocks) != len(lesson.buffers):
        raise Wrong(f"{len(lesson.buffers)}, one for each buffer", len(lesson.blocks), "blocks")


def _encoded(message: m.PublishEncoded) -> None:
    if len(message.forms) != len(message.buffers):
        raise Wrong(f"{len(message.buffers)}, one for each buffer", len(message.forms), "forms")


_newest = whole(-1)  # a sequence, or none yet
_version = whole(m.VERSION, m.VERSION)

_share_record = Record(m.Share, _share, node=whole(), address=name, low=whole(), high=whole(), of=whole(1), local=label)
_rank_layouts = many(row(whole(), whole()))
_range_record = Record(Range, dim=name, start=optional(any_index), stop=optional(any_index), step=whole(1))
_need_record = Record(
    m.Need,
    _need,
    name=name,
    select=many(_range_record.field, DIMENSIONS),
    dtype=choice(*NARROW),
    codec=choice("none", "lz4", "zstd", "zfp", "auto"),
    tolerance=time,
    steps=_range_record.field,
)
_traffic_record = Record(
    m.Traffic, name=name, produced_bytes=whole(), selected_bytes=whole(), sent_bytes=whole(), lossless_parts=whole()
)
_steering_record = Record(
    w.SteeringTerms,
    agree=choice("promise", "mpi"),
    max_wait_s=time,
    max_pause_s=time,
    in_doubt=choice("stop", "revert"),
    scheduled=whole(0, ITEMS),
)
_form_record = Record(m.Form, codec=choice("", "lz4", "zstd", "zfp"), nbytes=whole(0, BUFFER_BYTES), tolerance=time)
_entry = Record(
    m.Entry,
    key=whole(),
    steps=whole(),
    first=any_index,
    last=any_index,
    time=time,
    place=optional(place),
    state=state,
)

_partial = Record(
    m.Partial,
    operator=name,
    member=whole(),
    window=_newest,
    since=_newest,
    upto=_newest,
    full=truth,
    entries=many(_entry.field),
)

_span = Record(
    t.Span,
    name=name,
    kind=choice("internal", "producer", "consumer"),
    context=t.context,
    parent=t.parent,
    begin_ns=whole(),
    end_ns=whole(),
    attributes=mapping(scalar),
)

_looking = {
    "number": whole(),
    "variable": name,
    "select": many(_range_record.field, DIMENSIONS),
    "most": optional(whole(0, SIGHT_VALUES)),
    "since": optional(whole(v.NEWEST)),
}
_seen = {
    "variable": optional(variable),
    "sequence": _newest,
    "index": any_index,
    "time": time,
    "stride": many(whole(1), DIMENSIONS),
    "pieces": many(place, BLOCKS),
    "why": text,
    "buffers": buffers,
}

#: Every message by its number.
KINDS: dict[int, Record] = {
    1: Record(
        m.Hello,
        version=_version,
        run=name,
        member=whole(),
        rank=whole(),
        size=whole(1, ITEMS),
        host=name,
        pid=whole(),
    ),
    2: Record(m.Layout, _layout, id=whole(), blocks=many(block, BLOCKS)),
    3: Record(
        w.Declare, what=choice("parameter", "state", "action"), name=name, spec=details, start=extent, count=extent
    ),
    4: Record(m.Dropped, sequence=whole(), index=any_index, time=time, reason=text),
    5: Record(m.Bye, steps=whole(), counters=mapping(number)),
    6: Record(
        m.Welcome,
        run=name,
        shares=many(_share_record.field),
        buffer_bytes=whole(),
        max_wait_s=time,
        policy=name,
        every=whole(1),
        then=name,
        spill_bytes=whole(),
        spill_directory=text,
        transport=choice("auto", "shm", "ipc", "tcp"),
        needs=many(_need_record.field, BLOCKS),
        steering=_steering_record.field,
        folds=many(name, BLOCKS),
        stays=many(name, BLOCKS),
        trace_seed=label,
        trace_every=whole(),
        free=choice("auto", "received", "folded", "durable"),
    ),
    7: Record(m.Refuse, reason=text),
    9: Record(m.Ping),
    10: Record(m.Attach, version=_version, run=name, member=whole(), rank=whole(), host=name, pid=whole()),
    11: Record(m.Publish, sequence=whole(), index=any_index, time=time, layout=whole(), buffers=buffers),
    12: Record(m.Detach, steps=whole()),
    13: Record(m.Credit, bytes=whole()),
    14: Record(
        m.Ack,
        _ack,
        received=_newest,
        folded=_newest,
        received_bytes=whole(),
        folded_bytes=whole(),
        durable=_newest,
        durable_bytes=whole(),
    ),
    15: Record(
        m.NodeHello, version=_version, run=name, node=whole(), address=name, host=name, pid=whole(), local=label
    ),
    16: Record(
        m.Closed,
        _closed,
        member=whole(),
        layouts=many(_rank_layouts),
        steps=many(closed_step),
    ),
    17: _partial,
    18: Record(
        m.Held,
        operator=name,
        member=whole(),
        window=whole(),
        since=_newest,
        upto=_newest,
        full=truth,
        key=name,
        nbytes=whole(),
        steps=whole(),
        first=any_index,
        last=any_index,
        time=time,
        places=many(place),
    ),
    19: Record(m.Event, level=choice("debug", "info", "warning", "error"), kind=name, text=text, details=details),
    20: Record(m.Status, counters=mapping(scalar)),
    21: Record(m.Finished, member=whole()),
    22: Record(m.NodeWelcome, run=name),
    23: Record(m.Feed, member=whole(), size=whole(1), ranks=many(whole()), ship=many(whole()), begin=whole()),
    24: Record(
        m.Commit,
        member=whole(),
        upto=_newest,
        without=many(row(whole(), many(name))),
        dropped=many(whole()),
    ),
    25: Record(m.Finish, member=whole(), steps=_newest),
    26: Record(m.Shutdown),
    27: Record(m.Lend, segment=name, secret=name, bytes=whole()),
    28: Record(m.Borrow, mapped=truth),
    29: Record(
        m.PublishLent,
        sequence=whole(),
        index=any_index,
        time=time,
        layout=whole(),
        places=many(row(whole(), whole())),
    ),
    30: Record(m.Offer, variable=variable),
    31: Record(m.Tally, variables=many(_traffic_record.field, BLOCKS)),
    32: Record(
        m.PublishEncoded,
        _encoded,
        sequence=whole(),
        index=any_index,
        time=time,
        layout=whole(),
        forms=many(_form_record.field, BLOCKS),
        buffers=buffers,
    ),
    33: Record(m.Approve, member=whole(), layouts=_rank_layouts, without=many(name)),
    34: Record(m.Skip, sequences=many(whole())),
    35: Record(w.Reached, passed=whole(), index=any_index, time=time),
    36: Record(
        w.Answer,
        round=whole(),
        word=choice("promise", "refuse", "late", "urge", "applied", "failed", "doubt"),
        passed=whole(),
        index=any_index,
        time=time,
        reason=text,
        old=details,
        waited_s=time,
        spare=whole(),
    ),
    37: Record(w.Propose, round=whole(), at=_newest, decided=truth, kind=name, values=state),
    38: Record(w.Decide, round=whole(), apply=truth),
    39: Record(w.ConsoleHello, version=_version, run=name, user=name, host=name, pid=whole()),
    40: Record(w.ConsoleWelcome, run=name),
    41: Record(w.Request, token=whole(), kind=name, values=state, by=label, why=text),
    42: Record(w.Leave),
    43: Record(w.Steerable, ready=truth, parameters=many(details, BLOCKS), actions=details, values=details),
    44: Record(w.Settled, token=_newest, receipt=details),
    45: Record(m.Fed, member=whole(), newest=many(row(whole(), _newest))),
    50: Record(v.Watch, version=_version, run=name, host=name, pid=whole()),
    51: Record(v.Watching, run=name),
    52: Record(v.Ask),
    53: Record(v.News, buffers=buffers),
    54: Record(v.Look, _look, **_looking),
    55: Record(v.Sight, _picture, number=whole(), parts=whole(1), **_seen),
    56: Record(v.Peek, _look, **_looking, begin=whole()),
    57: Record(v.Glimpse, _picture, number=whole(), **_seen),
    60: Record(n.LearnerHello, version=_version, run=name, operator=name, host=name, pid=whole(), process=whole()),
    61: Record(n.Sources, nodes=many(row(whole(), name))),
    62: Record(n.Subscribe, version=_version, run=name, operator=name, host=name, pid=whole(), process=whole()),
    63: Record(
        n.Lesson,
        _lesson,
        sequence=whole(),
        index=any_index,
        time=time,
        blocks=many(row(whole(), block), BLOCKS),
        buffers=buffers,
    ),
    64: Record(n.Learned, upto=whole()),
    65: Record(n.Dismiss, operator=name, process=optional(whole())),
    70: Record(w.Follow, operators=many(name)),
    71: Record(
        w.Shown,
        operator=name,
        why=text,
        index=any_index,
        first_step=any_index,
        last_step=any_index,
        time=optional(time),
        steps=whole(),
        dropped=whole(),
        complete=truth,
        arrays=state,
    ),
    72: Record(w.Standing, passed=whole(), index=any_index, time=time),
    73: Record(w.Paused, boundary=_newest, index=any_index, time=time),
    76: Record(m.NodeGone, node=whole()),
    80: Record(m.Ship, nbytes=whole(), partial=_partial.field),
    83: Record(m.Replan, epoch=whole(), shares=many(_share_record.field)),
    84: Record(m.Adopted, epoch=whole(), sequence=whole()),
    85: Record(m.Moved, member=whole(), rank=whole(), sequence=whole(), feeds=truth),
    86: Record(w.Scale, nodes=whole(1)),
    87: Record(w.Scaled, nodes=whole(), why=text),
    88: Record(n.Join, generation=whole(), missing=many(whole())),
    89: Record(n.Meet, generation=whole(), members=many(whole()), meeting=text),
    90: Record(m.LendLane, segment=name, secret=name, bell=name),
    91: Record(m.BorrowLane, bell=label),
    97: Record(t.Traced, sequence=whole(), context=t.context),
    98: Record(t.TracedWindow, operator=name, key=whole(), contexts=many(t.context, t.SPANS)),
    99: Record(t.Spans, spans=many(_span.field, t.SPANS)),
}

#: Every message's number.
NUMBERS: dict[type, int] = {record.cls: number for number, record in KINDS.items()}
