# SPDX-License-Identifier: Apache-2.0
"""Gray-Scott reaction and diffusion on a periodic square, streamed while it runs.

    python demos/gray_scott.py                          one process, nobody listens
    mpiexec -n 4 python demos/gray_scott.py             four ranks, nobody listens
    insitu run configs/gray_scott.yaml                  with statistics

Two chemicals diffuse and react, ``u + 2v -> 3v``; u is fed, v is taken away:

    du/dt = DU lap(u) - u v^2 + feed (1 - u)
    dv/dt = DV lap(v) + u v^2 - (feed + kill) v

Explicit Euler steps on cells of length 1. Each rank owns whole rows and one halo cell around them. Every cell sees the
same operations in the same order whatever the number of ranks, so the fields are identical bit for bit.
Reference: J. E. Pearson, Complex Patterns in a Simple System, Science 261 (1993) 189.
"""

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt

import insitu
from insitu.client.launcher import rank_and_size

Field = npt.NDArray[np.float64]

# With this pair of feed and kill the patterns never come to rest, so there is something to see in the statistics.
FEED, KILL = 0.018, 0.045
DU, DV, DT = 0.16, 0.08, 1.0


def main() -> None:
    options = parse_options()
    comm = communicator()
    size = options.size
    low, high = own_rows(size, comm)
    u, v = (with_halo(field[low:high]) for field in initial_fields(size))
    published: list[Field] = []

    with insitu.Client(comm=comm) as sim:
        feed = sim.parameter("feed", FEED, minimum=0.0, maximum=0.1, description="inflow of u per unit of time")
        for n in range(options.steps):
            if n % options.every == 0:
                with sim.step(n, time=n * DT) as step:
                    step.put("u", u, start=(low, 0), shape=(size, size), dims=("y", "x"), units="1", halo=1)
                    step.put("v", v, start=(low, 0), shape=(size, size), dims=("y", "x"), units="1", halo=1)
                if options.store:
                    published.append(np.stack([u, v])[:, 1:-1, 1:-1])
            if sim.stopping:
                break
            advance(u, v, feed.value, comm)

    if options.store:
        np.save(f"{options.store}.{rank_and_size(comm)[0]}.npy", np.stack(published))


def advance(u: Field, v: Field, feed: float, comm: Any = None) -> None:
    """Take one step in place; the halos need not be filled."""
    fill_halo(u, comm)
    fill_halo(v, comm)
    inner_u, inner_v = u[1:-1, 1:-1], v[1:-1, 1:-1]
    reaction = inner_u * inner_v * inner_v
    change_u = DU * laplacian(u) - reaction + feed * (1.0 - inner_u)
    change_v = DV * laplacian(v) + reaction - (feed + KILL) * inner_v
    inner_u += DT * change_u
    inner_v += DT * change_v


def laplacian(field: Field) -> Field:
    """The five-point stencil, on the cells inside the halo."""
    return field[:-2, 1:-1] + field[2:, 1:-1] + field[1:-1, :-2] + field[1:-1, 2:] - 4.0 * field[1:-1, 1:-1]


def fill_halo(field: Field, comm: Any = None) -> None:
    """Copy the neighbours' outermost cells around ours; the square is periodic."""
    if comm is None:
        field[0], field[-1] = field[-2], field[1]
    else:
        above, below = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
        comm.Sendrecv(field[1], dest=above, recvbuf=field[-1], source=below)
        comm.Sendrecv(field[-2], dest=below, recvbuf=field[0], source=above)
    field[:, 0], field[:, -1] = field[:, -2], field[:, 1]


def initial_fields(size: int) -> tuple[Field, Field]:
    """Spots of v here and there in u, and a little noise; always the same."""
    random = np.random.default_rng(20)
    u, v = np.ones((size, size)), np.zeros((size, size))
    spots = max(1, (size // 16) ** 2)
    for row, column in random.integers(0, size, (spots, 2)):
        spot = np.ix_(np.arange(row, row + 7) % size, np.arange(column, column + 7) % size)
        u[spot], v[spot] = 0.5, 0.25
    noise = random.uniform(0.0, 0.02, (2, size, size))
    return u - noise[0], v + noise[1]


def with_halo(field: Field) -> Field:
    return np.pad(field, 1)


def own_rows(size: int, comm: Any = None) -> tuple[int, int]:
    """The rows [low, high) of this rank: as even as can be, for any number of ranks up to `size`.

    >>> own_rows(10)
    (0, 10)
    """
    rank, ranks = (0, 1) if comm is None else (comm.rank, comm.size)
    if ranks > size:
        raise SystemExit(f"--size {size} gives no row to some of the {ranks} ranks; take --size {ranks} or more.")
    return size * rank // ranks, size * (rank + 1) // ranks


def communicator() -> Any:
    """MPI's world if there is more than one rank, else None; without mpi4py the demo runs on one process."""
    try:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD if MPI.COMM_WORLD.size > 1 else None
    except (ImportError, RuntimeError):  # RuntimeError: mpi4py is there, but no MPI library
        comm = None
    started = rank_and_size(comm)[1]
    if comm is None and started > 1:
        raise SystemExit(
            f"{started} processes were started, but they cannot exchange their halos: MPI sees one rank in each. "
            "Take launcher: mpiexec and pip install mpi4py mpich, or ranks: 1."
        )
    return comm


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Gray-Scott reaction and diffusion on a periodic square.")
    parser.add_argument("--size", type=positive, default=256, help="cells along each side (default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=2000, help="time steps (default: %(default)s)")
    parser.add_argument("--every", type=positive, default=10, help="publish each of so many (default: %(default)s)")
    parser.add_argument(
        "--store",
        metavar="PREFIX",
        help="also keep what is published, in memory until the end, then as PREFIX.RANK.npy: float64 of shape "
        "(published steps, 2 for u and v, own rows, size); meant for tests",
    )
    return parser.parse_args()


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {value}")
    return value


if __name__ == "__main__":
    main()
