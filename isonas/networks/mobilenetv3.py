"""MobileNetV3-Large, fed in every way of the paper's Fig. 1 and Table 3, in PyTorch alone."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from isonas.networks.feeding import Feeding, Way
from isonas.networks.isometric import Pool, SqueezeExcite, initialise
from isonas.networks.mobilenetv3_plan import (
    BASE_SIDE,
    FEATURES,
    BlockPlan,
    Convolution,
    MobileNetV3Plan,
    plan_mobilenetv3,
)


def build_mobilenetv3(
    width: float = 1.0,
    feeding: Feeding | None = None,
    input_side: int = BASE_SIDE,
    *,
    base_side: int = BASE_SIDE,
    classes: int = 1000,
) -> MobileNetV3:
    """The network for images of `input_side` pixels, freshly initialised; see `plan_mobilenetv3`.

    Networks of one width have the same weights, by name and shape, under `plain`, `upsample`, `zeros`
    and `skip`; `s2d` differs in the stem, `dilated` in the kernels of 3×3 stride-2 layers. Raises
    FeedingError where the image does not go with the feeding.
    """
    return MobileNetV3(plan_mobilenetv3(width, feeding, input_side, base_side=base_side, classes=classes))


class MobileNetV3(nn.Module):
    """(N, 3, input_side, input_side) images to (N, classes) logits."""

    def __init__(self, plan: MobileNetV3Plan) -> None:
        super().__init__()
        self.plan = plan
        self.stem = PlannedConv(plan.stem)
        self.stem_act = nn.Hardswish()
        self.blocks = nn.ModuleList(PlannedBlock(block) for block in plan.blocks)
        self.head_conv = PlannedConv(plan.head)
        self.head_act = nn.Hardswish()
        self.pool = Pool(keepdim=False)
        self.features = nn.Linear(plan.head.outputs, FEATURES)
        self.features_act = nn.Hardswish()
        self.classifier = nn.Linear(FEATURES, plan.classes)
        initialise(self)

    def feed(self, x: Tensor) -> Tensor:
        """Images to what the first convolution reads, (N, 3, grid_side, grid_side)."""
        grid, side = self.plan.grid_side, self.plan.input_side
        if self.plan.feeding.way is Way.UPSAMPLE and grid != side:
            return functional.interpolate(x, size=(grid, grid), mode="bilinear", align_corners=False)
        return zero_filled(x, grid // side) if self.plan.feeding.way is Way.ZEROS else x

    def forward_features(self, x: Tensor) -> Tensor:
        """Images to the (N, head width, S, S) maps that are pooled."""
        x = self.stem_act(self.stem(self.feed(x)))
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.head_act(self.head_conv(x))
        return y

    def forward_head(self, x: Tensor) -> Tensor:
        """Maps to logits."""
        y: Tensor = self.classifier(self.features_act(self.features(self.pool(x))))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        return self.forward_head(self.forward_features(x))


class PlannedConv(nn.Module):
    """A planned convolution and its batch norm."""

    def __init__(self, plan: Convolution) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            plan.inputs,
            plan.outputs,
            plan.kernel,
            plan.stride,
            plan.padding,
            plan.dilation,
            groups=plan.inputs if plan.depthwise else 1,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(plan.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, S) to (N, outputs, side, side)."""
        y: Tensor = self.norm(self.conv(x))
        return y


class PlannedBlock(nn.Module):
    """A planned inverted bottleneck."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.residual = plan.residual
        activation = nn.Hardswish if plan.hard_swish else nn.ReLU
        hidden = plan.depthwise.outputs
        self.expand = PlannedConv(plan.expand) if plan.expand else nn.Identity()
        self.expand_act = activation() if plan.expand else nn.Identity()
        self.depthwise = PlannedConv(plan.depthwise)
        self.depthwise_act = activation()
        self.se = SqueezeExcite(hidden, plan.squeeze) if plan.squeeze else nn.Identity()
        self.project = PlannedConv(plan.project)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, S) to (N, outputs, side, side)."""
        y = self.depthwise_act(self.depthwise(self.expand_act(self.expand(x))))
        z: Tensor = self.project(self.se(y))
        return x + z if self.residual else z


def zero_filled(x: Tensor, factor: int) -> Tensor:
    """(N, C, S, S) to (N, C, factor·S, factor·S): pixel (i, j) goes to (factor·i, factor·j), else zeros."""
    if factor == 1:
        return x
    count, channels, height, width = x.shape
    spread = functional.pad(x[:, :, :, None, :, None], (0, factor - 1, 0, 0, 0, factor - 1))
    return spread.reshape(count, channels, factor * height, factor * width)
