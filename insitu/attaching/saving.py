# SPDX-License-Identifier: Apache-2.0
"""Steps in a file, in the form that its name says."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr

from insitu.attaching.exact import Arrays
from insitu.attaching.variable import stacked
from insitu.errors import ConfigError, LocalProtocolError, RunError

#: What a file may be called.
FORMS = (".zarr", ".nc", ".npz")
#: xarray's engines for NetCDF with the packages that each needs, the best first; the last one has few dtypes.
_ENGINES: dict[Literal["netcdf4", "h5netcdf", "scipy"], tuple[str, ...]] = {
    "netcdf4": ("netCDF4",),
    "h5netcdf": ("h5netcdf", "h5py"),
    "scipy": ("scipy",),
}


def require_free(path: Path) -> None:
    """Raise `ConfigError` where steps cannot be written under this name: it is taken, or says no form."""
    if path.suffix not in FORMS:
        raise ConfigError(f"{path} can be no file of steps: its name ends in none of {', '.join(FORMS)}")
    if path.exists():
        raise ConfigError(f"{path} is there already; remove it, or give another name")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path} cannot be written: there is no directory {path.absolute().parent}")


def together(several: list[Arrays]) -> xr.Dataset:
    """Put steps of some variables behind each other along ``step``.

    Raises `LocalProtocolError` where two of them differ in the length of a dim, or one in its shape in each step.
    """
    arrays = [stacked([step[name] for step in several]) for name in several[0]]
    try:
        return xr.merge(arrays, join="exact", compat="equals", combine_attrs="drop")
    except ValueError as error:
        names = ", ".join(several[0])
        raise LocalProtocolError(f"{names} do not fit into one dataset ({error}); take one at a time.") from error


def save(steps: xr.Dataset, path: Path) -> None:
    """Write a dataset as Zarr v3, NetCDF or NumPy's npz, which has the coordinates as arrays of their own.

    Raises `RunError` where it cannot be written.
    """
    try:
        if path.suffix == ".zarr":
            steps.to_zarr(path, mode="w-", zarr_format=3, consolidated=False)
        elif path.suffix == ".nc":
            steps.to_netcdf(path, engine=_netcdf())
        else:
            arrays = {str(name): np.asarray(array) for name, array in steps.variables.items()}
            np.savez(path, **arrays)  # type: ignore[arg-type]  # its flag allow_pickle has a name of its own
    except (OSError, ValueError, TypeError, ImportError) as error:
        cure = " NetCDF needs netCDF4, h5netcdf or scipy; .zarr takes every dtype." if path.suffix == ".nc" else ""
        raise RunError(f"Cannot write {path}: {str(error).rstrip('.')}.{cure}") from error


def _netcdf() -> Literal["netcdf4", "h5netcdf", "scipy"] | None:
    """Return the best engine of which all is installed: xarray would take one of which only a part is."""
    return next((engine for engine, needs in _ENGINES.items() if all(map(find_spec, needs))), None)
