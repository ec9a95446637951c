"""The store of decoded images: one for all forms, whole or not there, mapped and never copied whole."""

from __future__ import annotations

import errno
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from isonas import atomic
from isonas.data import fingerprint as fingerprint_module
from isonas.data.dataset import Dataset, Images, in_memory
from isonas.data.fingerprint import fingerprint
from isonas.data.resize import downsample
from isonas.data.sources import open_dataset
from isonas.data.store import Chunks, stored
from isonas.data.synthetic import synthetic
from isonas.errors import DataError
from isonas.training.examples import on_device
from isonas.training.proxy import ProxyEvaluator
from tests.test_data import encoded, write_parquet
from tests.test_imagenet32 import as_npz, python2_protocol2
from tests.test_training import SEED, SETTING, SMALL, assert_equal_weights

Pixels = npt.NDArray[np.uint8]


def images(count: int = 10, side: int = 8, seed: int = 0) -> tuple[Pixels, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8), np.arange(count) * 3 // count


def pickled_batches(place: Path, pixels: Pixels, labels: list[int]) -> str:
    for number, part in enumerate((slice(0, 4), slice(4, None)), start=1):
        batch = python2_protocol2(pixels[part].reshape(-1, 192), [label + 1 for label in labels[part]])
        (place / f"train_data_batch_{number}").write_bytes(batch)
    return f"imagenet32:{place}"


def npz_batches(place: Path, pixels: Pixels, labels: list[int]) -> str:
    batch = as_npz(pixels.reshape(-1, 192), [label + 1 for label in labels])
    (place / "train_data_batch_1.npz").write_bytes(batch)
    return f"imagenet32:{place}"


def parquet_files(place: Path, pixels: Pixels, labels: list[int]) -> str:
    encodings = [encoded(image.transpose(1, 2, 0)) for image in pixels]
    (place / "train").mkdir()
    for number, part in enumerate((slice(0, 7), slice(7, None))):
        write_parquet(
            place / "train" / f"000{number}.parquet", encodings[part], labels[part], plain=number == 1
        )
    return f"parquet:{place}"


def class_folders(place: Path, pixels: Pixels, labels: list[int]) -> str:
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        (place / "train" / f"n{label}").mkdir(parents=True, exist_ok=True)
        (place / "train" / f"n{label}" / f"{number}.png").write_bytes(encoded(image.transpose(1, 2, 0)))
    return f"folder:{place}"


def test_all_forms_of_the_same_images_give_the_same_store(tmp_path: Path) -> None:
    pixels, labels = images()
    stores = []
    for form in (pickled_batches, npz_batches, parquet_files, class_folders):
        place = tmp_path / form.__name__
        place.mkdir()
        found = open_dataset(form(place, pixels, labels.tolist()), tmp_path / "cache").train
        np.testing.assert_array_equal(found.pixels, pixels)
        assert found.labels.tolist() == labels.tolist()
        assert found.file is not None
        stores.append(found.file.read_bytes())
    assert stores == [stores[0]] * 4
    assert stores[0].endswith(pixels.tobytes())


def in_chunks(pixels: Pixels, labels: npt.NDArray[np.int64], size: int = 3) -> Chunks:
    for start in range(0, len(labels), size):
        yield pixels[start : start + size], labels[start : start + size]


def test_a_store_is_a_plain_npy_file_whatever_the_chunks(tmp_path: Path) -> None:
    pixels, labels = images(200)
    for size in (1, 3, 199, 200):
        found = stored(tmp_path, f"by-{size}", "making", partial(in_chunks, pixels, labels, size))
        assert found.file is not None
        np.testing.assert_array_equal(np.load(found.file, allow_pickle=False), pixels)
        np.testing.assert_array_equal(found.labels, labels)
        assert not found.pixels.flags.writeable


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def lengthened(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")


def torn(file: Path) -> None:
    file.write_bytes(b"torn")


def of_others(file: Path) -> None:
    np.save(file, np.zeros((9, 3, 8, 8), np.uint8))


def of_another_type(file: Path) -> None:
    np.save(file, np.zeros((10, 3, 8, 8), np.int8))


def no_labels(file: Path) -> None:
    Path(str(file).replace("pixels", "labels")).unlink()


@pytest.mark.parametrize(
    "damage", [cut, lengthened, torn, of_others, of_another_type, no_labels, Path.unlink]
)
def test_a_store_is_checked_when_it_is_opened(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    calls: list[int] = []

    def make() -> Chunks:
        calls.append(1)
        return in_chunks(*images())

    for _ in range(2):
        found = stored(tmp_path, "key", "making", make)
    assert (len(calls), found.file is not None) == (1, True)
    assert found.file is not None
    damage(found.file)
    np.testing.assert_array_equal(stored(tmp_path, "key", "making", make).pixels, images()[0])
    assert len(calls) == 2


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    part = tmp_path / f".key.pixels.npy.abc{atomic.PART_SUFFIX}"
    part.write_bytes(b"half")
    stored(tmp_path, "key", "making", lambda: in_chunks(*images()))
    assert not part.exists()


def test_of_writers_at_the_same_time_one_writes(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> Chunks:
        calls.append(1)
        yield from in_chunks(*images())

    found: list[Images] = []

    def open_it() -> None:
        found.append(stored(tmp_path, "key", "making", make))

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    for each in found:
        np.testing.assert_array_equal(each.pixels, images()[0])


class Full:
    """A stream on a disk that is full after so many bytes."""

    def __init__(self, stream: Any, room: int) -> None:
        self._stream, self._room = stream, room

    def write(self, content: Any) -> int:
        self._room -= memoryview(content).nbytes
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self._stream.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@pytest.mark.parametrize("room", [0, 200, 1000, 1919 + 128])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    whole = atomic.write_atomically

    def on_a_full_disk(path: Path, write: Callable[[Any], object]) -> None:
        whole(path, lambda stream: write(Full(stream, room)))

    monkeypatch.setattr("isonas.data.store.write_atomically", on_a_full_disk)
    with pytest.raises(
        DataError, match=r"cannot be written \(No space left on device\); give another one with"
    ):
        stored(tmp_path, "key", "making", lambda: in_chunks(*images()))
    assert {path.name for path in tmp_path.iterdir()} <= {"key.lock"}
    monkeypatch.undo()
    np.testing.assert_array_equal(
        stored(tmp_path, "key", "making", lambda: in_chunks(*images())).pixels, images()[0]
    )


def test_a_source_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Any]:
        yield images()
        raise DataError("the second batch is damaged")

    with pytest.raises(DataError, match="the second batch is damaged"):
        stored(tmp_path, "key", "making", broken)
    with pytest.raises(DataError, match="came to no image"):
        stored(tmp_path, "key", "making", lambda: [])
    assert {path.name for path in tmp_path.iterdir()} == {"key.lock"}


def test_decoding_is_told_once_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "batches"
    place.mkdir()
    source = npz_batches(place, *((part if part.ndim > 1 else part.tolist()) for part in images(512)))  # type: ignore[arg-type]
    open_dataset(source, tmp_path / "cache")
    told = capsys.readouterr()
    line = f"isonas: decoding {source} (train) into {tmp_path / 'cache'} … 512 images, 0.1 MiB\n"
    understood = f"isonas: {source}: 512 images in 1 training batch, none held back"
    assert told.out == ""
    assert told.err.startswith(line + understood)
    open_dataset(source, tmp_path / "cache")
    assert capsys.readouterr().err == told.err.removeprefix(line)


def test_memory_holds_a_chunk_and_not_the_set(tmp_path: Path) -> None:
    """96 MiB go through the store, and down to another side, in a third of that."""
    chunk = images(1024, 32)
    tracemalloc.start()
    try:
        large = stored(tmp_path, "large", "making", lambda: (chunk for _ in range(32)))
        small = downsample(large, 8)
        examples = on_device(large, "cpu", np.arange(0, len(large), 2))
        batch, _ = examples.batch(torch.arange(64))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert large.pixels.nbytes == 96 * 2**20
    assert peak < 32 * 2**20
    assert small.file is not None
    np.testing.assert_array_equal(small.pixels[:1024], downsample(Images(*chunk), 8).pixels)
    np.testing.assert_array_equal(batch.numpy(), chunk[0][:128:2])


def mapped(data: Dataset, folder: Path) -> Dataset:
    assert data.held_back is not None
    train, held_back = (
        stored(folder, name, "making", partial(in_chunks, part.pixels, part.labels, 100))
        for name, part in (("train", data.train), ("held-back", data.held_back))
    )
    return replace(data, train=train, held_back=held_back)


@pytest.mark.parametrize("side", [16, 8])
def test_mapped_images_train_to_the_same_weights_bit_for_bit(tmp_path: Path, side: int) -> None:
    setting = replace(SETTING, source_side=side)
    on_disk = ProxyEvaluator(mapped(synthetic(), tmp_path), setting)
    in_ram = ProxyEvaluator(in_memory(synthetic()), setting)
    curve, state = on_disk(SMALL, SEED, 0, 2, None)
    expected_curve, expected_state = in_ram(SMALL, SEED, 0, 2, None)
    assert curve == expected_curve
    assert_equal_weights(state, expected_state)
    assert on_disk.held_back_error(SMALL, state) == in_ram.held_back_error(SMALL, state)
    assert (tmp_path / f"train-to-{side}.pixels.npy").exists() == (side != 16)


def test_a_fingerprint_is_of_content_order_and_headings(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (str(tmp_path / name) for name in "abc")
    of_a = fingerprint([("train", [a])], tmp_path)
    assert fingerprint([("train", [c])], tmp_path) == of_a
    others = [[("train", [b])], [("test", [a])], [("train", [a, b])], [("train", [b, a])], [("train", [])]]
    digests = {fingerprint(groups, tmp_path) for groups in others}  # type: ignore[arg-type]
    assert len(digests | {of_a}) == 6


def test_a_fingerprint_reads_files_again_when_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    digest = fingerprint_module._digest

    def spy(file: str) -> bytes:
        read.append(file)
        return digest(file)

    monkeypatch.setattr(fingerprint_module, "_digest", spy)
    file = tmp_path / "images"
    file.write_bytes(b"one")
    groups = [("train", [str(file)])]
    times = file.stat()
    monkeypatch.setattr("isonas.data.fingerprint.time.time", lambda: times.st_ctime + 1)
    first = fingerprint(groups, tmp_path / "cache")
    # A change so young may be followed by another that the clock does not tell from it.
    assert (fingerprint(groups, tmp_path / "cache"), len(read)) == (first, 2)
    monkeypatch.setattr("isonas.data.fingerprint.time.time", lambda: times.st_ctime + 60)
    for _ in range(3):
        assert fingerprint(groups, tmp_path / "cache") == first
    assert len(read) == 3
    while file.stat().st_ctime_ns == times.st_ctime_ns:  # the clock of a file system is coarse
        file.write_bytes(b"two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint(groups, tmp_path / "cache") != first
