"""Networks of the paper beside a search's front, costed under the search's own convention.

They are not trained: their error under the search's proxy is not known, only what they would cost.
"""

from __future__ import annotations

from itertools import product

from torch import nn

from isonas.cost import Deployment
from isonas.errors import GenomeError
from isonas.genome import stem_block
from isonas.hardware import Budget, costs
from isonas.networks.liveness import peak_activations, trace
from isonas.networks.mobilenetv3 import build_mobilenetv3
from isonas.paper.counts import count_madds
from isonas.paper.systems import family
from isonas.report.front import Baseline
from isonas.space import columns_of

_WIDTHS = (0.35, 0.5, 0.75, 1.0)
_DEPTHS, _RESOLUTIONS, _MULTIPLIERS = (8, 16, 32), (7, 14, 28, 56), (0.5, 1, 2)


def baselines(family_name: str, at: Deployment, budget: Budget) -> tuple[list[Baseline], list[str]]:
    """The baselines of a family, and the names of those that do not fit the input.

    `mobilenetv3` is MobileNetV3-Large at some widths, `paper` the isometric networks of Table 2.
    """
    if family_name == "mobilenetv3":
        return [_mobilenetv3(width, at, budget) for width in _WIDTHS], []
    fitting, left_out = [], []
    for depth, resolution, multiplier in product(_DEPTHS, _RESOLUTIONS, _MULTIPLIERS):
        genome = family(depth, resolution, multiplier)
        try:
            stem_block(genome, at.input)
            fitting.append(genome)
        except GenomeError:
            left_out.append(str(genome))
    of = costs(columns_of(fitting), at, budget)
    listed = zip(fitting, of.peak_bytes, of.madds, of.params, of.weight_bytes, strict=True)
    return [Baseline(str(genome), *(int(one) for one in found)) for genome, *found in listed], left_out


def _mobilenetv3(width: float, at: Deployment, budget: Budget) -> Baseline:
    network = build_mobilenetv3(width, input_side=at.input, classes=at.classes)
    weights = biases = 0
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weights += layer.weight.numel()
            biases += layer.bias.numel() if layer.bias is not None else 0
        elif isinstance(layer, nn.BatchNorm2d):
            # Folded into the convolution before it, a batch norm is one bias a channel.
            biases += layer.num_features
    return Baseline(
        f"mobilenetv3_w{width:g}",
        peak_activations(trace(network, at.input), budget.memory_model) * budget.dtype.size,
        count_madds(network, at.input),
        sum(parameter.numel() for parameter in network.parameters()),
        weights * budget.dtype.size + biases * budget.dtype.bias_size,
    )
