# SPDX-License-Identifier: Apache-2.0
"""Two ranks that agree on `good` in every step, and on nothing else for a while."""

import numpy as np

import insitu
from insitu.client.launcher import rank_and_size

STEPS = 12


def main() -> None:
    rank, size = rank_and_size()
    with insitu.Client() as sim:
        for n in range(STEPS):
            with sim.step(n, time=float(n)) as step:
                block = np.full(4, n, "f8")
                step.put("good", block, start=(4 * rank,), shape=(4 * size,))
                begin = 4 * rank - (1 if rank and 4 <= n < 8 else 0)
                step.put("overlapping", block, start=(begin,), shape=(4 * size,))
                if not (rank and n >= 6):
                    step.put("missing", block, start=(4 * rank,), shape=(4 * size,))
                step.put("unlike", block.astype("f4" if rank else "f8"), start=(4 * rank,), shape=(4 * size,))
                step.put("stretched", block, start=(4 * rank,), shape=(4 * size + rank,))
                if rank:
                    step.put("of_rank_1", 1.0)


if __name__ == "__main__":
    main()
