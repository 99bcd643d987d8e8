"""Our checkpoints: weights as safetensors, the config and free metadata as JSON in the file's header.

Nothing is pickled, so a checkpoint from a stranger can be read without running anything of his. Reading the
released `.ckpt` or COCO weights is not here.
"""

from __future__ import annotations

import json
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from dpose.config import ModelConfig
from dpose.model.network import DPose

__all__ = ["SHIPPED", "load", "metadata", "resolve", "save"]

FORMAT = "dpose-1"  # the header's mark: a safetensors file without it is somebody else's
SHIPPED = ("mini",)  # checkpoints that come with the package, `dpose/assets/<name>.safetensors`


def save(
    model: DPose, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None, half: bool = False
) -> Path:
    """Write weights, buffers, config and metadata to one file, whole or not at all.

    Args:
        model: the network, on any device and in any memory format.
        path: where to; parent folders are made.
        metadata: anything JSON can hold (steps, seed, command, metrics, ...).
        half: keep weights in 16 bits, at half the size (`load` gives them back in 32); running means and
            variances of the batch norms stay as they are.
    Returns:
        The path.
    Raises:
        TypeError: metadata that JSON cannot hold; nothing is written.
    """
    path = Path(path)
    try:
        header = {
            "format": FORMAT,
            "config": json.dumps(model.config.to_dict()),
            "metadata": json.dumps(metadata or {}),
        }
    except TypeError as error:
        raise TypeError(f"checkpoint metadata must be plain JSON values: {error}") from None
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        tensors |= {name: tensors[name].half() for name, _ in model.named_parameters()}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(serialize(tensors, header))
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def load(path_or_name: str | os.PathLike[str], device: str | torch.device = "cpu") -> DPose:
    """Read a checkpoint: the network in eval mode, on `device`.

    Args:
        path_or_name: a file, or the name of a checkpoint the package ships ("mini").
        device: where the weights go.
    Raises:
        FileNotFoundError: no such file, and no such name.
        ValueError: the file is not one of ours, is damaged, or its weights do not fit its config.
    """
    path = resolve(path_or_name)
    config = _config(path, _header(path))
    with torch.device("meta"):  # no memory, no random numbers drawn: every tensor comes from the file
        model = DPose(config)
    wanted = model.state_dict()
    with _open(path) as file:
        names = set(file.keys())
        problems = []
        if missing := sorted(wanted.keys() - names):
            problems.append(f"missing {_some(missing)}")
        if unexpected := sorted(names - wanted.keys()):
            problems.append(f"unexpected {_some(unexpected)}")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in sorted(names & wanted.keys())}
        other = [
            f"{n} {shape} for {tuple(wanted[n].shape)}"
            for n, shape in shapes.items()
            if shape != wanted[n].shape
        ]
        if other:
            problems.append(f"of another shape {_some(other)}")
        if problems:
            raise ValueError(f"{path}: weights do not fit its config {config.name!r}: {'; '.join(problems)}")
        tensors = {name: file.get_tensor(name).to(wanted[name].dtype) for name in names}
        model.load_state_dict(tensors, assign=True)
    return model.to(device).eval()


def metadata(path_or_name: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save` was told about this checkpoint; reads the header only.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    path = resolve(path_or_name)
    try:
        return json.loads(_header(path)["metadata"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: the checkpoint's metadata is damaged ({error})") from None


def resolve(path_or_name: str | os.PathLike[str]) -> Path:
    """The file behind a path or a shipped checkpoint's name. Raises FileNotFoundError."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    if str(path_or_name) in SHIPPED:
        shipped = Path(str(files("dpose") / "assets" / f"{path_or_name}.safetensors"))
        if shipped.is_file():
            return shipped
        raise FileNotFoundError(
            f"this installation of dpose lacks its shipped checkpoint {str(path_or_name)!r} ({shipped}); "
            "give the path of one that you trained"
        )
    raise FileNotFoundError(
        f"no checkpoint {str(path_or_name)!r}: neither a file nor a shipped one ({', '.join(SHIPPED)})"
    )


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a safetensors checkpoint, or cut off ({error})") from None


def _header(path: Path) -> dict[str, str]:
    with _open(path) as file:
        header = file.metadata() or {}
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path}: a safetensors file, but not written by dpose (no {FORMAT!r} in its header)"
        )
    return header


def _config(path: Path, header: dict[str, str]) -> ModelConfig:
    try:
        return ModelConfig.from_dict(json.loads(header["config"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # JSON errors are ValueErrors
        raise ValueError(f"{path}: the checkpoint's config is wrong: {error}") from None


def _some(names: list[str], most: int = 3) -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
