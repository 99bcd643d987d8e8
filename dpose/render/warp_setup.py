"""Warp, initialised without a word: notebooks and command lines show our output, not a library's banner."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

import warp as wp


@contextlib.contextmanager
def _without_native_stderr() -> Iterator[None]:
    """File descriptor 2 goes nowhere inside this block, also for C code; it always comes back.

    It belongs to the whole process, so what other threads write to it meanwhile is lost: keep the block
    short, and free of Python errors worth reading (those are raised, not written).
    """
    sys.stderr.flush() if sys.stderr else None
    try:
        kept = os.dup(2)
    except OSError:  # no stderr at all (a daemon): nothing to silence
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _has_cuda_driver() -> bool:
    """Whether the driver library that Warp is going to look for can be loaded."""
    for name in ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so", "libcuda.so.1"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False


def init_warp() -> None:
    """`wp.init()`, which may be called again, without its banner and the lines about modules it loads.

    Warp's own warnings stay, but for one: without a CUDA driver its C++ code complains on file descriptor 2,
    past every logger and setting. A machine without a GPU is nothing to warn about, so there, and only there,
    the descriptor is set aside for the moment of the first call.
    """
    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
    with contextlib.nullcontext() if _has_cuda_driver() else _without_native_stderr():
        wp.init()
