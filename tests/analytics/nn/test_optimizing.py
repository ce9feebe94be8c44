# SPDX-License-Identifier: Apache-2.0
"""Losses, learning rates and LARS against their formulas."""

import copy
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch

from analytics.nn.optimizing import Lars, loss_function, optimizer
from analytics.nn.specs import Loss, Optimizer, Schedule

RNG = np.random.default_rng(0)


def test_losses_are_their_formulas() -> None:
    p, t = RNG.normal(size=(2, 5, 3))
    off = p - t
    huber = np.where(abs(off) < 0.5, 0.5 * off**2, 0.5 * (abs(off) - 0.25))
    expected = {
        "mse": (off**2).mean(),
        "mae": abs(off).mean(),
        "huber": huber.mean(),
        "relative_l2": (np.linalg.norm(off, axis=1) / np.linalg.norm(t, axis=1)).mean(),
    }
    for kind, value in expected.items():
        loss = loss_function(Loss.model_validate({"kind": kind, "delta": 0.5}))
        assert float(loss(torch.tensor(p), torch.tensor(t))) == pytest.approx(value)
    classes = RNG.integers(0, 3, 5)
    of = -(p - np.log(np.exp(p).sum(axis=1, keepdims=True)))[np.arange(5), classes]
    entropy = loss_function(Loss(kind="cross_entropy", classes=3))
    assert float(entropy(torch.tensor(p), torch.tensor(classes))) == pytest.approx(of.mean())


def test_a_target_of_zeros_has_a_finite_relative_loss() -> None:
    assert float(loss_function(Loss(kind="relative_l2"))(torch.zeros(1, 2), torch.zeros(1, 2))) == 0.0


def test_learning_rates() -> None:
    step = Schedule(kind="step", batches=10, factor=0.5, warm_up=5)
    assert [step.at(k) for k in (0, 4, 5, 14, 15, 25)] == [0.2, 1.0, 1.0, 1.0, 0.5, 0.25]
    cosine = Schedule(kind="cosine", batches=100, factor=0.1)
    assert cosine.at(0) == 1.0
    assert cosine.at(50) == pytest.approx(0.55)
    assert cosine.at(1000) == pytest.approx(0.1)
    assert Schedule(reference=64).at(7, samples=256) == 4.0


def test_lars_is_its_formula() -> None:
    w, b = (
        torch.nn.Parameter(torch.tensor(RNG.normal(size=(3, 2)))),
        torch.nn.Parameter(torch.ones(3, dtype=torch.float64)),
    )
    lars = Lars([w, b], lr=0.5, momentum=0.9, weight_decay=0.01, trust=0.02)
    ours, bias, v, u = w.detach().numpy().copy(), b.detach().numpy().copy(), 0.0, 0.0
    for _ in range(4):
        g, h = RNG.normal(size=(3, 2)), RNG.normal(size=3)
        w.grad, b.grad = torch.tensor(g), torch.tensor(h)
        lars.step()
        size, slope = math.sqrt((ours**2).sum()), math.sqrt((g**2).sum())
        v = 0.9 * v + 0.5 * 0.02 * size / (slope + 0.01 * size) * (g + 0.01 * ours)
        u = 0.9 * u + 0.5 * h
        ours, bias = ours - v, bias - u
    np.testing.assert_allclose(w.detach().numpy(), ours, rtol=1e-12)
    np.testing.assert_allclose(b.detach().numpy(), bias, rtol=1e-12)


def test_lars_moves_weights_that_are_zero() -> None:
    w = torch.nn.Parameter(torch.zeros(2, 2))
    w.grad = torch.ones(2, 2)
    Lars([w], lr=0.5, momentum=0.0, weight_decay=0.1, trust=0.02).step()
    assert w.detach().tolist() == [[-0.5, -0.5], [-0.5, -0.5]]


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "lars"])
def test_every_optimizer_gets_down(kind: str) -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 1)
    x = torch.randn(64, 4)
    y = x.sum(dim=1, keepdim=True)
    keys = {"kind": kind, "learning_rate": 0.05, "weight_decay": 1e-4, "trust": 0.1}
    moves = optimizer(Optimizer.model_validate(keys), module)
    losses = []
    for _ in range(200):
        moves.zero_grad()
        loss = torch.nn.functional.mse_loss(module(x), y)
        loss.backward()
        moves.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.05 * losses[0]


def moved(moves: torch.optim.Optimizer, module: torch.nn.Linear, steps: int) -> list[float]:
    """Weights after some steps along given gradients."""
    rng = np.random.default_rng(1)
    for _ in range(steps):
        moves.zero_grad()
        for each in module.parameters():
            each.grad = torch.tensor(rng.normal(size=each.shape), dtype=each.dtype)
        moves.step()
    return [float(x) for each in module.parameters() for x in each.detach().ravel()]


@pytest.mark.parametrize("like", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_optimizers_are_pytorchs_and_load_no_compiler(like: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = like.__name__.lower()
    keys = {"kind": kind, "learning_rate": 0.05, "weight_decay": 0.1, "momentum": 0.9}
    one, two, three = (torch.nn.Linear(4, 2) for _ in range(3))
    two.load_state_dict(one.state_dict())
    three.load_state_dict(one.state_dict())
    momentum = {"momentum": 0.9} if kind == "sgd" else {}
    expected = moved(like(one.parameters(), lr=0.05, weight_decay=0.1, **momentum), one, 6)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch._dynamo", None)  # an import of it fails
        ours = optimizer(Optimizer.model_validate(keys), two)
        assert isinstance(ours, like)
        assert moved(ours, two, 6) == expected
        again = optimizer(Optimizer.model_validate(keys), three)
        three.load_state_dict(two.state_dict())
        again.load_state_dict(copy.deepcopy(ours.state_dict()))
        assert moved(again, three, 3) == moved(ours, two, 3)
