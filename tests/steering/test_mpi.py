# SPDX-License-Identifier: Apache-2.0
"""Simulations whose ranks exchange their halos: a real solver, steered and had again; and rank 0 deciding for all."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.steering.conftest import Make
from tests.steering.scene import LIMIT_S, ROOT, Scene

GRAY_SCOTT = [str(ROOT / "demos" / "gray_scott.py"), "--size", "32", "--every", "1", "--store", "fields"]
pytestmark = pytest.mark.timeout(2 * LIMIT_S)


def fields(it: Scene) -> "np.ndarray":
    """What all ranks have published of u and v, in all steps: (steps, 2, rows, columns)."""
    return np.concatenate([np.load(path) for path in sorted(it.folder.glob("fields.*.npy"))], axis=2)


def alone(steps: int, feeds: Mapping[int, float]) -> "np.ndarray":
    """The same by one process, and steered by hand: the demo says that its bits do not depend on the ranks."""
    demo = importlib.import_module("gray_scott")
    u, v = map(demo.with_halo, demo.initial_fields(32))
    feed, published = demo.FEED, []
    for n in range(steps):
        published.append(np.stack([u, v])[:, 1:-1, 1:-1])
        feed = feeds.get(n, feed)
        demo.advance(u, v, feed)
    return np.stack(published)


def test_a_steered_gray_scott_run_is_had_again_to_the_bit(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four ranks, and a network that delays each word by chance; then twice again by the record, with other delays."""
    it = scene("first", ranks=4)
    it.begin_mpi(*GRAY_SCOTT, "--steps", "1000000", delay_s=0.01)
    run = it.console()
    run.wait(lambda: run.ready, LIMIT_S, "the ranks")
    receipts = [run.steer(feed=value).receipt(LIMIT_S) for value in (0.03, 0.05, 1 / 30)]
    receipts.append(run.stop().receipt(LIMIT_S))
    it.end(it.ranks)
    assert [receipt.outcome for receipt in receipts] == ["applied"] * 4
    steps = [receipt.step or 0 for receipt in receipts]
    assert steps == sorted(steps)
    once = fields(it)
    monkeypatch.syspath_prepend(ROOT / "demos")
    feeds = {receipt.step or 0: receipt.action.values["feed"] for receipt in receipts[:-1]}
    np.testing.assert_array_equal(once, alone(steps[-1] + 1, feeds))
    assert np.any(once != alone(steps[-1] + 1, {})), "what is compared depends on what was set"
    for seed in (1, 2):
        again = scene(f"again{seed}", ranks=4, actions=it.folder / "actions.jsonl")
        again.begin_mpi(*GRAY_SCOTT, "--steps", "1000000", delay_s=0.01, seed=seed)
        again.end(again.ranks)
        np.testing.assert_array_equal(fields(again), once)


def test_with_mpi_rank_0_decides_and_all_follow_in_the_same_step(scene: Make) -> None:
    it = scene(ranks=3, agree="mpi", max_pause=1.5)
    it.begin_mpi("-m", "tests.steering.programs.rank", "--mpi", delay_s=0.01)
    run = it.console()
    run.wait(lambda: run.ready, LIMIT_S, "the ranks")
    u = np.arange(12.0).reshape(2, 6)
    # Asked for at once: on a busy machine a pause may be over before the receipt of what was asked in it is here.
    asked = [run.steer(feed=0.01, u=u), run.pause(), run.steer(feed=0.02), run.resume()]
    receipts = [
        *(each.receipt(LIMIT_S) for each in asked),
        run.pause().receipt(LIMIT_S),  # ends by itself
        run.checkpoint().receipt(LIMIT_S),
        run.stop().receipt(LIMIT_S),
    ]
    it.end(it.ranks)
    assert [receipt.outcome for receipt in receipts] == ["applied"] * 7
    assert receipts[1].step == receipts[2].step == receipts[3].step
    logs = [read(it.folder / f"rank-{rank}.jsonl") for rank in range(3)]
    assert [log[-1]["u"] for log in logs] == [u[:, 2 * rank : 2 * rank + 2].tolist() for rank in range(3)]
    values = [[(line["n"], line["feed"], line["checkpoints"]) for line in log] for log in logs]
    assert values[0] == values[1] == values[2]
    used = {n: feed for n, feed, _ in values[0]}
    assert receipts[0].step is not None
    assert receipts[2].step is not None
    assert used[receipts[0].step] == 0.01
    assert used[receipts[0].step - 1] == 0.035
    assert used[receipts[2].step] == 0.02
    assert values[0][-1][0] == receipts[-1].step
    assert not it.trace("doubt")


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
