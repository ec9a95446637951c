"""Generated C: the integer reference bit for bit, in exactly the promised memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional

from isonas import cost
from isonas.cost import Deployment
from isonas.data.augment import normalise
from isonas.errors import ExportError
from isonas.export import reference
from isonas.export.c import c_source
from isonas.export.measure import CORES, on_core, on_host, tools_for_cores
from isonas.export.quantise import ROW_STEPS
from isonas.export.schedule import schedule
from isonas.genome import Genome, parse_genome
from isonas.space import columns_of, load_space
from tests.integers import CLASSES, integers_of, lively_network, smooth_images
from tests.strategies import Deployed, deployed

KINDS = [
    # stem, block size, SE, kernel, head and odd sizes, each at least once
    ("isonet_l2_c16_r8_e3_se4_s2d", 32, 3),
    ("isonet_l2_c16_r8_e3_se4_conv_k5_m4_h0", 32, 3),
    ("isonet_l3_c16_r7_e2_se0_resize_m4", 28, 3),
    ("isonet_l2_c16_r8_e3_se4_conv_h0", 8, 1),
    ("isonet_l2_c16_r8_e3_se4_s2d_h0", 5, 3),
    ("isonet_l2_c16_r9_e3_se0_conv_h0", 5, 3),
    ("isonet_l3_c16_r8_e3_se4_s2d_h0_shared", 16, 1),
    ("isonet_l1_c8_r1_e1_se0_conv_k5_h10", 4, 3),
    ("isonet_l2_c8_r3_e2_se8_resize_k7_h6", 12, 1),
    ("isonet_l1_c8_r5_e2_se8_conv_k1_h0", 15, 3),
]


def written(text: str, side: int, planes: int, folder: Path) -> Path:
    network = integers_of(lively_network(text, side), text, side, planes)
    images = smooth_images(4, side, 9)[:, :planes]
    images[0], images[1] = 0, 255
    source = c_source(network, images, "net")
    for name, content in (("net.c", source.source), ("net.h", source.header), ("net_test.c", source.test)):
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(("text", "side", "planes"), KINDS)
def test_c_is_the_reference_bit_for_bit_in_the_promised_bytes(
    text: str, side: int, planes: int, tmp_path: Path
) -> None:
    network = integers_of(lively_network(text, side), text, side, planes)
    source = c_source(network, smooth_images(1, side, 9)[:, :planes], "net")
    measured = on_host(written(text, side, planes, tmp_path), "net")
    assert measured.differing == 0
    # The arena and the counter of strips; the host may align them.
    counter = 4
    assert 0 <= measured.static_bytes - source.arena_bytes - counter < 32
    closed = cost.streamed_bytes(columns_of([parse_genome(text)]), Deployment(side, CLASSES), planes=planes)
    assert source.arena_bytes == int(closed[0])


@given(deployed())
@settings(max_examples=150, deadline=None)
def test_closed_form_and_schedule_agree(drawn: Deployed) -> None:
    genome = drawn.genome
    if genome.channels % 8:
        with pytest.raises(ExportError, match="multiple of 8"):
            schedule(genome, drawn.at.input)
        return
    for planes in (1, 3):
        closed = cost.streamed_bytes(columns_of([genome]), drawn.at, planes=planes)
        assert schedule(genome, drawn.at.input, planes).arena_bytes == int(closed[0])


@pytest.mark.parametrize("name", ["quick", "mcu"])
def test_every_genome_of_a_space_has_its_schedule(name: str) -> None:
    space = load_space(name)
    columns = space.columns
    closed = cost.streamed_bytes(columns, Deployment(space.input, 10))
    chosen = np.random.default_rng(0).choice(len(columns), 800)
    for index in chosen:
        assert schedule(columns.genome(int(index)), space.input).arena_bytes == closed[index]


def test_the_papers_network_takes_its_stream_and_its_ring() -> None:
    # D = 196 positions of 64 bytes, and a ring of 2·14 + 5 = 33 positions of 384 with 9 vectors of 384.
    genome = parse_genome("isonet_l16_c64_r14_e6_se4_s2d")
    arena = int(cost.streamed_bytes(columns_of([genome]), Deployment(224, 1000))[0])
    assert arena == 196 * 64 + 33 * 384 + 9 * 384


def test_nothing_overlaps_that_is_alive_at_once() -> None:
    for text, side, planes in KINDS:
        plan = schedule(parse_genome(text), side, planes)
        for phase in plan.phases:
            places = sorted((plan.stream, *phase.buffers), key=lambda buffer: buffer.offset)
            for before, after in itertools.pairwise(places):
                assert before.end <= after.offset, (text, phase.name)


@pytest.mark.parametrize(("text", "side"), [(text, side) for text, side, planes in KINDS if planes == 3])
def test_integers_say_what_the_network_says(text: str, side: int) -> None:
    network = lively_network(text, side)
    integers = integers_of(network, text, side)
    images = smooth_images(32, side, 9)
    given = reference.logits(integers, images) * integers.logit_step
    with torch.no_grad():
        wanted = network(normalise(torch.from_numpy(images))).numpy()
    cosine = (given * wanted).sum(1) / np.linalg.norm(given, axis=1) / np.linalg.norm(wanted, axis=1)
    # One channel at r = 1 has little to average over; its worst image decides the lower bound.
    assert cosine.min() > 0.9
    assert cosine.mean() > 0.995


@pytest.mark.parametrize(("side", "resolution"), [(5, 8), (5, 9), (1, 2), (7, 31), (12, 4), (9, 9), (32, 1)])
def test_rows_are_pytorchs_within_half_a_step(side: int, resolution: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 3, side, side)).astype(np.uint8)
    size = (resolution, resolution)
    wide = torch.from_numpy(pixels).double()
    wanted = (
        functional.interpolate(wide, size=size, mode="bilinear", align_corners=False)
        if resolution > side
        else functional.avg_pool2d(wide, side // resolution)
    )
    off = np.abs(reference.rows_of(pixels, resolution) / ROW_STEPS - wanted.numpy())
    assert off.max() <= 0.5 / ROW_STEPS + 1e-3


def test_shared_weights_are_stored_once() -> None:
    def flash(depth: int, shared: str) -> int:
        text = f"isonet_l{depth}_c16_r8_e3_se0_s2d_h0{shared}"
        integers = integers_of(lively_network(text, 16), text, 16)
        return c_source(integers, smooth_images(1, 16, 9), "net").flash_bytes

    genome = Genome(channels=16, expansion=3)
    weights = 2 * genome.hidden * 16 + 9 * genome.hidden
    # Each use has biases and multipliers of its own, and two tables.
    use = 8 * (2 * genome.hidden + 16) + 2 * 256
    assert flash(4, "") - flash(3, "") == weights + use
    assert flash(4, "_shared") - flash(3, "_shared") == use


@pytest.mark.skipif(not tools_for_cores(), reason="no arm-none-eabi-gcc or qemu-system-arm")
@pytest.mark.parametrize("cpu", CORES)
def test_emulated_cores_give_the_same_bits(cpu: str, tmp_path: Path) -> None:
    text, side = "isonet_l2_c16_r7_e3_se4_conv_m4_h0", 28
    arena = schedule(parse_genome(text), side).arena_bytes
    measured = on_core(written(text, side, 3, tmp_path), "net", CORES[cpu], 64 * 1024)
    assert measured.differing == 0
    assert measured.static_bytes == arena + 4
    assert measured.stack_bytes is not None
    assert measured.stack_bytes < 1024
