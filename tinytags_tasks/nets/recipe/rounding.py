"""The net as int8 will compute it, so that it can be taught with its rounding (quantisation-aware fine-tuning)."""

import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tinytags_tasks.nets.recipe.graph import Arrays
from tinytags_tasks.nets.recipe.model import Block, Convolution, Net
from tinytags_tasks.nets.recipe.shape import EMBEDDING_LEVELS, WEIGHT_LEVELS, Shape

_KEPT = 0.9999  # the share of activations that the range of a rounder covers
_WATCHED = 1 << 20


class Rounder(nn.Module):
    """Rounds activations to whole multiples of a scale, between two whole numbers, once it has watched some batches."""

    def __init__(self, low: int, high: int, kept: float = _KEPT) -> None:
        super().__init__()
        self.low, self.high, self.kept = low, high, kept
        self.watching = False
        self.register_buffer("scale", torch.zeros(()))
        self.seen: list[torch.Tensor] = []

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the activations, rounded unless it watches."""
        if self.watching:
            flat = activations.detach().float().abs().flatten()
            flat = flat[:: max(1, len(flat) // _WATCHED)]
            self.seen.append(flat.kthvalue(max(1, int(self.kept * len(flat)))).values)
            return activations
        none = torch.zeros((), dtype=torch.int32, device=activations.device)
        return torch.fake_quantize_per_tensor_affine(activations, self.scale, none, self.low, self.high)

    def settle(self) -> None:
        """Fix the scale from what was watched."""
        self.scale.copy_(torch.stack(self.seen).mean() / self.high)
        self.watching, self.seen = False, []


class RoundedConvolution(nn.Module):
    """A convolution with its batch norm folded in, its weights rounded by channel, its output rounded."""

    def __init__(self, source: Convolution) -> None:
        super().__init__()
        norm, convolution = source.norm, source.convolution
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        self.weight = nn.Parameter((convolution.weight * factor[:, None, None, None]).detach().clone())
        self.bias = nn.Parameter((norm.bias - norm.running_mean * factor).detach().clone())
        self.stride, self.padding, self.relu = convolution.stride, convolution.padding, source.relu
        self.out = Rounder(0, 255) if source.relu else Rounder(-128, 127)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the rounded activations."""
        scale = (self.weight.detach().abs().amax((1, 2, 3)) / WEIGHT_LEVELS).clamp_min(1e-8)
        none = torch.zeros_like(scale, dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(self.weight, scale, none, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS)
        images = functional.conv2d(images, weight, self.bias, self.stride, self.padding)
        return cast(torch.Tensor, self.out(functional.relu(images) if self.relu else images))


def rounded(net: Net) -> Net:
    """Return a copy of a net that computes as int8 will; its rounders watch until :func:`settle`."""
    net = copy.deepcopy(net).eval()
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Convolution):
                setattr(module, name, RoundedConvolution(child))
        if isinstance(module, Block):
            module.out = Rounder(0, 255)
    net.out = Rounder(0, EMBEDDING_LEVELS, 0.9995)
    for rounder in _rounders(net):
        rounder.to(next(net.parameters()).device).watching = True
    return net


def settle(net: Net) -> None:
    """Fix all scales from the batches that went through the net since :func:`rounded`."""
    for rounder in _rounders(net):
        rounder.settle()


def restored(arrays: Arrays, shape: Shape) -> Net:
    """Return the rounded net that these weights, biases and scales were read from."""
    net = rounded(Net(shape))
    for rounder in _rounders(net):
        rounder.watching = False
    net.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()})
    return net


def save(net: Net, path: Path) -> None:
    """Write a rounded net's weights, biases and scales by name, as :mod:`~.graph` reads them."""
    arrays: dict[str, Any] = {name: value.detach().cpu().float().numpy() for name, value in net.state_dict().items()}
    with path.open("wb") as file:  # a file, since NumPy would add an ending to a path
        np.savez(file, **arrays)


def _rounders(net: Net) -> list[Rounder]:
    return [module for module in net.modules() if isinstance(module, Rounder)]
