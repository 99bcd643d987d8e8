"""Writing files atomically: a file has its final name only when it is complete.

Files are written through `replacing`, except `log.csv`, folders through `replacing_folder`. A killed process
may leave temporary files behind; `remove_stale` recognises them by their names.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HOST = socket.gethostname().partition(".")[0]  # a process id is unique on one host only
STALE_SECONDS = 3600.0  # unfinished files of other hosts are stale when not written to for this long
UNFINISHED = re.compile(r"\..+\.(?P<host>[^.]+)\.(?P<process>\d+)\.part")


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces `path` on success and is removed on an exception.

    Parent folders are made, symbolic links are followed, and an existing file keeps its permissions. Raises
    FileExistsError as `check_target` does.
    """
    target = check_target(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{HOST}.{os.getpid()}.part")
    try:
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: str | os.PathLike, mark: str) -> Iterator[Path]:
    """Yields a temporary folder, which replaces `folder` on success and is removed on an exception.

    mark: name of a file that is in every folder written so. Raises FileExistsError if `folder` has files but
    not this one, and as `check_folder`.
    """
    target = check_folder(folder)
    if target.exists() and not (target / mark).exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} has files that dpose did not write; name another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # `mkdtemp` makes folders for the user alone
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_target(path: str | os.PathLike) -> Path:
    """The file to write for `path`, with symbolic links resolved.

    Raises FileExistsError if `path` exists and is not a regular file, for instance a folder or /dev/null,
    which a rename would destroy, and as `check_folder` for its folder.
    """
    path = Path(path)
    check_folder(path.parent)
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise FileExistsError(f"{path} is {kind}, not a regular file; name another file to write")
    return path.resolve()


def check_folder(folder: str | os.PathLike) -> Path:
    """The folder as a path. Raises FileExistsError or NotADirectoryError if it is a file or below one."""
    folder = Path(folder)
    for part in (folder, *folder.parents):
        if part.exists():
            break
    if part.is_dir():
        return folder
    if part == folder:
        raise FileExistsError(f"{folder} is a file; name a folder to write to")
    raise NotADirectoryError(f"{folder} cannot be a folder, because {part} is a file")


def remove_stale(folder: str | os.PathLike) -> None:
    """Removes the unfinished files that killed processes left in `folder`; call it before writing there.

    These are the files of this host whose process does not run, and those of other hosts (the folder may be
    on a shared disk) that were not written to for an hour.
    """
    for path in Path(folder).glob(".*.part"):
        owner = UNFINISHED.fullmatch(path.name)
        if owner is None:
            continue
        try:
            if owner["host"] == HOST:
                stale = not _runs(int(owner["process"]))
            else:
                stale = time.time() - path.stat().st_mtime > STALE_SECONDS
            if stale:
                path.unlink()
        except FileNotFoundError:  # another process removed it
            pass


def _runs(process: int) -> bool:
    """Whether another process has this id. A file with our own id is an earlier process's."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def write_json(path: str | os.PathLike, content: Any, indent: int | None = 2) -> Path:
    """Writes JSON and returns the path. Raises ValueError for numbers that are not finite."""
    text = json.dumps(content, indent=indent, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_png(path: str | os.PathLike, picture: np.ndarray) -> Path:
    """Writes (H, W, 3) RGB or (H, W) grey values, uint8 or uint16, as PNG and returns the path."""
    import cv2  # slow to import, and most users of this module do not need it

    channels_reversed = picture[..., ::-1] if picture.ndim == 3 else picture
    ok, data = cv2.imencode(".png", np.ascontiguousarray(channels_reversed))
    if not ok:
        raise OSError(f"{path}: cannot be encoded as PNG")
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())
    return Path(path)


def file_hash(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def no_native_messages() -> Iterator[None]:
    """Discards what C libraries write to file descriptor 2, which no logging level prevents.

    The descriptor belongs to the whole process: messages of other threads are lost too.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # a process may have none
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
