"""The proxy: its input, its loop, its evaluator."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from isonas.data.dataset import Images, split_validation
from isonas.data.synthetic import synthetic
from isonas.errors import TrainingError, UsageError
from isonas.evaluation import trial_seed
from isonas.genome import Genome, Stem, parse_genome, stem_block
from isonas.networks.build import build_network
from isonas.networks.isometric import Pool
from isonas.paper.scales import FULL_RECIPE
from isonas.space import load_space, spaces_folder
from isonas.training import loop, machine
from isonas.training.depthwise import depthwise, speed_up_depthwise
from isonas.training.examples import Examples, on_device
from isonas.training.loop import Checkpoint, validation_errors
from isonas.training.machine import Machine, probe_machine
from isonas.training.pooling import mean_over_space, speed_up_pooling
from isonas.training.proxy import CACHED_BYTES, CACHED_IMAGES, ProxyEvaluator, ProxySetting, pieces_of
from isonas.training.proxy_input import proxy_input
from isonas.training.recipe import Recipe

CPU = Machine("cpu", "fp32", 1)
SMALL = Genome(2, 8, 4, 2, Fraction(1, 4), Stem.S2D, head_multiple=2, head_features=0)
RECIPE = Recipe(epochs=3, epoch_images=192)


@given(st.integers(1, 64), st.integers(1, 300), st.integers(1, 300))
def test_the_proxy_reads_the_largest_multiple_that_is_there(
    resolution: int, source: int, deployment: int
) -> None:
    side = proxy_input(resolution, source, deployment)
    largest = min(source, deployment)
    assert side <= largest
    if resolution > largest:
        assert side == largest
        return
    assert side % resolution == 0
    inflates = [
        multiple
        for multiple in range(resolution, largest + 1, resolution)
        if (deployment // resolution) % (multiple // resolution) == 0
    ]
    greatest = largest - largest % resolution
    near = [multiple for multiple in inflates if multiple >= 0.75 * greatest]
    assert side == (max(near) if near else greatest)
    # What stays the same from the proxy to the deployment is everything but the stem's block.
    assert stem_block(Genome(internal_resolution=resolution), side) >= 1


@pytest.mark.parametrize("path", sorted(spaces_folder().glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("source", [8, 16, 32, 64])
def test_every_shipped_gene_has_a_proxy_on_every_source(path: Any, source: int) -> None:
    space = load_space(path.stem)
    for resolution in space.internal_resolution:
        side = proxy_input(resolution, source, space.input)
        build_network(Genome(1, 32, resolution, 1, Fraction(0), head_features=0), side, 10)


def test_the_designs_examples() -> None:
    assert [proxy_input(r, 64, 224) for r in (7, 14, 28, 16, 128)] == [56, 56, 56, 64, 64]
    assert proxy_input(14, 64, 32) == 28
    assert proxy_input(7, 64, 112) == 56
    assert proxy_input(7, 40, 112) == 28


def test_mcu_proxies_can_all_be_deployed() -> None:
    """What the space's description promises: every stem factor from a 64-pixel source is whole."""
    from isonas.networks.build import inflation_factor

    space = load_space("mcu")
    for resolution in space.internal_resolution:
        genome = Genome(internal_resolution=resolution)
        assert inflation_factor(genome, proxy_input(resolution, 64, space.input), space.input) >= 1


@given(st.integers(1, 50), st.integers(0, 200), st.integers(1, 60), st.integers(0, 3))
def test_epochs_walk_through_shuffled_passes(images: int, start: int, count: int, seed: int) -> None:
    """An epoch is a window of one endless row, in which every pass holds each image once."""
    window = loop._order(images, start, count, seed)
    row = loop._order(images, 0, start + count, seed)
    assert window.tolist() == row[start:].tolist()
    whole = (start + count) // images * images
    assert set(Counter(row[:whole].tolist()).values()) <= {whole // images}


@pytest.mark.parametrize(
    ("batch_size", "peak"),
    [(8, 0.075), (32, 0.3), (64, 0.6), (128, 1.2), (256, 1.2), (512, 1.2), (4096, 1.2)],
)
def test_the_peak_rate_grows_with_the_batch_up_to_what_still_trains(batch_size: int, peak: float) -> None:
    assert Recipe(batch_size=batch_size, peak_rate=0.3).rate(0.25) == pytest.approx(peak)


def test_the_full_scale_of_the_paper_has_its_peak() -> None:
    assert FULL_RECIPE.rate(FULL_RECIPE.warmup) == pytest.approx(0.4)


@given(st.floats(0, 1))
def test_the_rate_rises_to_its_peak_and_falls_to_zero(progress: float) -> None:
    recipe = Recipe(peak_rate=0.3, batch_size=64, warmup=0.25)
    assert 0 <= recipe.rate(progress) <= 0.6
    assert recipe.rate(0.25) == pytest.approx(0.6)
    assert recipe.rate(1) == pytest.approx(0)
    step = 1e-3
    if progress + step <= 0.25:
        assert recipe.rate(progress + step) > recipe.rate(progress)
    elif 0.25 <= progress <= 1 - step:
        assert recipe.rate(progress + step) < recipe.rate(progress)


@given(
    st.sampled_from([3, 5, 7]),
    st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2)]),
    st.integers(0, 3),
    st.integers(7, 10),
)
def test_depthwise_gradients_are_pytorchs(
    kernel_size: int, how: tuple[int, int], short: int, side: int
) -> None:
    (stride, dilation), padding = how, max(how[1] * (kernel_size // 2) - short, 0)
    if side + 2 * padding <= dilation * (kernel_size - 1):
        return
    x = torch.randn(2, 6, side, side, requires_grad=True)
    weight = torch.randn(6, 1, kernel_size, kernel_size, requires_grad=True)
    expected = functional.conv2d(x, weight, None, stride, padding, dilation, groups=6)
    upstream = torch.randn_like(expected)
    found = depthwise(x, weight, (stride,) * 2, (padding,) * 2, (dilation,) * 2)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, (x, weight), upstream)
    torch.testing.assert_close(
        torch.autograd.grad(found, (x, weight), upstream), wanted, rtol=1e-4, atol=1e-4
    )


def test_speeding_up_changes_no_result_and_no_name() -> None:
    network = build_network(replace(SMALL, kernel_size=5), 16, 4)
    before = list(network.state_dict())
    images = torch.randn(4, 3, 16, 16)
    wanted = network(images)
    speed_up_depthwise(network)
    torch.testing.assert_close(network(images), wanted)
    assert list(network.state_dict()) == before
    changed = [layer for layer in network.modules() if "forward" in vars(layer)]
    assert changed == [block.depthwise.conv for block in network.blocks]  # type: ignore[union-attr]


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_pooling_gradients_are_pytorchs(images: int, channels: int, height: int, width: int) -> None:
    x = torch.randn(images, channels, height, width).to(memory_format=torch.channels_last).requires_grad_()
    upstream = torch.randn(images, channels, 1, 1)
    expected = x.mean((2, 3), keepdim=True)
    (wanted,) = torch.autograd.grad(expected, x, upstream)
    found = mean_over_space(x)
    (gradient,) = torch.autograd.grad(found, x, upstream)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, wanted)
    # A view of one number would make everything computed from it contiguous.
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_speeding_up_pooling_changes_no_gradient_and_no_name() -> None:
    network = build_network(SMALL, 16, 4).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = torch.randn(6, 3, 16, 16), torch.arange(6) % 4

    def gradients() -> list[torch.Tensor]:
        loss = functional.cross_entropy(network(images), labels)
        return list(torch.autograd.grad(loss, list(network.parameters())))

    before, wanted = list(network.state_dict()), gradients()
    speed_up_pooling(network)
    torch.testing.assert_close(gradients(), wanted)
    assert list(network.state_dict()) == before
    changed = [layer for layer in network.modules() if "forward" in vars(layer)]
    assert changed == [layer for layer in network.modules() if isinstance(layer, Pool)]
    assert len(changed) == 3


SETTING = ProxySetting(
    data="synthetic",
    cache=Path(),
    recipe=RECIPE,
    machine=CPU,
    input_side=16,
    source_side=16,
    split_seed=3,
)
SEED = 7


def evaluator(**changes: Any) -> ProxyEvaluator:
    return ProxyEvaluator(synthetic(), replace(SETTING, **changes))


def assert_equal_weights(one: Checkpoint, other: Checkpoint) -> None:
    assert one.network.keys() == other.network.keys()
    for name, tensor in one.network.items():
        assert torch.equal(tensor, other.network[name]), name


def test_training_on_from_a_checkpoint_is_training_through() -> None:
    whole, after_whole = evaluator()(SMALL, SEED, 0, 3, None)
    first, state = evaluator()(SMALL, SEED, 0, 1, None)
    second, after_parts = evaluator()(SMALL, SEED, 1, 3, state)
    assert whole == first + second
    assert [result.epoch for result in whole] == [1, 2, 3]
    assert_equal_weights(after_whole, after_parts)


def test_a_genomes_result_does_not_depend_on_what_was_evaluated_before() -> None:
    used = evaluator()
    used(parse_genome("isonet_l1_c8_r8_e2_se0_conv_h0"), SEED, 0, 1, None)
    torch.rand(5)
    curve, state = used(SMALL, SEED, 0, 2, None)
    fresh_curve, fresh_state = evaluator()(SMALL, SEED, 0, 2, None)
    assert curve == fresh_curve
    assert_equal_weights(state, fresh_state)
    other_seed, _ = evaluator()(SMALL, SEED + 1, 0, 2, None)
    other_split, _ = evaluator(split_seed=4)(SMALL, SEED, 0, 2, None)
    assert curve not in (other_seed, other_split)


def test_the_proxy_learns_and_reports_the_error_of_the_weights_it_returns() -> None:
    data = synthetic()
    curve, state = evaluator()(SMALL, SEED, 0, 3, None)
    assert curve[-1].error < 0.25
    assert curve[-1].loss < curve[0].loss
    network = build_network(SMALL, 16, data.classes)
    network.load_state_dict(state.network)
    _, validation = split_validation(data.train, 3)
    held = Images(data.train.pixels[validation], data.train.labels[validation])
    assert validation_errors(network, on_device(held, "cpu"), CPU).error == curve[-1].error
    error = curve[-1].error
    assert curve[-1].error_se == pytest.approx((error * (1 - error) / len(held)) ** 0.5)


def test_the_proxy_shrinks_the_input_and_nothing_else() -> None:
    _, small = evaluator(source_side=8)(SMALL, SEED, 0, 1, None)
    _, large = evaluator()(SMALL, SEED, 0, 1, None)
    differing = {name for name, tensor in small.network.items() if tensor.shape != large.network[name].shape}
    assert differing == {"stem.conv.conv.weight"}


def test_a_loss_that_is_no_number_is_a_reason() -> None:
    wild = evaluator(recipe=replace(RECIPE, peak_rate=1e30))
    with pytest.raises(TrainingError, match="the loss became nan in epoch 1"):
        wild(SMALL, SEED, 0, 3, None)


def test_memory_that_runs_out_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> nn.Module:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory\nmore lines")

    monkeypatch.setattr("isonas.training.proxy.build_network", exhausted)
    with pytest.raises(TrainingError, match=r"even 4 images at a time .*can't allocate memory\)$"):
        evaluator()(SMALL, SEED, 0, 1, None)


def test_a_loss_far_above_chances_is_a_reason() -> None:
    diverging = evaluator(recipe=replace(RECIPE, peak_rate=100.0))
    with pytest.raises(TrainingError, match=r"training diverged: the mean loss of epoch 1 was .* chance"):
        diverging(SMALL, SEED, 0, 3, None)


def test_a_training_that_takes_too_long_is_a_reason() -> None:
    with pytest.raises(TrainingError, match=r"took longer than 0 s, in epoch 1 of 3"):
        evaluator(trial_timeout=0.0)(SMALL, SEED, 0, 3, None)
    # What an earlier rung took counts.
    _, state = evaluator()(SMALL, SEED, 0, 1, None)
    assert state.seconds > 0
    with pytest.raises(TrainingError, match=r"took longer than 1000 s, in epoch 2 of 3"):
        evaluator(trial_timeout=1000.0)(SMALL, SEED, 1, 3, replace(state, seconds=1001.0))
    curve, _ = evaluator(trial_timeout=1000.0)(SMALL, SEED, 0, 3, None)
    assert curve == evaluator()(SMALL, SEED, 0, 3, None)[0]


@given(st.integers(2, 40), st.integers(1, 8), st.sampled_from([0.0, 0.1]))
@settings(deadline=None)
def test_gradients_of_pieces_add_up_to_the_batchs(size: int, pieces: int, smoothing: float) -> None:
    """Without batch norm the loop's step is the same for any number of pieces."""
    torch.manual_seed(size)
    pixels = torch.randint(0, 256, (size, 3, 4, 4), dtype=torch.uint8)
    examples = Examples(pixels, torch.arange(size) % 5)
    recipe = Recipe(epochs=1, epoch_images=None, batch_size=size, label_smoothing=smoothing)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    results = []
    for count in (1, pieces):
        network = copy.deepcopy(plain)
        ((result, after),) = loop.train(
            network, examples, examples, recipe, CPU, classes=5, mirror=False, seed=3, pieces=count
        )
        results.append((result.loss, after.network))
    (loss, weights), (other_loss, other_weights) = results
    assert other_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(weights, other_weights, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 8), st.sampled_from([32, 64, 128]), st.integers(1, 56), st.integers(2, 1024))
def test_pieces_fit_the_cache_but_not_below_what_batch_norm_needs(
    expansion: int, channels: int, resolution: int, batch: int
) -> None:
    genome = Genome(
        channels=channels, internal_resolution=resolution, expansion=expansion, se_ratio=Fraction(0)
    )
    pieces = pieces_of(genome, batch, "cpu")
    per_image = 2 * expansion * channels * resolution**2
    smallest = batch // pieces
    assert smallest >= min(batch, CACHED_IMAGES)
    largest = -(-batch // pieces)
    assert largest * per_image <= CACHED_BYTES + per_image or smallest < 2 * CACHED_IMAGES
    # No more pieces than that asks for.
    if pieces > 1:
        assert -(-batch // (pieces - 1)) * per_image > CACHED_BYTES
    assert pieces_of(genome, batch, "cuda") == 1


def test_memory_that_runs_out_is_met_with_smaller_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that a network may be given at once are limited: it is trained as with that micro-batch."""
    given_at_once: list[int] = []
    room = 16

    def limited(genome: Genome, side: int, classes: int) -> nn.Module:
        network = build_network(genome, side, classes)

        def forbid(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            given_at_once.append(len(inputs[0]))
            if len(inputs[0]) > room:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

        network.register_forward_pre_hook(forbid)
        return network

    monkeypatch.setattr("isonas.training.proxy.build_network", limited)
    curve, state = evaluator()(SMALL, SEED, 0, 2, None)
    assert given_at_once[0] == 32
    assert max(given_at_once[1:]) == 16
    assert [result.micro_batch for result in curve] == [16, 16]
    on, after = evaluator()(SMALL, SEED, 2, 3, state)
    whole, after_whole = evaluator()(SMALL, SEED, 0, 3, None)
    assert whole == curve + on
    assert_equal_weights(after, after_whole)
    monkeypatch.setattr("isonas.training.proxy.pieces_of", lambda *_: 2)
    assert evaluator()(SMALL, SEED, 0, 3, None)[0] == whole
    room = 3
    with pytest.raises(TrainingError, match=r"does not hold even 4 images at a time .*can't allocate memory"):
        evaluator()(SMALL, SEED, 0, 3, None)


_STARVED = """
import resource, sys
from pathlib import Path
import torch
from isonas.data.synthetic import synthetic
from isonas.genome import parse_genome
from isonas.training.machine import Machine
from isonas.training.proxy import ProxyEvaluator, ProxySetting
from isonas.training.recipe import Recipe

genome = parse_genome("isonet_l4_c64_r32_e6_se0_s2d_h0")
setting = ProxySetting("synthetic", Path(), Recipe(1, 64, 64), Machine("cpu", "fp32", 1), 32, 32, 0)
train = ProxyEvaluator(synthetic(), setting)
train(parse_genome("isonet_l1_c8_r4_e1_se0_s2d_h0"), 0, 0, 1, None)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
curve, _ = train(genome, 0, 0, 1, None)
print(curve[0].micro_batch)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited on Linux alone")
def test_a_process_that_really_runs_out_of_memory_goes_on_with_smaller_pieces() -> None:
    """A hidden tensor of 32 images is 48 MiB here and each block keeps several of them."""

    def micro_batch(mebibytes: int) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", _STARVED, str(mebibytes)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    assert micro_batch(20_000) == "32"
    assert int(micro_batch(700)) in (8, 16)
    assert "memory does not hold even 4 images at a time" in micro_batch(60)


def test_trial_seeds_differ_by_study_and_genome() -> None:
    genomes = [Genome(depth=depth) for depth in range(1, 50)]
    seeds = {
        trial_seed(study, genome, repeat) for study in range(5) for genome in genomes for repeat in range(3)
    }
    assert len(seeds) == 15 * len(genomes)


def test_validation_error_counts_wrong_answers() -> None:
    class Parrot(nn.Module):
        """Answers with the label written into the first pixel."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            level = torch.round((x[:, 0, 0, 0] * 0.229 + 0.485) * 255).long()
            return functional.one_hot(level, 10).float()

    pixels = torch.zeros(600, 3, 4, 4, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(600) % 10
    labels = torch.arange(600) % 10
    labels[:150] = (labels[:150] + 1) % 10
    assert validation_errors(Parrot(), Examples(pixels, labels), CPU).error == 0.25


def test_the_machine_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    found = probe_machine("cpu", 1)
    assert (found.device, found.threads) == ("cpu", 1)
    assert torch.get_num_threads() == threads
    for pays, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(machine, "_bf16_pays", lambda pays=pays: pays)
        assert probe_machine("cpu", 1).precision == precision
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no CUDA device is usable"):
        probe_machine("cuda")


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(["bf16", "fp32"]), st.sampled_from([3, 5]))
def test_both_precisions_train(precision: str, kernel_size: int) -> None:
    genome = replace(SMALL, kernel_size=kernel_size)
    train = evaluator(machine=Machine("cpu", precision, 1))
    curve, state = train(genome, SEED, 0, 3, None)
    assert curve[-1].error < 0.5
    assert all(np.isfinite(array).all() for array in state.weights().values())


def in_shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return (
        {path.name for path in folder.iterdir() if path.name.startswith("torch_")}
        if folder.is_dir()
        else set()
    )


def checkpoint() -> Checkpoint:
    weights = torch.arange(40_000, dtype=torch.float32).reshape(4, 100, 10, 10)
    state = {0: {"momentum_buffer": -weights}, 1: {"momentum_buffer": None}}
    groups = [{"lr": 0.1, "params": [0, 1], "nesterov": True}]
    return Checkpoint(
        {"weight": weights, "count": torch.tensor(3)}, {"state": state, "param_groups": groups}, 2.5
    )


def assert_alike(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_alike(found[key], value)
    else:
        assert found == expected


def test_weights_travel_as_bytes() -> None:
    """A container's /dev/shm holds 64 MB: nothing of a training state goes there, on either way."""
    given, before = checkpoint(), in_shared_memory()
    sent = bytes(ForkingPickler.dumps(given))
    assert in_shared_memory() <= before
    assert len(sent) > 2 * 160_000
    # Through a buffer that may not be written to, as of Ray's store, too.
    buffers: list[pickle.PickleBuffer] = []
    beside = pickle.dumps(given, protocol=5, buffer_callback=buffers.append)
    read_only = pickle.loads(beside, buffers=[bytes(buffer.raw()) for buffer in buffers])
    for found in (pickle.loads(sent), read_only):
        for part in ("network", "optimizer", "seconds"):
            assert_alike(getattr(found, part), getattr(given, part))
        assert not any(tensor.is_shared() for tensor in found.network.values())
        found.network["weight"] += 1
    assert given.network["weight"][0, 0, 0, 0] == 0
