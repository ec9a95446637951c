"""Class folders of image files: what is in them, what is not an image, what is not a class."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from isonas.data.dataset import Dataset
from isonas.data.sources import open_dataset
from isonas.errors import DataError, UsageError
from tests.test_data import encoded

Pixels = npt.NDArray[np.uint8]


def picture(seed: int, height: int = 8, width: int = 8) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def opened(root: Path) -> Dataset:
    return open_dataset(f"folder:{root}", root.parent / "cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.mark.parametrize("held_back", ["val", "validation", "test"])
def test_classes_are_the_folders_in_order(root: Path, held_back: str) -> None:
    names = [
        "train/n02/b.png",
        "train/n02/a.png",
        "train/n01/deep/er/x.png",
        "train/n01/y.png",
        "train/n10/z.png",
    ]
    write(root, {name: encoded(picture(seed)) for seed, name in enumerate(names)})
    write(
        root, {f"{held_back}/n10/v.png": encoded(picture(9)), "train/.cache/h.png": b"", "train/n01/.h": b""}
    )
    data = opened(root)
    assert data.class_names == ("n01", "n02", "n10")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2]
    expected = np.stack([picture(seed) for seed in (3, 2, 1, 0, 4)]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(data.train.pixels, expected)
    assert data.held_back is not None
    assert data.held_back.labels.tolist() == [2]
    np.testing.assert_array_equal(data.held_back.pixels[0], picture(9).transpose(2, 0, 1))
    assert data.source == f"folder:{root}"


def test_without_splits_all_is_for_training(root: Path) -> None:
    write(root, {"cat/1.png": encoded(picture(1)), "dog/1.png": encoded(picture(2))})
    data = opened(root)
    assert (data.class_names, len(data.train), data.held_back) == (("cat", "dog"), 2, None)


def test_every_encoding_and_mode_becomes_rgb(root: Path) -> None:
    grey = picture(3)[..., 0]
    write(root, {"a/grey.png": encoded(grey), "a/photo.jpg": encoded(picture(4), "JPEG")})
    cmyk = Image.fromarray(picture(5)).convert("CMYK")
    cmyk.save(root / "a" / "print.JPEG", "JPEG")
    found = opened(root).train.pixels
    np.testing.assert_array_equal(found[0], np.stack([grey] * 3))
    for index, file in ((1, "photo.jpg"), (2, "print.JPEG")):
        with Image.open(root / "a" / file) as image:
            by_pillow = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(found[index], by_pillow)


def test_damaged_files_are_left_out_and_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = encoded(picture(1), "JPEG")
    write(
        root,
        {
            "train/a/1.png": encoded(picture(2)),
            "train/a/2.jpg": noise[:-40],
            "train/a/3.txt": b"not an image",
            "train/b/4.png": encoded(picture(3)),
            "train/b/5.png": b"",
            "train/b/6.png": encoded(picture(4)),
        },
    )
    (root / "train" / "b" / "7.png").symlink_to("nowhere")
    write(root, {f"train/b/8{n}.png": encoded(picture(n)) for n in range(3)})
    data = opened(root)
    assert data.train.labels.tolist() == [0, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(data.train.pixels[1], picture(3).transpose(2, 0, 1))
    told = capsys.readouterr()
    left_out = "left out 4 of 10 training files or rows "
    kinds = "(1 damaged (.jpg), 1 no image (.txt), 1 empty, 1 unreadable); the first is "
    assert f"isonas: folder:{root}: {left_out}{kinds}{root}/train/a/2.jpg (" in told.err
    assert told.out == ""
    opened(root)
    again = capsys.readouterr().err
    assert "decoding" not in again
    assert left_out + kinds in again


def test_held_back_images_of_a_class_without_training_images(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The only training file of b is damaged."""
    write(root, {f"train/{name}/{n}.png": encoded(picture(n)) for name in "ac" for n in range(3)})
    write(root, {"train/b/1.png": encoded(picture(1))[:-30]})
    write(root, {f"val/{name}/9.png": encoded(picture(9 + ord(name))) for name in "bc"})
    data = opened(root)
    assert data.class_names == ("a", "c")
    assert data.held_back is not None
    assert data.held_back.labels.tolist() == [1]
    np.testing.assert_array_equal(data.held_back.pixels[0], picture(9 + ord("c")).transpose(2, 0, 1))
    left_out = "left out 1 of 2 held-back files or rows (1 of a class without training images)."
    assert left_out in capsys.readouterr().err
    (root / "val" / "c" / "9.png").unlink()
    assert opened(root).held_back is None
    assert "held-back files are of other classes and are left out; no im" in capsys.readouterr().err


def unknown_class(root: Path) -> None:
    write(root, {f"{name}/1.png": encoded(picture(1)) for name in ("train/a", "val/a", "val/b")})


def no_training(root: Path) -> None:
    write(root, {"val/a/1.png": encoded(picture(1))})


def no_classes(root: Path) -> None:
    write(root, {"1.png": encoded(picture(1))})


def empty_classes(root: Path) -> None:
    (root / "train" / "a").mkdir(parents=True)


def mostly_text(root: Path) -> None:
    write(root, {"a/1.png": encoded(picture(1)), "a/2.png": b"text", "a/3.png": b"text"})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (unknown_class, "val has a class 'b' that .*train lacks"),
        (no_training, "has val/ but no train/"),
        (no_classes, "has no folders"),
        (empty_classes, "has no images in its class folders"),
        (mostly_text, r"2 of 3 files are damaged or no images, such as .*2\.png \("),
    ],
)
def test_what_is_no_such_folder_gets_a_sentence(root: Path, make: Callable[[Path], None], says: str) -> None:
    make(root)
    with pytest.raises(DataError, match=says) as caught:
        opened(root)
    assert "\n" not in str(caught.value)
    assert not list((root.parent / "cache").glob("*pixels*"))
    assert not list((root.parent / "cache").glob(".*"))


def test_no_folder_at_all(root: Path) -> None:
    with pytest.raises(UsageError, match="is no folder; give one"):
        opened(root)


def test_a_moved_folder_is_the_same_set_and_a_changed_one_is_not(root: Path) -> None:
    write(root, {f"train/{name}/{n}.png": encoded(picture(n)) for n in range(3) for name in "ab"})
    first = opened(root)
    shutil.copytree(root, root.parent / "copy")
    assert opened(root.parent / "copy").fingerprint == first.fingerprint
    (root / "train" / "b" / "1.png").write_bytes(encoded(picture(7)))
    changed = opened(root)
    assert changed.fingerprint != first.fingerprint
    np.testing.assert_array_equal(changed.train.pixels[4], picture(7).transpose(2, 0, 1))
    (root / "train" / "a").rename(root / "train" / "c")
    assert opened(root).fingerprint not in (first.fingerprint, changed.fingerprint)
