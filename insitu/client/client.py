# SPDX-License-Identifier: Apache-2.0
"""What a simulation calls.

`Client`, `Client.step`, `put`, `Client.parameter` and `Client.stopping` are all there is. Without the environment
variable ``INSITU_CONTACT`` every call does nothing, in below two microseconds, so that the instrumented code runs as
before where no analysis is wanted.

A client belongs to the thread that made it. It calls no MPI; `comm` is asked for its rank and size and nothing else.
"""

import logging
import os
import socket
import time
from collections.abc import Sequence
from math import isfinite
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from insitu.client.catalogue import Catalogue, Halo, Known, Put
from insitu.client.contract import Contract, Sent
from insitu.client.controller import ControllerLink
from insitu.client.encoding import Encoder
from insitu.client.launcher import Communicator, rank_and_size
from insitu.client.link import NodeLink
from insitu.client.policy import Policy
from insitu.client.publisher import Publisher
from insitu.errors import InsituError, LocalProtocolError, RunError
from insitu.model import Array, Extent, Step
from insitu.plan import Part
from insitu.wire.contact import Contact
from insitu.wire.messages import VERSION, Attach, Bye, Declare, Hello, Lend, Scalar, Welcome
from insitu.wire.segment import Segment
from insitu.wire.sockets import connect

log = logging.getLogger("insitu.client")

#: The environment variable that names the contact file; the run's launcher sets it.
CONTACT = "INSITU_CONTACT"
#: The number of this simulation's stream in the run.
MEMBER = 0
#: The controller is up before the simulation starts, so an answer takes milliseconds; this is for a loaded machine.
CONNECT_TIMEOUT_S = 30.0


class Parameter:
    """A value that the run knows by name. `value` is what the simulation is to use from the next step on."""

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: Scalar) -> None:
        self.name = name
        self.value: Any = value

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, {self.value!r})"


class StepWriter:
    """An open step. Leaving the ``with`` block closes it; leaving it by an exception abandons it on all ranks."""

    def __init__(self, catalogue: Catalogue, contract: Contract, publisher: Publisher) -> None:
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
        asked = Put(data, _extent(start), _extent(shape), _names(dims), units, long_name, halo)
        known, interior = self._admit(name, asked)
        if known.sent is not None:
            self._publish(known.sent, interior)

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
        block = np.broadcast_to(np.empty((), dtype), tuple(count))
        known, _ = self._admit(name, Put(block, _extent(start), _extent(shape), _names(dims), units, long_name, 0))
        sent = known.sent
        if sent is not None and sent.as_put:
            room = self._publisher.empty(sent.spec, sent.spec_id, tuple(count))
            if room is not None:
                return room
        spare = self._spare(name, block)
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

    def _spare(self, name: str, like: Array) -> Array:
        """Return memory that is not sent: the same for each step, so that its pages are there."""
        spare = self._scratch.get(name)
        if spare is None or spare.shape != like.shape or spare.dtype != like.dtype:
            spare = self._scratch[name] = np.empty(like.shape, like.dtype)
        return spare

    def _admit(self, name: str, asked: Put) -> tuple[Known, Array]:
        if self._step is None:
            raise LocalProtocolError(
                f"put of '{name}' outside a step; write: with sim.step(n, time=t) as step: step.put(...)."
            )
        if name in self._names:
            raise LocalProtocolError(
                f"put of '{name}' twice in step {self._step.index}; a rank has one block of a variable: join them."
            )
        known, interior = self._catalogue.admit(name, asked, self._step.index)
        self._names.add(name)
        self._contract.count(name, interior, known.sent)
        return known, interior

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._put_late()
                self._publisher.close()
            else:
                self._publisher.abandon(f"the simulation raised {kind.__name__} inside the step")
        finally:
            self._step = None

    def _put_late(self) -> None:
        """Publish the parts of what the author has written into spare memory."""
        try:
            for sent, spare in self._late:
                self._publish(sent, spare)
        except InsituError as error:
            self._publisher.abandon(str(error))
            raise


class _NoStep:
    """The step of a client without a run."""

    def put(self, *_: object, **__: object) -> None:
        pass

    def empty(self, name: str, count: Sequence[int], dtype: npt.DTypeLike = float, **_: object) -> Array:
        return np.empty(tuple(count), dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_NO_STEP = _NoStep()


class Client:
    """One rank's part in a run.

    `contact` is the path of the contact file (default: ``INSITU_CONTACT``; a client without any does nothing), `comm`
    an mpi4py communicator (default: what the launcher's environment says).

    Raises `LocalProtocolError` when the run refuses this rank, and `RunError` for a contact file that cannot be used. A
    controller that does not answer within `CONNECT_TIMEOUT_S` is warned of, and the simulation goes on without it.

    >>> with Client() as sim:
    ...     feed = sim.parameter("feed", 0.035, minimum=0.0)
    ...     for n in range(3):
    ...         with sim.step(n, time=0.1 * n) as step:
    ...             step.put("u", [feed.value] * 4, shape=(4,))
    """

    def __init__(self, contact: str | os.PathLike[str] | None = None, *, comm: Communicator | None = None) -> None:
        self._publisher: Publisher | None = None
        self._steps = 0
        self._last_index: int | None = None
        path = contact if contact is not None else os.environ.get(CONTACT)
        if not path:
            return
        self.rank, self.size = rank_and_size(comm)
        self._join(Contact.read(path))

    def _join(self, contact: Contact) -> None:
        hello = Hello(VERSION, contact.run, MEMBER, self.rank, self.size, socket.gethostname(), os.getpid())
        self._controller = ControllerLink(connect(contact.address, contact.keys))
        welcome = self._controller.join(hello, CONNECT_TIMEOUT_S)
        if welcome is None:
            log.warning(
                "rank %d: no answer from the controller of run '%s' at %s within %g s; going on without it",
                self.rank, contact.run, contact.address, CONNECT_TIMEOUT_S,
            )  # fmt: skip
            self._controller.give_up()
            return
        contract = Contract(self.rank, welcome.needs, self._controller.say)
        self._publisher = self._attach(contact, welcome, contract)
        self._writer = StepWriter(Catalogue(self.rank, contract), contract, self._publisher)

    def _attach(self, contact: Contact, welcome: Welcome, contract: Contract) -> Publisher:
        segment = _segment(welcome)
        policy = Policy(welcome.policy, welcome.every)
        publisher = Publisher(
            self.rank,
            buffer_bytes=welcome.buffer_bytes,
            segment=segment,
            max_wait_s=welcome.max_wait_s,
            policy=policy,
            then=welcome.then,
            controller=self._controller,
            contract=contract,
        )
        attach = Attach(VERSION, contact.run, MEMBER, self.rank, socket.gethostname(), os.getpid())
        lend = None if segment is None else Lend(segment.name, segment.secret, segment.data.nbytes)
        for share in welcome.shares:
            part = Part(share.node, share.low, share.high, share.of)
            encoder = Encoder(share.node, welcome.needs, self._controller.say)
            link = connect(share.address, contact.keys)
            publisher.links.append(NodeLink(link, part, attach, lend, encoder, publisher.done, policy.under_way))
        publisher.meet(CONNECT_TIMEOUT_S)
        return publisher

    @property
    def attached(self) -> bool:
        """Whether this client takes part in a run; without one every call does nothing."""
        return self._publisher is not None

    @property
    def stopping(self) -> bool:
        """Whether the simulation is asked to end; true on all ranks after the same step."""
        return self._publisher is not None and self._controller.stops_after(self._steps - 1)

    def parameter(
        self,
        name: str,
        default: Scalar,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        units: str = "",
        description: str = "",
    ) -> Parameter:
        """Declare a value that the run is to know; all ranks declare the same.

        Raises `LocalProtocolError` for a default outside its bounds.
        """
        if self._publisher is not None:
            for bound, wrong in ((minimum, "below the minimum"), (maximum, "above the maximum")):
                if bound is not None and (default < bound if bound is minimum else default > bound):  # type: ignore[operator]
                    raise LocalProtocolError(f"parameter '{name}': the default {default!r} is {wrong} {bound!r}.")
            self._controller.say(Declare(name, default, minimum, maximum, units, description))
        return Parameter(name, default)

    def step(self, index: int, *, time: float = 0.0) -> StepWriter | _NoStep:
        """Open step `index` at physical `time`; use it in a ``with`` statement.

        The step is atomic: the staging side sees it once every rank has closed it, or not at all. Raises
        `LocalProtocolError` for an index that is not above the one before, and for a time that is not finite.
        """
        if self._publisher is None:
            return _NO_STEP
        if self._last_index is not None and index <= self._last_index:
            raise LocalProtocolError(
                f"rank {self.rank}: step {index} does not come after step {self._last_index}; steps only go forward."
            )
        if not isfinite(time):
            raise LocalProtocolError(f"rank {self.rank}: step {index} has time {time!r}; give a finite number.")
        step = Step(self._steps, int(index), float(time))
        writer = self._writer.open(step)
        self._steps += 1
        self._last_index = step.index
        return writer

    def close(self) -> None:
        """Bring out the last steps, for at most `max_wait`, and leave the run. May be called twice."""
        publisher, self._publisher = self._publisher, None
        if publisher is None:
            return
        begin = time.monotonic()
        publisher.finish(self._steps)
        publisher.report()
        self._controller.say(Bye(self._steps, {**publisher.counters, "close_s": time.monotonic() - begin}))
        publisher.close_links()
        publisher.close_memory()
        self._controller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _segment(welcome: Welcome) -> Segment | None:
    """Return memory that staging nodes of this machine can map, where it is wanted and to be had."""
    if welcome.transport == "tcp":
        return None
    try:
        return Segment.create(welcome.buffer_bytes)
    except RunError as error:
        if welcome.transport == "shm":
            raise
        log.warning("%s Going on over tcp.", error)
        return None


def _extent(lengths: Sequence[int] | None) -> Extent | None:
    return None if lengths is None else tuple(lengths)


def _names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return names if names is None or isinstance(names, str) else tuple(names)  # type: ignore[return-value]
