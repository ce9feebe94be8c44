# SPDX-License-Identifier: Apache-2.0
"""What a simulation calls.

`Client`, `Client.step` and `put` publish; `Client.parameter`, `state`, `action`, `on_checkpoint` and `stopping` let the
run steer. Without the environment variable ``INSITU_CONTACT`` every call does nothing, in below two microseconds, so
that the instrumented code runs as before where no analysis is wanted.

A client belongs to the thread that made it. It calls no MPI; `comm` is asked for its rank and size and nothing else,
but where the configuration says ``steering: {agree: mpi}``.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, Self, TypeVar

import numpy as np

from insitu.client.catalogue import Catalogue, Halo
from insitu.client.contract import Contract
from insitu.client.controller import ControllerLink
from insitu.client.encoding import Encoder
from insitu.client.folding import Folding
from insitu.client.launcher import Communicator, rank_and_size
from insitu.client.link import NodeLink
from insitu.client.models import Models
from insitu.client.parameters import FreeState, Function, Parameter, StateArray
from insitu.client.policy import Policy
from insitu.client.publisher import Publisher
from insitu.client.spool import Spool
from insitu.client.steering import Broadcaster, Steered
from insitu.client.tracing import Tracer
from insitu.client.writer import NO_STEP, NoStep, StepWriter, UnpublishedStep
from insitu.errors import ActionError, LocalProtocolError, RunError
from insitu.model import Array, Step
from insitu.steering.parameters import ParameterSpec, Value
from insitu.wire.addresses import is_here
from insitu.wire.contact import Contact
from insitu.wire.lane import LANE_BYTES, Bell, Lane, lanes_work
from insitu.wire.messages import VERSION, Attach, Bye, Event, Hello, Lend, Share, Welcome
from insitu.wire.segment import Segment
from insitu.wire.sockets import connect

log = logging.getLogger("insitu.client")

F = TypeVar("F", bound=Callable[[], object])

#: The environment variable that names the contact file; the run's launcher sets it.
CONTACT = "INSITU_CONTACT"
#: The number of this simulation's stream in the run.
MEMBER = 0
#: The controller is up before the simulation starts, so an answer takes milliseconds; this is for a loaded machine.
CONNECT_TIMEOUT_S = 30.0


class Client:
    """One rank's part in a run.

    `contact` is the path of the contact file (default: ``INSITU_CONTACT``; a client without any does nothing), `comm`
    an mpi4py communicator (default: what the launcher's environment says).

    Raises `LocalProtocolError` when the run refuses this rank, and `RunError` for a contact file that cannot be used. A
    controller that does not answer within `CONNECT_TIMEOUT_S` is warned of, and the simulation goes on without it.

    It is the process's that made it. Where that is forked (`os.fork`, `multiprocessing`), a step of the child raises
    `LocalProtocolError`, and `close` leaves all to the parent.

    >>> with Client() as sim:
    ...     feed = sim.parameter("feed", 0.035, minimum=0.0)
    ...     for n in range(3):
    ...         with sim.step(n, time=0.1 * n) as step:
    ...             step.put("u", [feed.value] * 4, shape=(4,))
    """

    def __init__(self, contact: str | os.PathLike[str] | None = None, *, comm: Communicator | None = None) -> None:
        self._publisher: Publisher | None = None
        self._published = 0
        self._last_index: int | None = None
        path = contact if contact is not None else os.environ.get(CONTACT)
        if not path:
            return
        self.rank, self.size = rank_and_size(comm)
        self._comm = comm
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
        self._steered = self._be_steered(welcome)
        contract = Contract(self.rank, welcome.needs, self._controller.say)
        publisher = self._attach(contact, welcome, contract)
        self._steered.meet(welcome.steering.scheduled, CONNECT_TIMEOUT_S, publisher.patience.stand_still)
        self._models = Models(contact.directory)
        self._writer = StepWriter(Catalogue(self.rank, contract), contract, publisher, self._steered)
        self._unpublished = UnpublishedStep(publisher, self._steered)
        self._publisher = publisher

    def _be_steered(self, welcome: Welcome) -> Steered:
        comm: Broadcaster | None = None
        if welcome.steering.agree == "mpi" and self.size > 1:
            if not hasattr(self._comm, "Bcast"):
                raise LocalProtocolError(
                    "The run agrees on actions by MPI (steering.agree: mpi); pass the communicator: "
                    "Client(comm=MPI.COMM_WORLD), or take agree: promise."
                )
            comm = self._comm  # type: ignore[assignment]
        steered = Steered(self.rank, welcome.steering, self._controller, comm)
        self._controller.steer = steered.hear
        return steered

    def _folding(self, contact: Contact, welcome: Welcome) -> Folding | None:
        """Load and compile what this rank is to fold, where that is anything."""
        if not welcome.folds:
            return None
        if missing := [name for name in welcome.folds if name not in contact.folds]:
            raise LocalProtocolError(
                f"The run has rank {self.rank} fold {', '.join(missing)}, of which its contact file says nothing; set "
                "INSITU_CONTACT to the file of the run that goes on."
            )
        entries = {name: contact.folds[name] for name in welcome.folds}
        return Folding(self.rank, MEMBER, entries, welcome.buffer_bytes, self._controller.say)

    def _tracer(self, welcome: Welcome) -> Tracer | None:
        if not welcome.trace_every:
            return None
        return Tracer(self.rank, MEMBER, welcome.trace_seed, welcome.trace_every, self._controller.say)

    def _attach(self, contact: Contact, welcome: Welcome, contract: Contract) -> Publisher:
        segment = _segment(welcome)
        policy = Policy(welcome.policy, welcome.every)
        attach = Attach(VERSION, contact.run, MEMBER, self.rank, socket.gethostname(), os.getpid())
        # What is folded here is shipped in the background, by ZeroMQ, and has to stay in line with all else.
        bell = Bell() if segment is not None and lanes_work() and not welcome.folds else None

        def link(share: Share) -> NodeLink:
            # Once all nodes have mapped the memory it has no name that another one could find it by.
            lent = segment if segment is not None and segment.named else None
            return NodeLink(
                connect(self._address_of(share, welcome.transport, lent), contact.keys),
                share.node,
                attach,
                None if lent is None else Lend(lent.name, lent.secret, lent.data.nbytes),
                Encoder(share.node, welcome.needs, self._controller.say),
                publisher.done,
                policy.under_way,
                lost=publisher.lost,
                free=welcome.free,
                lane=None if lent is None or bell is None else _new_lane(bell),
                bell="" if bell is None else bell.name,
            )

        publisher = Publisher(
            self.rank,
            buffer_bytes=welcome.buffer_bytes,
            segment=segment,
            bell=bell,
            spool=Spool(welcome.spill_directory, welcome.spill_bytes) if welcome.spill_bytes else None,
            max_wait_s=welcome.max_wait_s,
            policy=policy,
            then=welcome.then,
            controller=self._controller,
            contract=contract,
            connect=link,
            folding=self._folding(contact, welcome),
            stays=welcome.stays,
            tracer=self._tracer(welcome),
        )
        publisher.planning.begin(welcome.shares)
        publisher.meet(CONNECT_TIMEOUT_S)
        return publisher

    def _address_of(self, share: Share, transport: str, segment: Segment | None) -> str:
        """Return where to reach a staging node: by a local socket where that is wanted or no memory is shared."""
        if transport == "tcp" or segment is not None:
            return share.address
        if is_here(share.local):
            return share.local
        if transport == "ipc":
            text = f"rank {self.rank} reaches staging node {share.node} by no local socket: going on over tcp"
            log.warning(text)
            self._controller.say(Event("warning", "no-ipc", text, {"rank": self.rank, "node": share.node}))
        return share.address

    @property
    def attached(self) -> bool:
        """Whether this client takes part in a run; without one every call does nothing."""
        return self._publisher is not None

    @property
    def stopping(self) -> bool:
        """Whether the simulation is asked to end; true on all ranks after the same step."""
        return self._publisher is not None and self._steered.stopping

    def parameter(
        self,
        name: str,
        default: Value | Sequence[Any],
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        choices: Sequence[Value] = (),
        units: str = "",
        description: str = "",
    ) -> Parameter:
        """Declare a value that the run may change between steps; all ranks declare the same, before their first step.

        The default tells the kind: a float, an int, a bool, a str, or an array of at most 4096 numbers (a list becomes
        one), whose shape stays. `minimum` and `maximum` are inclusive, and hold for each cell; `choices` lists all
        values that a scalar may have.

        Raises `LocalProtocolError` for a default that contradicts them, and for a name that is taken.
        """
        if self._publisher is None:
            return Parameter(name, np.asarray(default) if isinstance(default, (list, tuple)) else default)
        spec = _declared(
            lambda: ParameterSpec.of(
                name, default, minimum=minimum, maximum=maximum, choices=choices, units=units, description=description
            )
        )
        return self._steered.parameter(spec)

    def state(
        self,
        name: str,
        array: Array,
        *,
        start: Sequence[int] | None = None,
        shape: Sequence[int] | None = None,
        halo: Halo = 0,
        minimum: float | None = None,
        maximum: float | None = None,
        units: str = "",
        description: str = "",
    ) -> StateArray | FreeState:
        """Declare a field that the run may overwrite between steps, in place: data assimilation, hybrid twins.

        `array` is this rank's part, which lies at `start` of the global `shape` without its `halo`, as in `put`; each
        rank gets its own part of what the field is set to. Halo cells are left as they are. Where the simulation goes
        on with another array (two that are swapped), assign that: ``state.array = u``.

        Raises `LocalProtocolError` for a part that does not lie inside the shape.
        """
        if self._publisher is None:
            return FreeState(name, array)
        return self._steered.state(
            _declared(
                lambda: StateArray(
                    name, array, start=start, shape=shape, halo=halo,
                    minimum=minimum, maximum=maximum, units=units, description=description,
                )
            )
        )  # fmt: skip

    def action(
        self, name: str, call: Callable[..., object], description: str = "", /, **arguments: Value | Mapping[str, Any]
    ) -> None:
        """Declare an action of the simulation's own: `call` is called with the arguments, on all ranks at one step.

        Each argument is a default, which tells its kind, or a dict with `default` and the keywords of `parameter`:

            sim.action("perturb", perturb, "add noise to u", amplitude={"default": 0.1, "minimum": 0.0}, seed=0)

        What `call` raises is caught and told in the receipt; the simulation goes on.

        Raises `LocalProtocolError` for a name that is taken, and for a default that contradicts its bounds.
        """
        if self._publisher is not None:
            self._steered.function(_declared(lambda: Function.of(name, call, description, arguments)))

    def on_checkpoint(self, call: F) -> F:
        """Declare what writes a checkpoint; it is called without arguments after a step, on all ranks the same."""
        if self._publisher is not None:
            self._steered.function(Function("checkpoint", call, {}, "write a checkpoint"))
        return call

    def model(self, name: str, version: int | None = None) -> Any:
        """Return a version of a network that this run trains, the newest one unless another is asked for; or ``None``
        while there is none, and without a run.

        It is called with inputs as they are on the stream, (n, *shape) or one sample, and returns float32 arrays; its
        `number` and `card` say which it is. Loaded once for each version, checked by its card's checksum. Imports
        PyTorch at the first call. Looking for a newer version costs some 20 microseconds. Ranks that have to use the
        same one agree on its number, and ask for that.

        Raises `RunError` for a version that is not there or not whole, and where this rank does not reach the run's
        directory `LocalProtocolError`.
        """
        if self._publisher is None:
            return None
        return self._models.get(name, version)

    def step(self, index: int, *, time: float = 0.0) -> StepWriter | UnpublishedStep | NoStep:
        """Open step `index` at physical `time`; use it in a ``with`` statement.

        The step is atomic: the staging side sees it once every rank has closed it, or not at all. Raises
        `LocalProtocolError` for an index that is not above the one before, and for a time that is not finite.
        """
        if self._publisher is None:
            return NO_STEP
        self._publisher.require_own()
        if self._last_index is not None and index <= self._last_index:
            raise LocalProtocolError(
                f"rank {self.rank}: step {index} does not come after step {self._last_index}; steps only go forward."
            )
        if not isfinite(time):
            raise LocalProtocolError(f"rank {self.rank}: step {index} has time {time!r}; give a finite number.")
        step = Step(self._published, int(index), float(time))
        if self._steered.publishes():
            self._published += 1
            writer: StepWriter | UnpublishedStep = self._writer.open(step)
        else:
            writer = self._unpublished.open(step)
        self._last_index = step.index
        return writer

    def close(self) -> None:
        """Bring out the last steps, for at most `max_wait`, and leave the run. May be called twice.

        In a fork it only lets go: the run goes on with the parent.
        """
        publisher, self._publisher = self._publisher, None
        if publisher is None or publisher.forked:
            return
        begin = time.monotonic()
        publisher.finish(self._published)
        publisher.report()
        self._controller.say(Bye(self._published, {**publisher.counters, "close_s": time.monotonic() - begin}))
        publisher.close_links()
        publisher.close_memory()
        if not self._controller.close():
            log.warning("rank %d ends without a controller. What it knows of its %s", self.rank, publisher.told())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


T = TypeVar("T")


def _declared(make: Callable[[], T]) -> T:
    """What is wrong with a declaration is wrong with the call."""
    try:
        return make()
    except ActionError as error:
        raise LocalProtocolError(str(error)) from None


def _segment(welcome: Welcome) -> Segment | None:
    """Return memory that staging nodes of this machine can map, where it is wanted and to be had."""
    if welcome.transport in ("tcp", "ipc"):
        return None
    try:
        return Segment.create(welcome.buffer_bytes)
    except RunError as error:
        if welcome.transport == "shm":
            raise
        log.warning("%s Going on over local sockets, or over tcp where there are none.", error)
        return None


def _new_lane(bell: Bell) -> Lane | None:
    """Return memory for messages to one staging node, where it is to be had."""
    try:
        return Lane(Segment.create(LANE_BYTES), bell, makes=True)
    except RunError:
        return None  # blocks go through shared memory all the same, and ZeroMQ says where they are
