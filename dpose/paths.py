"""Where data lives: the one place that turns an argument or the environment into a folder or a URL.

Nothing deeper in the package reads the environment; everything below takes a path.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

DATA_VARIABLE = "DPOSE_DATA"
BODY_MODELS_VARIABLE = "DPOSE_BODY_MODELS"

Data = str | os.PathLike | Sequence[str | os.PathLike] | None  # one data set, several to mix, or the default


def data_root(data: str | os.PathLike | None = None) -> Path:
    """The data folder: `data` if given, else `$DPOSE_DATA`, else the open default in the user's cache.

    The folder need not exist yet; who reads from it says so when it does not. Raises ValueError for a URL.
    """
    (root,) = data_roots(data)
    if is_url(root):
        raise ValueError(f"{root} is a URL, which only training reads; a folder is needed here")
    return root


def data_roots(data: Data = None) -> tuple[Path | str, ...]:
    """The data sets of a run, in order: folders as Path, URLs as they are; a default as for `data_root`.

    Raises ValueError for an empty list, and as `checked_url` does.
    """
    if isinstance(data, list | tuple):
        if not data:
            raise ValueError("data: an empty list of data sets")
        return tuple(root for one in data for root in data_roots(one))
    data = str(data) if data is not None and str(data) else os.environ.get(DATA_VARIABLE)
    if not data:
        return (Path(platformdirs.user_cache_dir("dpose")) / "open",)
    return (checked_url(data).rstrip("/") if is_url(data) else Path(data).expanduser(),)


def checked_url(url: str) -> str:
    """The URL. Raises ValueError if secrets are in it: logs, results and checkpoints would keep them."""
    parts = urlsplit(url)
    web = parts.scheme in ("http", "https")
    if parts.password is not None or (web and (parts.username or parts.query)):
        raise ValueError(
            f"{parts.scheme}://...@{parts.hostname}{parts.path}?...: a URL of data cannot hold a user, a "
            "password or a query such as a signature. Put users and passwords into ~/.netrc, which is read; "
            "signed URLs are each for one file and so of no use for a folder of shards"
        )
    return url


def is_url(data: str | os.PathLike) -> bool:
    """Whether data lie behind a URL (https://, s3://, ...) and not in a folder."""
    return isinstance(data, str) and "://" in data


def body_models(folder: str | os.PathLike | None = None) -> Path | None:
    """The folder of licensed body files: `folder` if given, else `$DPOSE_BODY_MODELS`, else None."""
    folder = folder or os.environ.get(BODY_MODELS_VARIABLE)
    return Path(folder).expanduser() if folder else None


def shard_folder(root: str | os.PathLike) -> Path:
    """The folder that holds `<split>-NNNNNN.tar`: `<root>/shards` when there is one, else `root` itself."""
    root = Path(root)
    return root / "shards" if (root / "shards").is_dir() else root
