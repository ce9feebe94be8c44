# SPDX-License-Identifier: Apache-2.0
"""What comes out of a codec is what went in, within the tolerance; and what a peer makes up is its own fault."""

import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from insitu.errors import RemoteProtocolError
from insitu.model import Array, Variable
from insitu.wire import messages as m
from insitu.wire.compression import LEAST_BYTES, expand, missing, shrink
from insitu.wire.records import DTYPES
from insitu.wire.session import Link, Session, Side
from tests.wire.examples import MESSAGES
from tests.wire.hostile import WRONG_PARTS, frames_of

SHAPES = [(4096,), (1, 4096), (33, 65), (7, 1, 20, 31), (9, 10, 11, 12), (2, 3, 4, 5, 40), (4096, 1, 1, 1, 1)]


def smooth(shape: tuple[int, ...]) -> Array:
    return np.sin(np.arange(np.prod(shape)) / 50).reshape(shape)


def there_and_back(codec: str, part: Array, tolerance: float = 0.0) -> tuple[m.Form, Array]:
    shrunk = shrink(codec, tolerance, part)
    assert shrunk is not None
    form, data = shrunk
    assert (form.nbytes, len(data) < part.nbytes) == (part.nbytes, True)
    back = np.frombuffer(expand(form, data, part.dtype, part.shape), part.dtype).reshape(part.shape)
    return form, back


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_lossless_codecs_lose_nothing(codec: str, dtype: str) -> None:
    part = (100 * smooth((33, 65))).astype(dtype)
    form, back = there_and_back(codec, part)
    assert form.codec == codec
    np.testing.assert_array_equal(back, part)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zfp_keeps_the_tolerance(shape: tuple[int, ...], dtype: str) -> None:
    part = smooth(shape).astype(dtype)
    form, back = there_and_back("zfp", part, 1e-3)
    assert form.codec == "zfp"
    assert np.abs(back.astype("f8") - part).max() <= 1e-3


@example("f4", (4096,), 4, 0, 788)  # zfp alone is off by 1.2 times the tolerance
@settings(max_examples=80)
@given(
    st.sampled_from(["f4", "f8"]),
    st.sampled_from(SHAPES),
    st.integers(-12, 12),
    st.integers(-14, 2),
    st.integers(0, 2**32 - 1),
)
def test_zfp_keeps_any_tolerance_or_leaves_the_part_to_zstd(
    dtype: str, shape: tuple[int, ...], exponent: int, digits: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    part = (rng.normal(size=shape) * 10.0**exponent * rng.choice([1.0, 1e-6], size=shape)).astype(dtype)
    tolerance = 10.0 ** (exponent + digits)
    shrunk = shrink("zfp", tolerance, part)
    if shrunk is None:
        return
    form, data = shrunk
    back = np.frombuffer(expand(form, data, part.dtype, part.shape), part.dtype).reshape(shape)
    error = np.abs(back.astype(np.longdouble) - part).max()
    assert error <= (tolerance if form.codec == "zfp" else 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_what_zfp_cannot_keep_is_encoded_without_loss(value: float) -> None:
    part = smooth((64, 64))
    part[3, 5] = value
    form, back = there_and_back("zfp", part, 1e-3)
    assert form.codec == "zstd"
    np.testing.assert_array_equal(back, part)


@pytest.mark.parametrize("dtype", ["i4", "f2", "c16"])
def test_zfp_leaves_other_dtypes_without_loss(dtype: str) -> None:
    part = (100 * smooth((64, 64))).astype(dtype)
    form, back = there_and_back("zfp", part, 1e-3)
    assert form.codec == "zstd"
    np.testing.assert_array_equal(back, part)


def test_what_does_not_become_smaller_is_not_encoded() -> None:
    assert shrink("lz4", 0.0, np.frombuffer(np.random.default_rng(0).bytes(8192), np.uint8)) is None
    assert shrink("lz4", 0.0, np.zeros(LEAST_BYTES - 1, np.uint8)) is None


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_made_up_parts_are_the_peers_fault(name: str) -> None:
    form, buffer = WRONG_PARTS[name]
    with pytest.raises(RemoteProtocolError, match=r"\.$"):
        expand(form, buffer, np.dtype("f8"), (1024,))


@settings(max_examples=150)
@given(st.sampled_from(["lz4", "zstd", "zfp"]), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8))
def test_any_bytes_give_a_part_of_the_right_size_or_the_peers_fault(codec: str, bytes_: list[tuple[int, int]]) -> None:
    part = smooth((32, 32)).round(2)
    form, data = shrink(codec, 1e-3, part) or pytest.fail("it can be made smaller")
    wrong = bytearray(data)
    for place, byte in bytes_:
        wrong[place % len(wrong)] = byte
    with contextlib.suppress(RemoteProtocolError):
        assert memoryview(expand(form, wrong, part.dtype, part.shape)).nbytes == part.nbytes


def test_a_size_is_checked_against_the_layout_before_it_is_allocated() -> None:
    node = Session(Link.RANK_NODE, Side.LISTENS)
    node.receive(frames_of(next(message for message in MESSAGES if isinstance(message, m.Attach))))
    atoms = Variable("v", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
    field = Variable("u", np.dtype("f8"), (4,), ("x",))
    node.receive(frames_of(m.Layout(0, (m.BlockSpec(field, (0,), (4,)), m.BlockSpec(atoms, (0, 0), (0, 3))))))
    tracemalloc.start()
    try:
        for sizes in ((1 << 31, 24), (32, (1 << 31) + 1)):
            forms = tuple(m.Form("lz4", size, 0.0) for size in sizes)
            message = node.receive(frames_of(m.PublishEncoded(0, 0, 0.0, 0, forms, (b"x", b"y"))))
            assert isinstance(message, m.PublishEncoded)
            with pytest.raises(RemoteProtocolError, match=r"'[uv]' has [0-9]+ bytes, not "):
                node.decoded(message)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_codec_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [missing(codec) for codec in ("none", "lz4", "zstd", "zfp", "auto")] == [None] * 5
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert [missing(codec) for codec in ("none", "lz4", "zfp", "auto")] == [None, "blosc2", "zfpy", "blosc2"]
