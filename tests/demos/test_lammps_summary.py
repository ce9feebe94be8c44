# SPDX-License-Identifier: Apache-2.0
"""The summary of a melt, on results made up from random numbers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

pytest.importorskip("matplotlib")

from demos import lammps_summary as summary
from tests.demos.conftest import Start

Said = Callable[[Path], tuple[int, str, str]]
STEPS, WINDOW, ATOMS, TEMPERATURE = 45, 20, 2000, 1.6
LOG = """LAMMPS (22 Jul 2025 - Update 4)
run {step} pre no post no
   Step          Temp          Press
{rows}
WARNING: something in between
Loop time of 0.11 on 2 procs for 10 steps with 2000 atoms
"""


def velocities(steps: int = STEPS) -> np.ndarray:
    """Of shape (step, atom, 3), in equilibrium, without total momentum."""
    v = np.random.default_rng(4).normal(0.0, np.sqrt(TEMPERATURE), (steps, ATOMS, 3))
    return v - v.mean(axis=1, keepdims=True)


def temperatures(v: np.ndarray) -> np.ndarray:
    return np.sum(v**2, axis=(1, 2)) / (3 * ATOMS - 3)


def moments(v: np.ndarray) -> xr.Dataset:
    flat = v.reshape(len(v), -1)
    n = flat.shape[1]
    return xr.Dataset(
        {
            "count": ("step", np.full(len(v), n)),
            "mean": ("step", flat.mean(axis=1)),
            "variance": ("step", flat.var(axis=1, ddof=1)),
        },
        coords={"step": 10 * np.arange(len(v)), "time": ("step", 0.05 * np.arange(len(v)))},
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's directory, laid out as a run leaves it."""
    v = velocities()
    series = moments(v)
    own = temperatures(v)
    edges, z = np.linspace(0, 8, 51), np.linspace(0, 33, 41)
    starts = range(0, STEPS, WINDOW)
    speed = np.linalg.norm(v, axis=2)
    speeds = xr.Dataset(
        {
            "count": (("window", "bin"), [np.histogram(speed[k : k + WINDOW], edges)[0] for k in starts]),
            "edges": (("window", "edge"), [edges] * len(starts)),
        },
        coords={
            "first_step": ("window", [10 * k for k in starts]),
            "last_step": ("window", [10 * (min(k + WINDOW, STEPS) - 1) for k in starts]),
            "steps": ("window", [min(WINDOW, STEPS - k) for k in starts]),
        },
    )
    density = xr.Dataset(
        {"density": (("step", "bin"), np.full((STEPS, 40), 0.84)), "edges": (("step", "edge"), [z] * STEPS)},
        coords=dict(series.coords),
    )
    temperature = xr.Dataset({"mean": ("step", own)}, coords=dict(series.coords))
    groups = {"velocity": series, "temperature": temperature, "speed": speeds, "density": density}
    xr.DataTree.from_dict(groups).to_zarr(tmp_path / "results.zarr", consolidated=False)
    rows = "\n".join(f"{10 * k:>10} {t:.15g} 5.1" for k, t in enumerate(own))
    (tmp_path / "log.lammps").write_text(LOG.format(step=10, rows=rows))
    return tmp_path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Call the summary in this process, where it draws nothing; return its status and what it printed."""

    def said(run: Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["lammps_summary.py", str(run)])
        status = summary.main()
        return status, *capsys.readouterr()

    return said


def test_a_melt_that_agrees_is_printed_and_drawn(run: Path, start: Start) -> None:
    done = start("lammps_summary", run)
    assert done.returncode == 0, done.stderr
    assert "All 45 steps agree" in done.stdout
    assert "Speeds in steps 200 to 390" in done.stdout, "the last window is short and says less"
    assert (run / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_a_temperature_off_by_more_than_one_millionth_is_a_failure(run: Path, start: Start) -> None:
    log = run / "log.lammps"
    lines = log.read_text().splitlines()
    step, temperature, pressure = lines[20].split()
    lines[20] = f"{step} {float(temperature) * (1 + 2e-6)} {pressure}"
    log.write_text("\n".join(lines))
    done = start("lammps_summary", run)
    assert done.returncode == 1
    assert "DO NOT AGREE: largest relative difference 2.0e-06" in done.stdout


def test_a_folder_without_a_run_is_named_with_the_cure(tmp_path: Path, said: Said) -> None:
    status, _, stderr = said(tmp_path / "nothing")
    assert status == 2
    assert "insitu run configs/lammps_melt.yaml" in stderr


def test_an_operator_without_results_is_named(run: Path, said: Said) -> None:
    shutil.rmtree(run / "results.zarr" / "density")
    status, _, stderr = said(run)
    assert status == 2
    assert "no results of the operator 'density'" in stderr


def test_temperature_needs_only_count_mean_and_variance() -> None:
    v = velocities(steps=3)
    np.testing.assert_allclose(summary.temperature(moments(v)), temperatures(v), rtol=1e-13)


def test_maxwell_boltzmann_is_scipys() -> None:
    edges = np.linspace(0, 30, 200)
    theory = summary.maxwell_boltzmann(edges, TEMPERATURE)
    np.testing.assert_allclose(theory, np.diff(stats.maxwell.cdf(edges, scale=np.sqrt(TEMPERATURE))), atol=1e-14)
    assert theory.sum() == pytest.approx(1.0)


def test_the_log_is_read_between_its_tables_too(tmp_path: Path) -> None:
    log = tmp_path / "log.lammps"
    log.write_text(LOG.format(step=10, rows="0 3.0 1\n10 2.5 1") + "10 99 99\n" + LOG.format(step=10, rows="20 2.25 1"))
    assert summary.thermo_output(log) == {0: 3.0, 10: 2.5, 20: 2.25}
