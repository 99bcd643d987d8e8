"""`dpose doctor`: versions, hardware, body models, data and checkpoints that this installation finds.

Each licensed file that is found is also read (`dpose.body.files`), so that an incomplete download is reported
here and not in the middle of an evaluation.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from dpose import results
from dpose.body import OPEN_BODY, OPEN_SMPL, files
from dpose.data.fingerprint import data_samples
from dpose.model import checkpoint
from dpose.paths import BODY_MODELS_VARIABLE, DATA_VARIABLE, body_models, data_roots, is_url, shard_folder
from dpose.processes import usable_cores

WIDTH = 110
SHARED_MEMORY = Path("/dev/shm")
BYTES_PER_WORKER = 3 * 20e6  # two prefetched batches of 64 people at 224 pixels and one in use


def report(
    body_folder: str | os.PathLike[str] | None = None, data: str | os.PathLike[str] | None = None
) -> str:
    """The report, in lines of at most 110 characters unless a path is longer.

    Args:
        body_folder: folder of the licensed files (default: $DPOSE_BODY_MODELS).
        data: data root or URL (default: $DPOSE_DATA, else the open data).
    """
    sections = (_software(), _bodies(body_models(body_folder)), _data(data), _checkpoints())
    return "\n\n".join("\n".join(section) for section in sections)


def _software() -> Iterator[str]:
    has = results.provenance([])
    commit = f" (commit {has['commit'][:12]})" if has["commit"] else ""
    yield f"dpose {has['version'] or 'not installed'}{commit}, Python {has['python']}"
    libraries = (f"{name} {version or 'missing'}" for name, version in has["libraries"].items())
    yield from _wrapped(", ".join(libraries))
    machine = has["hardware"]
    gpus = ", ".join(machine.get("gpus", [])) or "no CUDA device"
    yield from _wrapped(f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} for torch; {gpus}")
    yield from _shared_memory(max(1, min(8, usable_cores() - 1)))
    how = "found" if find_spec("neural_renderer") else "missing (`dpose install-neural-renderer`)"
    yield from _wrapped(f"neural_renderer, the paper's renderer (optional, needs CUDA): {how}")


def _shared_memory(workers: int) -> Iterator[str]:
    """Whether the batches of a data loader with so many workers fit into shared memory (Linux)."""
    if SHARED_MEMORY.is_dir():
        size, needed = shutil.disk_usage(SHARED_MEMORY).total / 1e6, workers * BYTES_PER_WORKER / 1e6
        text = f"shared memory {size:.0f} MB; loader workers: {workers}, which need up to {needed:.0f} MB"
        if size < needed:
            text += ": TOO SMALL, start the container with a larger --shm-size or train with fewer --workers"
        yield from _wrapped(text)


def _bodies(folder: Path | None) -> Iterator[str]:
    yield "Body models"
    for name, path in (("open", OPEN_BODY), ("open-smpl", OPEN_SMPL)):
        yield from _item("found" if path.is_file() else "missing", f"{name}: comes with dpose, {_size(path)}")
    if folder is None:
        yield f"Licensed files: {BODY_MODELS_VARIABLE} is not set"
    else:
        yield f"Licensed files in {folder}" + ("" if folder.is_dir() else ", which is not a folder")
    for name, wanted in files.LICENSED.items():
        path = files.find(name, folder) if folder else None
        if path is None:
            yield from _item("missing", f"{name}: {' or '.join(wanted.names)}")
            yield from _item("", f"for {wanted.use}")
            yield from _item("", f"from {wanted.source}")
            continue
        try:
            yield from _item("found", f"{name}: {path.relative_to(folder)}, {_description(name, path)}")
        except (ValueError, OSError, MemoryError) as error:
            yield from _item("unusable", f"{name}: {str(error) or 'out of memory'}")
            yield from _item("", f"download it again from {wanted.source}")


def _description(name: str, path: Path) -> str:
    """The content of a licensed file. Raises ValueError if it is damaged or another file."""
    if name == "smplx2smpl":
        matrix = files.read_smplx_to_smpl(path)
        return f"{matrix.shape[0]} x {matrix.shape[1]}, {matrix.nnz} entries"
    if name == "h36m":
        return "{} joints of {} vertices".format(*files.read_h36m_regressor(path).shape)
    body = files.read_body(path)
    joints, vertices = body["J_regressor"].shape
    if (joints == 55) != name.startswith("smplx-"):
        raise ValueError(f"{path} has {joints} joints, so it is not the model that its name promises")
    return f"{vertices} vertices, {joints} joints, {body['shapedirs'].shape[-1]} shape directions"


def _data(data: str | os.PathLike[str] | None) -> Iterator[str]:
    (root,) = data_roots(data)
    default = "" if data or os.environ.get(DATA_VARIABLE) else f" (open data; {DATA_VARIABLE} is not set)"
    yield f"Data at {root}{default}"
    found = False
    for split in ("train", "val", "test"):
        shards = [] if is_url(root) else list(shard_folder(root).glob(f"{split}-*.tar"))
        if not shards and not is_url(root):
            continue
        try:
            samples = data_samples(root, split)
            size = sum(path.stat().st_size for path in shards) / 1e6
        except (ValueError, OSError) as error:
            yield from _item("unusable", str(error))
            return
        if shards or samples:
            people = "no manifest" if samples is None else f"{samples} people"
            where = f"{size:.0f} MB, shards: {len(shards)}" if shards else "by the manifest there"
            yield from _item("found", f"{split}: {people}, {where}")
            found = True
    if not found and is_url(root):
        yield from _item(
            "unknown", "a pattern of names, synth:, or a manifest without shards: only training reads it"
        )
    elif not found:
        yield from _item("missing", "no shards: `dpose synth` makes the open data, `dpose prepare` others")


def _checkpoints() -> Iterator[str]:
    yield "Checkpoints that come with dpose"
    for name in checkpoint.SHIPPED:
        try:
            images = checkpoint.metadata(name).get("images", 0)
            yield from _item(
                "found", f"{name}: {_size(checkpoint.resolve(name))}, trained on {images} images"
            )
        except (ValueError, OSError) as error:
            yield from _item("unusable", f"{name}: {error}")


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else f"missing at {path}"


def _item(state: str, text: str) -> list[str]:
    return _wrapped(text, f"  {state:<10}")


def _wrapped(text: str, first: str = "  ") -> list[str]:
    options = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), **options)
