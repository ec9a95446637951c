"""Area-downsampling of whole images: each output pixel is the mean of the area it covers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from isonas.data.dataset import Images
from isonas.data.store import Chunks, stored_beside


def downsample(images: Images, side: int) -> Images:
    """The same images at `side` pixels; `side` is at most their own.

    Nothing is cropped: a smaller input shows the same image. The paper (section 7.1) does not say how its
    smaller inputs are made.
    Mapped images give mapped ones, one store a side beside their own; DataError where it cannot be
    written.
    """
    if side == images.side:
        return images

    def chunks() -> Chunks:
        weights = area_weights(images.side, side)
        count = max(1, _CHUNK_PIXELS // images.side**2)
        for start in range(0, len(images), count):
            part = slice(start, start + count)
            mean = weights @ images.pixels[part].astype(np.float32) @ weights.T
            yield np.rint(mean).astype(np.uint8), images.labels[part]

    if images.file is not None:
        doing = f"downsampling {images.side} to {side} pixels"
        made = stored_beside(images, f"to-{side}", doing, chunks)
        # The file may have been written under other numbers of the same classes.
        return replace(made, labels=images.labels, groups=images.groups)
    return replace(images, pixels=np.concatenate([pixels for pixels, _ in chunks()]))


_CHUNK_PIXELS = 2**20


def area_weights(from_side: int, to_side: int) -> npt.NDArray[np.float32]:
    """(to_side, from_side) shares with which input pixels cover each output pixel; rows sum to 1."""
    edges = np.arange(to_side + 1) * (from_side / to_side)
    left, right = edges[:-1, None], edges[1:, None]
    pixel = np.arange(from_side)
    overlap = np.clip(np.minimum(right, pixel + 1) - np.maximum(left, pixel), 0, None)
    shares: npt.NDArray[np.float32] = (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
