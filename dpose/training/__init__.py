"""Training: recipes, configuration, one step, and runs that can be resumed (paper section 4.2)."""

from dpose.training.run import (
    MINI_RECIPE,
    PAPER_RECIPE,
    RELEASED_RECIPE,
    Journal,
    Recipe,
    TrainConfig,
    Training,
    TrainResult,
    check_bodies,
    learning_rate,
    recipe,
    train,
)

__all__ = [
    "MINI_RECIPE",
    "PAPER_RECIPE",
    "RELEASED_RECIPE",
    "Journal",
    "Recipe",
    "TrainConfig",
    "TrainResult",
    "Training",
    "check_bodies",
    "learning_rate",
    "recipe",
    "train",
]
