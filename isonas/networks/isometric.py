"""The isometric network of Sandler et al. (2019), "Non-discriminative data or weak model?".

Table 2 and Fig. 5: a stem brings the image to r×r, then `depth` identical MobileNetV3 blocks with
squeeze-and-excite run at that resolution, then a 1×1 convolution, pooling and fully connected layers.

This file needs PyTorch alone: an exported model carries it along.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class IsometricNet(nn.Module):
    """(N, 3, input_side, input_side) images to (N, classes) logits.

    `expansion` times `channels` is the hidden width of a block, `squeeze` the width of its SE in
    channels (0: none), `stem` one of "s2d", "conv", "resize", `head_width` the channels pooled,
    `head_features` the width of the hidden fully connected layer (0: none). With `shared` one block,
    its batch norm included, is used `depth` times.

    Raises ValueError where `internal_resolution` is below `input_side` and does not divide it.
    """

    def __init__(
        self,
        *,
        depth: int,
        channels: int,
        internal_resolution: int,
        expansion: int,
        squeeze: int,
        stem: str,
        kernel_size: int,
        head_width: int,
        head_features: int,
        shared: bool,
        input_side: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.depth = depth
        self.num_classes = classes
        self.num_features = head_width
        self.head_hidden_size = head_features or head_width
        self.stem = Stem(stem, channels, internal_resolution, input_side)
        self.blocks = nn.ModuleList(
            Block(channels, expansion * channels, squeeze, kernel_size) for _ in range(1 if shared else depth)
        )
        self.head_conv = ConvNorm(channels, head_width, 1)
        self.head_act = nn.Hardswish()
        self.pool = Pool(keepdim=False)
        self.features = nn.Linear(head_width, head_features) if head_features else nn.Identity()
        self.features_act = nn.Hardswish() if head_features else nn.Identity()
        self.classifier = nn.Linear(self.head_hidden_size, classes) if classes else nn.Identity()
        initialise(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images to (N, head_width, r, r)."""
        x = self.stem(x)
        for index in range(self.depth):
            x = self.blocks[index % len(self.blocks)](x)
        y: Tensor = self.head_act(self.head_conv(x))
        return y

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, head_width, r, r) to logits, or to what the classifier reads."""
        y: Tensor = self.features_act(self.features(self.pool(x)))
        return y if pre_logits else self.classifier(y)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The last fully connected layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last fully connected layer by a fresh one; without one for 0 classes.

        The pooling is always an average: `global_pool` other than "avg" raises ValueError.
        """
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool is {global_pool!r}; isometric networks average")
        self.num_classes = num_classes
        fresh = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        initialise(fresh)
        self.classifier = fresh.to(self.head_conv.conv.weight.device)


class Stem(nn.Module):
    """(N, 3, R, R) to (N, channels, r, r); where r ≥ R the image is upsampled bilinearly first."""

    def __init__(self, kind: str, channels: int, resolution: int, input_side: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.upsamples = resolution > input_side
        block = 1 if resolution >= input_side else input_side // resolution
        if block > 1 and input_side % resolution:
            raise ValueError(f"internal resolution {resolution} does not divide {input_side}")
        kernel, stride = {"s2d": (block, block), "conv": (3 * block, block), "resize": (3, 1)}[kind]
        # Space-to-depth(k) and a 1×1 (3×3) convolution are one k×k (3k×3k) convolution of stride k,
        # without the copy of the image.
        self.pool = nn.AvgPool2d(block) if kind == "resize" and block > 1 else nn.Identity()
        padding = 0 if kind == "s2d" else stride
        self.conv = ConvNorm(3, channels, kernel, stride=stride, padding=padding)
        self.act = nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        """Images to the first bottleneck tensor."""
        if self.upsamples:
            size = (self.resolution, self.resolution)
            x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
        y: Tensor = self.act(self.conv(self.pool(x)))
        return y


class Block(nn.Module):
    """MobileNetV3's inverted bottleneck with SE and a residual, at one width and resolution."""

    def __init__(self, channels: int, hidden: int, squeeze: int, kernel_size: int) -> None:
        super().__init__()
        self.expand = ConvNorm(channels, hidden, 1)
        self.expand_act = nn.Hardswish()
        self.depthwise = ConvNorm(hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden)
        self.depthwise_act = nn.Hardswish()
        self.se = SqueezeExcite(hidden, squeeze) if squeeze else nn.Identity()
        self.project = ConvNorm(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, r, r) to the same shape."""
        y = self.expand_act(self.expand(x))
        y = self.depthwise_act(self.depthwise(y))
        z: Tensor = self.project(self.se(y))
        return x + z


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate in [0, 1] computed from all channels' means."""

    def __init__(self, hidden: int, squeeze: int) -> None:
        super().__init__()
        self.pool = Pool(keepdim=True)
        self.reduce = nn.Conv2d(hidden, squeeze, 1)
        self.reduce_act = nn.ReLU()
        self.expand = nn.Conv2d(squeeze, hidden, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, hidden, r, r) to the same shape."""
        gate: Tensor = self.gate(self.expand(self.reduce_act(self.reduce(self.pool(x)))))
        return x * gate


class Pool(nn.Module):
    """Each channel's mean over space, (N, C, r, r) to (N, C), or to (N, C, 1, 1) with `keepdim`."""

    def __init__(self, *, keepdim: bool) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        """The means."""
        return x.mean((2, 3), keepdim=self.keepdim)


class ConvNorm(nn.Module):
    """A convolution without bias and its batch norm."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, S) to (N, outputs, S', S')."""
        y: Tensor = self.norm(self.conv(x))
        return y


def initialise(module: nn.Module) -> None:
    """Normal convolutions of standard deviation √(2 / (q² · outputs / groups)), small normal linear layers,
    zero biases.

    That is Kaiming's by fan-out, of which a depthwise kernel has q² (PyTorch's own ignores groups).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=(2 / fan_out) ** 0.5)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for layer in module.modules():
        if isinstance(layer, Block):
            # Between the identity (0), which short schedules never make up for, and full residual
            # branches (1), which slow deep stacks down.
            nn.init.constant_(layer.project.norm.weight, 0.5)
