"""Networks on disk: ours as safetensors, the config and free metadata as JSON in the file's header.

Nothing is pickled, so a checkpoint from a stranger can be read without running anything of his. `load` reads
the authors' released `.ckpt` as well, as safely, and `save_released` writes one (`dpose.model.released`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from dpose.config import ModelConfig
from dpose.io import replacing
from dpose.model import released
from dpose.model.network import DPose

__all__ = ["SHIPPED", "load", "metadata", "read", "resolve", "save", "save_released"]

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
    header = {"format": FORMAT, "config": json.dumps(model.config.to_dict()), "metadata": _json(metadata)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        tensors |= {name: tensors[name].half() for name, _ in model.named_parameters()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(serialize(tensors, header))
    return path


def save_released(model: DPose, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> Path:
    """Write a network in the layout of the released checkpoint, whole or not at all.

    The weights are under `state_dict`, what only `load` reads is under `dpose`. Body models, which a released
    checkpoint also holds, are not in the file: the released code has to load it with `strict=False`.

    Args:
        model: a `PAPER` network. Its part channels keep their order, which the released code may not know.
        path: where to; parent folders are made.
        metadata: as for `save`.
    Returns:
        The path.
    Raises:
        ValueError: another network, which the released code cannot build; nothing is written.
        TypeError: metadata that JSON cannot hold; nothing is written.
    """
    path = Path(path)
    state = {name: value.cpu().contiguous() for name, value in released.to_released(model).items()}
    ours = {"part_order": model.config.part_order, "metadata": _json(metadata)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save({"state_dict": state, "dpose": ours}, temporary)
    return path


def load(path_or_name: str | os.PathLike[str], device: str | torch.device = "cpu") -> DPose:
    """Read a checkpoint: the network in eval mode, on `device`, its weights in 32 bits.

    Args:
        path_or_name: a file, ours or a released `.ckpt`, or the name of one that the package ships ("mini").
        device: where the weights go.
    Raises:
        FileNotFoundError: no such file, and no such name.
        ValueError: the file is no such checkpoint, is damaged, asks to run code, or its weights do not fit
            (the message names what is missing, unexpected or of another shape).
    """
    path = resolve(path_or_name)
    return _network(path, _released_content(path)).to(device)


def metadata(path_or_name: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save` was told about this checkpoint; of a released one, how far its training had come.

    Looks at no weights: that they fit is for `load` to find.

    Raises:
        FileNotFoundError: as `load`.
        ValueError: the file is no such checkpoint, asks to run code, or the metadata is damaged.
    """
    path = resolve(path_or_name)
    return _story(path, _released_content(path))


def read(
    path_or_name: str | os.PathLike[str], content: Mapping[str, Any] | None = None
) -> tuple[DPose, dict[str, Any]]:
    """What `load` and `metadata` return, at one reading.

    Args:
        path_or_name: as for `load`.
        content: what `dpose.model.released.read_torch_file` returned, where it was read already.
    Raises:
        FileNotFoundError, ValueError: as these two.
    """
    path = resolve(path_or_name)
    content = _released_content(path, content)
    return _network(path, content), _story(path, content)


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


def _released_content(path: Path, content: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
    """A torch file's content; None for a safetensors file. Raises ValueError if it is no whole network's."""
    if content is None:
        if not released.is_torch_file(path):
            return None
        content = released.read_torch_file(path)
    if released.kind(content) == "hrnet":
        raise ValueError(
            f"{path}: weights of an HRNet, the encoder alone; a training may start from them (--init)"
        )
    if "step" in content.get("dpose", {}):
        raise ValueError(
            f"{path}: is for resuming a training; the weights are in model.safetensors beside it"
        )
    return content


def _network(path: Path, content: Mapping[str, Any] | None) -> DPose:
    if content is None:
        config, tensors = _config(path, _header(path)), _stored_tensors(path)
    else:
        config, tensors = released.from_released(content, str(path))
    with torch.device("meta"):  # no memory, no random numbers drawn: every tensor comes from the file
        model = DPose(config)
    wanted = model.state_dict()
    shapes = ({name: tuple(value.shape) for name, value in state.items()} for state in (wanted, tensors))
    if problems := released.misfits(*shapes):
        raise ValueError(f"{path}: weights do not fit its config {config.name!r}: {problems}")
    tensors = {  # copies, as the file may be mapped into memory
        name: value.to(wanted[name].dtype, copy=True, memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _story(path: Path, content: Mapping[str, Any] | None) -> dict[str, Any]:
    progress = {}
    if content is None:
        header = _header(path)
    else:
        progress = {name: content[name] for name in ("epoch", "global_step") if name in content}
        header = {"metadata": "{}"} | content.get("dpose", {})
    try:
        return progress | json.loads(header["metadata"])
    except (KeyError, TypeError, ValueError) as error:  # JSON errors are ValueErrors
        raise ValueError(f"{path}: the checkpoint's metadata is damaged ({error})") from None


def _json(metadata: dict[str, Any] | None) -> str:
    try:
        return json.dumps(metadata or {})
    except TypeError as error:
        raise TypeError(f"checkpoint metadata must be plain JSON values: {error}") from None


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


def _stored_tensors(path: Path) -> dict[str, Tensor]:
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}
