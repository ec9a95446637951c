"""The log survives whatever happens to its files."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isonas.errors import LogError
from isonas.genome import GENES, Genome
from isonas.search.log import (
    COMPLETE,
    FAILED,
    RUNNING,
    SCHEMA,
    Trial,
    compact,
    hold,
    read_trials,
    set_torn_aside,
    write_trial,
)
from tests.strategies import genomes


def trial(number: int, state: str = COMPLETE, genome: Genome | None = None) -> Trial:
    return Trial(
        number=number,
        state=state,
        genome=genome or Genome(depth=number + 1),
        params=1,
        madds=2,
        peak_bytes=3,
        weight_bytes=4,
        proxy_input=56,
        proxy_k=4,
        seed=2**32 - 1,
        started_at="2026-01-01T00:00:00.000+00:00",
        error=0.5 if state == COMPLETE else None,
        error_se=0.01 if state == COMPLETE else None,
        curve_epochs=(1, 2) if state == COMPLETE else (),
        curve_error=(0.75, 0.5) if state == COMPLETE else (),
        reason="none" if state == FAILED else None,
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "trials").mkdir()
    return tmp_path


@given(genome=genomes(), state=st.sampled_from([RUNNING, COMPLETE, FAILED]))
def test_rows_are_read_back(tmp_path_factory: pytest.TempPathFactory, genome: Genome, state: str) -> None:
    run = tmp_path_factory.mktemp("run")
    (run / "trials").mkdir()
    written = trial(3, state, genome)
    write_trial(run, written)
    assert read_trials(run) == ([written], [])


def test_any_parquet_tool_reads_flat_columns(run: Path) -> None:
    write_trial(run, trial(0))
    table = pq.read_table(run / "trials" / "0.parquet")
    assert table.schema.names == SCHEMA.names
    assert set(GENES) < set(table.schema.names)
    row = table.to_pylist()[0]
    assert (row["se_ratio"], row["stem"], row["curve_error"]) == (0.25, "s2d", [0.75, 0.5])


def test_the_schema_has_a_golden_list_of_columns() -> None:
    golden = Path(__file__).parent / "golden" / "trial_columns.txt"
    listed = [f"{field.name}: {field.type}" for field in SCHEMA]
    assert listed == golden.read_text(encoding="utf-8").splitlines()


def test_finished_counts_over_running(run: Path) -> None:
    write_trial(run, trial(0, RUNNING))
    write_trial(run, trial(0))
    assert [one.state for one in read_trials(run)[0]] == [COMPLETE]


def test_compaction_keeps_every_row_and_crashes_midway_do_no_harm(run: Path) -> None:
    written = [trial(number) for number in range(6)]
    for one in written:
        write_trial(run, one)
    parts = {path.name: path.read_bytes() for path in (run / "trials").iterdir()}
    write_trial(run, running := trial(6, RUNNING))
    compact(run, after=5)
    assert sorted(path.name for path in (run / "trials").iterdir()) == ["6.parquet"]
    assert read_trials(run)[0] == [*written, running]
    # A crash before the parts were removed leaves rows twice.
    for name, content in parts.items():
        (run / "trials" / name).write_bytes(content)
    assert read_trials(run)[0] == [*written, running]
    compact(run, after=8)
    assert len(list((run / "trials").iterdir())) == 7


def test_a_torn_part_is_named_and_set_aside_by_the_holder_alone(run: Path) -> None:
    for number in range(3):
        write_trial(run, trial(number))
    torn = run / "trials" / "1.parquet"
    content = torn.read_bytes()
    torn.write_bytes(content[: len(content) // 2])
    (run / "trials" / ".2.parquet.abc.part").write_bytes(b"left behind")
    (run / "trials" / "notes.txt").write_text("mine", encoding="utf-8")
    trials, unreadable = read_trials(run)
    assert [one.number for one in trials] == [0, 2]
    assert len(unreadable) == 1
    assert str(torn) in unreadable[0]
    assert torn.exists()
    with hold(run):
        set_aside = set_torn_aside(run)
        assert len(set_aside) == 1
        assert "1.parquet.torn" in set_aside[0]
    assert read_trials(run) == (trials, [])
    left = {path.name for path in (run / "trials").iterdir()}
    assert left == {"0.parquet", "1.parquet.torn", "2.parquet", "notes.txt"}


def test_a_live_run_is_read_without_tears(run: Path) -> None:
    """A part that is replaced while it is read gives its old row or its new one."""
    short, long = trial(0), replace(trial(0), curve_error=tuple(n / 1000 for n in range(900)))
    write_trial(run, short)

    def write() -> None:
        for one in (long, short) * 60:
            write_trial(run, one)

    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(write)
        while not writing.done():
            read, unreadable = read_trials(run)
            assert unreadable == []
            assert read in ([short], [long])
        writing.result()


def test_a_foreign_file_is_set_aside(run: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"number": [1]}), run / "trials.parquet")
    assert "column schema_version is missing" in read_trials(run)[1][0]
    with hold(run):
        set_aside = set_torn_aside(run)
        assert "trials.parquet.torn" in set_aside[0]


def test_a_newer_log_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isonas.search.log.SCHEMA_VERSION", 99)
    write_trial(run, trial(0))
    monkeypatch.undo()
    with pytest.raises(LogError, match="of log version 99"):
        read_trials(run)


def _hold_until(run: Path, held: Event, release: Event) -> None:
    with hold(run):
        held.set()
        release.wait(60)


def test_a_second_writer_is_told_who_holds_the_run(run: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold_until, args=(run, held, release))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(LogError, match=f"is being written by process {other.pid} on"), hold(run):
            pass
    finally:
        release.set()
        other.join()
    with hold(run):
        assert set_torn_aside(run) == []


def test_a_full_disk_leaves_the_log_readable(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_trial(run, trial(0))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LogError, match=r"No space left on device.*isonas resume"):
        write_trial(run, trial(0, RUNNING))
    assert read_trials(run) == ([trial(0)], [])
    assert [path.name for path in (run / "trials").iterdir()] == ["0.parquet"]


def test_nothing_is_merged_over_a_file_that_cannot_be_read(run: Path) -> None:
    for number in range(4):
        write_trial(run, trial(number))
    compact(run, after=4)
    merged = run / "trials.parquet"
    damaged = merged.read_bytes()[:-1] + b"?"
    merged.write_bytes(damaged)
    write_trial(run, trial(4))
    compact(run, after=1)
    assert merged.read_bytes() == damaged
    assert (run / "trials" / "4.parquet").exists()


def test_files_set_aside_never_replace_each_other(run: Path) -> None:
    for content in (b"one", b"two"):
        (run / "trials.parquet").write_bytes(content)
        with hold(run):
            set_aside = set_torn_aside(run)
            assert len(set_aside) == 1
    assert {path.read_bytes() for path in run.glob("trials.parquet.torn*")} == {b"one", b"two"}


def test_a_disk_that_fails_is_not_taken_for_a_torn_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_trial(run, trial(0))

    def failing(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("isonas.search.log.pq.ParquetFile", failing)
    with hold(run), pytest.raises(LogError, match="Input/output error"):
        set_torn_aside(run)
    assert [path.name for path in (run / "trials").iterdir()] == ["0.parquet"]


@pytest.mark.parametrize(
    "broken", [{"error": None}, {"error": float("nan")}, {"error_se": None}, {"state": "odd"}, {"number": -1}]
)
def test_rows_that_make_no_trial_are_set_aside(run: Path, broken: dict[str, Any]) -> None:
    write_trial(run, replace(trial(0), **broken))
    (path,) = (run / "trials").iterdir()
    path.rename(run / "trials" / "0.parquet")
    assert len(read_trials(run)[1]) == 1


def test_a_part_under_another_trials_name_is_set_aside(run: Path) -> None:
    write_trial(run, trial(3))
    (run / "trials" / "3.parquet").rename(run / "trials" / "4.parquet")
    assert "it does not hold trial 4" in read_trials(run)[1][0]


def test_a_full_disk_while_taking_hold_is_a_sentence(run: Path) -> None:
    (run / "trials").rmdir()
    (run / "trials").write_text("", encoding="utf-8")
    with pytest.raises(LogError, match="cannot be written"), hold(run):
        pass
