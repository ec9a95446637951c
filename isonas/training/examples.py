"""Where the images of a training lie: on its device, or in the machine's memory and files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from isonas.data.augment import sent
from isonas.data.dataset import Images
from isonas.data.store import mapped_for_random
from isonas.errors import TrainingError

SHARE_OF_FREE = 4
"""Images that take more than this part (a quarter) of a GPU's free memory stay off it: what trains,
and other trainings on the same GPU, need the rest."""

_UPLOAD = 8192


@dataclass(frozen=True)
class Examples:
    """uint8 images (N, 3, S, S), and labels (N,) on the device they are trained on.

    Where `rows` (N,) is given, `pixels` holds more images than these, and example i is its rows[i]-th.
    Pixels that do not lie on the labels' device go there as they are asked for.
    """

    pixels: Tensor
    labels: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, chosen: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Pixels and labels of some of the examples; `chosen` lies where the pixels lie."""
        device = self.labels.device
        pixels = sent(self.pixels[chosen if self.rows is None else self.rows[chosen]], device)
        return pixels, self.labels[chosen if isinstance(chosen, slice) else sent(chosen, device)]


def on_device(images: Images, device: str, rows: npt.NDArray[np.int64] | None = None) -> Examples:
    """Images for training on a device ("cpu" or "cuda"): all, or those of some `rows`.

    They go to a GPU, some at a time, where they take no more than a quarter of its free memory
    (SHARE_OF_FREE) and there is room; else they stay here, mapped ones in their file, and batches go
    there. Raises TrainingError, which no smaller batch mends, where memory does not hold them.
    """
    chosen = np.arange(len(images)) if rows is None else rows
    with images_held(len(chosen), images.side):
        labels = torch.from_numpy(images.labels[chosen]).to(device)
        if device != "cpu" and (pixels := _uploaded(images, chosen, device)) is not None:
            return Examples(pixels, labels)
        if images.file is None and device == "cpu":
            return Examples(torch.from_numpy(images.pixels[chosen]), labels)
        with warnings.catch_warnings():
            # PyTorch has no read-only tensors, and warns; nothing here writes to images.
            warnings.simplefilter("ignore", UserWarning)
            pixels = torch.from_numpy(images.pixels if images.file is None else mapped_for_random(images))
        return Examples(pixels, labels, torch.from_numpy(chosen))


def _uploaded(images: Images, chosen: npt.NDArray[np.int64], device: str) -> Tensor | None:
    """None where the images would take too much of the device's memory."""
    shape = (len(chosen), *images.pixels.shape[1:])
    free, _ = torch.cuda.mem_get_info()
    # What PyTorch keeps of freed tensors counts as taken there, and is free to this process.
    free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if int(np.prod(shape, dtype=np.int64)) > free // SHARE_OF_FREE:
        return None
    try:
        pixels = torch.empty(shape, dtype=torch.uint8, device=device)
    except torch.cuda.OutOfMemoryError:
        # Others on the same GPU were faster.
        return None
    for start in range(0, len(chosen), _UPLOAD):
        part = slice(start, start + _UPLOAD)
        pixels[part] = torch.from_numpy(images.pixels[chosen[part]])
    return pixels


@contextmanager
def images_held(count: int, side: int) -> Iterator[None]:
    """Raise TrainingError where memory runs out inside: what does not fit is the images, not a batch."""
    try:
        yield
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        size = count * 3 * side**2 / 2**30
        raise TrainingError(
            f"memory does not hold {count:,} images of {side} pixels ({size:.1f} GiB); "
            "train on smaller or fewer ones, or in fewer processes at a time."
        ) from error
