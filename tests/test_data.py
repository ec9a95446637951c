"""Every source yields the images that are in it, and splits are fair."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from isonas.data import clutter as clutter_module
from isonas.data.augment import MEAN, STD, augment, normalise
from isonas.data.clutter import clutter
from isonas.data.dataset import Images, Labels, split_validation
from isonas.data.digits import digits
from isonas.data.resize import area_weights, downsample
from isonas.data.sources import EMBEDDED, open_dataset
from isonas.data.store import cached, stored
from isonas.data.synthetic import synthetic
from isonas.errors import DataError, UsageError

Pixels = npt.NDArray[np.uint8]


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_embedded_sources_keep_the_contract(name: str, tmp_path: Path) -> None:
    data = open_dataset(name, tmp_path)
    again = open_dataset(name, tmp_path)
    assert data.source == name
    assert data.fingerprint == again.fingerprint
    assert data.held_back is not None
    for images in (data.train, data.held_back):
        assert images.pixels.dtype == np.uint8
        assert images.pixels.shape == (len(images), 3, images.side, images.side)
        assert set(images.labels.tolist()) == set(range(data.classes))
    np.testing.assert_array_equal(data.train.pixels, again.train.pixels)


def test_digits_are_scikit_learns() -> None:
    data, raw = digits(), load_digits()
    assert data.held_back is not None
    assert len(data.train) + len(data.held_back) == len(raw.target) == 1797
    known = {
        (image.astype(int).tobytes(), int(label)) for image, label in zip(raw.images, raw.target, strict=True)
    }
    for pixels, label in zip(data.train.pixels, data.train.labels, strict=True):
        assert (pixels == pixels[0]).all()
        sixteenths = np.rint(pixels[0] / 255 * 16).astype(int)
        assert (sixteenths.tobytes(), int(label)) in known


def test_cluttered_training_and_test_digits_are_disjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[bytes]] = []
    draw = clutter_module._draw

    def spy(pool: Any, *rest: Any) -> tuple[Pixels, Labels]:
        seen.append({digit.tobytes() for digits, _ in pool for digit in digits})
        return draw(pool, *rest)

    monkeypatch.setattr(clutter_module, "_draw", spy)
    data = clutter(train_images=40, test_images=20)
    assert (len(data.train), data.classes) == (40, 10)
    train, test = seen
    assert not train & test
    assert len(train) > 2 * len(test)


def test_cluttered_validation_images_share_no_digit_with_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every digit that is turned, as the image's own or as a fragment, is noted for the image it is in."""
    used: list[set[bytes]] = []
    background, turned = clutter_module._background, clutter_module._turned

    def next_image(*arguments: Any) -> Any:
        used.append(set())
        return background(*arguments)

    def note(digit: Any, *rest: Any) -> Any:
        used[-1].add(digit.tobytes())
        return turned(digit, *rest)

    monkeypatch.setattr(clutter_module, "_background", next_image)
    monkeypatch.setattr(clutter_module, "_turned", note)
    data = clutter(train_images=1000, test_images=50)
    train, validation, test = (
        set().union(*(used[row] for row in rows))
        for rows in (*split_validation(data.train, 5), range(1000, 1050))
    )
    assert not train & validation
    assert not (train | validation) & test
    _, carved = split_validation(data.train, 5)
    assert len(carved) == 200
    assert np.bincount(data.train.labels[carved], minlength=10).min() >= 10
    assert carved.tolist() != split_validation(data.train, 6)[1].tolist()


def encoded(pixels: Pixels, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def write_parquet(
    path: Path,
    images: list[Any],
    labels: list[Any],
    names: list[str] | None = None,
    plain: bool = False,
    columns: tuple[str, str] = ("image", "label"),
) -> None:
    """A file as the `datasets` library writes it: a struct of bytes and path, names in the metadata."""
    kind = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = images if plain else [{"bytes": image, "path": None} for image in images]
    table = pa.table({columns[0]: pa.array(values, kind), columns[1]: pa.array(labels, pa.int64())})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=3)


@pytest.fixture
def pictures() -> list[Pixels]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(10)]


@pytest.mark.parametrize("plain", [False, True])
def test_parquet_gives_the_pixels_that_were_written(
    tmp_path: Path, pictures: list[Pixels], plain: bool
) -> None:
    labels = [0, 1] * 5
    write_parquet(tmp_path / "train-00000.parquet", [encoded(p) for p in pictures], labels, ["a", "b"], plain)
    grey = [encoded(picture[..., 0]) for picture in pictures[:4]]
    write_parquet(tmp_path / "validation-00000.parquet", grey, labels[:4], ["a", "b"], plain)
    for _ in ("decoded", "from the cache"):
        data = open_dataset(f"parquet:{tmp_path}", tmp_path / "cache")
        np.testing.assert_array_equal(data.train.pixels, np.stack(pictures).transpose(0, 3, 1, 2))
        assert data.train.labels.tolist() == labels
        assert data.held_back is not None
        for pixels, picture in zip(data.held_back.pixels, pictures, strict=False):
            np.testing.assert_array_equal(pixels, np.stack([picture[..., 0]] * 3))
        assert data.class_names == ("a", "b")
    file = open_dataset(f"parquet:{tmp_path / 'train-00000.parquet'}", tmp_path / "cache")
    assert file.held_back is None
    globbed = open_dataset(f"parquet:{tmp_path}/train*.parquet", tmp_path / "cache")
    assert globbed.fingerprint == file.fingerprint != data.fingerprint


def test_images_of_mixed_size_are_cropped(tmp_path: Path) -> None:
    halves = np.zeros((8, 24, 3), np.uint8)
    halves[:, 12:] = 200
    square = np.full((8, 8, 3), 50, np.uint8)
    write_parquet(tmp_path / "x.parquet", [encoded(halves), encoded(square), encoded(square)], [0, 1, 0])
    data = open_dataset(f"parquet:{tmp_path / 'x.parquet'}", tmp_path / "cache")
    assert data.train.side == 8
    assert data.class_names == ("0", "1")
    assert data.train.pixels[0, 0, 0].tolist() == [0] * 4 + [200] * 4


Broken = Callable[[Path], None]


def no_images(path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), path)


def no_labels(path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([b"a"], pa.binary())}), path)


def truncated(path: Path) -> None:
    no_images(path)
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    write_parquet(path, [], [])


def undecodable(path: Path) -> None:
    write_parquet(path, [encoded(np.zeros((8, 8, 3), np.uint8)), b"no image", b"no image"], [0, 1, 1])


def cut_jpeg(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    write_parquet(path, [encoded(noise, "JPEG")[:-40]], [0])


def missing_image(path: Path) -> None:
    write_parquet(path, [None], [0])


def negative_label(path: Path) -> None:
    write_parquet(path, [encoded(np.zeros((8, 8, 3), np.uint8))], [-1])


def missing_label(path: Path) -> None:
    write_parquet(path, [encoded(np.zeros((8, 8, 3), np.uint8))], [None])


def unnamed_label(path: Path) -> None:
    write_parquet(path, [encoded(np.zeros((8, 8, 3), np.uint8))], [2], ["a", "b"])


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (no_images, "has no image column"),
        (no_labels, "has no labels, a column of numbers or names; its columns are image"),
        (truncated, "cannot be read as Parquet"),
        (empty, "has no rows"),
        (
            undecodable,
            r"2 of 3 images are missing or .* such as that of .*, row 1 \(cannot identify image file\)",
        ),
        (cut_jpeg, r"1 of 1 images .*, row 0 \("),
        (missing_image, "has no image in its column image that can be decoded; embed"),
        (negative_label, "has no label in its column label; choose another by .label=NAME"),
        (missing_label, "has no label in its column label; choose another by .label=NAME"),
        (unnamed_label, "label 2, but its metadata names 2 classes"),
    ],
)
def test_broken_files_get_a_sentence(tmp_path: Path, break_it: Broken, says: str) -> None:
    path = tmp_path / "x.parquet"
    break_it(path)
    with pytest.raises(DataError, match=says):
        open_dataset(f"parquet:{path}", tmp_path / "cache")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("parquet:/nowhere", "does not exist"),
        ("parquet:", "is unknown"),
        ("cifar", "is unknown; give clutter"),
    ],
)
def test_sources_that_are_not_there(source: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        open_dataset(source, tmp_path)
    with pytest.raises(UsageError, match=r"has no \.parquet file"):
        open_dataset(f"parquet:{tmp_path}", tmp_path)


def test_only_held_back_files(tmp_path: Path, pictures: list[Pixels]) -> None:
    write_parquet(tmp_path / "test.parquet", [encoded(p) for p in pictures], [0] * 10)
    with pytest.raises(DataError, match="holds only test files"):
        open_dataset(f"parquet:{tmp_path}", tmp_path / "cache")


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet", "data/test.parquet"),
        ("default/train/0000.parquet", "default/validation/0000.parquet", "default/test/0000.parquet"),
        ("photos-train.parquet", "photos-val.parquet", "photos_test.parquet"),
    ],
)
def test_splits_go_by_the_names_of_files_or_folders(
    tmp_path: Path, pictures: list[Pixels], train: str, validation: str, test: str
) -> None:
    for name, part in ((train, pictures[:5]), (validation, pictures[5:8]), (test, pictures[8:])):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(tmp_path / name, [encoded(picture) for picture in part], [0] * len(part))
    data = open_dataset(f"parquet:{tmp_path}", tmp_path / "cache")
    np.testing.assert_array_equal(data.train.pixels, np.stack(pictures[:5]).transpose(0, 3, 1, 2))
    assert data.held_back is not None
    np.testing.assert_array_equal(data.held_back.pixels, np.stack(pictures[5:8]).transpose(0, 3, 1, 2))


def test_the_cache_is_made_anew_where_it_is_damaged(tmp_path: Path) -> None:
    calls = []

    def make() -> tuple[npt.NDArray[Any], ...]:
        calls.append(1)
        return np.arange(4), np.ones((2, 2))

    for _ in range(2):
        first, second = cached(tmp_path, "key", make)
        np.testing.assert_array_equal(first, np.arange(4))
        np.testing.assert_array_equal(second, np.ones((2, 2)))
    assert len(calls) == 1
    (tmp_path / "key.2.npy").write_bytes(b"torn")
    cached(tmp_path, "key", make)
    assert len(calls) == 2
    assert not list(tmp_path.glob(".*"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="give another one with --cache"):
        cached(tmp_path / "file", "key", lambda: (np.zeros(1),))


@given(st.integers(1, 40), st.integers(1, 40))
def test_area_weights_by_brute_force(from_side: int, to_side: int) -> None:
    """Both grids refined to their common multiple: every fine cell belongs to one pixel of each."""
    weights = area_weights(from_side, to_side)
    fine = np.zeros((to_side, from_side))
    for cell in range(from_side * to_side):
        fine[cell // from_side, cell // to_side] += 1
    np.testing.assert_allclose(weights, fine / from_side, atol=1e-6)


def test_downsampling_by_whole_factors_is_pillows_reduce() -> None:
    rng = np.random.default_rng(0)
    images = Images(rng.integers(0, 256, (1500, 3, 12, 12), dtype=np.uint8), np.zeros(1500, np.int64))
    small = downsample(images, 4)
    for index in (0, 1023, 1024, 1499):
        whole = Image.fromarray(images.pixels[index].transpose(1, 2, 0))
        expected = np.asarray(whole.reduce(3), np.int16).transpose(2, 0, 1)
        assert np.abs(small.pixels[index].astype(np.int16) - expected).max() <= 1
    assert downsample(images, 12) is images


@pytest.mark.parametrize("mapped", [False, True])
def test_smaller_images_keep_labels_and_groups(mapped: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (6, 3, 8, 8), np.uint8), np.array([3, 1, 3, 1, 1, 3])
    images = stored(tmp_path, "key", "drawing", lambda: iter([(pixels, labels)])) if mapped else None
    images = replace(images or Images(pixels, labels), groups=np.array([0, 0, 1, 2, 3, 4]))
    for of in (images, replace(images, labels=labels // 3)):
        small = downsample(of, 4)
        assert (small.side, small.file is not None) == (4, mapped)
        assert small.groups is not None
        assert of.groups is not None
        np.testing.assert_array_equal(small.labels, of.labels)
        np.testing.assert_array_equal(small.groups, of.groups)


def labelled(labels: Labels, groups: Labels | None = None) -> Images:
    """Images of one pixel, for what looks at labels and groups alone."""
    return Images(np.zeros((len(labels), 3, 1, 1), np.uint8), labels, groups=groups)


@given(st.integers(2, 6), st.integers(10, 60), st.integers(0, 5))
@settings(deadline=None)
def test_the_split_is_stratified_disjoint_and_whole(classes: int, each: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), each))
    train, validation = split_validation(labelled(labels), seed)
    assert sorted([*train, *validation]) == list(range(len(labels)))
    assert len(validation) == len(labels) // 5
    counts = np.bincount(labels[validation], minlength=classes)
    assert counts.max() - counts.min() <= 1
    again, _ = split_validation(labelled(labels), seed)
    np.testing.assert_array_equal(train, again)


def test_a_large_set_gives_no_more_than_it_must() -> None:
    assert len(split_validation(labelled(np.arange(30_000) % 10), 0)[1]) == 2000
    assert len(split_validation(labelled(np.arange(200_000) % 10), 0)[1]) == 4000


@pytest.mark.parametrize("labels", [np.arange(10), np.zeros(10), [*range(8), 8, 8], [0, 0, 1, 1, 2, 2]])
def test_too_few_images_to_split(labels: Any) -> None:
    with pytest.raises(DataError, match="cannot be split by class"):
        split_validation(labelled(np.asarray(labels, np.int64)), 0)


def test_the_only_image_of_a_class_is_trained_on() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2, 3])
    for seed in range(5):
        train, validation = split_validation(labelled(labels), seed)
        assert {40, 41} <= set(train)
        assert np.bincount(labels[validation]).tolist() == [4, 4]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=60, max_size=200), st.integers(0, 9)
)
@settings(deadline=None)
def test_groups_stay_whole_and_classes_keep_their_shares(images: list[tuple[int, int]], seed: int) -> None:
    """Images are of a class and of a group; 31 groups of four classes each, and 80 images for themselves."""
    labels = np.array([label for label, _ in images] + [0, 1, 2, 3] * 20)
    groups = np.array([group for _, group in images] + list(range(31, 111)))
    train, validation = split_validation(labelled(labels, groups), seed)
    assert sorted([*train, *validation]) == list(range(len(labels)))
    assert not set(groups[train]) & set(groups[validation])
    assert set(labels[train]) == set(labels) == set(labels[validation])
    wanted = np.bincount(labels) * (len(labels) // 5 / len(labels))
    largest = np.bincount(groups).max()
    assert np.abs(np.bincount(labels[validation]) - wanted).max() <= largest + 1


def test_copies_of_a_picture_do_not_crowd_the_validation_images() -> None:
    """Half of the images are pairs; about half of the validation images are, too."""
    labels = np.arange(400) % 4
    groups = np.concatenate([np.repeat(np.arange(0, 400, 4), 2), 1000 + np.arange(200)])
    _, validation = split_validation(labelled(labels, groups), 0)
    assert 36 <= (validation < 200).sum() <= 44
    assert 76 <= len(validation) <= 84


def test_a_copy_takes_no_validation_images_from_rare_classes() -> None:
    """59,600 images are of two classes and ten of each of 40 more: each has a share of n + 1/3 images, and
    which 14 of the 42 get one for it is drawn, with one pair of copies as without.
    """
    labels = np.concatenate([np.arange(59_600) % 2, np.repeat(np.arange(2, 42), 10)])
    groups = np.arange(len(labels))
    groups[2] = 0
    drawn = set()
    for seed in range(4):
        counts = [
            np.bincount(labels[split_validation(labelled(labels, of), seed)[1]], minlength=42)
            for of in (None, groups)
        ]
        assert counts[0].sum() == counts[1].sum() == 2000
        for count in counts:
            assert set(count[:2].tolist()) <= {993, 994}
            assert set(count[2:].tolist()) == {0, 1}
        drawn |= set(np.flatnonzero(counts[1]))
    assert len(drawn) > 2 + 14


def test_images_that_are_all_copies_cannot_be_split() -> None:
    labels = np.repeat([0, 1], 10)
    with pytest.raises(DataError, match="none can be put aside"):
        split_validation(labelled(labels, labels), 0)


def test_normalise() -> None:
    pixels = torch.from_numpy(synthetic(8, 4).train.pixels)
    by_hand = (pixels.double() / 255 - torch.tensor(MEAN).double().view(1, 3, 1, 1)) / torch.tensor(
        STD
    ).double().view(1, 3, 1, 1)
    torch.testing.assert_close(normalise(pixels).double(), by_hand, rtol=1e-5, atol=1e-5)
    assert normalise(pixels).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mirror", [False, True])
def test_augmented_images_are_shifts_and_mirrors(mirror: bool) -> None:
    """Each result is one of the 5 × 5 (× 2) images that moving by up to 2 of 16 pixels can give."""
    images = torch.randint(0, 256, (64, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    moved = augment(images, mirror=mirror, generator=torch.Generator().manual_seed(1))
    used = set()
    for before, after in zip(images, moved, strict=True):
        matches = []
        for flipped in (False, True) if mirror else (False,):
            padded = np.pad(before.numpy(), ((0, 0), (2, 2), (2, 2)), mode="edge")
            for top in range(5):
                for left in range(5):
                    cut = padded[:, top : top + 16, left : left + 16]
                    if flipped:
                        cut = cut[:, :, ::-1]
                    if (cut == after.numpy()).all():
                        matches.append((flipped, top, left))
        assert len(matches) == 1
        used.add(matches[0])
    assert len(used) > 20
    assert {flipped for flipped, _, _ in used} == ({False, True} if mirror else {False})


DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "imagenet100-64"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the development images are not here")
def test_real_downsampled_imagenet(tmp_path: Path) -> None:
    data = open_dataset(f"parquet:{DATA}", tmp_path)
    assert data.held_back is not None
    assert (data.classes, len(data.train), len(data.held_back)) == (100, 20_000, 5_000)
    assert data.train.side == 64
    assert np.bincount(data.train.labels).tolist() == [200] * 100
