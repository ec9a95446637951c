"""Worker processes, killed for real: a death costs one task's time, and nobody outlives the search."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from isonas.errors import IsonasError, TrainingError
from isonas.search import workers as engine
from isonas.search.log import COMPLETE, read_trials
from isonas.search.run import search
from isonas.search.workers import ATTEMPTS, LocalWorkers
from tests.studies import Recorder, error_of, new_study

ROOT = Path(__file__).parent.parent


def working(folder: Path) -> Callable[[int, str], int]:
    """What workers do: square a number, after what they are told."""
    (folder / f"started-{os.getpid()}").touch()

    def work(number: int, told: str = "") -> int:
        with (folder / f"tried-{number}").open("a") as notes:
            notes.write("x")
        if told == "die" or (told == "die once" and _first(folder, number)):
            os.kill(os.getpid(), signal.SIGKILL)
        if told == "fail":
            raise TrainingError(f"{number} was told to fail")
        if told == "break":
            raise ZeroDivisionError(number)
        if told == "unpicklable":
            return lambda: number  # type: ignore[return-value]
        if told == "unreadable":
            return Unreadable()  # type: ignore[return-value]
        return number**2

    return work


class Unreadable:
    """What goes into a pipe and does not come out of it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("nonsense",)


def _first(folder: Path, number: int) -> bool:
    return (folder / f"tried-{number}").read_text() == "x"


def all_of(pool: LocalWorkers[int], tasks: dict[int, str]) -> dict[int, int | IsonasError]:
    found: dict[int, int | IsonasError] = {}
    waiting, flying = list(tasks.items()), 0
    while waiting or flying:
        while waiting and flying < pool.workers:
            number, told = waiting.pop(0)
            pool.submit(number, number, told)
            flying += 1
        key, result = pool.next()
        assert key not in found
        found[key] = result
        flying -= 1
    return found


def test_every_task_is_done_once_by_processes_that_stay(tmp_path: Path) -> None:
    with LocalWorkers(partial(working, tmp_path), 2) as pool:
        assert all_of(pool, dict.fromkeys(range(12), "")) == {number: number**2 for number in range(12)}
    assert len(list(tmp_path.glob("started-*"))) <= 2
    assert all((tmp_path / f"tried-{number}").read_text() == "x" for number in range(12))


def test_a_death_costs_its_task_alone(tmp_path: Path) -> None:
    told = {0: "", 1: "die once", 2: "", 3: "die", 4: "", 5: "fail"}
    with LocalWorkers(partial(working, tmp_path), 2) as pool:
        found = all_of(pool, told)
    assert {number: found[number] for number in (0, 1, 2, 4)} == {0: 0, 1: 1, 2: 4, 4: 16}
    assert str(found[3]).startswith(f"its worker process died {ATTEMPTS} times")
    assert str(found[5]) == "5 was told to fail"
    tried = {number: len((tmp_path / f"tried-{number}").read_text()) for number in told}
    assert tried == {0: 1, 1: 2, 2: 1, 3: ATTEMPTS, 4: 1, 5: 1}


def test_what_is_no_error_of_ours_comes_through_and_ends_the_workers(tmp_path: Path) -> None:
    def run() -> None:
        with LocalWorkers(partial(working, tmp_path), 2) as pool:
            all_of(pool, {0: "", 1: "break", 2: ""})

    with pytest.raises(ZeroDivisionError):
        run()
    until_gone([int(note.name.split("-")[1]) for note in tmp_path.glob("started-*")])


def test_what_cannot_be_handed_over_fails_alone(tmp_path: Path) -> None:
    with LocalWorkers(partial(working, tmp_path), 2) as pool:
        found = all_of(pool, {0: "", 1: "unpicklable", 2: "", 3: lambda: 0, 4: "unreadable", 5: ""})  # type: ignore[dict-item]
    assert {number: found[number] for number in (0, 2, 5)} == {0: 0, 2: 4, 5: 25}
    for number in (1, 3):
        assert isinstance(found[number], TrainingError)
        assert str(found[number]).startswith("it could not be handed over between processes (")
        assert "\n" not in str(found[number])
    assert isinstance(found[4], TrainingError)


def test_a_process_that_dies_idle_is_replaced(tmp_path: Path) -> None:
    with LocalWorkers(partial(working, tmp_path), 1) as pool:
        assert all_of(pool, {1: ""}) == {1: 1}
        executor: Any = pool._pools[0]
        watch = executor._executor_manager_thread
        (note,) = tmp_path.glob("started-*")
        os.kill(int(note.name.split("-")[1]), signal.SIGKILL)
        watch.join(60)
        with pytest.raises(BrokenProcessPool):
            executor.submit(int)
        assert all_of(pool, {2: "", 3: ""}) == {2: 4, 3: 9}
    assert len(list(tmp_path.glob("started-*"))) == 2


def test_a_system_without_room_for_a_process_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine, "ProcessPoolExecutor", refuse)
    with (
        LocalWorkers(partial(working, tmp_path), 2) as pool,
        pytest.raises(TrainingError, match=r"no worker process can be started \(No space left on device\); "),
    ):
        pool.submit(0, 0)


DRIVER = """
    import sys, time
    from functools import partial
    from pathlib import Path
    from isonas.search.workers import LocalWorkers
    from tests.test_workers import working

    if __name__ == "__main__":
        with LocalWorkers(partial(working, Path(sys.argv[1])), 2) as pool:
            pool.submit(1, 1)
            pool.submit(2, 2)
            pool.next()
            pool.next()
            print("ready", flush=True)
            time.sleep(600)
"""


def test_nobody_outlives_a_killed_driver(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    workers = [int(note.name.split("-")[1]) for note in tmp_path.glob("started-*")]
    assert len(workers) == 2
    driver.kill()
    driver.wait()
    driver.stdout.close()
    until_gone(workers)


def until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 60
    for process in processes:
        while _runs(process):
            assert time.monotonic() < deadline, f"process {process} is still there"
            time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def recording() -> Any:
    return Recorder()


@pytest.mark.parametrize("sampler", ["ehvi", "random"])
def test_a_search_by_two_workers(sampler: str, tmp_path: Path) -> None:
    study = new_study(tmp_path / "run", sampler=sampler)
    with LocalWorkers(recording, 2) as pool:
        ended = list(search(study, tmp_path / "run", pool, 20))
    trials = read_trials(tmp_path / "run")[0]
    assert sorted(trial.number for trial in ended) == list(range(20))
    assert [trial.number for trial in trials] == list(range(20))
    assert len({trial.genome for trial in trials}) == 20
    assert all(trial.error == error_of(trial.genome) for trial in trials)
    assert {trial.state for trial in trials} == {COMPLETE}
