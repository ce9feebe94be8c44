# SPDX-License-Identifier: Apache-2.0
"""The one door to ZeroMQ: frames in, frames out.

Rule 1: nothing here waits but `poll`, which has a bound, and the `close` of a listener or of a process's last
connection, which waits at most `LINGER_S` for what was sent to leave.

Rule 2: a socket belongs to one thread. Another thread wakes it up by a `Waker`.

Rule 3: what crosses loopback's border is encrypted, or refused. Where there are keys, only who has them gets in; the
others are counted.

Rule 4: a frame is never interpreted here, only counted and measured.
"""

import errno
import math
import os
import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

import zmq
from zmq.utils import z85

from insitu.errors import LocalProtocolError, RunError
from insitu.model import Array
from insitu.wire import guard
from insitu.wire.addresses import stays_here
from insitu.wire.keys import CurveKeys
from insitu.wire.limits import BLOCKS, BUFFER_BYTES
from insitu.wire.messages import Buffer

#: What is sent last (a goodbye, a refusal) leaves within milliseconds, or the peer is gone.
LINGER_S = 5.0

#: From this size on a frame is sent without a copy. pyzmq has a thread that lets go of such frames, and waking it up
#: costs as much as copying a smaller one. MiB/s over tcp with and without a copy, medians of 9 rounds: 64 KiB 890 and
#: 870, 128 KiB 1,420 and 1,450, 256 KiB 1,550 and 2,220, 1 MiB 2,100 and 4,100, 16 MiB 2,300 and 2,600.
ZERO_COPY_BYTES = 256 << 10

#: Messages that may wait on either side of a link. Bytes are bounded by credits, and this is for the messages that
#: have none. A rank reads nothing while it computes; at one ping in 2 s this is 5 hours. It must not be reached: ZeroMQ
#: then stops reading, heartbeats included, and the peer thinks that this side is gone.
MESSAGES = 10_000

#: A heartbeat each 2 s shows a peer that is gone without a goodbye (a lost node, a pulled cable) after a minute of
#: silence; a process that ends is seen at once. ZeroMQ's own thread answers, so a simulation that computes for an hour
#: is still there. The minute is there for frames, behind which a heartbeat has to wait: 4 GiB at 110 MB/s take 39 s.
#: Each side waits for the answer to its own heartbeat, and not (ZMQ_HEARTBEAT_TTL) for the other's next one: that clock
#: runs on where a whole machine stands still, and every link of it would break when it goes on.
HEARTBEAT_S = 2.0
SILENCE_S = 60.0

#: Between attempts to connect: short, since a run starts within seconds, and growing, since a listener may be gone.
RECONNECT_S = 0.1
RECONNECT_MAX_S = 5.0

#: The kernel's own probes, for links that are not yet past ZeroMQ's handshake, and for firewalls that forget a link.
KEEPALIVE_S = 60

_DESCRIPTIONS = {
    errno.EADDRINUSE: "another process has that port; let the system choose one with port *",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address; name one that `ip address` lists",
    errno.ENODEV: "no interface of this machine has that address; name one that `ip address` lists",
    errno.EACCES: "this user may not; take a port of 1024 or above, or a folder that may be written to",
    errno.EINVAL: "that is no address, or its keys are none; write tcp://HOST:PORT, and take the keys of `new_keys`",
    errno.EPROTONOSUPPORT: "that is no address; write tcp://HOST:PORT",
    errno.EMFILE: "this process has too many open files; raise `ulimit -n`",
}


class _Process:
    """This process's ZeroMQ contexts. All connections share one, which comes with the first and goes with the last.

    Each listener has its own, which goes with it: ZeroMQ has one place in a context where it asks who may connect, and
    the answer is the listener's to give, by its keys and in its thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: zmq.Context[zmq.Socket[bytes]] | None = None
        self._open: weakref.WeakKeyDictionary[_Socket, zmq.Context[zmq.Socket[bytes]]] = weakref.WeakKeyDictionary()

    def open(self, owner: "_Socket", kind: int) -> "zmq.Socket[bytes]":
        with self._lock:
            if kind == zmq.ROUTER:
                context = zmq.Context()
            else:
                context = self._shared = self._shared or zmq.Context()
            self._open[owner] = context
            return context.socket(kind)

    def close(self, owner: "_Socket", sockets: "Sequence[zmq.Socket[bytes]]", linger_s: float) -> None:
        with self._lock:
            for socket in sockets:
                socket.close(linger=round(linger_s * 1000))
            context = self._open.pop(owner)
            if any(each is context for each in self._open.values()):
                return
            if context is self._shared:
                self._shared = None
            context.term()

    def forget(self) -> None:
        """After a fork, in the child: the sockets are the parent's, and ZeroMQ's threads stayed there."""
        for owner in list(self._open):
            owner.forget("belongs to the parent of this process, which was forked; connect anew")
        self._lock = threading.Lock()
        self._shared = None
        self._open = weakref.WeakKeyDictionary()


class _Socket:
    """What `Socket` and `Listener` have in common."""

    def __init__(self, kind: int, address: str, keys: CurveKeys | None, frame_bytes: int) -> None:
        if keys is None and not stays_here(address):
            raise RunError(
                f"{address} leaves this machine, and the link would be open to all who reach it; give CurveZMQ keys, "
                "or take tcp://127.0.0.1:*."
            )
        self.address = address
        self._closed = ""
        #: What ZeroMQ itself has to say comes here; `poll` sees to it.
        self.hears: list[zmq.Socket[bytes]] = []
        self._socket: zmq.Socket[bytes] | None = _process.open(self, kind)
        self._socket.copy_threshold = ZERO_COPY_BYTES
        for option, value in _OPTIONS.items():
            self._socket.setsockopt(option, value)
        self._socket.setsockopt(zmq.MAXMSGSIZE, frame_bytes)

    @property
    def pollable(self) -> "zmq.Socket[bytes]":
        """The socket itself, for `poll`."""
        self.require_own()
        assert self._socket is not None
        return self._socket

    def require_own(self) -> None:
        """Raise `LocalProtocolError` where the socket is closed, or that of the parent of this process."""
        if self._socket is None:
            raise LocalProtocolError(f"The socket at {self.address} {self._closed}.")

    def close(self, linger_s: float = LINGER_S) -> None:
        """Close; what was sent has `linger_s` to leave. May be called twice."""
        if self._socket is not None:
            self._stop_telling()
            sockets, self._socket, self._closed = [self._socket, *self.hears], None, "was closed"
            self.hears = []
            _process.close(self, sockets, linger_s)

    def _tell(self, endpoint: str, events: int) -> "zmq.Socket[bytes]":
        """Have ZeroMQ tell of these events; return where it does.

        It tells from the thread that moves all messages of the context, and waits where nobody takes what it tells: so
        there is room for any number of events, and it stops (`_stop_telling`) before the other end is closed.
        """
        told: zmq.Socket[bytes] = self.pollable.context.socket(zmq.PAIR)
        told.setsockopt(zmq.RCVHWM, 0)
        self.pollable.monitor(endpoint, events)
        told.connect(endpoint)
        return told

    def _stop_telling(self) -> None:
        if self.hears:
            self.pollable.disable_monitor()

    def forget(self, why: str) -> None:
        """Drop the socket without touching it."""
        self._socket, self.hears, self._closed = None, [], why

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Socket(_Socket):
    """The connecting end of a link. It connects again by itself when the link is lost; the listener sees the same peer.

    What was under way when a link was lost may be lost too.
    """

    def __init__(self, address: str, keys: CurveKeys | None, frame_bytes: int) -> None:
        super().__init__(zmq.DEALER, address, keys, frame_bytes)
        self._admission = guard.Admission()

    @property
    def refused(self) -> str:
        """Why the listener does not let this client in, as far as `poll` has heard; empty while it may yet do so."""
        return self._admission.refused

    def watch(self) -> None:
        """Hear whether it is let in; to be called before it connects."""
        self.hears = [self._tell(f"inproc://admission-{id(self)}", guard.CLIENT_EVENTS)]

    def hear(self) -> None:
        """Take in what ZeroMQ tells, until it is let in: then nothing more is to be heard."""
        (told,) = self.hears
        with suppress(zmq.Again):
            while not self._admission.admitted:
                self._admission.hear(told.recv_multipart(zmq.NOBLOCK)[0])
        if self._admission.admitted:
            self._stop_telling()
            self.hears = []
            told.close(linger=0)

    def send(self, frames: Sequence[Buffer], copy: bool = False) -> bool:
        """Hand a message over to be sent, whole or not at all; return whether it was taken.

        It is not taken while `MESSAGES` of them wait. Frames of `ZERO_COPY_BYTES` and more are not copied unless `copy`
        is set: they must stay as they are until the peer has said that it has them.
        """
        return _send(self.pollable, frames, copy)

    def receive(self) -> list[memoryview] | None:
        """Return the frames of the next message, read-only and without a copy, or ``None`` if none is there."""
        return _receive(self.pollable)


class Listener(_Socket):
    """The listening end of many links. Peers have an identity that they keep when they connect again.

    With keys it lets in who has them, while its thread calls `poll`; `refused` counts the attempts of others, by
    reason. Such a client tries again every few seconds for as long as it lives.
    """

    def __init__(self, address: str, keys: CurveKeys | None, frame_bytes: int) -> None:
        super().__init__(zmq.ROUTER, address, keys, frame_bytes)
        self.encrypted = keys is not None
        self.refused: Counter[str] = Counter()
        self._told: set[str] = set()
        self._client_key = b"" if keys is None else z85.decode(keys.client_public)

    def also(self, address: str) -> None:
        """Listen at another address too. Raises `RunError` as `listen` does."""
        try:
            self.pollable.bind(address)
        except zmq.ZMQError as error:
            raise _error("listen at", address, error) from error

    def watch(self) -> None:
        """Hear who wants to connect; to be called before anybody can."""
        socket = self.pollable
        context = socket.context
        socket.setsockopt_string(zmq.ZAP_DOMAIN, guard.DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        asked = context.socket(zmq.REP)
        self.hears = [asked]
        asked.bind(guard.ENDPOINT)
        self.hears.append(self._tell("inproc://told", guard.EVENTS))

    def hear(self) -> None:
        """Answer all questions, count all refusals."""
        asked, told = self.hears
        with suppress(zmq.Again):
            while True:
                asked.send_multipart(guard.answer(asked.recv_multipart(zmq.NOBLOCK), self._client_key))
        with suppress(zmq.Again):
            while True:
                self.refused[guard.reason(told.recv_multipart(zmq.NOBLOCK)[0])] += 1

    def send(self, identity: bytes, frames: Sequence[Buffer], copy: bool = False) -> bool:
        """Like `Socket.send`, to one peer. Not taken either when that peer is not connected."""
        try:
            return _send(self.pollable, (identity, *frames), copy)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False

    def receive(self) -> tuple[bytes, list[memoryview]] | None:
        """Return who sent the next message, and its frames as `Socket.receive` does."""
        frames = _receive(self.pollable)
        return None if frames is None else (bytes(frames[0]), frames[1:])

    def new_refusals(self) -> list[str]:
        """Return the reasons that were not there at the last call, so that nobody can flood a log."""
        new = [reason for reason in self.refused if reason not in self._told]
        self._told.update(new)
        return new


def connect(address: str, keys: CurveKeys | None = None, frame_bytes: int = BUFFER_BYTES) -> Socket:
    """Connect to a `Listener`. Does not wait for it: it may come later.

    Frames of more than `frame_bytes` end the link. Raises `RunError` for an address that is none, and for one that
    leaves this machine without `keys`.
    """
    connection = Socket(address, keys, frame_bytes)
    socket = connection.pollable
    # Chosen here, so that a link that was lost goes on as the same peer, and by chance, so that nobody else can take
    # it over. An identity that begins with zero is the listener's to give.
    socket.setsockopt(zmq.ROUTING_ID, b"\x01" + os.urandom(15))
    try:
        if keys is not None:
            socket.curve_serverkey = keys.server_public.encode()
            socket.curve_publickey = keys.client_public.encode()
            socket.curve_secretkey = keys.client_secret.encode()
        connection.watch()
        socket.connect(address)
    except zmq.ZMQError as error:
        connection.close(linger_s=0)
        raise _error("connect to", address, error) from error
    return connection


def listen(address: str, keys: CurveKeys | None = None, frame_bytes: int = BUFFER_BYTES) -> Listener:
    """Listen at an interface of this machine; ``tcp://127.0.0.1:*`` lets the system choose the port.

    The listener's `address` has the port that was chosen. Frames of more than `frame_bytes` end the link that brings
    them, before they are allocated. Raises `RunError` for an address that cannot be had, for one that leaves this
    machine without `keys`, and for all interfaces at once, which is no address that a peer could be told.
    """
    if address.startswith(("tcp://*:", "tcp://0.0.0.0:")):
        raise RunError(f"{address} means every interface, and no peer can connect to that; name one of them.")
    if keys is not None and not keys.server_secret:
        raise RunError(f"Cannot listen at {address}: the keys are those of a client; take the run's own.")
    listener = Listener(address, keys, frame_bytes)
    socket = listener.pollable
    # Say so when a peer is not there, instead of dropping what is sent; and let a peer that connects again before the
    # loss of its old link was seen go on.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    try:
        if keys is not None:
            socket.curve_server = True
            socket.curve_secretkey = keys.server_secret.encode()
            listener.watch()
        socket.bind(address)
    except zmq.ZMQError as error:
        listener.close(linger_s=0)
        raise _error("listen at", address, error) from error
    listener.address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    return listener


def require_admitted(socket: Socket) -> None:
    """Raise `LocalProtocolError` where the listener has not let this client in, and will not."""
    if socket.refused:
        raise LocalProtocolError(
            f"The run at {socket.address} does not let this process in: {socket.refused}. It is probably another "
            "run than that of the contact file; take the contact.json of a run that goes on."
        )


def new_keys() -> CurveKeys:
    """Return keys for a new run."""
    server_public, server_secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    return CurveKeys(server_public.decode(), client_public.decode(), client_secret.decode(), server_secret.decode())


def library() -> tuple[str, bool]:
    """Return the version of ZeroMQ's library, and whether it can encrypt."""
    return zmq.zmq_version(), bool(zmq.has("curve"))


def pinned(buffer: Array) -> memoryview:
    """Return a buffer in the form in which it is sent without a copy, whatever its size, as often as is wanted.

    Sending it costs a microsecond at any size; another buffer costs its copy, or a wake-up of pyzmq's thread. That one
    is due here when the last view is gone. The buffer must stay as it is from each `send` until the peer has it.
    """
    message: Any = zmq.Frame(buffer, copy=False)
    return memoryview(message)


class Pollable(Protocol):
    """What `poll` can wait for: `Socket`, `Listener` and `Waker`."""

    @property
    def pollable(self) -> Any: ...


def poll(sockets: Sequence[Pollable], timeout_s: float, writable: Sequence[Socket] = ()) -> list[Pollable]:
    """Wait until one of `sockets` has something to receive or one of `writable` takes something to send.

    Waits at most `timeout_s`, rounded up to milliseconds. Returns those that are ready; none, too, after somebody
    asked to be let in, or was answered.
    """
    asked: dict[Any, tuple[Pollable, int]] = {socket.pollable: (socket, zmq.POLLIN) for socket in sockets}
    doors = {door: socket for socket in sockets if isinstance(socket, Socket | Listener) for door in socket.hears}
    for socket in writable:
        _, events = asked.get(socket.pollable, (socket, 0))
        asked[socket.pollable] = (socket, events | zmq.POLLOUT)
    waits_for = [(key, events) for key, (_, events) in asked.items()] + [(door, int(zmq.POLLIN)) for door in doors]
    ready = zmq.zmq_poll(waits_for, math.ceil(max(timeout_s, 0.0) * 1000))
    for each in {doors[key] for key, _ in ready if key in doors}:
        each.hear()
    return [asked[key][0] for key, _ in ready if key in asked]


class Waker:
    """Ends another thread's `poll`. `wake` may be called from any thread, and from a signal handler."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    @property
    def pollable(self) -> int:
        return self._read

    def wake(self) -> None:
        """Let the next `poll`, or the one that waits, return at once, until `clear` is called."""
        with suppress(BlockingIOError):  # the pipe is full of wakes that nobody has cleared yet
            os.write(self._write, b"\0")

    def clear(self) -> None:
        """Forget all wakes so far; call it before looking for what they stand for."""
        with suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

    def close(self) -> None:
        """Close; nobody may call `wake` any more. May be called twice."""
        if self._read >= 0:
            os.close(self._read)
            os.close(self._write)
            self._read = self._write = -1


# Plain integers: an enumeration's members are joined by Python code, in the inner loop of both sides.
_LAST = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


def _send(socket: "zmq.Socket[bytes]", frames: Sequence[Any], copy: bool) -> bool:
    last = len(frames) - 1
    try:
        # Only the first frame can find the queue full: ZeroMQ takes a message whole or not at all.
        for k, frame in enumerate(frames):
            socket.send(frame if copy else _pin_of(frame), _LAST if k == last else _MORE, copy=copy)
    except zmq.Again:
        return False
    return True


def _pin_of(frame: Any) -> Any:
    """Return ZeroMQ's own message where a frame is a view of one, as a whole."""
    message: Any = frame.obj if type(frame) is memoryview else None
    return message if type(message) is zmq.Frame and len(message) == frame.nbytes else frame


def _receive(socket: "zmq.Socket[bytes]") -> list[memoryview] | None:
    try:
        frame: Any = socket.recv(_LAST, copy=False)
    except zmq.Again:
        return None
    frames = [memoryview(frame).toreadonly()]
    while frame.more:
        frame = socket.recv(_LAST, copy=False)
        # An identity, a header, one buffer for each block. What comes beyond is dropped here, as it is more than enough
        # for the decoder to refuse the message.
        if len(frames) < BLOCKS + 3:
            frames.append(memoryview(frame).toreadonly())
    return frames


def _error(what: str, address: str, error: zmq.ZMQError) -> RunError:
    cure = _DESCRIPTIONS.get(error.errno or 0, str(error))
    return RunError(f"Cannot {what} {address}: {cure}.")


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


_OPTIONS = {
    zmq.LINGER: _milliseconds(LINGER_S),
    zmq.SNDHWM: MESSAGES,
    zmq.RCVHWM: MESSAGES,
    zmq.HEARTBEAT_IVL: _milliseconds(HEARTBEAT_S),
    zmq.HEARTBEAT_TIMEOUT: _milliseconds(SILENCE_S),
    zmq.RECONNECT_IVL: _milliseconds(RECONNECT_S),
    zmq.RECONNECT_IVL_MAX: _milliseconds(RECONNECT_MAX_S),
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_S,
    zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_S // 6,
    zmq.TCP_KEEPALIVE_CNT: 6,
}

_process = _Process()
os.register_at_fork(after_in_child=_process.forget)
