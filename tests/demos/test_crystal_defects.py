# SPDX-License-Identifier: Apache-2.0
"""Diffraction of the demo's crystals against what is known of nickel, and against the sum over atoms."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.demos.conftest import ROOT, finished

#: Of copper's K-alpha line, in Å.
WAVELENGTH = 1.5406


@pytest.fixture(scope="module")
def demo() -> Iterator[ModuleType]:
    folder = str(ROOT / "demos")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("crystal_defects")
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Crystals that are cold and not relaxed, by kind and seed; `seen` twelve, with their kinds. MPI stays outside."""
    folder = tmp_path_factory.mktemp("crystals")
    made = finished(
        [sys.executable, str(Path(__file__).parent / "programs" / "crystals.py"), str(ROOT / "demos")], folder
    )
    assert made.returncode == 0, made.stderr
    return dict(np.load(folder / "crystals.npz"))


def reflection(r: Any, hkl: tuple[float, float, float], demo: ModuleType) -> float:
    """The squared structure factor of a reflection, by the sum over atoms."""
    axes = np.array([[1, 1, -2], [-1, 1, 0], [1, 1, 1]]) / np.sqrt([[6], [2], [3]])
    q = 2 * np.pi / demo.A * axes @ np.array(hkl)
    return float(np.abs(np.exp(1j * r @ q).sum()) ** 2 / len(r) ** 2)


@pytest.mark.parametrize("hkl", [(1, 1, 1), (0, 0, 2), (2, 2, 0), (1, 1, 3), (-1, 1, 1)])
def test_unmixed_indices_reflect(demo: ModuleType, crystals: dict[str, Any], hkl: tuple[int, int, int]) -> None:
    assert reflection(crystals["perfect_0"], hkl, demo) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("hkl", [(0, 0, 1), (1, 1, 0), (1, 1, 2), (2, 1, 1)])
def test_mixed_indices_do_not(demo: ModuleType, crystals: dict[str, Any], hkl: tuple[int, int, int]) -> None:
    assert reflection(crystals["perfect_0"], hkl, demo) < 0.02


def test_the_pattern_is_the_sum_over_atoms(demo: ModuleType, crystals: dict[str, Any]) -> None:
    r = crystals["relaxed"]
    found = demo.intensity(r[:, [0, 2]])
    k = np.arange(-20, 21)
    q = 2 * np.pi * k / demo.BOX
    waves = [np.exp(1j * np.outer(q, r[:, axis])) for axis in (0, 2)]
    expected = np.abs(waves[0] @ waves[1].T) ** 2 / len(r) ** 2
    np.testing.assert_allclose(found[np.ix_(k + 64, k + 64)], expected, atol=1e-2)
    assert found[64, 64] == pytest.approx(1.0)


def test_peaks_lie_at_the_angles_of_nickel(demo: ModuleType, crystals: dict[str, Any]) -> None:
    """At 44.5, 51.8 and 76.4 degrees, seen along [-1 1 0]: (111), (002), (220)."""
    found = demo.intensity(crystals["perfect_0"][:, [0, 2]])
    q = 2 * np.pi / demo.BOX * (np.arange(demo.CELLS) - demo.CELLS // 2)
    size = np.hypot(*np.meshgrid(q, q, indexing="ij"))
    angle = 2 * np.degrees(np.arcsin(np.minimum(size * WAVELENGTH / (4 * np.pi), 1.0)))
    inner = found[1:-1, 1:-1]
    neighbours = [
        np.roll(found, (i, j), (0, 1))[1:-1, 1:-1] for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)
    ]
    peaks = angle[1:-1, 1:-1][(inner > 0.3) & (inner >= np.max(neighbours, axis=0))]
    first = np.sort(peaks[(peaks > 1) & (peaks < 80)])
    expected = [44.5] * 4 + [51.8] * 2 + [76.4] * 2
    np.testing.assert_allclose(first, expected, atol=1.3)  # a cell of q is 1.1 degrees


def test_a_twin_has_the_reflections_of_both_sides(demo: ModuleType, crystals: dict[str, Any]) -> None:
    """Turned by half a turn about [1 1 1], (002) falls where (11-5)/3 was, where a perfect crystal has nothing."""
    hkl = (4 / 3, 4 / 3, -2 / 3)
    assert reflection(crystals["perfect_0"], hkl, demo) < 0.02
    assert reflection(crystals["twin_0"], hkl, demo) > 0.1
    assert reflection(crystals["twin_0"], (1, 1, 1), demo) == pytest.approx(1.0, abs=1e-9)


def test_dislocations_blur_what_moves_along_y_alone(demo: ModuleType, crystals: dict[str, Any]) -> None:
    """(-220) has all of its q along the Burgers vector."""
    for seed in range(3):
        assert reflection(crystals[f"dislocations_{seed}"], (-2, 2, 0), demo) < 0.6


def test_all_kinds_come_and_patterns_are_what_the_network_takes(demo: ModuleType, crystals: dict[str, Any]) -> None:
    assert set(crystals["kinds"].tolist()) == {0, 1, 2}
    assert crystals["patterns"].shape == (12, 2, demo.KEPT, demo.KEPT)
    assert crystals["patterns"].dtype == np.float32
    assert -4 <= crystals["patterns"].min() < crystals["patterns"].max() <= 0.001
    np.testing.assert_array_equal(crystals["again"], crystals["patterns"][-1])
