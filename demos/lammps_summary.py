# SPDX-License-Identifier: Apache-2.0
"""Look at a finished run of the melt: ``python demos/lammps_summary.py runs/lammps_melt``.

Prints the kinetic temperature from the moments of the velocities beside the one that LAMMPS itself computed, and the
histogram of speeds beside Maxwell and Boltzmann's; draws ``summary.png`` in the run's directory. Ends with status 1
when the temperatures differ by more than 1e-6 of their value.

All that it reads is ``results.zarr`` (with xarray, as anyone may) and LAMMPS's own log.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scipy.special import erf

Floats = npt.NDArray[np.float64]

TOLERANCE = 1e-6


def main() -> int:
    run = parse_options().run
    try:
        results, logged = read(run)
    except (FileNotFoundError, LookupError) as error:
        print(f"{run} holds no finished melt ({error}); make one: insitu run configs/lammps_melt.yaml", file=sys.stderr)
        return 2
    ours = temperature(results["velocity"].dataset)
    streamed = results["temperature"].dataset["mean"].values
    difference = print_temperatures(ours, streamed, logged)
    print()
    print_speeds(last_full_window(results["speed"].dataset), ours)
    draw(results, ours, streamed, run / "summary.png")
    print(f"\nDrawn in {run / 'summary.png'}")
    return 0 if difference <= TOLERANCE else 1


def read(run: Path) -> tuple[xr.DataTree, dict[int, float]]:
    """Return the results and LAMMPS's temperatures; raise `LookupError` where an operator has no results."""
    results = xr.open_datatree(run / "results.zarr", engine="zarr", consolidated=False).load()
    for operator in ("velocity", "temperature", "speed", "density"):
        if operator not in results or 0 in results[operator].dataset.sizes.values():
            raise LookupError(f"no results of the operator '{operator}'")
    return results, thermo_output(run / "log.lammps")


def temperature(velocity: xr.Dataset) -> xr.DataArray:
    """Kinetic temperature of each step, from count, mean and variance of all velocity components.

    N atoms of mass 1 have 3N components, of which 3N - 3 are free, since the total momentum is zero:
    T = sum(v^2) / (3N - 3), and sum(v^2) = (n - 1) variance + n mean^2 over the n = 3N components.
    """
    n = velocity["count"]
    return ((n - 1) * velocity["variance"] + n * velocity["mean"] ** 2) / (n - 3)


def thermo_output(log: Path) -> dict[int, float]:
    """LAMMPS's temperature by timestep, from the tables in its log: each begins with a line of column names."""
    found: dict[int, float] = {}
    columns: list[str] = []
    for line in log.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words[:1] == ["Step"]:
            columns = words
        elif line.startswith("Loop time"):
            columns = []
        elif columns and len(words) == len(columns) and words[0].isdigit():
            found[int(words[0])] = float(words[columns.index("Temp")])
    return found


def maxwell_boltzmann(edges: Floats, temperature: float) -> Floats:
    """The share of the atoms (mass 1) whose speed lies between neighbouring edges, in equilibrium."""
    v = edges / np.sqrt(temperature)
    below = erf(v / np.sqrt(2)) - np.sqrt(2 / np.pi) * v * np.exp(-(v**2) / 2)
    return np.diff(below)


def print_temperatures(ours: xr.DataArray, streamed: Floats, logged: dict[int, float]) -> float:
    """Print some of the steps; return the largest relative difference of all."""
    steps = [int(step) for step in ours["step"]]
    log = np.array([logged[step] for step in steps])
    difference = np.maximum(np.abs(ours.values / streamed - 1), np.abs(ours.values / log - 1))
    print("Kinetic temperature: from our moments of the velocities, and LAMMPS's own")
    print(f"{'step':>8} {'ours':>16} {'streamed':>16} {'LAMMPS log':>16} {'difference':>12}")
    for k in np.linspace(0, len(steps) - 1, 11).astype(int).tolist():
        print(f"{steps[k]:>8} {ours.values[k]:>16.12f} {streamed[k]:>16.12f} {log[k]:>16.12f} {difference[k]:>12.1e}")
    worst = float(difference.max())
    verdict = "agree" if worst <= TOLERANCE else "DO NOT AGREE"
    print(f"All {len(steps)} steps {verdict}: largest relative difference {worst:.1e} (allowed {TOLERANCE:.0e})")
    return worst


def last_full_window(results: xr.Dataset) -> xr.Dataset:
    """The last one, unless it is short because the run ended within it."""
    steps = results["steps"].values
    return results.isel(window=int(np.flatnonzero(steps == steps.max())[-1]))


def shares(speed: xr.Dataset, ours: xr.DataArray) -> tuple[Floats, Floats, Floats]:
    """Return the edges, the measured shares, and those of equilibrium at the mean temperature of the same steps."""
    edges = speed["edges"].values
    covered = ours.sel(step=slice(int(speed["first_step"]), int(speed["last_step"])))
    counts = speed["count"].values
    return edges, counts / counts.sum(), maxwell_boltzmann(edges, float(covered.mean()))


def print_speeds(speed: xr.Dataset, ours: xr.DataArray, lines: int = 16) -> None:
    """Print a window's histogram, some bins to a line."""
    edges, measured, theory = shares(speed, ours)
    together = -(-len(measured) // lines)
    print(f"Speeds in steps {int(speed['first_step'])} to {int(speed['last_step'])}, and Maxwell-Boltzmann")
    print(f"{'speed':>11} {'measured':>10} {'theory':>10}")
    for low in range(0, len(measured), together):
        high = min(low + together, len(measured))
        share = measured[low:high].sum()
        bar = "#" * round(120 * share)
        print(f"{edges[low]:5.2f}-{edges[high]:5.2f} {share:>10.3%} {theory[low:high].sum():>10.3%}  {bar}".rstrip())
    apart = np.abs(measured - theory).sum() / 2
    print(f"{apart:.2%} of the atoms would have to move to another of the {len(measured)} bins to make the two equal")


STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "font.size": 11,
    "legend.frameon": False,
}
OURS, THEIRS = "#0b6e99", "#e0762f"


def draw(results: xr.DataTree, ours: xr.DataArray, streamed: Floats, path: Path) -> None:
    """Four pictures: the temperature, the speeds, the crystal's planes fading, the density before and after."""
    density = results["density"].dataset
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13, 8.5), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
        axes = figure.subplots(2, 2)
        draw_temperature(axes[0, 0], ours, streamed)
        draw_speeds(axes[0, 1], last_full_window(results["speed"].dataset), ours)
        draw_melting(axes[1, 0], density)
        draw_profiles(axes[1, 1], density)
        figure.suptitle("A Lennard-Jones crystal melts in LAMMPS, analysed while it runs", fontsize=16)
        figure.savefig(path, dpi=120)


def draw_temperature(axes: Axes, ours: xr.DataArray, streamed: Floats) -> None:
    axes.plot(ours["time"], streamed, color=THEIRS, linewidth=4, alpha=0.5, label="LAMMPS's own")
    axes.plot(ours["time"], ours, color=OURS, linewidth=1.2, label="from the moments of the velocities")
    axes.set(title="Kinetic temperature", xlabel="time", ylabel="temperature", xlim=(0, float(ours["time"][-1])))
    # The hot start would flatten all that follows: within a few steps half of its energy breaks up the crystal.
    later = streamed[len(streamed) // 2 :]
    axes.set_ylim(later.mean() - 10 * later.std(), later.mean() + 20 * later.std())
    axes.annotate(f"starts at {streamed[0]:.1f}", (0.02, 0.96), xycoords="axes fraction", color=OURS, va="top")
    axes.legend(loc="upper right")


def draw_speeds(axes: Axes, speed: xr.Dataset, ours: xr.DataArray) -> None:
    edges, measured, theory = shares(speed, ours)
    widths = np.diff(edges)
    axes.bar(edges[:-1], measured / widths, widths, align="edge", color=OURS, alpha=0.6, label="measured")
    axes.plot(edges[:-1] + widths / 2, theory / widths, color=THEIRS, linewidth=2, label="Maxwell-Boltzmann")
    seen = np.compress(measured > 1e-6, edges[1:])
    axes.set(title="Speeds of the atoms in the melt", xlabel="speed", ylabel="share per unit of speed")
    axes.set(xlim=(0, seen.max()), ylim=(0, None))
    axes.legend()


def draw_melting(axes: Axes, density: xr.Dataset) -> None:
    """Show the first steps only: the crystal is gone within a time of 1."""
    first = density.isel(step=slice(0, 21))
    mesh = axes.pcolormesh(
        first["time"], centres(density), first["density"].transpose(..., "step"), cmap="viridis", vmin=0, vmax=2
    )
    axes.figure.colorbar(mesh, ax=axes, label="atoms per volume", extend="max")
    axes.set(title="The planes of the crystal fade", xlabel="time", ylabel="z")


def draw_profiles(axes: Axes, density: xr.Dataset) -> None:
    z, values = centres(density), density["density"].transpose("step", ...)
    melt = values.isel(step=slice(values.sizes["step"] // 2, None)).mean("step")
    axes.plot(z, values.isel(step=0), color=OURS, linewidth=1, alpha=0.7, label="the crystal, first step")
    axes.plot(z, melt, color=THEIRS, linewidth=2.5, label="the melt, second half of the run")
    axes.set(title="Density along z", xlabel="z", ylabel="atoms per volume", xlim=(0, float(z[-1])))
    axes.set_ylim(0, 1.3 * float(values.isel(step=0).max()))  # room for the legend above the planes
    axes.legend(loc="upper center", ncols=2, fontsize=10)


def centres(density: xr.Dataset) -> Floats:
    """The middles of the bins, whose edges are the same in each step."""
    edges = density["edges"].isel(step=0).values
    return np.asarray((edges[:-1] + edges[1:]) / 2)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare a finished run of the melt with LAMMPS and with theory.")
    parser.add_argument("run", type=Path, help="the run's directory, e.g. runs/lammps_melt")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
