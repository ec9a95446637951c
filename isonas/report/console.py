"""Where tables and messages are printed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_WIDEST_TABLE = 132


def console(*, stderr: bool = False) -> Console:
    """A console that never cuts a table: a narrow terminal wraps its lines instead."""
    width = max(shutil.get_terminal_size().columns, _WIDEST_TABLE)
    # Names of spaces, paths and reasons are text, whatever brackets they hold.
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False, width=width)


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Draw a progress bar on the standard error; yields what is called for each one done."""
    columns = (
        TextColumn("{task.completed}/{task.total} " + what),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)
