# SPDX-License-Identifier: Apache-2.0
"""A hybrid twin beside a mould that fills: it identifies, corrects, and keeps dry spots away. Two runs of 40 s.

    python demos/resin_hybrid_twin.py [FOLDER]

Runs ``configs/resin_hybrid_twin.yaml`` twice, first with gates as they are, then with those that the twin sets. Prints
the identified against the true permeability over time, what the data-driven correction is worth, the dry spots of both,
and whether the twin keeps up; and draws them to FOLDER/resin_hybrid_twin.png. Needs the extra ``demos``.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from resin import Array
from resin_estimate import NX, NY, SCALE
from resin_machine import true_permeability

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "resin_hybrid_twin.yaml"


def main() -> int:
    folder = parse_options().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    watched, steered = Filling.run(folder, "watched", control=False), Filling.run(folder, "steered", control=True)
    for each in (watched, steered):
        each.tell()
    print(f"dry spots: {watched.dry:.1%} of the mould with all gates alike, {steered.dry:.1%} with the twin's")
    draw(watched, steered, folder / "resin_hybrid_twin.png")
    print(f"{folder / 'resin_hybrid_twin.png'}; {time.monotonic() - begin:.0f} s in all")
    return 0


class Filling:
    """What one run has left: the twin's own log, and the results."""

    def __init__(self, name: str, log: Path, directory: Path) -> None:
        self.name = name
        self.looks: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
        with xr.open_zarr(directory / "results.zarr", group="cells", chunks=None) as cells:
            self.fills, self.times = cells["max"].values, cells["time"].values
        self.fill = self.fills[-1]
        lines = (directory / "actions.jsonl").read_text().splitlines()
        first, last = self.looks[0], self.looks[-1]
        #: Wall seconds of the run for each second of filling.
        self.pace = (last["at_s"] - first["at_s"]) / (last["time"] - first["time"])
        self.receipts = [line for line in map(json.loads, lines) if line.get("outcome")]

    @classmethod
    def run(cls, folder: Path, name: str, *, control: bool) -> "Filling":
        log = folder / f"{name}.jsonl"
        log.unlink(missing_ok=True)
        twin = "steering.controllers.twin"
        settings = {"run": name, "directory": folder, f"{twin}.log": log, f"{twin}.control": str(control).lower()}
        overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        insitu = [str(Path(sys.executable).with_name("insitu")), "run", str(CONFIG), "--force", *overrides]
        paths = os.pathsep.join([str(ROOT / "demos"), *filter(None, [os.environ.get("PYTHONPATH")])])
        subprocess.run(insitu, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, check=True)
        return cls(name, log, folder / name)

    @property
    def dry(self) -> float:
        """The share of cells that were never filled."""
        return float((self.fill < 1).mean())

    def errors(self) -> Array:
        """Of each look, the rms error of log10 K where the resin has been: beforehand, by physics, and corrected.

        Where no resin has been nothing can be known.
        """
        rows = []
        for each in self.looks:
            full = self.fills[np.searchsorted(self.times, each["time"], side="right") - 1]
            been = full.reshape(NY, -1, NX, full.shape[1] // NX).mean(axis=(1, 3)) > 0.5
            found = [np.full((NY, NX), SCALE[0]), *map(np.array, each["log_k"])]
            rows.append([float(np.sqrt(np.mean((log_k / np.log(10) - TRUTH)[been] ** 2))) for log_k in found])
        return np.array(rows)

    def gaps(self) -> Array:
        """Of each look, the error in s of arrivals yet to come: by physics alone, and with the correction."""
        reached = np.array(self.looks[-1]["reached"], float)
        rows = []
        for each in self.looks:
            ahead = np.isfinite(reached) & ~np.isfinite(np.array(each["reached"], float))
            truth = reached[ahead]
            found = [np.abs(np.array(arrival, float)[ahead] - truth) for arrival in each["arrival"]]
            rows.append([float(np.nanmedian(error)) if np.isfinite(error).any() else np.nan for error in found])
        return np.array(rows)

    def tell(self) -> None:
        times, errors = [each["time"] for each in self.looks], self.errors()
        spent = sum(each["wall_s"] for each in self.looks) / times[-1]
        applied = sum(line["outcome"] == "applied" for line in self.receipts)
        print(f"{self.name}: error of log10 K where the resin has been, rms of cells\n"
              f"  {'time':>7}  {'beforehand':>10}  {'physics':>7}  {'corrected':>9}")  # fmt: skip
        for k in np.unique(np.linspace(0, len(times) - 1, 5).astype(int)):
            print(f"  {times[k]:5.0f} s  {errors[k, 0]:10.2f}  {errors[k, 1]:7.2f}  {errors[k, 2]:9.2f}")
        plain, corrected = np.nanmedian(self.gaps(), axis=0)
        print(
            f"  arrivals to come off by {plain:.0f} s by physics alone, {corrected:.0f} s corrected (median)\n"
            f"  {len(times)} looks, {spent:.3f} s of wall time for each second of filling, at {self.pace:.2f} s "
            f"a second; {applied} actions applied\n"
            f"  dry: {self.dry:.1%} of the mould"
        )


def coarse(field: Array) -> Array:
    """Return the permeability of the twin's cells: of flow along the mould, rows side by side and columns in line."""
    ny, nx = field.shape
    rows = field.reshape(NY, ny // NY, nx).mean(axis=1)
    return np.asarray(1 / (1 / rows).reshape(NY, NX, nx // NX).mean(axis=2))


TRUTH = np.log10(coarse(true_permeability()))


def draw(watched: Filling, steered: Filling, path: Path) -> None:
    """Draw the permeability, identified and true; errors over time; and both fillings."""
    figure, axes = plt.subplots(2, 4, figsize=(16, 6.5), layout="constrained")
    limits = {"vmin": TRUTH.min(), "vmax": TRUTH.max(), "extent": (0, 0.6, 0, 0.4), "origin": "lower"}
    looks = [steered.looks[k] for k in (0, len(steered.looks) // 2, -1)]
    for axis, look in zip(axes[0], looks, strict=False):
        axis.imshow(np.array(look["log_k"][1]) / np.log(10), **limits)
        axis.set(title=f"log10 K identified after {look['time']:.0f} s")
    figure.colorbar(axes[0, 3].imshow(TRUTH, **limits), ax=axes[0, 3])
    axes[0, 3].set(title="log10 K, true")
    for each, style in ((watched, "--"), (steered, "-")):
        times, errors, gaps = [look["time"] for look in each.looks], each.errors(), each.gaps()
        for column, name in enumerate(("beforehand", "physics", "corrected")):
            color = ("0.6", "C1", "C2")[column]
            axes[1, 0].plot(times, errors[:, column], style, color=color, label=f"{name}, {each.name}")
            if column:
                axes[1, 1].plot(times, gaps[:, column - 1], style, color=color, label=f"{name}, {each.name}")
    axes[1, 0].set(title="error where the resin has been", xlabel="time (s)", ylabel="rms of log10 K")
    axes[1, 1].set(title="error of arrivals to come", xlabel="time (s)", ylabel="median (s)")
    for axis in axes[1, :2]:
        axis.set_ylim(bottom=0)
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=8)
    for axis, each in ((axes[1, 2], watched), (axes[1, 3], steered)):
        axis.imshow(each.fill, origin="lower", cmap="Blues", vmin=0, vmax=1, extent=(0, 0.6, 0, 0.4))
        axis.set(title=f"filled, {each.name}: {each.dry:.1%} dry")
    for axis in (*axes[0], *axes[1, 2:]):
        axis.set(xlabel="x (m)", ylabel="y (m)")
    figure.savefig(path, dpi=90)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "folder", nargs="?", default=Path("runs"), type=Path, help="where the runs and the picture go (%(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
