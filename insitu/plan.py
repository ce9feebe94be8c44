# SPDX-License-Identifier: Apache-2.0
"""Who owes which block to whom: M ranks to N staging nodes, and whether the ranks' blocks make up the whole.

Pure functions over integers. Ranks that are equally near to the same nodes are taken for intervals of equal length, and
these nodes for intervals over the same line. A node takes what its interval overlaps: whole ranks, except at its two
ends, where a rank's rows are split. So neighbours stay together, the load is even whatever M and N are, and the plan
needs no shape: it holds for fields, for particles whose number changes, and for one rank on two nodes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from math import lcm
from typing import NamedTuple

from insitu.model import Extent


class Overlap(NamedTuple):
    """The part ``[low, high)`` of the line that interval `a` of one partition and `b` of another have in common."""

    a: int
    b: int
    low: int
    high: int


def overlaps(a: Sequence[int], b: Sequence[int]) -> list[Overlap]:
    """Return the common parts of two partitions of one line, given by their sorted cuts.

    Two sorted partitions are walked once: O(M + N) steps and at most M + N - 1 parts, where comparing every pair would
    cost M * N.

    >>> overlaps([0, 2, 4, 6], [0, 3, 6])
    [Overlap(a=0, b=0, low=0, high=2), Overlap(a=1, b=0, low=2, high=3), Overlap(a=1, b=1, low=3, high=4), \
Overlap(a=2, b=1, low=4, high=6)]
    """
    parts: list[Overlap] = []
    i = j = 0
    while i < len(a) - 1 and j < len(b) - 1:
        low, high = max(a[i], b[j]), min(a[i + 1], b[j + 1])
        if low < high:
            parts.append(Overlap(i, j, low, high))
        if a[i + 1] <= b[j + 1]:
            i += 1
        else:
            j += 1
    return parts


class Part(NamedTuple):
    """The rows ``[n * low // of, n * high // of)`` of each of a rank's blocks of n rows, which go to `node`."""

    node: int
    low: int
    high: int
    of: int

    def rows(self, n: int) -> slice:
        """Return the rows of a block of `n` rows. The parts of one rank share no row and leave none out.

        >>> Part(0, 0, 1, 2).rows(5), Part(1, 1, 2, 2).rows(5)
        (slice(0, 2, None), slice(2, 5, None))
        """
        return slice(n * self.low // self.of, n * self.high // self.of)


class Site(NamedTuple):
    """Where a process runs: its host, and the label of its rack where there is one."""

    host: str
    rack: str = ""


def parts_by_rank(ranks: Sequence[Site], nodes: Sequence[Site]) -> list[list[Part]]:
    """Return for each rank the parts of its blocks and the staging nodes that take them: the nearest ones.

    The blocks of a rank go to the nodes of its own host; where that has none to those of its rack, if it has a label;
    else to any. Among these they go where the sum is least, so that the load is as even as the places allow. Bytes are
    not known before the first step, and so all ranks count alike. Where all nodes are on one host, they are equally
    near to everybody.

    >>> here, there = Site("n1"), Site("n2")
    >>> parts_by_rank([here] * 3, [here] * 2)[1]
    [Part(node=0, low=0, high=1, of=2), Part(node=1, low=1, high=2, of=2)]
    >>> [[part.node for part in parts] for parts in parts_by_rank([here, there, there, Site("n3")], [there, here])]
    [[1], [0], [0], [1]]
    """
    plan: list[list[Part]] = [[] for _ in ranks]
    load = [Fraction(0)] * len(nodes)
    for some, near in _by_distance(ranks, nodes):
        quotas = _quotas(len(some), [load[node] for node in near])
        scale = lcm(*(quota.denominator for quota in quotas))
        of_ranks = [scale * k for k in range(len(some) + 1)]
        of_nodes = [int(scale * quota) for quota in accumulate(quotas, initial=Fraction(0))]
        for k, at, low, high in overlaps(of_ranks, of_nodes):
            plan[some[k]].append(Part(near[at], low - of_ranks[k], high - of_ranks[k], scale))
        for node, quota in zip(near, quotas, strict=True):
            load[node] += quota
    return plan


def _by_distance(ranks: Sequence[Site], nodes: Sequence[Site]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield ranks with the nodes that are nearest to them, the nearest first."""
    left, everywhere = list(range(len(ranks))), list(range(len(nodes)))
    if len({site.host for site in nodes}) > 1:
        for label in ("host", "rack"):
            for place in dict.fromkeys(getattr(site, label) for site in nodes):
                some = [rank for rank in left if place and getattr(ranks[rank], label) == place]
                if some:
                    yield some, [node for node in everywhere if getattr(nodes[node], label) == place]
                    left = [rank for rank in left if rank not in some]
    if left:
        yield left, everywhere


def _quotas(ranks: int, load: Sequence[Fraction]) -> list[Fraction]:
    """Return how many ranks each node gets beside its load, so that the largest sum is as small as can be.

    >>> [str(quota) for quota in _quotas(3, [Fraction(0), Fraction(2), Fraction(9)])]
    ['5/2', '1/2', '0']
    """
    lowest = sorted(load)
    level = Fraction(0)
    for k in range(len(lowest), 0, -1):
        level = (ranks + sum(lowest[:k], Fraction(0))) / k
        if level >= lowest[k - 1]:
            break
    return [max(Fraction(0), level - own) for own in load]


def moved(plan: Sequence[Sequence[Part]], ranks: Sequence[Site], nodes: Mapping[int, Site]) -> list[list[Part]]:
    """Return the plan for `nodes`, of which some may be new, while some that had parts before may be gone.

    Parts go to other nodes whole, and none is cut anew: so the cells of a state stay the same, and the states that two
    nodes have of a window can be merged. What had a node that is gone goes to the nearest one with the least load.
    Then parts go from nodes with more load to such with less that are as near, for as long as that makes it more even;
    of less than a part per node nobody can make use.

    >>> here = [Site("n1")] * 4
    >>> plan = parts_by_rank(here, here[:2])
    >>> [[part.node for part in parts] for parts in moved(plan, here, {0: here[0], 2: here[0]})]
    [[0], [0], [2], [2]]
    >>> [[part.node for part in parts] for parts in moved(plan, here, dict(enumerate(here[:3])))]
    [[0], [2], [1], [1]]
    """
    near = len({site.host for site in nodes.values()}) == 1
    scale = lcm(*(part.of for parts in plan for part in parts))
    load = dict.fromkeys(nodes, 0)
    at: dict[tuple[int, int], int] = {}

    def weight(rank: int, k: int) -> int:
        part = plan[rank][k]
        return (part.high - part.low) * scale // part.of

    def distance(rank: int, node: int) -> int:
        if near or ranks[rank].host == nodes[node].host:
            return 0
        return 1 if ranks[rank].rack and ranks[rank].rack == nodes[node].rack else 2

    def take(which: tuple[int, int], node: int) -> None:
        if which in at:
            load[at[which]] -= weight(*which)
        at[which] = node
        load[node] += weight(*which)

    every = [(rank, k) for rank, parts in enumerate(plan) for k in range(len(parts))]
    for rank, k in every:
        if plan[rank][k].node in nodes:
            take((rank, k), plan[rank][k].node)
    for rank, k in every:
        if (rank, k) not in at:
            take((rank, k), min(nodes, key=lambda node: (distance(rank, node), load[node], node)))

    def uneven() -> tuple[tuple[int, int], int] | None:
        """Return the largest part that is better taken by another node, and that node."""
        for light in sorted(nodes, key=lambda node: (load[node], node)):
            for heavy in sorted(nodes, key=lambda node: (-load[node], node)):
                fitting = [
                    each
                    for each in every
                    if at[each] == heavy
                    and load[light] + weight(*each) < load[heavy]
                    and distance(each[0], light) <= distance(each[0], heavy)
                ]
                if fitting:
                    return max(fitting, key=lambda each: (weight(*each), each)), light
        return None

    while (better := uneven()) is not None:
        take(*better)
    return [[part._replace(node=at[rank, k]) for k, part in enumerate(parts)] for rank, parts in enumerate(plan)]


def homes(plan: Sequence[Sequence[Part]]) -> list[int]:
    """Return for each rank of a plan the staging node that takes the states which it folds itself: its first one.

    >>> homes(parts_by_rank([Site("n1")] * 3, [Site("n1")] * 2))
    [0, 0, 1]
    """
    return [parts[0].node for parts in plan]


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a rank's block lies in a global array."""

    rank: int
    start: Extent
    count: Extent


def fault_of_cover(shape: Extent, pieces: Iterable[Piece]) -> str | None:
    """Say why the pieces do not make up the whole of `shape` once over, or return ``None`` where they do.

    Costs O(P^2) for P pieces, so callers keep the answer for as long as the pieces stay where they are. A 0-d variable
    is rank 0's.

    >>> fault_of_cover((4,), [Piece(0, (0,), (2,)), Piece(1, (2,), (2,))])
    >>> fault_of_cover((4,), [Piece(0, (0,), (3,)), Piece(1, (2,), (2,))])
    'ranks 0 and 1 overlap: start (0,) count (3,) and start (2,) count (2,)'
    >>> fault_of_cover((4,), [Piece(0, (0,), (1,)), Piece(1, (2,), (2,))])
    '1 of its 4 cells is missing beside those of ranks 0, 1'
    """
    held = [piece for piece in pieces if 0 not in piece.count]
    if not shape:
        return None if any(piece.rank == 0 for piece in held) else "a 0-d variable is rank 0's, which did not put it"
    for k, piece in enumerate(held):
        for other in held[:k]:
            if _overlap(piece, other):
                return (
                    f"ranks {other.rank} and {piece.rank} overlap: start {other.start} count {other.count} "
                    f"and start {piece.start} count {piece.count}"
                )
    cells = _volume(shape)
    missing = cells - sum(_volume(piece.count) for piece in held)
    if missing:
        ranks = ", ".join(str(piece.rank) for piece in held)
        are = "is" if missing == 1 else "are"
        return f"{missing} of its {cells} cells {are} missing" + (f" beside those of ranks {ranks}" if ranks else "")
    return None


def _overlap(a: Piece, b: Piece) -> bool:
    return all(
        max(start_a, start_b) < min(start_a + count_a, start_b + count_b)
        for start_a, count_a, start_b, count_b in zip(a.start, a.count, b.start, b.count, strict=True)
    )


def _volume(extent: Extent) -> int:
    volume = 1
    for length in extent:
        volume *= length
    return volume
