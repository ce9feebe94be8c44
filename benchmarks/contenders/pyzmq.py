# SPDX-License-Identifier: Apache-2.0
"""pyzmq by hand over tcp, without a copy: what somebody would write who needs just this.

No windows, no step is atomic, and nothing is bounded but the number of messages. ZeroMQ reads the producer's own array,
which a simulation could not change meanwhile.
"""

import numpy as np
import zmq

from benchmarks.consumers import Consumer
from benchmarks.workload import Array, Workload, produce, wait_for, write

COPY = False


def consume(work: Workload) -> None:
    consumer = Consumer(work)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.setsockopt(zmq.RCVHWM, _waiting(work))
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        write(work.note("port"), str(port))
        while consumer:
            identity, block = socket.recv_multipart(copy=False)
            consumer.take(identity.bytes[0] - 1, np.frombuffer(block.buffer, np.float64))
            if work.answers:
                socket.send_multipart([identity.bytes, b""])


def publish(work: Workload, rank: int) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.SNDHWM, _waiting(work))
        socket.setsockopt(zmq.ROUTING_ID, bytes([rank + 1]))  # one that begins with 0 is ZeroMQ's own to give
        socket.connect(f"tcp://127.0.0.1:{wait_for(work.note('port'))}")

        def send(_: int, block: Array) -> None:
            socket.send(block.data, 0, COPY)
            if work.answers:
                socket.recv()

        produce(work, rank, send)


def _waiting(work: Workload) -> int:
    """Messages that may wait at each end: half of what may be under way."""
    return max(1, work.waiting // 2)
