"""Recipes: how a preset is trained, apart from the network itself (paper section 4.2).

`PAPER_RECIPE` is the paper's, `RELEASED_RECIPE` is what the authors' code does instead, and `MINI_RECIPE`
(from random weights) and `LITE_RECIPE` (from a backbone that has seen photographs) are our own and fit two
CPU cores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dpose.config import preset
from dpose.data.augment import LITE_AUGMENT, MINI_AUGMENT, PAPER_AUGMENT, Augment
from dpose.losses import LITE_WEIGHTS, MINI_WEIGHTS, PAPER_WEIGHTS, RELEASED_WEIGHTS, LossWeights
from dpose.training.environment import PRECISIONS


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run that decide its outcome.

    Attributes:
        steps: optimizer steps.
        batch_size: samples per step, over all devices.
        lr: the highest learning rate of Adam.
        backbone_lr: the rate of a pretrained backbone's weights as a fraction of `lr`; 0: they stay fixed. No
            effect on HRNet.
        warmup: fraction of the steps over which the rate rises linearly to `lr`.
        decay: "constant", or "cosine": the rate falls to `final_lr` times `lr` at the last step.
        final_lr: see `decay`.
        clip: largest gradient norm (the paper says "value"; the authors' code clips the norm).
        weights: coefficients and variants of the loss terms.
        vertex_stride: every n-th vertex enters the vertex loss.
        augmentation: strengths of the augmentation.
        depth_rule: how metres become the depth target, see `dpose.data.targets.depth_target`.
        priors: start the map decoders at the training set's class frequencies and mean depth.
        precision: one of `dpose.training.PRECISIONS`, or "auto".
    """

    steps: int
    batch_size: int
    lr: float
    backbone_lr: float = 1.0
    warmup: float = 0.0
    decay: str = "constant"
    final_lr: float = 0.01
    clip: float = 1.5
    weights: LossWeights = field(default_factory=LossWeights)
    vertex_stride: int = 1
    augmentation: Augment = PAPER_AUGMENT
    depth_rule: str = "paper"
    priors: bool = False
    precision: str = "tf32-conv"

    def __post_init__(self) -> None:
        if self.decay not in ("constant", "cosine"):
            raise ValueError(f"decay must be 'constant' or 'cosine', got {self.decay!r}")
        for name in ("steps", "batch_size", "vertex_stride"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= 1):
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr must be positive, got {self.lr}")
        if not 0 <= self.backbone_lr <= 1:
            raise ValueError(f"backbone_lr must lie in 0..1, got {self.backbone_lr}")
        if self.precision != "auto" and self.precision not in PRECISIONS:
            choice = ", ".join(map(repr, PRECISIONS))
            raise ValueError(f"precision must be {choice} or 'auto', got {self.precision!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of `dataclasses.asdict`, also after JSON, which makes lists of tuples."""
        augmentation = {k: tuple(v) if isinstance(v, list) else v for k, v in values["augmentation"].items()}
        return cls(
            **{
                "backbone_lr": 1.0,  # of runs older than the field
                **values,
                "weights": LossWeights(**values["weights"]),
                "augmentation": Augment(**augmentation),
            }
        )


# The authors' code sets no precision flag. PyTorch's defaults, on the GPUs that they name, are TF32 in
# convolutions and float32 in matrix products: "tf32-conv".
PAPER_RECIPE = Recipe(steps=200_000, batch_size=64, lr=1e-5, weights=PAPER_WEIGHTS, precision="tf32-conv")
RELEASED_RECIPE = replace(PAPER_RECIPE, lr=1e-4, weights=RELEASED_WEIGHTS, depth_rule="released")
MINI_RECIPE = Recipe(
    steps=4_000,
    batch_size=64,
    lr=2.5e-3,
    warmup=0.05,
    decay="cosine",
    weights=MINI_WEIGHTS,
    vertex_stride=8,
    augmentation=MINI_AUGMENT,
    priors=True,
    precision="auto",
)
LITE_RECIPE = replace(
    MINI_RECIPE,
    steps=32_000,
    lr=2e-3,
    backbone_lr=0.1,
    warmup=0.02,
    weights=LITE_WEIGHTS,
    augmentation=LITE_AUGMENT,
)


def recipe(name: str) -> Recipe:
    """The recipe of a preset, for instance `recipe("paper")`: 200,000 steps of 64 samples at 1e-5, constant.

    `recipe("released")` has the settings of the authors' code (ten times the rate, other losses, see
    `dpose.losses.RELEASED_WEIGHTS`, and another depth target); no preset has that name.
    Raises ValueError for an unknown name.
    """
    if name == "released":
        return RELEASED_RECIPE
    family = preset(name).name.partition("-")[0]
    return {"paper": PAPER_RECIPE, "lite": LITE_RECIPE, "mini": MINI_RECIPE}[family]


def learning_rate(step: int, recipe: Recipe) -> float:
    """Learning rate of optimizer step `step` (0 is the first): linear warm-up, then constant or cosine."""
    warmup = round(recipe.warmup * recipe.steps)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    if recipe.decay == "constant":
        return recipe.lr
    progress = min(1.0, (step - warmup) / max(1, recipe.steps - 1 - warmup))
    return recipe.lr * (recipe.final_lr + (1 - recipe.final_lr) * 0.5 * (1 + math.cos(math.pi * progress)))
