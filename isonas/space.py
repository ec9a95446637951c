"""A search space: for each gene its allowed values, enumerated whole as columns of numbers."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from isonas.errors import GenomeError, SpaceError
from isonas.genome import DEFAULTS, GENES, RANGES, Genome, Stem, parse_se_ratio, parse_stem
from isonas.paths import read_yaml, user_path

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.integer[Any]]

STEMS = tuple(Stem)
LARGEST_PRODUCT = 20_000_000
"""The most combinations a space may span."""

COMBINATION_BYTES = 210
"""Memory that a search takes for each combination of gene values, its proposals included, where all are
feasible (`isonas bench proposals` measures it)."""

CHUNK = 1 << 18
"""Genomes that are worked on at a time, so that what is computed on the way takes little memory."""


@dataclass(frozen=True)
class Columns:
    """n genomes as arrays of n numbers, one array a gene, of the smallest type that holds the gene's values.

    Compute with them in int64. `se_divisor` is the n of an SE ratio 1/n, 0 without SE; `stem` an index
    into `STEMS`.
    """

    depth: Whole
    channels: Whole
    internal_resolution: Whole
    expansion: Whole
    se_divisor: Whole
    stem: Whole
    kernel_size: Whole
    head_multiple: Whole
    head_features: Whole
    shared: Whole

    def __len__(self) -> int:
        return len(self.depth)

    def where(self, mask_or_indices: Bools | Ints | slice) -> Columns:
        """The genomes that a mask, a slice or an array of indices picks."""
        return Columns(*(getattr(self, column.name)[mask_or_indices] for column in fields(Columns)))

    def genome(self, index: int) -> Genome:
        """The genome in one row."""
        row = {column.name: int(getattr(self, column.name)[index]) for column in fields(Columns)}
        divisor = row.pop("se_divisor")
        return Genome(
            stem=STEMS[row.pop("stem")],
            se_ratio=Fraction(1, divisor) if divisor else Fraction(0),
            shared=bool(row.pop("shared")),
            **row,
        )


def columns_of(genomes: Sequence[Genome]) -> Columns:
    """Genomes as columns, in the order given."""

    def column(read: Any) -> Ints:
        return np.array([read(genome) for genome in genomes], dtype=np.int64)

    return Columns(
        depth=column(lambda g: g.depth),
        channels=column(lambda g: g.channels),
        internal_resolution=column(lambda g: g.internal_resolution),
        expansion=column(lambda g: g.expansion),
        se_divisor=column(lambda g: g.se_ratio.denominator if g.se_ratio else 0),
        stem=column(lambda g: STEMS.index(g.stem)),
        kernel_size=column(lambda g: g.kernel_size),
        head_multiple=column(lambda g: g.head_multiple),
        head_features=column(lambda g: g.head_features),
        shared=column(lambda g: int(g.shared)),
    )


@dataclass(frozen=True)
class Excluded:
    """How many combinations of gene values are left out of a space, and why.

    `stem`: the internal resolution is below the deployment input and does not divide it;
    `squeeze`: the SE's squeeze width is not whole; `same_network`: another genome of the space is
    the same network.
    """

    stem: int
    squeeze: int
    same_network: int


@dataclass(frozen=True)
class SearchSpace:
    """For each gene a tuple of allowed values; iterating yields every genome once.

    `input` is the deployment input's side in pixels, `classes` the class count that costs are
    reckoned for unless the data or the user says otherwise; all channel counts are multiples of
    `channel_multiple`. Raises SpaceError for values that cannot be, GenomeError never.
    """

    name: str
    input: int
    classes: int
    channel_multiple: int = 32
    depth: tuple[int, ...] = (DEFAULTS["depth"],)
    channels: tuple[int, ...] = (DEFAULTS["channels"],)
    internal_resolution: tuple[int, ...] = (DEFAULTS["internal_resolution"],)
    expansion: tuple[int, ...] = (DEFAULTS["expansion"],)
    se_ratio: tuple[Fraction, ...] = (DEFAULTS["se_ratio"],)
    stem: tuple[Stem, ...] = (DEFAULTS["stem"],)
    kernel_size: tuple[int, ...] = (DEFAULTS["kernel_size"],)
    head_multiple: tuple[int, ...] = (DEFAULTS["head_multiple"],)
    head_features: tuple[int, ...] = (DEFAULTS["head_features"],)
    shared: tuple[bool, ...] = (DEFAULTS["shared"],)
    description: str = ""

    def __post_init__(self) -> None:
        for key, low in (("input", 1), ("classes", 2), ("channel_multiple", 1)):
            _whole_number(self.name, key, getattr(self, key), low, 1_000_000)
        for gene in GENES:
            values = getattr(self, gene)
            if not values:
                raise SpaceError(f"space {self.name}: {gene} has no values; give at least one.")
            if len(set(values)) != len(values):
                raise SpaceError(f"space {self.name}: {gene} lists a value twice; list each once.")
            for value in values if gene in RANGES else ():
                _whole_number(self.name, gene, value, *RANGES[gene])
        for kernel_size in self.kernel_size:
            if kernel_size % 2 == 0:
                raise SpaceError(f"space {self.name}: kernel_size {kernel_size} is even; give odd sizes.")
        for channels in self.channels:
            if channels % self.channel_multiple:
                raise SpaceError(
                    f"space {self.name}: {channels} channels is not a multiple of "
                    f"{self.channel_multiple}; change it or channel_multiple."
                )
        if self._product() > LARGEST_PRODUCT:
            raise self._too_large(f"at most {LARGEST_PRODUCT:,} can be enumerated")
        fits = any(r >= self.input or self.input % r == 0 for r in self.internal_resolution)
        whole = any(
            ratio == 0 or expansion * channels % ratio.denominator == 0
            for ratio, expansion, channels in product(self.se_ratio, self.expansion, self.channels)
        )
        if not (fits and whole):
            raise SpaceError(
                f"space {self.name} has no genome: no internal resolution of "
                f"{list(self.internal_resolution)} divides input {self.input}, or no squeeze width "
                "is whole; change input, internal_resolution or se_ratio."
            )

    def _product(self) -> int:
        return int(np.prod([len(getattr(self, gene)) for gene in GENES], dtype=object))

    def _too_large(self, limit: str) -> SpaceError:
        combinations = f"{self._product():,} combinations"
        return SpaceError(f"space {self.name} spans {combinations}; {limit}, so list fewer values.")

    def _require_room(self) -> None:
        """Raise SpaceError where this machine's memory does not hold what a search enumerates."""
        needed, memory = self._product() * COMBINATION_BYTES, memory_bytes()
        if memory is not None and needed > memory:
            raise self._too_large(
                f"a search may take {needed / 2**30:.1f} GiB and there are {memory / 2**30:.1f} GiB"
            )

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[Genome]:
        return (self.columns.genome(index) for index in range(len(self)))

    @property
    def columns(self) -> Columns:
        """Every genome of the space once, in the order of the genes' listed values."""
        return self._enumerated[0]

    @property
    def excluded(self) -> Excluded:
        """What the product of the genes' values holds besides the space's genomes."""
        return self._enumerated[1]

    @cached_property
    def _enumerated(self) -> tuple[Columns, Excluded]:
        self._require_room()
        listed = [_smallest(_numbers(gene, getattr(self, gene))) for gene in GENES]
        shape = [len(values) for values in listed]
        combinations = int(np.prod(shape))
        parts, left_out = [], np.zeros(3, np.int64)
        for start in range(0, combinations, CHUNK):
            places = np.unravel_index(np.arange(start, min(start + CHUNK, combinations)), shape)
            every = Columns(*(values[place] for values, place in zip(listed, places, strict=True)))
            fits, whole, twice = self._judged(every)
            left_out += [np.sum(~fits), np.sum(fits & ~whole), np.sum(fits & whole & twice)]
            parts.append(every.where(fits & whole & ~twice))
        columns = (
            np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Columns)
        )
        return Columns(*columns), Excluded(*map(int, left_out))

    def _judged(self, every: Columns) -> tuple[Bools, Bools, Bools]:
        """Of which combinations the stem fits, the squeeze width is whole, the network is another's too."""
        resolution = every.internal_resolution.astype(np.int64)
        fits = (resolution >= self.input) | (self.input % resolution == 0)
        hidden = every.expansion.astype(np.int64) * every.channels
        whole = hidden % np.maximum(every.se_divisor, 1) == 0
        twice = np.zeros(len(every), dtype=np.bool_)
        if Stem.CONV in self.stem:
            twice |= (every.stem == STEMS.index(Stem.RESIZE)) & (resolution >= self.input)
        if False in self.shared:
            twice |= (every.shared == 1) & (every.depth == 1)
        return fits, whole, twice


def memory_bytes() -> int | None:
    """The memory that this process may use: the machine's, or its container's limit; None if unknown."""
    try:
        sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, OSError, ValueError):
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        # "max" where there is none.
        with suppress(OSError, ValueError):
            sizes.append(int(Path(limit).read_text(encoding="ascii")))
    return min(sizes)


def _smallest(values: Sequence[int]) -> Whole:
    return np.array(values, np.min_scalar_type(max(values)))


def _numbers(gene: str, values: tuple[Any, ...]) -> list[int]:
    if gene == "se_ratio":
        return [ratio.denominator if ratio else 0 for ratio in values]
    if gene == "stem":
        return [STEMS.index(stem) for stem in values]
    return [int(value) for value in values]


def _whole_number(space: str, key: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SpaceError(f"space {space}: {key} is {value!r}; give a whole number from {low} to {high}.")


def spaces_folder() -> Path:
    """Where the shipped spaces lie: inside an installed package, beside an editable one."""
    package = Path(__file__).parent
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def load_space(name_or_path: str) -> SearchSpace:
    """The shipped space of that name, or the one in that YAML file.

    Raises SpaceError where there is neither, or the file is not a search space.
    """
    shipped = {path.stem: path for path in spaces_folder().glob("*.yaml")}
    path = shipped.get(name_or_path, user_path(name_or_path))
    try:
        document = read_yaml(path)
    except OSError as error:
        near = difflib.get_close_matches(name_or_path, shipped, n=1, cutoff=0.6)
        raise SpaceError(
            f"no search space {name_or_path!r} ({error.strerror}); "
            + (f"did you mean {near[0]}? " if near else "")
            + f"Give one of {', '.join(sorted(shipped))}, or the path of a YAML file."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise SpaceError(f"{path} is not YAML{where} ({reason}); mend the file.") from None
    return parse_space(document, name=path.stem)


def parse_space(document: object, name: str) -> SearchSpace:
    """The space that a YAML document describes; `name` serves where the document has none.

    Raises SpaceError for unknown keys (naming the nearest known one), missing keys and bad values.
    """
    known = ("name", "input", "classes", "channel_multiple", "genes", "description")
    top = _mapping(document, f"space {name}", known)
    for key in ("input", "classes", "genes"):
        if key not in top:
            raise SpaceError(f"space {name}: {key} is missing; give {', '.join(known[1:5])}.")
    name = str(top.pop("name", name))
    genes = _mapping(top.pop("genes"), f"space {name}, genes", GENES)
    values = {gene: _values(name, gene, listed) for gene, listed in genes.items()}
    description = str(top.pop("description", ""))
    return SearchSpace(name=name, description=description, **{**top, **values})


def _mapping(document: object, where: str, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise SpaceError(f"{where}: a mapping with the keys {', '.join(known)} is wanted.")
    for key in document:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
            if key in GENES:
                hint = "genes belong under the key genes."
            raise SpaceError(f"{where}: {key!r} is unknown; {hint}")
    return dict(document)


def _values(space: str, gene: str, listed: object) -> tuple[Any, ...]:
    if not isinstance(listed, list):
        raise SpaceError(f"space {space}: {gene} is {listed!r}; give a list, such as [{listed}].")
    if not all(isinstance(value, bool | int | float | str) for value in listed):
        raise SpaceError(f"space {space}: {gene} is {listed!r}; give a flat list of values.")
    try:
        if gene == "se_ratio":
            return tuple(parse_se_ratio(value) for value in listed)
        if gene == "stem":
            return tuple(parse_stem(value) for value in listed)
    except GenomeError as error:
        raise SpaceError(f"space {space}: {error}") from None
    if gene == "shared" and not all(isinstance(value, bool) for value in listed):
        raise SpaceError(f"space {space}: shared is {listed!r}; list true, false or both.")
    return tuple(listed)


def space_document(space: SearchSpace) -> dict[str, Any]:
    """The YAML document of a space: `parse_space(space_document(s), "") == s`."""
    genes = {
        gene: [str(value) if gene in ("se_ratio", "stem") else value for value in getattr(space, gene)]
        for gene in GENES
    }
    return {
        "name": space.name,
        "input": space.input,
        "classes": space.classes,
        "channel_multiple": space.channel_multiple,
        "genes": genes,
        "description": space.description,
    }
