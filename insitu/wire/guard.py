# SPDX-License-Identifier: Apache-2.0
"""Who may connect: what ZeroMQ asks and tells about those who try, without sockets.

A listener with keys has two things to hear besides messages. ZeroMQ *asks* for each client that could open the
handshake whether its key is welcome, and lets it wait for the answer (ZAP). And it *tells* of each handshake that
failed, also of those about which it never asks: a client without a key, with the key of another run, or one that
repeats what it has overheard. CURVE makes new keys for each connection, so what is repeated fits none.

Source: ZAP, https://rfc.zeromq.org/spec/27/; CurveZMQ, https://rfc.zeromq.org/spec/26/
"""

import struct
from collections.abc import Sequence

from insitu.wire.messages import Event

#: Where ZeroMQ asks, by the specification.
ENDPOINT = "inproc://zeromq.zap.01"
#: Any name will do, but there has to be one: with it ZeroMQ refuses all when nobody answers, instead of none.
DOMAIN = "insitu"

_REFUSED = 0x4000  # ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: by our answer
_BROKEN = 0x2000  # ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL: before ZeroMQ asked
_LEFT = 0x0800  # ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL: the client closed, as one without keys does when it sees ours
_ADMITTED = 0x1000  # ZMQ_EVENT_HANDSHAKE_SUCCEEDED
#: The events that a listener has to hear of, and those of a client that is not let in yet.
EVENTS = _REFUSED | _BROKEN | _LEFT
CLIENT_EVENTS = EVENTS | _ADMITTED
#: A listener that has other keys than the client thinks just closes. One that ends closes too, but only once.
CLOSED = 3

_FOREIGN_KEY = "its key is not one of this run"
_NO_KEY = "it showed no key"
_REASONS = {
    0x11000001: "it has not this run's keys, or repeats what another client sent",  # ..._ZMTP_CRYPTOGRAPHIC
    0x11000002: _NO_KEY,  # ..._ZMTP_MECHANISM_MISMATCH
}
_OWN_REASONS = {0x11000002: "one of the two has keys, and the other has none"}
_OTHERWISE = "it does not keep to ZeroMQ's protocol"


def answer(request: Sequence[bytes], client_key: bytes) -> list[bytes]:
    """Return the answer to a question: yes only to the client whose public key is `client_key` (32 bytes).

    >>> question = [b"1.0", b"7", b"insitu", b"127.0.0.1", b"", b"CURVE"]
    >>> answer([*question, bytes(32)], client_key=bytes(32))[:3]
    [b'1.0', b'7', b'200']
    >>> answer([*question, b"?" * 32], client_key=bytes(32))[:4]
    [b'1.0', b'7', b'400', b'its key is not one of this run']
    """
    number = request[1] if len(request) > 1 else b""
    welcome = (
        len(request) == 7
        and request[0] == b"1.0"
        and request[5] == b"CURVE"
        and request[6] == client_key  # public, so how long it takes to compare tells nothing
    )
    status = (b"200", b"OK") if welcome else (b"400", _FOREIGN_KEY.encode())
    return [b"1.0", number, *status, b"", b""]


def reason(event: bytes) -> str:
    """Return why a client was refused, from the first frame of one of the `EVENTS`.

    >>> reason(struct.pack("=HI", 0x2000, 0x11000002))
    'it showed no key'
    """
    number, value = struct.unpack("=HI", event)
    if number == _BROKEN:
        return _REASONS.get(value, _OTHERWISE)
    return _FOREIGN_KEY if number == _REFUSED else _NO_KEY


class Admission:
    """Whether a client is let in, from the events that it hears.

    >>> admission = Admission()
    >>> admission.hear(struct.pack("=HI", 0x4000, 400)); admission.refused
    'the key that it shows is not one of this run'
    """

    def __init__(self) -> None:
        self.admitted = False
        #: Why it is not, once that is known.
        self.refused = ""
        self._closed = 0

    def hear(self, event: bytes) -> None:
        """Take in the first frame of one of the `CLIENT_EVENTS`."""
        number, value = struct.unpack("=HI", event)
        if number == _ADMITTED:
            self.admitted, self.refused = True, ""
        elif number == _REFUSED:
            self.refused = "the key that it shows is not one of this run"
        elif number == _BROKEN:
            self.refused = _OWN_REASONS.get(value, _OTHERWISE)
        else:
            self._closed += 1
            if self._closed >= CLOSED:
                self.refused = "whoever listens there has other keys than its contact file"


def event(reason: str) -> Event:
    """Return what is to be logged when clients are refused for a reason for the first time."""
    text = f"A client is refused: {reason}. More of them are only counted."
    return Event("warning", "client-refused", text, {"reason": reason})
