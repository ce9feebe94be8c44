# SPDX-License-Identifier: Apache-2.0
"""An open step, as the simulation's author sees it."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from insitu.client.catalogue import Catalogue, Halo, Known, Put
from insitu.client.contract import Contract, Sent
from insitu.client.publisher import Publisher
from insitu.client.steering import Steered
from insitu.errors import InsituError, LocalProtocolError
from insitu.model import Array, Extent, Step


class StepWriter:
    """An open step. Leaving the ``with`` block closes it; leaving it by an exception abandons it on all ranks."""

    def __init__(self, catalogue: Catalogue, contract: Contract, publisher: Publisher, steered: Steered) -> None:
        self._steered = steered
        self._catalogue = catalogue
        self._contract = contract
        self._publisher = publisher
        self._step: Step | None = None
        self._names: set[str] = set()
        self._scratch: dict[str, Array] = {}
        self._late: list[tuple[Sent, Array]] = []

    def open(self, step: Step) -> Self:
        self._step = step
        self._names.clear()
        self._late.clear()
        self._publisher.open(step)
        return self

    def put(
        self,
        name: str,
        data: npt.ArrayLike,
        *,
        start: Sequence[int] | None = None,
        shape: Sequence[int] | None = None,
        dims: Sequence[str] | None = None,
        units: str = "",
        long_name: str = "",
        halo: Halo = 0,
    ) -> None:
        """Publish this rank's block of a variable.

        `data` is any numeric array, in any memory order, contiguous or not; it is copied and may be changed as soon as
        `put` returns. `shape` is the global shape and `start` the place of `data`'s first cell in it, both *without*
        the halo: `halo` cells are cut off first, given as one number, or per dimension as a number or a pair (before,
        after). `start` may be left out where `data` is the whole.

        Without `shape` the ranks' blocks are joined along the first dimension, in the order of the ranks (particles:
        their number may differ between ranks and steps). A number or 0-d array is one value for the whole
        simulation: rank 0's, whether the other ranks put it too or not.

        An empty block is legal. Costs one copy; waits only where the buffer is full, at most `max_wait`. Of a variable
        that no operator folds nothing is sent: then it is checked, and costs neither.

        Raises `LocalProtocolError` for what this rank can see to be wrong: no open step, a second put of the name in
        this step, a dtype, shape, dims or units unlike the first put's, a block that reaches beyond the shape.
        """
        step = self._require_open(name)
        asked = Put(_extent(start), _extent(shape), _names(dims), units, long_name, halo)
        known, interior = self._catalogue.admit(name, data, asked, step.index)
        sent = self._count(name, known, step)
        if sent is not None:
            self._publish(sent, interior)

    def empty(
        self,
        name: str,
        count: Sequence[int],
        dtype: npt.DTypeLike = float,
        *,
        start: Sequence[int] | None = None,
        shape: Sequence[int] | None = None,
        dims: Sequence[str] | None = None,
        units: str = "",
        long_name: str = "",
    ) -> Array:
        """Return an array of shape `count` to write this rank's block into: a put without a copy.

        Fill all of it before the step is closed, and do not touch it afterwards: it lies where the staging node reads
        it. The other arguments, waits and errors are those of `put`. What it holds at first is undefined. Where only a
        part of the block is sent, or in another dtype, that is copied when the step is closed.
        """
        step = self._require_open(name)
        count, dtype = tuple(count), np.dtype(dtype)
        asked = Put(_extent(start), _extent(shape), _names(dims), units, long_name, 0)
        known = self._catalogue.recall(name, asked, count, dtype)
        if known is None:
            known, _ = self._catalogue.admit(name, np.broadcast_to(np.empty((), dtype), count), asked, step.index)
        sent = self._count(name, known, step)
        if sent is not None and sent.as_put:
            room = self._publisher.empty(sent.spec, sent.spec_id, count)
            if room is not None:
                return room
        spare = self._spare(name, count, dtype)
        if sent is not None and not sent.as_put:
            self._late.append((sent, spare))
        return spare

    def _publish(self, sent: Sent, block: Array) -> None:
        """Copy what is sent of a block."""
        if not sent.narrows:
            self._publisher.put(sent.spec, sent.spec_id, sent.of(block))
            return
        assert self._step is not None
        with self._contract.watched(sent.spec.variable, self._step.index):
            self._publisher.put(sent.spec, sent.spec_id, sent.of(block))

    def _spare(self, name: str, shape: Extent, dtype: np.dtype[Any]) -> Array:
        """Return memory that is not sent: the same for each step, so that its pages are there."""
        spare = self._scratch.get(name)
        if spare is None or spare.shape != shape or spare.dtype != dtype:
            spare = self._scratch[name] = np.empty(shape, dtype)
        return spare

    def _require_open(self, name: str) -> Step:
        if self._step is None:
            raise LocalProtocolError(
                f"put of '{name}' outside a step; write: with sim.step(n, time=t) as step: step.put(...)."
            )
        if name in self._names:
            raise LocalProtocolError(
                f"put of '{name}' twice in step {self._step.index}; a rank has one block of a variable: join them."
            )
        return self._step

    def _count(self, name: str, known: Known, step: Step) -> Sent | None:
        """Count a put; return what is sent of it in this step, if anything."""
        self._names.add(name)
        known.volume.produced += known.adds.produced
        if not self._contract.wants(name, step.sequence):
            return None
        known.volume.selected += known.adds.selected
        return known.sent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._publisher.forked:
            return  # the end of a child is not that of its parent's step
        self._publisher.require_own()
        try:
            if kind is None:
                self._put_parameters()
                self._put_late()
                self._publisher.close()
            else:
                self._publisher.abandon(f"the simulation raised {kind.__name__} inside the step")
        finally:
            step, self._step = self._step, None
            if step is not None:
                self._steered.boundary(step.index, step.time)

    def _put_parameters(self) -> None:
        """Publish the parameters as they were in this step, where any is needed: actions are applied after it.

        Those that nobody needs go no further than other variables do. A text is no variable. An array is rank 0's, as
        a number is. What the simulation itself put by such a name, as a replay does, is taken for what it says.
        """
        if not self._contract.wants_parameters:
            return
        for parameter in self._steered.parameters:
            variable = None if parameter.spec is None else parameter.spec.variable
            if variable is None or variable.name in self._names:
                continue
            value = np.asarray(parameter.value, variable.dtype)
            start, shape = ((0,) * value.ndim, value.shape) if value.ndim else (None, None)
            mine = value if self._contract.rank == 0 or not value.ndim else value[:0]
            self.put(variable.name, mine, start=start, shape=shape, units=variable.units, long_name=variable.long_name)

    def _put_late(self) -> None:
        """Publish the parts of what the author has written into spare memory."""
        try:
            for sent, spare in self._late:
                self._publish(sent, spare)
        except InsituError as error:
            self._publisher.abandon(str(error))
            raise


class NoStep:
    """A step of which nothing is sent; that of a client without a run."""

    def put(self, *_: object, **__: object) -> None:
        pass

    def empty(self, name: str, count: Sequence[int], dtype: npt.DTypeLike = float, **_: object) -> Array:
        return np.empty(tuple(count), dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class UnpublishedStep(NoStep):
    """A step that `trate` does not let through: nothing of it is sent, but actions are applied after it."""

    def __init__(self, publisher: Publisher, steered: Steered) -> None:
        self._publisher = publisher
        self._steered = steered

    def open(self, step: Step) -> Self:
        self._step = step
        self._publisher.look()
        return self

    def __exit__(self, *_: object) -> None:
        self._steered.boundary(self._step.index, self._step.time)


NO_STEP = NoStep()


def _extent(lengths: Sequence[int] | None) -> Extent | None:
    return None if lengths is None else tuple(lengths)


def _names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return names if names is None or isinstance(names, str) else tuple(names)  # type: ignore[return-value]
