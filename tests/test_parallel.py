"""Parallel networks partition the image, and are a dilated network under exact conditions."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from isonas.errors import GenomeError
from isonas.genome import Genome, Stem
from isonas.networks.build import build_network
from isonas.networks.isometric import IsometricNet
from isonas.networks.parallel import (
    Average,
    Split,
    batch_view,
    build_parallel,
    dilate,
    mask_view,
    split_pixels,
)

PLAIN = Genome(3, 8, 8, 2, Fraction(0), head_features=16)


def randomised(network: nn.Module) -> nn.Module:
    """Weights and statistics such that every layer matters."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.4 * ("var" not in name))
    return network.eval()


class OverPhases(nn.Module):
    """SE whose pool is over all parts of an image."""

    def __init__(self, se: nn.Module, parts: int) -> None:
        super().__init__()
        self.se = se
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        stacked = x.reshape(-1, self.parts**2, *x.shape[1:])
        tall: Tensor = self.se(stacked.transpose(1, 2).flatten(2, 3))
        count, channels, height, width = tall.shape
        cut = tall.reshape(count, channels, self.parts**2, height // self.parts**2, width)
        return cut.transpose(1, 2).reshape(x.shape)


def both(
    genome: Genome,
    parts: int = 2,
    average: Average = Average.FEATURES,
    padding: str = "zeros",
    *,
    pool_phases: bool = False,
) -> tuple[Tensor, Tensor]:
    """Logits of the swapped parallel network and of the dilated one with its weights."""
    swapped = build_parallel(genome, 32, 5, parts=parts, split=Split.SWAPPED, average=average)
    randomised(swapped)
    whole = build_network(genome, 32, 5).eval()
    whole.load_state_dict(swapped.body.state_dict())
    for network in (whole, swapped.body):
        for block in network.blocks:
            block.get_submodule("depthwise.conv").padding_mode = padding  # type: ignore[assignment]
    dilate(whole, parts)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    # Parts that differ in brightness as well: their means differ.
    images += torch.arange(8).repeat_interleave(4) % parts
    if pool_phases:
        for block in swapped.body.blocks:
            block.se = OverPhases(block.get_submodule("se"), parts)
    return swapped.double()(images), whole.double()(images)


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_swapped_is_dilation_without_se_with_zero_padding_and_averaged_features(
    parts: int, kernel_size: int
) -> None:
    parallel, dilated = both(Genome(3, 8, 8, 2, Fraction(0), kernel_size=kernel_size), parts)
    torch.testing.assert_close(parallel, dilated, rtol=0, atol=1e-7)


def test_with_se_too_if_its_pool_is_over_all_parts() -> None:
    genome = Genome(3, 8, 8, 2, Fraction(1, 4), head_features=16)
    parallel, dilated = both(genome, pool_phases=True)
    torch.testing.assert_close(parallel, dilated, rtol=0, atol=1e-7)


def test_without_a_hidden_fc_averaged_logits_are_the_same_too() -> None:
    parallel, dilated = both(Genome(3, 8, 8, 2, Fraction(0), head_features=0), average=Average.LOGITS)
    torch.testing.assert_close(parallel, dilated, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "broken",
    [
        lambda: both(Genome(3, 8, 8, 2, Fraction(1, 4), head_features=16)),
        lambda: both(PLAIN, average=Average.LOGITS),
        lambda: both(PLAIN, padding="replicate"),
        lambda: both(Genome(3, 8, 8, 2, Fraction(0), Stem.CONV, head_features=16)),
    ],
    ids=["with SE", "logits averaged", "padding not zero", "a stem that mixes blocks"],
)
def test_with_one_condition_broken_they_differ(broken: object) -> None:
    assert callable(broken)
    parallel, dilated = broken()
    # A hundred times the tolerance within which they agree, in double precision, where they should.
    assert (parallel - dilated).abs().max() > 1e-5


def test_naive_is_not_dilation() -> None:
    naive = build_parallel(PLAIN, 32, 5, parts=2, split=Split.NAIVE)
    swapped = build_parallel(PLAIN, 32, 5, parts=2, split=Split.SWAPPED)
    randomised(naive)
    swapped.eval().load_state_dict(naive.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(naive(images), swapped(images), rtol=1e-3)


def test_parts_that_do_not_divide_are_refused() -> None:
    with pytest.raises(GenomeError, match="3 parts a side do not divide internal resolution 8"):
        build_parallel(PLAIN, 32, 5, parts=3, split=Split.NAIVE)
    with pytest.raises(GenomeError, match="above input 4"):
        build_parallel(PLAIN, 4, 5, parts=2, split=Split.NAIVE)


@pytest.mark.parametrize("average", list(Average))
def test_the_average_is_of_what_the_body_says_of_each_part(average: Average) -> None:
    genome = Genome(2, 8, 8, 2, Fraction(1, 4), head_features=16)
    network = build_parallel(genome, 32, 5, parts=2, split=Split.NAIVE, average=average)
    randomised(network)
    assert isinstance(network.body, IsometricNet)
    images = torch.randn(2, 3, 32, 32)
    coarse = [images[:, :, row::2, column::2] for row, column in product(range(2), repeat=2)]
    if average is Average.LOGITS:
        expected = torch.stack([network.body(part) for part in coarse]).mean(0)
    else:
        pooled = torch.stack([network.body.forward_features(part) for part in coarse]).mean(0)
        expected = network.body.forward_head(pooled)
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(parts=st.integers(1, 4), block=st.integers(1, 4), groups=st.integers(1, 3))
def test_masks_partition_the_image_and_are_what_the_batch_holds(parts: int, block: int, groups: int) -> None:
    side = parts * block * groups
    masks = mask_view(side, parts, block)
    assert (masks.sum(0) == 1).all()
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    batch = batch_view(image, parts, block)
    assert batch.shape == (parts**2, side // parts, side // parts, 3)
    for mask, part in zip(masks, batch, strict=True):
        # Within a part pixels keep their order, row by row.
        np.testing.assert_array_equal(image[mask], part.reshape(-1, 3))


def test_the_views_are_what_the_network_reads() -> None:
    images = torch.arange(2 * 3 * 64, dtype=torch.float32).reshape(2, 3, 8, 8)
    parts = split_pixels(images, 2, 2)
    for number, image in enumerate(images):
        seen = batch_view(image.permute(1, 2, 0).numpy().astype(np.uint8), 2, 2)
        wanted = parts[4 * number : 4 * number + 4].permute(0, 2, 3, 1).numpy().astype(np.uint8)
        np.testing.assert_array_equal(seen, wanted)
