# SPDX-License-Identifier: Apache-2.0
"""Which codec a rank uses towards one staging node, and what it says about that.

Only what goes through a socket is encoded, at the moment when it is sent: what waits is as the staging node will hold
it, so that buffers, credits and budgets count the same bytes with a codec and without. Memory that is lent is read
where it lies, and a codec would only add a copy.

``auto`` tries lz4 and zstd on the first large parts of each variable while these are sent plain, measures how long they
are under way, and then keeps to what takes the least time from end to end.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from insitu.model import Array
from insitu.wire.blocks import BlockSpec
from insitu.wire.compression import LEAST_BYTES, expand, missing, shrink
from insitu.wire.messages import Buffer, Event, Form, Layout, Message, Need, Publish, PublishEncoded
from insitu.wire.session import count_of, nbytes_of

#: What ``auto`` learns from: smaller parts tell more about delays than about speeds.
SAMPLE_BYTES = 64 * 1024
#: How many steps it looks at, and how long it waits for each to be received: a link that needs longer is a slow one.
SAMPLES, WAIT_S = 2, 0.25


def choose(nbytes: int, link: float, tried: Mapping[str, tuple[int, float]]) -> str:
    """Return the codec that brings `nbytes` over a link of so many bytes per second first; empty for none.

    `tried` tells of each codec the encoded size, and the seconds to encode and decode.

    >>> choose(1000, 100.0, {"lz4": (500, 1.0), "zstd": (400, 3.0)}), choose(1000, 1000.0, {"lz4": (500, 1.0)})
    ('lz4', '')
    """
    times = {"": nbytes / link} | {codec: seconds + size / link for codec, (size, seconds) in tried.items()}
    return min(times, key=lambda codec: times[codec])


class Encoder:
    """The codecs of one rank's variables towards staging node `node`. `say` tells the controller."""

    def __init__(self, node: int, needs: Iterable[Need], say: Callable[[Message], None]) -> None:
        self.lossless: Counter[str] = Counter()
        self._node = node
        self._say = say
        self._needs = {need.name: need for need in needs if need.codec != "none"}
        self._codecs = {name: need.codec for name, need in self._needs.items() if need.codec != "auto"}
        self._samples = {name: SAMPLES for name, need in self._needs.items() if need.codec == "auto"}
        self._link = 0.0
        self._looked = False

    def _look(self) -> None:
        """Do without codecs that are not installed here: the run was checked where it was started."""
        self._looked = True
        for need in self._needs.values():
            module = missing(need.codec)
            if module is None:
                continue
            self._codecs.pop(need.name, None)
            self._samples.pop(need.name, None)
            text = (
                f"Variable '{need.name}' is sent plain: codec {need.codec} needs {module}; pip install insitu[codecs]."
            )
            self._say(Event("warning", "codec-missing", text, {"variable": need.name, "module": module}))

    def encode(self, message: Publish, layout: Layout) -> Publish | PublishEncoded:
        """Return the message as it is to be sent."""
        if not self._looked:
            self._look()
        if not any(block.variable.name in self._codecs for block in layout.blocks):
            return message
        parts = [self._part(spec, part) for spec, part in zip(layout.blocks, message.buffers, strict=True)]
        forms, buffers = tuple(form for form, _ in parts), tuple(buffer for _, buffer in parts)
        if not any(form.codec for form in forms):
            return message
        return PublishEncoded(message.sequence, message.index, message.time, message.layout, forms, buffers)

    def _part(self, spec: BlockSpec, buffer: Buffer) -> tuple[Form, Buffer]:
        name = spec.variable.name
        codec = self._codecs.get(name)
        shrunk = None
        if codec and nbytes_of(buffer) >= LEAST_BYTES:
            shrunk = shrink(codec, self._needs[name].tolerance, _array(spec, buffer))
        if shrunk is None:
            return Form("", nbytes_of(buffer), 0.0), buffer
        if codec == "zfp" != shrunk[0].codec:
            self._say_lossless(name)
        return shrunk

    def _say_lossless(self, name: str) -> None:
        self.lossless[name] += 1
        if self.lossless[name] == 1:
            tolerance = self._needs[name].tolerance
            text = (
                f"Variable '{name}' has parts that zfp cannot keep within {tolerance:g}: NaN, infinity, no float of 4 "
                "or 8 bytes, or values too large for it. They are encoded without loss, by zstd."
            )
            self._say(Event("warning", "codec-lossless", text, {"variable": name, "tolerance": tolerance}))

    def samples(self, message: Publish, layout: Layout) -> list[tuple[str, Array]]:
        """Return the parts of a message that ``auto`` should learn from."""
        pairs = zip(layout.blocks, message.buffers, strict=True) if self._samples else ()
        return [
            (spec.variable.name, _array(spec, buffer))
            for spec, buffer in pairs
            if spec.variable.name in self._samples and nbytes_of(buffer) >= SAMPLE_BYTES
        ]

    def learn(self, samples: Iterable[tuple[str, Array]], link: float) -> None:
        """Take in how fast the link was, in bytes per second; after some samples, decide."""
        self._link = max(self._link, link)
        for name, part in samples:
            self._samples[name] -= 1
            if self._samples[name] == 0:
                del self._samples[name]
                self._decide(name, part)

    def _decide(self, name: str, part: Array) -> None:
        tried = {codec: trial for codec in ("lz4", "zstd") if (trial := _try(codec, part)) is not None}
        codec = choose(part.nbytes, self._link, tried)
        if codec:
            self._codecs[name] = codec
        speeds = {
            name: {"ratio": round(part.nbytes / size, 2), "bytes_per_s": round(part.nbytes / seconds)}
            for name, (size, seconds) in tried.items()
        }
        text = f"Variable '{name}' goes to staging node {self._node} by codec {codec or 'none'}."
        details = {"variable": name, "codec": codec or "none", "link_bytes_per_s": round(self._link), "tried": speeds}
        self._say(Event("info", "codec-chosen", text, details))


def _try(codec: str, part: Array) -> tuple[int, float] | None:
    """Return the encoded size, and the seconds to encode and decode: of the second time, when all is loaded."""
    trial = None
    for _ in range(2):
        begin = time.perf_counter()
        shrunk = shrink(codec, 0.0, part)
        if shrunk is not None:
            expand(*shrunk, part.dtype, part.shape)
            trial = len(shrunk[1]), time.perf_counter() - begin
    return trial


def _array(spec: BlockSpec, buffer: Buffer) -> Array:
    return np.frombuffer(buffer, spec.variable.dtype).reshape(count_of(spec, nbytes_of(buffer)))
