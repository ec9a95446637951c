"""Cells of the two families of networks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from isonas.genome import Genome
from isonas.networks.build import build_network
from isonas.networks.feeding import Feeding
from isonas.networks.mobilenetv3 import build_mobilenetv3
from isonas.networks.mobilenetv3_plan import BASE_SIDE
from isonas.paper.experiment import Cell


def isometric_cell(name: str, genome: Genome, input_side: int) -> Cell:
    """The cell that trains a genome's network at an input, in pixels."""

    def build(classes: int, weights: Mapping[str, Tensor]) -> nn.Module:
        return build_network(genome, input_side, classes)

    return Cell(name, str(genome), input_side, build, genome.internal_resolution)


def mobilenetv3_cell(
    name: str, width: float, input_side: int, feeding: Feeding | None = None, base_side: int = BASE_SIDE
) -> Cell:
    """The cell that trains MobileNetV3-Large, designed for `base_side` pixels, on smaller images."""
    fed = feeding or Feeding()

    def build(classes: int, weights: Mapping[str, Tensor]) -> nn.Module:
        return build_mobilenetv3(width, fed, input_side, base_side=base_side, classes=classes)

    return Cell(name, f"mobilenetv3_w{width:g}_{fed}_base{base_side}", input_side, build)
