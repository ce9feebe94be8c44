# SPDX-License-Identifier: Apache-2.0
"""Messages to frames and back: one table of examples, one rule for all other bytes."""

import tracemalloc
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.errors import LocalProtocolError, RemoteProtocolError
from insitu.wire import fields as wire_fields
from insitu.wire import learning as n
from insitu.wire import messages as m
from insitu.wire import steering as w
from insitu.wire import viewing as v
from insitu.wire.codec import decode, encode, kind
from insitu.wire.limits import BLOCKS, HEADER_BYTES, STATES_BYTES, WHOLE
from insitu.wire.schema import KINDS, NUMBERS
from tests.wire.examples import BUFFERS, ENERGY, HEADERS, MESSAGES, STATE
from tests.wire.hostile import INSANE, MALFORMED, frames_of
from tests.wire.same import same

WITH_FRAMES = (
    m.Publish | m.PublishEncoded | m.Partial | m.Ship | w.Propose | w.Request | w.Shown | n.Lesson
    | v.News | v.Sight | v.Glimpse
)  # fmt: skip
SINGLE = [message for message in MESSAGES if not isinstance(message, WITH_FRAMES)]


def name_of(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize(("message", "header"), list(zip(MESSAGES, HEADERS, strict=True)), ids=name_of)
def test_a_message_has_the_bytes_that_version_2_gave_it(message: m.Message, header: str) -> None:
    assert bytes(encode(message)[0]).hex() == header


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_a_message_comes_out_as_it_went_in(message: m.Message) -> None:
    received = decode(frames_of(message))
    assert same(received, message)
    assert kind(frames_of(message)) is type(message)


def test_every_message_has_an_example() -> None:
    assert [type(message) for message in MESSAGES] == [record.cls for record in KINDS.values()]


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_frames_are_the_peers_fault(name: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"\.$"):
        decode(MALFORMED[name])


@pytest.mark.parametrize("link", INSANE, ids=lambda link: link.name)
def test_insane_messages_are_in_right_form(link: object) -> None:
    for message in INSANE[link].values():  # type: ignore[index]
        assert same(decode(frames_of(message)), message)


@pytest.mark.parametrize("message", SINGLE, ids=name_of)
def test_a_frame_behind_the_header_is_refused(message: m.Message) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{name_of(message)}.frames: expected no frame"):
        decode([*frames_of(message), b"x"])


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_a_field_too_few_or_too_many_is_refused(message: m.Message) -> None:
    header, *frames = frames_of(message)
    unpacked = msgpack.unpackb(header)
    for wrong in ([*unpacked, 0], unpacked[:-1]):
        with pytest.raises(RemoteProtocolError):
            decode([msgpack.packb(wrong), *frames])


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_a_field_of_a_wrong_type_is_refused_by_its_name(message: m.Message) -> None:
    if isinstance(message, m.Partial):
        message = replace(message, entries=())  # its arrays are looked at first
    elif isinstance(message, m.Ship):
        message = replace(message, partial=replace(message.partial, entries=()))
    elif isinstance(message, w.Propose | w.Request):
        message = replace(message, values={})
    elif isinstance(message, w.Shown):
        message = replace(message, arrays={})
    header, *frames = frames_of(message)
    names = [name for name in type(message).__dataclass_fields__ if name != "buffers"]
    for k, name in enumerate(names, 2):
        fields = msgpack.unpackb(header)
        fields[k] = b"no field takes bytes"
        with pytest.raises(RemoteProtocolError, match=rf"{name_of(message)}\.{name}: expected .*, got b'no field"):
            decode([msgpack.packb(fields), *frames])


def test_another_version_is_told_both() -> None:
    header = msgpack.unpackb(frames_of(m.Ping())[0])
    with pytest.raises(RemoteProtocolError, match="version 7 of the wire, this side version 2"):
        decode([msgpack.packb([7, *header[1:]])])


def test_an_error_shows_no_more_of_a_value_than_fits_a_line() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode([msgpack.packb([m.VERSION, NUMBERS[m.Feed], 0, 1, ["x" * 10_000, *["x"] * 60_000]])])
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "frames",
    [
        [b"\xdd\xff\xff\xff\xff"],
        [b"\xdb\xff\xff\xff\xff"],
        [b"\xdc\x0b\xb8" * 1000],
        MALFORMED["array of 2**40 numbers"],
    ],
    ids=["list", "text", "lists in lists", "array"],
)
def test_no_announced_size_is_allocated(frames: list[bytes]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            decode(frames)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


class TestPublish:
    def test_buffers_are_not_copied(self) -> None:
        frames = encode(m.Publish(0, 0, 0.0, 0, BUFFERS))
        assert all(frame is buffer for frame, buffer in zip(frames[1:], BUFFERS, strict=True))
        views = [memoryview(b"h"), memoryview(b"12345678")]
        views[0] = memoryview(bytes(frames[0]))
        received = decode(views)
        assert isinstance(received, m.Publish)
        assert received.buffers[0] is views[1]

    def test_numpys_numbers_are_taken_when_sent(self) -> None:
        message = m.Publish(np.int64(3), np.int32(4), np.float64(0.5), np.uint8(0), ())  # type: ignore[arg-type]
        assert decode(frames_of(message)) == m.Publish(3, 4, 0.5, 0, ())

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            (m.Publish(-1, 0, 0.0, 0, ()), "Publish.sequence: .* got -1"),
            (m.Publish(0, 0, float("nan"), 0, ()), "Publish.time: expected a finite float, got nan"),
            (m.Publish(0, WHOLE + 2, 0.0, 0, ()), "Publish.index"),
            (m.Publish(0, 0, 0.0, 0, (np.ones((4, 4))[:, 1:],)), r"Publish.buffers\[0\]: expected contiguous"),
            (m.Publish(0, 0, 0.0, 0, (np.array([None]),)), r"Publish.buffers\[0\]"),
            (m.Publish(0, 0, 0.0, 0, (b"",) * (BLOCKS + 1)), "Publish.buffers: expected a list of at most 4096"),
        ],
    )
    def test_what_no_peer_would_take_is_not_sent(self, message: m.Publish, expected: str) -> None:
        with pytest.raises(LocalProtocolError, match=expected):
            encode(message)

    def test_a_buffer_beyond_the_limit_is_neither_sent_nor_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        message = m.Publish(0, 0, 0.0, 0, (bytes(101),))
        frames = frames_of(message)
        monkeypatch.setattr(wire_fields, "BUFFER_BYTES", 100)
        with pytest.raises(LocalProtocolError, match=r"buffers\[0\]"):
            encode(message)
        with pytest.raises(RemoteProtocolError, match=r"buffers\[0\]"):
            decode(frames)


class TestPartial:
    def partial(self, state: m.State) -> m.Partial:
        return m.Partial("stats", 0, 2, 3, 7, True, (m.Entry(2, 5, 30, 70, 0.7, None, state),))

    def test_arrays_belong_to_the_receiver(self) -> None:
        received = decode([bytes(frame) for frame in encode(self.partial({"a": np.arange(3.0)}))])
        assert isinstance(received, m.Partial)
        array = received.entries[0].state["a"]
        array += 1.0
        assert array.flags.aligned
        assert array.flags.owndata

    def test_numpys_numbers_and_tuples_become_pythons(self) -> None:
        state = {"n": np.int64(3), "x": np.float32(0.5), "yes": np.bool_(True), "pair": (1, 2)}
        received = decode(frames_of(self.partial(state)))
        assert isinstance(received, m.Partial)
        assert received.entries[0].state == {"n": 3, "x": 0.5, "yes": True, "pair": [1, 2]}

    def test_fortran_order_and_views_keep_their_values(self) -> None:
        state = {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "v": np.arange(10)[::3]}
        assert same(decode(frames_of(self.partial(state))), self.partial(state))

    @pytest.mark.parametrize(
        "state",
        [
            {"o": np.array([None])},
            {"s": np.array(["text"])},
            {"big": np.arange(3, dtype=">f8")},
            {"raw": b"bytes"},
            {"c": 1j},
            {"huge": 1 << 63},
            {1: "key"},
            {"object": object()},
            {"half": "\udc80"},
            {"array": np.broadcast_to(np.zeros(1), STATES_BYTES // 8 + 1)},
            {"text": ["x" * 60_000] * 18},
        ],
        ids=lambda state: next(iter(state)),
    )
    def test_a_state_that_no_peer_would_take_is_not_sent(self, state: m.State) -> None:
        with pytest.raises(LocalProtocolError, match=r"^Partial"):
            encode(self.partial(state))


def test_text_for_people_is_cut_and_not_refused() -> None:
    event = m.Event("error", "operator-stopped", "x" * 100_000, {"trace": "y" * 100_000, "file": "a\udcff"})
    received = decode(frames_of(event))
    assert isinstance(received, m.Event)
    assert received.text == "x" * 65_536
    assert received.details == {"trace": "y" * 65_536, "file": "a?"}


def test_a_header_beyond_the_limit_is_not_sent() -> None:
    layout = m.Layout(0, tuple(m.BlockSpec(ENERGY.renamed(f"{k:0256}"), (), ()) for k in range(BLOCKS)))
    with pytest.raises(LocalProtocolError, match=f"Layout.header: expected a header of at most {HEADER_BYTES} bytes"):
        encode(layout)


def test_after_a_message_that_cannot_be_sent_the_next_one_is_whole() -> None:
    with pytest.raises(LocalProtocolError, match="Status holds what is no text"):
        encode(m.Status({"phase": "\udcff"}))
    assert decode(frames_of(m.Credit(5))) == m.Credit(5)


def test_what_is_no_message_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match="A dict is no message"):
        encode({})  # type: ignore[arg-type]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text()
    | st.binary(max_size=40) | st.builds(msgpack.ExtType, st.integers(0, 3), st.binary(max_size=12)),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=30,
)  # fmt: skip
any_frames = st.lists(st.binary(max_size=60), max_size=4)


@st.composite
def almost_messages(draw: st.DrawFn) -> list[bytes]:
    """A right number, any fields, any frames."""
    fields = draw(st.lists(values, max_size=10))
    header = msgpack.packb([m.VERSION, draw(st.sampled_from(sorted(KINDS))), *fields])
    return [header, *draw(any_frames)]


@st.composite
def spoilt_messages(draw: st.DrawFn) -> list[bytes]:
    """A right message with some bytes changed, put in or taken out."""
    frames = [bytearray(frame) for frame in frames_of(draw(st.sampled_from(MESSAGES)))]
    for _ in range(draw(st.integers(1, 3))):
        frame = draw(st.sampled_from(frames))
        at = draw(st.integers(0, len(frame)))
        frame[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return [bytes(frame) for frame in frames]


@settings(max_examples=200, derandomize=True)
@given(any_frames | almost_messages() | spoilt_messages())
def test_any_frames_give_a_message_or_remote_protocol_error(frames: list[bytes]) -> None:
    try:
        message = decode(frames)
    except RemoteProtocolError:
        return
    assert same(decode(frames_of(message)), message)  # what was taken can be sent


arrays = st.builds(
    lambda dtype, shape: (np.arange(np.prod(shape, dtype=int)) % 2).astype(dtype).reshape(shape),
    st.sampled_from(["?", "i1", "<u2", "<i8", "<f4", "<f8", "<c16"]),
    st.lists(st.integers(0, 4), max_size=3),
)
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), WHOLE) | st.floats() | st.text() | arrays,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=80, derandomize=True)
@given(st.lists(st.dictionaries(st.text(max_size=4), trees, max_size=4), max_size=4))
def test_any_states_come_out_as_they_went_in(states: list[m.State]) -> None:
    entries = tuple(m.Entry(k, 1, k, k, 0.5, None, state) for k, state in enumerate([*states, STATE]))
    message = m.Partial("stats", 0, -1, -1, 7, True, entries)
    assert same(decode(frames_of(message)), message)


@pytest.mark.parametrize(
    "buffers", [(), (b"{}", b"{}"), (b"",), (b"[1]",), (b"\xff",), (b'{"a": ',), (b"[" * 100_000,)]
)
def test_news_that_are_no_snapshot_are_the_peers_fault(buffers: tuple[bytes, ...]) -> None:
    with pytest.raises(RemoteProtocolError, match=r"News\.buffers"):
        _ = v.News(buffers).snapshot
