# SPDX-License-Identifier: Apache-2.0
"""A run among others who would take part, listen in, or break it: they are refused, and results stay right."""

import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, cycle

import numpy as np
import psutil

from insitu.wire.contact import Contact
from insitu.wire.keys import CurveKeys
from insitu.wire.messages import VERSION, Attach, Hello, NodeHello
from insitu.wire.sockets import Socket, connect, new_keys
from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import LIMIT_S, SLACK_S, Left, Running, on_small_disk, outside, program, told, total
from tests.waiting import wait_until
from tests.wire.hostile import INSANE, MALFORMED, frames_of

CURVE = {"security": "curve"}
#: So long a run that it has to be interrupted.
ENDLESS = program("steady", "--steps", 1_000_000, "--pause", 0.02)


def expected(steps: int, cells: int = 16) -> np.ndarray:
    """The sum over all steps of what ``programs/steady.py`` publishes."""
    return steps * np.arange(cells) + sum(range(steps))


def contact_of(running: Running) -> Contact:
    running.until("begun-0")
    running.until("begun-1")
    return Contact.read(running.directory / "contact.json")


def listening(running: Running) -> list[str]:
    """Where the controller and the staging nodes of a run listen: ZeroMQ greets first, with a byte of its own."""
    processes = [psutil.Process(running.process.pid), *running.descendants()]
    found = chain.from_iterable(process.net_connections("tcp") for process in processes)
    return [
        f"tcp://{each.laddr.ip}:{each.laddr.port}"
        for each in found
        if each.status == psutil.CONN_LISTEN and greets(each.laddr) == b"\xff"
    ]


def greets(place: tuple[str, int]) -> bytes:
    """Return the first byte that somebody says unasked; nothing from who waits to be spoken to, as Dask does."""
    with suppress(OSError), socket.create_connection(place, timeout=0.5) as raw:
        return raw.recv(1)
    return b""


@contextmanager
def foreign(addresses: list[str], keys: CurveKeys | None) -> Iterator[list[Socket]]:
    sockets = [connect(address, keys) for address in addresses]
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close(linger_s=0)


def end(running: Running) -> Left:
    """Stop a run whose ranks are all well, and see that nothing is missing in its results."""
    running.interrupt()
    left = running.wait()
    assert left.report["reasons"] == []
    assert left.report["status"] == "interrupted"
    assert left.report["ranks"]["number"] == 2
    steps = [each["steps"] for each in told(running.folder, 2)]
    assert steps[0] == steps[1] > 0
    np.testing.assert_array_equal(left.results("sum")["total"][0], expected(steps[0]))
    return left


def test_beyond_loopback_it_is_encrypted_without_a_word_and_has_the_same_results(start: Start) -> None:
    """Where the machine has no interface but loopback, it is because it is asked for."""
    name, address = next(iter(outside().items()), ("lo", "127.0.0.1"))
    running = start(
        *ENDLESS,
        ranks=2,
        nodes=2,
        staging={"transport": "tcp"},
        network={"interface": name} if outside() else CURVE,
        operators={"sum": total(), "large": total(window=10)},
    )
    contact = contact_of(running)
    assert contact.address.startswith(f"tcp://{address}:")
    assert contact.keys is not None
    wait_until(lambda: running.windows("large") > 0, LIMIT_S, "a window")
    left = end(running)
    assert left.report["network"] == {"encrypted": True, "refused_clients": 0}
    assert left.events("client-refused") == []


def test_only_its_owner_has_the_keys_and_whoever_has_others_is_refused_and_counted(start: Start) -> None:
    running = start(*ENDLESS, ranks=2, network=CURVE)
    contact_of(running)
    path, log = running.directory / "contact.json", running.directory / "log.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    reasons = {"it has not this run's keys": new_keys(), "it showed no key": None}
    for reason, keys in reasons.items():
        with foreign(listening(running), keys) as sockets:
            for each in sockets:
                each.send([b"let me in"])
            # Both the controller and the staging node refuse, and each line says it twice.
            wait_until(lambda reason=reason: log.read_text().count(reason) >= 4, 60.0, "both refusals")
    left = end(running)
    assert not path.exists()
    for reason in reasons:
        sources = {event["source"] for event in left.events("client-refused") if reason in event["text"]}
        assert sources == {"controller", "staging node 0"}
    assert left.report["network"]["refused_clients"] >= 4


def test_an_interface_that_is_none_is_told_with_those_that_are(start: Start) -> None:
    left = start("true", network={"interface": "eth77"}).wait()
    assert left.status == 2
    assert "network.interface: this machine has no interface and no IPv4 address eth77; it has lo (127.0" in left.stderr
    assert "test0.yaml:" in left.stderr


def nonsense() -> list[list[bytes]]:
    """All that is hostile."""
    insane = [frames_of(message) for messages in INSANE.values() for message in messages.values()]
    return [frames for frames in (*MALFORMED.values(), *insane) if frames]


def claims(run: str) -> Iterator[tuple[list[bytes], int]]:
    """Who claims to be somebody else, and how many of the controller and two staging nodes refuse that.

    A rank may attach to a node that it does not feed, and is given nothing there.
    """
    yield frames_of(Hello(VERSION, run, 0, 1, 2, "n17", 4711)), 3
    yield frames_of(NodeHello(VERSION, run, 0, "tcp://127.0.0.1:9", "n17", 4711)), 3
    yield frames_of(Attach(VERSION, run, 0, 0, "n17", 4711)), 2


def test_nonsense_from_a_socket_harms_nobody(start: Start) -> None:
    """Every piece over a connection of its own, at one place or another, while the ranks go on; each is refused."""
    running = start(*ENDLESS, ranks=2, nodes=2)
    contact = contact_of(running)
    places = listening(running)
    assert len(places) == 3

    def refusals() -> int:
        return len(running.events("protocol")) + len(running.events("rank-refused"))

    for frames, place in zip(nonsense(), cycle(places), strict=False):
        before = refusals()
        with foreign([place], None) as [bad]:
            assert bad.send(frames)
            wait_until(lambda before=before: refusals() > before, 60.0, f"the refusal of {str(frames)[:200]}")
    for frames, refused in claims(contact.run):
        before = refusals()
        with foreign(places, None) as sockets:
            assert all(bad.send(frames) for bad in sockets)
            wait_until(lambda before=before, to=refused: refusals() == before + to, 60.0, "the refusal of a claim")
    for place in places:  # and what is not even ZeroMQ
        host, port = place.removeprefix("tcp://").split(":")
        with suppress(ConnectionError), socket.create_connection((host, int(port))) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 64)
            while raw.recv(1 << 16):
                """Until the other end closes."""
    left = end(running)
    assert max(rank["longest_s"] for rank in told(running.folder, 2)) < SLACK_S
    assert any("on n17 is not expected" in event["text"] for event in left.events("protocol"))
    assert any("rank 1 is there already" in event["text"] for event in left.events("rank-refused"))
    assert {event["source"] for event in left.events("protocol")} == {"unknown", "staging node 0", "staging node 1"}


#: Room for a segment of a megabyte, and the message of the one that has none.
FULL, WHY = on_small_disk("/dev/shm", 1)
STEADY = [*FULL, *program("steady", "--steps", 20)[1:]]


def test_without_room_for_shared_memory_it_goes_on_and_says_so(start: Start) -> None:
    left = start(*STEADY, ranks=2).wait()
    assert left.status == 0, left.stderr
    np.testing.assert_array_equal(left.results("sum")["total"][0], expected(20))
    lines = [line for line in (left.stdout + left.stderr).splitlines() if "shared memory" in line]
    assert len(lines) == 2  # one of each rank
    assert all(f"/dev/shm ({WHY})" in line for line in lines)
    assert all("Going on over local sockets, or over tcp" in line for line in lines)
    ranks = told(left.directory.parents[1], 2)
    assert max(rank["join_s"] + rank["longest_s"] for rank in ranks) < SLACK_S


def test_where_shared_memory_is_required_and_there_is_none_it_fails_and_says_why(start: Start) -> None:
    left = start(*STEADY, staging={"transport": "shm"}, impatient=True).wait()
    assert left.status == 1
    assert "No shared memory of 268435456 bytes can be had" in left.stdout + left.stderr
    assert "free some, lower variables.'*'.buffer, or take transport: tcp" in left.stdout + left.stderr
