# SPDX-License-Identifier: Apache-2.0
"""``insitu`` that gives staging nodes some seconds to start, where a test has some that never do."""

from insitu.cli import main
from insitu.staging import executors

#: Workers have to import all that they need, on a busy machine.
START_S, WARM_S = 12.0, 4.0

if __name__ == "__main__":
    executors.START_S, executors.WARM_S = START_S, WARM_S
    main()
