# SPDX-License-Identifier: Apache-2.0
"""Diffusion maps against MDAnalysis, and on surfaces whose coordinates are known."""

from functools import partial

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from analytics.diffusion_map import DiffusionMap
from analytics.sampling import by_lot
from analytics.superposition import squared_rmsd
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.testing import batch
from tests.analytics.places import fold, read, variable

ATOMS = Variable("u", np.dtype("f8"), (12, 3), ("atom", "axis"), units="nm")


def molecules(steps: int, bent: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """A chain that bends by an angle, somewhere in space, turned in any way, with a little noise."""
    rng = np.random.default_rng(seed)
    bent = rng.uniform(0, np.pi / 2, steps) if bent is None else bent
    along = np.arange(6) * 0.15
    arm = np.stack([along, 0 * along, 0.05 * along**2], axis=1)
    made = np.empty((steps, 12, 3))
    for k, angle in enumerate(bent):
        other = Rotation.from_euler("z", angle).apply(arm[1:] * [-1, 1, 1])
        whole = np.concatenate([arm, other, [[0.0, 0.3, 0.1]]])
        made[k] = Rotation.random(rng=rng).apply(whole + rng.normal(scale=0.002, size=(12, 3))) + rng.normal(size=3)
    return made


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("align", [False, True])
def test_agrees_with_mdanalysis(universe, align: bool, parts: int) -> None:
    diffusionmap = pytest.importorskip("MDAnalysis.analysis.diffusionmap")
    rmsd = pytest.importorskip("MDAnalysis.analysis.rms").rmsd
    steps = molecules(40).astype("f4").astype("f8")
    theirs = universe(steps)
    metric = partial(rmsd, superposition=True) if align else rmsd
    distances = diffusionmap.DistanceMatrix(theirs, select="all", metric=metric).run()
    epsilon = float(np.median(distances.results.dist_matrix) ** 2)
    expected = diffusionmap.DiffusionMap(distances, epsilon=epsilon)
    expected.run()
    # Their distance is over particles, ours without alignment over all numbers.
    width = np.sqrt(epsilon if align else epsilon / 3)
    operator = DiffusionMap(of="u", components=3, sample=50, align=align, width=width, alpha=0)
    found = read(operator, [ATOMS], {"u": steps}, parts=parts)
    np.testing.assert_allclose(found["eigenvalues"], expected.eigenvalues[1:4], rtol=1e-5)
    # Its transform() takes rows of the eigenvectors' matrix for columns, so they are read off its own matrix here.
    values, vectors = np.linalg.eig(expected._diff)
    for k, which in enumerate(np.argsort(values)[::-1][1:4]):
        ours, other = found["coordinates"][:40, k], vectors[:, which]
        assert abs(ours @ other) > (1 - 1e-9) * np.linalg.norm(ours) * np.linalg.norm(other)


def test_aligned_distances_are_those_of_the_best_rotation() -> None:
    steps = molecules(6)
    operator = DiffusionMap(of="u", components=1, sample=6, align=True)
    summary = operator.summarize(operator.update(operator.init(), batch([ATOMS], {"u": steps})))
    squares = squared_rmsd(summary, np.arange(6))
    for a in range(6):
        for b in range(6):
            x, y = (step - step.mean(axis=0) for step in (steps[a], steps[b]))
            best = Rotation.align_vectors(x, y)[1]
            np.testing.assert_allclose(np.sqrt(squares[a, b] * 12), best, atol=1e-7)


def test_finds_the_angle_by_which_a_molecule_bends() -> None:
    """One coordinate, monotonic in the angle, whatever way the molecule lies; of 60 landmarks, for 300 steps."""
    angle = np.random.default_rng(4).uniform(0.2, 1.8, 300)
    operator = DiffusionMap(of="u", components=3, sample=300, landmarks=60, align=True)
    found = read(operator, [ATOMS], {"u": molecules(300, angle)}, sizes=50, parts=2)
    order = np.argsort(np.argsort(angle))
    place = np.argsort(np.argsort(found["coordinates"][:, 0]))
    assert abs(np.corrcoef(order, place)[0, 1]) > 0.99


def test_steps_that_are_no_landmarks_lie_where_the_whole_map_has_them() -> None:
    rng = np.random.default_rng(1)
    turn = rng.uniform(0, 1, 400)
    steps = np.stack([np.cos(4 * turn), np.sin(4 * turn), turn], axis=1) + 0.01 * rng.normal(size=(400, 3))
    whole, few = (
        read(
            DiffusionMap(of="u", components=2, sample=400, landmarks=landmarks, width=0.4),
            [variable(3)],
            {"u": steps},
            sizes=80,
        )
        for landmarks in (400, 100)
    )
    for k in range(2):
        assert np.corrcoef(whole["coordinates"][:, k], few["coordinates"][:, k])[0, 1] > 0.99
    np.testing.assert_allclose(few["eigenvalues"], whole["eigenvalues"], rtol=0.1)


def test_farthest_landmarks_are_those_of_a_search_by_hand() -> None:
    """Each the farthest from all before, of the whole steps, though every place has only a part of their cells."""
    steps = np.random.default_rng(3).normal(size=(60, 6)) ** 3
    operator = DiffusionMap(of="u", components=1, sample=60, landmarks=9, landmarks_by="farthest")
    summary = operator.init()
    for state in fold(operator, [variable(6)], {"u": steps}, parts=3):
        summary = operator.combine(summary, operator.summarize(state))
    found, squares = operator._landmarks(summary)
    apart = cdist(steps, steps)
    wanted = [int(by_lot(np.arange(60))[0])]
    while len(wanted) < 9:
        wanted.append(max(range(60), key=lambda step: min(apart[step, other] for other in wanted)))
    np.testing.assert_array_equal(found, sorted(wanted))
    np.testing.assert_allclose(squares * 6, apart[:, found] ** 2, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_farthest_landmark_counts_for_all_steps_that_lie_on_it(alpha: float) -> None:
    """So few landmarks have the map of all steps to the last digits, where by lot they would not."""
    rng = np.random.default_rng(5)
    which = np.concatenate([np.arange(14), rng.choice(14, 80, p=rng.dirichlet(np.ones(14)))])
    steps = rng.normal(size=(14, 4))[which]
    keys = {"of": "u", "components": 4, "sample": 94, "width": 1.1, "alpha": alpha}
    whole = read(DiffusionMap(**keys), [variable(4)], {"u": steps})
    few = read(DiffusionMap(**keys, landmarks=20, landmarks_by="farthest"), [variable(4)], {"u": steps}, parts=2)
    np.testing.assert_allclose(few["eigenvalues"], whole["eigenvalues"], rtol=1e-10)
    np.testing.assert_allclose(few["coordinates"], whole["coordinates"], rtol=1e-7, atol=1e-9)


def test_a_rare_state_has_a_farthest_landmark() -> None:
    rng = np.random.default_rng(6)
    steps = rng.normal(size=(300, 2)) + np.where(np.arange(300) % 150 == 77, 40.0, 0.0)[:, np.newaxis]
    keys = {"of": "u", "components": 1, "sample": 300, "landmarks": 12, "width": 4.0}
    found = read(DiffusionMap(**keys, landmarks_by="farthest"), [variable(2)], {"u": steps})
    np.testing.assert_array_equal(np.flatnonzero(found["coordinates"][:, 0] > 1), [77, 227])
    np.testing.assert_allclose(found["eigenvalues"], 1, atol=1e-9)


def test_basins_that_are_islands_are_told_apart() -> None:
    """Eigenvalues of 1 for two of three islands, and coordinates that are constant on each."""
    rng = np.random.default_rng(2)
    which = rng.integers(0, 3, 90)
    steps = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])[which] + rng.normal(size=(90, 2))
    found = read(DiffusionMap(of="u", components=3, sample=90, width=3.0), [variable(2)], {"u": steps})
    np.testing.assert_allclose(found["eigenvalues"][:2], 1, atol=1e-9)
    assert found["slow"] == 2
    for k in range(3):
        np.testing.assert_allclose(np.ptp(found["coordinates"][which == k][:, :2], axis=0), 0, atol=1e-6)


def test_one_step_equal_steps_and_steps_that_are_not_finite() -> None:
    one = read(DiffusionMap(of="u", components=2, sample=3), [variable(2)], {"u": [[1.0, 2.0]]})
    assert (one["samples"], one["slow"]) == (1, 0)
    assert np.isnan(one["coordinates"]).all()
    equal = read(DiffusionMap(of="u", components=1, sample=4), [variable(2)], {"u": [[1.0, 2.0]] * 4})
    np.testing.assert_allclose(equal["coordinates"], 0, atol=1e-12)
    farthest = DiffusionMap(of="u", components=1, sample=4, landmarks_by="farthest")
    alone = read(farthest, [variable(2)], {"u": [[1.0, 2.0]] * 4})  # one landmark, and so no coordinate
    assert (alone["samples"], alone["slow"]) == (4, 0)
    assert np.isnan(alone["coordinates"]).all()
    assert read(farthest, [variable(2)], {"u": [[np.nan, 2.0]]})["samples"] == 0
    steps = [[0.0, 0.0], [np.nan, 1.0], [1.0, 0.0], [5.0, np.inf], [2.0, 0.0]]
    some = read(DiffusionMap(of="u", components=1, sample=6), [variable(2)], {"u": steps}, parts=2)
    np.testing.assert_array_equal(some["sampled"], [0, 2, 4, -1, -1, -1])
    assert np.isfinite(some["coordinates"][:3]).all()


def test_says_what_does_not_fit() -> None:
    with pytest.raises(OperatorError, match=r"'u' holds no positions .* dimensions are y, x"):
        DiffusionMap(of="u", align=True).describe({"u": variable(4, 2)})
    with pytest.raises(ValidationError, match="align: true takes the positions of one molecule, got 2"):
        DiffusionMap(of=["u", "v"], align=True)
    joined = Variable("u", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
    with pytest.raises(OperatorError, match="joined"):
        DiffusionMap(of="u", align=True).describe({"u": joined})
