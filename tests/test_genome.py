"""A genome is a value with one canonical text."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isonas.errors import GenomeError
from isonas.genome import Genome, Stem, canonical, parse_genome, parse_se_ratio, stem_block
from tests.strategies import genomes


@given(genomes())
def test_text_is_parsed_back_exactly(genome: Genome) -> None:
    assert parse_genome(str(genome)) == genome
    assert hash(parse_genome(str(genome))) == hash(genome)


@given(genomes(), genomes())
def test_different_genomes_have_different_texts(one: Genome, other: Genome) -> None:
    assert (str(one) == str(other)) == (one == other)


def test_defaults_are_not_written() -> None:
    assert str(Genome()) == "isonet_l16_c64_r14_e6_se4_s2d"
    every = Genome(2, 32, 7, 3, Fraction(0), Stem.RESIZE, 5, 8, 0, True)
    assert str(every) == "isonet_l2_c32_r7_e3_se0_resize_k5_m8_h0_shared"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a genome"),
        ("mobilenet", "is not a genome"),
        ("isonet_l16_c64_r14_e6_se4", "is not a genome"),
        ("isonet_l16_c64_r14_e6_se4_s2d_", "is not a genome"),
        ("isonet_l16_c64_r14_e6_se4_s2d\n", "is not a genome"),
        ("isonet_l16_c64_r14_e6_se4_s2d_m8_k5", "is not a genome"),
        ("isonet_l١٦_c64_r14_e6_se4_s2d", "is not a genome"),
        ("isonet_l16_c64_r14_e6_se4_dilated", "choose one of s2d, conv, resize"),
        ("isonet_l016_c64_r14_e6_se4_s2d", "write isonet_l16_c64_r14_e6_se4_s2d"),
        ("isonet_l16_c64_r14_e6_se4_s2d_k3", "write isonet_l16_c64_r14_e6_se4_s2d"),
        ("isonet_l0_c64_r14_e6_se4_s2d", "depth is 0; give a whole number from 1 to 1000"),
        ("isonet_l16_c64_r14_e6_se5_s2d", "is not whole"),
        ("isonet_l16_c64_r14_e6_se4_s2d_k4", "kernel_size is 4; give an odd number"),
        (f"isonet_l{'9' * 5000}_c64_r14_e6_se4_s2d", "give a whole number"),
    ],
)
def test_what_is_no_genome_is_refused(text: str, says: str) -> None:
    with pytest.raises(GenomeError, match=says):
        parse_genome(text)


@given(st.text(alphabet="isonet_lcrehmk0123456789s2dconvresizeshared", max_size=60))
def test_any_text_is_a_genome_or_a_sentence(text: str) -> None:
    with contextlib.suppress(GenomeError):
        assert str(parse_genome(text)) == text


@pytest.mark.parametrize(
    ("value", "ratio"),
    [
        (0, Fraction(0)),
        (0.25, Fraction(1, 4)),
        (1 / 3, Fraction(1, 3)),
        ("1/8", Fraction(1, 8)),
        (1, Fraction(1)),
    ],
)
def test_se_ratios_are_read(value: object, ratio: Fraction) -> None:
    assert parse_se_ratio(value) == ratio


@pytest.mark.parametrize(
    "value", [0.3, "2/3", -0.25, "1/0", "x", True, None, float("nan"), float("inf"), 2, 0.0001, 1e-9]
)
def test_other_se_ratios_are_refused(value: object) -> None:
    with pytest.raises(GenomeError, match="give 0 or 1/n"):
        parse_se_ratio(value)


def test_stem_blocks() -> None:
    genome = Genome(internal_resolution=14)
    assert [stem_block(genome, side) for side in (224, 56, 14, 13, 1)] == [16, 4, 1, 1, 1]
    with pytest.raises(GenomeError, match="14 does not divide input 64"):
        stem_block(genome, 64)


def test_equal_networks_have_equal_canonical_genomes() -> None:
    resized = Genome(stem=Stem.RESIZE, internal_resolution=14)
    assert canonical(resized, 14) == canonical(replace(resized, stem=Stem.CONV), 14)
    assert canonical(resized, 28) == resized
    shared = Genome(depth=1, shared=True)
    assert canonical(shared, 28) == replace(shared, shared=False)
    assert canonical(replace(shared, depth=2), 28) == replace(shared, depth=2)
