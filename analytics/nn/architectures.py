# SPDX-License-Identifier: Apache-2.0
"""The networks that a configuration may name, and their options. Imports no PyTorch."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

Width = Annotated[int, Field(ge=1)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1)]
Activation = Literal["relu", "gelu", "silu", "tanh"]
Rate = Annotated[float, Field(ge=0, lt=1)]


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mlp(_Options):
    """A fully connected network from all numbers of the inputs to all of the outputs."""

    kind: Literal["mlp"] = "mlp"
    hidden: Widths = Field(default=(256, 256), description="numbers of each hidden layer")
    activation: Activation = Field(default="relu", description="between layers")
    dropout: Rate = Field(default=0.0, description="part of each hidden layer that is left out in training")


class Autoencoder(_Options):
    """Two fully connected networks, down to a few numbers and up again."""

    kind: Literal["autoencoder"] = "autoencoder"
    latent: Width = Field(default=16, description="numbers in the middle")
    hidden: Widths = Field(default=(256,), description="numbers of each layer on the way down, reversed on the way up")
    activation: Activation = Field(default="relu", description="between layers")
    dropout: Rate = Field(default=0.0, description="part of each hidden layer that is left out in training")


class ConvAutoencoder(_Options):
    """Convolutions that halve each side, down to a few numbers, and up again."""

    kind: Literal["conv_autoencoder"] = "conv_autoencoder"
    latent: Width = Field(default=16, description="numbers in the middle")
    channels: Widths = Field(default=(16, 32), description="of each level; each halves the sides")
    activation: Activation = Field(default="relu", description="between layers")
    dropout: Rate = Field(default=0.0, description="part of the channels that is left out in training")


class UNet(_Options):
    """A field to a field on the same grid (O. Ronneberger et al., 2015), with padding that repeats the edge."""

    kind: Literal["unet"] = "unet"
    channels: Widths = Field(default=(16, 32, 64), description="of each level; each but the first halves the sides")
    activation: Activation = Field(default="relu", description="between layers")
    dropout: Rate = Field(default=0.0, description="part of the channels that is left out in training")


class ResNet(_Options):
    """Residual blocks (K. He et al., 2016), the mean over all cells, and a linear layer to the outputs."""

    kind: Literal["resnet"] = "resnet"
    channels: Widths = Field(default=(16, 32, 64), description="of each stage; each but the first halves the sides")
    blocks: Width = Field(default=1, description="residual blocks of each stage")
    activation: Activation = Field(default="relu", description="between layers")
    dropout: Rate = Field(default=0.0, description="part of the channels that is left out in training")


class DeepONet(_Options):
    """A function of coordinates, given by numbers (L. Lu et al., 2021): output k is Σ_j branch_kj trunk_kj + bias_k."""

    kind: Literal["deeponet"] = "deeponet"
    trunk: Width = Field(description="how many of the last inputs are coordinates; those before go to the branch")
    basis: Width = Field(default=64, description="products that are summed")
    hidden: Widths = Field(default=(128, 128), description="numbers of each hidden layer, of both")
    activation: Activation = Field(default="tanh", description="between layers")
    dropout: Rate = Field(default=0.0, description="part of each hidden layer that is left out in training")


class Foreign(_Options):
    """A function of one's own, which returns a torch.nn.Module; called with input shape, output shape and `options`."""

    kind: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*[.:][A-Za-z_]\w*$")]
    options: dict[str, Any] = Field(default={}, description="its keyword arguments")


NAMES = ("mlp", "autoencoder", "conv_autoencoder", "unet", "resnet", "deeponet")


def _as_mapping(value: object) -> object:
    keys: Any = {"kind": value} if isinstance(value, str) else value
    kind = keys.get("kind") if isinstance(keys, dict) else None
    if isinstance(kind, str) and kind not in NAMES and not {".", ":"} & set(kind):
        near = difflib.get_close_matches(kind, NAMES, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise ValueError(f'no model is called "{kind}"{hint} (known are {", ".join(NAMES)}, and any module.function)')
    return keys


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if kind in NAMES else "module.function"


#: A name, or ``{kind: NAME, ...}`` with options.
Architecture = Annotated[
    Annotated[Mlp, Tag("mlp")]
    | Annotated[Autoencoder, Tag("autoencoder")]
    | Annotated[ConvAutoencoder, Tag("conv_autoencoder")]
    | Annotated[UNet, Tag("unet")]
    | Annotated[ResNet, Tag("resnet")]
    | Annotated[DeepONet, Tag("deeponet")]
    | Annotated[Foreign, Tag("module.function")],
    Discriminator(_tag),
    BeforeValidator(_as_mapping),
]
