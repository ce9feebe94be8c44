# SPDX-License-Identifier: Apache-2.0
"""What a user waits for before anything happens.

    python -m benchmarks.startup [--rounds 5]

* ``import insitu.client``: beyond a bare interpreter, in a process of its own, as every rank does. Goal: below 0.15 s.
* ``insitu run`` to the first whole step: staging nodes, simulation and all, kernels compiled before. Goal: below 5 s.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import report, rounds

SIMULATION = """
import numpy as np
import insitu
with insitu.Client() as sim:
    for n in range(10):
        with sim.step(n) as step:
            step.put("u", np.full((64, 64), float(n)), shape=(64, 64))
"""
CONFIG = """
run: first
simulation: {command: [python, simulation.py]}
staging: {nodes: 2}
operators:
  stats: {use: moments, of: u, over: step, window: 5}
"""


def interpreter(statement: str) -> float:
    """Return how long a process takes that only does this."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begin


def first_step() -> float:
    """Return what a run's own report says of the time to its first step."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "simulation.py").write_text(SIMULATION)
        Path(folder, "first.yaml").write_text(CONFIG)
        insitu = [sys.executable, "-c", "from insitu.cli import main; main()"]
        subprocess.run([*insitu, "run", "first.yaml"], cwd=folder, check=True, capture_output=True)
        return float(json.loads(Path(folder, "runs", "first", "report.json").read_text())["first_step_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Time what happens before the first step.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/startup.json"))
    options = parser.parse_args()
    first_step()  # compiles the kernels
    bare, numpy, client, run = "bare Python", "import numpy", "import insitu.client", "insitu run to the first step"
    found = rounds(
        {
            bare: lambda: interpreter("pass"),
            numpy: lambda: interpreter("import numpy"),
            client: lambda: interpreter("import insitu.client"),
            run: first_step,
        },
        options.rounds,
    )
    seconds = {name: found[name] - found[bare] for name in (numpy, client)} | {run: found[run]}
    goals = {client: 0.15, run: 5.0}
    report(
        "Before the first step (seconds, medians)",
        [{"what": name, "seconds": value, "goal": goals.get(name, "")} for name, value in seconds.items()],
        options.json,
    )


if __name__ == "__main__":
    main()
