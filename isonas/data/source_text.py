"""The text of a source beyond its path: options at its end, and signs that cannot be written down."""

from __future__ import annotations

import re
from urllib.parse import unquote

from isonas.errors import UsageError


def with_options(text: str, known: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The path of `PATH?key=value&key=value`, and the options; `known` says of each key what it takes.

    A `?` that no key and `=` follow belongs to the path, as in a glob; in values `%26` is `&`. Raises
    UsageError for a key that is not known.
    """
    match = re.search(r"\?(\w+=[^&?]*(?:&\w+=[^&?]*)*)$", text)
    if match is None:
        return text, {}
    options = dict(pair.split("=", 1) for pair in match[1].split("&"))
    if unknown := [key for key in options if key not in known]:
        allowed = " and ".join(f"?{key}={value}" for key, value in known.items())
        raise UsageError(
            f"--data …{match[0]} has the option {unknown[0]!r}; its kind of source has {allowed}."
        )
    return text[: match.start()], {key: unquote(value) for key, value in options.items()}


def printable(name: str) -> str:
    r"""A file's name as text that any encoding of Unicode can write: bytes that are none become `\xNN`."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def some(names: list[str] | tuple[str, ...], most: int = 5) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(printable(name) for name in names[:most]) + more
