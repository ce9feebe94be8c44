# SPDX-License-Identifier: Apache-2.0
"""Who gets in at a listener with keys, on real sockets: those who have them, whatever the others try."""

import os
import socket as plain
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from insitu.wire import guard
from insitu.wire.keys import CurveKeys
from insitu.wire.sockets import Listener, connect, listen, new_keys, poll
from tests.waiting import wait_until

LOCAL = "tcp://127.0.0.1:*"
LIMIT_S = 180.0
KEYS, OTHERS = new_keys(), new_keys()

NO_KEY = "it showed no key"
FOREIGN = "its key is not one of this run"
BROKEN = "it has not this run's keys, or repeats what another client sent"

#: What a client has, and why it is refused.
CLIENTS: dict[str, tuple[CurveKeys | None, str]] = {
    "no keys": (None, NO_KEY),
    "the keys of another run": (OTHERS, BROKEN),
    "the server's public key, and a pair of its own": (replace(OTHERS, server_public=KEYS.server_public), FOREIGN),
    "the public keys, and no secret of theirs": (
        replace(KEYS, client_secret=OTHERS.client_secret),
        BROKEN,
    ),
}


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listen(LOCAL, KEYS) as listener:
        yield listener


def receive(listener: Listener, until: str = "") -> list[bytes]:
    """Receive until there is a message, or until somebody was refused for a reason; return the messages so far."""
    found: list[bytes] = []

    def done() -> bool:
        poll([listener], 0.05)
        while (arrived := listener.receive()) is not None:
            found.extend(bytes(frame) for frame in arrived[1])
        return bool(listener.refused[until] if until else found)

    wait_until(done, LIMIT_S, until or "a message")
    return found


@pytest.mark.parametrize("who", CLIENTS)
def test_whoever_has_not_the_keys_is_refused_and_counted_and_who_has_them_goes_on(listener: Listener, who: str) -> None:
    keys, reason = CLIENTS[who]
    with connect(listener.address, KEYS.for_clients()) as good:
        good.send([b"before"])
        assert receive(listener) == [b"before"]
        with ExitStack() as stack:
            bad = connect(listener.address, keys)
            stack.callback(bad.close, linger_s=0)
            assert bad.send([b"let me in"])
            assert receive(listener, reason) == []
        good.send([b"after"])
        assert receive(listener) == [b"after"]
    assert set(listener.refused) == {reason}


def test_nobody_is_counted_where_nobody_is_refused(listener: Listener) -> None:
    for _ in range(3):
        with connect(listener.address, KEYS.for_clients()) as good:
            good.send([b"hello"])
            assert receive(listener) == [b"hello"]
    assert listener.refused.total() == 0


def test_two_runs_in_one_process_let_in_their_own(listener: Listener) -> None:
    with listen(LOCAL, OTHERS) as other, connect(other.address, OTHERS) as theirs:
        with connect(listener.address, KEYS) as ours:
            ours.send([b"ours"])
            theirs.send([b"theirs"])
            assert receive(listener) == [b"ours"]
            assert receive(other) == [b"theirs"]
        assert (listener.refused.total(), other.refused.total()) == (0, 0)


def test_its_threads_and_sockets_go_with_the_listener() -> None:
    before = set(os.listdir("/proc/self/task"))
    with listen(LOCAL, KEYS) as first, listen(LOCAL, KEYS):
        first.close()
        first.close()
    assert set(os.listdir("/proc/self/task")) <= before


@pytest.mark.parametrize(
    "request_", [[], [b"1.0"], [b"1.0", b"1", b"", b"", b"", b"NULL"], [b"2.0", *[b""] * 4, b"CURVE", bytes(32)]]
)
def test_what_is_no_question_about_a_key_gets_a_no(request_: list[bytes]) -> None:
    assert guard.answer(request_, bytes(32))[2] == b"400"


def pipe(source: plain.socket, target: plain.socket, kept: bytearray) -> None:
    """Pass on all bytes until either side ends, and keep them."""
    try:
        while data := source.recv(1 << 16):
            kept += data
            target.sendall(data)
    except OSError:
        return  # the other direction has ended, and closed both


@contextmanager
def overheard(address: str) -> Iterator[tuple[str, bytearray]]:
    """A proxy for one connection to `address`: yield where it listens, and what the client sent so far."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    kept, threads = bytearray(), []
    with ExitStack() as stack:
        door = stack.enter_context(plain.create_server(("127.0.0.1", 0)))
        server = stack.enter_context(plain.create_connection((host, int(port))))

        def serve() -> None:
            client, _ = door.accept()
            stack.enter_context(client)
            threads.append(threading.Thread(target=pipe, args=(server, client, bytearray())))
            threads[-1].start()
            pipe(client, server, kept)
            server.shutdown(plain.SHUT_RDWR)
            client.close()

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        yield f"tcp://127.0.0.1:{door.getsockname()[1]}", kept
        for thread in threads:
            thread.join(LIMIT_S)


def test_a_connection_that_was_overheard_cannot_be_repeated(listener: Listener) -> None:
    """Not even byte for byte, to the same listener, waiting for its answers: this connection's keys are others."""
    with overheard(listener.address) as (address, kept):
        with connect(address, KEYS.for_clients()) as good:
            good.send([b"secret order"])
            assert receive(listener) == [b"secret order"]
        recorded = bytes(kept)
    greeting, _, rest = recorded.partition(b"\x08INITIATE")
    assert b"\x05HELLO" in greeting
    assert b"\x07MESSAGE" in rest
    assert b"secret" not in recorded
    host, _, port = listener.address.removeprefix("tcp://").rpartition(":")
    with plain.create_connection((host, int(port)), timeout=LIMIT_S) as again:
        again.sendall(greeting)
        answer = b""
        while b"\x07WELCOME" not in answer:
            answer += again.recv(4096)
        again.sendall(recorded[len(greeting) :])
        assert receive(listener, BROKEN) == []
    assert listener.refused == {BROKEN: 1}
