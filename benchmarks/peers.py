# SPDX-License-Identifier: Apache-2.0
"""Environments for the peers that insitu is measured beside, each with what it needs and nothing else.

    python -m benchmarks.peers          make those that are not there yet, in benchmarks/.peers/

A benchmark leaves out a peer that is not there, and says so. They are apart from each other and from the project's own
environment because their wheels bring libraries of the same names: two of them MPI.
"""

import subprocess
import venv
from pathlib import Path

FOLDER = Path(__file__).parent / ".peers"
_NUMERICS = ("numpy==2.4.6", "numba==0.68.1")
#: What is installed for each peer.
PEERS = {
    "adios2": ("adios2==2.12.1.1001", *_NUMERICS),
    "mpi": ("mpi4py==4.1.2", "mpich==5.0.2", *_NUMERICS),
    "deisa-dask": (
        "deisa-dask==0.6.3", "dask==2026.8.0", "distributed==2026.8.0", "mpi4py==4.1.2", "mpich==5.0.2",
        "numpy==2.4.6",
    ),
}  # fmt: skip


def python_of(peer: str) -> Path | None:
    """Return the interpreter of a peer's environment, or ``None`` where it was not made, or not to its end."""
    folder = FOLDER / peer
    made = folder / "made"
    if not made.exists() or made.read_text() != _text(peer):
        return None
    return folder / "bin" / "python"


def make(peer: str) -> None:
    """Make a peer's environment anew."""
    folder = FOLDER / peer
    venv.create(folder, clear=True, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS[peer]], check=True)
    (folder / "made").write_text(_text(peer))


def _text(peer: str) -> str:
    return "\n".join(PEERS[peer])


def main() -> None:
    for peer in PEERS:
        if python_of(peer) is None:
            print(f"{peer}: {' '.join(PEERS[peer])}", flush=True)
            try:
                make(peer)
            except subprocess.CalledProcessError as error:
                print(f"{peer} is left out: pip ended with status {error.returncode}.", flush=True)


if __name__ == "__main__":
    main()
