# SPDX-License-Identifier: Apache-2.0
"""Look at a finished run of alanine dipeptide: ``python demos/md_manifold_summary.py runs/md_manifold``.

Says how well the diffusion map and the principal components tell the basins of the molecule apart: of the conformations
of each basin, the share whose five nearest neighbours in the coordinates are mostly of the same one. Draws
``manifold.png`` in the run's directory, with the density of the angles phi and psi in which basins are defined. Ends
with status 1 when the map tells less than 0.85 of any basin, or a basin was hardly visited.

All that it reads is ``results.zarr``, with xarray, as anyone may.
"""

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.spatial import KDTree

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

BASINS = ("beta and PII", "alpha R", "alpha L")
COLOURS = ("#0072b2", "#e69f00", "#009e73")
NEIGHBOURS = 5
ENOUGH, VISITS = 0.85, 20


def main() -> int:
    run = parse_options().run
    try:
        results = read(run)
    except (FileNotFoundError, LookupError) as error:
        print(f"{run} holds no finished run ({error}); make one: insitu run configs/md_manifold.yaml", file=sys.stderr)
        return 2
    found, flat = (last_row(results[name].dataset) for name in ("map", "flat"))
    sampled = found["sampled"].values
    kept = sampled >= 0
    angles = np.column_stack([angle_of(results[name].dataset, sampled[kept]) for name in ("phi", "psi")])
    basins = basin_of(angles)
    if not np.array_equal(sampled, flat["sampled"].values):
        raise SystemExit("The map and the components are not of the same conformations.")
    coordinates, components = found["coordinates"].values[kept], flat["applied"].values[kept]
    shares = told_apart(coordinates, basins)
    print_shares(basins, shares, told_apart(components, basins))
    draw(angles, basins, coordinates, components, run / "manifold.png")
    print(f"\nDrawn in {run / 'manifold.png'}")
    return 0 if shares.min() >= ENOUGH and np.bincount(basins, minlength=3).min() >= VISITS else 1


def read(run: Path) -> xr.DataTree:
    """Return the results; raise `LookupError` where an operator has none."""
    results = xr.open_datatree(run / "results.zarr", engine="zarr", consolidated=False).load()
    for operator in ("map", "flat", "phi", "psi"):
        if operator not in results or 0 in results[operator].dataset.sizes.values():
            raise LookupError(f"no results of the operator '{operator}'")
    return results


def last_row(results: xr.Dataset) -> xr.Dataset:
    return results.isel(window=-1)


def angle_of(series: xr.Dataset, steps: Whole) -> Floats:
    """Return the angle in some steps, in degrees."""
    place = np.searchsorted(series["step"].values, steps)
    return np.asarray(series["mean"].values[place], dtype=np.float64)


def basin_of(angles: Floats) -> Whole:
    """Return the basin of each pair (phi, psi): 0 beta and PII, 1 right-handed helix, 2 left-handed.

    >>> basin_of(np.array([[-70.0, 150.0], [-70.0, -30.0], [55.0, 40.0], [-150.0, -170.0]]))
    array([0, 1, 2, 0])
    """
    phi, psi = angles.T
    left = (phi > 0) & (phi < 130)
    helix = ~left & (psi > -120) & (psi < 60)
    return np.where(left, 2, np.where(helix, 1, 0))


def told_apart(coordinates: Floats, basins: Whole) -> Floats:
    """Return for each basin the share of its points whose neighbours, without themselves, are mostly of it."""
    _, near = KDTree(coordinates).query(coordinates, NEIGHBOURS + 1)
    votes = np.stack([(basins[near[:, 1:]] == basin).sum(axis=1) for basin in range(len(BASINS))], axis=1)
    right = votes.argmax(axis=1) == basins
    return np.array([right[basins == k].mean() if (basins == k).any() else 0.0 for k in range(len(BASINS))])


def print_shares(basins: Whole, of_map: Floats, of_components: Floats) -> None:
    print(f"{'basin':<14}{'visits':>8}{'diffusion map':>16}{'components':>13}")
    for k, name in enumerate(BASINS):
        print(f"{name:<14}{(basins == k).sum():>8}{of_map[k]:>16.2f}{of_components[k]:>13.2f}")


def draw(angles: Floats, basins: Whole, coordinates: Floats, components: Floats, path: Path) -> None:
    mpl.use("agg")
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    density, of_map, of_components = figure.subplots(1, 3)
    density.hist2d(*angles.T, bins=np.arange(-180, 181, 10), norm=mpl.colors.LogNorm(), cmap="Greys")
    points(density, angles, basins, size=2)
    density.set(title="the angles, which the map never saw", xlabel="phi, degree", ylabel="psi, degree")
    points(of_map, coordinates[:, :2], basins, size=4)
    of_map.set(title="diffusion map", xlabel="coordinate 1", ylabel="coordinate 2")
    points(of_components, components[:, :2], basins, size=4)
    of_components.set(title="principal components", xlabel="component 1, nm", ylabel="component 2, nm")
    of_map.legend(markerscale=3, frameon=False)
    figure.savefig(path, dpi=110)


def points(axes: Axes, places: Floats, basins: Whole, size: float) -> None:
    for k, (name, colour) in enumerate(zip(BASINS, COLOURS, strict=True)):
        x, y = places[basins == k].T
        axes.scatter(x, y, s=size, color=colour, label=name, linewidths=0)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Look at a finished run of alanine dipeptide.")
    parser.add_argument("run", type=Path, help="directory of the run, such as runs/md_manifold")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
