"""Where images lie. The GPU is a stub: a `meta` device that tells how much of its memory is free."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isonas.data.dataset import Dataset, Images
from isonas.data.store import stored
from isonas.data.synthetic import synthetic
from isonas.errors import MemoryExhausted, TrainingError
from isonas.genome import Genome
from isonas.training import examples as placing
from isonas.training import proxy
from isonas.training.augmentation import AugmentedImages
from isonas.training.examples import SHARE_OF_FREE, Examples, on_device
from isonas.training.machine import Machine
from isonas.training.proxy import ProxyEvaluator, ProxySetting
from isonas.training.recipe import Recipe
from isonas.training.recipes import load_recipe

COUNT, SIDE = 60, 8
BYTES = COUNT * 3 * SIDE**2


def images(folder: Path | None = None) -> Images:
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(COUNT, 3, SIDE, SIDE), dtype=np.uint8)
    labels = rng.integers(10, size=COUNT)
    if folder is None:
        return Images(pixels, labels)
    return stored(folder, "key", "drawing", lambda: iter([(pixels, labels)]))


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (count, 10 * count))


def test_what_pytorch_keeps_of_freed_tensors_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as the images take is free on the GPU, and PyTorch keeps the rest of what they ask for."""
    free(monkeypatch, BYTES)
    kept = (SHARE_OF_FREE - 1) * BYTES
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1000)
    for reserved, device in ((1000 + kept, "meta"), (1000 + kept - 1, "cpu")):
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda reserved=reserved: reserved)
        assert on_device(images(), "meta").pixels.device.type == device


@pytest.mark.parametrize("mapped", [False, True])
def test_a_gpu_holds_images_up_to_a_share_of_its_free_memory(
    mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = images(tmp_path if mapped else None)
    free(monkeypatch, SHARE_OF_FREE * BYTES)
    there = on_device(of, "meta")
    assert there.pixels.device.type == there.labels.device.type == "meta"
    assert there.pixels.shape == (COUNT, 3, SIDE, SIDE)
    free(monkeypatch, SHARE_OF_FREE * BYTES - 1)
    here = on_device(of, "meta")
    assert (here.pixels.device.type, here.labels.device.type) == ("cpu", "meta")
    # Half of them take half.
    assert on_device(of, "meta", np.arange(0, COUNT, 2)).pixels.device.type == "meta"


def test_where_others_were_faster_images_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    free(monkeypatch, 100 * BYTES)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", full)
        assert on_device(images(), "meta").pixels.device.type == "cpu"


@pytest.mark.parametrize("mapped", [False, True])
def test_images_that_stay_here_go_there_in_batches(
    mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, rows = images(tmp_path if mapped else None), np.arange(1, COUNT, 2)
    sent_to: list[torch.device] = []

    def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        sent_to.append(device)
        return tensor

    free(monkeypatch, 0)
    here = on_device(of, "meta", rows)
    assert here.pixels.device.type == "cpu"
    monkeypatch.setattr(placing, "sent", sent)
    for chosen in (torch.tensor([3, 0, 7]), slice(2, 5)):
        as_if = Examples(here.pixels, torch.from_numpy(of.labels[rows]), here.rows)
        pixels, labels = as_if.batch(chosen)
        index = chosen.numpy() if isinstance(chosen, torch.Tensor) else chosen
        assert np.array_equal(pixels.numpy(), of.pixels[rows][index])
        assert np.array_equal(labels.numpy(), of.labels[rows][index])
    here.batch(torch.tensor([3, 0, 7]))
    assert sent_to[-1].type == "meta"


def evaluator(data: Dataset, device: str = "cpu") -> ProxyEvaluator:
    setting = ProxySetting("none", Path(), Recipe(), Machine("cpu", "fp32", 1), 32, 32, 0)
    made = ProxyEvaluator(data, setting)
    made._machine = replace(setting.machine, device=device)
    return made


def test_a_gpu_holds_images_of_one_side_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of another side have gone, from PyTorch's reserve too, before the next are brought."""
    made, held = evaluator(synthetic(), "meta"), []
    emptied: list[list[int]] = []

    def placed(images: Images, *_: Any) -> Any:
        held.append(list(made._by_side))
        return images.side

    monkeypatch.setattr(proxy, "on_device", placed)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(list(made._by_side)))
    for side in (32, 16, 16, 32):
        there: tuple[Any, Any] = made._examples(side)
        assert there == (side, side)
        assert list(made._by_side) == [side]
    assert held == [[]] * 6
    assert emptied == [[]] * 3


def test_a_cpu_keeps_sides_while_they_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    data = synthetic()
    made = evaluator(data)
    monkeypatch.setattr(proxy, "KEPT_BYTES", 3 * len(data.train) * (32**2 + 16**2))
    for side in (32, 16):
        made._examples(side)
    assert list(made._by_side) == [32, 16]
    made._examples(8)
    assert list(made._by_side) == [8]


@pytest.mark.parametrize("error", [MemoryError, torch.cuda.OutOfMemoryError])
def test_memory_that_images_exhaust_is_not_a_batchs(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def exhausted(*_: Any) -> Any:
        calls.append(error)
        raise error("Unable to allocate 14.2 GiB")

    monkeypatch.setattr(proxy, "downsample", exhausted)
    with pytest.raises(
        TrainingError, match=r"memory does not hold \S+ images of 32 pixels \(\S+ GiB\); "
    ) as found:
        evaluator(synthetic())(Genome(1, 32, 8), 0, 0, 1, None)
    assert not isinstance(found.value, MemoryExhausted)
    assert len(calls) == 1
    monkeypatch.setattr(placing, "mapped_for_random", exhausted)
    with pytest.raises(TrainingError, match=rf"memory does not hold {COUNT} images"):
        on_device(replace(images(), file=Path("there")), "cpu")


def test_mapped_images_are_handed_over_by_their_file(tmp_path: Path) -> None:
    """To the loader processes of a retraining, and whatever else takes images to another process."""
    of = images(tmp_path)
    handed = pickle.dumps(of)
    assert len(handed) < of.labels.nbytes + 1000
    again = pickle.loads(handed)
    assert again.file == of.file
    assert isinstance(again.pixels, np.memmap)
    assert np.array_equal(again.pixels, of.pixels)
    assert np.array_equal(again.labels, of.labels)
    augmented = AugmentedImages(of, SIDE, load_recipe("adamw"), mirror=True, seed=0)
    assert len(pickle.dumps(augmented)) < BYTES
    in_memory = pickle.loads(pickle.dumps(images()))
    assert in_memory.file is None
    assert np.array_equal(in_memory.pixels, of.pixels)
