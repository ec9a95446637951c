"""The experiments: run, resumed and refused."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import filelock
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import isonas.paper.run as paper_run
from isonas.cost import Deployment, MemoryModel, madds, params, peak_activations
from isonas.data.dataset import Dataset
from isonas.data.synthetic import synthetic
from isonas.errors import LogError, MemoryExhausted, RunError
from isonas.genome import parse_genome
from isonas.paper import EXPERIMENTS
from isonas.paper.experiment import Experiment
from isonas.paper.results import Counts, Training, read_results
from isonas.paper.run import Plan, plan_of, trainings
from isonas.paper.table4 import EXPERIMENT as TABLE4
from isonas.paper.table4 import cell_name
from isonas.space import columns_of
from isonas.training import loop
from isonas.training import retrain as full_training
from isonas.training.machine import Machine
from isonas.training.recipes import parse_recipe
from tests.commands import isonas
from tests.counting import count_madds

CPU = Machine("cpu", "fp32", 1)
SMOKE = ["--scale", "smoke", "--data", "synthetic", "--precision", "fp32", "--threads", "1"]
TRAINED = [name for name, entry in EXPERIMENTS.items() if entry.trains]
COUNTED = [name for name in EXPERIMENTS if name not in TRAINED]


def experiment_of(name: str) -> Experiment:
    experiment = importlib.import_module(f"isonas.paper.{name}").EXPERIMENT
    assert isinstance(experiment, Experiment)
    return experiment


def smoke_plan(data: Dataset | None = None, experiment: Experiment = TABLE4, seeds: int = 2) -> Plan:
    return plan_of(experiment, "smoke", data or synthetic(), CPU, seeds)


def timeless(training: Training) -> Training:
    return replace(training, seconds=0.0)


LONG = ("fig2", "fig3", "fig9", "fig10", "table3")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in EXPERIMENTS]
)
def test_every_experiment_runs_and_is_whole(name: str, tmp_path: Path) -> None:
    done = isonas("paper", name, *SMOKE, "--run", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    experiment = experiment_of(name)
    assert experiment.id == name
    assert all(len(row) == len(grid["header"]) for grid in document["tables"] for row in grid["rows"])
    assert json.loads((tmp_path / "report.json").read_text()) == document
    assert ElementTree.parse(tmp_path / "figure.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    if name not in TRAINED:
        assert document["settings"] is None
        assert not (tmp_path / "results.parquet").exists()
        return
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    cells = {cell.name: cell for cell in experiment.cells("smoke")}
    assert [(row["cell"], row["seed"]) for row in rows] == [(one, seed) for seed in (0, 1) for one in cells]
    assert document["findings"]
    for row in rows:
        assert row["accuracy"] == row["curve_accuracy"][-1]
        assert len(row["curve_accuracy"]) == len(row["curve_loss"]) == 2
        p = row["accuracy"]
        assert row["accuracy_se"] == pytest.approx(math.sqrt(p * (1 - p) / 120))
        if row["network"].count("_") == 6 - ("shared" not in row["network"]):
            at, columns = Deployment(row["input_side"], 4), columns_of([parse_genome(row["network"])])
            assert row["params"] == params(columns, at)[0]
            assert row["madds"] == madds(columns, at)[0]
            for model in MemoryModel:
                assert row[f"activations_{model}"] == peak_activations(columns, at, model)[0]


@pytest.mark.parametrize("scale", ["small", pytest.param("full", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TRAINED)
def test_every_cell_is_a_network_for_its_input(name: str, scale: str) -> None:
    experiment = experiment_of(name)
    cells = experiment.cells(scale)
    assert len({cell.name for cell in cells}) == len(cells)
    for place, cell in enumerate(cells):
        if cell.after:
            # It starts from the weights of a cell that is trained before it.
            assert cell.after in {other.name for other in cells[:place]}
            continue
        with torch.device("meta"):
            network = cell.build(10, {})
            seen = network.eval()(torch.empty(1, 3, cell.input_side, cell.input_side))
        assert seen.shape == (1, 10)


def test_full_scale_is_the_papers_networks() -> None:
    cells = {cell.name: cell for cell in TABLE4.cells("full")}
    assert len(cells) == 12
    one = cells[cell_name(14, 224)]
    assert one.network == "isonet_l32_c128_r14_e6_se4_s2d"
    base = next(cell for cell in experiment_of("fig2").cells("full") if cell.name == "base")
    with torch.device("meta"):
        network = base.build(1000, {})
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_483_032
    assert count_madds(network, 224) == 216_589_760


def test_table2_holds_the_fixed_points() -> None:
    document = json.loads(isonas("paper", "table2", "--json", "--run", "x").stdout)
    by_name = {row[0]: row for row in document["tables"][0]["rows"]}
    assert len(by_name) == 3 * 4 * 3
    assert by_name["isonet_l16_c64_r14_e6_se4_s2d"][2:4] == ["4,420,968", "187,688,960"]
    assert by_name["isonet_l32_c64_r7_e6_se4_s2d"][2:4] == ["6,624,104", "99,153,920"]


@pytest.mark.parametrize("name", [*COUNTED, "table4"])
def test_without_matplotlib_all_but_the_figure_is_made(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = SMOKE if name in TRAINED else []
    done = isonas("paper", name, *arguments, "--run", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "no figure was drawn" in done.stderr
    assert "isonas[plot]" in done.stderr
    assert done.stdout.strip()
    assert (tmp_path / "run" / "report.json").exists()
    assert not list((tmp_path / "run").glob("figure*"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    again = isonas("paper", name, *arguments, "--run", tmp_path / "run")
    assert "no figure was drawn" not in again.stderr
    assert again.stdout == done.stdout
    assert (tmp_path / "run" / "figure.svg").exists()


def test_what_is_understood_and_what_is_not_used_is_said(tmp_path: Path) -> None:
    done = isonas("paper", "table2", "--data", "synthetic", "--run", tmp_path / "counts")
    assert "trains nothing; --data is not used" in done.stderr
    typed = ["--micro-batch", "8", "--image-side", "32", "--fit", "crop", "--device", "cpu", "--json"]
    done = isonas("paper", "table2", *typed, "--run", tmp_path / "counts")
    assert "--image-side, --fit, --micro-batch, --device are not used." in done.stderr
    done = isonas("paper", "sharing", *SMOKE, "--seeds", "1", "--run", tmp_path / "trained")
    assert "sharing at the smoke scale: 4 networks from 1 seed, 96 images of 4 classes" in done.stderr


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_interrupted_anywhere_and_resumed_is_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_run, "_SAVED_EVERY_SECONDS", 0.0)
    whole = [timeless(one) for one, _ in trainings(tmp_path / "whole", smoke_plan())]
    real = loop.train

    def stopped_after_one(*arguments: object, **options: object) -> object:
        for epoch in real(*arguments, **options):  # type: ignore[arg-type]
            yield epoch
            raise KeyboardInterrupt

    plan, folder = smoke_plan(), tmp_path / "cut"
    first = next(iter(trainings(folder, plan)))[0]
    assert timeless(first) == whole[0]
    monkeypatch.setattr(paper_run, "train", stopped_after_one)
    with pytest.raises(KeyboardInterrupt):
        list(trainings(folder, plan))
    left = torch.load(folder / "unfinished.pt", weights_only=True)
    assert (left["cell"], left["seed"], len(left["curve"])) == (whole[1].cell, 0, 1)
    epochs: list[int] = []

    def counted(*arguments: object, **options: object) -> object:
        for epoch in real(*arguments, **options):  # type: ignore[arg-type]
            epochs.append(epoch[0].epoch)
            yield epoch

    monkeypatch.setattr(paper_run, "train", counted)
    rest = [timeless(one) for one, _ in trainings(folder, plan)]
    assert [timeless(first), *rest] == whole
    assert epochs[:3] == [2, 1, 2]
    assert not (folder / "unfinished.pt").exists()
    assert list(trainings(folder, plan)) == []


@pytest.mark.slow
def test_killed_by_the_system_it_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "isonas", "paper", "table4", *SMOKE, "--seeds", "40", "--run", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (run / "results.parquet").exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = read_results(run / "results.parquet")
    assert found is not None
    assert 1 <= len(found[1]) < 240
    list(trainings(run, smoke_plan()))
    again = read_results(run / "results.parquet")
    whole = [timeless(one) for one, _ in trainings(tmp_path / "whole", smoke_plan())]
    assert again is not None
    both_seeds = [timeless(one) for one in again[1] if one.seed < 2]
    assert both_seeds == whole


def test_changed_settings_are_refused_by_name(tmp_path: Path) -> None:
    plan = smoke_plan()
    next(iter(trainings(tmp_path, plan)))
    recipe = replace(plan.settings.recipe, epochs=5)
    for settings, names in (
        (replace(plan.settings, recipe=recipe), "recipe.epochs"),
        (replace(plan.settings, precision="bf16", images=95), "images, precision"),
        (replace(plan.settings, cells={**plan.settings.cells, "r2-input2": "another"}), "cells.r2-input2"),
        (replace(plan.settings, data_fingerprint="other"), "data_fingerprint"),
    ):
        with pytest.raises(RunError, match=f"other settings: {names};"):
            list(trainings(tmp_path, replace(plan, settings=settings)))
    moved = replace(plan.settings, data="folder:elsewhere", threads=2)
    assert len(list(trainings(tmp_path, replace(plan, settings=moved)))) == 11


def test_one_writer_a_folder(tmp_path: Path) -> None:
    with filelock.FileLock(tmp_path / "lock"), pytest.raises(LogError, match="another process"):
        list(trainings(tmp_path, smoke_plan()))


def test_a_training_that_fails_is_a_record(tmp_path: Path) -> None:
    cells = experiment_of("sharing").cells("smoke")
    blind = replace(cells[0], build=lambda classes, weights: torch.nn.Identity())
    experiment = replace(experiment_of("sharing"), cells=lambda scale: (blind, *cells[1:]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper_run, "count", lambda network, side: Counts(0, 0, {}))
        found = [one for one, _ in trainings(tmp_path, smoke_plan(experiment=experiment, seeds=1))]
    assert found[0].accuracy is None
    assert found[0].reason is not None
    assert all(one.accuracy is not None for one in found[1:])
    kept = read_results(tmp_path / "results.parquet")
    assert kept is not None
    assert kept[1][0].reason == found[0].reason


@pytest.mark.parametrize("fits", [8, 4])
def test_a_batch_that_memory_does_not_hold_is_cut(
    fits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the last epoch on: the first cell's second epoch runs out, once or twice."""
    real = loop.train
    tried: list[tuple[int, int]] = []

    def tight(*arguments: object, **options: int) -> object:
        pieces, first = options["pieces"], options["from_epoch"]
        tried.append((pieces, first))
        for epoch in real(*arguments, **options):  # type: ignore[arg-type]
            if epoch[0].epoch == 2 and 16 // pieces > fits:
                raise MemoryExhausted("out of memory")
            yield epoch

    monkeypatch.setattr(paper_run, "train", tight)
    one, _ = next(iter(trainings(tmp_path, smoke_plan())))
    assert tried == [(1, 0), (2, 1), (4, 1)][: 16 // fits // 2 + 1]
    assert (one.micro_batch, one.reason, len(one.curve_accuracy)) == (fits, None, 2)
    found = read_results(tmp_path / "results.parquet")
    assert found is not None
    assert found[1] == [one]


def test_a_batch_is_not_cut_below_four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **options: object) -> object:
        raise MemoryExhausted("out of memory")

    monkeypatch.setattr(paper_run, "train", never)
    one, _ = next(iter(trainings(tmp_path, smoke_plan())))
    assert one.accuracy is None
    assert one.reason == "memory does not hold even 4 images at a time (out of memory)"


def test_a_micro_batch_is_kept_to_and_is_a_setting(tmp_path: Path) -> None:
    run = ["--run", tmp_path, "--seeds", "1"]
    done = isonas("paper", "sharing", *SMOKE, *run, "--micro-batch", "8")
    assert done.exit_code == 0, done.output
    found = read_results(tmp_path / "results.parquet")
    assert found is not None
    assert {one.micro_batch for one in found[1]} == {8}
    refused = isonas("paper", "sharing", *SMOKE, *run)
    assert refused.exit_code == 2
    assert "other settings: micro_batch;" in refused.stderr


RECIPE = """
epochs: 2
batch_size: 16
optimizer: rmsproptf
optimizer_options: {momentum: 0.9, alpha: 0.9, eps: 0.001}
rate: 0.016
rate_scaling: linear
decay: exponential
dropout: 0.2
crop_area: 0.5
"""


@pytest.mark.parametrize("name", ["table3", "fig10"])
def test_another_recipe_trains_both_families_and_resumes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the paper's, which is recipes.yaml's `mobilenetv3`: RMSProp, scored on the moving average."""
    recipe = parse_recipe(yaml.safe_load(RECIPE), "test")
    one_cell = experiment_of(name).cells("smoke")[-1:]
    experiment = replace(experiment_of(name), cells=lambda scale: one_cell)
    plan = plan_of(experiment, "smoke", synthetic(), CPU, 1, recipe=recipe, micro_batch=8)
    monkeypatch.setattr(paper_run, "_SAVED_EVERY_SECONDS", 0.0)
    whole = [timeless(one) for one, _ in trainings(tmp_path / "whole", plan)]
    assert [one.micro_batch for one in whole] == [8] * len(whole)
    assert all(one.reason is None and math.isfinite(one.curve_loss[-1]) for one in whole)
    real = full_training.train_in_full

    def cut(*arguments: object, **options: object) -> object:
        for state in real(*arguments, **options):  # type: ignore[arg-type]
            yield state
            raise KeyboardInterrupt

    monkeypatch.setattr(paper_run, "train_in_full", cut)
    with pytest.raises(KeyboardInterrupt):
        list(trainings(tmp_path / "cut", plan))
    monkeypatch.setattr(paper_run, "train_in_full", real)
    assert timeless(next(iter(trainings(tmp_path / "cut", plan)))[0]) == whole[0]
    kept = read_results(tmp_path / "cut" / "results.parquet")
    assert kept is not None
    assert kept[0].recipe == recipe
    with pytest.raises(RunError, match="recipe"):
        list(trainings(tmp_path / "cut", smoke_plan(experiment=experiment, seeds=1)))


def test_the_papers_recipe_is_offered_and_its_batch_is_checked() -> None:
    done = isonas("paper", "table4", *SMOKE, "--recipe", "mobilenetv3")
    assert done.exit_code == 2
    assert "the recipe's batch of 1024 is more than the 96 training images" in done.stderr
    assert not Path("runs").exists()
    assert "mobilenetv3 (the paper's" in isonas("paper", "--help").stdout


def test_what_starts_from_a_failed_training_is_left_out(tmp_path: Path) -> None:
    """fig6's fixed halves start from the weights of the free network of their seed."""
    first, *others = experiment_of("fig6").cells("smoke")
    blind = replace(first, build=lambda classes, weights: torch.nn.Identity())
    experiment = replace(experiment_of("fig6"), cells=lambda scale: (blind, *others))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper_run, "count", lambda network, side: Counts(0, 0, {}))
        found = [one for one, _ in trainings(tmp_path, smoke_plan(experiment=experiment, seeds=1))]
    assert [one.cell for one in found] == [first.name]
    assert found[0].reason is not None


def test_a_torn_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "results.parquet").write_bytes(b"PAR1 and no more")
    done = isonas("paper", "table4", *SMOKE, "--run", tmp_path)
    assert done.exit_code == 1
    assert "holds no results that can be read" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("says", "arguments"),
    [
        ("is unknown; give one of table1", "table9"),
        ("give the images with --data", "table4"),
        ("--data 'nowhere' is unknown", "table4 --data nowhere"),
        ("is not one of", "table4 --scale huge"),
    ],
)
def test_mistakes_get_one_sentence(says: str, arguments: str) -> None:
    done = isonas("paper", *arguments.split())
    assert done.exit_code == 2
    assert says in done.stderr


def test_the_list_is_the_papers() -> None:
    ids = [
        "table1",
        "fig2",
        "fig3",
        "table2",
        "fig6",
        "fig7",
        "fig8",
        "table3",
        "table4",
        "fig9",
        "fig10",
        "sharing",
    ]
    listed = json.loads(isonas("paper", "--json").stdout)
    assert list(listed) == ids
    for name in ids:
        assert listed[name]["trains"] == bool(experiment_of(name).scales)
        sections = listed[name]["sections"].split(", ")
        described = sys.modules[f"isonas.paper.{name}"].__doc__ or ""
        assert all(section in described for section in sections), name
    assert [line.split()[0] for line in isonas("paper").stdout.splitlines()] == ids
