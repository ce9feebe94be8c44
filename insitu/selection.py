# SPDX-License-Identifier: Apache-2.0
"""What of a variable is wanted, and where it is found in a rank's block. Pure functions.

A `Range` names a dim and means what Python's slice of the whole array means there: ``"0:256"``, ``"::4"``, ``"-8:"``.
What it selects is an array of its own, whose cells are numbered anew from 0. So staging nodes and operators know of no
selection: they see a smaller variable, and blocks that make it up exactly if the ranks' blocks made up the whole.

The steps of a run can be selected too, by their sequence. All ranks know it, so nobody has to say which they take.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from insitu.model import Array, Extent, Variable
from insitu.wire.blocks import ALL_STEPS, Range
from insitu.wire.messages import Need


@dataclass(frozen=True, slots=True)
class Cut:
    """What is selected of a block: its cells there, and `start` and `count` in the selected array."""

    cells: tuple[slice, ...]
    start: Extent
    count: Extent


def faults_of_selection(variable: Variable, select: Sequence[Range]) -> dict[str, str]:
    """Say by dim why the ranges cannot be selected of a variable; nothing where they can.

    >>> import numpy as np
    >>> u = Variable("u", np.dtype("f8"), (6, 8), ("y", "x"))
    >>> faults_of_selection(u, [Range("x", 0, 4, 1), Range("z", None, None, 2)])
    {'z': 'the dims of "u" are y, x'}
    """
    faults = {}
    for one in select:
        if one.dim not in variable.dims:
            faults[one.dim] = f'the dims of "{variable.name}" are {", ".join(variable.dims) or "none"}'
        elif variable.joined and one.dim == variable.dims[0]:
            faults[one.dim] = f'"{variable.name}" is joined along {one.dim}, so its rows have no numbers that stay'
        elif (length := _lengths(variable)[variable.dims.index(one.dim)]) and not _chosen(one, length):
            faults[one.dim] = f'it selects none of the {length} cells that "{variable.name}" has along {one.dim}'
    return faults


def sent(variable: Variable, need: Need) -> Variable:
    """Return a variable as it is sent where a need fits it: what is selected, in the dtype that is asked for.

    Only floats are narrowed, and only from more bits to fewer.

    >>> import numpy as np
    >>> u = Variable("u", np.dtype("f8"), (6, 8), ("y", "x"))
    >>> sent(u, Need("u", (), "float32", "none", 0.0)).dtype, sent(u.renamed("v"), Need("v", (), "", "none", 0.0)).dtype
    (dtype('float32'), dtype('float64'))
    """
    dtype = np.dtype(need.dtype) if need.dtype else variable.dtype
    narrows = variable.dtype.kind == "f" and dtype.itemsize < variable.dtype.itemsize
    return replace(selected(variable, need.select), dtype=dtype if narrows else variable.dtype)


def takes_step(steps: Range, sequence: int) -> bool:
    """Whether a step is among the selected ones.

    >>> [sequence for sequence in range(12) if takes_step(Range("step", 2, 10, 3), sequence)]
    [2, 5, 8]
    """
    first = steps.start or 0
    return sequence >= first and (steps.stop is None or sequence < steps.stop) and (sequence - first) % steps.step == 0


def steps_taken(several: Sequence[Range], every: bool, since: int, upto: int) -> int:
    """Return how many of the steps `since` to `upto` any of these selections takes, or `every` one of them.

    Costs O(steps) where they differ.

    >>> thirds, halves = Range("step", None, None, 3), Range("step", None, None, 2)
    >>> steps_taken([thirds, halves], True, 0, 11), steps_taken([thirds, halves], False, 0, 11)
    (2, 8)
    """
    if all(one == ALL_STEPS for one in several):
        return upto - since + 1
    sequences = np.arange(since, upto + 1)
    taken = [_taken(one, sequences) for one in several]
    return int(np.count_nonzero(np.logical_and.reduce(taken) if every else np.logical_or.reduce(taken)))


def _taken(steps: Range, sequences: Array) -> Array:
    first = steps.start or 0
    last = np.iinfo(np.int64).max if steps.stop is None else steps.stop
    taken: Array = (sequences >= first) & (sequences < last) & ((sequences - first) % steps.step == 0)
    return taken


def selected(variable: Variable, select: Sequence[Range]) -> Variable:
    """Return the variable that is left of one by ranges without faults.

    >>> import numpy as np
    >>> u = Variable("u", np.dtype("f8"), (6, 8), ("y", "x"))
    >>> selected(u, [Range("x", 1, None, 3)]).shape
    (6, 3)
    """
    lengths = tuple(len(chosen) for chosen in _axes(variable, select))
    return replace(variable, row=lengths[1:]) if variable.joined else replace(variable, shape=lengths)


def cut(variable: Variable, select: Sequence[Range], start: Extent, count: Extent) -> Cut:
    """Return what ranges without faults select of a block of `variable`, be it nothing.

    All rows of a joined variable's block are taken; the count of the first dimension is left as it is.

    >>> import numpy as np
    >>> u = Variable("u", np.dtype("f8"), (6, 8), ("y", "x"))
    >>> cut(u, [Range("x", 1, None, 3)], start=(0, 4), count=(6, 4))
    Cut(cells=(slice(0, 6, 1), slice(0, 6, 3)), start=(0, 1), count=(6, 2))
    """
    axes = [_along(*axis) for axis in zip(_axes(variable, select), start, count, strict=True)]
    if variable.joined:
        axes[0] = slice(None), 0, count[0]
    cells, starts, counts = zip(*axes, strict=True) if axes else ((), (), ())
    return Cut(cells, starts, counts)


def _along(chosen: range, start: int, count: int) -> tuple[slice, int, int]:
    """Return the chosen cells of ``[start, start + count)`` as a slice, the number of the first, and how many."""
    first, last = _below(chosen, start), _below(chosen, start + count)
    if first == last:
        return slice(0, 0, 1), first, 0
    low = chosen[first] - start
    return slice(low, low + (last - first) * chosen.step, chosen.step), first, last - first


def _below(chosen: range, cell: int) -> int:
    """Return how many of the chosen cells lie before `cell`."""
    return min(len(chosen), max(0, -((chosen.start - cell) // chosen.step)))


def _axes(variable: Variable, select: Sequence[Range]) -> list[range]:
    """Return the chosen cells along each dimension."""
    by_dim = {one.dim: one for one in select}
    return [
        _chosen(by_dim[dim], length) if dim in by_dim else range(length)
        for dim, length in zip(variable.dims, _lengths(variable), strict=True)
    ]


def _chosen(one: Range, length: int) -> range:
    return range(*slice(one.start, one.stop, one.step).indices(length))


def _lengths(variable: Variable) -> Extent:
    return variable.shape if variable.shape is not None else (0, *variable.row)
