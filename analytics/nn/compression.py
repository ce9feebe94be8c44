# SPDX-License-Identifier: Apache-2.0
"""Gradients of which only the largest entries are sent (deep gradient compression, Y. Lin et al., ICLR 2018)."""

from collections.abc import Hashable

from analytics.nn.needs import torch

Tensor = torch.Tensor

#: The part that is sent in the first step, where a warm-up leads from here to `density`: the paper's 75 % sparsity.
FIRST_DENSITY = 0.25


class TopK:
    """For each parameter with gradient g, m = `momentum`::

        u ← m u + g,    v ← v + u,    send the k largest |v|,    v ← 0, u ← 0 where it was sent

    So what is not sent now is added up and sent later (error feedback), with the momentum it would have had (momentum
    correction), and stale momentum is forgotten (factor masking): what was sent plus the rest is what was accumulated.
    k is `density` of the entries, at least one; the density falls geometrically from a quarter over `warm_up` steps.

    The optimizer must then have no momentum of its own.
    """

    def __init__(self, density: float, momentum: float, warm_up: int = 0) -> None:
        self.density, self.momentum, self.warm_up = density, momentum, warm_up
        self._momenta: dict[Hashable, Tensor] = {}
        self._rests: dict[Hashable, Tensor] = {}

    def density_at(self, step: int) -> float:
        """Return the part that is sent in a step.

        >>> [round(TopK(0.01, 0.9, warm_up=4).density_at(k), 3) for k in range(6)]
        [0.25, 0.112, 0.05, 0.022, 0.01, 0.01]
        """
        done = min(step / self.warm_up, 1.0) if self.warm_up else 1.0
        first = max(FIRST_DENSITY, self.density)
        return float(first * (self.density / first) ** done)

    def select(self, key: Hashable, gradient: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return flat indices and values to send of the gradient of one parameter, which `key` names."""
        flat = gradient.reshape(-1)
        u = self._momenta.setdefault(key, torch.zeros_like(flat))
        v = self._rests.setdefault(key, torch.zeros_like(flat))
        u.mul_(self.momentum).add_(flat)
        v.add_(u)
        number = max(1, round(self.density_at(step) * flat.numel()))
        indices = torch.topk(v.abs(), number, sorted=False).indices
        values = v[indices]
        v[indices] = 0.0
        u[indices] = 0.0
        return indices, values

    def rest(self, key: Hashable) -> Tensor:
        """Return what was not sent yet, flat."""
        return self._rests[key]
