# SPDX-License-Identifier: Apache-2.0
"""The contract of a fold.

An operator is a commutative monoid over blocks: `init` is its neutral element, `update` folds data into a state,
`merge` joins two states, `finalize` reads a state. That is all, and because of it the same operator runs wherever the
data is: on a staging node, on several whose states are merged, inside the simulation.

**Who does what.** An operator never sees ranks, nodes, windows or messages. It reduces along what `over` names; the
framework keeps one state for each combination of what is left and puts the finalised parts together:

==================  =======================================  ==================================================
``over``            one state for                            a result's leading dimension
==================  =======================================  ==================================================
``step``            each window and place (a rank's cells)   ``window``, then the operator's dims, then the cells'
``space``           each step                                ``step``, then the operator's dims
``[step, space]``   each window                              ``window``, then the operator's dims
``member``          each step and place                      ``window``, which is one step, then as ``step``
``[member, step]``  each window and place                    as ``step``
==================  =======================================  ==================================================

**Members** are simulations of an ensemble. Here they are the first dimension of a variable, called ``member``: the
framework hands each member's field to `update` as one more entry of the batch, without that dimension, and says which
it is of (`Batch.members`). So a fold of steps is a fold of members too, and it does not matter whether they come in one
block, from several ranks, or at different times.

**Laws**, checked for every registered operator by `insitu.testing.check_operator`: `merge` is associative and
commutative within the stated tolerance, ``merge(init(), s) == s``, `update` over split blocks equals `update` over
the whole, no input array is kept or changed, a state survives serialisation.

**Places that need each other.** With cells kept, the places of a window are finalised each for itself. Where a result
is of the whole field, as a principal component is, an operator is a `JointOperator`: each place says a little about its
state, that is combined over all places, and every place is finalised with it. No field is ever gathered.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from insitu.errors import OperatorError
from insitu.model import Array, Extent, Step, Variable, parameter_of
from insitu.windows import Every, Panes, WindowLength, fault_of_windows, is_time

#: A state is a dict of NumPy arrays, numbers, strings, booleans, ``None``, and lists or dicts of these: whatever can
#: be sent, checkpointed and measured by one who knows nothing about the operator.
State = dict[str, Any]

Dimension = Literal["member", "step", "space"]
Where = Literal["staging", "node", "rank"]
NanPolicy = Literal["propagate", "skip", "fail"]


def _as_tuple(value: object) -> object:
    """Let YAML say ``of: u`` for ``of: [u]``."""
    return (value,) if isinstance(value, str) else value


_Some = Annotated[tuple[str, ...], Field(min_length=1)]
_SomeDimensions = Annotated[tuple[Dimension, ...], Field(min_length=1)]
Names = Annotated[_Some, BeforeValidator(_as_tuple, json_schema_input_type=str | _Some)]
Over = Annotated[_SomeDimensions, BeforeValidator(_as_tuple, json_schema_input_type=Dimension | _SomeDimensions)]


@dataclass(frozen=True, slots=True)
class Batch:
    """The blocks of one or several steps of the same place.

    ``batch["u"]`` holds one array per entry of `steps`, read-only and C-contiguous, to be neither kept nor changed.
    For an array variable all have the same shape; for a joined one the first dimension may differ. `start` gives each
    variable's place in its global array. With ``over: member`` a step has several entries, and `members` says of which
    member each is; else it is empty.
    """

    steps: Sequence[Step]
    variables: Mapping[str, Variable]
    start: Mapping[str, Extent]
    arrays: Mapping[str, Sequence[Array]]
    #: Who published the blocks, for those that must keep joined rows in order; folds need not know.
    rank: int = 0
    #: Of which member each entry is, where the operator reduces over members.
    members: Sequence[int] = ()

    def __getitem__(self, name: str) -> Sequence[Array]:
        return self.arrays[name]

    def __len__(self) -> int:
        return len(self.steps)

    def split(self) -> "list[Batch]":
        """One batch per step, in order."""
        return [
            replace(
                self,
                steps=(step,),
                arrays={name: (arrays[k],) for name, arrays in self.arrays.items()},
                members=self.members[k : k + 1],
            )
            for k, step in enumerate(self.steps)
        ]


#: What an operator adds to its reductions to whom a member is as good as a step.
OVER_MEMBERS = frozenset({frozenset({"member"}), frozenset({"member", "step"})})


class Operator(BaseModel, ABC):
    """Base of all folds; also the model of its entry in the YAML, so a field here is a key there.

    A subclass adds its own fields and the five methods. The framework calls the methods of one state from one thread
    at a time; different states may be folded at once by different threads, so an operator keeps nothing in itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Reductions that the operator can do; one of them is chosen by `over`.
    reductions: ClassVar[frozenset[frozenset[str]]] = frozenset(
        {frozenset({"step"}), frozenset({"space"}), frozenset({"step", "space"})}
    )
    #: Whether windows may overlap or be spans of time; not where a fold must know where its window begins.
    slides: ClassVar[bool] = True
    #: Whether a state grows with its steps, so that panes are better merged anew for each window than kept merged.
    grows: ClassVar[bool] = False
    #: Whether states stay at the staging nodes, as Dask data, however small they are.
    stays: ClassVar[bool] = False
    #: Why an operator cannot fold inside the simulation's ranks; empty where it can.
    not_on_ranks: ClassVar[str] = ""

    of: Names = Field(
        description="what to fold: a variable, a parameter (parameters.feed), or several; or results, as stats.mean"
    )
    over: Over = Field(
        description="what is reduced: step (keeps every cell), space (keeps every step), or both; where an operator "
        "can, member (keeps cells and steps), or member and step"
    )
    window: WindowLength = Field(
        default="run", description="published steps, or physical time, of one result; run for one over all steps"
    )
    every: Every | None = Field(
        default=None, description="how far the beginnings of windows are apart; none: as far as a window is long"
    )
    where: Where = Field(
        default="staging",
        description="where it folds. staging: on the staging nodes; node: on one of the rank's own machine, over "
        "shared memory; rank: inside the simulation, which then sends states instead of fields",
    )

    @model_validator(mode="before")
    @classmethod
    def _members_are_of_one_step(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("over") in ("member", ["member"], ("member",)):
            return {"window": 1} | data
        return data

    @model_validator(mode="after")
    def _over_is_possible(self) -> "Operator":
        if frozenset(self.over) not in self.reductions:
            known = " or ".join(sorted(str(sorted(way)) for way in self.reductions))
            raise ValueError(f"over: {list(self.over)} is not possible here, take {known}")
        if self.over == ("member",) and self.window != 1:
            raise ValueError(
                f"window: {self.window} has no meaning with over: member, which gives one result per step; "
                "take over: [member, step] or leave the window out"
            )
        return self

    @model_validator(mode="after")
    def _windows_are_possible(self) -> "Operator":
        for key in ("window", "every") if self.keeps_steps else ():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key}: {getattr(self, key)} has no meaning with over: space, which gives one result per step; "
                    f"take over: [step, space] or leave {key} out"
                )
        if not self.slides and (self.every is not None or is_time(self.window)):
            what = f"every: {self.every}" if self.every is not None else f"window: {self.window}"
            raise ValueError(f"{what} is not possible here; windows are a number of steps, one after the other")
        if fault := fault_of_windows(self.window, self.every):
            raise ValueError(fault)
        return self

    @property
    def panes(self) -> Panes:
        """How windows are put together."""
        return Panes.of(self.window, self.every)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The variables that a batch holds: `of`, and what else a fold needs beside it."""
        return self.of

    @property
    def needs_all(self) -> bool:
        """Whether a step without one of the inputs is left out."""
        return True

    @property
    def sources(self) -> tuple[str, ...]:
        """The operators whose results are folded: what stands before the dot in `inputs`; none for variables, nor for
        the simulation's parameters, which come with each step as variables do."""
        results = (name for name in self.inputs if "." in name and parameter_of(name) is None)
        return tuple(dict.fromkeys(name.partition(".")[0] for name in results))

    @property
    def keeps_cells(self) -> bool:
        """One state per place, whose parts are tiled."""
        return "space" not in self.over

    @property
    def keeps_steps(self) -> bool:
        """One state per step, whatever place it is of."""
        return "step" not in self.over and not self.over_members

    @property
    def over_members(self) -> bool:
        """Members are entries of a batch; a result has no such dimension."""
        return "member" in self.over

    def stop_when(self, name: str, dims: Mapping[str, int] | None) -> str:
        """Return the condition, as a rule has it, under which the simulation may stop; none where it is empty.

        For operators with a key ``until``. `name` is the operator's in the configuration; `dims` has the number of
        dimensions of each result, ``None`` where they are not known yet.
        """
        return ""

    def seen(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        """Return the variables as this operator gets them: with ``over: member``, those of one member."""
        return {name: _of_one_member(each) if self.over_members else each for name, each in inputs.items()}

    def seen_batch(self, batch: Batch) -> Batch:
        """Return a batch as this operator gets it: with ``over: member``, with an entry for each step and member."""
        if not self.over_members:
            return batch
        variables = self.seen(batch.variables)
        first = self.of[0]
        lengths = [len(array) for array in batch[first]]
        low = batch.start[first][0]
        for name, arrays in batch.arrays.items():
            if batch.start[name][0] != low or [len(array) for array in arrays] != lengths:
                raise OperatorError(f"'{first}' and '{name}' are not there for the same members; publish both for each")
        return replace(
            batch,
            steps=tuple(step for step, length in zip(batch.steps, lengths, strict=True) for _ in range(length)),
            variables=variables,
            start={name: start[1:] for name, start in batch.start.items()},
            arrays={
                name: tuple(each for array in arrays for each in _each(array)) for name, arrays in batch.arrays.items()
            },
            members=tuple(low + k for length in lengths for k in range(length)),
        )

    def warm_up(self) -> None:
        """Compile what the first `update` would compile. Called once per process, before the first step."""

    @abstractmethod
    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        """Say what `finalize` will yield for these inputs, without the leading ``window`` or ``step``.

        Called by ``insitu check`` and at the first step. A result that keeps cells ends in the input's dims and global
        shape. Raises `OperatorError` for inputs that can never be folded (cells of a joined variable, wrong rank of
        an array, complex numbers).
        """

    @abstractmethod
    def init(self) -> State:
        """Return the state of no data: the neutral element of `merge`. Costs no memory that grows with the cells."""

    @abstractmethod
    def update(self, state: State, batch: Batch) -> State:
        """Fold a batch into a state and return it; `state` may be changed in place, the batch may not."""

    @abstractmethod
    def merge(self, a: State, b: State) -> State:
        """Return the state of the data of both; `a` may be changed in place, `b` may not."""

    @abstractmethod
    def finalize(self, state: State) -> dict[str, Array]:
        """Read a state, which stays as it is. Keys, dims and dtypes are those of `describe`.

        With cells kept, each array that `describe` ends in the cells' dims ends in the place's own counts here.
        """


class JointOperator(Operator):
    """An operator whose places must know something of each other before any of them can be finalised.

    At the end of a window the framework has each place's state summed up where it lies (`summarize`), joins these
    summaries in any tree (`combine`), and finalises each place with the one that is left (`finalize_place`). A summary
    is all that travels: its size must not depend on the number of cells. Summaries are a commutative monoid too, whose
    neutral element is ``summarize(init())``. Their methods are called once for each place and window; where cells are
    reduced there are no places, and `finalize` is called alone.
    """

    @abstractmethod
    def summarize(self, state: State) -> State:
        """Return what the other places need of this one's state, which stays as it is."""

    @abstractmethod
    def combine(self, a: State, b: State) -> State:
        """Return the summary of the places of both, which stay as they are."""

    @abstractmethod
    def finalize_place(self, state: State, summary: State) -> dict[str, Array]:
        """Read the state of one place with the `summary` of all, as `finalize` does; both stay as they are.

        A result without cells is read off the summary alone, so that it is the same at every place.
        """

    def finalize(self, state: State) -> dict[str, Array]:
        """Read a state that has all cells."""
        return self.finalize_place(state, self.summarize(state))


class SeriesOperator(JointOperator):
    """A joint operator that also yields values of the single steps of a window, one after the other: its *series*.

    Windows of one run follow each other, so that a series can go on where the window before has left off, in the same
    directions and with the same signs: `follow` puts what that window has left as a *memory* into the summary of the
    next one, before any place is finalised with it. Both are called once for each window, in their order.
    """

    @abstractmethod
    def describe_series(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        """Say what each step of `series` will have for these inputs, without the leading ``step``."""

    @abstractmethod
    def follow(self, summary: State, memory: State) -> State:
        """Return the summary of all places with what the window before has left, which is nothing at the first one.

        `finalize_place` is given what this returns. Both arguments stay as they are.
        """

    @abstractmethod
    def series(self, summary: State) -> tuple[list[tuple[Step, dict[str, Array]]], State]:
        """Return the steps that no window before had, in order, with their values; and the memory for the next window.

        `summary` is one that `follow` returned. A memory must not grow with steps or cells.
        """

    def finalize(self, state: State) -> dict[str, Array]:
        """Read a state that has all cells, of a window that follows no other."""
        return self.finalize_place(state, self.follow(self.summarize(state), {}))


def _of_one_member(variable: Variable) -> Variable:
    if variable.joined or variable.dims[:1] != ("member",):
        raise OperatorError(
            f"'{variable.name}' has no members to reduce over: its first dimension would be called member, and it has "
            f"{', '.join(variable.dims) or 'none'}; publish all members as one array, or take over: step"
        )
    return replace(variable, shape=(variable.shape or ())[1:], dims=variable.dims[1:])


def _each(array: Array) -> list[Array]:
    """Return the fields of an array's members; a member's single number is an array, too."""
    return [array[k, ...] for k in range(len(array))]


def require_array(operator: Operator, inputs: Mapping[str, Variable]) -> None:
    """Raise `OperatorError` unless every input has cells that stay where they are from step to step."""
    for name in operator.of:
        if operator.keeps_cells and inputs[name].joined:
            raise OperatorError(
                f"'{name}' is joined over the ranks and has no cells that stay in place from step to step; "
                "fold it with over: space or over: [step, space]"
            )


def state_nbytes(state: Any) -> int:
    """Bytes that a state's arrays hold; numbers and strings count 8 each."""
    if isinstance(state, dict):
        return sum(state_nbytes(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(state_nbytes(value) for value in state)
    return int(getattr(state, "nbytes", 8))
