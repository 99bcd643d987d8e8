"""Where data lives: the one place that turns an argument or the environment into a folder.

Nothing deeper in the package reads the environment; everything below takes a path.
"""

import os
from pathlib import Path

import platformdirs

DATA_VARIABLE = "DPOSE_DATA"
BODY_MODELS_VARIABLE = "DPOSE_BODY_MODELS"


def data_root(data: str | os.PathLike | None = None) -> Path:
    """The data folder: `data` if given, else `$DPOSE_DATA`, else the open default in the user's cache.

    The folder need not exist yet; who reads from it says so when it does not.
    """
    if data is not None and str(data):
        return Path(data).expanduser()
    if os.environ.get(DATA_VARIABLE):
        return Path(os.environ[DATA_VARIABLE]).expanduser()
    return Path(platformdirs.user_cache_dir("dpose")) / "open"


def body_models(folder: str | os.PathLike | None = None) -> Path | None:
    """The folder of licensed body files: `folder` if given, else `$DPOSE_BODY_MODELS`, else None."""
    folder = folder or os.environ.get(BODY_MODELS_VARIABLE)
    return Path(folder).expanduser() if folder else None


def shard_folder(root: str | os.PathLike) -> Path:
    """The folder that holds `<split>-NNNNNN.tar`: `<root>/shards` when there is one, else `root` itself."""
    root = Path(root)
    return root / "shards" if (root / "shards").is_dir() else root
