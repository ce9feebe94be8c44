# SPDX-License-Identifier: Apache-2.0
"""The hybrid twin of a mould, as a controller: it identifies, corrects, and sets the gates.

1. **Physics.** A coarse model of the same flow, whose log permeability is bilinear between 3 x 3 points. Its nine
   numbers are identified by an ensemble Kalman filter from the sensors' pressures; each member fills its own mould
   again from the beginning with what the filter has learnt, under the gates as they were.
2. **Data.** What such a model cannot say, as resin that races along an edge, shows as sensors that are reached too
   early or too late. A Gaussian process learns log(predicted / seen arrival) over the mould, and corrects the
   permeability by it, also where no sensor is and where the resin has yet to come.
3. **Control.** The corrected model is filled to its end under many pressures of the gates; those that leave the
   smallest dry spot are set, the quickest of equals.
"""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, PrivateAttr
from resin import Array, Mould, arrivals, at, sensor_places
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from analytics.ensemble_kalman import analyse, gaspari_cohn
from insitu.steering.controller import Action, OneResult, Parameters, Result

NY, NX = 8, 12
POINTS = 3
PRIOR = (np.log(5e-11), 0.6)
LEVELS = (0.0, 2e5, 4e5)
#: A sensor that shows more than this is reached.
REACHED = 1e4
#: What the coarse model is wrong by, beside the sensors' noise.
ERROR = 1.5e4
#: The error of the logarithm of an arrival.
LATE = 0.15
#: What the physics can learn by itself is left to it: the correction begins where log(predicted / seen) is beyond this.
OWN = 0.25
CORRELATED = (0.5, 0.04)  # m, along and across the mould


class Twin(OneResult):
    """Sets `gates` by what the sensors say; with ``control: false`` it only watches."""

    control: bool = Field(default=True, description="whether it sets the gates")
    size: int = Field(default=24, description="members of the ensemble")
    every: int = Field(default=6, description="results between two analyses")
    log: str = Field(description="file to which each analysis is written, as a line of JSON")

    _members: Array = PrivateAttr(default_factory=lambda: _drawn(0, 24))
    _history: list[tuple[float, Array]] = PrivateAttr(default_factory=list)
    _reached: dict[int, float] = PrivateAttr(default_factory=dict)
    _correction: Array = PrivateAttr(default_factory=lambda: np.zeros((NY, NX)))
    _random: np.random.Generator = PrivateAttr(default_factory=lambda: np.random.default_rng(0))
    _used: set[int] = PrivateAttr(default_factory=set)
    _count: int = PrivateAttr(0)

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        begin, now, seen = time.perf_counter(), result.provenance.time, self.array(result)
        gates = np.asarray(parameters["gates"], float)
        self._history.append((now, gates))
        for sensor in np.flatnonzero(seen > REACHED):
            self._reached.setdefault(int(sensor), now)
        self._count += 1
        if self._count % self.every:
            return []
        if self._count == self.every and self.size != len(self._members):
            self._members = _drawn(0, self.size)
        self._identify(seen)
        self._correct()
        plain = self._filled(self._members.mean(axis=0), corrected=False)
        corrected = self._filled(self._members.mean(axis=0), corrected=True)
        best, dry = self._best(corrected) if self.control else (gates, _to_its_end(corrected, gates).dry.mean())
        self._write(now, plain, corrected, gates, best, float(dry), time.perf_counter() - begin)
        if np.array_equal(best, gates):
            return []
        return [Action("set", {"gates": best.tolist()}, why=f"predicted dry spots of {dry:.1%}")]

    def _filled(self, member: Array, *, corrected: bool) -> Mould:
        """Fill a member's mould up to now."""
        mould = Mould(np.exp(bilinear(member) + (self._correction if corrected else 0.0)))
        for when, gates in self._history:
            mould.advance(when - mould.time, gates)
        return mould

    def _identify(self, seen: Array) -> None:
        """Update the members by what the sensors show."""
        moulds = [self._filled(member, corrected=True) for member in self._members]
        new = [sensor for sensor in self._reached if sensor not in self._used]
        self._used |= set(new)
        pressures = np.array([at(mould, mould.pressure, PLACES) for mould in moulds])
        arrived = np.array([arrivals(mould, PLACES)[new] for mould in moulds])
        # A member that has not come there yet will come later than now, though it is not known when.
        arrived = np.where(np.isfinite(arrived), arrived, 1.2 * self._history[-1][0])
        predicted = np.hstack([pressures, np.log(arrived)])
        observed = np.concatenate([seen, np.log([self._reached[sensor] for sensor in new])])
        # Where the correction speaks, the model is known to be wrong, and the filter believes the sensors less.
        doubt = 1 + 4 * (at(moulds[0], self._correction, PLACES) / OWN) ** 2
        noise = np.concatenate([ERROR**2 * doubt, LATE**2 * doubt[new]])
        places = [*range(len(seen)), *new]
        taper = TAPER[0][:, places], TAPER[1][np.ix_(places, places)]
        middle = self._members.mean(axis=0)
        inflated = middle + 1.02 * (self._members - middle)
        self._members = analyse(
            inflated, predicted, observed, noise, method="stochastic", random=self._random, taper=taper
        )

    def _correct(self) -> None:
        """Learn from the sensors that were reached how much too slow the corrected model still is, and where."""
        ahead = _to_its_end(self._filled(self._members.mean(axis=0), corrected=True), self._history[-1][1])
        predicted = arrivals(ahead, PLACES)
        use = [sensor for sensor in self._reached if np.isfinite(predicted[sensor])]
        if not use:
            return
        late = np.log(predicted[use] / np.array([self._reached[sensor] for sensor in use]))
        late = np.sign(late) * np.maximum(np.abs(late) - OWN, 0.0)
        process = GaussianProcessRegressor(kernel=RBF(CORRELATED), alpha=0.2, optimizer=None)
        process.fit(PLACES[use], np.clip(late, -1, 1))
        x, y = np.meshgrid(ahead.x, ahead.y)
        learnt = process.predict(np.column_stack([x.ravel(), y.ravel()]))
        self._correction = np.clip(self._correction + learnt.reshape(NY, NX), -1.0, 4.0)

    def _best(self, now: Mould) -> tuple[Array, float]:
        """Return the gates' pressures with the smallest dry spot, and its share of the mould."""
        tried = []
        for levels in itertools.product(LEVELS, repeat=3):
            if max(levels) == LEVELS[-1]:
                end = _to_its_end(now, np.array(levels))
                tried.append((round(float(end.dry.mean()), 3), end.time, levels))
        dry, _, levels = min(tried)
        return np.array(levels), dry

    def _write(self, now: float, plain: Mould, corrected: Mould, *values: Any) -> None:
        gates, best, dry, wall_s = values
        ends = [_to_its_end(mould, gates) for mould in (plain, corrected)]
        line = {
            "time": now, "wall_s": wall_s, "gates": gates.tolist(), "wanted": best.tolist(), "dry": dry,
            "log_k": bilinear(self._members.mean(axis=0)).tolist(), "correction": self._correction.tolist(),
            "spread": float(self._members.std(axis=0).mean()), "reached": self._reached,
            "arrival": [arrivals(end, PLACES).tolist() for end in ends],
        }  # fmt: skip
        with Path(self.log).open("a") as file:
            file.write(json.dumps(line) + "\n")


PLACES = sensor_places()
#: Where the nine numbers belong, and how far a sensor speaks of them.
KNOTS = np.array([(x, y) for y in (0.0, 0.2, 0.4) for x in (0.0, 0.3, 0.6)])
REACH = 0.3
TAPER = (
    gaspari_cohn(np.linalg.norm(KNOTS[:, None] - PLACES, axis=2), REACH),
    gaspari_cohn(np.linalg.norm(PLACES[:, None] - PLACES, axis=2), REACH),
)


def bilinear(points: Array, ny: int = NY, nx: int = NX) -> Array:
    """Return a field of cells between POINTS x POINTS values at the corners, edges and middle of the mould."""
    grid = points.reshape(POINTS, POINTS)
    x, y = ((np.arange(n) + 0.5) / n * (POINTS - 1) for n in (nx, ny))
    i, j = np.minimum(x.astype(int), POINTS - 2), np.minimum(y.astype(int), POINTS - 2)
    u, v = x - i, (y - j)[:, None]
    below = (1 - u) * grid[j][:, i] + u * grid[j][:, i + 1]
    above = (1 - u) * grid[j + 1][:, i] + u * grid[j + 1][:, i + 1]
    return np.asarray((1 - v) * below + v * above)


def _drawn(seed: int, size: int) -> Array:
    return np.random.default_rng(seed).normal(*PRIOR, size=(size, POINTS**2))


def _to_its_end(mould: Mould, gates: Array) -> Mould:
    """Fill a copy of a mould as far as it goes with these pressures."""
    copy = Mould(mould.permeability)
    copy.time, copy.fill, copy.dry, copy.arrival = mould.time, mould.fill.copy(), mould.dry.copy(), mould.arrival.copy()
    copy.advance(5e3, gates)
    if not copy.over:
        copy.dry |= copy.fill < 1
    return copy
