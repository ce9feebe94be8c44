# SPDX-License-Identifier: Apache-2.0
"""The one door to ZeroMQ, on real sockets."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from insitu.errors import LocalProtocolError, RunError
from insitu.wire import sockets
from insitu.wire.addresses import is_here, new_local
from insitu.wire.limits import BLOCKS
from insitu.wire.sockets import ZERO_COPY_BYTES, Listener, Socket, Waker, connect, listen, new_keys, poll
from tests.waiting import wait_until

LOCAL = "tcp://127.0.0.1:*"
#: What is on its way arrives within milliseconds; this is for a machine that does something else.
LIMIT_S = 180.0
#: How long nothing has to arrive before it is said never to.
QUIET_S = 0.3


def take(listener: Listener) -> tuple[bytes, list[memoryview]]:
    """Wait for a listener's next message."""
    deadline = time.monotonic() + LIMIT_S
    while (arrived := listener.receive()) is None:
        assert time.monotonic() < deadline, "no message came"
        poll([listener], LIMIT_S)
    return arrived


def take_from(socket: Socket) -> list[memoryview]:
    """Wait for a socket's next message."""
    deadline = time.monotonic() + LIMIT_S
    while (frames := socket.receive()) is None:
        assert time.monotonic() < deadline, "no message came"
        poll([socket], LIMIT_S)
    return frames


def listen_again(address: str) -> Listener:
    """Listen at an address that was closed just now, while other sockets are open: ZeroMQ gives it back a bit later."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            return listen(address)
        except RunError:
            assert time.monotonic() < deadline, f"{address} is still in use"


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listen(LOCAL) as listener:
        yield listener


@pytest.fixture
def socket(listener: Listener) -> Iterator[Socket]:
    with connect(listener.address) as socket:
        yield socket


class TestMessages:
    def test_frames_arrive_as_they_are_and_read_only(self, listener: Listener, socket: Socket) -> None:
        arrays = [np.arange(6.0).reshape(2, 3), np.zeros((0, 3)), np.array(2.5), np.ones(3, bool), np.ones(2, complex)]
        assert socket.send([b"header", *arrays])
        _, frames = take(listener)
        assert [bytes(frame) for frame in frames] == [b"header", *[array.tobytes() for array in arrays]]
        assert all(frame.readonly and frame.format == "B" for frame in frames)

    def test_the_listener_answers_who_spoke(self, listener: Listener) -> None:
        with connect(listener.address) as one, connect(listener.address) as other:
            assert one.send([b"one"])
            assert other.send([b"other"])
            for identity, (frame,) in (take(listener), take(listener)):
                assert listener.send(identity, [b"hello ", frame])
            assert [bytes(frame) for frame in take_from(one)] == [b"hello ", b"one"]
            assert [bytes(frame) for frame in take_from(other)] == [b"hello ", b"other"]

    def test_nothing_there_is_none(self, listener: Listener, socket: Socket) -> None:
        assert listener.receive() is None
        assert socket.receive() is None

    @pytest.mark.parametrize("nbytes", [ZERO_COPY_BYTES - 1, ZERO_COPY_BYTES, 8 << 20])
    def test_large_frames_arrive_whole(self, listener: Listener, socket: Socket, nbytes: int) -> None:
        sent = np.random.default_rng(7).integers(0, 256, nbytes, np.uint8)
        assert socket.send([b"h", sent])
        _, (_, frame) = take(listener)
        assert np.array_equal(np.frombuffer(frame, np.uint8), sent)

    def test_a_copied_frame_may_change_at_once(self) -> None:
        with listen(LOCAL) as first:
            address = first.address
        with connect(address) as socket:
            data = np.zeros(4 << 20, np.uint8)
            assert socket.send([data], copy=True)
            data[:] = 1
            with listen(address) as listener:  # so nothing can have been on its way before
                _, (frame,) = take(listener)
                assert not np.frombuffer(frame, np.uint8).any()

    def test_a_message_is_kept_for_a_listener_that_comes_later(self) -> None:
        with listen(LOCAL) as first:
            address = first.address
        with connect(address) as socket:
            assert socket.send([b"early"])
            with listen(address) as listener:
                assert bytes(take(listener)[1][0]) == b"early"

    def test_a_peer_that_connects_again_is_the_same(self) -> None:
        with listen(LOCAL) as first:
            address = first.address
            socket = connect(address)
            socket.send([b"before"])
            identity, _ = take(first)
        with socket, listen_again(address) as second:
            socket.send([b"after"])
            again, (frame,) = take(second)
            assert again == identity
            assert bytes(frame) == b"after"

    def test_a_message_of_too_many_frames_is_cut_and_the_next_is_whole(
        self, listener: Listener, socket: Socket
    ) -> None:
        assert socket.send([b"x"] * (BLOCKS + 100))
        assert socket.send([b"next", b"one"])
        assert len(take(listener)[1]) == BLOCKS + 2  # one more than the codec takes
        assert [bytes(frame) for frame in take(listener)[1]] == [b"next", b"one"]

    def test_a_frame_beyond_the_limit_ends_that_link_alone(self) -> None:
        with (
            listen(LOCAL, frame_bytes=1000) as listener,
            connect(listener.address) as good,
            connect(listener.address) as bad,
        ):
            bad.send([b"h", bytes(1001)])
            good.send([b"h", bytes(1000)])
            assert len(take(listener)[1][1]) == 1000
            assert not poll([listener], QUIET_S)


class TestFullQueues:
    def test_a_message_to_nobody_is_not_taken(self, listener: Listener) -> None:
        assert not listener.send(b"nobody", [b"hello"])

    def test_a_peer_that_left_is_nobody(self, listener: Listener) -> None:
        with connect(listener.address) as socket:
            socket.send([b"hello"])
            identity, _ = take(listener)
        deadline = time.monotonic() + LIMIT_S
        while listener.send(identity, [b"still there?"]):
            assert time.monotonic() < deadline
            poll([listener], 0.01)

    def test_a_full_queue_takes_no_message_and_does_not_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sockets._OPTIONS, sockets.zmq.SNDHWM, 5)
        with connect("tcp://127.0.0.1:1") as socket:  # nobody listens there
            taken = [socket.send([b"header", b"buffer"]) for _ in range(10)]
            assert taken == [True] * 5 + [False] * 5
            assert poll([], 0.0, writable=[socket]) == []
            socket.close(linger_s=0)

    def test_poll_tells_who_takes_messages(self, listener: Listener, socket: Socket) -> None:
        socket.send([b"hello"])
        take(listener)
        assert poll([socket], LIMIT_S, writable=[socket]) == [socket]


class TestWaker:
    def test_another_thread_ends_a_poll(self, listener: Listener) -> None:
        waker = Waker()
        thread = threading.Thread(target=waker.wake)
        thread.start()
        assert poll([listener, waker], LIMIT_S) == [waker]
        thread.join()
        waker.clear()
        assert poll([listener, waker], 0.0) == []
        waker.close()
        waker.close()

    def test_wakes_that_nobody_clears_do_no_harm(self) -> None:
        waker = Waker()
        for _ in range(100_000):
            waker.wake()
        assert poll([waker], 0.0) == [waker]
        waker.clear()
        assert poll([waker], 0.0) == []
        waker.close()


class TestAddresses:
    def test_the_chosen_port_is_in_the_address(self, listener: Listener) -> None:
        assert int(listener.address.rpartition(":")[2]) > 0

    def test_a_port_in_use_is_told_with_the_cure(self, listener: Listener) -> None:
        with pytest.raises(RunError, match=rf"Cannot listen at {listener.address}: another process has .* port \*"):
            listen(listener.address)

    @pytest.mark.parametrize(
        "address", ["127.0.0.1:5555", "tcp://127.0.0.1", "tcp://127.0.0.1:http", "http://localhost:1"]
    )
    def test_what_is_no_address_is_told(self, address: str) -> None:
        for opens in (listen, connect):
            with pytest.raises(RunError, match=r"that is no address|leaves this machine"):
                opens(address)

    @pytest.mark.parametrize("address", ["tcp://*:5555", "tcp://0.0.0.0:*"])
    def test_every_interface_is_no_address_for_peers(self, address: str) -> None:
        with pytest.raises(RunError, match="every interface"):
            listen(address, new_keys())

    def test_an_address_of_another_machine_cannot_be_listened_at(self) -> None:
        with pytest.raises(RunError, match="no interface of this machine"):
            listen("tcp://192.0.2.1:*", new_keys())  # set aside for documentation by RFC 5737

    @pytest.mark.parametrize("address", ["tcp://192.0.2.1:5555", "tcp://node17:5555", "tcp://[2001:db8::1]:5555"])
    def test_without_keys_nothing_leaves_the_machine(self, address: str) -> None:
        for opens in (listen, connect):
            with pytest.raises(RunError, match=r"leaves this machine.*CurveZMQ keys"):
                opens(address)

    def test_a_listener_is_reached_by_a_local_name_too_and_leaves_none_behind(self) -> None:
        local, keys = new_local(), new_keys()
        assert not is_here(local)
        with listen(LOCAL, keys) as listener:
            listener.also(local)
            assert is_here(local)
            for address in (listener.address, local):
                with connect(address, keys.for_clients()) as socket:
                    socket.send([b"hello"])
                    assert bytes(take(listener)[1][0]) == b"hello"
            with pytest.raises(RunError, match="another process has that port"):
                listener.also(local)
        wait_until(lambda: not is_here(local), what="the name to go")

    def test_ipc_stays_on_the_machine(self, tmp_path: Path) -> None:
        with listen(f"ipc://{tmp_path}/socket") as listener, connect(listener.address) as socket:
            socket.send([b"hello"])
            assert bytes(take(listener)[1][0]) == b"hello"


class TestKeys:
    def test_with_the_keys_messages_pass(self) -> None:
        keys = new_keys()
        with listen(LOCAL, keys) as listener, connect(listener.address, keys.for_clients()) as socket:
            socket.send([b"secret", bytes(100_000)])
            identity, frames = take(listener)
            assert bytes(frames[0]) == b"secret"
            listener.send(identity, [b"answer"])
            assert bytes(take_from(socket)[0]) == b"answer"

    @pytest.mark.parametrize("other", [None, new_keys()], ids=["without keys", "other keys"])
    def test_without_them_nothing_passes(self, other: sockets.CurveKeys | None) -> None:
        with listen(LOCAL, new_keys()) as listener, connect(listener.address, other) as socket:
            socket.send([b"let me in"])
            assert poll([listener], QUIET_S) == []
            socket.close(linger_s=0)

    def test_a_key_that_is_none_is_told(self) -> None:
        keys = new_keys().for_clients()
        with pytest.raises(RunError, match=r"Cannot listen at .*: the keys are those of a client"):
            listen(LOCAL, keys)


class TestClosing:
    def test_the_last_socket_takes_zeromqs_threads_along(self) -> None:
        before = set(os.listdir("/proc/self/task"))
        with listen(LOCAL) as listener, connect(listener.address):
            assert len(set(os.listdir("/proc/self/task")) - before) >= 2
        assert set(os.listdir("/proc/self/task")) <= before

    def test_what_was_sent_leaves_before(self, listener: Listener) -> None:
        with connect(listener.address) as socket:
            for _ in range(100):
                socket.send([b"h", bytes(100_000)])
        for _ in range(100):
            assert len(take(listener)[1][1]) == 100_000

    def test_closing_waits_no_longer_than_it_was_told(self) -> None:
        socket = connect("tcp://127.0.0.1:1")
        socket.send([b"nobody will get this"])
        begin = time.monotonic()
        socket.close(linger_s=0.1)
        socket.close()
        assert time.monotonic() - begin < sockets.LINGER_S

    def test_a_closed_socket_says_so(self, listener: Listener) -> None:
        socket = connect(listener.address)
        socket.close()
        for use in (lambda: socket.send([b"x"]), socket.receive, lambda: poll([socket], 0.0)):
            with pytest.raises(LocalProtocolError, match=f"{listener.address} was closed"):
                use()


def run(script: str) -> str:
    """Run a script in a fresh process and return what it printed."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


FORK = """
import os
from insitu.errors import LocalProtocolError
from insitu.wire.sockets import connect, listen, poll
with listen("tcp://127.0.0.1:*") as listener, connect(listener.address) as socket:
    child = os.fork()
    if child == 0:
        try:
            socket.send([b"from the child"])
        except LocalProtocolError as error:
            with connect(listener.address) as mine:
                mine.send([str(error).encode()])
            os._exit(0)
        os._exit(1)
    poll([listener], 20)
    identity, frames = listener.receive()
    socket.send([b"from the parent"])
    poll([listener], 20)
    _, more = listener.receive()
    assert os.waitpid(child, 0)[1] == 0
print(bytes(frames[0]).decode(), bytes(more[0]).decode(), sep="|")
"""


def test_a_forked_child_connects_anew_and_the_parent_goes_on() -> None:
    refused, parent = run(FORK).split("|")
    assert "belongs to the parent of this process" in refused
    assert parent == "from the parent"


PAGES = """
import resource, sys, threading
from insitu.wire.pages import keep_pages_mapped
from insitu.wire.sockets import connect, listen, poll
if sys.argv[1:] == ["keep"]:
    keep_pages_mapped()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
with listen("tcp://127.0.0.1:*") as listener, connect(listener.address) as socket:
    data = bytes(72 << 20)
    for k in range(6):
        if k == 2:
            begin = faults()
        socket.send([data])
        while (arrived := listener.receive()) is None:
            poll([listener], 20)
        del arrived
print(faults() - begin)
"""


def test_kept_pages_are_used_again() -> None:
    """Counted, not timed: without, each message of 72 MiB faults in its pages anew."""
    without = int(run(PAGES))
    kept = int(run(PAGES.replace('sys.argv[1:] == ["keep"]', "True")))
    assert kept < without / 4


def test_the_sessions_load_no_zeromq_and_the_wire_nothing_heavy() -> None:
    heavy = ("zmq", "pydantic", "dask", "insitu.operator")
    script = f"import sys, {{}}; print([name for name in {heavy} if name in sys.modules])"
    assert run(script.format("insitu.wire.session, insitu.wire.contact")) == "[]"
    assert run(script.format("insitu.wire.sockets")) == "['zmq']"


#: Both ends of a link, all of whose heartbeats are a hundred times faster; it stops itself once the link is there.
STANDS_STILL = """
import os, signal
from insitu.wire import sockets
sockets._OPTIONS |= {key: value // 100 for key, value in sockets._OPTIONS.items() if "HEARTBEAT" in key.name}
with sockets.listen("tcp://127.0.0.1:*") as listener, sockets.connect(listener.address) as socket:
    assert socket.send([b"hello"])
    while (arrived := listener.receive()) is None:
        sockets.poll([listener], 5.0)
    first, _ = arrived
    sockets.poll([listener], 0.2)  # some heartbeats
    os.kill(os.getpid(), signal.SIGSTOP)
    for _ in range(20):
        sockets.poll([listener], 0.02)
        assert listener.send(first, [b"a sign of life"]), "nobody is there"
"""


def test_a_machine_that_stood_still_has_its_links_when_it_goes_on() -> None:
    """In one of three tries: a link that is stopped with a heartbeat on its way breaks, here in one of twenty."""
    assert any(outlives_a_stop() for _ in range(3))


def outlives_a_stop() -> bool:
    with subprocess.Popen([sys.executable, "-c", STANDS_STILL], stderr=subprocess.DEVNULL) as both:
        process = psutil.Process(both.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, LIMIT_S)
        since = time.monotonic()
        wait_until(lambda: time.monotonic() - since > 1.0)  # longer than the silence that it takes for a lost peer
        both.send_signal(signal.SIGCONT)
        return both.wait(LIMIT_S) == 0
