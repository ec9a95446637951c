"""Export folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isonas.errors import ExportError, UsageError


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its place once everything in it is written.

    Raises UsageError where the folder exists, ExportError where it cannot be written.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists; remove it, or give another folder with --output DIR.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            yield part
            part.chmod(0o755)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise ExportError(
            f"{folder} cannot be written ({error.strerror or error}); mend that, or give another folder with "
            "--output DIR."
        ) from None


def write_json(path: Path, document: dict[str, Any]) -> None:
    """A document as indented JSON."""
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def digest_of(path: Path) -> dict[str, Any]:
    """A written file's size in bytes and its SHA-256."""
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
