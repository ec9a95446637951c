"""Means over space whose gradient lies in memory as the network's tensors do.

PyTorch's own gradient of a mean is a view that repeats one number, and whatever is computed from it
comes out contiguous (NCHW). In a network that is channels-last every kernel behind it then reads two
layouts: with squeeze-and-excite and a pooled head that was a third of a training step (8 blocks of 64
channels at 14×14, bf16, two threads of an AVX-512 processor).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isonas.networks.isometric import Pool


def speed_up_pooling(network: nn.Module) -> None:
    """Let every `Pool` of a network train through `mean_over_space`, in place.

    Parameters, their names and what is computed stay as they are.
    """
    for layer in network.modules():
        if isinstance(layer, Pool):
            layer.forward = partial(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: Pool, x: Tensor) -> Tensor:
    means = mean_over_space(x)
    return means if layer.keepdim else means.flatten(1)


def mean_over_space(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 1, 1); the gradient is dense and channels-last."""
    means: Tensor = _Mean.apply(x)  # type: ignore[no-untyped-call]
    return means


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        means: Tensor = x.mean((2, 3), keepdim=True)
        return means

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        height, width = ctx.shape[2:]
        shared = (gradient / (height * width)).expand(ctx.shape)
        dense: Tensor = shared.contiguous(memory_format=torch.channels_last)
        return dense
