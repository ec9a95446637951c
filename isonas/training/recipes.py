"""Recipes of a full training: YAML parsed once, and the learning rate as a function of progress."""

from __future__ import annotations

import difflib
import math
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from isonas.errors import UsageError
from isonas.paths import read_yaml, user_path

RATE_BATCH = 256
"""Images of a step at which a recipe's rate is meant."""


@dataclass(frozen=True, kw_only=True)
class FullRecipe:
    """How a network is trained in full; `recipes.yaml` says what each value is, with units and sources."""

    epochs: int
    batch_size: int
    optimizer: str
    rate: float
    description: str = ""
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    rate_scaling: str = "sqrt"
    warmup: float = 0.05
    decay: str = "cosine"
    final: float = 0.001
    weight_decay: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    crop_area: float = 0.35
    randaugment: str = ""
    erasing: float = 0.0
    average_decay: float = 0.9999

    @property
    def peak_rate(self) -> float:
        """The highest learning rate, at this batch size."""
        ratio = self.batch_size / RATE_BATCH
        return self.rate * (ratio if self.rate_scaling == "linear" else math.sqrt(ratio))

    def rate_at(self, progress: float) -> float:
        """The learning rate at a share of all steps: linear up to the peak, then the decay."""
        if progress < self.warmup:
            return self.peak_rate * progress / self.warmup
        share = (progress - self.warmup) / (1 - self.warmup)
        if self.decay == "exponential":
            return self.peak_rate * math.exp(share * math.log(self.final))
        return self.peak_rate * (self.final + (1 - self.final) * (1 + math.cos(math.pi * share)) / 2)


@cache
def shipped_recipes() -> dict[str, FullRecipe]:
    """The recipes of recipes.yaml by name."""
    documents = read_yaml(Path(__file__).with_name("recipes.yaml"))
    return {name: parse_recipe(document, name) for name, document in documents.items()}


def load_recipe(name_or_path: str) -> FullRecipe:
    """The shipped recipe of that name, or the one in that YAML file.

    Raises UsageError where there is neither, or the file is no recipe.
    """
    if name_or_path in shipped_recipes():
        return shipped_recipes()[name_or_path]
    try:
        document = read_yaml(user_path(name_or_path))
    except OSError as error:
        raise UsageError(
            f"no recipe {name_or_path!r} ({error.strerror}); give one of "
            f"{', '.join(shipped_recipes())}, or the path of a YAML file."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{name_or_path} is not YAML: {' '.join(str(error).split())}.") from None
    return parse_recipe(document, name_or_path)


_CHOICES = {"rate_scaling": ("linear", "sqrt"), "decay": ("cosine", "exponential")}
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 100_000),
    "batch_size": (2, 10_000_000),
    "rate": (1e-9, 1e6),
    "warmup": (0, 0.9),
    "final": (1e-12, 1),
    "weight_decay": (0, 1e3),
    "dropout": (0, 0.99),
    "label_smoothing": (0, 0.99),
    "mixup": (0, 100),
    "cutmix": (0, 100),
    "crop_area": (0.01, 1),
    "erasing": (0, 1),
    "average_decay": (0, 0.999999),
}


def parse_recipe(document: object, name: str) -> FullRecipe:
    """The recipe that a YAML document describes.

    Raises UsageError for unknown keys (naming the nearest known one), missing keys and bad values.
    """
    known = [entry.name for entry in fields(FullRecipe)]
    if not isinstance(document, dict):
        raise UsageError(f"recipe {name}: a mapping with the keys {', '.join(known)} is wanted.")
    for key, value in document.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
            raise UsageError(f"recipe {name}: {key!r} is unknown; {hint}")
        _check(name, key, value)
    required = [one.name for one in fields(FullRecipe) if one.default is one.default_factory is MISSING]
    if missing := [key for key in required if key not in document]:
        raise UsageError(f"recipe {name}: {missing[0]} is missing; give {', '.join(required)}.")
    return FullRecipe(**document)


def _check(name: str, key: str, value: object) -> None:
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise UsageError(f"recipe {name}: {key} is {value!r}; give {' or '.join(_CHOICES[key])}.")
    elif key in _RANGES:
        low, high = _RANGES[key]
        whole = key in ("epochs", "batch_size")
        allowed = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not allowed or not low <= value <= high:  # type: ignore[operator]
            kind = "a whole number" if whole else "a number"
            raise UsageError(f"recipe {name}: {key} is {value!r}; give {kind} from {low:g} to {high:g}.")
    elif not isinstance(value, dict if key == "optimizer_options" else str):
        wanted = "a mapping" if key == "optimizer_options" else "text"
        raise UsageError(f"recipe {name}: {key} is {value!r}; give {wanted}.")
