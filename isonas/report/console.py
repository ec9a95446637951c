"""Where tables and messages are printed."""

from __future__ import annotations

import shutil

from rich.console import Console

_WIDEST_TABLE = 132


def console(*, stderr: bool = False) -> Console:
    """A console that never cuts a table: a narrow terminal wraps its lines instead."""
    width = max(shutil.get_terminal_size().columns, _WIDEST_TABLE)
    # Names of spaces, paths and reasons are text, whatever brackets they hold.
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False, width=width)
