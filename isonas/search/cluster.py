"""Trainings as tasks on a Ray cluster. The driver alone asks, tells and writes the log."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy.typing as npt

from isonas.errors import IsonasError, TrainingError, UsageError
from isonas.evaluation import Evaluate, TrainingState
from isonas.search.engines import Outcome
from isonas.search.workers import ATTEMPTS, Unexpected, called, not_handed_over


@dataclass(frozen=True)
class RemoteState:
    """A training state that stays in the cluster's object store until its weights are asked for."""

    reference: Any

    def weights(self) -> Mapping[str, npt.NDArray[Any]]:
        """The network's parameters and buffers by name; raises TrainingError where the cluster lost them."""
        import ray

        try:
            state: TrainingState = ray.get(self.reference)
        except ray.exceptions.RayError as error:
            raise not_handed_over(error) from None
        return state.weights()


class RayWorkers:
    """Trains on the Ray cluster that runs here or that RAY_ADDRESS names, else on one of its own.

    `shipped` (the images) goes to each node once, through Ray's object store; `start(shipped)` makes
    the `Evaluate` once in each worker process, where isonas must be installed. A training takes `cpus`
    and `gpus` (fractions allowed). One whose worker or node dies is tried again, ATTEMPTS times in all.
    A process that has used a GPU keeps to it, whatever GPU its next training would be given; so with
    `gpus` every training has a process of its own.
    Raises UsageError where Ray is not installed or the cluster cannot be reached. Use as a context
    manager.
    """

    def __init__(
        self,
        start: Callable[[Any], Evaluate],
        shipped: Any,
        *,
        cpus: float,
        gpus: float = 0.0,
        workers: int | None = None,
    ) -> None:
        self._ray = ray = _connected()
        self._cpus, self._gpus, self._limit = cpus, gpus, workers
        self._shipped = ray.put(shipped)
        self._start = ray.put(start)
        self._key = self._shipped.hex()
        self._task = ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_retries=ATTEMPTS - 1,
            num_returns=2,
            max_calls=1 if gpus else 0,
        )(_train)
        self._running: dict[Any, tuple[int, Any]] = {}

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()

    @property
    def workers(self) -> int:
        """As many trainings as the cluster has room for just now, at least one and no more than asked."""
        resources = self._ray.cluster_resources()
        room = int(resources.get("CPU", 0) / self._cpus + 1e-9)
        if self._gpus:
            room = min(room, int(resources.get("GPU", 0) / self._gpus + 1e-9))
        return max(min(room, self._limit or room), 1)

    def submit(self, key: int, *arguments: object) -> None:
        """Start a training wherever there is room."""
        plain = [one.reference if isinstance(one, RemoteState) else one for one in arguments]
        curve, state = self._task.remote(self._key, self._start, self._shipped, *plain)
        self._running[curve] = key, state

    def next(self) -> tuple[int, Outcome]:
        """Wait for a training to end: its key, and its result or the error that it raised."""
        ray = self._ray
        (curve, *_), _ = ray.wait(list(self._running), num_returns=1)
        key, state = self._running.pop(curve)
        try:
            return key, (ray.get(curve), RemoteState(state))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, IsonasError):
                return key, error.cause
            if isinstance(error.cause, Unexpected):
                raise error.cause.args[0] from error
            return key, not_handed_over(error.cause)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return key, TrainingError(f"its worker died {ATTEMPTS} times ({reason})")


_EVALUATES: dict[str, Evaluate] = {}


def _train(key: str, start: Callable[[Any], Evaluate], shipped: Any, *arguments: Any) -> Any:
    if key not in _EVALUATES:
        _EVALUATES.clear()
        _EVALUATES[key] = called(start, shipped)
    return called(_EVALUATES[key], *arguments)


def _connected() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray needs Ray; pip install 'isonas[ray]'.") from None
    if (address := os.environ.get("RAY_ADDRESS", "")) and not _answers(address):
        raise UsageError(
            f"no Ray cluster answers at RAY_ADDRESS {address}; start one with ray start --head, or unset "
            "RAY_ADDRESS to train on this machine."
        )
    with warnings.catch_warnings():
        # Of accelerators' visibility and of its own defaults to come: nothing that a user can act on.
        warnings.simplefilter("ignore")
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, namespace="isonas")
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"Ray cannot be started ({reason}); mend that, or use --engine local.") from None
    return ray


def _answers(address: str) -> bool:
    """Whether somebody listens at host:port; Ray itself would try for minutes. Others are Ray's to find."""
    host, colon, port = address.rpartition(":")
    if "://" in host or not colon or not port.isdecimal():
        return True
    try:
        with socket.create_connection((host, int(port)), timeout=10):
            return True
    except OSError:
        return False
