"""Two Ray nodes on this machine: what dies costs time, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isonas.errors import TrainingError, UsageError
from isonas.evaluation import Curve, TrainingState
from isonas.genome import Genome
from isonas.search.cluster import RayWorkers
from isonas.search.inputs import read_run
from isonas.search.log import COMPLETE, FAILED, RUNNING, Trial, read_trials
from isonas.search.run import search
from isonas.search.study import study_of
from tests.studies import Recorder, error_of, new_study

ray: Any = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")

TRIALS = 12
ROOT = Path(__file__).parent.parent


class Noting(Recorder):
    """A `Recorder` that leaves a file for each training, and lingers while a file `hold` is there."""

    def __init__(self, shipped: Any, folder: Path) -> None:
        super().__init__()
        assert shipped.sum() == 1000
        self._folder = folder
        (folder / f"started-{os.getpid()}").touch()

    def __call__(
        self, genome: Genome, seed: int, from_epoch: int, to_epoch: int, state: TrainingState | None
    ) -> tuple[Curve, TrainingState]:
        """As `Recorder`, in its own time."""
        note = self._folder / f"training-{genome}-{os.getpid()}"
        note.touch()
        if (self._folder / f"deadly-{genome}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while (self._folder / "hold").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return super().__call__(genome, seed, from_epoch, to_epoch, state)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without processors, and two nodes of one each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000}
    made: Any = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=80_000_000)
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    ray.shutdown()
    made.shutdown()


def shipped() -> Any:
    return np.ones(1000)


def workers(folder: Path) -> RayWorkers:
    return RayWorkers(partial(Noting, folder=folder), shipped(), cpus=1)


def trained_on(folder: Path) -> list[int]:
    return [int(note.name.rsplit("-", 1)[1]) for note in folder.glob("training-*")]


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def in_flight(run: Path) -> list[Trial]:
    trials = read_trials(run)[0] if (run / "trials").is_dir() else []
    return [trial for trial in trials if trial.state == RUNNING]


def assert_whole(trials: list[Trial]) -> None:
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} == {COMPLETE}
    assert len({trial.genome for trial in trials}) == TRIALS
    assert all(trial.error == error_of(trial.genome) for trial in trials)


@pytest.mark.slow
def test_a_search_outlives_a_worker_and_a_node(cluster: Any, tmp_path: Path) -> None:
    run, notes = tmp_path / "run", tmp_path / "notes"
    notes.mkdir()
    study = new_study(run)
    with workers(notes) as engine, ThreadPoolExecutor(1) as thread:
        assert engine.workers == 2
        ended = thread.submit(lambda: list(search(study, run, engine, TRIALS)))
        until(lambda: len(trained_on(notes)) >= 3)
        (notes / "hold").touch()
        until(lambda: len(in_flight(run)) == 2)
        # The two that train now, and one of their processes.
        training = sorted(notes.glob("training-*"), key=lambda note: note.stat().st_mtime)
        os.kill(int(training[-1].name.rsplit("-", 1)[1]), signal.SIGKILL)
        until(lambda: len(trained_on(notes)) > len(training))
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        (notes / "hold").unlink()
        until(lambda: engine.workers == 1)
        ended.result(timeout=120)
    assert_whole(read_trials(run)[0])
    # Built once a process, not once a training.
    assert len(list(notes.glob("started-*"))) == len(set(trained_on(notes)))


@pytest.mark.slow
def test_a_genome_that_kills_its_worker_is_a_failed_trial(cluster: Any, tmp_path: Path) -> None:
    run, notes = tmp_path / "run", tmp_path / "notes"
    notes.mkdir()
    study = new_study(run, sampler="random")
    asked = [trial.genome for trial in _dry(tmp_path, sampler="random")]
    (notes / f"deadly-{asked[2]}").touch()
    with workers(notes) as engine:
        list(search(study, run, engine, 5))
    trials = read_trials(run)[0]
    assert [trial.state for trial in trials] == [COMPLETE, COMPLETE, FAILED, COMPLETE, COMPLETE]
    assert "its worker died 3 times" in str(trials[2].reason)
    assert len(list(notes.glob(f"training-{asked[2]}-*"))) == 3


def _dry(tmp_path: Path, **changes: Any) -> list[Trial]:
    from isonas.search.engines import Inline

    study = new_study(tmp_path / "dry", **changes)
    return list(search(study, tmp_path / "dry", Inline(Recorder()), 5))


DRIVER = """
    import sys
    from pathlib import Path
    from isonas.search.run import search
    from tests.studies import new_study
    from tests.test_cluster import TRIALS, workers

    run, notes = Path(sys.argv[1]), Path(sys.argv[2])
    study = new_study(run)
    with workers(notes) as engine:
        for trial in search(study, run, engine, TRIALS):
            if trial.number == 4:
                (notes / "hold").touch()
"""


@pytest.mark.slow
def test_a_killed_driver_resumes(cluster: Any, tmp_path: Path) -> None:
    run, notes = tmp_path / "run", tmp_path / "notes"
    notes.mkdir()
    code = textwrap.dedent(DRIVER)
    driver = subprocess.Popen([sys.executable, "-c", code, str(run), str(notes)], env=os.environ, cwd=ROOT)
    until(lambda: (notes / "hold").exists() and len(in_flight(run)) == 2)
    driver.kill()
    driver.wait()
    (notes / "hold").unlink()
    before = {trial.number: trial for trial in read_trials(run)[0]}
    assert 0 < len(before) < TRIALS
    with workers(notes) as engine:
        list(search(study_of(read_run(run)[0]), run, engine, TRIALS))
    after = read_trials(run)[0]
    assert_whole(after)
    for trial in after[: len(before)]:
        assert trial.genome == before[trial.number].genome
        assert trial.pending == before[trial.number].pending
        if before[trial.number].state == COMPLETE:
            assert trial == before[trial.number]


def test_errors_of_a_training_come_back(cluster: Any, tmp_path: Path) -> None:
    def start(_: Any) -> Any:
        def failing(*_: Any) -> Any:
            raise TrainingError("as told")

        return failing

    with RayWorkers(start, None, cpus=0.5, workers=3) as engine:
        assert engine.workers == 3
        engine.submit(7, Genome(), 0, 0, 1, None)
        key, outcome = engine.next()
    assert key == 7
    assert isinstance(outcome, TrainingError)
    assert str(outcome) == "as told"


def test_no_cluster_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UsageError, match=r"no Ray cluster answers at RAY_ADDRESS 127\.0\.0\.1:1"):
        RayWorkers(lambda _: Recorder(), None, cpus=1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'isonas\[ray\]'"):
        RayWorkers(lambda _: Recorder(), None, cpus=1)
