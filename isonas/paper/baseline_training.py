"""Training baselines as a run trains its genomes; what came of it is kept in RUN/baselines.json."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import filelock

from isonas.atomic import write_atomically
from isonas.errors import LogError, TrainingError
from isonas.evaluation import trial_seed
from isonas.paper.baselines import MobileNetV3Large, Network
from isonas.report.front import Baseline
from isonas.training.proxy import ProxyEvaluator

FILE = "baselines.json"


@dataclass(frozen=True)
class Trained:
    """What a run's proxy made of a network: its error after the last epoch, or the reason of a failure.

    Errors are as in the run's log: on its validation images, `…_se` binomial.
    """

    network: str
    error: float | None
    error_se: float | None
    curve_error: tuple[float, ...]
    seconds: float
    reason: str | None = None
    balanced_error: float | None = None
    balanced_error_se: float | None = None


def train_baselines(
    run: Path, networks: Sequence[Network], evaluate: ProxyEvaluator, *, epochs: int, study_seed: int
) -> Iterator[Trained]:
    """Train those networks that the run has no error of yet, and keep each result as it comes.

    A genome is trained exactly as a trial of the run; any other network for as many epochs on the same
    images, which reach it at their full size and upsampled to the deployment input. One that failed
    before is tried again. Raises LogError where the folder cannot be used.
    """
    with _held(run):
        kept = read_trained(run)
        for network in networks:
            known = kept.get(str(network))
            if known is None or known.error is None:
                kept[str(network)] = trained = _train(network, evaluate, epochs, study_seed)
                _write(run, kept)
                yield trained


def read_trained(run: Path) -> dict[str, Trained]:
    """What the run knows of baselines, by network; raises LogError for a file that is damaged."""
    path = run / FILE
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["trainings"]
        found = [Trained(**{**one, "curve_error": tuple(one["curve_error"])}) for one in listed]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LogError(f"{path} cannot be read ({error}); remove it to train them anew.") from None
    return {one.network: one for one in found}


def with_errors(baselines: Sequence[Baseline], trained: dict[str, Trained]) -> list[Baseline]:
    """The baselines with the errors that are known of them."""
    return [
        replace(
            one,
            error=known.error,
            error_se=known.error_se,
            balanced_error=known.balanced_error,
            balanced_error_se=known.balanced_error_se,
        )
        if (known := trained.get(one.network))
        else one
        for one in baselines
    ]


def _train(network: Network, evaluate: ProxyEvaluator, epochs: int, study_seed: int) -> Trained:
    seed, began = trial_seed(study_seed, str(network)), time.monotonic()
    try:
        if isinstance(network, MobileNetV3Large):
            curve = evaluate.other(network.build, seed)
        else:
            curve, _ = evaluate(network, seed, 0, epochs, None)
    except TrainingError as failure:
        return Trained(str(network), None, None, (), time.monotonic() - began, str(failure))
    last, errors = curve[-1], tuple(result.error for result in curve)
    return Trained(
        str(network),
        last.error,
        last.error_se,
        errors,
        time.monotonic() - began,
        balanced_error=last.balanced_error,
        balanced_error_se=last.balanced_error_se,
    )


def _write(run: Path, kept: dict[str, Trained]) -> None:
    document = {"trainings": [asdict(one) for one in kept.values()]}
    content = json.dumps(document, indent=2).encode()
    try:
        write_atomically(run / FILE, lambda stream: stream.write(content))
    except OSError as error:
        raise _unwritable(run, error) from None


@contextmanager
def _held(run: Path) -> Iterator[None]:
    lock = filelock.FileLock(run / f"{FILE}.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise LogError(f"{run / FILE} is being written by another process; wait for it, or end it.") from None
    except OSError as error:
        raise _unwritable(run, error) from None
    try:
        yield
    finally:
        lock.release()


def _unwritable(run: Path, error: OSError) -> LogError:
    return LogError(f"{run / FILE} cannot be written ({error.strerror}); mend that and ask again.")
