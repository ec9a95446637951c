"""A search space enumerates every genome once and says what it leaves out."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import isonas.space
from isonas.cost import Deployment, DType, MemoryModel
from isonas.errors import GenomeError, SpaceError
from isonas.genome import GENES, Genome, Stem, canonical, stem_block
from isonas.hardware import Budget, costs
from isonas.space import (
    SearchSpace,
    columns_of,
    load_space,
    parse_space,
    space_document,
    spaces_folder,
)
from tests.strategies import genomes

SIZES = {"quick": 864, "tiny": 288, "mcu": 20_736, "imagenet": 57_600, "paper": 36}


@st.composite
def small_spaces(draw: st.DrawFn) -> SearchSpace:
    """Spaces with every kind of exclusion: odd inputs, odd squeezes, stems at k = 1, shared depth 1."""

    def some(values: list[Any]) -> tuple[Any, ...]:
        return tuple(draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)))

    try:
        return SearchSpace(
            name="drawn",
            input=draw(st.sampled_from([7, 8, 14, 28])),
            classes=10,
            channel_multiple=2,
            depth=some([1, 2, 3]),
            channels=some([2, 4, 6]),
            internal_resolution=some([1, 4, 7, 8, 14]),
            expansion=some([1, 3, 4]),
            se_ratio=some([Fraction(0), Fraction(1, 4), Fraction(1, 3)]),
            stem=some(list(Stem)),
            shared=some([False, True]),
        )
    except SpaceError:
        return SearchSpace(name="one", input=8, classes=10, internal_resolution=(8,))


def brute_force(space: SearchSpace) -> tuple[set[Genome], int]:
    """The networks of a space one combination at a time, and how many combinations there are."""
    networks: dict[Genome, Genome] = {}
    combinations = list(itertools.product(*(getattr(space, gene) for gene in GENES)))
    for values in combinations:
        try:
            genome = Genome(*values)
            stem_block(genome, space.input)
        except GenomeError:
            continue
        networks.setdefault(canonical(genome, space.input), genome)
    return set(networks), len(combinations)


@given(small_spaces())
@settings(max_examples=200)
def test_enumeration_is_the_brute_force_one(space: SearchSpace) -> None:
    networks, combinations = brute_force(space)
    listed = list(space)
    assert {canonical(genome, space.input) for genome in listed} == networks
    assert len(space) == len(listed) == len(networks)
    excluded = space.excluded
    assert len(space) + excluded.stem + excluded.squeeze + excluded.same_network == combinations


@given(st.lists(genomes(), min_size=1, max_size=5))
def test_columns_hold_genomes(listed: list[Genome]) -> None:
    columns = columns_of(listed)
    assert [columns.genome(index) for index in range(len(columns))] == listed


@given(small_spaces())
def test_documents_are_read_back(space: SearchSpace) -> None:
    text = yaml.safe_dump(space_document(space))
    assert parse_space(yaml.safe_load(text), name="other") == space


def test_every_shipped_space_has_its_golden_size() -> None:
    assert {path.stem for path in spaces_folder().glob("*.yaml")} == set(SIZES)
    for name, size in SIZES.items():
        space = load_space(name)
        assert (space.name, len(space)) == (name, size)
        assert space.description


@pytest.mark.parametrize("place", ["installed", "checkout"])
def test_shipped_spaces_are_found_from_anywhere(place: str, tmp_path: Path) -> None:
    environment = dict(os.environ)
    if place == "checkout":
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    code = "from isonas.space import load_space; print(len(load_space('quick')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(SIZES["quick"])


GOOD: dict[str, Any] = {"input": 32, "classes": 10, "genes": {"depth": [2], "internal_resolution": [8]}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"genes": {"chanels": [32]}}, "'chanels' is unknown; did you mean channels?"),
        ({"inputs": 32}, "'inputs' is unknown; did you mean input?"),
        ({"genes": {"channels": [48]}}, "48 channels is not a multiple of 32"),
        ({"genes": {"depth": 4}}, r"depth is 4; give a list, such as \[4\]"),
        ({"genes": {"depth": []}}, "depth has no values"),
        ({"genes": {"depth": [2, 2]}}, "depth lists a value twice"),
        ({"genes": {"depth": [[2]]}}, "give a flat list"),
        ({"genes": {"depth": [{2}]}}, "give a flat list"),
        ({"genes": {"depth": [None]}}, "give a flat list"),
        ({"genes": {"se_ratio": [0.0001]}}, "se_ratio is 0.0001; give 0 or 1/n"),
        ({"genes": {"depth": [2.5]}}, "depth is 2.5; give a whole number from 1 to 1000"),
        ({"genes": {"depth": [0]}}, "depth is 0"),
        ({"genes": {"stem": ["s2b"]}}, "stem 's2b' is unknown; choose one of s2d, conv, resize"),
        ({"genes": {"se_ratio": [0.3]}}, "se_ratio is 0.3; give 0 or 1/n"),
        ({"genes": {"shared": ["yes"]}}, "list true, false or both"),
        ({"genes": {"kernel_size": [4]}}, "kernel_size 4 is even"),
        ({"genes": {"internal_resolution": [7]}}, "has no genome"),
        ({"genes": ["depth"]}, "a mapping with the keys"),
        ({"input": None}, "input is None; give a whole number"),
        ({"classes": 1}, "classes is 1"),
    ],
)
def test_bad_documents_are_refused_in_a_sentence(change: dict[str, Any], says: str) -> None:
    with pytest.raises(SpaceError, match=says):
        parse_space({**GOOD, **change}, name="bad")


@pytest.mark.parametrize("key", ["input", "classes", "genes"])
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(SpaceError, match=f"{key} is missing"):
        parse_space({name: value for name, value in GOOD.items() if name != key}, name="bad")


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_mapping_is_refused(document: object) -> None:
    with pytest.raises(SpaceError, match="a mapping with the keys"):
        parse_space(document, name="bad")


def test_a_space_too_large_to_enumerate_is_refused_before_it_is() -> None:
    with pytest.raises(SpaceError, match="at most 20,000,000"):
        SearchSpace(
            name="huge",
            input=224,
            classes=10,
            depth=tuple(range(1, 1001)),
            channels=tuple(range(32, 4096, 32)),
            internal_resolution=tuple(range(1, 225)),
        )


def test_files_that_are_no_space(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="no search space 'nowhere'"):
        load_space("nowhere")
    broken = tmp_path / "broken.yaml"
    broken.write_text("genes: [", encoding="utf-8")
    with pytest.raises(SpaceError, match="is not YAML"):
        load_space(str(broken))
    for text in ("description: 2024-13-01", f"input: {'9' * 5000}", "[" * 5000):
        broken.write_text(text, encoding="utf-8")
        with pytest.raises(SpaceError, match="is not YAML"):
            load_space(str(broken))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpaceError, match="is not YAML"):
        load_space(str(binary))


def test_a_space_that_memory_does_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    genes: dict[str, Any] = {"depth": tuple(range(1, 101)), "internal_resolution": (8,)}
    needed = 100 * isonas.space.COMBINATION_BYTES
    monkeypatch.setattr(isonas.space, "memory_bytes", lambda: needed)
    assert len(SearchSpace(name="fits", input=32, classes=10, **genes)) == 100
    for memory, refused in ((needed - 1, True), (None, False)):
        monkeypatch.setattr(isonas.space, "memory_bytes", lambda memory=memory: memory)
        with (
            pytest.raises(SpaceError, match=r"spans 100 combinations; a search may take .* list fewer")
            if (refused)
            else nullcontext()
        ):
            # A space is refused where it is enumerated; a run of it can be read anywhere.
            len(SearchSpace(name="large", input=32, classes=10, **genes))


def test_small_columns_cost_what_whole_numbers_cost() -> None:
    """The largest values of every gene: nothing overflows the small types that columns are kept in."""
    space = SearchSpace(
        name="largest",
        input=512,
        classes=1000,
        channel_multiple=1,
        depth=(1, 1000),
        channels=(255, 4096),
        internal_resolution=(255, 256, 512),
        expansion=(15, 16),
        se_ratio=(Fraction(0), Fraction(1, 3), Fraction(1, 4)),
        stem=tuple(Stem),
        kernel_size=(3, 31),
        head_multiple=(1, 64),
        head_features=(0, 65536),
        shared=(False, True),
    )
    exact = columns_of(list(space))
    for budget in (Budget(), Budget(dtype=DType.FP32, memory_model=MemoryModel.EXECUTORCH)):
        small, whole = (costs(columns, Deployment(512, 1000), budget) for columns in (space.columns, exact))
        for name, values in vars(whole).items():
            np.testing.assert_array_equal(getattr(small, name), values)
    assert {values.dtype.itemsize for values in vars(space.columns).values()} <= {1, 2, 4}


def test_enumeration_does_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_space("quick")
    monkeypatch.setattr(isonas.space, "CHUNK", 100)
    assert list(replace(whole)) == list(whole)
    assert replace(whole).excluded == whole.excluded
