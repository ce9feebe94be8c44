# SPDX-License-Identifier: Apache-2.0
"""Which codec a rank takes, and that it says so."""

from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest

from insitu.client import encoding, link
from insitu.client.encoding import SAMPLES, Encoder
from insitu.client.link import NodeLink
from insitu.model import Array, Variable
from insitu.wire.messages import (
    VERSION,
    Ack,
    Attach,
    BlockSpec,
    Credit,
    Event,
    Layout,
    Message,
    Need,
    Publish,
    PublishEncoded,
)
from insitu.wire.session import Link
from insitu.wire.sockets import connect
from tests.waiting import wait_until
from tests.wire.fakes import FakeListener

PART = np.arange(65536.0)
FIELD = Variable("u", PART.dtype, PART.shape, ("x",))
LAYOUT = Layout(0, (BlockSpec(FIELD, (0,), PART.shape), BlockSpec(FIELD.renamed("v"), (0,), PART.shape)))


def message(u: Array = PART) -> Publish:
    return Publish(0, 0, 0.0, 0, (u, PART))


def an_encoder(codec: str, said: list[Message], tolerance: float = 0.0) -> Encoder:
    needs = [Need("u", (), "", codec, tolerance), Need("v", (), "", "none", 0.0)]
    return Encoder(2, needs, said.append)


def test_only_what_has_a_codec_is_encoded() -> None:
    encoded = an_encoder("zstd", []).encode(message(), LAYOUT)
    assert isinstance(encoded, PublishEncoded)
    assert [form.codec for form in encoded.forms] == ["zstd", ""]
    assert encoded.buffers[1] is PART


def test_a_message_of_which_nothing_becomes_smaller_stays_as_it_is() -> None:
    noise = np.frombuffer(np.random.default_rng(0).bytes(PART.nbytes))
    plain = message(noise)
    assert an_encoder("lz4", []).encode(plain, LAYOUT) is plain


@pytest.mark.parametrize(("link", "codecs"), [(1e3, {"lz4", "zstd"}), (1e15, {"none"})])
def test_auto_decides_by_the_speed_of_the_link(link: float, codecs: set[str]) -> None:
    said: list[Message] = []
    encoder = an_encoder("auto", said)
    for _ in range(SAMPLES):
        assert isinstance(encoder.encode(message(), LAYOUT), Publish)
        encoder.learn(encoder.samples(message(), LAYOUT), link)
    assert encoder.samples(message(), LAYOUT) == []
    assert isinstance(encoder.encode(message(), LAYOUT), PublishEncoded) is (codecs != {"none"})
    [event] = said
    assert isinstance(event, Event)
    assert event.kind == "codec-chosen"
    assert event.details["codec"] in codecs


def test_parts_without_a_bound_are_counted_and_told_of_once() -> None:
    said: list[Message] = []
    encoder = an_encoder("zfp", said, 1e-3)
    wrong = PART.copy()
    wrong[7] = np.nan
    for _ in range(2):
        encoded = encoder.encode(message(wrong), LAYOUT)
        assert isinstance(encoded, PublishEncoded)
        assert encoded.forms[0].codec == "zstd"
    assert encoder.lossless == {"u": 2}
    assert [event.kind for event in said if isinstance(event, Event)] == ["codec-lossless"]


def test_a_rank_without_the_library_sends_plain_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "missing", lambda codec: None if codec == "none" else "blosc2")
    said: list[Message] = []
    plain = message()
    assert an_encoder("lz4", said).encode(plain, LAYOUT) is plain
    [event] = said
    assert isinstance(event, Event)
    assert event.kind == "codec-missing"


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], list[str]]]:
    """Send steps of `u` by zstd and `v` by auto; return what became of `v`. The node acknowledges each, or none."""
    monkeypatch.setattr(link, "WAIT_S", 0.01)
    needs = [Need("u", (), "", "zstd", 0.0), Need("v", (), "", "auto", 0.0)]
    said: list[Message] = []
    with closing(FakeListener(Link.RANK_NODE)) as node, connect(node.listener.address) as socket:
        attach = Attach(VERSION, "melt", 0, 0, "n17", 1)
        rank = NodeLink(socket, 2, attach, None, Encoder(2, needs, said.append), lambda sequence: None)

        def steps(acknowledged: bool) -> list[str]:
            node.hear(Attach)
            node.say(Credit(1 << 30))
            wait_until(lambda: rank.listen() or rank.met, what="the credit")
            rank.layout(LAYOUT)
            for n in range(SAMPLES + 1):
                rank.publish(Publish(n, n, 0.0, 0, (PART, PART)), 2 * PART.nbytes)
                rank.send()
                if acknowledged:
                    node.say(Ack(n, n, rank.sent_bytes, rank.sent_bytes))
                    wait_until(lambda: rank.listen() or rank.idle, what="the acknowledgement")
            node.hear(Layout)
            wait_until(lambda: len(node.all(Publish) + node.all(PublishEncoded)) > SAMPLES, what="the steps")
            assert [event.kind for event in said if isinstance(event, Event)] == ["codec-chosen"]
            return [type(each).__name__ for each in node.heard if isinstance(each, Publish | PublishEncoded)]

        yield steps


def test_auto_decides_beside_a_variable_that_has_its_codec(send: Callable[[bool], list[str]]) -> None:
    """What it learns from goes plain, all of it, so that the other's codec is not measured with the link."""
    assert send(True) == [*["Publish"] * SAMPLES, "PublishEncoded"]


def test_auto_decides_on_a_link_that_never_falls_idle(send: Callable[[bool], list[str]]) -> None:
    assert send(False) == ["Publish", *["PublishEncoded"] * SAMPLES]
