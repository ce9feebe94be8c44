# SPDX-License-Identifier: Apache-2.0
"""Networks of every kind: their shapes, their weights by seed, and what does not fit."""

import runpy
import subprocess
import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from analytics.nn import needs
from analytics.nn.models import build, parameters
from analytics.nn.specs import training
from insitu.errors import OperatorError

KINDS: list[tuple[Any, tuple[int, ...], tuple[int, ...]]] = [
    ({"kind": "mlp", "hidden": [8], "dropout": 0.1}, (3, 2), (4, 4)),
    ({"kind": "autoencoder", "hidden": [8], "latent": 2}, (3, 5), (3, 5)),
    ({"kind": "conv_autoencoder", "channels": [2, 4]}, (7, 10), (7, 10)),
    ({"kind": "conv_autoencoder", "channels": [2]}, (2, 5, 5, 6), (2, 5, 5, 6)),
    ({"kind": "unet", "channels": [2, 4, 8]}, (2, 9, 11), (9, 11)),
    ({"kind": "unet", "channels": [2, 4]}, (16,), (16,)),
    ({"kind": "resnet", "channels": [4, 8], "activation": "gelu"}, (12, 12), (3,)),
    ({"kind": "deeponet", "trunk": 2, "hidden": [8], "basis": 4}, (6,), (3,)),
    ({"kind": "tests.analytics.nn.test_models:own", "options": {"width": 5}}, (6,), (3,)),
]


def own(inputs: tuple[int, ...], outputs: tuple[int, ...], width: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(inputs[0], width), torch.nn.Linear(width, outputs[0]))


@pytest.mark.parametrize(("model", "inputs", "outputs"), KINDS, ids=lambda each: str(each)[:40])
def test_every_kind_learns_and_is_drawn_by_its_seed(
    model: Any, inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
    spec = training(model=model).model
    one, same, other = (build(spec, inputs, outputs, seed) for seed in (1, 1, 2))
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    made = one(torch.randn(2, *inputs))
    assert made.shape == (2, *outputs)
    made.square().mean().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in one.parameters())
    assert parameters(one) == sum(part.numel() for part in one.parameters())


def test_making_a_network_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build(training(model="mlp").model, (2,), (2,), seed=9)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("model", "inputs", "outputs", "message"),
    [
        ("unet", (8, 8), (8, 9), r"the grid of its inputs, \(8, 8\), and outputs have shape \(8, 9\)"),
        ("resnet", (), (3,), r"learns from fields, .*inputs have shape \(\)"),
        ({"kind": "deeponet", "trunk": 3}, (3,), (1,), "leaves none for the branch"),
        ("os.path:nothing", (3,), (1,), "model os.path:nothing cannot be imported"),
        ("tests.analytics.nn.test_models:own", (3,), (1,), "missing 1 required positional argument: 'width'"),
        ("builtins:slice", (3,), (1,), "gave slice, expected a torch.nn.Module"),
        (
            {"kind": "tests.analytics.nn.test_models:fixed"},
            (3,),
            (2,),
            r"gives shape \(7,\) for inputs of shape \(3,\), and targets have shape \(2,\)",
        ),
        ({"kind": "tests.analytics.nn.test_models:fixed"}, (4,), (7,), r"cannot take inputs of shape \(4,\)"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_batch(
    model: Any, inputs: tuple[int, ...], outputs: tuple[int, ...], message: str
) -> None:
    with pytest.raises(OperatorError, match=message):
        build(training(model=model).model, inputs, outputs)


def fixed(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> torch.nn.Module:
    return torch.nn.Linear(3, 7)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": "mpl"}, 'no model is called "mpl"; did you mean "mlp"'),
        ({"model": {"kind": "mlp", "hiden": [3]}}, r"model\.mlp\.hiden"),
        ({"model": "mlp", "loss": "cross_entropy"}, "cross_entropy needs classes"),
        ({"model": "mlp", "buffer": {"ratio": 100}}, "ratio: 100 cannot be kept with batches of 64"),
        ({"model": "mlp", "buffer": {"kind": "fifo", "max_reuse": 2}}, "max_reuse: 2 has no meaning for fifo"),
        ({"model": "mlp", "buffer": {"threshold": 3}}, "threshold: 3 samples make no batch of 64"),
        ({"model": "mlp", "buffer": {"slack": 3}}, "slack has no meaning without ratio"),
        ({"model": "mlp", "buffer": {"capacity": "much"}}, 'expected a size such as "256 MiB"'),
    ],
)
def test_mistakes_in_the_configuration_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        training(**keys)


def test_who_lacks_pytorch_reads_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(OperatorError, match=r'PyTorch, which is not installed: pip install "insitu\[train\]"'):
        runpy.run_path(needs.__file__)


def test_a_configuration_is_read_without_pytorch() -> None:
    """`insitu check` need not wait for its import."""
    program = "import sys, analytics.nn.specs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
