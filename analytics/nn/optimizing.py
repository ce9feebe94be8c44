# SPDX-License-Identifier: Apache-2.0
"""What is made small, and how weights move: losses and optimizers."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from analytics.nn.needs import torch
from analytics.nn.specs import Loss, Optimizer

Tensor = torch.Tensor
LossFunction = Callable[[Tensor, Tensor], Tensor]

_functional = torch.nn.functional


def relative_l2(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean over samples of ‖prediction - target‖ / ‖target‖, the Euclidean norms of all their numbers.

    >>> relative_l2(torch.tensor([[3.0, 3.0]]), torch.tensor([[3.0, 4.0]]))
    tensor(0.2000)
    """
    off = (prediction - target).flatten(1).norm(dim=1)
    # A target of zeros has no relative error; the smallest normal number keeps it finite.
    size = target.flatten(1).norm(dim=1).clamp_min(torch.finfo(target.dtype).tiny)
    found: Tensor = (off / size).mean()
    return found


def loss_function(spec: Loss) -> LossFunction:
    """Return the mean loss of (n, ...) predictions and targets, a tensor without dimensions."""
    known: dict[str, LossFunction] = {
        "mse": _functional.mse_loss,
        "mae": _functional.l1_loss,
        "huber": lambda prediction, target: _functional.huber_loss(prediction, target, delta=spec.delta),
        "cross_entropy": _functional.cross_entropy,
        "relative_l2": relative_l2,
    }
    return known[spec.kind]


def optimizer(spec: Optimizer, module: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a module's parameters."""
    rate, decay, weights = spec.learning_rate, spec.weight_decay, [p for p in module.parameters() if p.requires_grad]
    if spec.kind == "sgd":
        return _without_compiler(torch.optim.SGD)(weights, lr=rate, momentum=spec.momentum, weight_decay=decay)
    if spec.kind == "adam":
        return _without_compiler(torch.optim.Adam)(weights, lr=rate, weight_decay=decay)
    if spec.kind == "adamw":
        return _without_compiler(torch.optim.AdamW)(weights, lr=rate, weight_decay=decay)
    return _without_compiler(Lars)(weights, lr=rate, momentum=spec.momentum, weight_decay=decay, trust=spec.trust)


@functools.cache
def _without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return a kind of optimizer whose methods are the same, but for what they tell PyTorch's compiler.

    The first call of each imports that compiler, 800 modules, to keep it out: half of the time in which a process that
    learns starts, though it compiles nothing.
    """
    methods = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in methods}
    return type(kind.__name__, (kind,), plain | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling, for large batches (Y. You, I. Gitman, B. Ginsburg, arXiv:1708.03888, 2017).

    For each parameter w with gradient g, η = `trust`, β = `weight_decay`, m = `momentum`::

        λ = η ‖w‖ / (‖g‖ + β ‖w‖),    v ← m v + lr λ (g + β w),    w ← w - v

    A parameter of one dimension or none (biases, norms) takes λ = 1 and β = 0, as does one that is all zero.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float, weight_decay: float, trust: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    self._move(weights, weights.grad, group)

    def _move(self, weights: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        decay, rate = (group["weight_decay"], group["lr"]) if weights.ndim > 1 else (0.0, group["lr"])
        size, slope = weights.norm(), gradient.norm()
        if weights.ndim > 1 and size > 0 and slope > 0:
            rate = float(rate * group["trust"] * size / (slope + decay * size))
        state = self.state[weights]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weights)
        state["velocity"].mul_(group["momentum"]).add_(gradient + decay * weights, alpha=rate)
        weights.sub_(state["velocity"])
