# SPDX-License-Identifier: Apache-2.0
"""Fields as small PNG pictures, in viridis: perceptually uniform, and safe for the colour-blind. NaN is grey."""

import base64
import struct
import zlib

import numpy as np

from insitu.model import Array

#: Sixteen colours of viridis at equal distances; between them colours are interpolated (off by 7 of 255 at most).
#: Source: https://bids.github.io/colormap/
VIRIDIS = (
    "440154", "481A6C", "472F7D", "414487", "39568C", "31688E", "2A788E", "23888E", "1F988B", "22A884", "35B779",
    "54C568", "7AD151", "A5DB36", "D2E21B", "FDE725",
)  # fmt: skip
#: The index of NaN's colour; 0 to 254 are viridis.
_NAN = 255


def limits(values: Array) -> tuple[float, float] | None:
    """Return the least and the largest finite value, or ``None`` where there is none."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else None


def picture(values: Array) -> str:
    """Return a field of two dimensions as a ``data:`` address of a PNG; the first row is at the bottom."""
    low, high = limits(values) or (0.0, 1.0)
    span = high - low or 1.0
    scaled = np.nan_to_num((values - low) / span * 254, nan=0.0, posinf=254.0, neginf=0.0)
    indices = np.where(np.isnan(values), _NAN, np.clip(np.round(scaled), 0, 254)).astype(np.uint8)[::-1]
    rows = b"".join(b"\0" + row.tobytes() for row in indices)
    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = [(b"IHDR", header), (b"PLTE", _palette()), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in parts)
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _palette() -> bytes:
    anchors = np.array([list(bytes.fromhex(colour)) for colour in VIRIDIS], float)
    where = np.linspace(0, len(VIRIDIS) - 1, _NAN)
    between = np.stack([np.interp(where, np.arange(len(VIRIDIS)), anchors[:, k]) for k in range(3)], axis=1)
    return np.vstack([np.round(between), [128, 128, 128]]).astype(np.uint8).tobytes()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
