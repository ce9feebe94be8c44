# SPDX-License-Identifier: Apache-2.0
"""What the hybrid twin makes of the sensors of a mould whose permeability is known here."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="module")
def demo() -> Iterator[SimpleNamespace]:
    """The demo's modules, by the end of their names."""
    pytest.importorskip("matplotlib")
    folder = str(Path(__file__).parents[2] / "demos")
    sys.path.insert(0, folder)
    try:
        names = ("resin", "resin_machine", "resin_estimate", "resin_twin", "resin_hybrid_twin")
        yield SimpleNamespace(**{name.rpartition("_")[2]: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(folder)


def test_an_uneven_permeability_and_a_gap_are_found_where_the_resin_has_been(demo: SimpleNamespace) -> None:
    """To a quarter of what was known beforehand; the gap's row, and the rest without it, each for itself."""
    gates, random, places = np.array(demo.machine.START), np.random.default_rng(0), demo.estimate.PLACES
    machine, seen = demo.resin.Mould(demo.machine.true_permeability(), ports=0.5), demo.estimate.Seen()
    seen.gates.append((0.0, gates))
    for _ in range(4):
        machine.advance(24.0, gates)
        pressures = demo.resin.at(machine, machine.pressure, places) + random.normal(0, demo.machine.NOISE, len(places))
        seen.pressures.append((machine.time, pressures))
    seen.reached = demo.resin.arrivals(machine, places)
    estimate = demo.estimate.Estimate(size=40)
    estimate.update(seen)
    ny, nx = demo.estimate.NY, demo.estimate.NX
    been = machine.fill.reshape(ny, -1, nx, 2).mean(axis=(1, 3)) > 0.5
    assert 0.3 < been.mean() < 0.6
    for rows in (slice(0, -1), slice(-1, None)):
        error = (estimate.log_k() / np.log(10) - demo.twin.TRUTH)[rows][been[rows]]
        guess = (demo.estimate.SCALE[0] / np.log(10) - demo.twin.TRUTH)[rows][been[rows]]
        assert np.sqrt((error**2).mean()) < 0.45 * np.sqrt((guess**2).mean())
    lower, upper = (estimate.log_k() - estimate.log_k(corrected=False))[[0, -1]]
    assert lower.max() < 0.5 < 1.0 < upper.min(), "the gap is found at the upper edge, and none at the lower one"


def test_gates_are_chosen_that_leave_no_dry_spot(demo: SimpleNamespace) -> None:
    control = importlib.import_module("resin_twin")
    mould, start = demo.resin.Mould(10**demo.twin.TRUTH, ports=0.5), np.array(demo.machine.START)
    left = control.expected([mould], start)[0]
    gates, dry = control.best([mould], start)
    assert left > 0.05
    assert dry < 0.2 * left
    assert dry == control.end(mould, gates)[0]
    assert mould.time == 0, "what was tried has left no trace"
