# SPDX-License-Identifier: Apache-2.0
"""What the hybrid twin knows of a mould: physics that is identified, and a correction that is learnt.

**Physics.** The state is the logarithm of the permeability on a coarse grid, as a mean and the largest modes of a
Gaussian field (Karhunen-Loève), of which only scale, spread and correlation length are known beforehand. Pressures
alone say only how permeabilities compare, since a mould of twice the permeability has the same pressures after half
the time; when the front arrives at the sensors says how large they are. So both are observed.

**Data.** What no such field says is a gap that fibres leave along an edge. It is the model's discrepancy there: a
Gaussian process along the lower and the upper edge, which raises the permeability of the outermost cells, and of which
nothing is known beforehand but that it hardly changes within `ALONG` (M. C. Kennedy, A. O'Hagan, J. R. Stat. Soc. B 63
(2001) 425). It also says what is to be expected where the resin has yet to come.

Both are learnt at once, since what an edge does shows in the middle as well. An ensemble is updated by *all* that was
seen so far, from the prior on each time, in a few steps with as many times the noise: an ensemble smoother with
multiple data assimilation (A. A. Emerick, A. C. Reynolds, Computers & Geosciences 55 (2013) 3).
"""

from dataclasses import dataclass, field

import numpy as np
from resin import Array, Mould, arrivals, at, sensor_places

from analytics.ensemble_kalman import analyse

NY, NX = 12, 18
#: ln K: the scale's mean and standard deviation; the spread of the field around it and how far it is correlated, in m.
SCALE, SPREAD, CORRELATED = (np.log(5e-11), 0.7), 0.5, 0.17
#: The same of the correction: it is nothing beforehand, give or take this, and changes along an edge within so many m.
GAP, ALONG = 1.2, 0.4
#: How many modes of the field, and of the correction of each edge, there are.
MODES, EDGE_MODES = 16, 3
FIELD, EDGES = slice(0, 1 + MODES), slice(1 + MODES, None)
#: Standard deviations: of a sensor's pressure (Pa) with what the coarse model is wrong by; of its clock (s); and of the
#: logarithm of an arrival by the coarse model.
PRESSURE, CLOCK, ARRIVAL = 5e3, 1.0, 0.04
#: Steps of one update, and the pressures of how many moments take part in it.
STEPS, MOMENTS = 4, 8
PLACES = sensor_places()


def modes() -> Array:
    """Return what each number of the state adds to ln K: of shape (1 + MODES + 2 * EDGE_MODES, NY, NX)."""
    x, y = (np.arange(NX) + 0.5) * 0.6 / NX, (np.arange(NY) + 0.5) * 0.4 / NY
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    field_modes = largest(places, SPREAD, CORRELATED, MODES).reshape(MODES, NY, NX)
    edges = np.zeros((2, EDGE_MODES, NY, NX))
    edges[0, :, 0], edges[1, :, -1] = [largest(x[:, None], GAP, ALONG, EDGE_MODES)] * 2
    return np.concatenate([np.full((1, NY, NX), SCALE[1]), field_modes, *edges])


def largest(places: Array, spread: float, length: float, number: int) -> Array:
    """Return the largest modes of a Gaussian process at places of shape (n, d), times their spread: (number, n)."""
    apart = ((places[:, None] - places) ** 2).sum(axis=-1)
    values, vectors = np.linalg.eigh(spread**2 * np.exp(-apart / (2 * length**2)))
    return np.asarray((vectors[:, -number:] * np.sqrt(values[-number:])).T)


@dataclass
class Seen:
    """What was seen: the gates since which time, pressures at some moments, and when sensors were reached."""

    gates: list[tuple[float, Array]] = field(default_factory=list)
    pressures: list[tuple[float, Array]] = field(default_factory=list)
    reached: Array = field(default_factory=lambda: np.full(len(PLACES), np.nan))


class Estimate:
    """An ensemble of moulds that agree with what was seen."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self._modes = modes()
        drawn = np.random.default_rng(seed).normal(size=(size, len(self._modes)))
        # Their covariance is made exactly the prior's, so that no chance correlation is taken for knowledge.
        self._prior = np.linalg.qr(drawn - drawn.mean(axis=0))[0] * np.sqrt(size - 1)
        self.members = self._prior

    def log_k(self, member: Array | None = None, *, corrected: bool = True) -> Array:
        """Return ln K of a member, or of the mean, with or without the correction."""
        member = self.members.mean(axis=0) if member is None else member
        physics, correction = (np.tensordot(member[part], self._modes[part], axes=1) for part in (FIELD, EDGES))
        return np.asarray(SCALE[0] + physics + (np.maximum(correction, 0.0) if corrected else 0.0))

    def mould(self, member: Array | None = None, *, corrected: bool = True) -> Mould:
        """Return an empty mould."""
        return Mould(np.exp(self.log_k(member, corrected=corrected)), ports=0.5)

    def likely(self, now: float, gates: list[tuple[float, Array]], number: int = 4) -> list[Mould]:
        """Return moulds as they may be now: the mean's, and those of some members."""
        moulds = [self.mould(), *map(self.mould, self.members[: number - 1])]
        for mould in moulds:
            fill_to(mould, now, gates)
        return moulds

    def update(self, seen: Seen) -> None:
        """Learn anew from all that was seen."""
        moments = seen.pressures[-1 :: -max(1, -(-len(seen.pressures) // MOMENTS))][::-1]
        there = np.isfinite(seen.reached)
        observed = np.concatenate([np.log(seen.reached[there]), *[pressures for _, pressures in moments]])
        noise = np.full(len(observed), PRESSURE**2)
        noise[: there.sum()] = ARRIVAL**2 + (CLOCK / seen.reached[there]) ** 2
        self.members = self._prior
        for _ in range(STEPS):
            predicted = np.array([self._predicted(member, seen, moments, there) for member in self.members])
            self.members = analyse(self.members, predicted, observed, STEPS * noise)

    def _predicted(self, member: Array, seen: Seen, moments: list[tuple[float, Array]], there: Array) -> Array:
        mould, shown = self.mould(member), []
        for when, _ in moments:
            fill_to(mould, when, seen.gates)
            shown.append(at(mould, mould.pressure, PLACES))
        late = 1.25 * moments[-1][0]
        fill_to(mould, late, seen.gates)
        arrived = arrivals(mould, PLACES)[there]
        # A member that has not come there by then comes later still, though it is not known when.
        return np.concatenate([np.log(np.where(np.isfinite(arrived), arrived, late)), *shown])


def fill_to(mould: Mould, when: float, gates: list[tuple[float, Array]]) -> None:
    """Fill a mould under the gates as they were; the last ones stay."""
    ends = [begin for begin, _ in gates[1:]] + [np.inf]
    for (_, pressures), end in zip(gates, ends, strict=True):
        if mould.time < min(end, when):
            mould.advance(min(end, when) - mould.time, pressures)
