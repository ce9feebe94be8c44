# SPDX-License-Identifier: Apache-2.0
"""Buffers that are sent again and again without a copy."""

import numpy as np
import pytest

from insitu.wire.sockets import Listener, connect, listen, pinned, poll


@pytest.fixture
def listener():
    with listen("tcp://127.0.0.1:*") as listener:
        yield listener


def take(listener: Listener) -> list[memoryview]:
    assert poll([listener], 10.0)
    arrived = listener.receive()
    assert arrived is not None
    return arrived[1]


@pytest.mark.parametrize("nbytes", [0, 1, 64 << 10, 1 << 20])
def test_a_pinned_buffer_brings_what_it_holds_when_it_is_sent(listener: Listener, nbytes: int) -> None:
    memory = np.zeros(nbytes, np.uint8)
    part = pinned(memory)
    with connect(listener.address) as socket:
        for value in range(3):
            memory[:] = value
            assert socket.send([b"header", part])
            header, body = take(listener)
            assert (bytes(header), body.nbytes) == (b"header", nbytes)
            assert np.all(np.frombuffer(body, np.uint8) == value)


def test_a_part_of_a_pinned_buffer_is_sent_as_that_part(listener: Listener) -> None:
    part = pinned(np.arange(100, dtype=np.uint8))
    with connect(listener.address) as socket:
        assert socket.send([part[10:20]])
        assert bytes(take(listener)[0]) == bytes(range(10, 20))


def test_a_copy_asked_for_is_made(listener: Listener) -> None:
    memory = np.zeros(1 << 20, np.uint8)
    with connect(listener.address) as socket:
        assert socket.send([pinned(memory)], copy=True)
        memory[:] = 1
        assert not np.any(np.frombuffer(take(listener)[0], np.uint8))
