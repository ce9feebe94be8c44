# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read and write them."""

import math
import re

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {unit: 2 ** (10 * power) for power, unit in enumerate(_UNITS)}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]+)\s*")


def count(number: int, noun: str) -> str:
    """Say how many.

    >>> count(1, "rank"), count(4, "rank")
    ('1 rank', '4 ranks')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(nbytes: float) -> str:
    """Say how many bytes, to three digits or more.

    >>> size(512), size(268435456), size(1.5 * 2**30), size(1e6)
    ('512 B', '256 MiB', '1.5 GiB', '977 KiB')
    """
    power = 0
    while abs(nbytes) >= 1000 and power < len(_UNITS) - 1:
        nbytes /= 1024
        power += 1
    return f"{nbytes:.3g} {_UNITS[power]}"


def duration(seconds: float) -> str:
    """Say how long.

    >>> duration(0.0005), duration(0.5), duration(60), duration(3723)
    ('0.5 ms', '500 ms', '1 min', '1 h 2 min')
    """
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def quantity(value: object, units: dict[str, float] | dict[str, int]) -> float | None:
    """Read a plain number, or a number with one of the units; ``None`` for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        return None
    return float(match[1]) * units[match[2]]


def read_size(value: object, least: int = 1) -> int | None:
    """Read a number of bytes, at least so many; ``None`` for anything else.

    >>> read_size("256 MiB"), read_size(4096), read_size("many")
    (268435456, 4096, None)
    """
    number = quantity(value, _BYTES)
    if number is None or not math.isfinite(number) or number != int(number) or number < least:
        return None
    return int(number)
