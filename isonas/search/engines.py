"""Who trains: the contract between a search and its workers, and the simplest keeper of it."""

from __future__ import annotations

from typing import Protocol

from isonas.errors import IsonasError
from isonas.evaluation import Curve, Evaluate, TrainingState

Outcome = tuple[Curve, TrainingState] | IsonasError


class Engine(Protocol):
    """Calls of one `Evaluate`, at most `workers` of them in flight."""

    @property
    def workers(self) -> int:
        """How many trainings may be in flight."""

    def submit(self, key: int, *arguments: object) -> None:
        """Start `evaluate(*arguments)` under a key."""

    def next(self) -> tuple[int, Outcome]:
        """Wait for one to end: its key, and its result or the error that it raised."""


class Inline:
    """Trains in this process, one after the other."""

    workers = 1

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._waiting: list[tuple[int, tuple[object, ...]]] = []

    def submit(self, key: int, *arguments: object) -> None:
        """Note a call; `next` makes it."""
        self._waiting.append((key, arguments))

    def next(self) -> tuple[int, Outcome]:
        """Make the call that was noted first."""
        key, arguments = self._waiting.pop(0)
        try:
            return key, self._evaluate(*arguments)  # type: ignore[arg-type]
        except IsonasError as error:
            return key, error
