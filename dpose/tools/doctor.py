"""What this installation has and lacks: versions, hardware, licensed files, data, checkpoints, in plain text.

Every licensed file that is found is read and checked (`dpose.body.files`), so that a download cut short shows
here and not in the middle of an evaluation.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from dpose import results
from dpose.body import OPEN_BODY, OPEN_SMPL, files
from dpose.data.fingerprint import data_samples
from dpose.model import checkpoint
from dpose.paths import BODY_MODELS_VARIABLE, DATA_VARIABLE, body_models, data_roots, is_url, shard_folder

__all__ = ["report"]

WIDTH = 110


def report(
    body_folder: str | os.PathLike[str] | None = None, data: str | os.PathLike[str] | None = None
) -> str:
    """The whole report, lines of at most 110 characters unless a path is longer.

    Args:
        body_folder: where licensed files lie ($DPOSE_BODY_MODELS by default).
        data: the data root or URL ($DPOSE_DATA, else the open data's by default).
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
    yield from _wrapped(
        f"{machine['cpu']}, {machine['cores']} cores, torch uses {machine['threads']}; {gpus}"
    )
    renderer = (
        "found" if find_spec("neural_renderer") else "not there; `dpose install-neural-renderer` builds it"
    )
    yield from _wrapped(f"the paper's renderer, neural_renderer (optional, CUDA): {renderer}")


def _bodies(folder: Path | None) -> Iterator[str]:
    if folder is None:
        yield f"Licensed body files: {BODY_MODELS_VARIABLE} is not set"
    else:
        yield f"Licensed body files in {folder}" + ("" if folder.is_dir() else ", which is no folder")
    sizes = f"as SMPL-X {_size(OPEN_BODY)}, as SMPL {_size(OPEN_SMPL)}"
    yield from _item("open", f"the open body, which takes their place: {sizes}")
    for key, wanted in files.LICENSED.items():
        path = files.find(key, folder) if folder else None
        if path is None:
            yield from _item("missing", f"{wanted.title}: {' or '.join(wanted.names)}")
            yield from _item("", f"for {wanted.use}")
            yield from _item("", f"from {wanted.source}")
            continue
        where = path.relative_to(folder)
        try:
            yield from _item("found", f"{wanted.title}: {where}, {_description(key, path)}")
        except (ValueError, OSError, MemoryError) as error:
            yield from _item("unusable", f"{wanted.title}: {str(error) or 'does not fit into memory'}")
            yield from _item("", f"get it again from {wanted.source}")


def _description(key: str, path: Path) -> str:
    """What is in a licensed file. Raises ValueError if that is not what its name says."""
    if key == "smplx2smpl":
        matrix = files.read_smplx_to_smpl(path)
        return f"{matrix.shape[0]} x {matrix.shape[1]}, {matrix.nnz} entries"
    if key == "h36m":
        return "{} joints of {} vertices".format(*files.read_h36m_regressor(path).shape)
    if key == "means":
        return f"24 rotations, {len(files.read_mean_params(path).betas)} betas"
    body = files.read_body(path)
    joints, vertices = body["J_regressor"].shape
    if (joints == 55) != key.startswith("smplx-"):
        raise ValueError(f"{path} has {joints} joints: it is the other model under this one's name")
    return f"{vertices} vertices, {joints} joints, {body['shapedirs'].shape[-1]} shape directions"


def _data(data: str | os.PathLike[str] | None) -> Iterator[str]:
    (root,) = data_roots(data)
    chosen = "" if data or os.environ.get(DATA_VARIABLE) else f" (the open data; {DATA_VARIABLE} is not set)"
    yield f"Data {'at' if is_url(root) else 'in'} {root}{chosen}"
    found = False
    for split in ("train", "val", "test"):
        shards = [] if is_url(root) else list(shard_folder(root).glob(f"{split}-*.tar"))
        if not (shards or is_url(root)):
            continue
        try:
            samples = data_samples(root, split)
            size = sum(path.stat().st_size for path in shards) / 1e6
        except (ValueError, OSError) as error:
            yield from _item("unusable", str(error))
            return
        if shards:
            people = "no manifest" if samples is None else f"{samples} people"
            yield from _item("found", f"{split}: {people}, {size:.0f} MB in {len(shards)} file(s)")
        elif samples:
            yield from _item("found", f"{split}: {samples} people, by the manifest there")
        found = found or bool(shards or samples)
    if not found and is_url(root):
        yield from _item("unknown", "a pattern of names, or a manifest without shards: training tells")
    elif not found:
        yield from _item("missing", "no shards: `dpose synth` makes the open data, `dpose prepare` others")


def _checkpoints() -> Iterator[str]:
    yield "Checkpoints that come along"
    for name in checkpoint.SHIPPED:
        try:
            trained = checkpoint.metadata(name)
            yield from _item(
                "found", f"{name}: {_size(checkpoint.resolve(name))}, {trained.get('images', 0)} images seen"
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
