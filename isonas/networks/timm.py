"""`import isonas.networks.timm` registers the isometric network with timm as "isonet".

timm.create_model("isonet", genome="isonet_l16_c64_r14_e6_se4_s2d", img_size=224, num_classes=1000)
timm.create_model("local-dir:EXPORT", pretrained=True)   # the folder that isonas export writes

timm's own transforms fit images to the input at once. That is what the network was tested on only where
`area_to` and `upsample_to` are null and `repeat` is 1 in the manifest's `preprocessing`, as of a retraining
on photographs; of a proxy's weights follow the manifest's `steps`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
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


_TAKEN = {"num_classes", "in_chans"}
_OF_TIMM = {"pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "pretrained_strict",
            "pretrained_filter_fn", "cache_dir"}  # fmt: skip


def _refuse_unknown(arguments: dict[str, Any]) -> None:
    """Drop what asks for nothing; raise ValueError for arguments that an isometric network has no use for."""
    if arguments.get("features_only"):
        raise ValueError(
            "features_only is for networks whose resolution falls stage by stage; an isometric network has "
            "one resolution: call model.forward_features(images), (N, head width, r, r)"
        )
    for name, nothing in (("features_only", False), ("pruned", False), ("global_pool", "avg"),
                          ("drop_rate", 0.0), ("drop_path_rate", 0.0)):  # fmt: skip
        if name in arguments and arguments[name] == nothing:
            del arguments[name]
    if unknown := sorted(arguments.keys() - _TAKEN - _OF_TIMM):
        raise ValueError(
            f"isonet has no {', '.join(unknown)}; it takes genome, img_size, num_classes and in_chans 3"
        )


def _side(img_size: int | Sequence[int]) -> int:
    if isinstance(img_size, int):
        return img_size
    if len(set(img_size)) != 1:
        raise ValueError(f"img_size is {tuple(img_size)}; isometric networks here read squares")
    return int(img_size[0])


@_models.register_model  # type: ignore[untyped-decorator]
def isonet(
    pretrained: bool = False,
    genome: str | Genome = PAPER_GENOME,
    img_size: int | Sequence[int] = 224,
    **kwargs: Any,
) -> TimmIsometricNet:
    """The isometric network of a genome; `pretrained` weights come from a `local-dir:` or hub folder.

    Raises ValueError for what timm passes to other networks and this one has not.
    """
    side = _side(img_size)
    _refuse_unknown(kwargs)
    given = kwargs.get("pretrained_cfg")
    if pretrained and isinstance(given, dict) and given.get("input_size", (3, side, side))[-1] != side:
        raise ValueError(
            f"img_size is {side}, and the weights are for {given['input_size'][-1]} pixels; leave img_size "
            f"out, or export with --input {side}"
        )
    config = {
        "input_size": (3, side, side),
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
        TimmIsometricNet, "isonet", pretrained, genome=genome, img_size=side, **kwargs
    )
    assert isinstance(model, TimmIsometricNet)
    return model
