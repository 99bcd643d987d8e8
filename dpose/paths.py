"""Where data and licensed files are, from an argument or an environment variable.

The variables name folders; they never select a body or data set.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

DATA_VARIABLE = "DPOSE_DATA"
BODY_MODELS_VARIABLE = "DPOSE_BODY_MODELS"

GENERATED = "synth:"  # names the generator of people as training data, see `dpose.data.generated`

Data = str | os.PathLike | Sequence[str | os.PathLike] | None  # one data set, several to mix, or the default


def data_root(data: str | os.PathLike | None = None) -> Path:
    """The data folder: `data` if given, else `$DPOSE_DATA`, else the open data in the user's cache.

    The folder need not exist. Raises ValueError for a URL or an empty string.
    """
    (root,) = data_roots(data)
    if is_url(root):
        raise ValueError(f"{root} is no folder, and only training reads it; a folder is needed here")
    return root


def data_roots(data: Data = None) -> tuple[Path | str, ...]:
    """The data sets of a run, in order: folders as Path, URLs as str; the default as for `data_root`.

    Raises ValueError for an empty list or string, and as `checked_url` does.
    """
    if isinstance(data, list | tuple):
        if not data:
            raise ValueError("data: an empty list of data sets")
        return tuple(root for one in data for root in data_roots(one))
    if data is None:
        data = os.environ.get(DATA_VARIABLE)
        if not data:
            return (Path(platformdirs.user_cache_dir("dpose")) / "open",)
    data = not_empty(data, "data")
    return (checked_url(data).rstrip("/") if is_url(data) else Path(data).expanduser(),)


def not_empty(path: str | os.PathLike, name: str) -> str:
    """`path` as a string. Raises ValueError for an empty one: an unset shell variable is not the default."""
    if not (path := os.fspath(path)):
        raise ValueError(f"{name}: an empty string, perhaps of an unset variable; name it, or leave it out")
    return path


def checked_url(url: str) -> str:
    """The URL. Raises ValueError for credentials in it, which logs, results and checkpoints would keep."""
    parts = urlsplit(url)
    web = parts.scheme in ("http", "https")
    if parts.password is not None or (web and (parts.username or parts.query)):
        raise ValueError(
            f"{parts.scheme}://...@{parts.hostname}{parts.path}?...: a URL of data must not contain a user, "
            "a password or a query such as a signature. Put users and passwords into ~/.netrc, which is "
            "read; signed URLs are valid for one file each and do not work for a folder of shards"
        )
    return url


def is_url(data: str | os.PathLike) -> bool:
    """Whether `data` is a URL (https://, s3://, ..., or synth:) and not a folder."""
    return isinstance(data, str) and ("://" in data or is_generated(data))


def is_generated(data: str | os.PathLike) -> bool:
    """Whether `data` names the generator, "synth:" with or without options."""
    return isinstance(data, str) and data.startswith(GENERATED)


def body_models(folder: str | os.PathLike | None = None) -> Path | None:
    """The folder of licensed body files: `folder` if given, else `$DPOSE_BODY_MODELS`, else None.

    Raises ValueError for an empty string.
    """
    if folder is None:
        folder = os.environ.get(BODY_MODELS_VARIABLE)
        if not folder:
            return None
    return Path(not_empty(folder, "folder of body models")).expanduser()


def shard_folder(root: str | os.PathLike) -> Path:
    """The folder that holds `<split>-NNNNNN.tar`: `<root>/shards` if it exists, else `root` itself."""
    root = Path(root)
    return root / "shards" if (root / "shards").is_dir() else root
