"""What every measured number carries with it: who made it, from what, on what, and how sure it is.

`evaluate` and the benchmarks write JSON with these helpers, and the book's tables read nothing else. A result
names its package version and commit, the libraries, the hardware, the hash of the checkpoint and the
fingerprint of the data, so that a number can be traced and an outdated one noticed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpose.data.shards import read_manifest
from dpose.io import file_hash, write_json  # noqa: F401 (callers move to dpose.io)
from dpose.paths import is_url, shard_folder

LIBRARIES = ("torch", "numpy", "lightning", "smplx", "warp-lang", "albumentations", "webdataset")


def provenance(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Package version and commit, library versions, hardware and command line (default: this process's)."""
    command = list(sys.argv) if command is None else list(command)
    if command:
        command[0] = Path(command[0]).name  # not the path of one machine
    return {
        "version": _version("dpose"),
        "commit": commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "hardware": hardware(),
        "command": " ".join(command),
    }


def commit() -> str | None:
    """The git commit of the package's checkout, with "+changes" if it was edited; None outside one."""
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
    """Processor, cores and memory, and the GPUs if there are any."""
    import torch

    info: dict[str, Any] = {"cpu": _cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        info["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return info


def data_fingerprint(root: str | Path) -> str:
    """A short hash that changes when the data under `root` do: the manifest's, else of names and sizes.

    root: a folder, with shards or with label files alone, or a URL as `dpose.data.loader.make_loader` takes
    it; of a pattern of names, the hash of the pattern.
    """
    manifest = _manifest(root)
    if manifest is not None and "fingerprint" in manifest:
        return manifest["fingerprint"][:16]
    if is_url(root):
        return hashlib.sha256(root.encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for path in sorted(shard_folder(root).glob("*.tar")) or sorted((Path(root) / "labels").glob("*.npz")):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()[:16]


def data_samples(root: str | Path, split: str) -> int | None:
    """How many samples a split has by the manifest of the shards at `root`; None if there is none to say."""
    return (_manifest(root) or {}).get("splits", {}).get(split)


def _manifest(root: str | Path) -> dict[str, Any] | None:
    if not is_url(root):
        return read_manifest(shard_folder(root))
    from dpose.data.remote import read_remote_manifest

    return None if root.endswith(".tar") else read_remote_manifest(root)[1]


def bootstrap_weights(n: int, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """(resamples, n) how often each of n samples is drawn in each bootstrap resample, by seed."""
    if n < 1:
        raise ValueError("bootstrap: no samples")
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def interval(resampled: np.ndarray, digits: int = 4) -> list[float]:
    """95 % percentile interval [low, high] of a statistic's bootstrap values; NaN ones are left out."""
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return [round(float(low), digits), round(float(high), digits)]


def summary(values: np.ndarray, weights: np.ndarray | None = None, digits: int = 4) -> dict[str, Any]:
    """Mean of per-sample values (N,), its 95 % bootstrap interval over samples, and N.

    With `weights` (N,), for instance pixel counts, the weighted mean; samples of weight 0 are not counted.
    """
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64)
    values, weights = values[weights > 0], weights[weights > 0]
    draws = bootstrap_weights(len(values))
    mean = (values * weights).sum() / weights.sum()
    return {
        "mean": round(float(mean), digits),
        "ci95": interval(draws @ (values * weights) / (draws @ weights), digits),
        "n": len(values),
    }


def read_json(path: str | Path) -> Any:
    """Read a results file; a missing or broken one is named in the error."""
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
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
