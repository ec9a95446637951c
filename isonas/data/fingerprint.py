"""A digest of files' content, taken once: afterwards a glance at each file's times and size is enough."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from isonas.data.store import Array, cached

Groups = Sequence[tuple[str, Sequence[str]]]
"""Absolute paths of files in order, some at a time, each time under a heading."""

_CHUNK = 1024
_TOLD_FROM_BYTES = 2**30
_TICK_SECONDS = 2


def fingerprint(groups: Groups, cache: Path) -> str:
    """32 hexadecimal digits of the files' content, their order and their headings.

    Kept in the `cache` folder for as long as every file keeps its path, size and times of change. A
    file that cannot be read counts as empty; whoever decodes it says so. Raises DataError where the
    cache cannot be written.
    """
    listing = hashlib.blake2b(digest_size=16)
    total, latest = 0, 0.0
    for heading, files in groups:
        listing.update(f"{heading} {len(files)}\n".encode(errors="surrogateescape"))
        for file in files:
            try:
                status = Path(file).stat()
            except OSError:
                continue
            # The time of the last change of any kind as well: nobody can set it back.
            times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
            listing.update(f"{file} {times}\n".encode(errors="surrogateescape"))
            total += status.st_size
            latest = max(latest, status.st_mtime, status.st_ctime)

    def digest() -> tuple[Array, ...]:
        if total >= _TOLD_FROM_BYTES:
            count = sum(len(files) for _, files in groups)
            print(
                f"isonas: reading {count:,} files, {total / 2**20:,.0f} MiB, to know them again",
                file=sys.stderr,
                flush=True,
            )
        whole = hashlib.blake2b(digest_size=16)
        with ThreadPoolExecutor() as pool:
            for heading, files in groups:
                whole.update(f"{heading} {len(files)}".encode(errors="surrogateescape"))
                for content in _digests(files, pool):
                    whole.update(content)
        return (np.frombuffer(whole.digest(), np.uint8),)

    # A file that changed just now may change again before its clock has ticked.
    settled = time.time() - latest > _TICK_SECONDS
    found = cached(cache, f"content-{listing.hexdigest()}", digest) if settled else digest()
    return found[0].tobytes().hex()


def _digests(files: Sequence[str], pool: ThreadPoolExecutor) -> Iterator[bytes]:
    # A pool's map takes all of its input at once, and a million files are not to be open questions.
    for start in range(0, len(files), _CHUNK):
        yield from pool.map(_digest, files[start : start + _CHUNK])


def _digest(file: str) -> bytes:
    try:
        with Path(file).open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").digest()
    except OSError:
        return hashlib.blake2b().digest()
