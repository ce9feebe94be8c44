# SPDX-License-Identifier: Apache-2.0
"""Three ranks that publish everything that is legal: each array in parts of another kind."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

import insitu
from insitu.client.launcher import rank_and_size

STEPS, RANKS = 11, 3
#: Before this step all ranks stand still for so long.
PAUSED, PAUSE_S = 6, 0.5
#: The first row of each rank's part, and the end: rank 0 has none.
ROWS = (0, 0, 5, 7)
SHAPE = (7, 6)

DTYPES = {"single": "f4", "short": "i2", "flags": "?", "swapped": ">f8", "spectrum": "c16"}
ARRAYS = ("uneven", "fortran", "strided", "halo", "columns", "by_one", "in_place", *DTYPES)


def field(name: str, n: int) -> np.ndarray:
    """The whole of an array in step n: whole numbers, so that all sums are exact."""
    values = np.arange(42).reshape(SHAPE) + 100 * n + len(name)
    return values % 2 == 0 if name == "flags" else values.astype(DTYPES.get(name, "f8"))


def particles(rank: int, n: int) -> np.ndarray:
    """A rank's particles in step n, of which there may be none: three components each."""
    number = (5 * n + 2 * rank) % 4
    return np.arange(3.0 * number).reshape(number, 3) + 1000 * rank + n


def scalar(n: int) -> float:
    return 2.0 * n


def parts(rank: int, n: int) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """The blocks of a rank with where they lie."""
    low, high = ROWS[rank], ROWS[rank + 1]
    rows: dict[str, Any] = {"start": (low, 0), "shape": SHAPE, "dims": ("y", "x")}
    for name in ("uneven", *DTYPES):
        yield name, field(name, n)[low:high], rows
    yield "fortran", np.asfortranarray(field("fortran", n)[low:high]), rows
    twice = np.zeros((2 * (high - low), 6))
    twice[::2, ::-1] = field("strided", n)[low:high]
    yield "strided", twice[::2, ::-1], rows
    padded = np.full((high - low + 2, 9), -1e9)
    padded[1:-1, 1:-2] = field("halo", n)[low:high]
    yield "halo", padded, rows | {"halo": (1, (1, 2))}
    left = 2 * rank
    yield "columns", field("columns", n)[:, left : left + 2], rows | {"start": (0, left)}
    if rank == 0:
        yield "by_one", field("by_one", n), {"shape": SHAPE}


def main() -> None:
    rank, _ = rank_and_size()
    with insitu.Client() as sim:
        for n in range(STEPS):
            if n == PAUSED:
                threading.Event().wait(PAUSE_S)
            with sim.step(10 * n, time=0.1 * n) as step:
                for name, block, where in parts(rank, n):
                    step.put(name, block, **where)
                low, high = ROWS[rank], ROWS[rank + 1]
                room = step.empty("in_place", (high - low, 6), start=(low, 0), shape=SHAPE, dims=("y", "x"))
                room[...] = field("in_place", n)[low:high]
                step.put("particles", particles(rank, n), dims=("particle", "axis"), units="m/s")
                step.put("agreed", scalar(n), units="K")
                if n % 2 == 0:
                    step.put("seldom", field("seldom", n)[low:high], start=(low, 0), shape=SHAPE, dims=("y", "x"))
                if rank == 0:
                    step.put("lonely", np.int64(scalar(n)))


if __name__ == "__main__":
    main()
