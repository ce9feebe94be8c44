# SPDX-License-Identifier: Apache-2.0
"""Functions of a window for ``configs/gray_scott_graph.yaml``: the spots that v forms. Needs scipy and matplotlib."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import ndimage

#: Where v is above this there is a spot.
THRESHOLD = 0.2


def count(window: xr.Dataset) -> dict[str, Any]:
    """How many spots the last step of the window has, and how many cells they have on average."""
    above = (window["v"].isel(step=-1) > THRESHOLD).values
    _, spots = ndimage.label(above)
    return {"spots": spots, "cells_each": float(np.sum(above)) / spots if spots else 0.0}


def picture(window: xr.Dataset) -> Figure:
    """Draw the last step of the window."""
    last = window["v"].isel(step=-1)
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.pcolormesh(last)
    axes.set(title=f"v in step {int(last['step'])}", aspect="equal")
    return figure
