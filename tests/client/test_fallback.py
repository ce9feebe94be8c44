# SPDX-License-Identifier: Apache-2.0
"""A rank that has no shared memory goes on by the next best way, and says in one line which that is."""

import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from insitu.client import Client
from insitu.wire.addresses import new_local
from insitu.wire.messages import Event, Message, Share
from insitu.wire.sockets import listen

TCP = "tcp://127.0.0.1:9"


@pytest.fixture
def said() -> list[Message]:
    return []


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, said: list[Message]) -> Client:
    """Rank 3 of a run, as far as it looks for its staging nodes."""
    monkeypatch.delenv("INSITU_CONTACT", raising=False)
    client = Client()
    client.rank = 3
    client._controller = SimpleNamespace(say=said.append)  # type: ignore[assignment]
    return client


@pytest.fixture
def local() -> Iterator[str]:
    """A local socket that somebody listens at."""
    with listen("tcp://127.0.0.1:*") as listener:
        address = new_local()
        if not address:
            pytest.skip("this system has no local sockets with a name in the kernel")
        listener.also(address)
        yield address


@pytest.mark.parametrize("transport", ["auto", "ipc"])
def test_without_shared_memory_it_takes_a_local_socket(
    client: Client, said: list[Message], local: str, transport: str
) -> None:
    share = Share(0, TCP, 0, 1, 1, local)
    assert client._address_of(share, transport, None) == local
    assert client._address_of(share, "tcp", None) == TCP
    assert said == []


def test_without_a_local_socket_it_takes_tcp_and_says_so_once(
    client: Client, said: list[Message], caplog: pytest.LogCaptureFixture
) -> None:
    share = Share(7, TCP, 0, 1, 1, "ipc://@insitu-nobody-listens-here")
    with caplog.at_level(logging.WARNING):
        assert client._address_of(share, "ipc", None) == TCP
    [event] = said
    assert isinstance(event, Event)
    assert (event.kind, event.details) == ("no-ipc", {"rank": 3, "node": 7})
    [line] = [record.getMessage() for record in caplog.records]
    assert line == event.text == "rank 3 reaches staging node 7 by no local socket: going on over tcp"
    assert client._address_of(share, "auto", None) == TCP  # that there is no shared memory was said already
    assert len(said) == 1
