# SPDX-License-Identifier: Apache-2.0
"""The hybrid twin of a mould, as a controller: it learns from the sensors (`resin_estimate`), and sets the gates.

After each so many steps the estimate is renewed; the mould that it expects is filled to its end under each of the
gates' settings, from where it is now; and the setting with the smallest dry spot is set, the quickest of equals. Then
the same again: a plan holds only until the next look (model predictive control).
"""

import itertools
import json
import time
from pathlib import Path

import numpy as np
from pydantic import Field, PrivateAttr
from resin import Array, Mould, arrivals
from resin_estimate import PLACES, Estimate, Seen, fill_to

from insitu.steering.controller import Action, Controller, Parameters, Result

#: A gate is shut or open.
SETTINGS = np.array([levels for levels in itertools.product((0.0, 4e5), repeat=5) if any(levels)])
#: What the time to the end counts against a dry spot, per s; and by how much another setting has to be better.
HASTE, BETTER = 1e-6, 2e-3


class Twin(Controller):
    """Sets `gates` by what the operators `pressure`, `arrival` and `gates` say; ``control: false`` only watches."""

    control: bool = Field(default=True, description="whether it sets the gates")
    size: int = Field(default=40, description="members of the ensemble")
    every: int = Field(default=6, description="steps between two looks")
    log: str = Field(description="file to which each look is written, as a line of JSON")

    _here: dict[str, Array] = PrivateAttr(default_factory=dict)
    _seen: Seen = PrivateAttr(default_factory=Seen)
    _estimate: Estimate | None = PrivateAttr(None)
    _before: float = PrivateAttr(0.0)
    _steps: int = PrivateAttr(0)

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        self._here[result.operator] = result.arrays["mean"]
        if self._here.keys() < {"pressure", "arrival", "gates"}:
            return []
        begin, now, seen = time.perf_counter(), result.provenance.time, self._seen
        here, self._here = self._here, {}
        if not seen.gates or not np.array_equal(seen.gates[-1][1], here["gates"]):
            seen.gates.append((self._before, here["gates"]))
        seen.reached, self._before = here["arrival"], now
        self._steps += 1
        if self._steps % self.every:
            return []
        seen.pressures.append((now, here["pressure"]))
        estimate = self._estimate = self._estimate or Estimate(self.size)
        estimate.update(seen)
        moulds = estimate.likely(now, seen.gates)
        setting, dry = here["gates"], expected(moulds, here["gates"])[0]
        if self.control:
            setting, dry = best(moulds, here["gates"])
        self._write(now, setting, dry, time.perf_counter() - begin)
        if np.array_equal(setting, here["gates"]):
            return []
        return [Action("set", {"gates": setting.tolist()}, why=f"dry spots of {dry:.1%} are to be expected")]

    def _write(self, now: float, setting: Array, dry: float, wall_s: float) -> None:
        assert self._estimate is not None
        gates, arrival = self._seen.gates, []
        for corrected in (False, True):
            mould = self._estimate.mould(corrected=corrected)
            fill_to(mould, 5 * now, gates)
            arrival.append(arrivals(mould, PLACES).tolist())
        line = {
            "time": now, "at_s": time.monotonic(), "wall_s": wall_s, "wanted": setting.tolist(), "dry": dry,
            "log_k": [self._estimate.log_k(corrected=corrected).tolist() for corrected in (False, True)],
            "reached": self._seen.reached.tolist(), "arrival": arrival,
        }  # fmt: skip
        with Path(self.log).open("a") as file:
            file.write(json.dumps(line) + "\n")


def best(moulds: list[Mould], gates: Array) -> tuple[Array, float]:
    """Return the setting of the gates from which the smallest dry spot is expected, and its share of the mould."""
    (dry, when), setting = min(
        ((expected(moulds, setting), setting) for setting in SETTINGS), key=lambda each: each[0][0] + HASTE * each[0][1]
    )
    kept, then = expected(moulds, gates)
    if dry + HASTE * when > kept + HASTE * then - BETTER:
        return gates, kept
    return setting, dry


def expected(moulds: list[Mould], gates: Array) -> tuple[float, float]:
    """Return what stays dry of moulds that are filled to their end with these pressures, and when, in the mean."""
    dry, when = np.mean([end(mould, gates) for mould in moulds], axis=0)
    return float(dry), float(when)


def end(now: Mould, gates: Array) -> tuple[float, float]:
    """Fill a copy of a mould as far as it goes; return what stays dry, and when it is over."""
    copy = Mould(now.permeability, ports=now.ports)
    copy.time, copy.fill, copy.dry, copy.arrival = now.time, now.fill.copy(), now.dry.copy(), now.arrival.copy()
    copy.advance(5e3, gates)
    return float((copy.fill < 1).mean()), float(np.nanmax(copy.arrival))
