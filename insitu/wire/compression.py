# SPDX-License-Identifier: Apache-2.0
"""One part of a block smaller on the wire, and as it was again: the codecs of `PublishEncoded`.

Rule 1: a codec's library is imported when it is first used, because a simulation without codecs does not need it.

Rule 2: whoever decodes trusts nothing. The decoded size comes from the layout and the credit, before anything of it is
allocated; the encoded buffer has to agree. Neither library checks enough by itself: blosc2 would look for plugins that
a header names, and zfp reads on behind the end of its buffer. So only headers that `shrink` writes are taken, and zfp
gets a buffer as long as it can ever read.

Rule 3: what cannot be made smaller travels as it is, so an encoded part is never larger than a plain one.
"""

import importlib.util
from math import prod
from typing import Any

import numpy as np

from insitu.errors import RemoteProtocolError, RunError
from insitu.model import Array, Extent
from insitu.wire.messages import Form

#: The module of each codec; all come with the extra ``codecs``.
MODULES = {"lz4": "blosc2", "zstd": "blosc2", "zfp": "zfpy"}
#: Parts below this are sent plain: a call of a codec costs more than their way.
LEAST_BYTES = 1024
#: What blosc2 takes at once.
MOST_BYTES = (1 << 31) - 64

#: Level 1: the higher ones cost several times as much for a few percent.
_LEVEL = 1
#: zfp 1.0 exceeds its tolerance in one dimension, where few bits of a block are kept: 1.5 times was the worst of some
#: million blocks (0.75 times in two dimensions, less in more). It works in powers of two.
_EXCESS = 2.0
#: blosc2's header: its length, where its parts are, and what `shrink` writes there.
_HEAD_BYTES = 32
_EXTENDED = 0b101
_FORMATS = (1, 4)  # lz4, zstd
_FILTERS = frozenset({0, 1})  # none, shuffle
_SPECIAL = 0b1110000  # a run of one value


def missing(codec: str) -> str | None:
    """Return the module that a codec needs and that is not installed; ``auto`` chooses among those of blosc2."""
    module = MODULES.get("lz4" if codec == "auto" else codec)
    return module if module and importlib.util.find_spec(module) is None else None


def shrink(codec: str, tolerance: float, part: Array) -> tuple[Form, bytes] | None:
    """Encode a C-contiguous part, or return ``None`` where that would not make it smaller.

    ``zfp`` keeps every value within `tolerance`, absolutely. Where it cannot (NaN, infinity, no float of 4 or 8 bytes,
    a tolerance below what the dtype can tell apart at these values) the part is encoded by zstd, without any loss.
    """
    if not LEAST_BYTES <= part.nbytes <= MOST_BYTES:
        return None
    if codec == "zfp" and not _bounded(part, tolerance):
        codec = "zstd"
    if codec == "zfp":
        import zfpy

        cells = part.reshape(_shape(part.shape))
        if cells.ndim == 1:
            tolerance /= _EXCESS
        data = zfpy.compress_numpy(cells, tolerance=tolerance, write_header=False)
        form = Form("zfp", part.nbytes, tolerance)
    else:
        import blosc2

        data = blosc2.compress2(
            part.reshape(-1).view(np.uint8),
            codec=blosc2.Codec.LZ4 if codec == "lz4" else blosc2.Codec.ZSTD,
            clevel=_LEVEL,
            typesize=part.itemsize,
            filters=[blosc2.Filter.SHUFFLE],
            nthreads=1,
        )
        form = Form(codec, part.nbytes, 0.0)
    return (form, data) if len(data) < part.nbytes else None


def expand(form: Form, buffer: Any, dtype: np.dtype[Any], count: Extent) -> Any:
    """Return the bytes of a part, of which `form.nbytes` is right for dtype and count.

    Raises `RemoteProtocolError` for a buffer that is no such part, and `RunError` where the codec is not installed.
    """
    if not form.codec:
        return buffer
    data = memoryview(buffer).cast("B")
    if len(data) >= form.nbytes:
        raise RemoteProtocolError(f"A part of {form.nbytes} bytes is encoded in {len(data)}, which is not smaller.")
    try:
        return _from_zfp(data, form, dtype, count) if form.codec == "zfp" else _from_blosc(data, form)
    except ImportError as error:
        raise RunError(
            f"A part encoded by {form.codec} cannot be read here: {error}. Install the codecs where staging nodes run: "
            'pip install "insitu[codecs]".'
        ) from error
    except (ValueError, RuntimeError, TypeError, MemoryError) as error:
        raise RemoteProtocolError(f"A part cannot be decoded by {form.codec}: {error}".rstrip(".") + ".") from error


def _from_blosc(data: memoryview, form: Form) -> Array:
    import blosc2

    if not _is_ours(data) or blosc2.get_cbuffer_sizes(data)[:2] != (form.nbytes, len(data)):
        raise RemoteProtocolError(f"A part encoded by {form.codec} has a header that does not fit it.")
    part: Array = np.empty(form.nbytes, np.uint8)
    blosc2.decompress2(data, dst=part, nthreads=1)
    return part


def _is_ours(data: memoryview) -> bool:
    """Whether a blosc2 header asks for nothing but what `shrink` uses."""
    return (
        len(data) >= _HEAD_BYTES
        and data[2] & _EXTENDED == _EXTENDED
        and data[2] >> 5 in _FORMATS
        and _FILTERS.issuperset(data[16:22])
        and not data[31] & ~_SPECIAL
    )


def _from_zfp(data: memoryview, form: Form, dtype: np.dtype[Any], count: Extent) -> Array:
    import zfpy

    shape = _shape(count)
    if not _is_zfp(dtype) or not form.tolerance > 0:
        raise RemoteProtocolError(f"zfp has no {dtype} with tolerance {form.tolerance}.")
    padded = np.zeros(max(len(data), _longest(shape, dtype)) + 64, np.uint8)  # zeros that are not read cost nothing
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    part: Array = np.empty(shape, dtype)
    zfpy._decompress(padded, zfpy.dtype_to_ztype(dtype), shape, out=part, tolerance=form.tolerance)
    return part.reshape(-1).view(np.uint8)


def _is_zfp(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" and dtype.itemsize in (4, 8)


def _bounded(part: Array, tolerance: float) -> bool:
    """Whether zfp can keep the tolerance: it rounds to the dtype's own precision, once, besides."""
    if not _is_zfp(part.dtype):
        return False
    largest = max(abs(float(part.min())), abs(float(part.max())))
    return bool(largest * 4 * np.finfo(part.dtype).eps <= tolerance)  # false for NaN and infinity


def _shape(count: Extent) -> Extent:
    """Return a shape of at most four dimensions, none of a single cell, that has the same cells in the same order."""
    shape = tuple(n for n in count if n != 1) or (1,)
    return shape if len(shape) <= 4 else (prod(shape[:-3]), *shape[-3:])


def _longest(shape: Extent, dtype: np.dtype[Any]) -> int:
    """Return how many bytes zfp may read at most: of each block of 4 cells a side an exponent, all bits, all tests."""
    cells = 4 ** len(shape)
    bits = 1 + 11 + cells - 1 + cells * 8 * dtype.itemsize
    return int(prod(-(-n // 4) for n in shape) * bits // 8)
