# SPDX-License-Identifier: Apache-2.0
"""What networks say, and how sure they are."""

from collections.abc import Callable, Sequence

import numpy as np

from analytics.nn.learning import Network
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


def _as_it_is(made: Array) -> Array:
    return made


@torch.no_grad()
def ensemble(network: Network, inputs: Array, of: Callable[[Array], Array] = _as_it_is) -> tuple[Array, Array]:
    """Return mean and standard deviation of what the networks of an ensemble say (deep ensembles, B. Lakshminarayanan,
    A. Pritzel, C. Blundell, 2017). Three to five networks are usual.

    They have seen the same batches and began with other weights, which is what makes them differ most (S. Fort, H. Hu,
    B. Lakshminarayanan, 2019). The deviation divides by the number of networks less one, and is that of
    what `of` makes of the answer of each.
    """
    network.eval()
    made = network.each(torch.from_numpy(np.asarray(inputs, np.float32))).numpy()
    if len(made) < 2:
        raise OperatorError("the model is one network, which cannot disagree with itself; train it with ensemble: 4")
    return _spread([of(each) for each in made])


@torch.no_grad()
def mc_dropout(
    network: torch.nn.Module, inputs: Array, passes: int = 16, seed: int = 0, of: Callable[[Array], Array] = _as_it_is
) -> tuple[Array, Array]:
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
        several = [of(network(x).numpy()) for _ in range(passes)]
    network.eval()
    return _spread(several)


def _spread(several: Sequence[Array]) -> tuple[Array, Array]:
    made = np.stack(several)
    return made.mean(axis=0), made.std(axis=0, ddof=1)
