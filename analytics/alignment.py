# SPDX-License-Identifier: Apache-2.0
"""Patterns of one window told apart by those of the window before, though no place ever sees a whole pattern.

**Sketch.** Each cell has a bucket and a sign, drawn by lot from its place in the whole field once and for all; a
pattern's sketch is the sum of its cells in each of `BUCKETS` buckets, with their signs (the sparse embedding of K.
Clarkson, D. Woodruff, J. ACM 63, 2017). Sketches are additive over places, and lengths and angles among the patterns of
two windows come out of them to about √(2 / `BUCKETS`), 9 degrees of angle at worst; in particular, patterns that span
the same directions are turned into each other by their sketches' rotation *exactly*.

**What is done with it.** `rotation` finds the rotation that brings new patterns closest to the former ones (orthogonal
Procrustes: P. Schönemann, Psychometrika 31, 1966). `matching` only reorders them and turns their phase, where a pattern
must not be mixed with others.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.model import Array, Extent

Reals = npt.NDArray[np.float64]
Numbers = npt.NDArray[Any]

#: Numbers of a sketch: enough for dozens of patterns, and with 8 bytes for each step of a window still small.
BUCKETS = 128

#: Weights of the buckets, by whose sum over a pattern its sign is decided.
SIGNS = np.cos(np.arange(BUCKETS) ** 2 + 1.0)


def sketch(parts: Sequence[tuple[int, Extent, Extent, Extent]]) -> Callable[[Reals], Reals]:
    """Return what sketches rows, (rows, cells of all parts), to (rows, `BUCKETS`).

    A part is a variable's number and the start, count and global shape of its cells.
    """
    drawn = np.concatenate([_lots(number, start, count, shape) for number, start, count, shape in parts])
    buckets = (drawn % np.uint64(BUCKETS)).astype(np.intp)
    signs = np.where(drawn >> np.uint64(63), 1.0, -1.0)

    def sketched(rows: Reals) -> Reals:
        found = np.zeros((len(rows), BUCKETS))
        for out, row in zip(found, rows, strict=True):
            out[:] = np.bincount(buckets, row * signs, BUCKETS)
        return found

    return sketched


def rotation(former: Numbers, new: Numbers) -> Numbers:
    """Return the orthogonal matrix R for which `new` R is closest to `former`, sketches in columns.

    What is zero in both stays where it is.
    """
    left, _, right = np.linalg.svd(new.conj().T @ former)
    found: Numbers = left @ right
    return found


def matching(former: Numbers, new: Numbers) -> tuple[Array, Numbers]:
    """Return the order in which columns of `new` come closest to those of `former`, and the phase of each then.

    The pair that is most alike is matched first. New columns times their phase have a positive product with the
    former ones. What has nothing like it takes the places that are left, in its own order.
    """
    alike = np.abs(former.conj().T @ new)
    lengths = np.outer(np.linalg.norm(former, axis=0), np.linalg.norm(new, axis=0))
    alike = np.divide(alike, lengths, out=np.zeros_like(alike), where=lengths > 0)
    order = np.full(len(alike), -1)
    for _ in order:
        place, column = np.unravel_index(int(alike.argmax()), alike.shape)
        if alike[place, column] <= 0:
            break
        order[place] = column
        alike[place], alike[:, column] = 0.0, 0.0
    order[order < 0] = np.setdiff1d(np.arange(len(order)), order)
    products = np.sum(former.conj() * new[:, order], axis=0)
    size = np.abs(products)
    return order, np.divide(products.conj(), size, out=np.ones_like(products), where=size > 0)


def _lots(number: int, start: Extent, count: Extent, shape: Extent) -> npt.NDArray[np.uint64]:
    """Return 64 random bits for each cell of a place, always the same ones."""
    index: npt.NDArray[np.uint64] = np.full((), number, np.uint64)
    for first, length, whole in zip(start, count, shape, strict=True):
        along = np.arange(first, first + length, dtype=np.uint64)
        index = np.add.outer(index * np.uint64(whole), along)
    mixed = index.reshape(-1) * np.uint64(0x9E3779B97F4A7C15)  # the finisher of splitmix64
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
