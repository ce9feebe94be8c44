# SPDX-License-Identifier: Apache-2.0
"""Which rank of how many this process is.

An mpi4py communicator knows. Without one the launcher's environment tells; without a launcher this is rank 0 of 1.
"""

import os
from collections.abc import Mapping
from typing import Protocol

from insitu.errors import LocalProtocolError


class Communicator(Protocol):
    """The two methods of an mpi4py communicator that are used here; no other MPI call is ever made."""

    def Get_rank(self) -> int: ...
    def Get_size(self) -> int: ...


#: Pairs of variables, the first that is complete decides: our own launcher, Open MPI, MPICH and all that speak PMI.
_PAIRS = (
    ("INSITU_RANK", "INSITU_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("PMIX_RANK", "PMIX_SIZE"),
)
#: Slurm sets its pair in every batch script too, where it means nothing; only ``srun`` sets a step number as well.
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")


def rank_and_size(comm: Communicator | None = None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return this process's rank and the number of ranks.

    >>> rank_and_size(environment={"PMI_RANK": "2", "PMI_SIZE": "4"})
    (2, 4)
    >>> rank_and_size(environment={})
    (0, 1)
    """
    if comm is not None:
        return comm.Get_rank(), comm.Get_size()
    for names in (*_PAIRS, _SLURM):
        values = [environment.get(name) for name in names]
        if None not in values:
            return _valid(names, [str(value) for value in values])
    return 0, 1


def _valid(names: tuple[str, str], values: list[str]) -> tuple[int, int]:
    try:
        rank, size = (int(value) for value in values)
    except ValueError:
        rank, size = -1, 0
    if not 0 <= rank < size:
        raise LocalProtocolError(
            f"The environment says {names[0]}={values[0]} and {names[1]}={values[1]}, which is no rank of a number of "
            "ranks; unset both, or pass the communicator: Client(comm=MPI.COMM_WORLD)."
        )
    return rank, size
