"""MobileNetV3 is timm's, and what each feeding changes is what the paper says it changes."""

from __future__ import annotations

from itertools import chain, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import isonas.networks.timm  # noqa: F401  (first, so that timm imports beside any torchvision)
from isonas.cost import MemoryModel
from isonas.errors import FeedingError
from isonas.networks.feeding import BLOCKS, FEEDINGS, Feeding, Way, parse_feeding
from isonas.networks.liveness import peak_activations, trace
from isonas.networks.mobilenetv3 import MobileNetV3, build_mobilenetv3, zero_filled
from isonas.networks.mobilenetv3_plan import plan_mobilenetv3
from isonas.training.depthwise import speed_up_depthwise
from tests.counting import count_madds

SIZES = [  # width, input side, base side
    (1.0, 224, 224),
    (0.35, 16, 64),
    (1.25, 64, 128),
]


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def randomised(network: MobileNetV3, seed: int = 1) -> MobileNetV3:
    """Every norm's parameters and statistics away from their initial values, activations in range."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.eval()


def shapes(network: MobileNetV3, side: int) -> list[tuple[int, ...]]:
    """Shapes of what stem, blocks and head convolution put out."""
    seen: list[tuple[int, ...]] = []
    handles = [
        layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(tuple(output.shape[1:])))
        for layer in (network.stem, *network.blocks, network.head_conv)
    ]
    network.eval()(torch.zeros(1, 3, side, side, device="meta"))
    for handle in handles:
        handle.remove()
    return seen


def timms(width: float, ours: MobileNetV3) -> nn.Module:
    """timm's network with the weights of ours; both name their tensors in the order of execution."""
    from timm.models import mobilenetv3

    theirs = mobilenetv3._gen_mobilenet_v3("mobilenetv3_large_100", width, num_classes=ours.plan.classes)
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        other.copy_(mine.reshape(other.shape))
    return theirs.eval()


@pytest.mark.parametrize("width", [1.0, 0.5, 0.75, 1.5])
def test_plain_is_timms_with_copied_weights(width: float) -> None:
    ours = randomised(build_mobilenetv3(width, input_side=64, classes=7))
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), timms(width, ours)(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("removed", [1, 2, 3, 4, 5])
def test_skip_stride_is_timms_with_its_first_strides_set_to_one(removed: int) -> None:
    side = 64 // 2**removed
    ours = randomised(build_mobilenetv3(0.5, Feeding(Way.SKIP), side, base_side=64, classes=7))
    theirs = timms(0.5, ours)
    strided = [x for x in theirs.modules() if isinstance(x, nn.Conv2d) and x.stride == (2, 2)]
    assert len(strided) == 5
    for layer in strided[:removed]:
        layer.stride = (1, 1)
    images = torch.randn(2, 3, side, side)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-3, atol=1e-4)


def test_the_papers_size_and_multiply_adds() -> None:
    plan = plan_mobilenetv3()
    assert (plan.params, plan.madds) == (5_483_032, 216_589_760)
    # The largest tensor, and the largest inputs + outputs, both without the image.
    assert plan.largest_activation(with_input=False) == 802_816
    assert plan.inputs_and_outputs(with_input=False) == 1_003_520


@pytest.mark.parametrize(("width", "side", "base"), SIZES)
@pytest.mark.parametrize("feeding", FEEDINGS, ids=str)
def test_counts_are_those_of_a_trace(feeding: Feeding, width: float, side: int, base: int) -> None:
    if feeding.block > side:
        pytest.skip("no image of that side")
    plan = plan_mobilenetv3(width, feeding, side, base_side=base, classes=11)
    with torch.device("meta"):
        network = MobileNetV3(plan)
    assert plan.params == parameters(network)
    assert plan.madds == count_madds(network, side)
    planned = [(c.outputs, c.side) for c in (plan.stem, *(block.project for block in plan.blocks), plan.head)]
    assert [(channels, height) for channels, height, _ in shapes(network, side)] == planned


@pytest.mark.parametrize(("width", "side", "base"), SIZES)
@pytest.mark.parametrize("feeding", [Feeding(w) for w in Way if w not in (Way.S2D, Way.ZEROS)], ids=str)
def test_activations_are_those_of_a_traced_graph(
    feeding: Feeding, width: float, side: int, base: int
) -> None:
    plan = plan_mobilenetv3(width, feeding, side, base_side=base)
    with torch.device("meta"):
        graph = trace(MobileNetV3(plan), side)
    for with_input in (True, False):
        largest = peak_activations(graph, MemoryModel.LARGEST, with_input=with_input)
        assert plan.largest_activation(with_input=with_input) == largest
        both = peak_activations(graph, MemoryModel.PAPER, with_input=with_input)
        assert plan.inputs_and_outputs(with_input=with_input) == both


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_internal_resolution_is_the_bases_however_the_image_is_fed(side: int) -> None:
    """Upsampled and spread images are the base's; skipping never exceeds the image's side."""
    base = [s.side for s in plan_mobilenetv3(input_side=64, base_side=64).convolutions]
    for way in (Way.UPSAMPLE, Way.ZEROS):
        plan = plan_mobilenetv3(1, Feeding(way), side, base_side=64)
        assert [s.side for s in plan.convolutions] == base
    skip = plan_mobilenetv3(1, Feeding(Way.SKIP), side, base_side=64)
    assert [s.side for s in skip.convolutions] == [min(s, side) for s in base]
    plain = plan_mobilenetv3(1, Feeding(), side, base_side=64)
    assert [s.side for s in plain.convolutions] == [max(s * side // 64, 1) for s in base]


@pytest.mark.parametrize("block", BLOCKS)
def test_space_to_depth_takes_the_place_of_the_first_strides(block: int) -> None:
    base = plan_mobilenetv3(input_side=224)
    fed = plan_mobilenetv3(1, Feeding(Way.S2D, block), 224)
    assert [s.side for s in fed.convolutions] == [min(s.side, 224 // block) for s in base.convolutions]
    assert fed.stem.elements == 16 * (224 // block) ** 2
    assert {2: 200_704, 32: 784}.get(block, fed.stem.elements) == fed.stem.elements


@pytest.mark.parametrize("block", BLOCKS)
def test_the_s2d_layer_is_space_to_depth_and_a_3x3_convolution(block: int) -> None:
    network = build_mobilenetv3(0.5, Feeding(Way.S2D, block), 64, classes=3)
    kernel = network.stem.conv.weight
    outputs = len(kernel)
    # (o, c, 3k, 3k) → taps first: (o, c·k·k, 3, 3), in the channel order of pixel_unshuffle.
    taps = kernel.reshape(outputs, 3, 3, block, 3, block).permute(0, 1, 3, 5, 2, 4)
    images = torch.randn(2, 3, 64, 64)
    expected = functional.conv2d(
        functional.pixel_unshuffle(images, block), taps.reshape(outputs, -1, 3, 3), padding=1
    )
    torch.testing.assert_close(network.stem.conv(images), expected, rtol=1e-4, atol=1e-4)


def same_weights(from_network: MobileNetV3, to_network: MobileNetV3) -> MobileNetV3:
    to_network.load_state_dict(from_network.state_dict())
    return to_network.eval()


def test_upsampling_is_the_base_network_on_an_enlarged_image() -> None:
    base = randomised(build_mobilenetv3(0.5, input_side=64, classes=5))
    fed = same_weights(base, build_mobilenetv3(0.5, Feeding(Way.UPSAMPLE), 32, base_side=64, classes=5))
    images = torch.randn(2, 3, 32, 32)
    enlarged = functional.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(fed(images), base(enlarged))


def test_a_spread_image_under_a_dilated_stem_is_skip_stride() -> None:
    """With f = 2, zeros between pixels and a dilation of 2 at the stem, the same weights agree exactly."""
    skip = randomised(build_mobilenetv3(0.5, Feeding(Way.SKIP), 32, base_side=64, classes=5))
    spread = same_weights(skip, build_mobilenetv3(0.5, Feeding(Way.ZEROS), 32, base_side=64, classes=5))
    images = torch.randn(2, 3, 32, 32)
    undilated = spread(images)
    spread.stem.conv.dilation = spread.stem.conv.padding = (2, 2)
    torch.testing.assert_close(spread(images), skip(images))
    assert not torch.allclose(undilated, skip(images), rtol=1e-3)


def test_an_undilated_stem_reads_one_tap_of_a_spread_image() -> None:
    spread = build_mobilenetv3(0.5, Feeding(Way.ZEROS), 32, base_side=64)
    images = torch.randn(1, 3, 32, 32)
    centre = spread.stem.conv.weight[:, :, 1:2, 1:2]
    torch.testing.assert_close(spread.stem.conv(spread.feed(images)), functional.conv2d(images, centre))


@given(st.integers(1, 4), st.integers(1, 5))
def test_spreading_keeps_every_pixel_and_adds_zeros(factor: int, side: int) -> None:
    images = torch.rand(2, 3, side, side) + 1
    spread = zero_filled(images, factor)
    torch.testing.assert_close(spread[:, :, ::factor, ::factor], images)
    assert spread.shape == (2, 3, factor * side, factor * side)
    assert int(spread.count_nonzero()) == images.numel()


@pytest.mark.parametrize("feeding", FEEDINGS, ids=str)
def test_at_the_base_side_every_way_but_s2d_and_dilation_is_plain(feeding: Feeding) -> None:
    fed, plain = plan_mobilenetv3(1, feeding), plan_mobilenetv3()
    same = feeding.way not in (Way.S2D, Way.DILATED)
    assert (fed.convolutions == plain.convolutions) is same


def test_dilation_replaces_strided_kernels_and_spreads_the_others() -> None:
    plain, dilated = plan_mobilenetv3(), plan_mobilenetv3(1, Feeding(Way.DILATED))
    for before, after in zip(plain.convolutions, dilated.convolutions, strict=True):
        assert (after.side, after.stride, after.outputs) == (before.side, before.stride, before.outputs)
        if before.stride == 2:
            assert (after.kernel, after.dilation) == (5, 1)
        elif before.depthwise:
            assert (after.kernel, after.dilation) == (before.kernel, 2)
    stride_two = [c for c in plain.convolutions if c.stride == 2 and c.kernel == 3]
    grown = sum(16 * c.outputs * (1 if c.depthwise else c.inputs) for c in stride_two)
    assert dilated.params - plain.params == grown


@pytest.mark.parametrize("way", [Way.PLAIN, Way.SKIP, Way.DILATED])
def test_the_fast_depthwise_gradient_changes_no_gradient_of_a_network(way: Way) -> None:
    network = randomised(build_mobilenetv3(0.35, Feeding(way), 32, base_side=64, classes=4))
    images = torch.randn(2, 3, 32, 32)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(network(images).square().sum(), list(network.parameters())))

    before, wanted = network(images), gradients()
    speed_up_depthwise(network)
    torch.testing.assert_close(network(images), before)
    torch.testing.assert_close(gradients(), wanted, rtol=1e-3, atol=1e-4)
    changed = [layer for layer in network.modules() if "forward" in vars(layer)]
    strided_or_large = [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
        and layer.groups > 1
        and (layer.kernel_size[0], layer.stride[0], layer.dilation[0]) != (3, 1, 1)
    ]
    assert changed == strided_or_large != []


@given(st.sampled_from(FEEDINGS))
def test_the_text_of_a_feeding_is_parsed_back(feeding: Feeding) -> None:
    assert parse_feeding(str(feeding)) == feeding


@given(st.one_of(st.text(max_size=8), st.from_regex(r"[a-z]{1,8}[0-9]{0,4}", fullmatch=True)))
def test_any_other_text_is_refused_in_one_sentence(text: str) -> None:
    if text in map(str, FEEDINGS):
        return
    with pytest.raises(FeedingError):
        parse_feeding(text)


@pytest.mark.parametrize(
    ("feeding", "side", "base", "reason"),
    [
        ("upsample", 128, 64, "at most 64"),
        ("zeros", 48, 64, "a divisor of 64"),
        ("skip", 48, 64, "64 divided by"),
        ("skip", 1, 64, "64 divided by"),
        ("s2d32", 48, 64, "a multiple of 32"),
        ("plain", 0, 64, "sides of 1 or more"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(feeding: str, side: int, base: int, reason: str) -> None:
    with pytest.raises(FeedingError, match=reason):
        plan_mobilenetv3(1, parse_feeding(feeding), side, base_side=base)


def test_a_block_without_space_to_depth_is_refused() -> None:
    for way, block in ((Way.PLAIN, 2), (Way.S2D, 1), (Way.S2D, 64)):
        with pytest.raises(FeedingError, match="does not go with"):
            Feeding(way, block)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 2.0), st.floats(0.1, 2.0))
def test_a_wider_network_is_no_smaller(one: float, other: float) -> None:
    narrow, wide = (plan_mobilenetv3(width) for width in sorted((one, other)))
    pairs = zip(narrow.convolutions, wide.convolutions, strict=True)
    assert all(a.outputs <= b.outputs for a, b in pairs)
    outputs = chain(narrow.convolutions, wide.convolutions)
    assert all(c.outputs % 8 == 0 for c in outputs)
    for before, after in pairwise(narrow.convolutions):
        assert after.inputs == before.outputs
