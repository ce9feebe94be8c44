# SPDX-License-Identifier: Apache-2.0
"""The test kit: the laws of an operator as a function that anyone may call, and factories for data to call it with.

::

    from insitu.testing import check_operator

    def test_vorticity_keeps_the_laws():
        check_operator(Vorticity(of=["u", "v"], over="step"), [u, v])

`check_operator` makes the data itself, feeds it in every order and grouping that the framework might, and raises
`AssertionError` with the law and the result that broke it. It proves that an operator is the same wherever and
however it runs, not that what it computes is right: for that, compare it with an independent reference, as
``tests/analytics`` does.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.model import Array, Extent, Step, Variable
from insitu.operator import Batch, JointOperator, Operator, SeriesOperator, State, state_nbytes

#: Makes the values of one step: of a variable, in this shape.
Values = Callable[[Variable, Extent, np.random.Generator], Array]

#: Mean over standard deviation of the hard case, and how far results may then differ: a mean of 1e8 has a rounding
#: error of 1e-8, which the deviations from it inherit.
HARD_MEAN, HARD_RTOL = 1e8, 1e-6

#: Bytes of a state of no data; what grows with the cells is allocated at the first update.
INIT_BYTES = 1024

#: Steps of the batches that are made: one alone, the eight that kernels like best, and others.
SIZES = (3, 8, 1, 5)


@dataclass(frozen=True)
class Place:
    """Says which rank this is, as a communicator of mpi4py does: for ranks without MPI, such as threads of a process.

    ``insitu.Client(comm=Place(0, 2))``
    """

    rank: int
    size: int

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return self.size


def batch(
    variables: Iterable[Variable],
    arrays: Mapping[str, Sequence[npt.ArrayLike] | Array],
    *,
    first: int = 0,
    start: Mapping[str, Extent] | None = None,
) -> Batch:
    """Return a batch from one array per step for each variable, converted to the variable's dtype.

    Steps are numbered from `first` on, in sequence and index. `start` gives the places of blocks that do not begin at
    the origin. The arrays are read-only copies.

    >>> u = Variable("u", np.dtype("f4"), (2,), ("x",))
    >>> batch([u], {"u": [[1, 2], [3, 4], [5, 6]]})["u"][1]
    array([3., 4.], dtype=float32)
    """
    known = {variable.name: variable for variable in variables}
    made = {name: tuple(_frozen(np.array(a, known[name].dtype, order="C")) for a in arrays[name]) for name in known}
    steps = tuple(Step(n, n, float(n)) for n in range(first, first + len(next(iter(made.values())))))
    origin = {name: (0,) * known[name].ndim for name in known}
    return Batch(steps, known, origin | dict(start or {}), made)


def normal(variable: Variable, shape: Extent, rng: np.random.Generator) -> Array:
    """Return standard normal values; for integers, whole numbers from 0 to 99."""
    if variable.dtype.kind in "biu":
        return rng.integers(0, 2 if variable.dtype.kind == "b" else 100, shape).astype(variable.dtype)
    return rng.normal(size=shape).astype(variable.dtype)


def samples(
    variables: Sequence[Variable], *, sizes: Sequence[int] = SIZES, values: Values = normal, seed: int = 0
) -> list[Batch]:
    """Return batches of random data that follow each other, one for each of `sizes`, which are their numbers of steps.

    Array variables come whole. Joined ones have a number of rows that changes from step to step, and is the same for
    all joined variables of a step; one step has none.
    """
    rng = np.random.default_rng(seed)
    made = []
    for k, size in enumerate(sizes):
        rows = [0 if step == k == 1 else int(rng.integers(1, 20)) for step in range(size)]
        shapes = {v.name: [(n, *v.row) if v.shape is None else v.shape for n in rows] for v in variables}
        arrays = {v.name: [values(v, shape, rng) for shape in shapes[v.name]] for v in variables}
        made.append(batch(variables, arrays, first=sum(sizes[:k])))
    return made


def cut(whole: Batch, parts: int) -> list[Batch]:
    """Cut the blocks of a batch along their first dimension, as if that many ranks had published them.

    Where there are fewer rows than parts, some parts are empty. A batch with a scalar stays whole.
    """
    if any(variable.ndim == 0 for variable in whole.variables.values()):
        return [whole]
    return [
        Batch(
            whole.steps,
            whole.variables,
            {name: _start_of(whole, name, k, parts) for name in whole.arrays},
            {name: tuple(_piece(a, k, parts) for a in arrays) for name, arrays in whole.arrays.items()},
        )
        for k in range(parts)
    ]


def check_operator(
    operator: Operator,
    inputs: Sequence[Variable],
    *,
    values: Values = normal,
    rtol: float = 1e-12,
    seed: int = 0,
) -> None:
    """Raise `AssertionError` unless `operator` keeps every law of `insitu.operator` for these inputs.

    Random data of the inputs is folded whole; cut by steps and by cells; merged in random trees with states of no data
    among them; and continued from a state that was sent, pickled, or finalised before. All must give the same results:
    integers the same numbers, floats within `rtol` of the result's largest magnitude. float64 inputs are then tried
    again with 1e8 added to them, where results may differ by 1e-6.

    `values` makes the data of one step, for operators that need more than `normal` numbers (positions in a box).

    >>> from analytics.moments import Moments
    >>> check_operator(Moments(of="u", over="step"), [Variable("u", np.dtype("f8"), (4, 3), ("y", "x"))])
    """
    _check(operator, samples(inputs, sizes=_sizes(operator), values=values, seed=seed), rtol, seed)
    if any(variable.dtype == np.float64 for variable in inputs if variable.name in operator.of):

        def far_out(variable: Variable, shape: Extent, rng: np.random.Generator) -> Array:
            made = values(variable, shape, rng)
            if variable.name in operator.of and variable.dtype == np.float64:
                made += HARD_MEAN
            return made

        _check(operator, samples(inputs, sizes=_sizes(operator), values=far_out, seed=seed), HARD_RTOL, seed)


def _check(operator: Operator, batches: Sequence[Batch], rtol: float, seed: int) -> None:
    laws = _Laws(operator, batches, rtol, np.random.default_rng(seed))
    laws.describe_tells_what_finalize_yields()
    laws.init_is_small()
    laws.init_is_neutral()
    laws.any_split_gives_the_same()
    laws.any_tree_gives_the_same()
    laws.nothing_is_kept_or_changed()
    laws.a_state_survives_sending()
    if isinstance(operator, JointOperator) and operator.keeps_cells:
        laws.any_places_give_the_same(operator)
    elif operator.keeps_cells and not operator.over_members:
        laws.cells_are_independent()


class _Laws:
    """One method per law, on one set of data."""

    def __init__(self, operator: Operator, batches: Sequence[Batch], rtol: float, rng: np.random.Generator) -> None:
        self.operator = operator
        self.rtol = rtol
        self.rng = rng
        self.batches = batches
        #: Whether a state needs all that a step has.
        self.in_place = operator.keeps_cells and not operator.over_members
        self.pieces = [b for whole in batches for b in ([whole] if self.in_place else cut(whole, 3))]
        self.expected = operator.finalize(self.fold(self.pieces))

    def fold(self, batches: Iterable[Batch]) -> State:
        state = self.operator.init()
        for one in batches:
            state = self.update(state, one)
        return state

    def update(self, state: State, batch: Batch) -> State:
        return self.operator.update(state, self.operator.seen_batch(batch))

    def same(self, law: str, state: State) -> None:
        _same(f"{self.operator!r} breaks the law '{law}'", self.expected, self.operator.finalize(state), self.rtol)

    def describe_tells_what_finalize_yields(self) -> None:
        law = f"{self.operator!r} breaks the law 'describe tells what finalize yields'"
        first = self.batches[0]
        described = self.operator.describe(self.operator.seen(first.variables))
        assert list(described) == list(self.expected), f"{law}: {list(described)} is not {list(self.expected)}"
        for name, variable in described.items():
            got = self.expected[name]
            assert isinstance(got, np.ndarray), f"{law}: '{name}' is of type {type(got).__name__}, not an array"
            assert variable.name == name, f"{law}: the variable of '{name}' is called '{variable.name}'"
            assert variable.dtype == got.dtype, f"{law}: '{name}' is {got.dtype}, described as {variable.dtype}"
            assert variable.shape == got.shape, f"{law}: '{name}' is {got.shape}, described as {variable.shape}"
            assert len(variable.dims) == got.ndim, f"{law}: '{name}' has {got.ndim} dimensions, named {variable.dims}"

    def init_is_small(self) -> None:
        held = state_nbytes(self.operator.init())
        assert held <= INIT_BYTES, f"{self.operator!r}: init() holds {held} bytes; allocate at the first update"

    def init_is_neutral(self) -> None:
        merge, init, whole = self.operator.merge, self.operator.init, self.fold(self.pieces)
        self.same("merge(init(), s) == s", merge(init(), _as_read(whole)))
        self.same("merge(merge(init(), init()), s) == s", merge(merge(init(), init()), _as_read(whole)))
        self.same("merge(s, init()) == s", merge(whole, init()))

    def any_split_gives_the_same(self) -> None:
        self.same(
            "update by single steps equals update by batches", self.fold(s for b in self.pieces for s in b.split())
        )
        self.same("update by the whole equals update by parts", self.fold([_joined(self.batches)]))
        if not self.in_place:
            parts = cut(_joined(self.batches), 2)
            self.same("the order of the parts does not matter", self.fold(reversed(parts)))

    def any_tree_gives_the_same(self) -> None:
        for _ in range(5):
            states = [self.fold([piece]) for piece in self.pieces]
            states += [self.operator.init() for _ in range(3)]
            while len(states) > 1:
                a, b = (states.pop(int(self.rng.integers(len(states)))) for _ in range(2))
                states.append(self.operator.merge(a, _as_read(b)))
            self.same("merge is associative and commutative", states[0])

    def nothing_is_kept_or_changed(self) -> None:
        law = f"{self.operator!r} breaks the law"
        own = [_writable(piece) for piece in self.pieces]
        state = self.fold(_read_only(piece) for piece in own)
        for piece, before in zip(own, self.pieces, strict=True):
            assert _equal(dict(piece.arrays), dict(before.arrays)), f"{law} 'update leaves its batch as it is'"
            for array in (a for arrays in piece.arrays.values() for a in arrays):
                array.fill(1)
        self.same("update keeps nothing of its batch", state)
        before_merge = _copied(state)
        merged = self.operator.merge(self.operator.init(), state)
        merged = self.update(self.operator.merge(merged, state), self.pieces[0])
        assert _equal(state, before_merge), f"{law} 'merge leaves its second state as it is, and keeps nothing of it'"
        for array in self.operator.finalize(state).values():
            array.fill(0)
        assert _equal(state, before_merge), f"{law} 'finalize leaves its state as it is, and gives nothing of it away'"

    def a_state_survives_sending(self) -> None:
        half = len(self.pieces) // 2
        for how, send in (("sending", _copied), ("pickling", lambda state: pickle.loads(pickle.dumps(state)))):
            first, second = send(self.fold(self.pieces[:half])), send(self.fold(self.pieces[half:]))
            self.same(f"a state survives {how}, then merges", self.operator.merge(first, _as_read(second)))
            state = send(self.fold(self.pieces[:half]))
            for piece in self.pieces[half:]:
                state = self.update(state, piece)
            self.same(f"a state survives {how}, then is updated", state)

    def cells_are_independent(self) -> None:
        """Fold the two halves of the cells apart; put together they equal the whole."""
        inputs = self.batches[0].variables
        cells = inputs[self.operator.of[0]].dims
        if not cells:
            return
        halves = zip(*(cut(piece, 2) for piece in self.pieces), strict=True)
        low, high = (self.operator.finalize(self.fold(half)) for half in halves)
        described = self.operator.describe(inputs)
        for name, whole in self.expected.items():
            if described[name].dims[-len(cells) :] == cells:
                together = np.concatenate([low[name], high[name]], axis=-len(cells))
                law = f"{self.operator!r} breaks the law 'cells are folded each for itself'"
                _same(law, {name: whole}, {name: together}, self.rtol)

    def any_places_give_the_same(self, operator: JointOperator) -> None:
        """Split the cells into places; combine their summaries in random trees, with those of no data among them."""
        cells = self.batches[0].variables[operator.of[0]].dims
        for parts in (1, 2, 3):
            places = [self.fold(some) for some in zip(*(cut(piece, parts) for piece in self.pieces), strict=True)]
            law = f"{operator!r} breaks the law 'any split into places gives the same', here {len(places)}"
            before = _copied(places)
            summaries = [_as_read(_copied(operator.summarize(state))) for state in (*places, operator.init())]
            while len(summaries) > 1:
                a, b = (summaries.pop(int(self.rng.integers(len(summaries)))) for _ in range(2))
                summaries.append(_as_read(_copied(operator.combine(a, b))))
            if isinstance(operator, SeriesOperator):
                summaries = [_as_read(operator.follow(summaries[0], {}))]
            read = [operator.finalize_place(_as_read(state), summaries[0]) for state in places]
            assert _equal(_copied(places), before), f"{law}: a state was changed"
            described = operator.describe(self.batches[0].variables)
            for name, whole in self.expected.items():
                if cells and described[name].dims[-len(cells) :] == cells:
                    together = np.concatenate([each[name] for each in read], axis=-len(cells))
                    _same(law, {name: whole}, {name: together}, self.rtol)
                else:
                    assert all(_equal(each[name], read[0][name]) for each in read), f"{law}: '{name}' differs by place"
                    _same(law, {name: whole}, {name: read[0][name]}, self.rtol)


def _sizes(operator: Operator) -> Sequence[int]:
    return (1,) if operator.keeps_steps else SIZES


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _mapped(whole: Batch, change: Callable[[Array], Array]) -> Batch:
    arrays = {name: tuple(change(array) for array in arrays) for name, arrays in whole.arrays.items()}
    return Batch(whole.steps, whole.variables, whole.start, arrays)


def _writable(whole: Batch) -> Batch:
    return _mapped(whole, np.copy)


def _read_only(whole: Batch) -> Batch:
    return _mapped(whole, lambda array: _frozen(array.view()))


def _joined(batches: Sequence[Batch]) -> Batch:
    """Return one batch of all steps."""
    first = batches[0]
    arrays = {name: tuple(array for one in batches for array in one[name]) for name in first.arrays}
    return Batch(tuple(step for one in batches for step in one.steps), first.variables, first.start, arrays)


def _piece(array: Array, k: int, parts: int) -> Array:
    rows = len(array)
    return array[rows * k // parts : rows * (k + 1) // parts]


def _start_of(whole: Batch, name: str, k: int, parts: int) -> Extent:
    start, variable = whole.start[name], whole.variables[name]
    if variable.joined:
        return start
    return (start[0] + len(whole[name][0]) * k // parts, *start[1:])


def _copied(part: Any) -> Any:
    """Copy a state as one who sends it does, who knows nothing about the operator; refuse what could not be sent."""
    if isinstance(part, dict):
        assert all(type(key) is str for key in part), f"a state's keys must be strings, not {list(part)}"
        return {key: _copied(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_copied(value) for value in part]
    if type(part) is np.ndarray:
        assert part.dtype.kind in "biufc", f"a state's arrays must be numeric, not {part.dtype}"
        return np.frombuffer(bytearray(part.tobytes()), part.dtype).reshape(part.shape)
    sendable = part is None or type(part) in (bool, int, float, str)
    assert sendable, f"a state holds {part!r}, a {type(part).__name__}, which cannot be sent"
    return part


def _as_read(part: Any) -> Any:
    """Return a state as it comes off the wire: the same, but read-only."""
    if isinstance(part, dict):
        return {key: _as_read(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_as_read(value) for value in part]
    return _frozen(part.view()) if isinstance(part, np.ndarray) else part


def _equal(a: Any, b: Any) -> bool:
    """Say whether two states, or parts of them, are the same to the last bit (and NaN is NaN)."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b) or (a != a and b != b)


def _same(law: str, expected: Mapping[str, Array], got: Mapping[str, Array], rtol: float) -> None:
    assert list(got) == list(expected), f"{law}: results are {list(got)}, expected {list(expected)}"
    for name, wanted in expected.items():
        exact = wanted.dtype.kind not in "fc"
        finite = np.abs(wanted[np.isfinite(wanted)])
        atol = 0 if exact else rtol * finite.max(initial=0)
        np.testing.assert_allclose(
            got[name], wanted, rtol=0 if exact else rtol, atol=atol, err_msg=f"{law}, result '{name}'"
        )
