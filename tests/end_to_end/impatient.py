# SPDX-License-Identifier: Apache-2.0
"""``insitu`` with shorter waits, where the real ones would keep a test waiting."""

from insitu.cli import main
from insitu.controller import run
from insitu.staging import executors

run.GRACE_S = 1.0
run.QUIET_S = 0.5
executors.CONNECT_S = 2.0

if __name__ == "__main__":
    main()
