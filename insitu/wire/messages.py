# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run say to each other, as plain data.

Seven links exist. On each, the side that connects speaks first and the other admits or refuses it:

========================  =====================================  ==================================================
link                      the connecting side says               the listening side says
========================  =====================================  ==================================================
rank to controller        Hello, Offer, Layout, Declare,         Welcome, Refuse, Ping, Skip, NodeGone,
                          Dropped, Reached, Answer, Standing,    Replan, Propose, Decide, Commit
                          Event, Status, Tally, Adopted, Spans,
                          Bye
rank to staging node      Attach, Lend, Layout, Traced,          Borrow, Credit, Refuse, Ack
                          Publish, PublishLent, PublishEncoded,
                          Ship, Detach
staging node to           NodeHello, Closed, Partial, Held,      NodeWelcome, Refuse, Ping, Feed, Approve,
controller                Fed, Event, Status, Finished, Glimpse, Moved, Commit, Finish, Peek, Dismiss, Shutdown
                          TracedWindow, Spans
console to controller     ConsoleHello, Request, Follow, Scale,  ConsoleWelcome, Refuse, Ping, Steerable, Settled,
                          Leave                                  Paused, Shown, Scaled
viewer to controller      Watch, Ask, Look                       Watching, Refuse, Ping, News, Sight, Shutdown
learner to controller     LearnerHello, Partial, Event, Status,  Sources, Refuse, Ping, Meet, Shutdown
                          Finished, Join
learner to staging node   Subscribe, Learned                     Lesson, Finish, Refuse
========================  =====================================  ==================================================

Rule 1: a message holds only numbers, strings, tuples, dicts and raw buffers. Nothing here names code to run or to
import.

Rule 2: a *sequence* counts a member's published steps from 0; ``-1`` stands for "none yet" where a field says so. An
*index* is the author's own step number. A *time* is in the author's unit, and finite. Whatever ends in ``_s`` is in
seconds, whatever ends in ``_bytes`` in bytes.

Rule 3: whether the values make sense is checked when a message is decoded (`insitu.wire.codec`), never when it is
built: both sides build them in their inner loops. For the same reason they are not frozen: that would treble the time
to build one, and double the time to import this file. Nobody changes one all the same. (Where a block lies is built
seldom, and looked up: `insitu.wire.blocks`.)

What is said of steering, and to consoles, stands in `insitu.wire.steering`; what viewers say and hear in
`insitu.wire.viewing`, what learners do in `insitu.wire.learning`, and what is said of traces in `insitu.wire.tracing`.
"""

from dataclasses import dataclass, field
from typing import Any

from insitu.model import Array, Extent, Variable
from insitu.wire.blocks import ALL_STEPS, BlockSpec, Range
from insitu.wire.learning import Dismiss, Join, Learned, LearnerHello, Lesson, Meet, Sources, Subscribe
from insitu.wire.steering import (
    Answer,
    ConsoleHello,
    ConsoleWelcome,
    Decide,
    Declare,
    Follow,
    Leave,
    Paused,
    Propose,
    Reached,
    Request,
    Scale,
    Scaled,
    Settled,
    Shown,
    Standing,
    Steerable,
    SteeringTerms,
)
from insitu.wire.tracing import Spans, Traced, TracedWindow
from insitu.wire.viewing import Ask, Glimpse, Look, News, Peek, Sight, Watch, Watching

#: The version of everything in this file. Two versions never talk: the one that listens refuses the other.
VERSION = 2

Scalar = bool | int | float | str
Counters = dict[str, int | float]

#: What an operator folded: a dict of arrays, numbers, strings, booleans, ``None``, and lists or dicts of these.
State = dict[str, Any]

#: Raw bytes of one block: anything C-contiguous when sent; a read-only view of the received frame when decoded.
Buffer = bytes | bytearray | memoryview | Array


@dataclass(slots=True)
class Share:
    """Which part of a rank's blocks a staging node takes.

    Rows ``[n * low // of, n * high // of)`` of the ``n`` rows of each block go to the node; a 0-d block has one row.
    Processes of its own machine reach the node at `local` too, where that is not empty.
    """

    node: int
    address: str
    low: int
    high: int
    of: int
    local: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """What the analysis needs of one variable. Of a variable without a need, nothing leaves its rank. The name
    ``*`` stands for all variables that have no need of their own.

    `select` holds at most one range for each dim; of the others all is needed. A need that does not fit the variable is
    not met: nothing is sent, and the controller, which sees it too, says why. `steps` says of which sequences it is
    needed; its `start` and `stop` are not negative. `dtype` is ``float32``, ``float16`` or
    empty: floats of more bits are sent as such. `codec` is ``none``, ``lz4``, ``zstd``, ``zfp`` or ``auto``, and
    `tolerance` the absolute error that zfp may make.
    """

    name: str
    select: tuple[Range, ...]
    dtype: str
    codec: str
    tolerance: float
    steps: Range = ALL_STEPS


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a rank has done with one variable so far.

    Of the bytes that its author put, so many were selected by the need, in the dtype that is sent, and so many left for
    staging nodes, or were lent to them. `lossless_parts` were to be encoded by zfp, which could not.
    """

    name: str
    produced_bytes: int
    selected_bytes: int
    sent_bytes: int
    lossless_parts: int


#: Of each rank the id of the layout that its part of a step has: ``(rank, layout id)`` pairs in the order of the ranks.
RankLayouts = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class ClosedStep:
    """A step that every rank which feeds a node has published there.

    `index` and `time` are those of the rank that came first, `disagree` names the ranks that gave others. `layouts` is
    the number of an entry of `Closed.layouts`.
    """

    sequence: int
    index: int
    time: float
    layouts: int
    nbytes: int
    disagree: tuple[int, ...]


@dataclass(slots=True)
class Entry:
    """One state of an operator: of a window, or of a single step where the operator keeps steps.

    `key` is the window's index, or the step's sequence. `steps` were folded into `state`, from the step of index
    `first` to that of index `last` at physical `time`. `place` is the ``(start, count)`` of the state's cells, where it
    has any.
    """

    key: int
    steps: int
    first: int
    last: int
    time: float
    place: tuple[Extent, Extent] | None
    state: State


# Rank to controller


@dataclass(slots=True)
class Hello:
    """A rank asks to take part in a run."""

    version: int
    run: str
    member: int
    rank: int
    size: int
    host: str
    pid: int


@dataclass(slots=True)
class Offer:
    """A variable that this rank puts, as its author declared it and whatever is needed of it; said at its first put."""

    variable: Variable


@dataclass(slots=True)
class Layout:
    """What a step of this rank contains, in the order of a `Publish`'s buffers; sent once for each distinct one.

    To the controller it describes the rank's whole blocks, to a staging node the parts that go there.
    """

    id: int
    blocks: tuple[BlockSpec, ...]


@dataclass(slots=True)
class Dropped:
    """This rank will not publish that step, and says why."""

    sequence: int
    index: int
    time: float
    reason: str


@dataclass(slots=True)
class Tally:
    """What this rank has done with its variables so far."""

    variables: tuple[Traffic, ...]


@dataclass(slots=True)
class Adopted:
    """From `sequence` on the rank publishes by plan `epoch`; said before it announces any layout of that plan."""

    epoch: int
    sequence: int


@dataclass(slots=True)
class Bye:
    """The rank has ended after `steps` sequences, dropped ones included."""

    steps: int
    counters: Counters


# Controller to rank


@dataclass(slots=True)
class Welcome:
    """The rank takes part: where its blocks go, how much it may keep, how long it may wait and what it does `then`.

    `policy` is one of `insitu.client.policy`, and `every` belongs to that of its name. At most `spill_bytes` may go to
    the disk, in `spill_directory` (empty: where the system has temporary files); 0 where the policy needs none.
    `transport` is ``auto`` (shared memory where it can be had), ``shm``, ``ipc`` or ``tcp``. `needs` is the contract:
    what is to leave the rank, or to be folded there. The operators `folds`, which the contact file describes, fold on
    the rank itself; the variables `stays` are needed by these alone, and are not sent. Of `trace_every` steps one is
    traced, 0: none; its trace follows from `trace_seed`. The memory of a step is free again
    when all its nodes say that it is ``received``, ``folded`` or ``durable``, as `free` has it; ``auto``: lent memory
    when it is folded, else when it is received.
    """

    run: str
    shares: tuple[Share, ...]
    buffer_bytes: int
    max_wait_s: float
    policy: str
    every: int
    then: str
    spill_bytes: int
    spill_directory: str
    transport: str
    needs: tuple[Need, ...]
    steering: SteeringTerms
    folds: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()
    trace_seed: str = ""
    trace_every: int = 0
    free: str = "auto"


@dataclass(slots=True)
class Skip:
    """Other ranks have dropped these sequences: a rank drops what has not left it, and begins none that is to come."""

    sequences: tuple[int, ...]


@dataclass(slots=True)
class NodeGone:
    """A staging node is gone: no step that it has a part of and that is not decided yet can be whole.

    Nobody waits for it. Later steps are whole again for a rank whose plan does without it (`Replan`).
    """

    node: int


@dataclass(slots=True)
class Replan:
    """Plan `epoch`: the `shares` of the rank from one of its next steps on, which it chooses itself (`Adopted`).

    It adopts the plan when all nodes of it have given it credit. Parts move whole: where several come together at one
    node, each keeps its own cells, and a layout for that node has one block of a variable for each.
    """

    epoch: int
    shares: tuple[Share, ...]


@dataclass(slots=True)
class Refuse:
    """Whoever listens does not take part with this peer. The link ends here."""

    reason: str


@dataclass(slots=True)
class Ping:
    """Nothing but a sign of life."""


# Rank to staging node


@dataclass(slots=True)
class Attach:
    """A rank asks a staging node to take its share of the blocks."""

    version: int
    run: str
    member: int
    rank: int
    host: str
    pid: int


@dataclass(slots=True)
class Publish:
    """One step of a rank, as far as it goes to this node: one buffer for each block of the layout, in its order."""

    sequence: int
    index: int
    time: float
    layout: int
    buffers: tuple[Buffer, ...]


@dataclass(slots=True)
class Lend:
    """The rank's blocks lie in a segment of shared memory of this name and size, which begins with `secret`."""

    segment: str
    secret: str
    bytes: int


@dataclass(slots=True)
class LendLane:
    """The rank has made a lane (`insitu.wire.lane`) in a segment of this name, and is rung by `bell`.

    It says nothing more until the node has answered. Then both sides say all that follows there.
    """

    segment: str
    secret: str
    bell: str


@dataclass(slots=True)
class PublishLent:
    """A `Publish` whose buffers lie in the segment that was lent: ``(offset, nbytes)`` for each block of the layout.

    The rank leaves them as they are until the node has acknowledged the step as folded.
    """

    sequence: int
    index: int
    time: float
    layout: int
    places: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Form:
    """How one buffer is encoded: by `codec` (empty: not at all), of `nbytes`, by zfp within `tolerance`."""

    codec: str
    nbytes: int
    tolerance: float


@dataclass(slots=True)
class PublishEncoded:
    """A `Publish` of which some buffers are encoded: one form and one buffer for each block of the layout."""

    sequence: int
    index: int
    time: float
    layout: int
    forms: tuple[Form, ...]
    buffers: tuple[Buffer, ...]


@dataclass(slots=True)
class Ship:
    """States that the rank has folded itself, said as a staging node says its own; `nbytes` of its credit.

    Every step in them was committed, so that those of all ranks have the same steps.
    """

    nbytes: int
    partial: "Partial"


@dataclass(slots=True)
class Detach:
    """No more steps will come: the rank has ended after `steps` sequences, dropped ones included."""

    steps: int


# Staging node to rank


@dataclass(slots=True)
class Borrow:
    """The answer to `Lend`: whether the node has the segment before it, as it has on the same machine."""

    mapped: bool


@dataclass(slots=True)
class BorrowLane:
    """The answer to `LendLane`: by which bell the node is rung. Empty: there is no lane between these two."""

    bell: str


@dataclass(slots=True)
class Credit:
    """The rank may have this many bytes under way that the node has not folded yet."""

    bytes: int


@dataclass(slots=True)
class Ack:
    """How far a node has come with one rank, cumulative since `Attach`: a lost one does no harm.

    `received`, `folded` and `durable` (in a checkpoint) are the newest sequences (``-1``: none), the others the bytes
    of all up to them. What is durable is folded. Nothing is durable as long as no node writes checkpoints.
    """

    received: int
    folded: int
    received_bytes: int
    folded_bytes: int
    durable: int = -1
    durable_bytes: int = 0


# Staging node to controller


@dataclass(slots=True)
class NodeHello:
    """A staging node asks to take part in a run; ranks reach it at `address`, those of its machine also at `local`."""

    version: int
    run: str
    node: int
    address: str
    host: str
    pid: int
    local: str = ""


@dataclass(slots=True)
class Closed:
    """Steps that have arrived whole at this node.

    An entry of `layouts` holds the ``(rank, layout id)`` pairs of a step. Steps that are made alike share one, so that
    what a step adds does not grow with the ranks.
    """

    member: int
    layouts: tuple[RankLayouts, ...]
    steps: tuple[ClosedStep, ...]


@dataclass(slots=True)
class Partial:
    """Small states of one operator at one node, for the controller to merge: all of one window, in one message.

    The window goes from sequence `since` to sequence `upto`, and is `full` unless the stream ended before it. For an
    operator that keeps steps, `window` is ``-1`` and `upto` the sequence up to which this node has said all.
    """

    operator: str
    member: int
    window: int
    since: int
    upto: int
    full: bool
    entries: tuple[Entry, ...]


@dataclass(slots=True)
class Held:
    """The large states of one operator and window, which stay at the node as Dask data under `key`.

    The data is a list of ``(start, count, state)``, one for each of `places`; without cells, one with empty extents.
    `since`, `upto` and `full` are those of a `Partial`; `steps`, `first`, `last` and `time` those of an `Entry`.
    """

    operator: str
    member: int
    window: int
    since: int
    upto: int
    full: bool
    key: str
    nbytes: int
    steps: int
    first: int
    last: int
    time: float
    places: tuple[tuple[Extent, Extent], ...]


@dataclass(slots=True)
class Event:
    """Something a person should be able to read later in ``log.jsonl``. `level` is debug, info, warning or error."""

    level: str
    kind: str
    text: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Status:
    """How a rank or a staging node does, for the progress line and the report."""

    counters: dict[str, int | float | str]


@dataclass(slots=True)
class Fed:
    """Answers a `Feed` that was said again: nothing more is taken from some ranks of a member.

    `newest` gives for each of them the newest sequence that it had published here, or -1. Later steps can never be
    whole; those up to there still are when the other ranks have published them.
    """

    member: int
    newest: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Finished:
    """Every state of this member has left the node."""

    member: int


# Controller to staging node


@dataclass(slots=True)
class NodeWelcome:
    """The staging node takes part."""

    run: str


@dataclass(slots=True)
class Feed:
    """Which `ranks` of a member (of `size` in all) feed this node: a step is closed when all of them published it.

    Said again when a rank has ended, without it, which is answered with `Fed`, and when others are to feed the node:
    these do so when `Moved` says. What the ranks `ship` fold themselves comes to this node; only the first time that
    counts, and that of `begin`: where it is not 0, the node joins, steps before that are none of its business, and all
    of its ranks feed it when `Moved` says.
    """

    member: int
    size: int
    ranks: tuple[int, ...]
    ship: tuple[int, ...] = ()
    begin: int = 0


@dataclass(slots=True)
class Moved:
    """From `sequence` on a rank `feeds` this node, or feeds it no more."""

    member: int
    rank: int
    sequence: int
    feeds: bool


@dataclass(slots=True)
class Commit:
    """All sequences up to `upto` are decided.

    Those in `dropped` are not to be folded at all; `without` gives, for a sequence, the variables to leave out. Ranks
    hear it where they fold themselves.
    """

    member: int
    upto: int
    without: tuple[tuple[int, tuple[str, ...]], ...]
    dropped: tuple[int, ...]


@dataclass(slots=True)
class Approve:
    """This node is the only one that is fed: what it closes with these layouts is whole, and may be folded at once.

    `without` names the variables to leave out. What is closed with other layouts, or while ranks disagree, waits for
    its `Commit`, and so does what comes behind it.
    """

    member: int
    layouts: RankLayouts
    without: tuple[str, ...]


@dataclass(slots=True)
class Finish:
    """The member ended after `steps` sequences: fold what is left, send every open window, then say `Finished`.

    With -1 the node leaves, while others take the steps that follow.
    """

    member: int
    steps: int


@dataclass(slots=True)
class Shutdown:
    """The run is over: the node leaves."""


Message = (
    Hello | Offer | Layout | Tally | Declare | Reached | Answer | Standing | Dropped | Adopted | Bye
    | Welcome | Refuse | Skip | NodeGone | Replan | Propose | Decide | Ping
    | Attach | Lend | LendLane | Publish | PublishLent | PublishEncoded | Ship | Detach
    | Borrow | BorrowLane | Credit | Ack
    | NodeHello | Closed | Fed | Partial | Held | Event | Status | Finished
    | NodeWelcome | Feed | Moved | Approve | Commit | Finish | Shutdown
    | ConsoleHello | Request | Follow | Scale | Leave | ConsoleWelcome | Steerable | Settled | Paused | Shown | Scaled
    | Watch | Watching | Ask | News | Look | Sight | Peek | Glimpse
    | LearnerHello | Sources | Subscribe | Lesson | Learned | Dismiss | Join | Meet
    | Traced | TracedWindow | Spans
)  # fmt: skip
