# SPDX-License-Identifier: Apache-2.0
"""Who takes part in a run, on which terms, and who does not."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from insitu.errors import RemoteProtocolError
from insitu.plan import Part, Site
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
    #: When the memory of a step is free again (`Welcome`).
    free: str = "auto"

    def site_of(self, host: str) -> Site:
        """Return where a host is: its rack's label is empty where none is given."""
        found = (rack for rack, patterns in self.racks.items() if any(fnmatchcase(host, each) for each in patterns))
        return Site(host, next(found, ""))


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

    @property
    def published(self) -> int:
        """How many steps a rank says to have published; 0 where what it says is no such number."""
        said = self.counters.get("steps")
        return max(said, 0) if isinstance(said, int) else 0


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


def why_far(hello: Hello, terms: Terms, nodes: Mapping[int, Peer], parts: Sequence[Part]) -> str | None:
    """Say why a rank cannot take part where operators fold on the ranks' own machines; `parts` it was given, if any."""
    if not terms.at_home:
        return None
    hosts = sorted({node.host for node in nodes.values()})
    if hello.host in hosts and all(nodes[part.node].host == hello.host for part in parts):
        return None
    why = "came too late to be given one" if hello.host in hosts else f"has none on {hello.host}"
    return (
        f"'{terms.at_home[0]}' folds on a staging node of the rank's own machine (where: node), and rank "
        f"{hello.rank} {why} (there are some on {', '.join(hosts)}); start a Dask worker on each machine, with as "
        "many staging.nodes, or take where: staging"
    )
