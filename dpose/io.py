"""Files that are complete or absent: what is written takes its name only once it is whole."""

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HOST = socket.gethostname().partition(".")[0]  # on a shared disk a process number alone identifies nobody


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary name beside `path`; it replaces `path` on success and is removed on an exception."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, content: Any, indent: int | None = 2) -> Path:
    """Write JSON; numbers must be finite. The parent folder is made."""
    path = Path(path)
    text = json.dumps(content, indent=indent, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_png(path: str | os.PathLike, picture: np.ndarray) -> Path:
    """Write (H, W, 3) RGB or (H, W) gray, uint8 or uint16, as PNG."""
    import cv2

    path = Path(path)
    ok, data = cv2.imencode(
        ".png", np.ascontiguousarray(picture[..., ::-1] if picture.ndim == 3 else picture)
    )
    if not ok:
        raise OSError(f"{path}: cannot be encoded as PNG")
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())
    return path


def file_hash(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
