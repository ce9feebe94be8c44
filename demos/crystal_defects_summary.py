# SPDX-License-Identifier: Apache-2.0
"""What the network of a run says of crystals that it has not seen: python demos/crystal_defects_summary.py RUN

Makes new crystals, of another seed, and lets the newest version of the model tell their kinds. Prints the confusion
matrix and draws it as ``confusion.png`` beside the run's results, with some of the patterns.
"""

import argparse
from pathlib import Path

import numpy as np
from crystal_defects import KINDS, quiet, seen
from matplotlib.figure import Figure

from analytics.nn.predicting import predict
from analytics.nn.saving import read_model

#: The run's own crystals have seed 0.
UNSEEN = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--crystals", type=int, default=150)
    options = parser.parse_args()
    versions = [path for path in options.run.glob("models/kinds/*/model.safetensors") if path.parent.name.isdecimal()]
    if not versions:
        parser.error(f"{options.run} has no model called kinds; insitu run configs/crystal_defects.yaml")
    model = read_model(max(versions, key=lambda path: int(path.parent.name)))
    kinds, patterns = new_crystals(options.crystals)
    found = np.concatenate([predict(model.network, some).argmax(axis=1) for some in np.array_split(patterns, 8)])
    matrix = np.zeros((len(KINDS), len(KINDS)), int)
    np.add.at(matrix, (kinds, found), 1)
    tell(matrix)
    picture = options.run / "confusion.png"
    draw(matrix, kinds, patterns).savefig(picture, dpi=120)
    print(f"\ndrawn: {picture}")


def new_crystals(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the kinds and the patterns of crystals that no run has streamed."""
    lmp = quiet()
    made = [seen(lmp, np.random.default_rng([UNSEEN, n])) for n in range(number)]
    lmp.close()
    return np.array([kind for kind, _ in made]), np.stack([pattern for _, pattern in made])


def tell(matrix: np.ndarray) -> None:
    width = max(map(len, KINDS)) + 2
    print("rows: what a crystal is; columns: what the network says\n")
    print(" " * width + "".join(kind.rjust(width) for kind in KINDS))
    for kind, row in zip(KINDS, matrix, strict=True):
        print(kind.rjust(width) + "".join(str(number).rjust(width) for number in row))
    print(f"\n{np.trace(matrix)} of {matrix.sum()} right ({100 * np.trace(matrix) / matrix.sum():.0f} %)")


def draw(matrix: np.ndarray, kinds: np.ndarray, patterns: np.ndarray) -> Figure:
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, len(KINDS) + 1)
    for number, kind in enumerate(KINDS):
        if (kinds == number).any():
            axes[number].imshow(patterns[kinds == number][0, 0].T, origin="lower", cmap="magma", vmin=-4, vmax=-1)
        axes[number].set(title=kind, xticks=[], yticks=[], xlabel="q along [1 1 -2]", ylabel="q along [1 1 1]")
    axes[-1].imshow(matrix, cmap="Blues")
    for (row, column), number in np.ndenumerate(matrix):
        axes[-1].text(column, row, str(number), ha="center", va="center")
    axes[-1].set(
        xticks=range(len(KINDS)), yticks=range(len(KINDS)), xlabel="said", ylabel="is", title="unseen crystals"
    )
    axes[-1].set_xticklabels(KINDS, rotation=20)
    axes[-1].set_yticklabels(KINDS)
    return figure


if __name__ == "__main__":
    main()
