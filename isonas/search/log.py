"""The log of a study: one Parquet file a trial, which is all the state a search has.

`trials/<number>.parquet` is written with state `running` before a trial is dispatched and replaced
when it ends; now and then the finished ones are merged into `trials.parquet`. Every file appears whole
(temporary name, fsync, rename, fsync of the folder), so a kill at any instant loses at most what was
in flight. A file that cannot be read is renamed to `….torn` and named to the user.
"""

from __future__ import annotations

import math
import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from isonas.atomic import PART_SUFFIX, write_atomically
from isonas.errors import GenomeError, LogError
from isonas.genome import GENES, Genome, parse_genome

SCHEMA_VERSION = 4
COMPACT_AFTER = 200

RUNNING, COMPLETE, STOPPED, FAILED = "running", "complete", "stopped", "failed"


@dataclass(frozen=True)
class Measured:
    """A trial's own training in one kind of error: after each epoch, and what it came to, or was
    expected to come to where it was stopped, with its standard error."""

    curve: tuple[float, ...]
    own: float | None
    own_se: float | None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One genome as asked, trained and scored.

    Costs are under the study's convention (batch 1, `peak_bytes` with the image); `arena_bytes` and
    `file_bytes` are `peak_bytes` and `weight_bytes` with the runtime's overheads, None in a log before
    version 4. `error` is 1 − top-1 on the validation images after `epochs` epochs, `balanced_error` 1 −
    the mean over classes of their recall, `…_se` their standard errors, `loss` the last epoch's training
    loss. `learned` is false where neither the loss nor the error is below that of chance, None where that
    was not recorded. Where the genome was trained again with fresh seeds, `repeat_errors` (and
    `repeat_balanced_errors`) are those results and `error` the mean of all; a trial's own first result
    is the end of `curve_error`. A stopped trial's `error` is the one it was stopped with,
    `extrapolated_error` what the error that is minimised was expected to reach, with standard deviation
    `extrapolated_se`. `pending` are the numbers below its own that had no result when it was asked.
    `proxy_input` is in pixels, `proxy_k` the stem's block size there. `micro_batch` is the most images
    that went through the network at a time in its last epoch,
    `worker` where that was trained, `host/process`. `reason` says why a trial failed;
    `optuna_state` is what the sampler noted, as JSON. `started_at` and `finished_at` are ISO 8601, UTC.
    """

    number: int
    state: str
    genome: Genome
    params: int
    madds: int
    peak_bytes: int
    weight_bytes: int
    arena_bytes: int | None = None
    file_bytes: int | None = None
    proxy_input: int
    proxy_k: int
    seed: int
    started_at: str
    worker: str = ""
    optuna_state: str = "{}"
    pending: tuple[int, ...] = ()
    error: float | None = None
    error_se: float | None = None
    balanced_error: float | None = None
    balanced_error_se: float | None = None
    extrapolated_error: float | None = None
    extrapolated_se: float | None = None
    repeat_errors: tuple[float, ...] = ()
    repeat_balanced_errors: tuple[float, ...] = ()
    loss: float | None = None
    learned: bool | None = None
    curve_epochs: tuple[int, ...] = ()
    curve_error: tuple[float, ...] = ()
    curve_error_se: tuple[float, ...] = ()
    curve_balanced_error: tuple[float, ...] = ()
    curve_balanced_error_se: tuple[float, ...] = ()
    epochs: int = 0
    train_seconds: float | None = None
    micro_batch: int | None = None
    reason: str | None = None
    finished_at: str | None = None

    def measured(self, objective: str) -> Measured:
        """Its results in the error (`error` or `balanced_error`) that a search minimises."""
        balanced = objective == "balanced_error"
        error, error_se = (
            (self.balanced_error, self.balanced_error_se) if balanced else (self.error, self.error_se)
        )
        curve = self.curve_balanced_error if balanced else self.curve_error
        curve_se = self.curve_balanced_error_se if balanced else self.curve_error_se
        if self.state == STOPPED:
            error, error_se = self.extrapolated_error, self.extrapolated_se
        elif self.state == COMPLETE:
            error, error_se = (curve or (error,))[-1], (curve_se or (error_se,))[-1]
        return Measured(curve, error, error_se)

    @property
    def failed(self) -> bool:
        """Whether it ended without a result to learn from."""
        return self.state == FAILED or self.is_at_chance

    @property
    def trainings(self) -> int:
        """How many trainings `error` is the mean of."""
        return 1 + len(self.repeat_errors)

    @property
    def is_at_chance(self) -> bool:
        """Whether it was trained to its end and did not get going: then its error is no result."""
        return self.state == COMPLETE and self.learned is False

    @property
    def own_error(self) -> float | None:
        """`measured("error").own`."""
        return self.measured("error").own

    @property
    def own_error_se(self) -> float | None:
        """`measured("error").own_se`."""
        return self.measured("error").own_se


SCHEMA = pa.schema(
    [
        ("schema_version", pa.int32()),
        ("number", pa.int64()),
        ("state", pa.string()),
        ("genome", pa.string()),
        ("depth", pa.int64()),
        ("channels", pa.int64()),
        ("internal_resolution", pa.int64()),
        ("expansion", pa.int64()),
        ("se_ratio", pa.float64()),
        ("stem", pa.string()),
        ("kernel_size", pa.int64()),
        ("head_multiple", pa.int64()),
        ("head_features", pa.int64()),
        ("shared", pa.bool_()),
        ("params", pa.int64()),
        ("madds", pa.int64()),
        ("peak_bytes", pa.int64()),
        ("weight_bytes", pa.int64()),
        ("arena_bytes", pa.int64()),
        ("file_bytes", pa.int64()),
        ("error", pa.float64()),
        ("error_se", pa.float64()),
        ("balanced_error", pa.float64()),
        ("balanced_error_se", pa.float64()),
        ("extrapolated_error", pa.float64()),
        ("extrapolated_se", pa.float64()),
        ("repeat_errors", pa.list_(pa.float64())),
        ("repeat_balanced_errors", pa.list_(pa.float64())),
        ("loss", pa.float64()),
        ("learned", pa.bool_()),
        ("curve_epochs", pa.list_(pa.int64())),
        ("curve_error", pa.list_(pa.float64())),
        ("curve_error_se", pa.list_(pa.float64())),
        ("curve_balanced_error", pa.list_(pa.float64())),
        ("curve_balanced_error_se", pa.list_(pa.float64())),
        ("epochs", pa.int64()),
        ("train_seconds", pa.float64()),
        ("micro_batch", pa.int64()),
        ("proxy_input", pa.int64()),
        ("proxy_k", pa.int64()),
        ("seed", pa.int64()),
        ("worker", pa.string()),
        ("reason", pa.string()),
        ("started_at", pa.string()),
        ("finished_at", pa.string()),
        ("optuna_state", pa.string()),
        ("pending", pa.list_(pa.int64())),
    ]
)

_SINCE_2 = ("curve_error_se", "extrapolated_error", "extrapolated_se", "repeat_errors", "pending")
_SINCE_3 = ("micro_batch",)
_LISTS_SINCE_4 = ("repeat_balanced_errors", "curve_balanced_error", "curve_balanced_error_se")
_SINCE_4 = (
    "arena_bytes", "file_bytes", "balanced_error", "balanced_error_se", "learned", *_LISTS_SINCE_4
)  # fmt: skip
_LATER = (*_SINCE_2, *_SINCE_3, *_SINCE_4)

_DAMAGED = (ValueError, TypeError, pa.ArrowException, GenomeError)
_STATES = (RUNNING, COMPLETE, STOPPED, FAILED)


def write_trial(run: Path, trial: Trial) -> None:
    """Log a trial, in place of what was logged under its number; the caller holds the run."""
    _write_table(run / "trials" / f"{trial.number}.parquet", [trial])


def read_trials(run: Path) -> tuple[list[Trial], list[str]]:
    """Every logged trial by number, and a sentence for each file that cannot be read.

    Of several rows of one number a finished one counts. Raises LogError for a log of a newer version.
    """
    found: dict[int, Trial] = {}
    unreadable: list[str] = []
    # Parts before the merged file: what a compaction removes meanwhile is in the file by then.
    for path in (*_parts(run), run / "trials.parquet"):
        try:
            trials = _read_table(path)
        except FileNotFoundError:
            continue
        except (OSError, *_DAMAGED) as error:
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
            unreadable.append(f"{path} is no readable part of the log ({reason})")
            continue
        for trial in trials:
            if trial.number not in found or found[trial.number].state == RUNNING:
                found[trial.number] = trial
    return [found[number] for number in sorted(found)], unreadable


@contextmanager
def hold(run: Path) -> Iterator[None]:
    """Hold a run for writing.

    Raises LogError where another process holds it, naming that process.
    """
    holder = run / "lock.holder"
    lock = filelock.FileLock(run / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        with suppress(OSError):
            who = holder.read_text(encoding="utf-8")
            raise LogError(f"{run} is being written by {who}; wait for it, or end it.") from None
        raise LogError(f"{run} is being written by another process.") from None
    except OSError as error:
        raise LogError(f"{run} cannot be written: {error.strerror}.") from None
    try:
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            for folder in ("trials", "weights"):
                (run / folder).mkdir(exist_ok=True)
        except OSError as error:
            raise LogError(f"{run} cannot be written: {error.strerror}; mend that and resume.") from None
        yield
    finally:
        lock.release()


def set_torn_aside(run: Path) -> list[str]:
    """Rename files of the log that cannot be read, one sentence each, and drop what killed writers left.

    The caller holds the run. Raises LogError.
    """
    try:
        return _set_aside(run)
    except OSError as error:
        raise LogError(f"{run} cannot be written: {error.strerror}; mend that and resume.") from None


def compact(run: Path, *, after: int = COMPACT_AFTER) -> None:
    """Merge the finished parts into `trials.parquet` once there are `after` of them.

    The caller holds the run. A crash between the merged file and the removal of its parts leaves rows
    twice, which readers expect. Nothing is merged while a file cannot be read.
    """
    parts = _parts(run)
    if len(parts) < after:
        return
    trials, unreadable = read_trials(run)
    if unreadable:
        return
    finished = [trial for trial in trials if trial.state != RUNNING]
    _write_table(run / "trials.parquet", finished)
    merged = {trial.number for trial in finished}
    for part in parts:
        if int(part.stem) in merged:
            # A part that stays is no harm: its row is in both files.
            with suppress(OSError):
                part.unlink()


def write_front(run: Path, text: str) -> None:
    """Write `front.csv`, which the log can always give again; the caller holds the run."""
    try:
        write_atomically(run / "front.csv", lambda stream: stream.write(text.encode()))
    except OSError as error:
        raise LogError(f"{run / 'front.csv'} cannot be written ({error.strerror}).") from None


def _parts(run: Path) -> list[Path]:
    parts = (run / "trials").glob("*.parquet")
    return sorted((part for part in parts if part.stem.isdecimal()), key=lambda part: int(part.stem))


def _set_aside(run: Path) -> list[str]:
    for folder in (run, run / "trials", run / "weights"):
        for leftover in folder.glob(f".*{PART_SUFFIX}"):
            leftover.unlink(missing_ok=True)
    messages = []
    for path in (*_parts(run), run / "trials.parquet"):
        try:
            _read_table(path)
        except FileNotFoundError:
            continue
        except (OSError, *_DAMAGED) as error:
            # Arrow reports damaged content as an OSError without a number; one with it is the disk's.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            torn = _free_name(path)
            path.rename(torn)
            messages.append(f"{path} could not be read and is now {torn.name}; its trials are done again")
    return messages


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.torn{suffix}") for suffix in ("", *map(str, range(2, 10_000))))
    return next(name for name in names if not name.exists())


def _write_table(path: Path, trials: list[Trial]) -> None:
    table = pa.Table.from_pylist([_row(trial) for trial in trials], schema=SCHEMA)
    try:
        write_atomically(path, lambda stream: pq.write_table(table, stream))
    except OSError as error:
        run = path.parent.parent if path.parent.name == "trials" else path.parent
        raise LogError(
            f"{path} cannot be written ({error.strerror}); the trials before it are safe, so mend that "
            f"and continue with: isonas resume {shlex.quote(str(run))}"
        ) from None


def _read_table(path: Path) -> list[Trial]:
    # Opened here, for Arrow reads a leading ~ and a scheme into a path; and once: a reader of a live run
    # must not meet one file's head and its successor's rows.
    with path.open("rb") as stream, pq.ParquetFile(stream) as file:
        table = file.read()
    missing = [name for name in SCHEMA.names if name not in (*table.column_names, *_LATER)]
    if missing:
        raise ValueError(f"column {missing[0]} is missing")
    rows = table.select([name for name in SCHEMA.names if name in table.column_names]).to_pylist()
    newest = max((row["schema_version"] for row in rows), default=SCHEMA_VERSION)
    if newest > SCHEMA_VERSION:
        raise LogError(
            f"{path} is of log version {newest}, this isonas reads up to {SCHEMA_VERSION}; use the "
            "isonas that wrote it."
        )
    trials = [_trial(row) for row in rows]
    if path.stem.isdecimal() and [trial.number for trial in trials] != [int(path.stem)]:
        raise ValueError(f"it does not hold trial {path.stem}")
    return trials


def _row(trial: Trial) -> dict[str, Any]:
    row = {name: value for name, value in vars(trial).items() if name != "genome"}
    genes = {**asdict(trial.genome), "se_ratio": float(trial.genome.se_ratio)}
    own = {"stem": str(trial.genome.stem), "genome": str(trial.genome), "schema_version": SCHEMA_VERSION}
    return {**row, **genes, **own}


def _trial(row: dict[str, Any]) -> Trial:
    if row["state"] not in _STATES:
        raise ValueError(f"state {row['state']!r} is unknown")
    if not isinstance(row["number"], int) or row["number"] < 0:
        raise ValueError(f"{row['number']!r} is no trial number")
    numbers = [row["error"], row["error_se"]] if row["state"] == COMPLETE else []
    if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
        raise ValueError(f"trial {row['number']} is complete without an error")
    own = (*GENES, "schema_version")
    values = {name: value for name, value in row.items() if name not in own}
    lists = ("curve_epochs", "curve_error", "curve_error_se", "repeat_errors", "pending", *_LISTS_SINCE_4)
    for name in lists:
        values[name] = tuple(values.get(name) or ())
    return Trial(**{**values, "genome": parse_genome(row["genome"])})
