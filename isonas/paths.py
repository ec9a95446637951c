"""Paths and YAML files as users give them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path with a leading `~` or `~user` expanded, as a shell does where it sees one.

    Shells leave `--run=~/x` and `folder:~/x` as they are. As in a shell, a user who does not exist and a
    missing home folder leave the tilde in place.
    """
    given = Path(path)
    try:
        return given.expanduser()
    except RuntimeError:
        return given


def read_yaml(path: Path) -> Any:
    """The document of a YAML file, in UTF-8, or in UTF-16 with its byte-order mark.

    Raises OSError, and yaml.YAMLError, ValueError or RecursionError where it is no YAML.
    """
    # PyYAML takes the encoding from the bytes' own mark.
    return yaml.safe_load(path.read_bytes())
