# SPDX-License-Identifier: Apache-2.0
"""``insitu`` that waits five minutes for a simulation to stop by itself: what ends sooner was not waited for."""

from insitu.cli import main
from insitu.controller import run

run.GRACE_S = 300.0

if __name__ == "__main__":
    main()
