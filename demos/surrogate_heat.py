# SPDX-License-Identifier: Apache-2.0
"""A network learns heat in a plate on line, and the same network from files that the same plates wrote.

    python demos/surrogate_heat.py [FOLDER]

Runs ``configs/surrogate_heat.yaml``, where the network learns while 320 plates are simulated. Then what is usual: the
same plates write a file for each plate and step, and afterwards the same network learns from these, by the same code,
from as many samples. Both are asked about plates that neither has seen. Prints one table and draws the errors over
time and over samples to FOLDER/surrogate_heat.png. Needs the extras ``demos`` and ``train``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from heat import DURATION, advance, begun, drawn

from analytics.nn.learning import Learner
from analytics.nn.predicting import predict
from analytics.nn.samples import Shapes
from analytics.nn.versions import newest, read_version
from insitu import config
from insitu.text import size

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "surrogate_heat.yaml"
#: Plates that neither network has seen, by another seed.
TEST_SEED, TEST_PLATES = 99, 32
#: Batches between two looks at the error while it learns from files.
LOOK = 200


@dataclass
class Learned:
    """How one way went: the error in kelvin over seconds since its command was started, and over samples drawn."""

    name: str
    disk_bytes: int = 0
    #: Seconds in which it learned, reading and taking samples in included.
    learning_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def note(self, seconds: float, samples: int, error: float) -> None:
        self.seconds.append(seconds)
        self.samples.append(samples)
        self.errors.append(error)

    def after(self, where: list[float] | list[int], at: float) -> str:
        known = [error for x, error in zip(where, self.errors, strict=True) if x <= at]
        return f"{known[-1]:.2f} K" if known else "nothing yet"


class Unseen:
    """Plates that no network has learned from, at some of their times."""

    def __init__(self, steps: int) -> None:
        temperatures = drawn(TEST_SEED, 0, TEST_PLATES)
        u, inputs, fields = begun(temperatures, 32), [], []
        for n in range(1, steps + 1):
            advance(u, steps)
            if n % 5 == 0:
                times = np.full((TEST_PLATES, 1), DURATION * n / steps, np.float32)
                inputs.append(np.concatenate([temperatures, times], axis=1))
                fields.append(u[:, 1:-1, 1:-1].copy())
        self.inputs, self.fields = np.concatenate(inputs), np.concatenate(fields)

    def error(self, predicted: Any) -> float:
        """Return the root of the mean squared error, in kelvin."""
        return float(np.sqrt(np.mean((predicted - self.fields) ** 2)))


def main() -> int:
    folder = parse_options().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    loaded = config.load(CONFIG)
    words = list(loaded.simulation.command)
    unseen = Unseen(int(words[words.index("--steps") + 1]))
    on_line = learn_on_line(folder, unseen)
    from_files = learn_from_files(folder, loaded.learners["surrogate"], words, unseen, on_line.samples[-1])
    tell(on_line, from_files)
    draw(on_line, from_files, folder / "surrogate_heat.png")
    print(folder / "surrogate_heat.png")
    return 0


def learn_on_line(folder: Path, unseen: Unseen) -> Learned:
    """Have the run learn, and then ask each version of its model."""
    insitu, run = str(Path(sys.executable).with_name("insitu")), "heat-on-line"
    begin = time.time()
    options = ["--force", "--set", f"run={run}", "--set", f"directory={folder}"]
    subprocess.run([insitu, "run", str(CONFIG), *options], check=True, cwd=ROOT)
    models = folder / run / "models"
    counters = json.loads((folder / run / "report.json").read_text())["learners"]["surrogate"]
    learned = Learned("on line", _bytes(folder / run), counters["work_s"] + counters["take_s"])
    for number in range(1, (newest(models, "surrogate") or 0) + 1):
        version = read_version(models, "surrogate", number)
        seconds = (models / "surrogate" / str(number)).stat().st_mtime - begin
        learned.note(seconds, version.card["draws"], unseen.error(version(unseen.inputs)))
    return learned


def learn_from_files(folder: Path, learner: Any, words: list[str], unseen: Unseen, samples: int) -> Learned:
    """Have the same plates write files, and learn from these, drawn at random in epochs."""
    files = folder / "heat-files"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir()
    begin = time.monotonic()
    alone = {name: value for name, value in os.environ.items() if name != "INSITU_CONTACT"}
    subprocess.run([sys.executable, *words[1:], "--store", str(files)], check=True, cwd=ROOT, env=alone)
    learned = Learned("from files", _bytes(files))
    paths = sorted(files.iterdir())
    whole = unseen.fields.shape[1:]
    network = Learner(learner.training, Shapes((6,), whole))
    rng = np.random.default_rng(learner.seed)
    order, looking_s, at, drawn_samples = rng.permutation(len(paths)), 0.0, 0, 0
    learning = time.monotonic()
    for batch in range(samples // learner.batch + 1):
        if at + learner.batch > len(order):
            order, at = rng.permutation(len(paths)), 0
        rows = np.stack([np.load(paths[k]) for k in order[at : at + learner.batch]])
        at += learner.batch
        some = {
            "inputs": np.ascontiguousarray(rows[:, :6]),
            "targets": rows[:, 6:].reshape(-1, *whole),
        }
        network.observe(some)
        network.learn(some)
        drawn_samples += len(rows)
        if batch % LOOK == LOOK - 1 or drawn_samples >= samples:
            now = time.monotonic()
            learned.note(
                now - begin - looking_s, drawn_samples, unseen.error(predict(network.network(), unseen.inputs))
            )
            looking_s += time.monotonic() - now
    learned.learning_s = time.monotonic() - learning - looking_s
    shutil.rmtree(files)
    return learned


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def tell(*ways: Learned) -> None:
    """Print the table."""
    seconds, samples = min(way.seconds[-1] for way in ways), min(way.samples[-1] for way in ways)
    lines = [
        ("", *(way.name for way in ways)),
        ("samples learned from", *(f"{way.samples[-1]:,}" for way in ways)),
        ("samples per second of learning", *(f"{way.samples[-1] / way.learning_s:,.0f}" for way in ways)),
        ("seconds until the end, simulation included", *(f"{way.seconds[-1]:.1f}" for way in ways)),
        (f"error after {seconds:.1f} s", *(way.after(way.seconds, seconds) for way in ways)),
        (f"error after {samples:,} samples", *(way.after(way.samples, samples) for way in ways)),
        ("written to the disk", *(size(way.disk_bytes) for way in ways)),
    ]
    for name, *cells in lines:
        print(f"{name:<44}" + "".join(f"{cell:>16}" for cell in cells))


def draw(on_line: Learned, from_files: Learned, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for way, colour in ((on_line, "tab:blue"), (from_files, "tab:orange")):
        left.semilogy(way.seconds, way.errors, "o-", color=colour, label=way.name, markersize=3)
        right.semilogy(way.samples, way.errors, "o-", color=colour, markersize=3)
    left.set(xlabel="seconds since the command was started", ylabel="error of plates never seen / K", xlim=(0, None))
    right.set(xlabel="samples learned from", xlim=(0, None))
    left.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "folder", nargs="?", default=Path("runs"), type=Path, help="where the runs and the picture go (%(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
