"""Hypothesis strategies for genomes and what they are deployed for."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import strategies as st

from isonas.cost import Deployment
from isonas.genome import Genome, Stem


@dataclass(frozen=True)
class Deployed:
    """A genome and a deployment that fits it."""

    genome: Genome
    at: Deployment


@st.composite
def genomes(draw: st.DrawFn, *, max_depth: int = 40, max_channels: int = 256) -> Genome:
    """Any genome; the SE's squeeze width is whole by construction."""
    channels = draw(st.integers(1, max_channels))
    expansion = draw(st.integers(1, 8))
    hidden = channels * expansion
    divisors = [n for n in (1, 2, 3, 4, 8) if hidden % n == 0]
    ratio = draw(st.sampled_from([Fraction(0), *(Fraction(1, n) for n in divisors)]))
    return Genome(
        depth=draw(st.integers(1, max_depth)),
        channels=channels,
        internal_resolution=draw(st.integers(1, 56)),
        expansion=expansion,
        se_ratio=ratio,
        stem=draw(st.sampled_from(list(Stem))),
        kernel_size=draw(st.sampled_from([1, 3, 5, 7])),
        head_multiple=draw(st.integers(1, 16)),
        head_features=draw(st.sampled_from([0, 1, 10, 320, 1280])),
        shared=draw(st.booleans()),
    )


@st.composite
def deployed(draw: st.DrawFn) -> Deployed:
    """A small genome (fast to build) at an input that is a multiple of its resolution, or below it."""
    genome = draw(genomes(max_depth=4, max_channels=24))
    resolution = genome.internal_resolution
    block = draw(st.integers(1, max(1, 64 // resolution)))
    side = draw(st.one_of(st.just(block * resolution), st.integers(1, resolution)))
    return Deployed(genome, Deployment(side, draw(st.sampled_from([2, 10, 1000]))))
