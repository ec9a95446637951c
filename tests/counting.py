"""A multiply-add counter of its own: hooks on PyTorch's layers. Of isonas it knows that pooling is free."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn

from isonas.networks.isometric import Pool

FREE = (nn.BatchNorm2d, nn.Hardswish, nn.ReLU, nn.Hardsigmoid, nn.AvgPool2d, nn.Identity, Pool)


def count_madds(network: nn.Module, input_side: int) -> int:
    """Multiply-adds of convolutions and linear layers for one image, from the shapes that pass by.

    Raises TypeError for a leaf layer it does not know.
    """
    total = 0

    def watch(layer: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal total
            if isinstance(layer, nn.Conv2d):
                per_output = layer.in_channels // layer.groups * prod(layer.kernel_size)
                total += output.numel() * per_output
            elif isinstance(layer, nn.Linear):
                total += output.numel() * layer.in_features
            elif not isinstance(layer, FREE):
                raise TypeError(f"{type(layer).__name__} is not known")

        return hook

    handles = [
        layer.register_forward_hook(watch(layer)) for layer in network.modules() if not list(layer.children())
    ]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, input_side, input_side, device="meta"))
    for handle in handles:
        handle.remove()
    return total
