"""Closed forms, layer list, the network itself and a traced graph agree exactly."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isonas import cost
from isonas.cost import Deployment, DType, MemoryModel
from isonas.genome import Genome, Stem, parse_genome
from isonas.layers import layers
from isonas.networks import liveness
from isonas.networks.build import build_network
from isonas.networks.isometric import IsometricNet
from isonas.space import columns_of, load_space
from tests.counting import count_madds
from tests.strategies import Deployed, deployed, genomes

IMAGENET = Deployment(224, 1000)
PAPER = [
    Genome(depth=depth, internal_resolution=resolution, channels=channels)
    for depth, resolution, channels in itertools.product((8, 16, 32), (7, 14, 28, 56), (32, 64, 128))
]


def on_meta(genome: Genome, at: Deployment) -> IsometricNet:
    with torch.device("meta"):
        return build_network(genome, at.input, at.classes)


def assert_all_agree(genome: Genome, at: Deployment) -> None:
    """Every description of one network gives the same numbers."""
    columns = columns_of([genome])
    listed = layers(genome, at)
    network = on_meta(genome, at)
    params = int(cost.params(columns, at)[0])
    assert params == sum(layer.params for layer in listed)
    assert params == sum(parameter.numel() for parameter in network.parameters())
    madds = int(cost.madds(columns, at)[0])
    assert madds == sum(layer.madds for layer in listed)
    assert madds == count_madds(network, at.input)
    assert int(cost.weights(columns, at)[0]) == sum(layer.weights for layer in listed)
    assert int(cost.biases(columns, at)[0]) == sum(layer.biases for layer in listed)
    graph = liveness.trace(network, at.input)
    for model in MemoryModel:
        for with_input in (True, False):
            closed = int(cost.peak_activations(columns, at, model, with_input=with_input)[0])
            traced = liveness.peak_activations(graph, model, with_input=with_input)
            assert closed == traced, (model, with_input)
    by_layers = {
        MemoryModel.PAPER: max(layer.reads + layer.writes for layer in listed),
        MemoryModel.FUSED: max(layer.alive for layer in listed),
        MemoryModel.LARGEST: max(max(3 * at.input**2, layer.writes) for layer in listed),
    }
    for model, elements in by_layers.items():
        assert elements == int(cost.peak_activations(columns, at, model)[0]), model


@given(deployed())
@settings(max_examples=50, deadline=None)
def test_random_genomes(drawn: Deployed) -> None:
    assert_all_agree(drawn.genome, drawn.at)


@pytest.mark.parametrize("genome", PAPER, ids=str)
def test_the_paper_grid(genome: Genome) -> None:
    assert_all_agree(genome, IMAGENET)


@pytest.mark.parametrize("name", ["quick", "mcu", "imagenet"])
def test_shipped_spaces(name: str) -> None:
    space = load_space(name)
    at = Deployment(space.input, space.classes)
    for index in np.random.default_rng(0).choice(len(space), 8, replace=False):
        assert_all_agree(space.columns.genome(int(index)), at)


@pytest.mark.parametrize(
    ("text", "params", "madds"),
    [
        ("isonet_l16_c64_r14_e6_se4_s2d", 4_420_968, 187_688_960),
        ("isonet_l32_c64_r7_e6_se4_s2d", 6_624_104, 99_153_920),
        ("isonet_l16_c64_r14_e6_se4_s2d_shared", 2_493_768, 187_688_960),
    ],
)
def test_fixed_points(text: str, params: int, madds: int) -> None:
    columns = columns_of([parse_genome(text)])
    assert cost.params(columns, IMAGENET)[0] == params
    assert cost.madds(columns, IMAGENET)[0] == madds


def test_memory_check_points() -> None:
    """Section 7.3 of the paper quotes elements of the largest tensor without the image."""
    columns = columns_of([parse_genome("isonet_l16_c64_r7_e6_se4_s2d")])

    def peak(model: MemoryModel, *, with_input: bool) -> int:
        return int(cost.peak_activations(columns, IMAGENET, model, with_input=with_input)[0])

    assert peak(MemoryModel.PAPER, with_input=True) == 153_664
    assert peak(MemoryModel.PAPER, with_input=False) == 40_768
    assert peak(MemoryModel.LARGEST, with_input=True) == 150_528
    assert peak(MemoryModel.LARGEST, with_input=False) == 37_632


def test_figures_of_section_7_3() -> None:
    """m = 2 at r = 7 and 14: the largest tensor without the image has 75,264 and 301,056 elements."""
    wide = [Genome(channels=128, internal_resolution=resolution) for resolution in (7, 14)]
    found = cost.peak_activations(columns_of(wide), IMAGENET, MemoryModel.LARGEST, with_input=False)
    assert found.tolist() == [75_264, 301_056]


@pytest.mark.parametrize(
    ("model", "dtype", "kibibytes"),
    [
        (MemoryModel.TFLM, DType.FP32, 4704.0),
        (MemoryModel.LITERT, DType.FP32, 5292.0),
        (MemoryModel.LITERT, DType.INT8, 1323.0),
        (MemoryModel.EXECUTORCH, DType.FP32, 7056.0),
    ],
)
def test_arenas_measured_in_runtimes(model: MemoryModel, dtype: DType, kibibytes: float) -> None:
    """What the runtimes allocated for l = 2, r = 28, c = 64 at input 224 (LiteRT: 5292.1 and 1323.1)."""
    columns = columns_of([Genome(depth=2, internal_resolution=28)])
    peak = cost.peak_activations(columns, IMAGENET, model)[0]
    assert peak * dtype.size / 1024 == kibibytes


@given(genomes(), st.sampled_from(list(MemoryModel)))
def test_depth_and_sharing_cost_no_activations(genome: Genome, model: MemoryModel) -> None:
    others = [genome, replace(genome, depth=genome.depth + 7), replace(genome, shared=not genome.shared)]
    side = 4 * genome.internal_resolution
    peaks = cost.peak_activations(columns_of(others), Deployment(side, 10), model)
    assert len(set(peaks.tolist())) == 1


@given(genomes(), st.integers(1, 4), st.integers(2, 4))
def test_at_a_fixed_block_params_stay_and_conv_madds_grow_with_area(
    genome: Genome, block: int, factor: int
) -> None:
    """Section 4: the multiplier of internal resolution scales MAdds by its square, and no weights."""
    small = replace(genome, se_ratio=Fraction(0), internal_resolution=7)
    large = replace(small, internal_resolution=7 * factor)
    columns = columns_of([small, large])
    (params, _), (_, more) = (cost.params(columns, Deployment(side * block, 10)) for side in (7, 7 * factor))
    assert params == more
    fc = small.head_width * (small.head_features or 10) + small.head_features * 10
    first = cost.madds(columns.where(np.array([0])), Deployment(7 * block, 10))[0]
    second = cost.madds(columns.where(np.array([1])), Deployment(7 * factor * block, 10))[0]
    assert second - fc == factor**2 * (first - fc)


@given(genomes(), st.integers(1, 12))
def test_memory_models_are_ordered(genome: Genome, block: int) -> None:
    """A single tensor is no more than a layer's, that no more than all alive; in place saves."""
    at = Deployment(block * genome.internal_resolution, 10)
    peak = {model: int(cost.peak_activations(columns_of([genome]), at, model)[0]) for model in MemoryModel}
    assert peak[MemoryModel.LARGEST] <= peak[MemoryModel.PAPER] <= peak[MemoryModel.TFLM]
    assert peak[MemoryModel.INPLACE] <= peak[MemoryModel.FUSED] <= peak[MemoryModel.TFLM]
    assert peak[MemoryModel.TFLM] <= peak[MemoryModel.LITERT]
    assert peak[MemoryModel.TFLM] <= peak[MemoryModel.EXECUTORCH]


def chunked_schedule(genome: Genome, chunks: int) -> int:
    """Peak of a chunked block's schedule played step by step, without SE's vectors."""
    area = genome.internal_resolution**2
    narrow, wide = genome.channels * area, -(-genome.hidden // chunks) * area
    residual, accumulator, peak = narrow, 0, 0
    for _ in range(chunks):
        expanded = wide
        peak = max(peak, residual + accumulator + expanded)
        peak = max(peak, residual + accumulator + expanded + wide)  # depthwise, out of place
        projected = narrow
        peak = max(peak, residual + accumulator + wide + projected)
        if accumulator:
            peak = max(peak, residual + accumulator + projected + narrow)  # sum, out of place
        accumulator = narrow
    return max(peak, residual + accumulator + narrow)


@given(genomes(), st.integers(2, 8))
def test_chunked_blocks_follow_their_schedule(genome: Genome, chunks: int) -> None:
    # A narrow head and a small image, so that the block sets the peak.
    genome = replace(genome, head_multiple=1, head_features=0, internal_resolution=14)
    columns = columns_of([genome])
    found = int(cost.chunked_activations(columns, Deployment(14, 2), chunks, with_input=False)[0])
    block = chunked_schedule(genome, chunks)
    area = genome.internal_resolution**2
    # The last bound is met by the schedule unless both of its terms are below the head's.
    assert found >= block
    head = genome.channels * area + 2 * min(-(-genome.hidden // chunks), genome.head_width) * area
    assert found in (block, 4 * genome.channels * area, head + genome.head_width)


def test_chunking_matches_the_measured_exports() -> None:
    """TFLM allocated 981 KiB for the r = 28, c = 64 block in four slices; the image is not counted."""
    columns = columns_of([Genome(depth=2, internal_resolution=28)])
    elements = int(cost.chunked_activations(columns, IMAGENET, 4, with_input=False)[0])
    assert elements * 4 / 1024 == 980


@pytest.mark.parametrize("dtype", list(DType))
def test_weight_bytes_are_those_of_the_folded_network(dtype: DType) -> None:
    at = Deployment(56, 10)
    genome = Genome(depth=2, channels=32, stem=Stem.CONV)
    listed = layers(genome, at)
    bias = {"int8": 4, "fp16": 2, "fp32": 4}[dtype]
    weight = {"int8": 1, "fp16": 2, "fp32": 4}[dtype]
    expected = sum(layer.weights * weight + layer.biases * bias for layer in listed)
    assert int(cost.weight_bytes(columns_of([genome]), at, dtype)[0]) == expected


@given(st.lists(genomes(), min_size=1, max_size=20))
def test_many_at_once_are_each_alone(listed: list[Genome]) -> None:
    together = columns_of(listed)
    at = Deployment(112, 10)
    for function in (cost.params, cost.madds, cost.output_channels, cost.operators):
        alone = [int(function(columns_of([genome]), at)[0]) for genome in listed]
        assert function(together, at).tolist() == alone


def test_operators_and_channels_are_those_of_the_layers() -> None:
    """Each layer is one operator, each activation but ReLU another one."""
    for genome in (Genome(depth=3), Genome(depth=2, se_ratio=Fraction(0), head_features=0, stem=Stem.RESIZE)):
        listed = layers(genome, Deployment(56, 10))
        activations = 2 + 2 * genome.depth + (1 if genome.head_features else 0)
        gates = genome.depth if genome.squeeze else 0
        columns = columns_of([genome])
        expected = len(listed) + activations + gates
        assert int(cost.operators(columns, Deployment(56, 10))[0]) == expected
        channels = sum(layer.channels for layer in listed if layer.biases)
        assert int(cost.output_channels(columns, Deployment(56, 10))[0]) == channels


def test_the_tracer_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="is not known"):
        liveness.trace(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.GELU()), 8)


def test_tracing_leaves_the_network_alone() -> None:
    network = build_network(Genome(depth=1, channels=8), 28, 10).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    liveness.trace(network, 28)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
