# SPDX-License-Identifier: Apache-2.0
"""Functions of a window, right and wrong ones."""

import gc
from typing import Any

import numpy as np
import xarray as xr


def whole(window: xr.Dataset) -> xr.Dataset:
    return window


def large(window: xr.Dataset) -> xr.DataArray:
    """Lazy, and too large for the controller."""
    return (window["uneven"].mean("step", keep_attrs=True) * xr.ones_like(_many())).rename("many")


def _many() -> xr.DataArray:
    return xr.DataArray(np.zeros(5000), dims="copy")


def numbers(window: xr.Dataset) -> dict[str, Any]:
    assert window["uneven"].chunks is not None
    return {
        "sum": window["uneven"].sum().compute(),
        "chunks": len(window["uneven"].chunks[1]),
        "length": window.step.size,
        "collects": int(gc.isenabled() and gc.get_threshold()[0] > 0),
    }


def order(window: xr.Dataset) -> dict[str, Any]:
    """A number that tells in which order the particles are."""
    values = window["particles"].values[0].ravel()
    return {"order": float(values @ np.arange(1.0, len(values) + 1)), "units": len(window["particles"].attrs["units"])}


def picture(window: xr.Dataset) -> Any:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot(window["time"], window["agreed"])
    return figure


def broken(window: xr.Dataset) -> None:
    raise ZeroDivisionError("nothing to divide by in a function")


def nonsense(window: xr.Dataset) -> str:
    return "a sentence"


def nothing(window: xr.Dataset) -> None:
    window.sum()


def missing(window: xr.Dataset) -> xr.DataArray:
    return window["temperature"]


def changing(window: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(np.zeros(3 + int(window["step"][0]) // 10), dims="cell", name="n")
