# SPDX-License-Identifier: Apache-2.0
"""Messages to frames, and frames to messages.

Frame 0 is the header: a msgpack array of the version, the message's number, and its fields. Some messages have more:

* `Publish` has one raw frame for each buffer, in C order and little-endian, which is neither copied nor looked into;
* `PublishEncoded` has the same, but what is in a buffer is for `insitu.wire.compression` to find out;
* `Lesson` has one raw frame for each block;
* `Sight` and `Glimpse` have one raw frame for each piece of a picture, `News` has one of JSON;
* `Partial`, `Ship`, `Propose`, `Request` and `Shown` have one raw frame with all arrays of their states, in a row. In
  the header stands an extension for each, with its dtype and shape. So no header can name a place outside the frame,
  or one place twice.

The one invariant: whatever frames a peer sends, `decode` returns a message or raises `RemoteProtocolError`.
"""

import sys
from collections.abc import Sequence
from math import isfinite, prod
from typing import Any, cast

import msgpack
import numpy as np

from insitu.errors import LocalProtocolError, RemoteProtocolError
from insitu.model import Array
from insitu.wire.fields import Wrong, extent, fits
from insitu.wire.learning import Lesson
from insitu.wire.limits import BLOCKS, BUFFER_BYTES, HEADER_BYTES, ITEMS, STATES_BYTES, WHOLE
from insitu.wire.messages import VERSION, Ack, Buffer, Message, Partial, Publish, PublishEncoded, PublishLent, Ship
from insitu.wire.records import Record, dtype
from insitu.wire.schema import KINDS, NUMBERS
from insitu.wire.steering import Propose, Request, Shown
from insitu.wire.viewing import Glimpse, News, Sight

if sys.byteorder != "little":
    raise ImportError("insitu needs a little-endian machine: its wire has no other byte order.")

Frame = bytes | memoryview

#: The extension that stands for an array of a state.
_ARRAY = 1

_PUBLISH, _LENT, _ACK = NUMBERS[Publish], NUMBERS[PublishLent], NUMBERS[Ack]
#: Those with states, and how many bytes their arrays may have: what a rank ships stands for its blocks of many steps.
_STATES = {NUMBERS[cls]: STATES_BYTES for cls in (Partial, Propose, Request, Shown)} | {NUMBERS[Ship]: BUFFER_BYTES}
_BUFFERED = frozenset({NUMBERS[PublishEncoded], NUMBERS[News], NUMBERS[Sight], NUMBERS[Glimpse], NUMBERS[Lesson]})

# One packer for all: it packs plain values without letting go of the interpreter's lock, so threads may share it.
_pack = msgpack.Packer().pack


def encode(message: Message) -> list[Buffer]:
    """Return the frames of a message. Buffers of a `Publish` are passed on as they are.

    Raises `LocalProtocolError` for a message that no peer would take: a wrong type, a value beyond its limit.
    """
    number = NUMBERS.get(type(message))
    if number is None:
        raise LocalProtocolError(f"A {type(message).__name__} is no message.")
    try:
        frames = _encode(number, message)
        if len(frames[0]) > HEADER_BYTES:
            raise Wrong(f"a header of at most {HEADER_BYTES} bytes", len(frames[0]), "header")
    except Wrong as wrong:
        raise LocalProtocolError(str(wrong.inside(type(message).__name__))) from None
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"{type(message).__name__} holds what is no text: {error}.") from error
    return frames


def decode(frames: Sequence[Frame]) -> Message:
    """Return the message that the frames are.

    Buffers of a `Publish` are the frames themselves; arrays of states are copies that belong to the caller.
    Nothing of a size that the peer chose is allocated before the size was checked.

    Raises `RemoteProtocolError` for everything that is no message, naming message, field and value.
    """
    record, fields = _header(frames)
    try:
        return cast(Message, _decode(record, fields, frames))
    except Wrong as wrong:
        raise RemoteProtocolError(str(wrong.inside(record.cls.__name__))) from None


def kind(frames: Sequence[Frame]) -> type:
    """Return the class of the message that the frames say they are, without looking further.

    Raises `RemoteProtocolError` as `decode` does.
    """
    return _header(frames)[0].cls


def _encode(number: int, message: Any) -> list[Buffer]:
    if number == _PUBLISH:
        return _encode_publish(message)
    if number == _LENT:
        return _encode_lent(message)
    if number == _ACK:
        return _encode_ack(message)
    fields = KINDS[number].dump(message)
    if number in _BUFFERED:
        return [_pack([VERSION, number, *fields[:-1]]), *message.buffers]
    if number in _STATES:
        return _encode_states([VERSION, number, *fields], _STATES[number])
    return [_pack([VERSION, number, *fields])]


def _decode(record: Record, fields: list[Any], frames: Sequence[Frame]) -> Any:
    if record.cls is Publish:
        return _decode_publish(record, fields, frames)
    if record.cls is PublishLent and len(frames) == 1:
        return _decode_lent(record, fields)
    if NUMBERS[record.cls] in _BUFFERED:
        return record.load([*fields, tuple(frames[1:])])
    if NUMBERS[record.cls] in _STATES:
        return record.load(_decode_states(frames, _STATES[NUMBERS[record.cls]]))
    if len(frames) != 1:
        raise Wrong("no frame behind the header", len(frames) - 1, "frames")
    if record.cls is Ack:
        return Ack(*fields) if _is_ack(fields) else record.load(fields)
    return record.load(fields)


def _header(frames: Sequence[Frame]) -> tuple[Record, list[Any]]:
    """Unpack frame 0 as far as every message has the same form."""
    if not frames:
        raise RemoteProtocolError("A message without any frame; the peer is no part of insitu.")
    if len(frames[0]) > HEADER_BYTES:
        raise RemoteProtocolError(f"A header of {len(frames[0])} bytes, the limit is {HEADER_BYTES}.")
    header = _unpack(frames[0])
    if type(header) is not list or len(header) < 2:
        raise RemoteProtocolError(
            "A header that is no list of version, number and fields; the peer is no part of insitu."
        )
    version, number = header[:2]
    if type(version) is not int or version != VERSION:
        raise RemoteProtocolError(
            f"The peer speaks version {version!r:.20} of the wire, this side version {VERSION}; install the same "
            "version of insitu on both."
        )
    record = KINDS.get(number) if type(number) is int else None
    if record is None:
        raise RemoteProtocolError(f"Messages of number {number!r:.20} do not exist in version {VERSION} of the wire.")
    return record, header[2:]


def _unpack(data: Frame, ext_hook: Any = msgpack.ExtType) -> Any:
    """Unpack one msgpack value. An extension is a value of a type that no field has, unless the hook makes it one."""
    try:
        # A list is allocated by the length that it announces; so that is bounded by what is there and what is legal.
        most = min(ITEMS, len(data))
        return msgpack.unpackb(data, max_array_len=most, max_map_len=most, ext_hook=ext_hook)
    except Wrong:
        raise
    except ValueError as error:  # the base of all that msgpack raises, and of what is no UTF-8
        reason = str(error).rstrip(".") or type(error).__name__
        raise RemoteProtocolError(f"A header that is no msgpack: {reason}.") from error


def _is_publish(fields: list[Any], buffers: int) -> bool:
    """Whether the fields of a `Publish` are right, told without the record: this is in the inner loop of both sides."""
    if len(fields) != 4 or buffers > BLOCKS:
        return False
    sequence, index, time, layout = fields
    return (
        type(sequence) is type(index) is type(layout) is int
        and 0 <= sequence <= WHOLE
        and 0 <= layout <= WHOLE
        and -WHOLE <= index <= WHOLE
        and type(time) is float
        and isfinite(time)
    )


def _encode_publish(message: Publish) -> list[Buffer]:
    buffers = message.buffers
    fields = [message.sequence, message.index, message.time, message.layout]
    if not (_is_publish(fields, len(buffers)) and all(map(fits, buffers))):
        fields = KINDS[_PUBLISH].dump(message)[:4]  # says what is wrong, or makes it right
    return [_pack([VERSION, _PUBLISH, *fields]), *buffers]


def _decode_publish(record: Record, fields: list[Any], frames: Sequence[Frame]) -> Publish:
    buffers: tuple[Buffer, ...] = tuple(frames[1:])
    if _is_publish(fields, len(buffers)) and all(map(fits, buffers)):
        sequence, index, time, layout = fields
        return Publish(sequence, index, time, layout, buffers)
    return cast(Publish, record.load([*fields, buffers]))


def _are_places(places: Any, sequence: type[tuple[Any, ...]] | type[list[Any]]) -> bool:
    """Whether these are pairs of whole numbers, told without the record as for `_is_publish`."""
    for place in places:
        if type(place) is not sequence or len(place) != 2:
            return False
        for number in place:
            if type(number) is not int or not 0 <= number <= WHOLE:
                return False
    return True


def _encode_lent(message: PublishLent) -> list[Buffer]:
    places = message.places
    fields = [message.sequence, message.index, message.time, message.layout]
    if type(places) is tuple and _is_publish(fields, len(places)) and _are_places(places, tuple):
        return [_pack([VERSION, _LENT, *fields, places])]
    return [_pack([VERSION, _LENT, *KINDS[_LENT].dump(message)])]


def _decode_lent(record: Record, fields: list[Any]) -> PublishLent:
    *numbers, places = fields or [None]
    if type(places) is list and _is_publish(numbers, len(places)) and _are_places(places, list):
        sequence, index, time, layout = numbers
        return PublishLent(sequence, index, time, layout, tuple(map(tuple, places)))
    return cast(PublishLent, record.load(fields))


def _is_ack(fields: list[Any]) -> bool:
    """Whether the fields of an `Ack` are right, told without the record: each rank gets one in a millisecond."""
    if len(fields) != 6:
        return False
    received, folded, received_bytes, folded_bytes, durable, durable_bytes = fields
    return (
        type(received) is type(folded) is type(received_bytes) is type(folded_bytes) is int
        and type(durable) is type(durable_bytes) is int
        and -1 <= received <= WHOLE
        and -1 <= durable <= folded <= WHOLE
        and 0 <= received_bytes <= WHOLE
        and 0 <= durable_bytes <= folded_bytes <= WHOLE
    )


def _encode_ack(ack: Ack) -> list[Buffer]:
    fields = [ack.received, ack.folded, ack.received_bytes, ack.folded_bytes, ack.durable, ack.durable_bytes]
    return [_pack([VERSION, _ACK, *(fields if _is_ack(fields) else KINDS[_ACK].dump(ack))])]


def _encode_states(header: list[Any], limit_bytes: int) -> list[Buffer]:
    arrays: list[Array] = []

    def take(array: Array) -> msgpack.ExtType:
        arrays.append(np.ascontiguousarray(array))
        return msgpack.ExtType(_ARRAY, _pack([dtype.dump(array.dtype), array.shape]))

    packed: bytes = msgpack.packb(header, default=take)
    if (nbytes := sum(array.nbytes for array in arrays)) > limit_bytes:
        raise Wrong(f"states of at most {limit_bytes} bytes", nbytes, "entries")
    return [packed, b"".join(array.data for array in arrays)]


def _decode_states(frames: Sequence[Frame], limit_bytes: int) -> list[Any]:
    """Unpack a header with states again, now with its arrays."""
    if len(frames) != 2:
        raise Wrong("one frame behind the header", len(frames) - 1, "frames")
    body, begin = frames[1], 0
    if len(body) > limit_bytes:
        raise Wrong(f"states of at most {limit_bytes} bytes", len(body), "frames")

    def give(code: int, data: bytes) -> Array:
        nonlocal begin
        kind, shape = _array(code, data)
        size = prod(shape)
        if size * kind.itemsize > len(body) - begin:
            raise Wrong(f"an array inside the {len(body)} bytes of the frame", shape, "entries")
        array = np.frombuffer(body, kind, size, begin) if size else np.empty(0, kind)
        begin += array.nbytes
        try:
            # The copy is the caller's own: a merge may change it, and the frame can go.
            return array.reshape(shape).copy()
        except ValueError:  # empty, and too long in another dimension
            raise Wrong("an array that memory could hold", shape, "entries") from None

    fields: list[Any] = _unpack(frames[0], give)[2:]
    if begin != len(body):
        raise Wrong(f"arrays of {len(body)} bytes in all", begin, "entries")
    return fields


def _array(code: int, data: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    described = _unpack(data)
    if code != _ARRAY or type(described) is not list or len(described) != 2:
        raise Wrong("the dtype and shape of an array", described, "entries")
    return dtype.load(described[0]), extent.load(described[1])
