"""Training: recipes, configuration, one step, callbacks, and runs that can be resumed (paper section 4.2)."""

from dpose.training.config import TrainConfig
from dpose.training.environment import PRECISIONS, on_cuda
from dpose.training.recipe import MINI_RECIPE, Recipe, learning_rate, recipe
from dpose.training.run import TrainResult, train
from dpose.training.step import Training
from dpose.training.stopping import Stopped

__all__ = [
    "MINI_RECIPE",
    "PRECISIONS",
    "Recipe",
    "Stopped",
    "TrainConfig",
    "TrainResult",
    "Training",
    "learning_rate",
    "on_cuda",
    "recipe",
    "train",
]
