"""What the paper's networks cost: closed forms, traced networks and the paper's own laws agree."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from isonas.genome import Genome, parse_genome
from isonas.networks.build import build_network
from isonas.networks.feeding import BLOCKS, Feeding, Way, parse_feeding
from isonas.networks.mobilenetv3 import build_mobilenetv3
from isonas.networks.mobilenetv3_plan import plan_mobilenetv3
from isonas.networks.parallel import Average, Split, build_parallel
from isonas.networks.receptive_field import isometric_fields, mobilenetv3_fields
from isonas.networks.sharing import share_convolutions
from isonas.paper.systems import (
    CLASSES,
    TABLE4_TOP1,
    System,
    family,
    fig2,
    fig3,
    fig9,
    fig10,
    isometric,
    mobilenetv3,
    sharing,
    table1,
    table2,
    table3,
    table4,
)
from tests.counting import count_madds


def built(system: System) -> torch.nn.Module:
    """The network that a system names."""
    with torch.device("meta"):
        if system.network.startswith("isonet"):
            return build_network(parse_genome(system.network), system.input_side, CLASSES)
        _, width, feeding = system.network.split("_")
        return build_mobilenetv3(float(width[1:]), parse_feeding(feeding), system.input_side)


@pytest.mark.parametrize("table", [table2, table3, table4, fig2, fig3], ids=lambda table: table.__name__)
def test_counts_are_those_of_the_network_as_it_runs(table: object) -> None:
    assert callable(table)
    systems: tuple[System, ...] = table()
    assert len({(system.network, system.input_side) for system in systems}) == len(systems)
    # Counting many deep networks takes long: each table's corners and every fifth.
    for system in {*range(0, len(systems), 5), len(systems) - 1}:
        network = built(systems[system])
        assert systems[system].params == sum(parameter.numel() for parameter in network.parameters())
        assert systems[system].madds == count_madds(network, systems[system].input_side)


def test_the_papers_fixed_points() -> None:
    by_name = {system.network: system for system in table2()}
    assert len(by_name) == 36
    small = by_name["isonet_l16_c64_r14_e6_se4_s2d"]
    assert (small.params, small.madds) == (4_420_968, 187_688_960)
    deep = by_name["isonet_l32_c64_r7_e6_se4_s2d"]
    assert (deep.params, deep.madds) == (6_624_104, 99_153_920)
    assert (mobilenetv3().params, mobilenetv3().madds) == (5_483_032, 216_589_760)


def test_section_73s_activations_are_those_of_the_largest_tensor() -> None:
    said = [system for system in fig9() if system.paper]
    assert len(said) == 7
    assert {(system.paper["activations"], system.largest, system.inputs_and_outputs) for system in said} == {
        ("<100K", 75_264, 81_536),
        ("300K", 301_056, 326_144),
        ("800K", 802_816, 1_003_520),
    }


def test_table4_has_the_papers_accuracy_of_each_pair() -> None:
    said = {
        (parse_genome(system.network).internal_resolution, system.input_side): system.paper["top1_percent"]
        for system in table4()
    }
    assert len(said) == 12
    assert (said[7, 14], said[14, 56], said[28, 224]) == ("48.8", "74.7", "80.6")
    # Accuracy rises with input at fixed internal resolution.
    assert all(list(row) == sorted(row) for row in TABLE4_TOP1.values())


def test_table1_activations_are_exact_and_the_rest_near() -> None:
    laws = {"width": (2, 4, 4), "resolution": (4, 1, 4), "depth": (1, 2, 2)}
    for scaling in table1():
        activations, size, madds = laws[scaling.multiplier]
        assert scaling.activations == activations, scaling
        if scaling.multiplier == "resolution":
            # The isometric stem keeps its k: internal resolution grows with the input.
            assert scaling.params == size
        assert scaling.params == pytest.approx(size, rel=0.4), scaling
        assert scaling.madds == pytest.approx(madds, rel=0.1), scaling


def test_table1_is_exact_where_stem_and_fcs_cancel() -> None:
    def difference(one: System, other: System) -> tuple[int, int]:
        return other.params - one.params, other.madds - one.madds

    # Depth: as many parameters and multiply-adds for every block.
    depths = [isometric(family(depth, 14, 1)) for depth in (8, 16, 24)]
    assert difference(depths[0], depths[1]) == difference(depths[1], depths[2])
    # Width: the blocks' weights by m², counted without their norms and biases, which go by m.
    added = {}
    for width in (1, 2, 4):
        added[width] = difference(isometric(family(8, 14, width)), isometric(family(9, 14, width)))
    (p1, m1), (p2, m2), (p4, m4) = added.values()
    assert (p4 - 2 * p2) == 4 * (p2 - 2 * p1)
    assert (m4 - 2 * m2) == 4 * (m2 - 2 * m1)
    # Resolution: what does not pool goes by ρ², so 1, 2 and 4 leave the vectors alone.
    at = [isometric(family(8, 7 * rho, 1), 56 * rho).madds for rho in (1, 2, 4)]
    assert at[2] - at[1] == 4 * (at[1] - at[0])
    mobile = [mobilenetv3(1, None, 64 * rho).madds for rho in (1, 2, 4)]
    assert mobile[2] - mobile[1] == 4 * (mobile[1] - mobile[0])


@pytest.mark.parametrize("resolution", [7, 14, 28, 56])
def test_units_behind_an_s2d_stem_are_aligned_with_blocks_of_pixels(resolution: int) -> None:
    k = 224 // resolution
    stem = isometric_fields(Genome(1, 64, resolution), 224)[0]
    assert [stem.seen(unit, 224) for unit in range(resolution)] == [
        (unit * k, unit * k + k - 1) for unit in range(resolution)
    ]


@pytest.mark.parametrize("block", BLOCKS)
def test_mobilenets_s2d_units_are_aligned_with_three_blocks(block: int) -> None:
    stem = mobilenetv3_fields(plan_mobilenetv3(1, Feeding(Way.S2D, block)))[0]
    for unit in range(1, 224 // block - 1):
        assert stem.seen(unit, 224) == ((unit - 1) * block, (unit + 2) * block - 1)


@pytest.mark.parametrize("features", [0, 1280])
def test_parallel_networks_cost_what_a_trace_says(features: int) -> None:
    genome = Genome(2, 16, 28, head_features=features)
    _, *parallel = fig10(genome, 2)
    for split in Split:
        for system, average in zip(parallel, Average, strict=True):
            with torch.device("meta"):
                network = build_parallel(genome, 224, CLASSES, parts=2, split=split, average=average)
            assert system.params == sum(parameter.numel() for parameter in network.parameters())
            assert system.madds == count_madds(network, 224)
            assert system.network.endswith(average)


@pytest.mark.parametrize("ratio", [Fraction(0), Fraction(1, 4)])
def test_shared_weights_cost_what_a_trace_says(ratio: Fraction) -> None:
    genome = Genome(4, 16, 14, se_ratio=ratio)
    _, per_use, _ = sharing(genome)
    with torch.device("meta"):
        network = build_network(genome, 224, CLASSES)
    share_convolutions(network)
    assert per_use.params == sum(parameter.numel() for parameter in network.parameters())
    assert per_use.madds == count_madds(network, 224)
    assert [system.params for system in sharing()][::2] == [4_420_968, 2_493_768]
