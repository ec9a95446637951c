"""The network computes what the paper draws; timm's own layers with copied weights say the same."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import isonas.networks.timm  # noqa: F401  (first, so that timm imports beside any torchvision)
from isonas.errors import GenomeError
from isonas.genome import Genome, Stem
from isonas.networks.build import build_network, inflate_stem, inflation_factor
from isonas.networks.isometric import Block, IsometricNet, SqueezeExcite


def randomised(network: nn.Module) -> nn.Module:
    """Every parameter and statistic away from its initial value."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.1 * ("var" in name) - 0.1)
    return network.eval()


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("squeeze", [0, 12])
def test_a_block_is_timms_with_copied_weights(kernel_size: int, squeeze: int) -> None:
    from timm.models._efficientnet_blocks import InvertedResidual
    from timm.models._efficientnet_blocks import SqueezeExcite as TimmSqueezeExcite

    ours = randomised(Block(16, 48, squeeze, kernel_size))
    assert isinstance(ours, Block)

    def se_layer(channels: int, **_: object) -> nn.Module:
        return TimmSqueezeExcite(channels, rd_channels=squeeze, act_layer=nn.ReLU, gate_layer=nn.Hardsigmoid)

    theirs = InvertedResidual(
        16,
        16,
        dw_kernel_size=kernel_size,
        pad_type="",
        exp_ratio=3.0,
        act_layer=nn.Hardswish,
        se_layer=se_layer if squeeze else None,  # type: ignore[arg-type]
    ).eval()
    names = {"conv_pw": "expand.conv", "bn1": "expand.norm", "conv_dw": "depthwise.conv",
             "bn2": "depthwise.norm", "conv_pwl": "project.conv", "bn3": "project.norm",
             "se.conv_reduce": "se.reduce", "se.conv_expand": "se.expand"}  # fmt: skip
    weights = {}
    for name, tensor in theirs.state_dict().items():
        module, _, leaf = name.rpartition(".")
        weights[name] = ours.state_dict()[f"{names[module]}.{leaf}"]
        assert tensor.shape == weights[name].shape
    assert len(weights) == len(ours.state_dict())
    theirs.load_state_dict(weights)
    images = torch.randn(2, 16, 9, 9)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize(("stem", "kernel"), [("s2d", 1), ("conv", 3)])
def test_stems_are_space_to_depth_and_a_convolution(stem: str, kernel: int) -> None:
    """A k×k (3k×3k) stride-k convolution is space-to-depth(k) and a 1×1 (3×3) one."""
    block, channels, resolution = 4, 8, 7
    genome = Genome(1, channels, resolution, 1, Fraction(0), Stem(stem))
    network = build_network(genome, block * resolution, 10)
    weight = network.stem.conv.conv.weight
    images = torch.randn(2, 3, block * resolution, block * resolution)
    patches = functional.pixel_unshuffle(images, block)
    # pixel_unshuffle orders channels (colour, row, column); so does the kernel once it is cut in k×k.
    cut = weight.reshape(channels, 3, kernel, block, kernel, block).permute(0, 1, 3, 5, 2, 4)
    small = cut.reshape(channels, 3 * block * block, kernel, kernel)
    expected = functional.conv2d(patches, small, padding=kernel // 2)
    torch.testing.assert_close(network.stem.conv.conv(images), expected, rtol=1e-4, atol=1e-4)


def test_the_resize_stem_pools_then_convolves() -> None:
    network = build_network(Genome(1, 8, 7, 1, Fraction(0), Stem.RESIZE), 28, 10).eval()
    images = torch.randn(2, 3, 28, 28)
    weight = network.stem.conv.conv.weight
    expected = functional.conv2d(functional.avg_pool2d(images, 4), weight, padding=1)
    found = network.stem(images)
    torch.testing.assert_close(found, functional.hardswish(network.stem.conv.norm(expected)))


def test_a_smaller_image_is_upsampled_bilinearly() -> None:
    network = build_network(Genome(1, 8, 14, 1, Fraction(0)), 10, 10).eval()
    at_resolution = build_network(Genome(1, 8, 14, 1, Fraction(0)), 14, 10).eval()
    at_resolution.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 10, 10)
    large = functional.interpolate(images, size=(14, 14), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(images), at_resolution(large))


def test_a_shared_block_is_used_depth_times() -> None:
    genome = Genome(3, 8, 7, 2, Fraction(1, 4), shared=True)
    network = randomised(build_network(genome, 14, 10))
    assert isinstance(network, IsometricNet)
    calls: list[nn.Module] = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, *_: calls.append(module))
    network(torch.randn(1, 3, 14, 14))
    assert len(network.blocks) == 1
    assert calls == [network.blocks[0]] * 3


@pytest.mark.parametrize("stem", list(Stem))
@settings(max_examples=15, deadline=None)
@given(
    resolution=st.sampled_from([2, 4, 7]),
    block=st.integers(1, 3),
    factor=st.integers(1, 4),
    seed=st.integers(0, 100),
)
def test_inflated_stems_see_the_box_averaged_image(
    stem: Stem, resolution: int, block: int, factor: int, seed: int
) -> None:
    genome = Genome(1, 4, resolution, 2, Fraction(1, 4), stem, head_features=8)
    small_side, large_side = block * resolution, block * factor * resolution
    small = randomised(build_network(genome, small_side, 5))
    large = build_network(genome, large_side, 5).eval()
    large.load_state_dict(inflate_stem(small.state_dict(), genome, small_side, large_side))
    images = torch.randn(2, 3, large_side, large_side, generator=torch.Generator().manual_seed(seed))
    averaged = functional.avg_pool2d(images, factor)
    torch.testing.assert_close(large(images), small(averaged), rtol=1e-4, atol=1e-4)


def test_a_broken_factor_is_refused() -> None:
    genome = Genome(internal_resolution=16)
    assert inflation_factor(genome, 32, 64) == 2
    with pytest.raises(GenomeError, match=r"from 4 .* to 7 .* no whole factor"):
        inflation_factor(genome, 64, 112)


def test_what_does_not_fit_the_input_is_refused() -> None:
    with pytest.raises(GenomeError, match="does not divide input 64"):
        build_network(Genome(internal_resolution=14), 64, 10)


def test_a_fresh_classifier() -> None:
    network = build_network(Genome(1, 8, 7, 1, Fraction(0), head_features=0), 14, 10)
    network.reset_classifier(3)
    images = torch.randn(2, 3, 14, 14)
    assert network(images).shape == (2, 3)
    features = network.forward_head(network.forward_features(images), pre_logits=True)
    torch.testing.assert_close(network.classifier(features), network(images), rtol=1e-3, atol=1e-3)


def test_timm_creates_the_network_of_a_genome() -> None:
    import timm

    genome = Genome(2, 16, 7, 3)
    torch.manual_seed(0)
    theirs = timm.create_model("isonet", genome=str(genome), img_size=28, num_classes=9)
    torch.manual_seed(0)
    ours = build_network(genome, 28, 9)
    config = theirs.pretrained_cfg
    assert isinstance(config, dict)
    assert config["input_size"] == (3, 28, 28)
    images = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(theirs.eval()(images), ours.eval()(images))
    features = timm.create_model("isonet", genome=str(genome), img_size=28, num_classes=0)
    assert features(images).shape == (2, genome.head_features)
    features.reset_classifier(5, "avg")  # type: ignore[operator]
    assert features(images).shape == (2, 5)
    with pytest.raises(ValueError, match="in_chans"):
        timm.create_model("isonet", genome=str(genome), img_size=28, in_chans=1)


def test_timm_is_importable_beside_a_torchvision_whose_operators_do_not_load(tmp_path: Path) -> None:
    """A torchvision that fails as a mismatched build does, and a timm that needs it."""
    for package, source in {
        "torchvision": "import torch\n@torch.library.register_fake('torchvision::nms')\ndef nms(*_): ...\n",
        "timm": "import torchvision\n",
    }.items():
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(source, encoding="utf-8")
    stub = "def register_model(entry): return entry\n"
    (tmp_path / "timm" / "models.py").write_text(stub, encoding="utf-8")

    def python(code: str) -> subprocess.CompletedProcess[str]:
        script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert "torchvision::nms does not exist" in python("import timm.models").stderr
    done = python("import isonas.networks.timm, timm; print(timm.__file__)")
    assert str(tmp_path) in done.stdout, done.stderr


def test_squeeze_excite_by_hand() -> None:
    gate = randomised(SqueezeExcite(6, 3))
    assert isinstance(gate, SqueezeExcite)
    x = torch.randn(2, 6, 4, 4)
    means = x.mean((2, 3))
    weights = gate.state_dict()
    hidden = (means @ weights["reduce.weight"][:, :, 0, 0].T + weights["reduce.bias"]).clamp(min=0)
    logits = hidden @ weights["expand.weight"][:, :, 0, 0].T + weights["expand.bias"]
    scale: Tensor = ((logits + 3).clamp(0, 6) / 6)[:, :, None, None]
    torch.testing.assert_close(gate(x), x * scale)
