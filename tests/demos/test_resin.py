# SPDX-License-Identifier: Apache-2.0
"""The mould against what is known exactly of a front that moves by Darcy's law."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

K, P = 1e-10, 1e5


@pytest.fixture(scope="module")
def resin() -> Iterator[ModuleType]:
    folder = str(Path(__file__).parents[2] / "demos")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("resin")
    finally:
        sys.path.remove(folder)


def line(resin: ModuleType, cells: int) -> Any:
    return resin.Mould(np.full((1, cells), K), gates=1, vent=1.0)


@pytest.mark.parametrize("cells", [7, 60])
def test_the_front_of_a_line_is_the_exact_one(resin: ModuleType, cells: int) -> None:
    """x = sqrt(2 K p t / (porosity viscosity)): at the ends of cells to rounding, whatever their size."""
    mould = line(resin, cells)
    mould.advance(500.0, [P])
    ends = mould.x + mould.dx / 2
    there = np.isfinite(mould.arrival[0])
    assert there.sum() > cells / 2
    np.testing.assert_allclose(
        mould.arrival[0][there], (resin.POROSITY * resin.VISCOSITY * ends**2 / (2 * K * P))[there], rtol=1e-10
    )
    exact = np.sqrt(2 * K * P * 500.0 / (resin.POROSITY * resin.VISCOSITY))
    assert mould.front()[0] == pytest.approx(exact, abs=mould.dx / 4)


def test_an_uneven_mould_converges_with_its_cells(resin: ModuleType) -> None:
    """When the middle third is full, on grids of which each has half the cell size of the one before."""
    when = []
    for n in (6, 12, 24):
        x, y = np.meshgrid((np.arange(3 * n // 2) + 0.5) / (3 * n // 2), (np.arange(n) + 0.5) / n)
        mould = resin.Mould(K * np.exp(np.sin(4 * x) * np.cos(3 * y)), vent=1.0)
        mould.advance(3000.0, [P, P, P])
        third = slice(n // 3, 2 * n // 3)
        when.append(float(np.nanmean(mould.arrival[third, n // 2 : n])))
    assert abs(when[2] - when[1]) < 0.7 * abs(when[1] - when[0])
    assert abs(when[2] - when[1]) < 0.05 * when[2]


def test_the_pressure_falls_in_a_straight_line_to_the_front(resin: ModuleType) -> None:
    mould = line(resin, 60)
    mould.advance(200.0, [P])
    full = mould.fill[0] >= 1
    slope = np.diff(mould.pressure[0][full])
    np.testing.assert_allclose(slope, slope[0], rtol=1e-9)
    assert mould.pressure[0][0] == pytest.approx(P + slope[0] / 2)


@pytest.mark.parametrize("steps", [1, 7])
def test_what_goes_in_is_what_is_there(resin: ModuleType, steps: int) -> None:
    random = np.random.default_rng(0)
    mould = resin.Mould(K * np.exp(random.normal(size=(9, 14))))
    for _ in range(steps):
        mould.advance(700.0 / steps, [2 * P, P, 0.0])
    held = mould.fill.sum() * resin.POROSITY * mould.dx * mould.dy
    assert mould.injected == pytest.approx(held, rel=1e-12)
    assert 0.2 < mould.fill.mean() <= 1
    assert np.all((mould.fill >= 0) & (mould.fill <= 1))


def test_cutting_time_into_pieces_changes_nothing(resin: ModuleType) -> None:
    permeability = K * np.exp(np.random.default_rng(1).normal(size=(6, 9)))
    one, many = resin.Mould(permeability), resin.Mould(permeability)
    one.advance(300.0, [P, P, P])
    for _ in range(30):
        many.advance(10.0, [P, P, P])
    np.testing.assert_allclose(many.fill, one.fill, atol=1e-9)


def test_a_mirrored_mould_fills_mirrored(resin: ModuleType) -> None:
    permeability = K * np.exp(np.random.default_rng(2).normal(size=(6, 9)))
    up, down = resin.Mould(permeability), resin.Mould(permeability[::-1].copy())
    up.advance(400.0, [P, 0.0, 2 * P])
    down.advance(400.0, [2 * P, 0.0, P])
    np.testing.assert_allclose(down.fill[::-1], up.fill, atol=1e-9)


def test_an_even_mould_has_no_dry_spot_and_one_with_a_gap_at_its_edge_has(resin: ModuleType) -> None:
    even, gap = resin.Mould(np.full((12, 18), K)), np.full((12, 18), K)
    gap[-1] *= 20
    raced = resin.Mould(gap)
    for mould in (even, raced):
        mould.advance(5000.0, [P, P, P])
        assert mould.over
    assert even.dry.mean() == 0
    assert raced.dry.mean() > 0.02
    assert np.all(raced.fill[raced.dry] < 1)
