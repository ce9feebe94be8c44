# SPDX-License-Identifier: Apache-2.0
"""A network between a rank and the controller that is slow by chance, or stands still when a test says so."""

import random
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field


@dataclass
class _Way:
    """Bytes from one end to the other, each piece with the time at which it arrives."""

    to: socket.socket
    down: bool
    pieces: deque[tuple[float, bytes]] = field(default_factory=deque)


class Proxy:
    """Passes on what goes to and from `port`, in order, each piece late by up to `delay_s`."""

    def __init__(self, port: int, delay_s: float = 0.0, seed: int = 0) -> None:
        #: While it is set, nothing reaches the rank; what was sent arrives later.
        self.held = threading.Event()
        self._delay_s = delay_s
        self._random = random.Random(seed)
        self._target = port
        self._closing = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._door = socket.create_server(("127.0.0.1", 0))
        self._selector.register(self._door, selectors.EVENT_READ)
        self.port = self._door.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._thread.start()

    def _run(self) -> None:
        ways: dict[socket.socket, _Way] = {}
        while not self._closing.is_set():
            for key, _ in self._selector.select(0.001):
                if key.fileobj is self._door:
                    self._join(ways)
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._take(key.fileobj, ways)
            for source, way in list(ways.items()):
                self._pass_on(source, way, ways)
        for source in ways:
            source.close()
        self._door.close()
        self._selector.close()

    def _join(self, ways: dict[socket.socket, _Way]) -> None:
        rank, _ = self._door.accept()
        try:
            controller = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            rank.close()  # the controller is gone
            return
        for one, other, down in ((rank, controller, False), (controller, rank, True)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ways[one] = _Way(other, down)
            self._selector.register(one, selectors.EVENT_READ)

    def _take(self, source: socket.socket, ways: dict[socket.socket, _Way]) -> None:
        try:
            data = source.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(source)
        arrives = time.monotonic() + self._random.random() * self._delay_s
        ways[source].pieces.append((arrives, data))

    def _pass_on(self, source: socket.socket, way: _Way, ways: dict[socket.socket, _Way]) -> None:
        while way.pieces and way.pieces[0][0] <= time.monotonic() and not (way.down and self.held.is_set()):
            _, data = way.pieces.popleft()
            try:
                if data:
                    way.to.sendall(data)
                else:
                    way.to.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # the other end is gone

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
