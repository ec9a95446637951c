"""Every network of the paper trains in the product's one loop, in both precisions."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from isonas.genome import Genome
from isonas.networks.build import build_network
from isonas.networks.feeding import FEEDINGS, Feeding
from isonas.networks.filters import first_layer_filters, freeze_filters
from isonas.networks.isometric import IsometricNet
from isonas.networks.mobilenetv3 import build_mobilenetv3
from isonas.networks.parallel import Average, Split, build_parallel, dilate
from isonas.networks.sharing import share_convolutions
from isonas.training.examples import Examples
from isonas.training.loop import prepare, train
from isonas.training.machine import Machine
from isonas.training.recipe import Recipe

GENOME = Genome(2, 8, 8, 2, Fraction(1, 4), kernel_size=5, head_features=16)


def isometric(change: Callable[[IsometricNet], None]) -> nn.Module:
    network = build_network(GENOME, 32, 4)
    change(network)
    return network


def frozen(network: nn.Module) -> None:
    freeze_filters(network, first_layer_filters(network), np.arange(8) < 4)


def fed(feeding: Feeding) -> nn.Module:
    return build_mobilenetv3(0.1, feeding, 32, base_side=64, classes=4)


def parallel(split: Split, average: Average) -> nn.Module:
    return build_parallel(GENOME, 32, 4, parts=2, split=split, average=average)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "shared": lambda: isometric(share_convolutions),
    "dilated": lambda: isometric(lambda network: dilate(network, 2)),
    "frozen": lambda: isometric(frozen),
    **{f"parallel-{s}-{a}": lambda s=s, a=a: parallel(s, a) for s in Split for a in Average},  # type: ignore[misc]
    **{f"mobilenetv3-{f}": lambda f=f: fed(f) for f in FEEDINGS},  # type: ignore[misc]
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_is_trained_and_a_checkpoint_is_the_network(name: str, precision: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    machine = Machine("cpu", precision, 1)
    labels = torch.arange(32) % 4
    pixels = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8)
    examples = Examples(pixels, labels)
    prepare(network, machine)
    before = {key: tensor.detach().clone() for key, tensor in network.named_parameters()}
    recipe = Recipe(epochs=1, epoch_images=32, batch_size=8, weight_decay=0)
    steps = list(train(network, examples, examples, recipe, machine, classes=4, mirror=False, seed=0))
    assert math.isfinite(steps[-1][0].loss)
    # Of vectors, a norm's γ before ReLU, a depthwise convolution and a norm has no gradient at first.
    still = [key for key, x in network.named_parameters() if x.ndim > 1 and torch.equal(x, before[key])]
    assert not still
    again = NETWORKS[name]()
    again.load_state_dict(steps[-1][1].network)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again.eval()(images), network.eval()(images), rtol=1e-3, atol=1e-3)
