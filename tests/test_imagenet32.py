"""The official batches of downsampled ImageNet: every form of them, and every way to be broken."""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from isonas.data.dataset import Dataset
from isonas.data.sources import open_dataset
from isonas.data.unpickle import RefusedPickle, unpickle_dict
from isonas.errors import DataError, UsageError

Rows = npt.NDArray[np.uint8]
Write = Callable[[Rows, list[int]], bytes]


def python2_protocol2(data: Rows, labels: list[int]) -> bytes:
    """As `pickle` of Python 2.7 with NumPy 1.16 writes the dict: its strings have no type."""
    count, width = (
        b"M" + size.to_bytes(2, "little") if size > 255 else bytes((75, size)) for size in data.shape
    )
    numbers = b"".join(b"M" + n.to_bytes(2, "little") if n > 255 else bytes((75, n)) for n in labels)
    return (
        b"\x80\x02}q\x00(U\x06labelsq\x01]q\x02(" + numbers + b"e"
        b"U\x04dataq\x03cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05"
        b"K\x00\x85q\x06U\x01bq\x07\x87q\x08Rq\t(K\x01" + count + width + b"\x86q\n"
        b"cnumpy\ndtype\nq\x0bU\x02u1q\x0cK\x00K\x01\x87q\rRq\x0e(K\x03U\x01|q\x0fNNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89"
        b"T" + data.nbytes.to_bytes(4, "little") + data.tobytes() + b"q\x11tq\x12bu."
    )  # fmt: skip


def python2_protocol0(data: Rows, labels: list[int]) -> bytes:
    """As Python 2's default protocol, which is text."""
    numbers = b"".join(b"I%d\na" % label for label in labels)
    content = repr(data.tobytes())[1:].encode()
    return (
        b"(dp0\nS'labels'\np1\n(lp2\n" + numbers + b"sS'data'\np3\n"
        b"cnumpy.core.multiarray\n_reconstruct\np4\n(cnumpy\nndarray\np5\n(I0\ntp6\nS'b'\np7\ntp8\nRp9\n"
        b"(I1\n(I%d\nI%d\ntp10\ncnumpy\ndtype\np11\n(S'u1'\np12\nI0\nI1\ntp13\nRp14\n"
        b"(I3\nS'|'\np15\nNNNI-1\nI-1\nI0\ntp16\nbI00\nS" % data.shape + content + b"\np17\ntp18\nbs."
    )


def python3(protocol: int, core: bytes, data: Rows, labels: list[int]) -> bytes:
    """As Python 3 writes it, with the module's name of NumPy 1 (core) or 2 (_core)."""
    whole = pickle.dumps({"data": data, "labels": labels, "mean": data.mean(axis=0)}, protocol)
    if protocol >= 4:
        # A name of this protocol goes behind its length, and all of it into a frame behind its own.
        return (
            unframed(whole)
            .replace(b"\x8c\x16numpy._core.multiarray", NAMES[core, b"multiarray"])
            .replace(b"\x8c\x13numpy._core.numeric", NAMES[core, b"numeric"])
        )
    return whole.replace(b"cnumpy._core.", b"cnumpy." + core + b".")


NAMES = {
    (core, module): bytes((140, len(b"numpy..") + len(core) + len(module))) + b"numpy." + core + b"." + module
    for core in (b"core", b"_core")
    for module in (b"multiarray", b"numeric")
}


def unframed(whole: bytes) -> bytes:
    """The same pickle without its frames, which are hints for readers and may be left out."""
    ends = [*[position for _, _, position in pickletools.genops(whole)][1:], len(whole)]
    parts = zip(pickletools.genops(whole), ends, strict=True)
    return b"".join(whole[position:end] for (opcode, _, position), end in parts if opcode.name != "FRAME")


def bytes_keys(data: Rows, labels: list[int]) -> bytes:
    return pickle.dumps({b"data": data, b"labels": np.array(labels), b"mean": None}, 2)


FORMS: dict[str, Write] = {
    "python 2, protocol 2": python2_protocol2,
    "python 2, protocol 0": python2_protocol0,
    "bytes keys": bytes_keys,
    **{
        f"python 3, protocol {protocol}, numpy {version}": partial(python3, protocol, core)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        for version, core in ((1, b"core"), (2, b"_core"))
    },
}


def rows(count: int = 4, side: int = 8, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).integers(0, 256, (count, 3 * side**2), dtype=np.uint8)


def as_npz(data: Rows, labels: list[int]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, data=data, labels=labels, mean=data.mean(axis=0))
    return stream.getvalue()


def opened(folder: Path) -> Dataset:
    return open_dataset(f"imagenet32:{folder}", folder / "cache")


def test_the_forms_of_python_2_are_the_real_ones() -> None:
    """Digests of the files that Python 2.7.18 with NumPy 1.16.6 wrote."""
    data = (np.arange(2 * 192) % 256).astype(np.uint8).reshape(2, 192)
    digests = [
        hashlib.md5(form(data, [1, 1000])).hexdigest() for form in (python2_protocol0, python2_protocol2)
    ]
    assert digests == ["ba58a9859d9d5dcb02574ddf9e4734a3", "7d2b1b26d7669d11d196c9173a66b75d"]


@pytest.mark.parametrize("form", FORMS)
def test_every_pickled_form_gives_what_was_written(tmp_path: Path, form: str) -> None:
    data, labels = rows(), [3, 1, 1000, 2]
    (tmp_path / "train_data_batch_1").write_bytes(FORMS[form](data, labels))
    found = opened(tmp_path).train
    np.testing.assert_array_equal(found.pixels.reshape(4, -1), data)
    assert found.labels.tolist() == [2, 0, 999, 1]


@pytest.mark.parametrize("side", [8, 16, 32, 64])
@pytest.mark.parametrize("write", [as_npz, python2_protocol2], ids=["npz", "pickled"])
def test_batches_come_in_their_numbers_order(tmp_path: Path, side: int, write: Write) -> None:
    suffix = ".npz" if write is as_npz else ""
    (tmp_path / "train").mkdir()
    for number in (10, 2, 1):
        batch = write(rows(number, side, number), [number] * number)
        (tmp_path / "train" / f"train_data_batch_{number}{suffix}").write_bytes(batch)
    (tmp_path / f"val_data{suffix}").write_bytes(write(rows(3, side, 99), [1, 2, 11]))
    data = opened(tmp_path)
    assert data.held_back is not None
    expected = np.concatenate([rows(number, side, number) for number in (1, 2, 10)])
    np.testing.assert_array_equal(data.train.pixels, expected.reshape(-1, 3, side, side))
    np.testing.assert_array_equal(data.held_back.pixels, rows(3, side, 99).reshape(-1, 3, side, side))
    assert data.train.labels.tolist() == [0] + [1] * 2 + [9] * 10
    assert data.class_names == tuple(str(number) for number in range(1, 12))


def test_a_batch_in_both_forms_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "train_data_batch_1").write_bytes(b"never opened as a pickle")
    (tmp_path / "train_data_batch_1.npz").write_bytes(as_npz(rows(), [1, 2, 3, 4]))
    assert len(opened(tmp_path).train) == 4


class Evil:
    """Pickles to a call of `touch`'s path; what a call would leave behind is a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def system(path: Path) -> bytes:
    return b"cos\nsystem\n(S'touch " + str(path).encode() + b"'\ntR."


def by_extension(_: Path) -> bytes:
    return b"\x80\x02\x82\x01."


def evaluated(path: Path) -> bytes:
    return b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c" + framed(f"open({str(path)!r}, 'w')") + b"\x85R."


def framed(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


def through_numpy(path: Path) -> bytes:
    """A name that hides behind an admitted module."""
    return b"cnumpy.core.multiarray\nos.system\n(S'touch " + str(path).encode() + b"'\ntR."


@pytest.mark.parametrize(
    "attack",
    [lambda path: pickle.dumps({"data": Evil(path)}), system, evaluated, through_numpy, by_extension],
)
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, attack: Callable[[Path], bytes]) -> None:
    (tmp_path / "train_data_batch_1").write_bytes(attack(tmp_path / "executed"))
    with pytest.raises(DataError, match="replace it by the official file") as caught:
        opened(tmp_path)
    assert str(caught.value).count("\n") == 0
    assert not (tmp_path / "executed").exists()
    assert not list((tmp_path / "cache").glob("*pixels*"))


def test_an_array_of_objects_is_refused() -> None:
    for protocol in range(2, 6):
        whole = pickle.dumps({"data": np.array([{}], dtype=object)}, protocol)
        with pytest.raises(RefusedPickle, match="'O8', not of numbers"):
            unpickle_dict(io.BytesIO(whole))


def test_what_a_pickle_does_to_a_stand_in_does_not_last() -> None:
    """BUILD sets attributes of what a name gave: here `__defaults__` of the function for `dtype`."""
    vandal = b"\x80\x02}X\x01\x00\x00\x00a\x63numpy\ndtype\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86bs."
    unpickle_dict(io.BytesIO(vandal))
    data = unpickle_dict(io.BytesIO(python2_protocol2(rows(), [1] * 4)))["data"]
    np.testing.assert_array_equal(data, rows())


@given(
    arrays.arrays(
        st.sampled_from(["u1", "i2", "<i4", ">i8", "f4", ">f8", "?"]),
        arrays.array_shapes(min_side=0, max_dims=3),
    ),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
    st.booleans(),
)
def test_the_restricted_unpickler_agrees_with_pickle(array: Any, protocol: int, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    whole = pickle.dumps({"a": array, "n": [1, "x", (None, 2.5)], "s": array.dtype.type(1)}, protocol)
    found, trusted = unpickle_dict(io.BytesIO(whole)), pickle.loads(whole)
    np.testing.assert_array_equal(found["a"], trusted["a"])
    assert found["a"].dtype == array.dtype
    assert (found["n"], found["s"]) == (trusted["n"], trusted["s"])


def test_a_huge_memo_index_costs_no_memory() -> None:
    """LONG_BINPUT 2³⁰: the C unpickler would set aside 16 GiB for it."""
    tracemalloc.start()
    try:
        assert unpickle_dict(io.BytesIO(b"}r\x00\x00\x00\x40.")) == {}
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 600))
def test_damage_is_told_whatever_it_is(noise: bytes, place: int) -> None:
    whole = python2_protocol2(rows(2), [1, 2])
    for damaged in (noise, whole[:place], whole[:place] + noise + whole[place + len(noise) :]):
        reason = ""
        try:
            unpickle_dict(io.BytesIO(damaged))
        except RefusedPickle as error:
            reason = str(error)
        assert reason == "" or reason.isprintable()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"train_data_batch_1": python2_protocol2(rows(), [1] * 4)[:300]}, "is damaged or no pickle"),
        ({"train_data_batch_1": b"<!DOCTYPE html>"}, "no instruction of a pickle is byte 0x3c, '<'"),
        ({"train_data_batch_1.npz": as_npz(rows(), [1] * 4)[:300]}, "cannot be read as an .npz of arrays"),
        ({"train_data_batch_1.npz": b""}, "cannot be read as an .npz of arrays"),
        ({"train_data_batch_1": bytes_keys(rows(), [1, 2, 0, 3])}, "has a label 0, where labels count"),
        ({"train_data_batch_1.npz": as_npz(rows(), [1, 2, 1001, 3])}, "has a label 1001, where labels count"),
        ({"train_data_batch_1": bytes_keys(rows(), [1, 2, 3])}, "labels is no list of 4 whole numbers"),
        ({"train_data_batch_1": pickle.dumps({"data": rows()})}, "has no 'labels'"),
        ({"train_data_batch_1": pickle.dumps([rows()])}, "holds no dict"),
        ({"train_data_batch_1": bytes_keys(rows()[:, :190], [1] * 4)}, r"data is uint8 \(4, 190\)"),
        ({"train_data_batch_1": pickle.dumps({"data": 3, "labels": []})}, "data is int, not uint8"),
        (
            {
                "train_data_batch_1": bytes_keys(rows(), [1] * 4),
                "train_data_batch_2": bytes_keys(rows(side=16), [1] * 4),
            },
            "has images of 8 pixels, .*batch_2 of 16",
        ),
        (
            {
                "train_data_batch_1": bytes_keys(rows(), [1] * 4),
                "val_data": bytes_keys(rows(side=16), [1] * 4),
            },
            "val_data has images of 16 pixels",
        ),
        (
            {
                "a/train_data_batch_1": bytes_keys(rows(), [1] * 4),
                "b/train_data_batch_1": bytes_keys(rows(), [1] * 4),
            },
            "are the same batch",
        ),
    ],
)  # fmt: skip
def test_broken_batches_get_a_sentence(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)
    if "val_data" not in files:
        assert not list((tmp_path / "cache").glob("*pixels*"))
    assert not list((tmp_path / "cache").glob(".*"))


@pytest.mark.parametrize("there", [[], ["val_data"]])
def test_no_batches(tmp_path: Path, there: list[str]) -> None:
    for name in there:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UsageError, match="has no file train_data_batch_1"):
        opened(tmp_path)
