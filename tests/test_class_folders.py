"""Trees of folders as they are met: which folders are taken for splits, which for classes, what is said."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from isonas.data.dataset import Dataset, split_validation
from isonas.data.sources import open_dataset
from isonas.data.splits import split_of
from isonas.errors import DataError, UsageError
from tests.test_data import encoded
from tests.test_folder import opened, picture, root, write  # noqa: F401


def tree(root: Path, *places: str, count: int = 2) -> None:  # noqa: F811
    """`count` images in each place, each of them like no other."""
    for place in places:
        for _ in range(count):
            seed = len(list(root.rglob("*.png")))
            write(root, {f"{place}/{seed}.png": encoded(picture(seed))})


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("Train", "TRAINING", "trn", "seg_train", "train2017", "imagesTrain",
                                       "Train_Data", "ILSVRC2012_img_train", "trainset")),
        *((name, "validation") for name in ("val", "Valid", "validation_set", "x-val", "valImages")),
        *((name, "test") for name in ("Testing", "seg_test", "test.v2", "test_set", "tst")),
        ("dev", "dev"),
        ("Eval", "eval"),
        *((name, None) for name in ("trainer", "latest", "attest", "valley", "device", "evaluate")),
    ],
)  # fmt: skip
def test_split_names(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "held_back"),
    [
        ("Train", "Test"),
        ("Training", "Testing"),
        ("train", "Val"),
        ("trn", "dev"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train2017", "val2017"),
        ("dataset_train/train", "dataset_eval"),
    ],
)
def test_splits_of_any_usual_name(root: Path, train: str, held_back: str) -> None:  # noqa: F811
    tree(root, f"{train}/a", f"{train}/b", count=3)
    tree(root, f"{held_back}/a", f"{held_back}/b")
    data = opened(root)
    assert data.class_names == ("a", "b")
    assert data.train.labels.tolist() == [0] * 3 + [1] * 3
    np.testing.assert_array_equal(data.train.pixels[5], picture(5).transpose(2, 0, 1))
    assert data.held_back is not None
    assert data.held_back.labels.tolist() == [0, 0, 1, 1]


def test_what_was_understood_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    tree(root, *(f"train/{name}" for name in "abcdefg"), "seg_pred", "test/a", "val/a", "val/b")
    tree(root, "train/z", count=1)
    (root / "train" / "unknown").mkdir()
    write(root, {"train/notes/readme.txt": b"text", "train/loose.png": encoded(picture(99))})
    data = opened(root)
    assert data.class_names == tuple("abcdefgz")
    said = capsys.readouterr().err
    for sentence in (
        "training images are those of train/, held back are those of val/; seg_pred/, test/ passed over; "
        "without a file, so no class: unknown; 1 images that lie beside the class folders are left out; "
        "val/ has no images of c, d, e, f, g and 2 more.",
        "without an image, so no class: notes.",
        "8 classes: a, b, c, d, e and 3 more; 15 training images, 4 images held back.",
        "of z there is one training image only; it is trained on and never validated.",
        "left out 1 of 16 training files or rows (1 no image (.txt)); the first is",
    ):
        assert f"isonas: folder:{root}: {sentence}" in said, sentence
    open_dataset(f"folder:{root}", root.parent / "cache", tell=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["train", "Test", "val", "dev"])
def test_a_class_called_like_a_split_is_a_class(
    root: Path,  # noqa: F811
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree(root, "bus", "car", name)
    assert opened(root).class_names == tuple(sorted(("bus", "car", name)))
    assert f"{name}/ holds images itself and is taken for a class" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["test", "test/images", "val/val", "val/x/y"])
def test_held_back_images_without_classes_are_left_out(
    root: Path,  # noqa: F811
    place: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree(root, "train/a/images", "train/b/images", place)
    data = opened(root)
    assert (data.class_names, len(data.train), data.held_back) == (("a", "b"), 4, None)
    split = place.split("/")[0]
    assert f"{split}/ has no folders of these classes and is left out" in capsys.readouterr().err


def test_the_next_held_back_split_does_for_one_without_classes(root: Path) -> None:  # noqa: F811
    tree(root, "train/a", "train/b", "val", "test/a", "test/b")
    held_back = opened(root).held_back
    assert held_back is not None
    assert held_back.labels.tolist() == [0, 0, 1, 1]


def test_what_systems_leave_is_no_class(root: Path) -> None:  # noqa: F811
    tree(root, "a", "b")
    junk = "__MACOSX/a/._0.png", ".ipynb_checkpoints/0.png", "@eaDir/a/0.png", "a/Thumbs.db", "a/@eaDir/0.png"
    write(root, dict.fromkeys((*junk, "lost+found/0.png", "$RECYCLE.BIN/0.png", "b/.DS_Store"), b"junk"))
    data = opened(root)
    assert (data.class_names, len(data.train)) == (("a", "b"), 4)


@pytest.mark.parametrize(
    ("places", "says"),
    [
        (
            ["images/a", "images/b"],
            r"has one folder, images/.*; give folder:.*images/images, which holds a, b",
        ),
        (["x/y/a", "x/y/b"], r"give folder:.*/images/x/y, which holds a, b"),
        (["x/train/a", "x/train/b"], r"give folder:.*/images/x, which holds train"),
        (["train/x/a", "train/x/b"], r"train has one folder, x/.*; give folder:.*/train/x, which holds a, b"),
        (["fold1/a", "fold1/b", "fold2/a", "fold2/b"], r"fold1, fold2, which hold the same folders \(a, b\)"),
        (["p/a", "p/b", "q/a", "q/b", "q/c"], r"p, q, which hold the same folders \(a, b\).*splits=none"),
        (["train", "test"], r"holds images and has no folders; sort them"),
        (["test/a", "test/b"], r"has test/ but no train/"),
        (["a", "b", "test/a", "test/b"], r"has test/ but no train/"),
        (
            ["bus", "train/old", "train/new"],
            r"has train/ with folders beside bus; give folder:.*/train where",
        ),
        (["my_train/a", "train_2/a", "test/a"], r"several training splits, my_train, train_2"),
    ],
)
def test_what_cannot_be_meant_is_asked_about(root: Path, places: list[str], says: str) -> None:  # noqa: F811
    tree(root, *places)
    with pytest.raises(DataError, match=says) as caught:
        opened(root)
    assert "\n" not in str(caught.value)


def test_folders_are_classes_where_the_source_says_so(root: Path) -> None:  # noqa: F811
    tree(root, "train/a", "train/b", "test/a", "test/b")
    data = open_dataset(f"folder:{root}?splits=none", root.parent / "cache")
    assert (data.class_names, data.train.labels.tolist()) == (("test", "train"), [0] * 4 + [1] * 4)
    assert data.source == f"folder:{root}?splits=none"
    again = open_dataset(data.source, root.parent / "cache")
    assert (again.fingerprint, again.class_names) == (data.fingerprint, data.class_names)
    assert opened(root).class_names == ("a", "b")
    for wrong, says in (
        ("split=none", "the option 'split'; .*splits=none"),
        ("splits=all", "give .splits=none"),
    ):
        with pytest.raises(UsageError, match=says):
            open_dataset(f"folder:{root}?{wrong}", root.parent / "cache")


def test_a_name_that_is_not_utf_8(root: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    tree(root, "a")
    try:
        (root / os.fsdecode(b"caf\xe9")).mkdir()
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    write(root, {os.fsdecode(b"caf\xe9/1.png"): encoded(picture(9)), os.fsdecode(b"caf\xe9/2.png"): b""})
    data = opened(root)
    assert data.class_names == ("a", r"caf\xe9")
    np.testing.assert_array_equal(data.train.pixels[2], picture(9).transpose(2, 0, 1))
    json.dumps(data.class_names, ensure_ascii=False).encode()
    assert r"caf\xe9/2.png (empty)" in capsys.readouterr().err
    (root / os.fsdecode(b"caf\xe9")).rename(root / "b")
    root.rename(root.parent / os.fsdecode(b"\xff"))
    with pytest.raises(UsageError, match=r"\\xff.* is not UTF-8; give a path that is"):
        opened(root.parent / os.fsdecode(b"\xff"))


def test_git_lfs_pointers(root: Path) -> None:  # noqa: F811
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    write(root, {f"{name}.png": pointer for name in ("a/1", "a/2", "b/1")})
    with pytest.raises(DataError, match=r"are Git LFS pointers; fetch the content with `git lfs pull`"):
        opened(root)
    tree(root, "a", count=1)
    with pytest.raises(DataError, match=r"3 of 4 files .*\(a Git LFS pointer, .*`git lfs pull`"):
        opened(root)


def test_annotations_beside_every_image_do_not_count_as_damage(root: Path) -> None:  # noqa: F811
    tree(root, "a", "b")
    write(root, {f"{name}/{n}{end}": b"x" for name in "ab" for n in range(2) for end in (".txt", ".xml")})
    assert len(opened(root).train) == 4


def test_copies_of_a_picture_stay_on_one_side(root: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    tree(root, "train/a", "train/b", count=20)
    for file in sorted((root / "train").rglob("*.png"))[:30]:
        file.with_name(f"copy of {file.name}").write_bytes(file.read_bytes())
    first = sorted((root / "train" / "a").iterdir())[0]
    write(root, {"train/b/same.png": first.read_bytes(), "val/a/same.png": first.read_bytes()})
    data = opened(root)
    said = capsys.readouterr().err
    assert "31 training images are copies of others, 1 of them under another class; copies stay" in said
    assert "1 of 1 held-back images are training images too" in said

    def sides(data: Dataset, seed: int) -> tuple[set[bytes], set[bytes]]:
        train, validation = (
            {data.train.pixels[row].tobytes() for row in rows} for rows in split_validation(data.train, seed)
        )
        return train, validation

    for each in (data, opened(root)):
        for seed in range(3):
            train, validation = sides(each, seed)
            assert not train & validation
            assert len(train | validation) == 40
            assert len(validation) >= 6
