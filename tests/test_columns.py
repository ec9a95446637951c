"""Parquet sets as they are met: which columns hold the images and labels, and which rows and files do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isonas.data import parquet
from isonas.data.dataset import Dataset, split_validation
from isonas.data.sources import open_dataset
from isonas.errors import DataError, UsageError
from tests.test_data import encoded
from tests.test_folder import picture

COUNT = 12
PNG = [encoded(picture(seed)) for seed in range(COUNT)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGES = pa.array([{"bytes": content, "path": "x.png"} for content in PNG], STRUCT)
LABELS = [seed % 3 for seed in range(COUNT)]
NAMES = [("emu", "cat", "dog")[label] for label in LABELS]
IDS = pa.array(range(100, 100 + COUNT))


def write(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=5)


def opened(place: Path, options: str = "") -> Dataset:
    return open_dataset(f"parquet:{place}{options}", place.parent / "cache")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "set"


def image_feature(*names: str) -> dict[str, Any]:
    return {name: {"_type": "Image"} for name in names}


def class_label(*names: str) -> dict[str, Any]:
    return {name: {"_type": "ClassLabel", "names": ["a", "b", "c"]} for name in names}


ROWS = {"image_id": IDS, "image": IMAGES, "width": pa.array([8] * COUNT)}
COARSE = pa.array([label % 2 for label in LABELS])
BY_METADATA = {
    "after an id": ({**ROWS, "category": LABELS}, class_label("category")),
    "of any name": ({**ROWS, "label": IDS, "kind": LABELS}, class_label("kind")),
    "of several": ({**ROWS, "coarse_label": COARSE, "fine_label": LABELS},
                   class_label("coarse_label", "fine_label")),
    "beside a coarse one": ({**ROWS, "coarse_label": COARSE, "fine_label": LABELS},
                            class_label("fine_label")),
    "in a list": ({"image": IMAGES, "tag": [[label] for label in LABELS]},
                  {"tag": {"_type": "Sequence", "feature": class_label("tag")["tag"]}}),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_METADATA)
def test_the_label_of_the_metadata(place: Path, case: str) -> None:
    columns, features = BY_METADATA[case]
    write(place / "train.parquet", columns, features | image_feature("image"))
    data = opened(place)
    assert data.class_names == ("a", "b", "c")
    assert data.train.labels.tolist() == LABELS


BY_NAME: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "target": ({"__index_level_0__": IDS, "image": IMAGES, "target": LABELS}, ("0", "1", "2")),
    "class": ({**ROWS, "height": [8] * COUNT, "class": LABELS}, ("0", "1", "2")),
    "y": ({"id": IDS, "x": IMAGES, "y": LABELS}, ("0", "1", "2")),
    "Class_ID": ({"id": IDS, "image": IMAGES, "Class_ID": LABELS}, ("0", "1", "2")),
    "names": ({"id": IDS, "image": IMAGES, "label": NAMES}, ("cat", "dog", "emu")),
    "only whole numbers": ({"id": IDS, "image": IMAGES, "breed": LABELS, "text": NAMES}, ("0", "1", "2")),
    "only categories": ({"id": IDS, "image": IMAGES, "breed": pa.array(NAMES).dictionary_encode()},
                        ("cat", "dog", "emu")),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_NAME)
def test_the_label_by_its_name_or_type(place: Path, case: str) -> None:
    columns, names = BY_NAME[case]
    write(place / "train.parquet", columns)
    data = opened(place)
    assert data.class_names == names
    expected = [names.index(name) for name in NAMES] if "cat" in names else LABELS
    assert data.train.labels.tolist() == expected


@pytest.mark.parametrize("columns", [{"breed": LABELS, "size_class": LABELS}, {"breed": NAMES, "id": IDS}])
def test_a_label_that_is_not_plain_is_asked_for(place: Path, columns: dict[str, Any]) -> None:
    write(place / "train.parquet", {"image": IMAGES, **columns})
    with pytest.raises(
        DataError, match=r"choose among breed, .* by \?label=NAME after the path, as in parquet:PATH"
    ):
        opened(place)
    data = opened(place, "?label=breed")
    assert data.source == f"parquet:{place}?label=breed"
    assert len(data.train) == COUNT
    again = open_dataset(data.source, place.parent / "cache")
    assert (again.fingerprint, again.class_names) == (data.fingerprint, data.class_names)
    assert opened(place, f"?label={[*columns][1]}").fingerprint != data.fingerprint
    for wrong, says in (
        ("label=bread", "no column 'bread' of numbers or names; give one of"),
        ("image=x", "'x' of enc"),
    ):
        with pytest.raises(DataError, match=says):
            opened(place, f"?{wrong}")
    with pytest.raises(
        UsageError, match=r"option 'lable'; its kind of source has \?label=NAME and \?image=NAME"
    ):
        opened(place, "?lable=breed")


def test_options_go_with_globs_and_odd_names(place: Path) -> None:
    write(place / "train-0.parquet", {"image": IMAGES, "a & b": LABELS, "other": LABELS})
    data = open_dataset(f"parquet:{place}/train-?.parquet?label=a %26 b", place.parent / "cache")
    assert data.source.endswith("/train-?.parquet?label=a %26 b")
    assert data.train.labels.tolist() == LABELS
    assert open_dataset(data.source, place.parent / "cache").fingerprint == data.fingerprint


KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "text": (NAMES, ("cat", "dog", "emu")),
    "large text": (pa.array(NAMES, pa.large_string()), ("cat", "dog", "emu")),
    "categories": (pa.array(NAMES).dictionary_encode(), ("cat", "dog", "emu")),
    "categories of numbers": (pa.array(LABELS).dictionary_encode(), ("0", "1", "2")),
    "lists of text": ([[name] for name in NAMES], ("cat", "dog", "emu")),
    "lists": ([[label] for label in LABELS], ("0", "1", "2")),
    "fixed lists": (pa.array([[label] for label in LABELS], pa.list_(pa.int8(), 1)), ("0", "1", "2")),
    "float": ([float(label) for label in LABELS], ("0", "1", "2")),
    "uint8": (pa.array(LABELS, pa.uint8()), ("0", "1", "2")),
    "from 1": ([label + 1 for label in LABELS], ("1", "2", "3")),
    "far apart": ([5 + 10**9 * label for label in LABELS], ("5", "1000000005", "2000000005")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_type(place: Path, kind: str) -> None:
    values, names = KINDS[kind]
    write(place / "train.parquet", {"image": IMAGES, "label": values})
    data = opened(place)
    assert data.class_names == names
    assert data.train.labels.tolist() == ([names.index(name) for name in NAMES] if "cat" in names else LABELS)


def test_labels_of_yes_and_no(place: Path) -> None:
    write(place / "train.parquet", {"image": IMAGES, "label": [label == 0 for label in LABELS]})
    data = opened(place)
    assert data.class_names == ("False", "True")
    assert data.train.labels.tolist() == [int(label == 0) for label in LABELS]


UNLABELLED: dict[str, list[Any]] = {
    "null": [None, *LABELS[1:]],
    "minus one": [-1, *LABELS[1:]],
    "not a number": [float("nan"), *map(float, LABELS[1:])],
    "no name": [None, *NAMES[1:]],
    "empty name": ["", *NAMES[1:]],
    "no list": [None, *([label] for label in LABELS[1:])],
    "empty list": [[], *([label] for label in LABELS[1:])],
    "several": [[0, 1], *([label] for label in LABELS[1:])],
}


@pytest.mark.parametrize("kind", UNLABELLED)
def test_rows_without_one_label_are_left_out(
    place: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / "train.parquet", {"image": IMAGES, "label": UNLABELLED[kind]})
    data = opened(place)
    np.testing.assert_array_equal(data.train.pixels[0], picture(1).transpose(2, 0, 1))
    assert (len(data.train), data.classes) == (COUNT - 1, 3)
    assert f"left out 1 of {COUNT} training files or rows (1 without one label)." in capsys.readouterr().err


def test_a_measure_is_no_label(place: Path) -> None:
    write(place / "train.parquet", {"image": IMAGES, "label": [label + 0.5 for label in LABELS]})
    with pytest.raises(DataError, match=r"a label 0.5, which is no whole number"):
        opened(place)


FORMS = {
    "struct": IMAGES,
    "bytes": pa.array(PNG, pa.binary()),
    "large bytes": pa.array(PNG, pa.large_binary()),
    "list of structs": pa.array([[value] for value in IMAGES.to_pylist()], pa.list_(STRUCT)),
    "list of bytes": pa.array([[value] for value in PNG], pa.list_(pa.binary())),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_of_every_form(place: Path, form: str) -> None:
    write(place / "train.parquet", {"picture": FORMS[form], "label": LABELS})
    np.testing.assert_array_equal(opened(place).train.pixels[5], picture(5).transpose(2, 0, 1))


OTHER = pa.array([encoded(255 - picture(seed)) for seed in range(COUNT)])
IMAGE_COLUMNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the one that decodes": ({"md5": [b"0123456789abcdef"] * COUNT, "x": IMAGES}, {}),
    "the one of the metadata": ({"image": OTHER, "x": IMAGES}, image_feature("x")),
    "the usual name": ({"mask": OTHER, "photo": IMAGES}, {}),
    "the usual name that decodes": ({"image": [b"0123456789abcdef"] * COUNT, "x": IMAGES}, {}),
}


@pytest.mark.parametrize("case", IMAGE_COLUMNS)
def test_the_column_of_images(place: Path, case: str) -> None:
    columns, features = IMAGE_COLUMNS[case]
    write(place / "train.parquet", {**columns, "label": LABELS}, features)
    np.testing.assert_array_equal(opened(place).train.pixels[5], picture(5).transpose(2, 0, 1))


def test_two_columns_of_images_are_asked_about(place: Path) -> None:
    write(place / "train.parquet", {"left": OTHER, "right": IMAGES, "label": LABELS})
    with pytest.raises(
        DataError, match=r"several columns of images, left, right; choose one by \?image=NAME"
    ):
        opened(place)
    data = opened(place, "?image=right")
    np.testing.assert_array_equal(data.train.pixels[5], picture(5).transpose(2, 0, 1))
    assert opened(place, "?image=left&label=label").train.pixels[5, 0, 0, 0] == 255 - picture(5)[0, 0, 0]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (None, "1 without an image"),
        ({"bytes": None, "path": "x.png"}, "1 without an image"),
        ({"bytes": b"", "path": "x.png"}, "1 empty"),
        ({"bytes": PNG[4][:60], "path": "x.png"}, "1 damaged"),
        ({"bytes": b"<html>", "path": "x.png"}, "1 no image"),
    ],
)
def test_bad_rows_are_left_out_and_counted(
    place: Path, bad: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = IMAGES.to_pylist()
    rows[4] = bad
    write(place / "train.parquet", {"image": pa.array(rows, STRUCT), "label": LABELS})
    for _ in ("decoded", "from the cache"):
        data = opened(place)
        assert data.train.labels.tolist() == LABELS[:4] + LABELS[5:]
        np.testing.assert_array_equal(data.train.pixels[4], picture(5).transpose(2, 0, 1))
        said = capsys.readouterr().err
        assert (
            f"left out 1 of 12 training files or rows ({says}); the first is {place}/train.parquet, row 4 ("
            in said
        )
        assert "_io." not in said


def test_held_back_rows_that_no_class_is_trained_for(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(place / "train.parquet", {"image": IMAGES, "label": NAMES})
    write(place / "test.parquet", {"image": IMAGES, "label": ["yak", None, *NAMES[2:]]})
    held_back = opened(place).held_back
    assert held_back is not None
    assert held_back.labels.tolist() == [("cat", "dog", "emu").index(name) for name in NAMES[2:]]
    said = capsys.readouterr().err
    assert "held-back files or rows (1 without one label, 1 of a class without training images)" in said
    assert "10 of 10 held-back images are training images too" in said


def test_columns_that_are_asked_for_in_vain_are_the_same_set(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is decoded again, neither for them nor for another word on how columns were found."""
    write(place / "train.parquet", {"image": IMAGES, "label": LABELS, "coarse": COARSE})
    data = opened(place)

    def decoded(*_: Any) -> Any:
        raise AssertionError

    asked = "?image=image&label=label"
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "decoded", decoded)
        again = opened(place, asked)
    assert again.fingerprint == data.fingerprint
    np.testing.assert_array_equal(again.train.pixels, data.train.pixels)
    other = opened(place, "?label=coarse")
    assert other.fingerprint != data.fingerprint
    assert other.train.labels.tolist() == COARSE.to_pylist()


def test_a_test_split_without_labels_is_left_out(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(place / "train.parquet", {"image": IMAGES, "label": LABELS})
    write(place / "test.parquet", {"image": IMAGES, "label": [-1] * COUNT})
    data = opened(place)
    assert (len(data.train), data.held_back) == (COUNT, None)
    told = capsys.readouterr().err
    assert "no image of test.parquet has a label of these classes; they are left out, and no images" in told
    assert "held back are" not in told


def test_named_classes_without_an_image_have_no_output(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["u", "a", "v", "b", "c"]}}
    labels = [(1, 3, 4)[label] for label in LABELS]
    write(place / "train.parquet", {"image": IMAGES, "label": labels}, features)
    write(place / "test.parquet", {"image": IMAGES, "label": labels}, features)
    data = opened(place)
    assert (data.class_names, data.train.labels.tolist()) == (("a", "b", "c"), LABELS)
    assert data.held_back is not None
    assert data.held_back.labels.tolist() == LABELS
    assert "without an image, so no class: u, v." in capsys.readouterr().err


@pytest.mark.parametrize("empty", [0, 1])
def test_empty_shards_are_passed_over(place: Path, empty: int) -> None:
    write(
        place / f"train-0000{empty}-of-00002.parquet", {"image": pa.array([], STRUCT), "label": pa.array([])}
    )
    write(place / f"train-0000{1 - empty}-of-00002.parquet", {"image": IMAGES, "label": LABELS})
    assert opened(place).train.labels.tolist() == LABELS


def test_shards_of_different_whole_numbers(place: Path) -> None:
    write(place / "train-0.parquet", {"image": IMAGES, "label": pa.array(LABELS, pa.int32())})
    write(place / "train-1.parquet", {"image": OTHER, "label": LABELS})
    assert opened(place).train.labels.tolist() == LABELS * 2


def test_a_git_lfs_pointer(place: Path) -> None:
    place.mkdir()
    (place / "train.parquet").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "utf-8"
    )
    with pytest.raises(DataError, match=r"is a Git LFS pointer, not the file; fetch .* with `git lfs pull`"):
        opened(place)


@pytest.mark.parametrize(
    "names", [("train", "dev"), ("Training", "eval"), ("x_trn", "x_val"), ("train", "testing")]
)
def test_splits_by_every_usual_name(
    place: Path, names: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / f"{names[0]}.parquet", {"image": IMAGES, "label": LABELS})
    write(place / f"{names[1]}.parquet", {"image": OTHER[:6], "label": LABELS[:6]})
    write(place / "notes.parquet", {"text": ["a"]})
    data = opened(place)
    assert data.held_back is not None
    assert (len(data.train), len(data.held_back)) == (COUNT, 6)
    told = capsys.readouterr().err
    assert f"training images are those of {names[0]}.parquet; passed over is notes.parquet." in told
    assert f"held back are those of {names[1]}.parquet." in told


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("full/train-00000-of-00001.parquet", "small/train-00000-of-00002.parquet"),
        ("data/train.parquet", "backup/train.parquet"),
        ("train.parquet", "old/train.parquet"),
        ("default/train/0000.parquet", "other/train/0000.parquet"),
    ],
)
def test_configurations_and_backups_are_asked_about(place: Path, first: str, second: str) -> None:
    write(place / first, {"image": IMAGES, "label": LABELS})
    write(place / second, {"image": OTHER, "label": LABELS})
    with pytest.raises(
        DataError, match=r"may be copies or configurations of the same images; give one of them"
    ):
        opened(place)
    one = Path(second).parts[0]
    assert len(opened(place / one).train) == COUNT
    assert len(open_dataset(f"parquet:{place}/**/*.parquet", place.parent / "cache").train) == 2 * COUNT


def test_parts_in_folders_of_their_own_are_one_set(place: Path) -> None:
    write(place / "train" / "0" / "part.parquet", {"image": IMAGES, "label": LABELS})
    write(place / "train" / "1" / "part.parquet", {"image": OTHER, "label": LABELS})
    shutil.copytree(place / "train", place / ".cache" / "train")
    assert len(opened(place).train) == 2 * COUNT


def test_copies_across_shards_stay_on_one_side(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(place / "train-0.parquet", {"image": IMAGES, "label": LABELS})
    write(place / "train-0 (1).parquet", {"image": IMAGES, "label": LABELS})
    data = opened(place)
    assert "12 training images are copies of others; copies stay on one side" in capsys.readouterr().err
    for seed in range(5):
        train, validation = (
            {data.train.pixels[row].tobytes() for row in rows} for rows in split_validation(data.train, seed)
        )
        assert not train & validation
        assert len(validation) in (2, 3)
