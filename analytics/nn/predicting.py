# SPDX-License-Identifier: Apache-2.0
"""What networks say, and how sure they are."""

from collections.abc import Sequence

import numpy as np

from analytics.nn.needs import torch
from insitu.errors import OperatorError
from insitu.model import Array

_Dropout = torch.nn.modules.dropout._DropoutNd


@torch.no_grad()
def predict(network: torch.nn.Module, inputs: Array) -> Array:
    """Return what a network says of (n, ...) raw inputs, as float32."""
    network.eval()
    made: Array = network(torch.from_numpy(np.asarray(inputs, np.float32))).numpy()
    return made


def ensemble(networks: Sequence[torch.nn.Module], inputs: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of what several networks say, which differ in their seed (deep ensembles,
    B. Lakshminarayanan, A. Pritzel, C. Blundell, 2017). Three to five networks are usual.

    Costs one prediction of each. The deviation divides by the number of networks less one.
    """
    if len(networks) < 2:
        raise OperatorError(f"an ensemble of {len(networks)} has no spread; take two networks or more")
    return _spread([predict(network, inputs) for network in networks])


@torch.no_grad()
def mc_dropout(network: torch.nn.Module, inputs: Array, passes: int = 16, seed: int = 0) -> tuple[Array, Array]:
    """Return mean and standard deviation of `passes` predictions in which dropout stays on.

    (Y. Gal, Z. Ghahramani, 2016.) The network must have been trained with dropout. What is drawn depends on the seed
    alone.
    """
    network.eval()
    layers = [part for part in network.modules() if isinstance(part, _Dropout)]
    if not any(layer.p for layer in layers):
        raise OperatorError("the network has no dropout, so its passes are all the same; train it with dropout: 0.1")
    if passes < 2:
        raise OperatorError(f"passes: {passes} has no spread; take two or more")
    x = torch.from_numpy(np.asarray(inputs, np.float32))
    for layer in layers:
        layer.train()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = [network(x).numpy() for _ in range(passes)]
    network.eval()
    return _spread(made)


def _spread(made: Sequence[Array]) -> tuple[Array, Array]:
    several = np.stack(made)
    return several.mean(axis=0), several.std(axis=0, ddof=1)
