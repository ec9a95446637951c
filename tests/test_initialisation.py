"""Every convolution of every network starts with std √(2 / (q² · outputs / groups))."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from isonas.genome import Genome, Stem
from isonas.networks.build import build_network
from isonas.networks.feeding import FEEDINGS
from isonas.networks.mobilenetv3 import build_mobilenetv3
from isonas.networks.parallel import Average, Split, build_parallel, dilate
from isonas.networks.sharing import share_convolutions

GENOME = Genome(2, 32, 8, 3, kernel_size=5, head_multiple=4, head_features=0)


def isometric(genome: Genome, side: int = 32) -> Callable[[], nn.Module]:
    return lambda: build_network(genome, side, 10)


def dilated() -> nn.Module:
    network = build_network(GENOME, 32, 10)
    dilate(network, 2)
    return network


def shared_but_norms() -> nn.Module:
    network = build_network(GENOME, 32, 10)
    share_convolutions(network)
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{f"isometric {stem}": isometric(replace(GENOME, stem=stem)) for stem in Stem},
    "isometric upsampling": isometric(GENOME, 4),
    "isometric without SE": isometric(replace(GENOME, se_ratio=Fraction(0))),
    "isometric shared": isometric(replace(GENOME, shared=True)),
    "isometric 1x1": isometric(replace(GENOME, kernel_size=1)),
    "isometric dilated": dilated,
    "isometric norms apart": shared_but_norms,
    **{
        f"parallel {split} {average}": lambda split=split, average=average: build_parallel(  # type: ignore[misc]
            GENOME, 32, 10, parts=2, split=split, average=average
        )
        for split in Split
        for average in Average
    },
    **{
        f"mobilenetv3 {feeding}": lambda feeding=feeding: build_mobilenetv3(  # type: ignore[misc]
            0.5, feeding, 64, base_side=64, classes=10
        )
        for feeding in FEEDINGS
    },
}


@pytest.mark.parametrize("network", NETWORKS)
def test_convolutions_start_at_kaimings_deviation_by_fan_out_per_group(network: str) -> None:
    torch.manual_seed(0)
    layers = [one for one in NETWORKS[network]().modules() if isinstance(one, nn.Conv2d)]
    assert any(one.groups > 1 for one in layers)
    for layer in layers:
        q, count = layer.kernel_size[0], layer.weight.numel()
        std = math.sqrt(2 / (q * q * layer.out_channels / layer.groups))
        weights = layer.weight.detach().double()
        # Five standard errors of a normal sample's deviation and mean.
        assert float(weights.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * count)), layer
        assert abs(float(weights.mean())) < 5 * std / math.sqrt(count), layer
        assert layer.bias is None or not layer.bias.any()
