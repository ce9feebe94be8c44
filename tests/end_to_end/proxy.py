# SPDX-License-Identifier: Apache-2.0
"""A cable between two ends of a link, which a test can let hang."""

import math
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import Self

from insitu.wire.sockets import Waker

CHUNK = 1 << 16


class Proxy:
    """Forwards every connection to `port` towards the address that `reach` has been told, while it is not `held`.

    Held, it takes in no byte more: to both ends that looks like a network that swallows all packets. It lets through
    `rate` bytes per second.
    """

    def __init__(self, rate: float = math.inf) -> None:
        self.held = False
        self._rate = rate
        self._free_at = 0.0
        self._target = ("127.0.0.1", 0)
        self._closing = self._cutting = False
        self._waker = Waker()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._others: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self) -> None:
        """End all connections, with what is under way; new ones are forwarded."""
        self._cutting = True
        self._waker.wake()

    def reach(self, address: str) -> None:
        host, port = address.removeprefix("tcp://").split(":")
        self._target = (host, int(port))

    def _run(self) -> None:
        while not self._closing:
            if self._cutting:
                self._cutting = False
                self._waker.clear()
                for each in self._others:
                    each.close()
                self._others.clear()
            with selectors.DefaultSelector() as selector:
                busy_s = max(0.0, self._free_at - time.monotonic())
                for each in (self._listener, *([] if self.held or busy_s else self._others)):
                    selector.register(each, selectors.EVENT_READ)
                selector.register(self._waker.pollable, selectors.EVENT_READ)
                for key, _ in selector.select(min(busy_s or 0.05, 0.05)):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._others:
                        self._forward(key.fileobj)

    def _accept(self) -> None:
        here, _ = self._listener.accept()
        if not self._target[1]:
            here.close()  # ZeroMQ tries again
            return
        there = socket.create_connection(self._target)
        self._others |= {here: there, there: here}

    def _forward(self, one: socket.socket) -> None:
        try:
            data = one.recv(CHUNK)
            self._free_at = time.monotonic() + len(data) / self._rate
            self._others[one].sendall(data)
        except OSError:
            data = b""
        if not data:
            for end in (one, self._others.pop(one)):
                self._others.pop(end, None)
                end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._waker.wake()
        self._thread.join()
        self._waker.close()
        for each in (self._listener, *self._others):
            each.close()
