# SPDX-License-Identifier: Apache-2.0
"""How far particles go in how much time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, model_validator

from analytics.fields import Length, OneName, label, power, require_finite, require_real
from analytics.kernels.displacing import add_displacements
from insitu.errors import OperatorError
from insitu.model import Array, Variable
from insitu.operator import Batch, Operator, State

#: Particles whose ways are looked at together, so that they stay in a core's own cache.
TOGETHER = 256


class Msd(Operator):
    """Mean squared displacement of particles against lag, for diffusion.

    `of` is a variable that is joined over the ranks and holds positions; `id` one that names each row's particle by a
    whole number, because particles change their rank and their order::

        walk: {use: msd, of: position, id: id, box: [20, 20, 20], over: [step, space], window: 200, stride: 2}

    ===========  =======  ====  ================================================================================
    result       dtype    dims  value
    ===========  =======  ====  ================================================================================
    ``msd``      float64  lag   mean of (x(t + l) - x(t))² over all particles and all t of the window
    ``elapsed``  float64  lag   mean physical time from t to t + l
    ``count``    int64    lag   how many displacements were averaged
    ===========  =======  ====  ================================================================================

    The lags are 0, `stride`, 2 `stride` ... published steps, up to `lags` of these beyond 0; all that the window has if
    `lags` is left out. In d dimensions the diffusion coefficient is the slope of ``msd`` over ``elapsed``, divided by
    2 d, where the curve is straight. Long displacements overlap and are few: look at the first half of the lags.

    **Periodic boxes.** Without `box`, positions must go on where a particle leaves the box, and not jump back. With
    `box` (right-angled, its sides do not change) each jump is undone: a particle is taken to have gone less than half a
    side from one step that is taken to the next. Publish often enough for that.

    **Particles that come and go.** A displacement counts where the particle is there at both of its ends. A step that
    was lost makes them fewer. A lag of none is NaN, with a count of 0.

    **Bad input.** `OperatorError` names step and row of a position that is NaN or infinite, a particle that is there
    twice in a step, and ranks that publish positions and numbers of different particles.

    **Merge.** Exact but for rounding, in any order and tree: a state keeps positions, and lags are computed at the end.

    **Cost.** State: the positions and numbers of all steps that are taken, 32 bytes per particle and step for float64
    and int64: 32,000 particles in 100 steps are 102 MB. So windows are numbers of steps, `stride` says which steps are
    taken at all (those whose sequence is a multiple of it), and no displacement reaches beyond its window. Time, when
    the window ends: one pass over all positions for each lag; all 99 lags of these took 1.1 s of one core.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> x = Variable("x", np.dtype("f8"), None, ("atom", "axis"), units="nm", row=(3,))
    >>> number = Variable("number", np.dtype("i4"), None, ("atom",))
    >>> walk = Msd(of="x", id="number", over=["step", "space"], window=3)
    >>> held = batch([x, number], {"x": [[[0, 0, 0], [5, 5, 5]], [[5, 5, 6], [1, 0, 0]]], "number": [[1, 2], [2, 1]]})
    >>> found = walk.finalize(walk.update(walk.init(), held))
    >>> found["msd"], found["elapsed"], found["count"]
    (array([ 0.,  1., nan]), array([ 0.,  1., nan]), array([4, 2, 0]))
    """

    reductions: ClassVar[frozenset[frozenset[str]]] = frozenset({frozenset({"step", "space"})})

    slides = False

    of: OneName
    id: str = Field(description="the variable that numbers the particles, one whole number per row")
    box: Annotated[tuple[Length, ...], Field(min_length=1)] | None = Field(
        default=None, description="lengths of the sides, if particles that leave it come back at the other side"
    )
    lags: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="how many lags beyond 0; as many as the window has if left out"
    )
    stride: Annotated[int, Field(ge=1)] = Field(default=1, description="take one step of so many")

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "Msd":
        if self.window == "run":
            raise ValueError("window: run would keep the positions of all steps; give a number of steps")
        if self._most < 1:
            raise ValueError(
                f"stride: {self.stride} takes one step of a window of {self.window}, which has no "
                "displacement; lower it"
            )
        if (self.lags or 1) > self._most:
            raise ValueError(
                f"lags: {self.lags} are more than the {self._most} that a window of {self.window} steps has, of which "
                f"stride: {self.stride} takes one of so many; lower it, or make the window longer"
            )
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*self.of, self.id)

    def warm_up(self) -> None:
        add_displacements()(np.zeros((1, 1, 1)), np.zeros(1), np.zeros(1, np.int64))

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        of, number = inputs[self.of[0]], inputs[self.id]
        require_real(of)
        if not of.joined or len(of.row) != 1:
            raise OperatorError(
                f"'{of.name}' holds no positions, which would be joined over the ranks and have one row per particle; "
                f"its dimensions are {', '.join(of.dims) or 'none'}"
            )
        if self.box is not None and len(self.box) != of.row[0]:
            raise OperatorError(f"'{of.name}' has {of.row[0]} numbers per row, and box {len(self.box)} sides")
        if not number.joined or number.row != () or number.dtype.kind not in "iu":
            raise OperatorError(
                f"'{number.name}' does not number particles: it would be joined over the ranks and have one whole "
                f"number per row; it is {number.dtype} with the dimensions {', '.join(number.dims) or 'none'}"
            )
        real, shape, dims = np.dtype(np.float64), (self._lags + 1,), ("lag",)
        return {
            "msd": Variable("msd", real, shape, dims, power(of.units, 2), f"mean squared displacement of {label(of)}"),
            "elapsed": Variable("elapsed", real, shape, dims, "", "time of the displacement"),
            "count": Variable("count", np.dtype(np.int64), shape, dims, "1", "number of displacements"),
        }

    def init(self) -> State:
        return {}

    def update(self, state: State, batch: Batch) -> State:
        for step, rows, numbers in zip(batch.steps, batch[self.of[0]], batch[self.id], strict=True):
            if step.sequence % self.stride:
                continue
            if len(rows) != len(numbers):
                raise OperatorError(
                    f"'{self.of[0]}' has {len(rows)} rows in step {step.index} and '{self.id}' has {len(numbers)}; "
                    "each rank has to publish both for the same particles"
                )
            require_finite(self.of[0], step.index, rows)
            held = {"index": step.index, "time": step.time, "positions": rows, "numbers": numbers}
            _add(state, str(step.sequence), held)
        return state

    def merge(self, a: State, b: State) -> State:
        for sequence, held in b.items():
            _add(a, sequence, held)
        return a

    def finalize(self, state: State) -> dict[str, Array]:
        total, count = np.zeros(self._lags + 1), np.zeros(self._lags + 1, np.int64)
        sequences = np.array(sorted(map(int, state)), np.int64)
        steps = [state[str(sequence)] for sequence in sequences]
        at = (sequences - sequences[:1]) // self.stride
        for ways in self._ways(steps, at):
            add_displacements()(ways, total, count)
        with np.errstate(divide="ignore", invalid="ignore"):
            time = _times(np.array([step["time"] for step in steps]), at, self._lags)
            return {"msd": total / count, "elapsed": np.where(count > 0, time, np.nan), "count": count}

    @property
    def _most(self) -> int:
        """The most lags that a window has."""
        return (int(self.window) - 1) // self.stride

    @property
    def _lags(self) -> int:
        return self.lags or self._most

    def _ways(self, steps: Sequence[State], at: Array) -> Iterator[Array]:
        """Yield the ways of some particles at a time, of shape (places in time, dimensions, particles)."""
        orders = [np.argsort(step["numbers"]) for step in steps]
        numbers = [step["numbers"][order] for step, order in zip(steps, orders, strict=True)]
        for step, each in zip(steps, numbers, strict=True):
            self._require_different(step["index"], each)
        particles = np.unique(np.concatenate(numbers)) if numbers else ()
        for first in range(0, len(particles), TOGETHER):
            some = particles[first : first + TOGETHER]
            ways = np.full((at[-1] + 1, steps[0]["positions"].shape[1], len(some)), np.nan)
            for k, step, order, each in zip(at, steps, orders, numbers, strict=True):
                rows = slice(np.searchsorted(each, some[0]), np.searchsorted(each, some[-1], "right"))
                ways[k][:, np.searchsorted(some, each[rows])] = step["positions"][order[rows]].T
            if self.box is not None:
                _unfold(ways, np.array(self.box)[:, np.newaxis])
            yield ways

    def _require_different(self, index: int, numbers: Array) -> None:
        twice = np.flatnonzero(numbers[1:] == numbers[:-1])
        if len(twice):
            raise OperatorError(
                f"the particle with '{self.id}' {numbers[twice[0]]} is there more than once in step {index}; publish "
                "each from the rank that owns it, without copies of the neighbours'"
            )


def _add(state: State, sequence: str, new: State) -> None:
    """Add particles of a step. `new` is not kept."""
    known = state.get(sequence, {})
    parts = {key: [*([known[key]] if known else []), new[key]] for key in ("positions", "numbers")}
    state[sequence] = {"index": new["index"], "time": new["time"]}
    state[sequence] |= {key: np.concatenate(several) for key, several in parts.items()}


def _unfold(ways: Array, box: Array) -> None:
    """Undo the jumps of particles from one side of the box to the other."""
    seen, moved = ways[0].copy(), np.zeros_like(ways[0])
    for place in ways[1:]:
        jumps = np.rint((place - seen) / box)
        known = ~np.isnan(place)
        moved -= np.where(np.isnan(jumps), 0.0, jumps * box)
        seen[known] = place[known]
        place += moved


def _times(times: Array, at: Array, lags: int) -> Array:
    """Return the mean time of each lag over all pairs of steps, NaN where there is none."""
    every = np.full(at[-1] + 1 if len(at) else 0, np.nan)
    every[at] = times
    found = np.full(lags + 1, np.nan)
    for lag in range(min(lags + 1, len(every))):
        apart = every[lag:] - every[: len(every) - lag]
        if not np.isnan(apart).all():
            found[lag] = np.nanmean(apart)
    return found
