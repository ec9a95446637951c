"""The proxy beside a plain loop: what is counted, and that both really train."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from isonas.bench.plain import DecodedImages, train_plainly
from isonas.bench.proxy import Leg, ProxySpeed, Round, proxy_speed
from isonas.cli import main
from isonas.cost import Deployment
from isonas.data.synthetic import synthetic
from isonas.errors import TrainingError
from isonas.genome import parse_genome
from isonas.layers import layers
from isonas.training.machine import Machine
from isonas.training.recipe import Recipe

GENOME = "isonet_l1_c8_r4_e2_se4_s2d_m2_h0"
CPU = Machine("cpu", "fp32", 1)


def speed_of(*rounds: Round) -> ProxySpeed:
    return ProxySpeed(
        genome=GENOME,
        side=8,
        data="synthetic",
        machine=Machine("cpu", "bf16", 2),
        batch_size=32,
        plain_batch_size=128,
        epochs=2,
        validation_images=500,
        processor="one",
        flags=(),
        peak_flops={"fp32": 1e6, "bf16": 4e6},
        madds=1000,
        rounds=rounds,
    )


def test_ratios_compare_whole_trials_and_epochs_alone() -> None:
    """By hand: 1,000 images in 20 s against 500 in 50 s; in epochs 1,000 in 10 s against 500 in 40 s."""
    fast, slow = Leg(20.0, 10.0, 1000, 0.5), Leg(50.0, 40.0, 500, 0.6)
    only = Round(fast, slow)
    assert only.ratio == pytest.approx(5.0)
    assert only.epochs_ratio == pytest.approx(8.0)
    twice = speed_of(only, Round(replace(fast, seconds=10.0), slow), Round(fast, replace(slow, seconds=25.0)))
    assert twice.ratio == pytest.approx(5.0)
    # 1,000 MAdds are 2,000 operations forward: three times that in training, once in validation.
    operations = 2000 * (3 * 1000 + 500 * 2)
    assert speed_of(only).peak_share(lambda each: each.proxy, "bf16") == pytest.approx(operations / 10 / 4e6)
    assert speed_of(only).peak_share(lambda each: each.plain, "fp32") == pytest.approx(
        2000 * (3 * 500 + 500 * 2) / 40 / 1e6
    )


@pytest.mark.slow
def test_both_legs_train_the_genome_on_the_same_images() -> None:
    recipe = Recipe(epochs=2, epoch_images=96, batch_size=32)
    found = proxy_speed(parse_genome(GENOME), "synthetic", recipe, 48, CPU, 4096, 0, 1)
    (only,) = found.rounds
    assert only.proxy.images == only.plain.images == 2 * 96
    assert found.side == 16
    for leg in (only.proxy, only.plain):
        assert 0 < leg.epoch_seconds < leg.seconds
        assert 0 <= leg.error < 1
    at = Deployment(found.side, synthetic().classes)
    assert found.madds == sum(layer.madds for layer in layers(parse_genome(GENOME), at))
    assert found.validation_images == len(synthetic().train) // 5


def test_the_plain_loop_learns() -> None:
    recipe = Recipe(epochs=6, epoch_images=None, batch_size=32)
    seconds, images, error = train_plainly(parse_genome(GENOME), synthetic(), 16, recipe, "cpu", 0, 1)
    assert len(seconds) == 6
    assert images == 6 * (len(synthetic().train) * 4 // 5 // 32 * 32)
    assert error < 0.5


def test_decoded_images_are_the_sources() -> None:
    images = synthetic().train
    listed = DecodedImages(images)
    assert len(listed) == len(images)
    for index in (0, 17):
        image, label = listed[index]
        assert np.array_equal(np.asarray(image), images.pixels[index].transpose(1, 2, 0))
        assert label == images.labels[index]


def test_a_leg_that_cannot_train_says_why() -> None:
    wild = replace(Recipe(1, 64), peak_rate=1e30)
    with pytest.raises(TrainingError, match="the loss became"):
        proxy_speed(parse_genome(GENOME), "synthetic", wild, 32, CPU, 4096, 0, 1)


@pytest.mark.slow
def test_the_command_prints_both_and_the_peak() -> None:
    arguments = ["bench", "proxy", GENOME, "--data", "synthetic", "--epochs", "1", "--epoch-images", "64"]
    fixed = ["--precision", "fp32", "--threads", "1", "--plain-batch-size", "32"]
    done = CliRunner().invoke(main, [*arguments, *fixed, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    rounds = document["rounds"]
    assert document["ratio"] == pytest.approx(
        rounds[0]["proxy"]["images_per_second"] / rounds[0]["plain"]["images_per_second"]
    )
    assert set(document["peak_flops"]) == {"fp32"}
    assert torch.tensor(list(document["peak_flops"].values())).isfinite().all()
    refused = CliRunner().invoke(main, ["bench", "proxy", "isonet_l0"])
    assert refused.exit_code == 2
    assert "Traceback" not in refused.output
