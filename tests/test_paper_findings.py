"""What experiments find, on constructed results, and which images they are given."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from isonas.data.dataset import Dataset, Images
from isonas.data.store import stored
from isonas.data.synthetic import synthetic
from isonas.paper import images as images_module
from isonas.paper.findings import Verdict, agrees, interval, rises
from isonas.paper.images import part_of
from isonas.paper.results import Counts, Results, Training
from isonas.paper.run import plan_of
from isonas.paper.table4 import EXPERIMENT as TABLE4
from isonas.paper.table4 import cell_name
from isonas.paper.table4 import findings as table4_findings
from isonas.training.machine import Machine

CPU = Machine("cpu", "fp32", 1)


def test_the_interval_is_students() -> None:
    values = [0.31, 0.35, 0.36, 0.40]
    found = interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert not math.isfinite(interval([0.3]).half)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.02, 0.03, 0.025], Verdict.SHOWN),
        ([-0.02, -0.03, -0.025], Verdict.CONTRADICTED),
        ([0.05, -0.03, 0.02], Verdict.NOT_SHOWN),
        ([0.3], Verdict.NOT_SHOWN),
    ],
)
def test_a_rise_is_shown_as_far_as_a_t_test_says(differences: list[float], verdict: Verdict) -> None:
    found = rises("it rises", differences)
    assert found.verdict is verdict
    assert str(verdict) in str(found)
    if len(differences) > 1:
        significant = stats.ttest_1samp(differences, 0).pvalue < 0.05
        assert significant == (verdict is not Verdict.NOT_SHOWN)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.001, -0.002, 0.002], Verdict.SHOWN),
        ([0.10, 0.11, 0.105], Verdict.CONTRADICTED),
        ([-0.10, -0.11, -0.105], Verdict.CONTRADICTED),
        ([0.02, -0.04, 0.03], Verdict.NOT_SHOWN),
    ],
)
def test_agreement_is_an_interval_within(differences: list[float], verdict: Verdict) -> None:
    assert agrees("they agree", differences, 0.03).verdict is verdict


def constructed(accuracy: dict[tuple[int, int, int], float]) -> Results:
    """Table 4's small results with a given accuracy by (r, input, seed)."""
    plan = plan_of(TABLE4, "smoke", synthetic(), CPU, 3)
    settings = replace(plan.settings, scale="small")
    rows = tuple(
        Training(
            cell=cell_name(r, side), seed=seed, network="", input_side=side, internal_resolution=r,
            counts=Counts(0, 0, {}), accuracy=top1, accuracy_se=0.0, curve_accuracy=(top1,),
            curve_loss=(1.0,), seconds=0.0,
        )
        for (r, side, seed), top1 in accuracy.items()
    )  # fmt: skip
    return Results(settings, 3, rows)


def surface(by_resolution: dict[int, float], by_input: dict[int, float]) -> dict[tuple[int, int, int], float]:
    return {
        (r, side, seed): 0.3 + rise + gain + 0.001 * seed * (r / 7) + 0.0005 * seed * (side / 14)
        for r, rise in by_resolution.items()
        for side, gain in by_input.items()
        for seed in range(3)
    }


def test_table4s_findings_are_told_from_their_opposites() -> None:
    as_in_the_paper = surface({7: 0, 14: 0.05, 28: 0.08}, {14: 0, 28: 0.1, 56: 0.14})
    found = table4_findings(constructed(as_in_the_paper), "small")
    assert {finding.verdict for finding in found} == {Verdict.SHOWN}
    first = found[0]
    assert first.paper == pytest.approx(np.mean([0.537 - 0.488, 0.682 - 0.621, 0.747 - 0.677]))
    # Paired by hand: the mean over three inputs of r = 14 less r = 7, seed by seed.
    assert first.difference.mean == pytest.approx(np.mean([0.05 + 0.001 * seed for seed in range(3)]))
    opposite = surface({7: 0, 14: -0.05, 28: -0.08}, {14: 0, 28: 0.02, 56: 0.14})
    found = table4_findings(constructed(opposite), "small")
    assert {finding.verdict for finding in found} == {Verdict.CONTRADICTED}
    level = surface({7: 0, 14: -0.001, 28: -0.002}, {14: 0, 28: 0.1, 56: 0.2})
    assert Verdict.SHOWN not in {one.verdict for one in table4_findings(constructed(level), "small")[:2]}


def test_findings_use_whole_seeds_alone() -> None:
    accuracy = surface({7: 0, 14: 0.05, 28: 0.08}, {14: 0, 28: 0.1, 56: 0.14})
    del accuracy[28, 56, 2]
    found = table4_findings(constructed(accuracy), "small")
    assert [finding.difference.seeds for finding in found] == [3, 2, 3, 3, 2, 2]


def test_a_part_is_even_and_scored_images_are_none_of_it() -> None:
    data = synthetic()
    part = part_of(data, 3, 91)
    assert len(part.class_names) == 3
    counts = np.bincount(part.training.labels)
    assert counts.sum() == 91
    assert counts.max() - counts.min() <= 1
    names = np.array(data.class_names)
    kept = {
        pixels.tobytes(): label for pixels, label in zip(data.train.pixels, data.train.labels, strict=True)
    }
    for pixels, label in zip(part.training.pixels, part.training.labels, strict=True):
        assert names[kept[pixels.tobytes()]] == part.class_names[label]
    assert len(part.scored) == 90
    without = part_of(replace(data, held_back=None), None, None)
    trained = {pixels.tobytes() for pixels in without.training.pixels}
    assert without.scored_on == "carved from training"
    assert not trained & {pixels.tobytes() for pixels in without.scored.pixels}
    assert len(trained) + len(without.scored) == len(data.train)


def mapped(folder: Path, data: Dataset) -> Dataset:
    train = stored(folder, "key", "drawing", lambda: iter([(data.train.pixels, data.train.labels)]))
    return replace(data, train=train, held_back=None)


def test_a_large_part_of_a_file_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And holds the images, labels and order that a copy does."""
    data = mapped(tmp_path, synthetic())
    copied = part_of(data, 3, 91)
    assert copied.training.file is None
    monkeypatch.setattr(images_module, "COPIED_BYTES", 0)
    kept = part_of(data, 3, 91)
    for side in (32, 8):
        for found, expected, rows in zip(
            kept.at(side), copied.at(side), (kept.training_rows, kept.scored_rows), strict=True
        ):
            assert found.file is not None
            assert np.shares_memory(found.pixels, data.train.pixels) == (side == 32)
            np.testing.assert_array_equal(found.pixels[rows], expected.pixels)
            np.testing.assert_array_equal(found.labels[rows], expected.labels)


def test_scored_images_of_few_classes_are_labelled_as_trained_ones() -> None:
    data = synthetic()
    part = part_of(data, 3, None)
    assert data.held_back is not None
    last = [data.class_names.index(name) for name in part.class_names[1:]]
    only = np.flatnonzero(np.isin(data.held_back.labels, last))
    held_back = Images(data.held_back.pixels[only], data.held_back.labels[only])
    again = part_of(replace(data, held_back=held_back), 3, None)
    assert again.class_names == part.class_names
    assert set(again.scored.labels[again.scored_rows].tolist()) == {1, 2}


def test_images_are_downsampled_as_wholes() -> None:
    pixels = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    images = Images(np.tile(pixels, (10, 1, 1, 1)), np.tile(np.array([0, 1]), 10))
    data = replace(synthetic(), train=images, held_back=images, class_names=("a", "b"))
    training, scored = part_of(data, None, None).at(2)
    means = images.pixels.reshape(20, 3, 2, 2, 2, 2).mean((3, 5))
    assert np.abs(training.pixels - means).max() <= 0.5
    assert scored.side == 2
    assert part_of(data, None, None).at(64)[0].side == 4
