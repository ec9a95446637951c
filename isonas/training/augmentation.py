"""Augmentation of a full training, by timm: crops, flips and RandAugment of single images; erasing,
mixup and CutMix of whole batches.

Whatever is random draws from the global generators, which are seeded for each image by (seed, epoch,
image) and for each batch by (seed, epoch, step, share): neither worker processes nor a resume change it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import isonas.networks.timm  # noqa: F401  (makes timm importable beside any torchvision)
from isonas.data.augment import MEAN
from isonas.data.dataset import Images
from isonas.errors import UsageError
from isonas.training.machine import Machine
from isonas.training.recipes import FullRecipe

_SMALL_SIDE, _SMALL_CROP = 80, 0.35
"""At 80 pixels and below, Inception's crops down to 8% of the area leave nothing to recognise."""

_IMAGES, _BATCHES = 0, 1

Key = tuple[int, int]
"""An image in an epoch: (epoch, index)."""


class AugmentedImages(Dataset[tuple[npt.NDArray[np.uint8], int]]):
    """uint8 images (3, side, side) with their labels by (epoch, index): the same for equal keys.

    They are cut from `images`, whose squares may be larger.
    """

    def __init__(self, images: Images, side: int, recipe: FullRecipe, *, mirror: bool, seed: int) -> None:
        self._images = images
        self._seed = seed
        self._mirror = mirror
        self._crop = _crop(side, recipe)
        self._augment = _randaugment(recipe.randaugment)

    def __getitem__(self, key: Key) -> tuple[npt.NDArray[np.uint8], int]:
        """Raises nothing: every image was decoded before."""
        epoch, index = key
        reseed(self._seed, _IMAGES, epoch, index)
        image = Image.fromarray(np.ascontiguousarray(self._images.pixels[index].transpose(1, 2, 0)))
        image = self._crop(image)
        if self._mirror and random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.array(self._augment(image)).transpose(2, 0, 1)
        return np.ascontiguousarray(pixels), int(self._images.labels[index])


def loader(
    images: AugmentedImages, batches: Iterable[list[Key]], workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images (N, 3, side, side) and labels (N,), prepared by `workers` processes (0: by none)."""
    ahead: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
    sampler: Any = batches
    prepared = DataLoader(images, batch_sampler=sampler, num_workers=workers, collate_fn=_stacked, **ahead)
    return ((torch.from_numpy(pixels), torch.from_numpy(labels)) for pixels, labels in prepared)


def _stacked(examples: list[tuple[npt.NDArray[np.uint8], int]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    # Arrays come from a process as bytes; tensors would through /dev/shm, of which a container has 64 MB.
    pixels, labels = zip(*examples, strict=True)
    return np.stack(pixels), np.array(labels, np.int64)


def mixing(
    recipe: FullRecipe, classes: int, device: str
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What erases and mixes normalised images and turns labels (N,) into soft targets (N, classes)."""
    from timm.data import mixup as timm_mixup
    from timm.data import random_erasing

    # Untyped in timm.
    make_mixup: Any = timm_mixup.Mixup
    make_erasing: Any = random_erasing.RandomErasing
    soft: Any = timm_mixup.mixup_target
    smoothing = recipe.label_smoothing
    erase = make_erasing(recipe.erasing, mode="pixel", device=device) if recipe.erasing else None
    mix = None
    if recipe.mixup or recipe.cutmix:
        mix = make_mixup(recipe.mixup, recipe.cutmix, num_classes=classes, label_smoothing=smoothing)

    def mixed(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if erase is not None:
            images = erase(images)
        if mix is not None:
            images, targets = mix(images, labels)
            return images, targets
        return images, soft(labels, classes, 1.0, smoothing)

    return mixed


def crop_side(side: int, recipe: FullRecipe) -> int:
    """The side of the squares to cut training crops of `side` pixels from.

    A crop of mean area has about `side` pixels of them, in whole multiples of 16; where a recipe never
    crops it is `side` itself.
    """
    area = _least_area(side, recipe)
    return side if area == 1 else 16 * math.ceil(side * math.sqrt(2 / (1 + area)) / 16)


def reseed_batch(seed: int, epoch: int, step: int, share: int) -> None:
    """Seed what a step draws for its images after they are loaded: erasing, mixing, dropout."""
    reseed(seed, _BATCHES, epoch, step, share)


def reseed(*key: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch from a key."""
    first, second, third = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(first))
    np.random.seed(int(second))
    torch.manual_seed(int(third))


def check_randaugment(recipe: FullRecipe) -> None:
    """Raise UsageError where timm does not understand a recipe's RandAugment."""
    _randaugment(recipe.randaugment)


@contextmanager
def randomness_kept(machine: Machine) -> Iterator[None]:
    """The global generators as they were, afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with machine.random_state_kept():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _least_area(side: int, recipe: FullRecipe) -> float:
    """The least share of an image that a crop of `side` pixels takes."""
    return max(recipe.crop_area, _SMALL_CROP) if side <= _SMALL_SIDE else recipe.crop_area


def _crop(side: int, recipe: FullRecipe) -> Callable[[Image.Image], Image.Image]:
    from timm.data import transforms

    area = _least_area(side, recipe)
    # Untyped in timm.
    make: Any = transforms.RandomResizedCropAndInterpolation
    crop: Callable[[Image.Image], Image.Image] = make(side, scale=(area, 1.0))
    return crop


def _randaugment(text: str) -> Callable[[Image.Image], Image.Image]:
    from timm.data.auto_augment import rand_augment_transform

    if not text:
        return _as_it_is
    grey = tuple(round(255 * mean) for mean in MEAN)
    try:
        # All of timm's transforms move an image by a share of its own side.
        augment: Callable[[Image.Image], Image.Image] = rand_augment_transform(text, {"img_mean": grey})
    except (AssertionError, ValueError, KeyError):
        raise UsageError(
            f"randaugment {text!r} is not understood; give timm's text, such as "
            "rand-m6-n2-mstd0.5, or nothing."
        ) from None
    return augment


def _as_it_is(image: Image.Image) -> Image.Image:
    return image
