"""`import isonas.networks.timm` registers the isometric network with timm as "isonet".

timm.create_model("isonet", genome="isonet_l16_c64_r14_e6_se4_s2d", img_size=224, num_classes=1000)
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from isonas.data.augment import MEAN, STD
from isonas.genome import Genome, parse_genome
from isonas.networks.build import network_arguments
from isonas.networks.isometric import IsometricNet


def _import_timm() -> Any:
    """timm, also beside a torchvision whose compiled operators do not load.

    A torchvision built for another PyTorch fails to import because two schemas are missing; timm needs
    neither operator, so they are declared and the import is tried once more (pytorch/pytorch#157648).
    """
    try:
        import timm.models
    except (RuntimeError, AttributeError) as error:
        if "torchvision" not in str(error):
            raise
        declare_missing_operators()
        import timm.models
    return timm.models


def declare_missing_operators() -> None:
    """Declare the schemas of the torchvision operators without which it does not import."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(operator + boxes)  # type: ignore[no-untyped-call]
    _KEPT.append(library)


_KEPT: list[torch.library.Library] = []
"""Schemas last as long as the library object that defined them."""

_models = _import_timm()

PAPER_GENOME = str(Genome())


class TimmIsometricNet(IsometricNet):
    """An `IsometricNet` made from a genome, with the arguments that timm passes."""

    def __init__(
        self, genome: str | Genome, img_size: int = 224, num_classes: int = 1000, in_chans: int = 3
    ) -> None:
        if in_chans != 3:
            raise ValueError(f"in_chans is {in_chans}; isometric networks here read RGB images (3)")
        parsed = parse_genome(genome) if isinstance(genome, str) else genome
        super().__init__(**network_arguments(parsed, img_size, num_classes))  # type: ignore[arg-type]
        self.genome = str(parsed)


@_models.register_model  # type: ignore[untyped-decorator]
def isonet(
    pretrained: bool = False, genome: str | Genome = PAPER_GENOME, img_size: int = 224, **kwargs: Any
) -> TimmIsometricNet:
    """The isometric network of a genome; `pretrained` weights come from a `local-dir:` or hub folder."""
    config = {
        "input_size": (3, img_size, img_size),
        "fixed_input_size": True,
        "mean": MEAN,
        "std": STD,
        "crop_pct": 1.0,
        "first_conv": "stem.conv.conv",
        "classifier": "classifier",
    }
    if not kwargs.get("pretrained_cfg"):
        kwargs["pretrained_cfg"] = config
    model = _models.build_model_with_cfg(
        TimmIsometricNet, "isonet", pretrained, genome=genome, img_size=img_size, **kwargs
    )
    assert isinstance(model, TimmIsometricNet)
    return model
