"""Files that are there whole or not at all."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOST = socket.gethostname().partition(".")[0]  # of processes on a shared disk, numbers alone tell nothing


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it takes `path`'s place, on any exception it goes."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
