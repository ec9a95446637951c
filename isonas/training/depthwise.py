"""Depthwise convolutions whose gradients are computed the way that is fast on a CPU.

PyTorch's CPU kernels (measured with 2.13 on a processor with AVX-512 and AMX) have no good bf16 gradient
for kernels above 3×3: for 128 channels of 28×28 and a 5×5 kernel, the weights' gradient takes six times
as long as in fp32, and the input's twice as long as a forward pass that computes the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def speed_up_depthwise(network: nn.Module) -> None:
    """Let a network's depthwise convolutions above 3×3 train through `depthwise`, in place.

    Strided and dilated ones are left as they are. Parameters, their names and what is computed stay
    as they are. Worth it for bf16 on a CPU.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.kernel_size[0] > 3:
            padded = layer.padding == tuple(size // 2 for size in layer.kernel_size)
            if padded and layer.stride == layer.dilation == (1, 1):
                layer.forward = partial(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return depthwise(x, layer.weight)


def depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve each channel of (N, C, H, W) with its own odd q×q kernel (C, 1, q, q), padded, stride 1."""
    y: Tensor = _Depthwise.apply(x, weight)  # type: ignore[no-untyped-call]
    return y


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        # With stride 1 and an odd kernel the input's gradient is a forward pass with the kernel turned.
        of_x = _convolve(gradient, weight.flip(2, 3).to(gradient.dtype))
        padding = weight.shape[-1] // 2
        of_weight = torch.ops.aten.convolution_backward(
            gradient.float(),
            x.float(),
            weight.float(),
            None,
            [1, 1],
            [padding, padding],
            [1, 1],
            False,
            [0, 0],
            weight.shape[0],
            [False, True, False],
        )[1]
        return of_x.to(x.dtype), of_weight.to(weight.dtype)


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=weight.shape[0])
