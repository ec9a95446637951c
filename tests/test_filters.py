"""Constructed blobs and mazes are told apart, and frozen filters stay as they were."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isonas.genome import Genome, Stem
from isonas.networks.build import build_network
from isonas.networks.filters import (
    FilterKind,
    Floats,
    coarse_share,
    filter_grid,
    filter_images,
    filter_kinds,
    first_layer_filters,
    freeze_filters,
)
from isonas.networks.mobilenetv3 import build_mobilenetv3
from isonas.networks.sharing import share_convolutions
from isonas.training.examples import Examples
from isonas.training.loop import prepare, train
from isonas.training.machine import Machine
from isonas.training.recipe import Recipe
from tests.counting import count_madds


def blobs(side: int, count: int = 6, seed: int = 0) -> Floats:
    """Coloured bumps about as wide as half the filter."""
    random = np.random.default_rng(seed)
    grid = np.arange(side)
    centres = random.uniform(0.3 * side, 0.7 * side, (count, 2))
    bumps = [
        np.exp(-((grid[:, None] - y) ** 2 + (grid - x) ** 2) / (2 * (side / 4) ** 2)) for y, x in centres
    ]
    return np.stack([bump * random.normal(size=(3, 1, 1)) for bump in bumps])


def mazes(side: int, count: int = 6, seed: int = 0) -> Floats:
    """Strokes one pixel wide that turn and end at random, as in a labyrinth."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        # Alternating lines, along rows in some quarters of the filter and along columns in the others.
        row, column = np.indices((side, side))
        upright = random.integers(0, 2, (2, 2)).repeat(side // 2, 0).repeat(side // 2, 1).astype(bool)
        found.append(np.where(upright, (-1.0) ** row, (-1.0) ** column) * random.normal(size=(3, 1, 1)))
    return np.stack(found)


@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_blobs_and_mazes_are_told_apart(side: int) -> None:
    assert set(filter_kinds(blobs(side))) == {FilterKind.BLOB}
    assert set(filter_kinds(mazes(side))) == {FilterKind.MAZE}


@pytest.mark.parametrize("side", [8, 16])
def test_noise_scores_the_share_of_coarse_frequencies(side: int) -> None:
    noise = np.random.default_rng(0).normal(size=(400, 3, side, side))
    coarse = sum(
        16 * (i * i + j * j) <= side * side
        for i in range(-side // 2, side // 2)
        for j in range(-side // 2, side // 2)
    )
    assert coarse_share(noise).mean() == pytest.approx(coarse / side**2, abs=0.01)


@pytest.mark.parametrize("period", [2, 4, 8, 16])
def test_a_wave_is_coarse_from_four_pixels_on(period: int) -> None:
    wave = np.broadcast_to(np.cos(2 * np.pi * np.arange(16) / period), (1, 3, 16, 16))
    assert coarse_share(wave)[0] == pytest.approx(float(period >= 4))


@settings(deadline=None)
@given(seed=st.integers(0, 1000), side=st.sampled_from([4, 7, 8]), scale=st.floats(1e-3, 1e3))
def test_the_measure_is_invariant(seed: int, side: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    filters = random.normal(size=(3, 3, side, side))
    share = coarse_share(filters)
    changed = [
        filters * scale,
        -filters,
        filters[:, :, ::-1],
        np.rot90(filters, axes=(2, 3)),
        np.roll(filters, (seed % side, 1), (2, 3)),
        filters[:, random.permutation(3)],
    ]
    for other in changed:
        np.testing.assert_allclose(coarse_share(other), share, rtol=1e-9)


def test_images_have_grey_for_zero_and_full_contrast() -> None:
    filters = np.zeros((2, 3, 4, 4))
    filters[0, 1, 2, 3] = -2.0
    images = filter_images(filters)
    assert images[0, 2, 3].tolist() == [0.5, 0.0, 0.5]
    assert (images[1] == 0.5).all()
    grid = filter_grid(filters, columns=3)
    assert grid.shape == (6, 16, 3)
    np.testing.assert_array_equal(grid[1:5, 6:10], images[1])
    assert (grid[:, 11:] == 1).all()
    with pytest.raises(ValueError, match="columns is 0"):
        filter_grid(filters, columns=0)


def trained(network: torch.nn.Module, precision: str = "fp32") -> None:
    """One short epoch of the product's own loop, in place."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8, generator=generator)
    examples = Examples(pixels, torch.arange(32) % 4)
    recipe = Recipe(epochs=1, epoch_images=32, batch_size=8)
    machine = Machine("cpu", precision, 1)
    prepare(network, machine)
    results = list(train(network, examples, examples, recipe, machine, classes=4, mirror=False, seed=0))
    assert len(results) == 1


@pytest.mark.parametrize("stem", list(Stem))
@pytest.mark.parametrize("remove_others", [False, True])
def test_frozen_filters_outlive_training_and_the_others_learn(stem: Stem, remove_others: bool) -> None:
    network = build_network(Genome(1, 8, 4, 2, Fraction(1, 4), stem, head_features=16), 16, 4)
    fresh = first_layer_filters(network)
    filters = np.random.default_rng(0).normal(size=fresh.shape).astype(np.float32).astype(np.float64)
    kept = np.arange(8) % 3 == 0
    freeze_filters(network, filters, kept, remove_others=remove_others)
    np.testing.assert_array_equal(first_layer_filters(network)[kept], filters[kept])
    np.testing.assert_array_equal(first_layer_filters(network)[~kept], 0 if remove_others else fresh[~kept])
    trained(network)
    after = first_layer_filters(network)
    np.testing.assert_array_equal(after[kept], filters[kept])
    if remove_others:
        assert (after[~kept] == 0).all()
    else:
        assert (np.abs(after[~kept] - fresh[~kept]).max((1, 2, 3)) > 0).all()


def test_filters_of_another_shape_are_refused() -> None:
    network = build_network(Genome(1, 8, 4), 16, 4)
    with pytest.raises(ValueError, match=r"do not fit a first layer of weights \(8, 3, 4, 4\)"):
        freeze_filters(network, np.zeros((8, 3, 2, 2)), np.ones(8, bool))


def test_mobilenets_trains_in_the_same_loop_and_shows_its_filters() -> None:
    network = build_mobilenetv3(0.1, input_side=16, base_side=64, classes=4)
    before = first_layer_filters(network)
    trained(network)
    assert before.shape == (16, 3, 3, 3)
    assert (first_layer_filters(network) != before).any()


@pytest.mark.parametrize("ratio", [Fraction(0), Fraction(1, 4)])
def test_shared_convolutions_leave_batch_norms_apart(ratio: Fraction) -> None:
    genome = Genome(3, 8, 4, 2, ratio, head_features=16)
    network, apart = build_network(genome, 16, 4), build_network(genome, 16, 4)
    share_convolutions(network)
    c, hidden, squeeze = genome.channels, genome.hidden, genome.squeeze
    gates = (2 * hidden * squeeze + squeeze + hidden) if squeeze else 0
    saved = 2 * (2 * hidden * c + 9 * hidden + gates)
    counts = [sum(parameter.numel() for parameter in n.parameters()) for n in (apart, network)]
    assert counts[0] - counts[1] == saved
    trained(network)
    states = [
        {k: v for k, v in block.state_dict().items() if "num_batches" not in k} for block in network.blocks
    ]
    for name, tensor in states[0].items():
        same = all(torch.equal(tensor, state[name]) for state in states[1:])
        assert same is (".norm." not in name), name
    # Unshared blocks with those weights, norms included, compute the same.
    apart.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(apart.eval()(images), network.eval()(images))
    assert count_madds(apart.to("meta"), 16) == count_madds(network.to("meta"), 16)
