# SPDX-License-Identifier: Apache-2.0
"""Who takes part in a run, on which terms, and who does not."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from insitu.errors import RemoteProtocolError
from insitu.wire.messages import Hello, Need, NodeHello, Traffic
from insitu.wire.session import Session
from insitu.wire.steering import ConsoleHello, SteeringTerms


@dataclass(frozen=True, slots=True)
class Terms:
    """What a rank is told when it joins, and how many are expected (``None``: any number)."""

    run: str
    ranks: int | None
    buffer_bytes: int
    max_wait_s: float
    policy: str
    every: int
    then: str
    spill_bytes: int
    spill_directory: str
    transport: str
    needs: tuple[Need, ...]
    steering: SteeringTerms
    folds: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()
    #: Of so many steps one is traced, 0: none, and what their traces follow from.
    trace_seed: str = ""
    trace_every: int = 0
    #: Operators that fold on the ranks' own machines.
    at_home: tuple[str, ...] = ()
    #: The label of a rack, and the names of its hosts as patterns.
    racks: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def rack_of(self, host: str) -> str:
        """Return the label of the rack that a host is in, empty where none is given."""
        found = (rack for rack, patterns in self.racks.items() if any(fnmatchcase(host, each) for each in patterns))
        return next(found, "")


@dataclass(slots=True)
class Peer:
    """One rank, staging node or console that was admitted."""

    identity: bytes
    session: Session
    name: str
    number: int
    host: str
    pid: int
    address: str = ""
    local: str = ""
    counters: Mapping[str, int | float | str] = field(default_factory=dict)
    traffic: tuple[Traffic, ...] = ()
    ended: bool = False
    #: When it last said anything, by `time.monotonic`.
    heard_at: float = field(default_factory=time.monotonic)


def require_expected(hello: NodeHello, run: str, expected: int, nodes: Mapping[int, Peer]) -> None:
    """Staging nodes are started by the run itself: one that is not expected was started by somebody else."""
    if hello.run != run or hello.node in nodes or not 0 <= hello.node < expected:
        raise RemoteProtocolError(f"Staging node {hello.node} of run '{hello.run}' on {hello.host} is not expected.")


def why_not(hello: Hello | ConsoleHello, terms: Terms, size: int | None, ranks: Mapping[int, Peer]) -> str | None:
    """Say why a rank, of a simulation of `size` as far as is known, or a console cannot take part."""
    if hello.run != terms.run:
        return f"this is run '{terms.run}', not '{hello.run}'; its contact file is an old one"
    if isinstance(hello, ConsoleHello):
        return None
    size = size or terms.ranks or hello.size
    if hello.size != size:
        return (
            f"it says it is rank {hello.rank} of {hello.size}, but this run has {size}; check simulation.ranks and "
            "simulation.launcher, or pass the communicator: Client(comm=MPI.COMM_WORLD)"
        )
    if not 0 <= hello.rank < size:
        return f"rank {hello.rank} of {size} does not exist"
    if hello.rank in ranks:
        other = ranks[hello.rank]
        return f"rank {hello.rank} is there already (process {other.pid} on {other.host})"
    return None
