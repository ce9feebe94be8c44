# SPDX-License-Identifier: Apache-2.0
"""A hybrid twin beside a mould that fills: it identifies, corrects, and keeps dry spots away. Two runs of a minute.

    python demos/resin_hybrid_twin.py [FOLDER]

Runs ``configs/resin_hybrid_twin.yaml`` twice, first with gates as they are, then with those that the twin sets. Prints
what was identified, what the data-driven correction is worth, the dry spots of both, and whether the twin keeps up; and
draws them to FOLDER/resin_hybrid_twin.png. Needs the extra ``demos``.
"""

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
from resin_machine import true_permeability
from resin_twin import NX, NY, PRIOR

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "resin_hybrid_twin.yaml"


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs").resolve()
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
        self.analyses: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
        with xr.open_zarr(directory / "results.zarr", group="cells", chunks=None) as cells:
            self.fills, self.times = cells["max"].values, cells["time"].values
        self.fill = self.fills[-1]
        lines = (directory / "actions.jsonl").read_text().splitlines()
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

    @property
    def errors(self) -> Array:
        """Of each analysis, the rms error of log K where the resin has been; and that of the guess before.

        Away from the gap, in three quarters of the mould. Where no resin has been nothing can be known.
        """
        truth = coarse(np.log(true_permeability(gap=False)))
        rows = []
        for each in self.analyses:
            been = coarse(self.fills[np.searchsorted(self.times, each["time"], side="right") - 1]) > 0.5
            been[3 * NY // 4 :] = False
            known, guessed = np.array(each["log_k"]) - truth, PRIOR[0] - truth
            rows.append([float(np.sqrt(np.mean(wrong[been] ** 2))) for wrong in (known, guessed)])
        return np.array(rows)

    def gaps(self) -> Array:
        """Of each analysis, the error in s of arrivals yet to come: by physics alone, and with the correction."""
        reached = {int(sensor): when for sensor, when in self.analyses[-1]["reached"].items()}
        rows = []
        for each in self.analyses:
            ahead = [sensor for sensor in reached if str(sensor) not in each["reached"]]
            truth = np.array([reached[sensor] for sensor in ahead])
            with np.errstate(invalid="ignore"):
                found = [np.abs(np.array(arrival, float)[ahead] - truth) for arrival in each["arrival"]]
            rows.append([float(np.nanmedian(error)) if np.isfinite(error).any() else np.nan for error in found])
        return np.array(rows)

    def tell(self) -> None:
        times = [each["time"] for each in self.analyses]
        busy = sum(each["wall_s"] for each in self.analyses) / times[-1]
        applied = sum(line["outcome"] == "applied" for line in self.receipts)
        plain, corrected = np.nanmedian(self.gaps(), axis=0)
        print(
            f"{self.name}: {len(times)} analyses in {times[-1]:.0f} s of filling, {busy:.3f} s of work for each; "
            f"{applied} actions applied\n"
            f"  log permeability where the resin has been, away from the gap, off by {self.errors[-1][0]:.2f} (known "
            f"beforehand to {self.errors[-1][1]:.2f})\n"
            f"  next arrivals off by {plain:.0f} s by physics alone, {corrected:.0f} s with the correction (median)"
        )


def coarse(field: Array) -> Array:
    """Return the means of a field over the cells of the twin's model."""
    ny, nx = field.shape
    return np.asarray(field.reshape(NY, ny // NY, NX, nx // NX).mean(axis=(1, 3)))


def draw(watched: Filling, steered: Filling, path: Path) -> None:
    """Draw the permeability, true and identified; errors over time; and both fillings."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    truth = np.log10(true_permeability())
    limits = {"vmin": np.quantile(truth, 0.02), "vmax": np.quantile(truth, 0.98), "extent": (0, 0.6, 0, 0.4)}
    last = watched.analyses[-1]
    found = (np.array(last["log_k"]) + np.array(last["correction"])) / np.log(10)
    for axis, field, title in ((axes[0, 0], truth, "log10 K, true"), (axes[0, 1], found, "identified and corrected")):
        image = axis.imshow(field, origin="lower", **limits)
        axis.set(title=title, xlabel="x (m)", ylabel="y (m)")
    figure.colorbar(image, ax=axes[0, 1])
    for each, style in ((watched, "--"), (steered, "-")):
        times = [line["time"] for line in each.analyses]
        for column, name in ((0, "identified"), (1, "beforehand")):
            label = f"{name}, {each.name}"
            axes[0, 2].plot(times, each.errors[:, column], style, color=("C0", "0.6")[column], label=label)
        right = axes[1, 2]
        for column, name in ((0, "physics alone"), (1, "corrected")):
            right.plot(times, each.gaps()[:, column], style, color=f"C{column + 1}", label=f"{name}, {each.name}")
    axes[0, 2].set(title="error where the resin has been", xlabel="time (s)", ylabel="rms of ln K", ylim=(0, None))
    axes[1, 2].set(title="error of arrivals to come", xlabel="time (s)", ylabel="median (s)", yscale="symlog")
    for axis in (axes[0, 2], axes[1, 2]):
        axis.legend(fontsize=8)
    for axis, each in ((axes[1, 0], watched), (axes[1, 1], steered)):
        axis.imshow(each.fill, origin="lower", cmap="Blues", vmin=0, vmax=1, extent=(0, 0.6, 0, 0.4))
        axis.set(title=f"filled, {each.name}: {each.dry:.1%} dry", xlabel="x (m)", ylabel="y (m)")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
