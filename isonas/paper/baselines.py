"""Networks of the paper beside a search's front, costed under the search's own convention."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from torch import nn

from isonas.cost import Deployment
from isonas.errors import GenomeError, UsageError
from isonas.genome import Genome, parse_genome, stem_block
from isonas.hardware import Budget, costs
from isonas.networks.liveness import operators, peak_activations, trace
from isonas.networks.mobilenetv3 import MobileNetV3, build_mobilenetv3
from isonas.paper.counts import count_madds
from isonas.paper.systems import family
from isonas.report.front import Baseline
from isonas.space import columns_of

_WIDTHS = (0.35, 0.5, 0.75, 1.0)
_DEPTHS, _RESOLUTIONS, _MULTIPLIERS = (8, 16, 32), (7, 14, 28, 56), (0.5, 1, 2)


@dataclass(frozen=True)
class MobileNetV3Large:
    """MobileNetV3-Large of a width; its text form is `mobilenetv3_w0.5`."""

    width: float

    def __str__(self) -> str:
        return f"mobilenetv3_w{self.width:g}"

    def build(self, input_side: int, classes: int) -> MobileNetV3:
        """The network for images of `input_side` pixels, freshly initialised."""
        return build_mobilenetv3(self.width, input_side=input_side, classes=classes)


Network = Genome | MobileNetV3Large


def chosen(name: str, at: Deployment) -> tuple[list[Network], list[str]]:
    """The networks that a name stands for, and the names of those that do not fit the input.

    `mobilenetv3` is MobileNetV3-Large at some widths, `mobilenetv3_w0.6` at one; `paper` the isometric
    networks of Table 2; a genome is itself. Raises UsageError for any other name, and for a single
    network that does not fit.
    """
    if name == "mobilenetv3":
        return [MobileNetV3Large(width) for width in _WIDTHS], []
    if match := re.fullmatch(r"mobilenetv3_w([0-9]\.?[0-9]{0,3})", name, re.ASCII):
        if not 0.05 <= float(match[1]) <= 4:
            raise UsageError(f"{name} has a width of {match[1]}; give one from 0.05 to 4.")
        return [MobileNetV3Large(float(match[1]))], []
    if name == "paper":
        table = [family(*row) for row in product(_DEPTHS, _RESOLUTIONS, _MULTIPLIERS)]
        fitting = [genome for genome in table if _fits(genome, at)]
        return list(fitting), [str(genome) for genome in table if genome not in fitting]
    if not name.startswith("isonet_"):
        raise UsageError(
            f"{name!r} names no network; give mobilenetv3, mobilenetv3_w0.5 or another width, paper, or a "
            "genome."
        )
    genome = parse_genome(name)
    stem_block(genome, at.input)
    return [genome], []


def _fits(genome: Genome, at: Deployment) -> bool:
    try:
        stem_block(genome, at.input)
    except GenomeError:
        return False
    return True


def costed(networks: Sequence[Network], at: Deployment, budget: Budget) -> list[Baseline]:
    """The networks with their costs at a deployment, under the budget's memory model and dtype."""
    return [
        _mobilenetv3(one, at, budget) if isinstance(one, MobileNetV3Large) else _isometric(one, at, budget)
        for one in networks
    ]


def _isometric(genome: Genome, at: Deployment, budget: Budget) -> Baseline:
    of = costs(columns_of([genome]), at, budget)
    return Baseline(str(genome), **{name: int(values[0]) for name, values in vars(of).items()})


def _mobilenetv3(one: MobileNetV3Large, at: Deployment, budget: Budget) -> Baseline:
    network = one.build(at.input, at.classes)
    weights = biases = channels = 0
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            channels += layer.weight.shape[0]
            weights += layer.weight.numel()
            biases += layer.bias.numel() if layer.bias is not None else 0
        elif isinstance(layer, nn.BatchNorm2d):
            # Folded into the convolution before it, a batch norm is one bias a channel.
            biases += layer.num_features
    graph = trace(network, at.input)
    peak = peak_activations(graph, budget.memory_model) * budget.dtype.size
    weight = weights * budget.dtype.size + biases * budget.dtype.bias_size
    return Baseline(
        str(one),
        arena_bytes=peak + budget.arena.bytes(channels, operators(graph)),
        peak_bytes=peak,
        madds=count_madds(network, at.input),
        params=sum(parameter.numel() for parameter in network.parameters()),
        file_bytes=weight + budget.file.bytes(channels, operators(graph)),
        weight_bytes=weight,
    )
