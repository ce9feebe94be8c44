# SPDX-License-Identifier: Apache-2.0
"""Two processes that teach one network; and what compression sends and keeps."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from analytics.nn.compression import TopK
from analytics.nn.groups import Group, TrainerMissing
from analytics.nn.learning import Learner
from analytics.nn.noise import NoiseScale
from analytics.nn.specs import training
from insitu.model import Array
from tests.analytics.nn.programs.ranks import KEYS, SHAPES, part, rows

PROGRAM = Path(__file__).parent / "programs" / "ranks.py"
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Array]]:
    """What both ranks found out, and what rank 0 said when rank 1 had died."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), str(rank)],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        errors = [rank.communicate(timeout=90)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0, 9], "\n".join(errors)
    return [dict(np.load(folder / f"{name}.npz")) for name in ("0", "1", "missing")]


def test_two_ranks_with_equal_batches_equal_one_and_so_they_do_with_a_staleness_of_0(
    found: list[dict[str, Array]],
) -> None:
    alone = Learner(training(**KEYS | {"batch": 16}), SHAPES)
    alone.observe(rows())
    losses = [alone.learn(part(rows(), slice(16 * k, 16 * k + 16))) for k in range(10)]
    weights = np.concatenate([each.detach().numpy().ravel() for each in alone.module.parameters()])
    for rank in found[:2]:
        np.testing.assert_allclose(rank["equal_losses"], losses, rtol=1e-5)
        np.testing.assert_allclose(rank["equal_weights"], weights, atol=1e-5)
        np.testing.assert_allclose(rank["bound_losses"], losses, rtol=1e-5)
        np.testing.assert_allclose(rank["bound_weights"], weights, atol=1e-5)
    np.testing.assert_array_equal(found[0]["equal_weights"], found[1]["equal_weights"])


def test_no_gradient_of_a_slow_rank_is_older_than_the_bound_and_nobody_waits_before(
    found: list[dict[str, Array]],
) -> None:
    fast, slow = (rank["apart_stale"] for rank in found[:2])
    assert max(fast.max(), slow.max()) == slow.max() == found[1]["apart_oldest"] == 3
    assert len(fast) > 2 * len(slow)
    np.testing.assert_array_equal(found[0]["apart_weights"], found[1]["apart_weights"])


def test_a_rank_with_less_weighs_less_and_both_end_with_the_same_weights(found: list[dict[str, Array]]) -> None:
    np.testing.assert_array_equal(found[0]["uneven_weights"], found[1]["uneven_weights"])
    assert found[0]["uneven_drawn"].tolist() == [1] * 30
    assert found[1]["uneven_drawn"].tolist() == [1] * 130
    assert found[0]["uneven_steps"] == 17  # 130 / 8, the last of two samples


def test_compressed_gradients_end_as_low_with_fewer_bytes(found: list[dict[str, Array]]) -> None:
    first, last = found[0]["compressed_loss"]
    assert last < 0.7 * first
    assert last < 1.5 * found[0]["whole_loss"][1]
    assert found[0]["compressed_bytes"] < 0.3 * found[0]["whole_bytes"]
    np.testing.assert_array_equal(found[0]["compressed_weights"], found[1]["compressed_weights"])


def test_batches_grow_alike_where_gradients_are_noise(found: list[dict[str, Array]]) -> None:
    batches = found[0]["grown_batches"]
    np.testing.assert_array_equal(batches, found[1]["grown_batches"])
    assert (batches[:30] == 8).all()  # too little is known
    assert batches[-1] > 8
    assert batches.max() <= 64


def test_the_noise_scale_is_that_of_the_gradients() -> None:
    rng, noise, samples = np.random.default_rng(0), NoiseScale(), np.array([8, 24])
    mean = rng.normal(size=500)
    for _ in range(200):
        gradients = mean + rng.normal(0.0, 4.0, (2, 500)) / np.sqrt(samples)[:, None]
        joint = samples @ gradients / samples.sum()
        noise.add((gradients**2).sum(axis=1), samples, float(joint @ joint))
    assert noise.scale == pytest.approx(500 * 16 / (mean @ mean), rel=0.1)
    again = NoiseScale()
    again.load(noise.state())
    again.add(np.array([1.0, 0.0]), np.array([8, 0]), 1.0)  # one trainer alone tells nothing
    assert again.scale == noise.scale


def test_a_rank_that_dies_is_named(found: list[dict[str, Array]]) -> None:
    assert found[2]["missing"].tolist() == [1]
    assert str(found[2]["message"]) == (
        "trainer 0 of 2 waited 4 s at the gradients of step 1 for trainer 1, which is not there any more, or stalls"
    )
    assert found[2]["moved"] > 0


def test_a_rank_that_never_comes_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerMissing, match=r"trainer 0 of 3 waited 0\.1 s at the start for trainer 1, 2, which is"):
        Group(tmp_path / "meeting", 0, (0, 1, 2), timeout_s=0.1).open()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_what_is_sent_and_what_is_left_is_what_was_accumulated(momentum: float) -> None:
    rng, compress = np.random.default_rng(0), TopK(0.1, momentum)
    sent, accumulated, u = np.zeros(50), np.zeros(50), np.zeros(50)
    for step in range(40):
        gradient = rng.normal(size=(5, 10))
        u = momentum * u + gradient.ravel()
        accumulated += u
        indices, values = compress.select("w", torch.tensor(gradient), step)
        assert len(set(indices.tolist())) == len(indices) == 5
        np.add.at(sent, indices.numpy(), values.numpy())
        u[indices.numpy()] = 0.0
        rest = compress.rest("w").numpy()
        assert (rest[indices.numpy()] == 0).all()
        assert np.abs(values.numpy()).min() >= np.abs(rest).max()
        np.testing.assert_allclose(sent + rest, accumulated, atol=1e-12)
