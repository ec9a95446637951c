"""What any network costs, counted on the network itself as it runs on tensors without content."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from isonas.cost import MemoryModel
from isonas.networks.liveness import peak_activations, trace
from isonas.paper.results import Counts


def count(network: nn.Module, input_side: int) -> Counts:
    """Params, MAdds (of convolutions and FCs, batch 1) and peak activations under every memory model.

    Peaks are left out where an operator's memory is not known.
    """
    params = sum(parameter.numel() for parameter in network.parameters())
    try:
        graph = trace(network, input_side)
    except ValueError:
        peaks = {}
    else:
        peaks = {
            f"activations_{model}{ending}": peak_activations(graph, model, with_input=not ending)
            for model in MemoryModel
            for ending in ("", "_without_input")
        }
    return Counts(params, count_madds(network, input_side), peaks)


def count_madds(network: nn.Module, input_side: int) -> int:
    """Multiply-adds of all convolutions and FCs for one image, however often each one runs."""
    found = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal found
        if isinstance(layer, nn.Conv2d):
            found += output.numel() * (layer.weight.numel() // layer.out_channels)
        elif isinstance(layer, nn.Linear):
            found += output.numel() * layer.in_features

    bare = copy.deepcopy(network).eval().to("meta")
    for layer in bare.modules():
        layer.register_forward_hook(add)
    with torch.no_grad():
        bare(torch.empty(1, 3, input_side, input_side, device="meta"))
    return found
