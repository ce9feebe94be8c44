# SPDX-License-Identifier: Apache-2.0
"""Resin transfer moulding in two dimensions: Darcy flow with a moving front, by finite volumes.

A liquid is pressed through gates at the left edge into a mould full of fibres; the air leaves by a vent at the right.
In the filled part div(K/mu grad p) = 0, with the gates' pressures there and p = 0 at the front; the front moves with
the flow divided by the porosity. Control volumes fill one after the other, each time step long enough to fill the next
one, so that volume is conserved to rounding (M. V. Bruschke, S. G. Advani, Polymer Composites 11 (1990) 398).

Air that is cut off from the vent stays: what it holds is a dry spot. A gate lets nothing back out.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from resin_flow import fill_until
from scipy.ndimage import map_coordinates

Array = npt.NDArray[np.float64]

VISCOSITY = 0.1  # Pa s
POROSITY = 0.5
#: The length of a gate in the lower or upper edge, in m.
PORT = 0.06


@dataclass
class Mould:
    """A mould of `length` times `height` (m) and unit depth, with the permeability (m^2) of each cell in rows of y.

    Rows are shared out evenly among `gates` gates, from below. Where `ports` is not 0, two more follow, so far
    along the lower and the upper edge, as a share of the length. The vent is as many rows around the middle of the
    right edge as `vent` says, of the whole height.
    """

    permeability: Array
    length: float = 0.6
    height: float = 0.4
    gates: int = 3
    ports: float = 0.0
    vent: float = 1 / 6
    time: float = 0.0
    injected: float = 0.0
    fill: Array = field(init=False)
    pressure: Array = field(init=False)
    #: When each cell was full; NaN where it is not.
    arrival: Array = field(init=False)
    dry: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        ny, nx = self.permeability.shape
        self.dx, self.dy = self.length / nx, self.height / ny
        self.fill, self.pressure = np.zeros((ny, nx)), np.zeros((ny, nx))
        self.arrival, self.dry = np.full((ny, nx), np.nan), np.zeros((ny, nx), bool)
        k = self.permeability / VISCOSITY
        self._east = self.dy / self.dx * 2 * k[:, 1:] * k[:, :-1] / (k[:, 1:] + k[:, :-1])
        self._north = self.dx / self.dy * 2 * k[1:] * k[:-1] / (k[1:] + k[:-1])
        rows = np.arange(ny)
        #: How well each cell is joined to a gate, and to which one.
        self._inlet, self._gate = np.zeros((ny, nx)), np.zeros((ny, nx), int)
        self._inlet[:, 0] = 2 * self.dy / self.dx * k[:, 0]
        self._gate[:, 0] = rows * self.gates // ny
        for n, edge in enumerate((0, -1) if self.ports else ()):
            beside = np.abs(self.x - self.ports * self.length) < PORT / 2
            self._inlet[edge, beside] = 2 * self.dx / self.dy * k[edge, beside]
            self._gate[edge, beside] = self.gates + n
        self._vents = np.abs((rows + 0.5) / ny - 0.5) <= max(self.vent / 2, 0.5 / ny) + 1e-9
        self._volume = POROSITY * self.dx * self.dy

    @property
    def x(self) -> Array:
        return np.asarray((np.arange(self.fill.shape[1]) + 0.5) * self.dx)

    @property
    def y(self) -> Array:
        return np.asarray((np.arange(self.fill.shape[0]) + 0.5) * self.dy)

    @property
    def over(self) -> bool:
        """Whether nothing more can be filled."""
        return bool(((self.fill >= 1) | self.dry).all())

    def advance(self, dt: float, gates: npt.ArrayLike) -> None:
        """Go on for `dt` seconds with the pressures (Pa) of the gates."""
        pressures, end = np.asarray(gates, float)[self._gate], self.time + dt
        _, injected = fill_until(
            self.time, end, self.fill, self.pressure, self.arrival, self.dry,
            self._east, self._north, self._inlet, pressures, self._vents, self._volume,
        )  # fmt: skip
        self.injected += injected
        self.time = end

    def front(self) -> Array:
        """Return how far each row is filled from the left, in m."""
        return np.asarray(self.fill.sum(axis=1) * self.dx)


def sensor_places(length: float = 0.6, height: float = 0.4) -> Array:
    """Return where the pressure is measured, as rows of x and y: five along the mould times three across."""
    x, y = np.meshgrid(np.linspace(0.1, 0.9, 5) * length, np.array([0.07, 0.5, 0.93]) * height)
    return np.column_stack([x.ravel(), y.ravel()])


def at(mould: Mould, cells: Array, places: Array) -> Array:
    """Return what a field has at `places`, linearly between the middles of cells."""
    where = [places[:, 1] / mould.dy - 0.5, places[:, 0] / mould.dx - 0.5]
    return np.asarray(map_coordinates(cells, where, order=1, mode="nearest"))


def arrivals(mould: Mould, places: Array) -> Array:
    """Return when `places` were reached, NaN for not yet: as x goes with the root of the time within a cell."""
    i = np.minimum((places[:, 0] / mould.dx).astype(int), mould.fill.shape[1] - 1)
    j = np.minimum((places[:, 1] / mould.dy).astype(int), mould.fill.shape[0] - 1)
    ends = np.sqrt(mould.arrival)
    here = ends[j, i]
    left = np.where(i > 0, ends[j, i - 1], 0.0)
    left = np.where(left < here, left, here)  # reached from elsewhere
    return np.asarray((left + (places[:, 0] / mould.dx - i) * (here - left)) ** 2)
