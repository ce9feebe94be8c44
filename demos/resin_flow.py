# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of `resin.Mould`, cell by cell: where the liquid goes until a moment, event after event."""

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@numba.njit(cache=True)
def fill_until(
    time: float, end: float, fill: Array, pressure: Array, arrival: Array, dry: Mask,
    east: Array, north: Array, inlet: Array, pressures: Array, vents: Mask, volume: float,
) -> tuple[float, float]:  # fmt: skip
    """Fill cells from `time` to `end`; return when the last one moved and the volume that came in.

    `fill`, `pressure`, `arrival` and `dry` are changed in place. `inlet` is how well each cell is joined to a
    gate (0: to none), `pressures` the pressure of that gate.
    """
    ny, nx = fill.shape
    injected = 0.0
    inflow, band, right = np.empty((ny, nx)), np.empty((ny * nx, ny + 1)), np.empty(ny * nx)
    shut, stack = np.empty((ny, nx), np.bool_), np.empty(ny * nx, np.int64)
    while time < end:
        for j in range(ny):
            for i in range(nx):
                shut[j, i] = inlet[j, i] == 0 or pressures[j, i] <= 0 or dry[j, i]
        back = True
        while back:
            _solve(fill, pressure, dry, east, north, inlet, pressures, shut, band, right)
            entering, back = 0.0, False
            for j in range(ny):
                for i in range(nx):
                    inflow[j, i] = 0.0 if shut[j, i] else inlet[j, i] * (pressures[j, i] - pressure[j, i])
                    entering += inflow[j, i]
                    if inflow[j, i] < 0:  # what would flow back finds the gate shut
                        shut[j, i] = back = True
        _share(pressure, dry, east, north, inflow)
        step = np.inf
        for j in range(ny):
            for i in range(nx):
                if fill[j, i] < 1 and not dry[j, i] and inflow[j, i] > 0:
                    step = min(step, (1 - fill[j, i]) * volume / inflow[j, i])
        if step == np.inf:
            break
        lasts, step = step, min(step, end - time)
        time += step
        injected += entering * step
        filled = False
        for j in range(ny):
            for i in range(nx):
                if fill[j, i] < 1 and not dry[j, i] and inflow[j, i] > 0:
                    full = (1 - fill[j, i]) * volume / inflow[j, i] <= step * (1 + 1e-9) and lasts <= step
                    fill[j, i] = 1.0 if full else fill[j, i] + inflow[j, i] * step / volume
                    if full:
                        arrival[j, i] = time
                        filled = True
        if filled:
            _trap(fill, dry, vents, stack)
    return time, injected


@numba.njit(cache=True)
def _share(pressure: Array, dry: Mask, east: Array, north: Array, inflow: Array) -> None:
    """Add to what comes through the gates what flows from cell to cell (m^2/s)."""
    ny, nx = pressure.shape
    for j in range(ny):
        for i in range(nx):
            if i + 1 < nx and not dry[j, i] and not dry[j, i + 1]:
                flow = east[j, i] * (pressure[j, i] - pressure[j, i + 1])
                inflow[j, i] -= flow
                inflow[j, i + 1] += flow
            if j + 1 < ny and not dry[j, i] and not dry[j + 1, i]:
                flow = north[j, i] * (pressure[j, i] - pressure[j + 1, i])
                inflow[j, i] -= flow
                inflow[j + 1, i] += flow


@numba.njit(cache=True)
def _solve(
    fill: Array, pressure: Array, dry: Mask, east: Array, north: Array, inlet: Array, pressures: Array, shut: Mask,
    band: Array, right: Array,
) -> None:  # fmt: skip
    """Set the pressure of full cells, 0 in the others: a banded Cholesky, cells numbered along y.

    Cells that are not full keep p = 0, an identity in the matrix; columns of the mould behind the front are left out.
    """
    ny, nx = fill.shape
    columns = 0
    for i in range(nx):
        for j in range(ny):
            pressure[j, i] = 0.0
            if fill[j, i] >= 1:
                columns = i + 1
    n = columns * ny
    for i in range(columns):
        for j in range(ny):
            row = i * ny + j
            right[row] = 0.0
            for at in range(ny):
                band[row, at] = 0.0  # band[row, ny - d] is the matrix at (row, row - d)
            band[row, ny] = 1.0
            if fill[j, i] < 1:
                continue
            diagonal = 0.0
            if not shut[j, i]:
                diagonal = inlet[j, i]
                right[row] = inlet[j, i] * pressures[j, i]
            if i > 0 and not dry[j, i - 1]:
                diagonal += east[j, i - 1]
                if fill[j, i - 1] >= 1:
                    band[row, 0] = -east[j, i - 1]
            if i + 1 < nx and not dry[j, i + 1]:
                diagonal += east[j, i]
            if j > 0 and not dry[j - 1, i]:
                diagonal += north[j - 1, i]
                if fill[j - 1, i] >= 1:
                    band[row, ny - 1] -= north[j - 1, i]
            if j + 1 < ny and not dry[j + 1, i]:
                diagonal += north[j, i]
            if diagonal > 0:
                band[row, ny] = diagonal
    for row in range(n):
        for column in range(max(0, row - ny), row + 1):
            at = ny - row + column
            value = band[row, at]
            for k in range(max(0, row - ny), column):
                value -= band[row, ny - row + k] * band[column, ny - column + k]
            if column < row:
                band[row, at] = value / band[column, ny]
            elif value > 1e-12 * band[row, ny]:
                band[row, ny] = np.sqrt(value)
            else:  # liquid that nothing flows into or out of: any constant will do, so 0
                band[row, ny] = 1e100
        value = right[row]
        for k in range(max(0, row - ny), row):
            value -= band[row, ny - row + k] * right[k]
        right[row] = value / band[row, ny]
    for row in range(n - 1, -1, -1):
        value = right[row] / band[row, ny]
        right[row] = value
        for k in range(max(0, row - ny), row):
            right[k] -= band[row, ny - row + k] * value
        pressure[row % ny, row // ny] = value


@numba.njit(cache=True)
def _trap(fill: Array, dry: Mask, vents: Mask, stack: npt.NDArray[np.int64]) -> None:
    """Note which cells hold air that cannot reach the vent any more."""
    ny, nx = fill.shape
    waiting = 0
    for j in range(ny):
        for i in range(nx):
            dry[j, i] = fill[j, i] < 1
            if dry[j, i] and i == nx - 1 and vents[j]:
                dry[j, i] = False
                stack[waiting] = j * nx + i
                waiting += 1
    while waiting > 0:
        waiting -= 1
        j, i = stack[waiting] // nx, stack[waiting] % nx
        for d in range(4):
            b, a = j + (d == 0) - (d == 1), i + (d == 2) - (d == 3)
            if 0 <= b < ny and 0 <= a < nx and dry[b, a]:
                dry[b, a] = False
                stack[waiting] = b * nx + a
                waiting += 1
