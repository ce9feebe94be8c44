# SPDX-License-Identifier: Apache-2.0
"""From the name of a network to a module whose shapes were tried."""

import importlib
import math
from collections.abc import Callable, Iterable
from typing import Any

from analytics.nn import networks
from analytics.nn.architectures import Architecture, Foreign
from analytics.nn.needs import torch
from insitu.errors import OperatorError
from insitu.model import Extent

FACTORIES: dict[str, Callable[..., torch.nn.Module]] = {
    "mlp": networks.mlp,
    "autoencoder": networks.autoencoder,
    "conv_autoencoder": networks.conv_autoencoder,
    "unet": networks.unet,
    "resnet": networks.resnet,
    "deeponet": networks.deeponet,
}


class Ensemble(torch.nn.Module):
    """Several modules that are asked the same: (n, *inputs) to (modules, n, *outputs).

    Its parameters are theirs, and no one's gradient depends on another's, so that one optimizer teaches them all as if
    each had its own (but for a clipping of all gradients together).
    """

    def __init__(self, modules: Iterable[torch.nn.Module]) -> None:
        super().__init__()
        self.each = torch.nn.ModuleList(modules)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([module(x) for module in self.each])


def build(spec: Architecture, inputs: Extent, outputs: Extent, seed: int = 0) -> torch.nn.Module:
    """Return a module with weights drawn by `seed`, whatever else was drawn before.

    It takes (n, *inputs) float32 and gives (n, *outputs). That is tried with one sample of zeros; `OperatorError` names
    both shapes where they do not fit.

    >>> from analytics.nn.architectures import Mlp
    >>> network = build(Mlp(hidden=(8,)), inputs=(3,), outputs=(4, 4))
    >>> network(torch.zeros(2, 3)).shape
    torch.Size([2, 4, 4])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = _made(spec, inputs, outputs)
        except (ValueError, RuntimeError, TypeError) as error:
            raise OperatorError(f"model {spec.kind} cannot be made for inputs of shape {inputs}: {error}") from error
    _try_shapes(spec.kind, module, inputs, outputs)
    return module


def _made(spec: Architecture, inputs: Extent, outputs: Extent) -> torch.nn.Module:
    if not isinstance(spec, Foreign):
        return FACTORIES[spec.kind](spec, inputs, outputs)
    made = _function(spec.kind)(inputs, outputs, **spec.options)
    if not isinstance(made, torch.nn.Module):
        raise OperatorError(f"model {spec.kind} gave {type(made).__name__}, expected a torch.nn.Module")
    return made


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.replace(":", ".").rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise OperatorError(f"model {name} cannot be imported: {error}") from error
    return found


def _try_shapes(kind: str, module: torch.nn.Module, inputs: Extent, outputs: Extent) -> None:
    """PyTorch's meta device would spare the computing, but what it imports for that takes a second of each process."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            made = module(torch.zeros(1, *inputs))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise OperatorError(f"model {kind} cannot take inputs of shape {inputs}: {error}") from error
    finally:
        module.train(was_training)
    if tuple(made.shape[1:]) != tuple(outputs):
        raise OperatorError(
            f"model {kind} gives shape {tuple(made.shape[1:])} for inputs of shape {inputs}, and targets have shape "
            f"{tuple(outputs)}; change the model's options or the targets"
        )


def parameters(module: torch.nn.Module) -> int:
    """Return how many numbers are learned."""
    return sum(math.prod(part.shape) for part in module.parameters() if part.requires_grad)
