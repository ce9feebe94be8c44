# SPDX-License-Identifier: Apache-2.0
"""Values that YAML writes as words: byte sizes, durations, commands, names.

Each type reads what people write (``256 MiB``, ``500 ms``) and holds what programs need (an `int` of bytes, a `float`
of seconds). A mistake is raised as `expected`, which says only what was expected: where it stands and what was found
is added by `insitu.config.problems`, in the same form for all.
"""

import math
import re
import shlex
from typing import Annotated
from urllib.parse import urlsplit

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from insitu.model import NUMERIC_KINDS
from insitu.text import quantity, read_size

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}

_INDICES = re.compile(r"\s*(-?\d{1,18})?\s*:\s*(-?\d{1,18})?\s*(:\s*(0*[1-9]\d{0,17})?\s*)?")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def expected(what: str) -> PydanticCustomError:
    """An error whose text will read ``expected WHAT, got VALUE``."""
    return PydanticCustomError("expected", "{what}", {"what": what})


def read_bytes(value: object) -> int:
    """Read a number of bytes.

    >>> read_bytes("256 MiB"), read_bytes("2 GB"), read_bytes("1.5KiB"), read_bytes(4096)
    (268435456, 2000000000, 1536, 4096)
    """
    if (number := read_size(value)) is None:
        raise expected('a size such as "256 MiB" or "2 GB", or a positive number of bytes')
    return number


def read_room(value: object) -> int:
    """Read a number of bytes that may be none.

    >>> read_room("0 B"), read_room("64 MiB")
    (0, 67108864)
    """
    if (number := read_size(value, 0)) is None:
        raise expected('a size such as "64 MiB" or "0 B", or a number of bytes')
    return number


def read_seconds(value: object) -> float:
    """Read a duration; infinity is none, because every wait has a bound.

    >>> read_seconds("500 ms"), read_seconds("2 min"), read_seconds(3)
    (0.5, 120.0, 3.0)
    """
    number = quantity(value, _SECONDS)
    if number is None or not math.isfinite(number) or number < 0:
        raise expected('a duration such as "500 ms" or "2 min", or a number of seconds')
    return float(number)


def read_indices(value: object) -> str:
    """Read a range of indices. It is a text: YAML reads 10:30 without quotes as the number 630.

    >>> read_indices(" 0:256 "), read_indices("::4"), indices("-8:")
    ('0:256', '::4', (-8, None, 1))
    """
    if not isinstance(value, str) or not _INDICES.fullmatch(value):
        raise expected('indices such as "0:256", "-8:" or "::4", in quotes, with a stride of at least 1')
    return value.strip()


def indices(text: str) -> tuple[int | None, int | None, int]:
    """Return start, stop and stride of what `read_indices` has read."""
    start, stop, stride = [int(part) if part.strip() else None for part in [*text.split(":"), ""][:3]]
    return start, stop, 1 if stride is None else stride


def _words(value: object) -> object:
    """Let one line stand for a command: it is split as a shell would, with no shell behind it."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise expected(f"a command whose quotes are closed ({error})") from error


def _identifier(value: str) -> str:
    if not _IDENTIFIER.fullmatch(value):
        raise expected("a name of letters, digits and _ that does not begin with a digit")
    return value


def _run_name(value: str) -> str:
    if not _RUN_NAME.fullmatch(value):
        raise expected("a name of letters, digits, _, - and . that begins with none of the last two")
    return value


def _cluster(value: str) -> str:
    """Tell an address and a file from a misspelt ``local``."""
    is_file = value.endswith(".json") or "/" in value
    if value != "local" and not re.fullmatch(r"(tcp|tls)://.+:\d+", value) and (not is_file or "://" in value):
        raise expected('local, an address such as "tcp://host:8786", or the path of a scheduler file (.json)')
    return value


def _interface(value: str) -> str:
    """Tell a name or an address of one interface from what is none, or stands for all."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", value) or value == "0.0.0.0":
        raise expected('auto, the name of an interface such as "eth0", or its IPv4 address (one, and without a port)')
    return value


def read_dtype(value: object) -> str:
    """Read the name of a dtype that a variable may have.

    >>> read_dtype("f4"), read_dtype("int64")
    ('float32', 'int64')
    """
    try:
        dtype = np.dtype(value) if isinstance(value, str) else None
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in NUMERIC_KINDS:
        raise expected('the name of a dtype such as "float64" or "int32"')
    return dtype.name


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]+", value):
        raise expected('the name or the address of an interface of this machine, such as "127.0.0.1"')
    return value


def read_collector(value: str) -> str:
    """Read a file's name, or the address of a collector: without a path it is the one that all collectors have.

    The directory of a run has no folders before it begins, so a file there has a name only.

    >>> read_collector("http://localhost:4318"), read_collector("traces.jsonl")
    ('http://localhost:4318/v1/traces', 'traces.jsonl')
    """
    if "://" not in value:
        own = not value.startswith("/")
        if not value or value.endswith("/") or (own and "/" in value) or re.fullmatch(r"[\w.-]+:\d+", value):
            raise expected(
                'the name of a file such as "traces.jsonl", the absolute path of one, or an address such as '
                '"http://localhost:4318"'
            )
        return value
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise expected('an address of OTLP over HTTP such as "http://localhost:4318"')
    return value if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1/traces"


_NUMBER_OR_TEXT = {"anyOf": [{"type": "number"}, {"type": "string"}]}

Bytes = Annotated[int, BeforeValidator(read_bytes), WithJsonSchema(_NUMBER_OR_TEXT)]
Room = Annotated[int, BeforeValidator(read_room), WithJsonSchema(_NUMBER_OR_TEXT)]
Seconds = Annotated[float, BeforeValidator(read_seconds), WithJsonSchema(_NUMBER_OR_TEXT)]
#: Strict: ``ranks: yes`` is no 1.
Count = Annotated[int, Field(strict=True, ge=1)]
Command = Annotated[tuple[str, ...], BeforeValidator(_words, json_schema_input_type=str | tuple[str, ...])]
DtypeName = Annotated[str, BeforeValidator(read_dtype), WithJsonSchema({"type": "string"})]
#: Which indices of a dimension, as Python writes slices.
Indices = Annotated[str, BeforeValidator(read_indices), WithJsonSchema({"type": "string"})]
Identifier = Annotated[str, AfterValidator(_identifier)]
RunName = Annotated[str, AfterValidator(_run_name)]
Interface = Annotated[str, AfterValidator(_interface)]
Host = Annotated[str, AfterValidator(_host)]
TracesTo = Annotated[str, AfterValidator(read_collector)]
ClusterName = Annotated[str, AfterValidator(_cluster)]
