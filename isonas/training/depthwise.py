"""Depthwise convolutions whose gradients are computed the way that is fast on a CPU.

PyTorch's CPU kernels (measured with 2.13 on processors with AVX-512 BF16) have no good bf16 gradient for
kernels above 3×3, strides or dilations: for 128 channels of 28×28 and a 5×5 kernel, the weights' gradient
takes six times as long as in fp32, and the input's twice as long as a forward pass that computes the same;
with stride 2 the input's takes 7 (3×3, 32×32) to 100 times (5×5, 16×16) as long as in fp32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def speed_up_depthwise(network: nn.Module) -> None:
    """Let a network's depthwise convolutions above 3×3, strided and dilated ones train fast, in place.

    Parameters, their names and what is computed stay as they are. Worth it for bf16 on a CPU.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1:
            plain = layer.stride == layer.dilation == (1, 1)
            if (not plain or layer.kernel_size[0] > 3) and not isinstance(layer.padding, str):
                layer.forward = partial(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: nn.Conv2d, x: Tensor) -> Tensor:
    assert layer.bias is None
    assert isinstance(layer.padding, tuple)
    return depthwise(x, layer.weight, layer.stride, layer.padding, layer.dilation)


def depthwise(
    x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]
) -> Tensor:
    """Convolve each channel of (N, C, H, W) with its own q×q kernel (C, 1, q, q), in pixels."""
    y: Tensor = _Depthwise.apply(x, weight, stride, padding, dilation)  # type: ignore[no-untyped-call]
    return y


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = stride, padding, dilation
        return functional.conv2d(x, weight, None, stride, padding, dilation, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.how
        (gradient,) = gradients
        same = tuple(size // 2 for size in weight.shape[2:])
        plain = set(stride + dilation) == {1} and padding == same and weight.shape[-1] % 2 == 1
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient.float(),
            x.float(),
            weight.float(),
            None,
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            weight.shape[0],
            [not plain, True, False],
        )
        if plain:
            # With stride 1 and an odd kernel the input's gradient is a forward pass with the kernel turned.
            turned = weight.flip(2, 3).to(gradient.dtype)
            of_x = functional.conv2d(gradient, turned, None, 1, padding, 1, weight.shape[0])
        return of_x.to(x.dtype), of_weight.to(weight.dtype), None, None, None
