"""What another training version began is read, and never gone on with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isonas.bench.record import record
from isonas.bench.table import read_table
from isonas.cli.retrain_inputs import Job, _check_split
from isonas.data.preprocessing import Fit
from isonas.data.synthetic import synthetic
from isonas.errors import RunError
from isonas.genome import parse_genome
from isonas.paper import run as paper_run
from isonas.paper.experiment import Report
from isonas.paper.outcome import remarks
from isonas.paper.results import Counts, Training, read_results, write_results
from isonas.paper.run import results_of, trainings
from isonas.search.inputs import read_run
from isonas.training.retrain_folder import read_retraining
from isonas.training.version import TRAINING_VERSION
from tests.commands import isonas
from tests.studies import INPUTS
from tests.tables import TABLE_INPUTS, some_genomes, write
from tests.test_paper import smoke_plan
from tests.test_retrain import asked

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "runs" / "sample"
SAYS = f"was begun with training version 1, this isonas trains by version {TRAINING_VERSION}; "
OLDER = TRAINING_VERSION - 1


def refused(*arguments: object) -> None:
    result = isonas(*arguments)
    assert result.exit_code == 2, result.output
    assert SAYS in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A finished run of the first training version, to write to."""
    shutil.copytree(SAMPLE, tmp_path / "old")
    return tmp_path / "old"


def test_a_run_that_names_none_is_of_the_first() -> None:
    assert read_run(SAMPLE)[0].training_version == 1
    assert read_table(ROOT / "tables" / "tiny.parquet").inputs.training_version == 1


def test_an_older_run_is_read_and_not_gone_on_with(old: Path) -> None:
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    refused("resume", old, "--trials", "99")
    refused("resume", old, "--repeats", "3")
    refused("search", "--resume", "--run", old)
    refused("fidelity", old)
    refused("front", old, "--with", "mobilenetv3_w0.05", "--train")
    assert isonas("front", old).exit_code == 0
    assert isonas("front", old, "--with", "mobilenetv3_w0.05").exit_code == 0
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


def test_a_new_run_names_this_one(tmp_path: Path) -> None:
    space = tmp_path / "one.yaml"
    space.write_text("input: 16\nclasses: 4\ngenes: {depth: [1], channels: [32], internal_resolution: [4]}\n")
    arguments = ("search", space, "--data", "synthetic", "--trials", "1", "--epochs", "1", "--threads", "1")
    short = ("--epoch-images", "32", "--precision", "fp32", "--cache", tmp_path, "--run", tmp_path / "run")
    assert isonas(*arguments, *short).exit_code == 0
    assert read_run(tmp_path / "run")[0].training_version == TRAINING_VERSION


def test_an_older_table_is_read_and_not_extended(tmp_path: Path) -> None:
    genomes = some_genomes(2)
    table = write(tmp_path / "table.parquet", genomes, 1, training_version=OLDER)
    before = table.read_bytes()
    with pytest.raises(RunError, match=SAYS + "record a new table"):
        next(record(table, TABLE_INPUTS, genomes, 2, lambda: pytest.fail("trained"), workers=1))
    assert table.read_bytes() == before
    assert len(read_table(table).trainings) == 2


def test_an_older_retraining_is_read_and_not_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "retrained"
    genome = "isonet_l1_c8_r4_e1_se0_s2d_m1_h0"
    arguments = ("retrain", genome, "--data", "synthetic", "--input", "16", "--epochs", "1", "--threads", "1")
    command = (*arguments, "--batch-size", "64", "--precision", "fp32", "--cache", tmp_path, "--run", folder)
    assert isonas(*command).exit_code == 0
    written = json.loads((folder / "retrain.json").read_text())
    assert written.pop("training_version") == TRAINING_VERSION
    (folder / "retrain.json").write_text(json.dumps(written))
    retraining = read_retraining(folder)
    assert retraining is not None
    assert retraining.training_version == 1
    assert "is trained already" in isonas(*command).stderr
    (folder / "result.json").unlink()
    refused(*command)


def test_an_older_runs_weights_are_not_started_from(tmp_path: Path) -> None:
    data = synthetic()
    older = replace(INPUTS, training_version=1, data_fingerprint=data.fingerprint)
    genome = parse_genome("isonet_l1_c8_r4_e1_se0_s2d_m1_h0")
    job = Job(genome, tmp_path, "again", tmp_path / "run", None, older)
    with pytest.raises(RunError, match=SAYS + "leave --warm-start out"):
        _check_split(job, replace(asked(), split_seed=older.seed), data)


def test_an_older_experiment_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = smoke_plan()
    older = replace(plan, settings=replace(plan.settings, training_version=OLDER))
    monkeypatch.setattr(paper_run, "TRAINING_VERSION", OLDER)
    monkeypatch.setattr("isonas.training.version.TRAINING_VERSION", OLDER)
    next(iter(trainings(tmp_path, older)))
    monkeypatch.undo()
    found = read_results(tmp_path / "results.parquet")
    assert found is not None
    assert found[0].training_version == OLDER
    with pytest.raises(RunError, match=SAYS):
        next(iter(trainings(tmp_path, plan)))


def test_an_older_experiment_is_reported_where_it_is_finished(tmp_path: Path) -> None:
    """Under its own settings, in which only the images must be those that are given."""
    plan = smoke_plan(seeds=1)
    cells = plan.experiment.cells(plan.scale)
    done = [
        Training(cell.name, 0, cell.network, cell.input_side, None, Counts(1, 1, {}), 0.5, 0.01, (), (), 1.0)
        for cell in cells
    ]
    older = replace(plan.settings, training_version=OLDER, fit=Fit.STRETCH, image_side=9)
    write_results(tmp_path / "results.parquet", older, done)
    assert list(trainings(tmp_path, plan)) == []
    results = results_of(tmp_path, plan)
    assert (results.settings, results.trainings) == (older, tuple(done))
    said = remarks(plan.experiment, results, Report(()))
    assert f"All of it is of training version {OLDER}; this isonas trains by version {OLDER + 1}." in said
    with pytest.raises(RunError, match=SAYS):
        results_of(tmp_path, replace(plan, seeds=2))
    others = replace(plan.settings, data_fingerprint="other")
    with pytest.raises(RunError, match="other settings: data_fingerprint;"):
        results_of(tmp_path, replace(plan, settings=others))


def test_an_older_unfinished_training_is_not_gone_on_with(tmp_path: Path) -> None:
    plan = smoke_plan()
    cell = plan.experiment.cells(plan.scale)[0]
    left = {"cell": cell.name, "seed": 0, "curve": [], "network": {}, "optimizer": {}}
    torch.save(left, tmp_path / "unfinished.pt")
    with pytest.raises(RunError, match=SAYS):
        next(iter(trainings(tmp_path, plan)))
