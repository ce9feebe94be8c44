# SPDX-License-Identifier: Apache-2.0
"""The networks that `architectures` names, as modules of PyTorch."""

import itertools
import math
from collections.abc import Sequence

from analytics.nn import architectures
from analytics.nn.needs import torch
from insitu.errors import OperatorError
from insitu.model import Extent

nn = torch.nn
Tensor = torch.Tensor

_ACTIVATIONS: dict[str, type[torch.nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
#: Convolutions and poolings of 1, 2 and 3 dimensions.
_CONVOLUTIONS: tuple[type[torch.nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: The same of dropout: whole channels, since cells beside each other say nearly the same (J. Tompson et al., 2015).
_DROPOUTS: tuple[type[torch.nn.Module], ...] = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_INTERPOLATIONS = ("linear", "bilinear", "trilinear")


def dense(widths: Sequence[int], activation: str, dropout: float = 0.0) -> torch.nn.Sequential:
    """Return linear layers of these widths, with activations between them."""
    layers: list[torch.nn.Module] = []
    for k, (a, b) in enumerate(itertools.pairwise(widths)):
        if k:
            layers.append(_ACTIVATIONS[activation]())
            layers += [nn.Dropout(dropout)] if dropout else []
        layers.append(nn.Linear(a, b))
    return nn.Sequential(*layers)


def _left_out(sides: Extent, dropout: float) -> list[torch.nn.Module]:
    """Return the layer that leaves out channels of fields with these sides, where any are to be left out."""
    return [_DROPOUTS[len(sides) - 1](dropout)] if dropout else []


def _grid(what: str, shape: Extent) -> tuple[int, Extent]:
    """Return the channels and the sides of a field; one of two dimensions or fewer has one channel."""
    channels, sides = (shape[0], shape[1:]) if len(shape) > 2 else (1, shape)
    if not 1 <= len(sides) <= 3:
        raise OperatorError(f"{what} learns from fields, (channel, y, x) or (y, x), and inputs have shape {shape}")
    return channels, sides


def _same_grid(what: str, inputs: Extent, outputs: Extent) -> tuple[int, int, Extent]:
    channels, sides = _grid(what, inputs)
    made = outputs[0] if len(outputs) > len(sides) else 1
    if outputs[len(outputs) - len(sides) :] != sides:
        raise OperatorError(f"{what} gives fields on the grid of its inputs, {sides}, and outputs have shape {outputs}")
    return channels, made, sides


class _Flat(torch.nn.Module):
    """A network of flat numbers, for samples of any shape."""

    def __init__(self, network: torch.nn.Module, outputs: Extent) -> None:
        super().__init__()
        self.network, self.outputs = network, outputs

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.network(x.flatten(1))
        return made.reshape(-1, *self.outputs)


def mlp(spec: architectures.Mlp, inputs: Extent, outputs: Extent) -> torch.nn.Module:
    widths = (math.prod(inputs), *spec.hidden, math.prod(outputs))
    return _Flat(dense(widths, spec.activation, spec.dropout), outputs)


def autoencoder(spec: architectures.Autoencoder, inputs: Extent, outputs: Extent) -> torch.nn.Module:
    down = (math.prod(inputs), *spec.hidden, spec.latent)
    up = (spec.latent, *reversed(spec.hidden), math.prod(outputs))
    halves = (dense(widths, spec.activation, spec.dropout) for widths in (down, up))
    return _Flat(nn.Sequential(*halves), outputs)


class _ConvAutoencoder(torch.nn.Module):
    def __init__(self, spec: architectures.ConvAutoencoder, inputs: Extent, outputs: Extent) -> None:
        super().__init__()
        channels, made, sides = _same_grid("conv_autoencoder", inputs, outputs)
        conv, activation = _CONVOLUTIONS[len(sides) - 1], _ACTIVATIONS[spec.activation]
        self.fields, self.outputs, self.mode = (channels, *sides), outputs, _INTERPOLATIONS[len(sides) - 1]
        widths, self.sizes = (channels, *spec.channels), [sides]
        down: list[torch.nn.Module] = []
        for a, b in itertools.pairwise(widths):
            down += [conv(a, b, 3, stride=2, padding=1), activation(), *_left_out(sides, spec.dropout)]
            self.sizes.append(tuple((side + 1) // 2 for side in self.sizes[-1]))
        self.middle = (widths[-1], *self.sizes[-1])
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(math.prod(self.middle), spec.latent))
        self.spread = nn.Linear(spec.latent, math.prod(self.middle))
        back = (*reversed(spec.channels), made)
        self.up = nn.ModuleList(conv(a, b, 3, padding=1) for a, b in itertools.pairwise(back))
        self.activation = nn.Sequential(activation(), *_left_out(sides, spec.dropout))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.spread(self.encoder(x.reshape(-1, *self.fields))).reshape(-1, *self.middle)
        for conv, size in zip(self.up, reversed(self.sizes[:-1]), strict=True):
            y = conv(nn.functional.interpolate(self.activation(y), size=size, mode=self.mode))
        return y.reshape(-1, *self.outputs)


class _UNet(torch.nn.Module):
    def __init__(self, spec: architectures.UNet, inputs: Extent, outputs: Extent) -> None:
        super().__init__()
        channels, made, sides = _same_grid("unet", inputs, outputs)
        self.fields, self.outputs, self.mode = (channels, *sides), outputs, _INTERPOLATIONS[len(sides) - 1]
        conv, activation = _CONVOLUTIONS[len(sides) - 1], _ACTIVATIONS[spec.activation]

        left_out = _left_out(sides, spec.dropout)

        def pair(a: int, b: int, stride: int = 1) -> torch.nn.Module:
            edge = {"padding": 1, "padding_mode": "replicate"}
            first = conv(a, b, 3, stride=stride, **edge)
            return nn.Sequential(first, activation(), conv(b, b, 3, **edge), activation(), *left_out)

        widths = (channels, *spec.channels)
        levels = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(pair(a, b, 1 if k == 0 else 2) for k, (a, b) in enumerate(levels))
        self.up = nn.ModuleList(pair(a + b, a) for a, b in reversed(levels[1:]))
        self.last = conv(spec.channels[0], made, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, passed = x.reshape(-1, *self.fields), []
        for down in self.down:
            y = down(y)
            passed.append(y)
        passed.pop()
        for up in self.up:
            beside = passed.pop()
            wide = nn.functional.interpolate(y, size=beside.shape[2:], mode=self.mode)
            y = up(torch.cat([beside, wide], dim=1))
        made: Tensor = self.last(y)
        return made.reshape(-1, *self.outputs)


class _Residual(torch.nn.Module):
    """Two convolutions beside the identity; groups are normalised, so that a batch of one is as good as any."""

    def __init__(self, sides: Extent, a: int, b: int, stride: int, spec: architectures.ResNet) -> None:
        super().__init__()
        conv, activation = _CONVOLUTIONS[len(sides) - 1], _ACTIVATIONS[spec.activation]
        self.own = nn.Sequential(
            conv(a, b, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(math.gcd(8, b), b),
            activation(),
            *_left_out(sides, spec.dropout),
            conv(b, b, 3, padding=1, bias=False),
            nn.GroupNorm(math.gcd(8, b), b),
        )
        self.beside = nn.Identity() if (a, stride) == (b, 1) else conv(a, b, 1, stride=stride, bias=False)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.activation(self.own(x) + self.beside(x))
        return made


class _ResNet(torch.nn.Module):
    def __init__(self, spec: architectures.ResNet, inputs: Extent, outputs: Extent) -> None:
        super().__init__()
        channels, sides = _grid("resnet", inputs)
        self.fields, self.outputs = (channels, *sides), outputs
        blocks: list[torch.nn.Module] = [_CONVOLUTIONS[len(sides) - 1](channels, spec.channels[0], 3, padding=1)]
        before = spec.channels[0]
        for k, width in enumerate(spec.channels):
            for j in range(spec.blocks):
                stride = 2 if k and not j else 1
                blocks.append(_Residual(sides, before, width, stride, spec))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(before, math.prod(outputs))

    def forward(self, x: Tensor) -> Tensor:
        cells: Tensor = self.blocks(x.reshape(-1, *self.fields)).flatten(2)
        made: Tensor = self.last(cells.mean(dim=2))
        return made.reshape(-1, *self.outputs)


class _DeepONet(torch.nn.Module):
    def __init__(self, spec: architectures.DeepONet, inputs: Extent, outputs: Extent) -> None:
        super().__init__()
        numbers, self.outputs, self.basis = math.prod(inputs), outputs, spec.basis
        self.branched = numbers - spec.trunk
        if self.branched < 1:
            raise OperatorError(f"trunk: {spec.trunk} of {numbers} inputs leaves none for the branch; take fewer")
        products = spec.basis * math.prod(outputs)
        self.branch = dense((self.branched, *spec.hidden, products), spec.activation, spec.dropout)
        self.trunk = dense((spec.trunk, *spec.hidden, products), spec.activation, spec.dropout)
        self.bias = nn.Parameter(torch.zeros(math.prod(outputs)))

    def forward(self, x: Tensor) -> Tensor:
        given, where = x.flatten(1).split([self.branched, x.flatten(1).shape[1] - self.branched], dim=1)
        products: Tensor = self.branch(given) * self.trunk(where)
        made = products.reshape(len(x), -1, self.basis).sum(dim=2) / math.sqrt(self.basis) + self.bias
        return made.reshape(-1, *self.outputs)


conv_autoencoder, unet, resnet, deeponet = _ConvAutoencoder, _UNet, _ResNet, _DeepONet
