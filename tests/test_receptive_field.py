"""The closed forms against the support of a gradient."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from isonas.genome import Genome, Stem
from isonas.networks.build import build_network
from isonas.networks.feeding import FEEDINGS, Feeding, Way
from isonas.networks.mobilenetv3 import MobileNetV3
from isonas.networks.mobilenetv3_plan import MobileNetV3Plan, plan_mobilenetv3
from isonas.networks.parallel import dilate
from isonas.networks.receptive_field import (
    Field,
    depth_that_covers,
    isometric_fields,
    mobilenetv3_fields,
)


def additive(network: nn.Module) -> nn.Module:
    """Positive weights, so that no gradient cancels, and no SE, through which every unit sees all."""
    for layer in list(network.modules()):
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
        if hasattr(layer, "se"):
            layer.se = nn.Identity()
    return network.double().eval()


def support(grid: Tensor, maps: Tensor, unit: int) -> Tensor:
    """Which rows of the grid a unit on the diagonal depends on."""
    (gradient,) = torch.autograd.grad(maps[0, :, unit, unit].sum(), grid, retain_graph=True)
    return (gradient != 0).any(3).any(1)[0]


def check(field: Field, grid: Tensor, maps: Tensor, *, whole: bool) -> None:
    side = maps.shape[-1]
    # Under dilation the pixel at the image's edge may be one of those left out.
    for unit in {0, side // 3, side // 2, side - 1} if whole else {side // 2}:
        seen = support(grid, maps, unit)
        first, last = field.seen(unit, grid.shape[-1])
        rows = seen.nonzero().flatten()
        assert (int(rows[0]), int(rows[-1])) == (first, last)
        if whole:
            assert int(seen.sum()) == last - first + 1


@pytest.mark.parametrize("stem", list(Stem))
@pytest.mark.parametrize(("block", "kernel_size", "dilation"), [(1, 3, 1), (4, 3, 1), (3, 5, 1), (2, 3, 2)])
def test_isometric(stem: Stem, block: int, kernel_size: int, dilation: int) -> None:
    resolution = 8 * dilation
    side = resolution * block
    genome = Genome(3, 4, resolution, 1, Fraction(0), stem, kernel_size=kernel_size)
    network = build_network(genome, side, 2)
    dilate(network, dilation)
    additive(network)
    grid = torch.ones(1, 3, side, side, dtype=torch.double, requires_grad=True)
    fields = isometric_fields(genome, side, dilation=dilation)
    maps = network.stem(grid)
    check(fields[0], grid, maps, whole=True)
    for layer, field in zip(network.blocks, fields[1:], strict=True):
        maps = layer(maps)
        check(field, grid, maps, whole=dilation == 1)


@pytest.mark.parametrize("feeding", FEEDINGS, ids=str)
def test_mobilenetv3(feeding: Feeding) -> None:
    plan = plan_mobilenetv3(0.1, feeding, 32, base_side=64, classes=2)
    grid, maps = behind_each_block(plan)
    for field, output in zip(mobilenetv3_fields(plan), maps, strict=True):
        check(field, grid, output, whole=True)


def behind_each_block(plan: MobileNetV3Plan) -> tuple[Tensor, list[Tensor]]:
    """What the stem reads, and what the stem and each block put out."""
    network = additive(MobileNetV3(plan))
    assert isinstance(network, MobileNetV3)
    grid = torch.ones(1, 3, plan.grid_side, plan.grid_side, dtype=torch.double, requires_grad=True)
    maps = [network.stem_act(network.stem(grid))]
    for block in network.blocks:
        maps.append(block(maps[-1]))
    return grid, maps


def test_a_3x3_stem_leaves_holes_under_dilation() -> None:
    plan = plan_mobilenetv3(0.1, Feeding(Way.DILATED), 32, classes=2)
    stem = replace(plan.stem, kernel=3, padding=1)
    grid, maps = behind_each_block(replace(plan, stem=stem))
    seen = support(grid, maps[1], 8)
    rows = seen.nonzero().flatten()
    # Three taps, four pixels apart, three pixels wide: one of four is missed.
    assert int(seen.sum()) == 9
    assert int(rows[-1] - rows[0]) + 1 == 11


@pytest.mark.parametrize(("resolution", "blocks"), [(7, 3), (14, 7), (28, 14), (56, 28)])
def test_how_many_blocks_the_papers_networks_need_to_see_the_whole_image(
    resolution: int, blocks: int
) -> None:
    fields = isometric_fields(Genome(32, 64, resolution), 224)
    k = 224 // resolution
    assert [field.size for field in fields] == [k * (1 + 2 * n) for n in range(33)]
    assert depth_that_covers(fields, 224) == blocks
    assert depth_that_covers(fields[:blocks], 224) is None
    assert fields[0].share(224) == 1 / resolution
    assert fields[blocks].share(224) == 1
