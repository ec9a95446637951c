"""`isonas bench`."""

from __future__ import annotations

import json

import click

from isonas.cli.options import json_option


@click.group()
def bench() -> None:
    """Measure isonas itself.

    \b
    Example:
      isonas bench cost
    """
