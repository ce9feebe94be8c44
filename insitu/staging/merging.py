# SPDX-License-Identifier: Apache-2.0
"""From the states of a window to a row of results. Pure functions over plain data: who runs them where is not known.

A *part* is a state and the place of its cells: ``(start, count, state)``, with empty extents for a state without cells.
The parts of a window are merged where they have the same place, finalised, and their arrays are laid side by side; the
places of a `JointOperator` are summed up before, and finalised with what all of them say. A large row is not put
together in one piece: each finalised part is cut along the slabs of the row, and whoever writes a slab needs the cuts
of that slab only.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from insitu.errors import OperatorError
from insitu.model import Array, Extent, Step, Variable, has_cells
from insitu.operator import JointOperator, Operator, SeriesOperator, State
from insitu.results.chunks import SLAB_BYTES, Slab, is_small, slabs
from insitu.results.store import write_slab
from insitu.steering.series import OVER_CELLS, Reference, Spread, number_of

Place = tuple[Extent, Extent]
Part = tuple[Extent, Extent, State]

#: The steps that no window before had with what they yield, and what is left to the next window.
Series = tuple[list[tuple[Step, dict[str, Array]]], State]

#: What a place yields: its start, its count, and the arrays by the name of the result.
Finalized = tuple[Extent, Extent, Mapping[str, Array]]

#: A slab of one result, and a piece of such a slab: the slab's number in its bundle, where in it, the values.
NamedSlab = tuple[str, Slab]
Cut = tuple[int, Slab, Array]


#: What a node has of the numbers that rules read: the number itself, or what its cells say of it.
Numbers = dict[Reference, "float | Spread"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How operator `name` turns states into rows: what it yields and over which `cells`, the dims of a place."""

    name: str
    operator: Operator
    described: Mapping[str, Variable]
    cells: tuple[str, ...]

    @classmethod
    def of(cls, name: str, operator: Operator, inputs: Mapping[str, Variable]) -> "Recipe":
        """Return the recipe of an operator over `inputs`."""
        seen = operator.seen(inputs)
        cells = seen[operator.of[0]].dims if operator.keeps_cells else ()
        return cls(name, operator, operator.describe(seen), cells)

    def merge(self, *several: Iterable[Part]) -> list[Part]:
        """Return the parts with one state for each place; what is given stays as it is, so a task may run twice."""
        states: dict[Place, State] = {}
        own: set[Place] = set()
        for start, count, state in (part for parts in several for part in parts):
            place = (start, count)
            if place not in states:
                states[place] = state
                continue
            if place not in own:
                states[place] = deepcopy(states[place])
                own.add(place)
            # Copied as well: merging into the state of no data may return the other one as it is.
            states[place] = self.operator.merge(states[place], deepcopy(state))
        return [(*place, state) for place, state in states.items()]

    @property
    def small(self) -> bool:
        """Whether a row goes to the controller, which writes it."""
        return is_small(self.described)

    @property
    def joint(self) -> bool:
        """Whether places are finalised with a summary of all of them."""
        return isinstance(self.operator, JointOperator) and bool(self.cells)

    def summarize(self, parts: Iterable[Part]) -> State:
        """Return what the places of `parts` say together; only for a `joint` one."""
        assert isinstance(self.operator, JointOperator)
        return self.combine(*(self.operator.summarize(state) for *_, state in self.merge(parts)))

    def combine(self, *summaries: State) -> State:
        """Join the summaries of different places; of none it is the neutral one."""
        assert isinstance(self.operator, JointOperator)
        return reduce(self.operator.combine, summaries or (self.operator.summarize(self.operator.init()),))

    def finalize(self, parts: Iterable[Part], summary: State | None = None) -> list[Finalized]:
        """Merge and finalise; raise `OperatorError` where an array is not what the operator's describe() promises.

        A joint one takes the `summary` of all places of the row, those of other nodes among them.
        """
        done: list[Finalized] = [
            (start, count, self._read(state, summary)) for start, count, state in self.merge(parts)
        ]
        for _, count, arrays in done:
            for result, variable in self.described.items():
                _check(self.name, result, arrays.get(result), variable.dtype, self._shape(variable, count))
        return done

    def assemble(self, parts: Iterable[Part], memory: State | None = None) -> tuple[dict[str, Array], Series]:
        """Return the whole row, and what a `SeriesOperator` says of its steps; `memory` is what it said before.

        Cells of no part are NaN, or zero in an array of integers.
        """
        whole = [(result, _everything(variable)) for result, variable in self.described.items()]
        merged = self.merge(parts)
        summary = self.summarize(merged) if self.joint else None
        series: Series = ([], memory or {})
        if isinstance(self.operator, SeriesOperator) and merged and summary is not None:
            summary = self.operator.follow(summary, memory or {})
            series = self.operator.series(summary)
        cuts = self.cut(self.finalize(merged, summary), whole)
        return self.row(whole, [cuts]), series

    def bundles(self, limit_bytes: int = SLAB_BYTES) -> list[list[NamedSlab]]:
        """Group the row's slabs, in order, so that a group stays within `limit_bytes` unless one slab is larger."""
        bundles: list[list[NamedSlab]] = []
        room = 0
        for result, variable in self.described.items():
            for slab in slabs(variable.shape or (), variable.dtype.itemsize, limit_bytes):
                nbytes = prod(_lengths(slab)) * variable.dtype.itemsize
                if not bundles or nbytes > room:
                    bundles.append([])
                    room = limit_bytes
                bundles[-1].append((result, slab))
                room -= nbytes
        return bundles

    def touches(self, box: Place, bundle: Sequence[NamedSlab]) -> bool:
        """Say whether parts within `box` can have anything to do with the slabs of `bundle`."""
        return any(_common(self.region(self.described[result], *box), slab) is not None for result, slab in bundle)

    def cut(self, done: Iterable[Finalized], bundle: Sequence[NamedSlab]) -> list[Cut]:
        """Return what finalised parts have of the slabs of `bundle`: views, not copies.

        A result without cells is the same in all of them, and taken from the first.
        """
        cuts: list[Cut] = []
        for number, (start, count, arrays) in enumerate(done):
            for k, (result, slab) in enumerate(bundle):
                if number and not self.has_cells(self.described[result]):
                    continue
                region = self.region(self.described[result], start, count)
                common = _common(region, slab)
                if common is not None:
                    cuts.append((k, _within(common, slab), np.asarray(arrays[result])[_within(common, region)]))
        return cuts

    def fill(self, bundle: Sequence[NamedSlab], several: Iterable[Iterable[Cut]]) -> Iterator[tuple[str, Slab, Array]]:
        """Yield the slabs of `bundle` with their values put together, one at a time."""
        cuts = [cut for cuts in several for cut in cuts]
        for k, (result, slab) in enumerate(bundle):
            values = _blank(_lengths(slab), self.described[result].dtype)
            for number, where, piece in cuts:
                if number == k:
                    values[where] = piece
            yield result, slab, values

    def row(self, whole: Sequence[NamedSlab], several: Iterable[Iterable[Cut]]) -> dict[str, Array]:
        """Return a whole row, where every result is one slab."""
        return {result: values for result, _, values in self.fill(whole, several)}

    def numbers(self, done: Sequence[Finalized], wanted: Sequence[Reference]) -> Numbers:
        """Return what finalised parts have of the `wanted` numbers of the row; `join_numbers` joins those of all nodes.

        Of a result without cells all parts say the same, and the first is heard.
        """
        numbers: Numbers = {}
        for reference in wanted:
            variable = self.described[reference.result]
            if not (self.cells and self.has_cells(variable)):
                numbers[reference] = number_of(np.asarray(done[0][2][reference.result]), reference.over_cells)
            elif reference.over_cells in OVER_CELLS:
                spreads = (Spread.of(np.asarray(arrays[reference.result])) for *_, arrays in done)
                numbers[reference] = reduce(Spread.__add__, spreads, Spread())
            else:
                index = int(reference.over_cells[1:-1]) % prod(variable.shape or (1,))
                for (start, *_), (count, *_), arrays in done:
                    if start <= index < start + count:
                        numbers[reference] = float(arrays[reference.result][index - start])
        return numbers

    def _read(self, state: State, summary: State | None) -> dict[str, Array]:
        if isinstance(self.operator, JointOperator) and summary is not None:
            return self.operator.finalize_place(state, summary)
        return self.operator.finalize(state)

    def has_cells(self, variable: Variable) -> bool:
        return has_cells(variable, self.cells)

    def region(self, variable: Variable, start: Extent, count: Extent) -> Slab:
        """Say where in a result the arrays of a place belong; one without cells is the same for every place."""
        whole = _everything(variable)
        if not self.has_cells(variable):
            return whole
        cells = tuple(slice(low, low + length) for low, length in zip(start, count, strict=True))
        return (*whole[: variable.ndim - len(self.cells)], *cells)

    def _shape(self, variable: Variable, count: Extent) -> Extent:
        return _lengths(self.region(variable, (0,) * len(count), count))


@dataclass(frozen=True, slots=True)
class Target:
    """The row of the store at `path` that states become by `recipe`."""

    recipe: Recipe
    path: Path
    row: int

    def write(self, bundle: Sequence[NamedSlab], several: Sequence[Sequence[Cut]]) -> None:
        """Put the slabs of `bundle` together and write them."""
        for result, slab, values in self.recipe.fill(bundle, several):
            write_slab(self.path, self.recipe.name, result, self.row, slab, values)


def join_numbers(several: Sequence[Numbers]) -> dict[Reference, float]:
    """Return the numbers of a whole row, from those of the nodes that each have a part of it."""
    joined: Numbers = {}
    for reference, number in (item for numbers in several for item in numbers.items()):
        known = joined.get(reference)
        joined[reference] = known + number if isinstance(known, Spread) and isinstance(number, Spread) else number
    return {
        reference: number.read(reference.over_cells) if isinstance(number, Spread) else number
        for reference, number in joined.items()
    }


def bounding_box(places: Sequence[Place]) -> Place:
    """Return the smallest place that holds all of `places`.

    >>> bounding_box([((0, 4), (2, 2)), ((6, 0), (1, 3))])
    ((0, 0), (7, 6))
    """
    start = tuple(min(lows) for lows in zip(*(start for start, _ in places), strict=True))
    stops = zip(*(map(sum, zip(start, count, strict=True)) for start, count in places), strict=True)
    return start, tuple(max(ends) - low for low, ends in zip(start, stops, strict=True))


@lru_cache(maxsize=64)
def fault_of_places(places: tuple[Place, ...]) -> str | None:
    """Say which two different places overlap, or return ``None``. Costs O(P^2) for P places, once for each set.

    They do where the simulation moved its blocks in mid-window: no state then holds all steps of a cell.

    >>> fault_of_places((((0,), (2,)), ((2,), (2,)), ((2,), (2,))))
    >>> fault_of_places((((0,), (3,)), ((2,), (2,))))
    'start (0,) count (3,) and start (2,) count (2,)'
    """
    distinct = list(dict.fromkeys(places))
    low = np.array([start for start, _ in distinct])
    high = low + np.array([count for _, count in distinct])
    for k in range(1, len(distinct)):
        both = ((low[:k] < high[k]) & (low[k] < high[:k])).all(axis=1)
        if both.any():
            pair = (distinct[int(both.argmax())], distinct[k])
            return " and ".join(f"start {start} count {count}" for start, count in pair)
    return None


def _check(name: str, result: str, values: Any, dtype: np.dtype[Any], shape: Extent) -> None:
    if values is None:
        raise OperatorError(f"Operator '{name}' did not yield '{result}', which its describe() promises.")
    array = np.asarray(values)
    if (array.dtype, array.shape) != (dtype, shape):
        raise OperatorError(
            f"Operator '{name}' yielded '{result}' as {array.dtype} of shape {array.shape}, but its describe() "
            f"promises {dtype} of shape {shape}."
        )


def _blank(shape: Extent, dtype: np.dtype[Any]) -> Array:
    return np.full(shape, np.nan if dtype.kind in "fc" else 0, dtype)


def _everything(variable: Variable) -> Slab:
    return tuple(slice(0, length) for length in variable.shape or ())


def _lengths(slab: Slab) -> Extent:
    return tuple(each.stop - each.start for each in slab)


def _common(a: Slab, b: Slab) -> Slab | None:
    """Return the cells that two slabs share."""
    common = tuple(slice(max(x.start, y.start), min(x.stop, y.stop)) for x, y in zip(a, b, strict=True))
    return common if all(each.start < each.stop for each in common) else None


def _within(inner: Slab, outer: Slab) -> Slab:
    """Return `inner` counted from the first cell of `outer`."""
    return tuple(slice(x.start - y.start, x.stop - y.start) for x, y in zip(inner, outer, strict=True))
