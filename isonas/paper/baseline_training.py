"""Training baselines as a run trains its genomes; what came of it is kept in RUN/baselines.json."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import filelock

from isonas.atomic import write_atomically
from isonas.errors import LogError, TrainingError
from isonas.evaluation import Curve, trial_seed
from isonas.paper.baselines import MobileNetV3Large, Network
from isonas.paper.scales import MOBILENETV3_RATES
from isonas.report.front import Baseline
from isonas.training.proxy import ProxyEvaluator
from isonas.training.version import TRAINING_VERSION, require_this_version

FILE = "baselines.json"


@dataclass(frozen=True)
class Trained:
    """What a run's proxy made of a network: its error after the last epoch, or the reason of a failure.

    Errors are as in the run's log: on its validation images, `…_se` binomial. `peak_rate` is the peak
    learning rate at batch size 32, the best of those whose errors are `errors_by_rate` (None: failed); a
    genome has the run's own and tries no other. `seconds` are those of all its trainings.
    """

    network: str
    error: float | None
    error_se: float | None
    curve_error: tuple[float, ...]
    seconds: float
    reason: str | None = None
    balanced_error: float | None = None
    balanced_error_se: float | None = None
    peak_rate: float | None = None
    errors_by_rate: tuple[tuple[float, float | None], ...] = ()


def train_baselines(
    run: Path,
    networks: Sequence[Network],
    evaluate: ProxyEvaluator,
    *,
    epochs: int,
    study_seed: int,
    objective: str = "error",
) -> Iterator[Trained]:
    """Train those networks that the run has no error of yet, and keep each result as it comes.

    A genome is trained exactly as a trial of the run; any other network for as many epochs on the same
    images, which reach it at their full size and upsampled to the deployment input. The run's peak
    learning rate was chosen for isometric networks, so every other network is trained at each of
    MOBILENETV3_RATES, and the lowest validation error (of the `objective`'s kind) counts: of several noisy
    errors, which favours the baseline. One that failed before is tried again. Raises LogError where the
    folder cannot be used, RunError where its trainings are of another training version.
    """
    with _held(run):
        require_this_version(run / FILE, _read(run)[0], "remove it to train them anew")
        kept = read_trained(run)
        for network in networks:
            known = kept.get(str(network))
            if known is None or known.error is None:
                kept[str(network)] = trained = _train(network, evaluate, epochs, study_seed, objective)
                _write(run, kept)
                yield trained


def read_trained(run: Path) -> dict[str, Trained]:
    """What the run knows of baselines, by network; raises LogError for a file that is damaged."""
    return _read(run)[1]


def _read(run: Path) -> tuple[int, dict[str, Trained]]:
    """The training version of what is kept, and the trainings by network."""
    path = run / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = [_trained(one) for one in document["trainings"]]
        version = int(document.get("training_version", 1))
    except FileNotFoundError:
        return TRAINING_VERSION, {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogError(f"{path} cannot be read ({error}); remove it to train them anew.") from None
    return version, {one.network: one for one in found}


def _trained(row: dict[str, Any]) -> Trained:
    rates = tuple((rate, error) for rate, error in row.get("errors_by_rate", ()))
    return Trained(**{**row, "curve_error": tuple(row["curve_error"]), "errors_by_rate": rates})


def with_errors(baselines: Sequence[Baseline], trained: dict[str, Trained]) -> list[Baseline]:
    """The baselines with the errors that are known of them."""
    return [
        replace(
            one,
            error=known.error,
            error_se=known.error_se,
            balanced_error=known.balanced_error,
            balanced_error_se=known.balanced_error_se,
            peak_rate=known.peak_rate,
        )
        if (known := trained.get(one.network))
        else one
        for one in baselines
    ]


def _train(
    network: Network, evaluate: ProxyEvaluator, epochs: int, study_seed: int, objective: str
) -> Trained:
    """A genome trained once, another network at every rate: the best, or the reason of the last failure.

    The best has the lowest error of the kind that the run minimises, `objective`.
    """
    name, seed, began = str(network), trial_seed(study_seed, str(network)), time.monotonic()
    rates = MOBILENETV3_RATES if isinstance(network, MobileNetV3Large) else (None,)
    curves: dict[float | None, Curve] = {}
    reason = None
    for rate in rates:
        try:
            curves[rate] = _curve(network, evaluate, epochs, seed, rate)
        except TrainingError as failure:
            reason = str(failure)
    seconds = time.monotonic() - began
    if not curves:
        return Trained(name, None, None, (), seconds, reason)

    def error_at(rate: float | None) -> float:
        last = curves[rate][-1]
        return last.error if last.balanced_error is None or objective == "error" else last.balanced_error

    best = min(curves, key=error_at)
    curve = curves[best]
    last, errors = curve[-1], tuple(result.error for result in curve)
    by_rate = tuple((rate, error_at(rate) if rate in curves else None) for rate in rates if rate)
    return Trained(
        name,
        last.error,
        last.error_se,
        errors,
        seconds,
        balanced_error=last.balanced_error,
        balanced_error_se=last.balanced_error_se,
        peak_rate=best,
        errors_by_rate=by_rate,
    )


def _curve(network: Network, evaluate: ProxyEvaluator, epochs: int, seed: int, rate: float | None) -> Curve:
    if isinstance(network, MobileNetV3Large):
        return evaluate.other(network.build, seed, rate)
    return evaluate(network, seed, 0, epochs, None)[0]


def _write(run: Path, kept: dict[str, Trained]) -> None:
    document = {"training_version": TRAINING_VERSION, "trainings": [asdict(one) for one in kept.values()]}
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
