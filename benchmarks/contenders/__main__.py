# SPDX-License-Identifier: Apache-2.0
"""One process of a contender: ``python -m benchmarks.contenders MODULE WORKLOAD.json RANK``.

The rank behind the last one is the consumer. Under MPI it is MPI that says which rank this is, and RANK is ``mpi``.
"""

import importlib
import sys

from benchmarks.workload import Workload


def main() -> None:
    module, path, which = sys.argv[1:]
    work = Workload.load(path)
    contender = importlib.import_module(f"benchmarks.contenders.{module}")
    if which == "mpi":
        from mpi4py import MPI

        rank = MPI.COMM_WORLD.rank
    else:
        rank = int(which)
    if rank == work.ranks:
        contender.consume(work)
    else:
        contender.publish(work, rank)


if __name__ == "__main__":
    main()
