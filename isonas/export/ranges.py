"""What values the tensors of a network take on real images: what their int8 scales are chosen from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from isonas.data.augment import normalise
from isonas.networks.isometric import Block, IsometricNet, SqueezeExcite

Floats = npt.NDArray[np.float64]

SAMPLED = 20_000
"""Values of each tensor that are kept from each batch."""

BATCH = 32
H_SWISH_ZERO = -3.0
"""H-swish is 0 from here down: a pre-activation below it needs no place on the int8 scale."""


@dataclass
class Seen:
    """The extremes of a tensor over all images, and a sample of its values."""

    low: float = np.inf
    high: float = -np.inf
    sample: list[Floats] = field(default_factory=list)

    def add(self, tensor: Tensor) -> None:
        """Take in one batch's values."""
        self.low = min(self.low, float(tensor.min()))
        self.high = max(self.high, float(tensor.max()))
        flat = tensor.flatten()
        self.sample.append(flat[:: max(1, flat.numel() // SAMPLED)].double().numpy())


def observe(network: IsometricNet, pixels: npt.NDArray[np.uint8]) -> dict[str, Seen]:
    """Every tensor that int8 needs a scale for, by name, over images (n, 3, S, S) of the network's input.

    `stem`, `expand0`, `depthwise0`, …, `head`, `features` are pre-activations; `stream0` is what the
    first block reads, `stream1` what it writes; `squeeze0` follows the SE's ReLU; `logits` are logits.
    """
    seen: dict[str, Seen] = {}
    handles = []
    use = 0

    def see(name: str) -> None:
        seen.setdefault(name, Seen())

    def watch(module: nn.Module, name: str, *, once: bool = True) -> None:
        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            key = name if once else f"{name}{use}"
            see(key)
            seen[key].add(output)

        handles.append(module.register_forward_hook(hook))

    def advance(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal use
        use += 1
        see(f"stream{use}")
        seen[f"stream{use}"].add(output)

    def begin(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal use
        use = 0
        see("stream0")
        seen["stream0"].add(output)

    watch(network.stem.conv, "stem")
    handles.append(network.stem.register_forward_hook(begin))
    for block in network.blocks:
        assert isinstance(block, Block)
        watch(block.expand, "expand", once=False)
        watch(block.depthwise, "depthwise", once=False)
        if isinstance(block.se, SqueezeExcite):
            watch(block.se.reduce_act, "squeeze", once=False)
        handles.append(block.register_forward_hook(advance))
    watch(network.head_conv, "head")
    if not isinstance(network.features, nn.Identity):
        watch(network.features, "features")
    watch(network.classifier, "logits")
    training = network.training
    try:
        network.eval()
        with torch.no_grad():
            for start in range(0, len(pixels), BATCH):
                network(normalise(torch.from_numpy(np.ascontiguousarray(pixels[start : start + BATCH]))))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return seen


def closest_range(seen: Seen, *, activated: bool) -> tuple[float, float]:
    """The range whose 256 even steps give the least mean squared error, among parts of the extremes.

    With `activated` the tensor goes through h-swish, and the error is that of the result.
    """
    values = np.concatenate(seen.sample)
    low = max(seen.low, H_SWISH_ZERO) if activated else seen.low
    best = (np.inf, low, seen.high)
    wanted = h_swish(values) if activated else values
    for part in np.linspace(0.3, 1, 29):
        bottom, top = (low if activated else low * part), seen.high * part
        if top <= bottom:
            continue
        step = (top - bottom) / 255
        rounded = np.clip(np.rint((values - bottom) / step), 0, 255) * step + bottom
        given = h_swish(rounded) if activated else rounded
        best = min(best, (float(((given - wanted) ** 2).mean()), bottom, top))
    return best[1], best[2]


def h_swish(values: Floats) -> Floats:
    """x · clip(x + 3, 0, 6) / 6."""
    swished: Floats = values * np.clip(values + 3, 0, 6) / 6
    return swished
