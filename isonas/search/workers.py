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


class Unexpected(Exception):
    """What a worker's function raised that is no IsonasError: `args[0]`, a mistake in the program.

    Whatever else comes back of a task is of the way there or back.
    """


def called(function: Callable[..., R], *arguments: Any) -> R:
    """Call a worker's function, in its process; raises its IsonasError, or Unexpected."""
    try:
        return function(*arguments)
    except IsonasError:
        raise
    except Exception as error:
        raise Unexpected(error) from error


def not_handed_over(error: BaseException) -> TrainingError:
    """What a task ends with whose arguments or result did not get through."""
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return TrainingError(f"it could not be handed over between processes ({reason})")


@dataclass(frozen=True)
class Task:
    """What one call of the workers' function is given, under a caller's key."""

    key: int
    arguments: tuple[Any, ...]
    attempt: int = 1


class LocalWorkers(Generic[R]):
    """Processes that each call one function; `start()` makes the function, once in each of them.

    A process that dies costs its task alone: the task is tried again in a fresh process, ATTEMPTS
    times in all. One that died with nothing to do is replaced. `gpus` are shared out among the
    processes in turn. Use as a context manager.
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
        """Start a task in a free process; at most `workers` may be in flight.

        Raises TrainingError where the system lets no process be started.
        """
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
                except Unexpected as error:
                    raise error.args[0] from error.__cause__
                except BrokenProcessPool:
                    self._give_up(slot)
                    if task.attempt == ATTEMPTS:
                        return task.key, TrainingError(
                            f"its worker process died {ATTEMPTS} times (out of memory, perhaps)"
                        )
                    self._submit(Task(task.key, task.arguments, task.attempt + 1))
                except Exception as error:
                    return task.key, not_handed_over(error)

    def _submit(self, task: Task) -> None:
        busy = {slot for _, slot in self._running.values()}
        slot = next(slot for slot in range(self.workers) if slot not in busy)
        work = partial(_call, self._start)
        try:
            try:
                future = self._pool(slot).submit(work, *task.arguments)
            except BrokenProcessPool:
                self._give_up(slot)
                future = self._pool(slot).submit(work, *task.arguments)
        except OSError as error:
            raise TrainingError(
                f"no worker process can be started ({error.strerror or error}); mend that, or give fewer "
                "--workers."
            ) from None
        self._running[future] = task, slot

    def _pool(self, slot: int) -> ProcessPoolExecutor:
        pool = self._pools[slot]
        if pool is None:
            pool = self._pools[slot] = ProcessPoolExecutor(
                max_workers=1,
                mp_context=get_context("spawn"),
                initializer=_begin,
                initargs=(self._gpus[slot],),
            )
        return pool

    def _give_up(self, slot: int) -> None:
        """Let go of a process that died; the next task of its slot starts another."""
        pool, self._pools[slot] = self._pools[slot], None
        if pool is not None:
            pool.shutdown(wait=False)


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
        _FUNCTIONS["only"] = called(start)
    found: R = called(_FUNCTIONS["only"], *arguments)
    return found
