"""A recording trains what is asked once, goes on after a kill, and needs no Optuna."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from isonas.bench.record import genomes_to_record, record, trainer_of
from isonas.bench.table import Training, read_table
from isonas.data.dataset import split_validation
from isonas.data.synthetic import synthetic
from isonas.errors import LogError, RunError, TrainingError
from isonas.evaluation import trial_seed
from isonas.genome import Genome
from isonas.hardware import within
from isonas.networks.build import build_network
from isonas.search.inputs import Inputs
from isonas.training.examples import on_device
from isonas.training.loop import prepare, validation_errors
from isonas.training.machine import Machine
from isonas.training.proxy import ProxyEvaluator, ProxySetting
from isonas.training.recipe import Recipe
from tests.studies import INPUTS
from tests.tables import TABLE_INPUTS, trained

ROOT = Path(__file__).parent.parent


def inventing(folder: Path) -> Callable[[Genome, int], Training]:
    """Trains nothing; notes what it was asked for and lingers while a file `hold` is there."""

    def train(genome: Genome, seed: int) -> Training:
        with (folder / f"asked-{genome}-{seed}").open("a") as notes:
            notes.write("x")
        deadline = time.monotonic() + 60
        while (folder / "hold").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return trained(genome, seed)

    return train


def recorded(
    path: Path,
    notes: Path,
    *,
    sample: int = 5,
    seeds: int = 3,
    inputs: Inputs = TABLE_INPUTS,
    workers: int = 2,
) -> int:
    """Record and say how many trainings it took."""
    genomes = genomes_to_record(inputs, sample)
    return len(list(record(path, inputs, genomes, seeds, partial(inventing, notes), workers=workers)))


def pairs(path: Path) -> list[tuple[Genome, int]]:
    return [(training.genome, training.seed) for training in read_table(path).trainings]


def test_every_training_is_made_once_and_a_genomes_follow_each_other(tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    assert recorded(table, tmp_path, workers=1) == 15
    wanted = [(genome, seed) for genome in genomes_to_record(TABLE_INPUTS, 5) for seed in range(3)]
    assert pairs(table) == wanted
    assert all(path.read_text() == "x" for path in tmp_path.glob("asked-*"))
    assert [row.error for row in read_table(table).trainings] == [trained(*pair).error for pair in wanted]


def test_more_seeds_and_a_larger_sample_extend_a_table(tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    assert recorded(table, tmp_path, sample=3, seeds=1) == 3
    before = read_table(table).trainings
    assert recorded(table, tmp_path, sample=5, seeds=2) == 7
    assert recorded(table, tmp_path, sample=5, seeds=2) == 0
    assert read_table(table).trainings[:3] == before
    assert set(pairs(table)) == {(g, s) for g in genomes_to_record(TABLE_INPUTS, 5) for s in range(2)}


def test_a_smaller_sample_is_part_of_a_larger_one_and_all_keep_the_budget() -> None:
    everything = genomes_to_record(TABLE_INPUTS, None)
    assert genomes_to_record(TABLE_INPUTS, 7) == everything[:7]
    assert genomes_to_record(replace(TABLE_INPUTS, seed=1), 7) != everything[:7]
    assert len(set(everything)) == len(everything)
    from isonas.cost import Deployment
    from isonas.hardware import costs

    columns = TABLE_INPUTS.space.columns
    keep = within(TABLE_INPUTS.budget, costs(columns, Deployment(32, 10), TABLE_INPUTS.budget))
    assert set(everything) == {columns.genome(row) for row in range(len(columns)) if keep[row]}
    assert not keep.all()


KILLED = """
    import sys
    from pathlib import Path
    from tests.test_record import recorded

    if __name__ == "__main__":
        recorded(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_killed_recording_goes_on(tmp_path: Path) -> None:
    table, notes = tmp_path / "table.parquet", tmp_path / "notes"
    notes.mkdir()
    script = tmp_path / "recording.py"
    script.write_text(textwrap.dedent(KILLED))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    recording = subprocess.Popen([sys.executable, str(script), str(table), str(notes)], env=environment)
    deadline = time.monotonic() + 60
    while not table.exists() or len(pairs(table)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    (notes / "hold").touch()
    recording.kill()
    assert recording.wait() == -signal.SIGKILL
    (notes / "hold").unlink()
    before = pairs(table)
    assert recorded(table, notes) == 15 - len(before)
    assert Counter(pairs(table)) == Counter(dict.fromkeys({*pairs(table)}, 1))
    assert pairs(table)[: len(before)] == before
    assert len(pairs(table)) == 15


def test_other_inputs_and_a_second_recorder_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    recorded(table, tmp_path, sample=2, seeds=1)
    before = table.read_bytes()
    with pytest.raises(RunError, match=r"recorded with other inputs: batch_size .*give those as they were"):
        recorded(table, tmp_path, inputs=replace(TABLE_INPUTS, batch_size=7))
    assert table.read_bytes() == before
    genomes = genomes_to_record(TABLE_INPUTS, 3)
    first = record(table, TABLE_INPUTS, genomes, 1, partial(inventing, tmp_path), workers=1)
    next(first)
    with pytest.raises(LogError, match="is being recorded by another process"):
        recorded(table, tmp_path)
    first.close()  # type: ignore[attr-defined]
    table.write_bytes(before[:100])
    with pytest.raises(LogError, match="is no table that isonas bench record wrote"):
        recorded(table, tmp_path)
    assert table.read_bytes() == before[:100]


def test_nothing_starts_after_the_deadline(tmp_path: Path) -> None:
    genomes = genomes_to_record(TABLE_INPUTS, 3)
    start = partial(inventing, tmp_path)
    done = record(tmp_path / "t.parquet", TABLE_INPUTS, genomes, 1, start, workers=1, deadline=0.0)
    assert list(done) == []
    assert not list(tmp_path.glob("asked-*"))


SETTING = ProxySetting(
    data="synthetic",
    cache=Path("unused"),
    recipe=Recipe(epochs=2, epoch_images=64, batch_size=16),
    machine=Machine("cpu", "fp32", 1),
    input_side=16,
    source_side=16,
    split_seed=3,
)


def test_a_training_is_the_searchs_own(tmp_path: Path) -> None:
    """Curve and held-back error are those of the evaluator, by the seed that a search would take."""
    genome = Genome(depth=1, channels=8, internal_resolution=4, expansion=2, head_multiple=1, head_features=0)
    training = trainer_of(SETTING, 3)(genome, 2)
    data = synthetic()
    curve, state = ProxyEvaluator(data, SETTING)(genome, trial_seed(3, genome, 2), 0, 2, None)
    assert training.error == tuple(result.error for result in curve)
    assert training.reason is None
    assert training.core_seconds > 0
    assert data.held_back is not None
    network = build_network(genome, data.train.side, data.classes)
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.weights().items()})
    prepare(network, SETTING.machine)
    held_back = on_device(data.held_back, "cpu")
    assert training.test_error == validation_errors(network, held_back, SETTING.machine).error
    validation = split_validation(data.train, 3)[1]
    assert all(
        (error * len(validation)) == pytest.approx(round(error * len(validation))) for error in training.error
    )


def test_what_cannot_be_trained_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise TrainingError("as told")

    train = trainer_of(SETTING, 0)
    monkeypatch.setattr(ProxyEvaluator, "__call__", failing)
    training = train(Genome(), 0)
    assert (training.error, training.test_error, training.reason) == ((), None, "as told")


@pytest.mark.slow
def test_recording_needs_no_optuna(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(
        "input: 16\nclasses: 4\ngenes: {depth: [1], channels: [32], internal_resolution: [4, 8], "
        "expansion: [1], head_multiple: [1], head_features: [0]}\n"
    )
    code = (
        "import sys; sys.modules['optuna'] = None; from isonas.cli import main; "
        "main('bench record two.yaml --data synthetic --epochs 1 --epoch-images 64 --seeds 1 --threads 1 "
        "--table two.parquet'.split())"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "two.parquet holds 2 of 2 trainings." in done.stdout
    table = read_table(tmp_path / "two.parquet")
    assert {training.genome.internal_resolution for training in table.trainings} == {4, 8}
    assert table.inputs.epochs == 1
    assert INPUTS.space != table.inputs.space
