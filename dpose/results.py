"""Provenance of measured numbers: package version, commit, libraries, hardware and command.

`evaluate`, training and the benchmarks add it to the JSON that they write, so that a number can be traced and
an outdated one noticed. The book's tables read only such files.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "numpy", "lightning", "smplx", "warp-lang", "albumentations", "webdataset")


def provenance(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Package version and commit, library versions, hardware and command line (default: this process's)."""
    command = list(sys.argv) if command is None else list(command)
    if command:
        command[0] = Path(command[0]).name
    return {
        "version": _version("dpose"),
        "commit": commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "hardware": hardware(),
        "command": portable(" ".join(command)),
    }


def portable(value: Any) -> Any:
    """A JSON value in which each absolute path is cut to its last two parts: records name no machine."""
    if isinstance(value, dict):
        return {name: portable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [portable(one) for one in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"(?<![\w.~/-])(?:/[\w.+@-]+){2,}", lambda path: "/".join(path[0].split("/")[-2:]), value)


def commit() -> str | None:
    """The git commit of the package's checkout, with "+changes" if it was edited; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "dpose")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changed else "")


def hardware() -> dict[str, Any]:
    """Processor, number of cores and of torch's threads, and the names of the GPUs, if any."""
    import torch  # takes seconds, and reading results does not need it

    info: dict[str, Any] = {"cpu": _cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        info["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return info


def read_json(path: str | Path) -> Any:
    """Reads a results file. Raises FileNotFoundError or ValueError if it is missing or damaged."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results file at {path}; `dpose evaluate --out {path}` writes one")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); delete it and measure again") from error


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str:
    """Output of git, which must not lock the checkout: a commit at the same time would fail."""
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
