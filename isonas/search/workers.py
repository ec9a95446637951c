"""Work done in other processes of this machine, one task at a time each."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from types import TracebackType
from typing import Any, Generic, TypeVar

from isonas.errors import IsonasError, TrainingError

R = TypeVar("R")
ATTEMPTS = 3


@dataclass(frozen=True)
class Task:
    """What one call of the workers' function is given, under a caller's key."""

    key: int
    arguments: tuple[Any, ...]
    attempt: int = 1


class LocalWorkers(Generic[R]):
    """Processes that each call one function; `start()` makes the function, once in each of them.

    A process that dies costs its task alone: the task is tried again in a fresh process, ATTEMPTS
    times in all. `gpus` are shared out among the processes in turn. Use as a context manager.
    """

    def __init__(
        self, start: Callable[[], Callable[..., R]], workers: int, *, gpus: Sequence[str] = ()
    ) -> None:
        self.workers = workers
        self._start = start
        self._gpus = [gpus[slot % len(gpus)] if gpus else None for slot in range(workers)]
        self._pools: list[ProcessPoolExecutor | None] = [None] * workers
        self._running: dict[Future[R], tuple[Task, int]] = {}

    def __enter__(self) -> LocalWorkers[R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in filter(None, self._pools):
            if kind is not None:
                for process in list((pool._processes or {}).values()):
                    process.terminate()
            pool.shutdown(wait=kind is None, cancel_futures=True)

    def submit(self, key: int, *arguments: Any) -> None:
        """Start a task in a free process; at most `workers` may be in flight."""
        self._submit(Task(key, arguments))

    def next(self) -> tuple[int, R | IsonasError]:
        """Wait for a task to end: its key, and what it returned, or the error that it raised."""
        while True:
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                task, slot = self._running.pop(future)
                try:
                    return task.key, future.result()
                except IsonasError as error:
                    return task.key, error
                except BrokenProcessPool:
                    pool, self._pools[slot] = self._pools[slot], None
                    if pool is not None:
                        pool.shutdown(wait=False)
                    if task.attempt == ATTEMPTS:
                        return task.key, TrainingError(
                            f"its worker process died {ATTEMPTS} times (out of memory, perhaps)"
                        )
                    self._submit(Task(task.key, task.arguments, task.attempt + 1))

    def _submit(self, task: Task) -> None:
        busy = {slot for _, slot in self._running.values()}
        slot = next(slot for slot in range(self.workers) if slot not in busy)
        pool = self._pools[slot]
        if pool is None:
            pool = ProcessPoolExecutor(
                max_workers=1,
                mp_context=get_context("spawn"),
                initializer=_begin,
                initargs=(self._gpus[slot],),
            )
            self._pools[slot] = pool
        self._running[pool.submit(partial(_call, self._start), *task.arguments)] = task, slot


_FUNCTIONS: dict[Any, Callable[..., Any]] = {}


def _begin(gpu: str | None) -> None:
    # Ctrl-C reaches every process of the terminal; the parent decides what becomes of the work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, and their queues would keep them waiting for ever."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _call(start: Callable[[], Callable[..., R]], *arguments: Any) -> R:
    if not _FUNCTIONS:
        _FUNCTIONS["only"] = start()
    found: R = _FUNCTIONS["only"](*arguments)
    return found
