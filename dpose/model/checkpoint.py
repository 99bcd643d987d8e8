"""Networks on disk: safetensors files with the configuration and free metadata as JSON in the header.

Nothing is unpickled, so reading a checkpoint cannot run code. `load` also reads the authors' released
`.ckpt`, equally safely, and `save_released` writes one (`dpose.model.released`).

A network predicts the parameters of one body model. Its metadata has the body's name and hash under `body`,
`load` keeps them as `model.body_record`, and `body_of` returns that body.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dpose.body import BODY_NAMES, DEFAULT_BODY, Body, check_record, load_body, num_rotations
from dpose.config import ModelConfig
from dpose.io import file_hash, replacing
from dpose.model import released
from dpose.model.network import DPose
from dpose.skeleton import NUM_BODY_JOINTS

FORMAT = "dpose-1"  # in the header of our files
# Checkpoints in `dpose/assets/<name>.safetensors`, with the body of those whose header does not name it.
SHIPPED = dict.fromkeys(("lite", "mini"), {"name": "open", "hash": "1b62f8ee501cf944"})


def save(
    model: DPose, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None, half: bool = False
) -> Path:
    """Writes weights, buffers, configuration and metadata to one file, atomically.

    Args:
        model: the network, on any device and in any memory format.
        path: the file; parent folders are made.
        metadata: JSON values (steps, seed, command, metrics, ...). `body` defaults to `model.body_record`.
        half: store weights in 16 bits, at half the size (`load` returns them in 32); running means and
            variances of batch norms stay as they are.
    Returns:
        The path.
    Raises:
        TypeError: JSON cannot hold the metadata; nothing is written.
    """
    path = Path(path)
    header = {
        "format": FORMAT,
        "config": json.dumps(model.config.to_dict()),
        "metadata": _metadata_json(model, metadata),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        tensors |= {name: tensors[name].half() for name, _ in model.named_parameters()}
    with replacing(path) as temporary:
        temporary.write_bytes(serialize(tensors, header))
    return path


def save_released(model: DPose, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> Path:
    """Writes a network in the layout of the released checkpoint, atomically.

    The weights are under `state_dict`; `dpose` holds what only `load` reads. Body models, which a released
    checkpoint also contains, are not written: the released code has to load the file with `strict=False`.

    Args:
        model: a `PAPER` network. The order of its part channels is kept; the released code supports one.
        path, metadata: as for `save`.
    Returns:
        The path.
    Raises:
        ValueError: a network that the released code cannot build; nothing is written.
        TypeError: JSON cannot hold the metadata; nothing is written.
    """
    path = Path(path)
    state = {name: value.cpu().contiguous() for name, value in released.to_released(model).items()}
    ours = {"part_order": model.config.part_order, "metadata": _metadata_json(model, metadata)}
    with replacing(path) as temporary:
        torch.save({"state_dict": state, "dpose": ours}, temporary)
    return path


def load(path_or_name: str | os.PathLike[str], device: str | torch.device = "cpu") -> DPose:
    """Reads a checkpoint: the network in eval mode on `device`, with weights in 32 bits.

    Args:
        path_or_name: a file, ours or a released `.ckpt`, or a shipped network, "lite" or "mini".
        device: where the weights are put.
    Raises:
        FileNotFoundError: there is no such file and no such name.
        ValueError: the file is not such a checkpoint, is damaged, contains code, or its weights do not fit
            (the message names which are missing, unexpected or of another shape).
    """
    return read(path_or_name)[0].to(device)


def metadata(path_or_name: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a checkpoint, without reading its weights.

    A released checkpoint has `epoch`, `global_step` and `body`.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    path = resolve(path_or_name)
    return _metadata(path, _torch_content(path))


def read(
    path_or_name: str | os.PathLike[str], content: Mapping[str, Any] | None = None
) -> tuple[DPose, dict[str, Any]]:
    """The network and the metadata of a checkpoint: `load` and `metadata` in one reading.

    Args:
        path_or_name: as for `load`.
        content: the result of `dpose.model.released.read_torch_file`, if the file was read already.
    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    path = resolve(path_or_name)
    content = _torch_content(path, content)
    about = _metadata(path, content)
    if content is None:
        config, tensors = _config(path), _stored_tensors(path)
    else:
        config, tensors = released.from_released(content, str(path))
    with _Unfilled():  # all tensors come from the file
        model = DPose(config)
    expected = model.state_dict()
    shapes = ({name: tuple(value.shape) for name, value in state.items()} for state in (expected, tensors))
    if problems := released.misfits(*shapes):
        raise ValueError(f"{path}: weights do not fit its configuration {config.name!r}: {problems}")
    tensors = {  # copies, because the file may be mapped into memory
        name: value.to(expected[name].dtype, copy=True, memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    model.load_state_dict(tensors, assign=True)
    model.body_record = about.get("body")
    return model.eval(), about


def body_of(model: nn.Module, body: Body | str | os.PathLike | None = None) -> Body:
    """The body model whose parameters a network predicts.

    Args:
        model: a `DPose` or `FastDPose`; `load` sets its `body_record`.
        body: None: the body of the record. Otherwise a body, a name or a file, which must agree with the
            record.
    Raises:
        FileNotFoundError: a licensed body file is missing.
        ValueError: the body is neither recorded nor given, or the record is of another one.
    """
    record = getattr(model, "body_record", None)
    recorded = record["name"] if record else None
    what = f"the network {model.config.name!r}"
    if body is None:
        names = [name for name in BODY_NAMES if num_rotations(name) == NUM_BODY_JOINTS]
        if recorded not in names:
            reason = "is a file of the user's" if recorded else "is not recorded in its checkpoint"
            raise ValueError(
                f"the body model of {what} {reason}; give it by --body (body=), as a file or one of "
                f"{', '.join(names)}"
            )
        body = recorded
    from_file = not isinstance(body, Body)
    if from_file:
        body = load_body(body, num_betas=model.config.num_betas)
    check_record(body, record, what)
    hashed = bool(record and record.get("hash"))
    if hashed and from_file:
        body.name = recorded  # the same model under another file name
    elif record and not hashed and body.name not in (recorded, "custom"):
        raise ValueError(f"{what} belongs to the body {recorded}, not to {body.name}")
    return body


def resolve(path_or_name: str | os.PathLike[str]) -> Path:
    """The file of a path or of a shipped checkpoint's name. Raises FileNotFoundError."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    if str(path_or_name) in SHIPPED:
        shipped = _shipped_file(str(path_or_name))
        if shipped.is_file():
            return shipped
        raise FileNotFoundError(
            f"the shipped checkpoint {str(path_or_name)!r} is missing from this installation of dpose "
            f"({shipped}); give the path of another one"
        )
    raise FileNotFoundError(
        f"no checkpoint {str(path_or_name)!r}: neither a file nor shipped with dpose ({', '.join(SHIPPED)})"
    )


def record(path_or_name: str | os.PathLike[str], model: DPose, metadata: dict[str, Any]) -> dict[str, Any]:
    """Which checkpoint was measured, for results: what `read` gave, and the file's name and hash."""
    return {
        "name": Path(path_or_name).name,
        "sha256": file_hash(resolve(path_or_name)),
        "config": model.config.to_dict(),
        "metadata": metadata,
    }


class _Unfilled(TorchFunctionMode):
    """Modules made in this context have parameters without memory and without random numbers.

    `torch.device("meta")` would do the same for all tensors, but computes with some of them by torch._dynamo,
    whose import takes as long as torch's.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            kwargs = kwargs | {"device": "meta"}
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _shipped_file(name: str) -> Path:
    return Path(str(files("dpose") / "assets" / f"{name}.safetensors"))


def _torch_content(path: Path, content: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
    """The content of a torch file, None for a safetensors file. Raises ValueError if it is no network."""
    if content is None:
        if not released.is_torch_file(path):
            return None
        content = released.read_torch_file(path)
    if released.kind(content) == "hrnet":
        raise ValueError(f"{path}: weights of an HRNet encoder only; training can start from them (--init)")
    if "step" in content.get("dpose", {}):
        raise ValueError(
            f"{path}: the state of a training run, for --resume; the network is in model.safetensors "
            "beside it"
        )
    return content


def _metadata(path: Path, content: Mapping[str, Any] | None) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if content is None:
        header = _header(path)
        for name, record in SHIPPED.items():
            shipped = _shipped_file(name)
            if shipped.is_file() and path.samefile(shipped):
                about["body"] = record
    else:
        about |= {name: content[name] for name in ("epoch", "global_step") if type(content.get(name)) is int}
        if "dpose" not in content:  # the authors' file
            about["body"] = {"name": DEFAULT_BODY}
        header = {"metadata": "{}"} | content.get("dpose", {})
    try:
        about = about | json.loads(header["metadata"])
        record = about.get("body")
        if record is not None and not _is_record(record):
            raise ValueError("'body' must have a name and a hash")
    except (KeyError, TypeError, ValueError, RecursionError) as error:  # JSON errors are ValueErrors
        raise ValueError(f"{path}: the checkpoint's metadata is damaged ({error})") from None
    return about


def _is_record(record: Any) -> bool:
    """Whether a value from a file is {"name": str, "hash": str or absent}."""
    if not isinstance(record, dict) or not isinstance(record.get("name"), str):
        return False
    digest = record.get("hash")
    return len(record["name"]) <= 80 and (digest is None or (isinstance(digest, str) and len(digest) <= 80))


def _metadata_json(model: DPose, metadata: dict[str, Any] | None) -> str:
    body = {"body": model.body_record} if model.body_record else {}
    try:
        return json.dumps(body | (metadata or {}))
    except TypeError as error:
        raise TypeError(f"checkpoint metadata must be plain JSON values: {error}") from None


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        reason = str(error)[: released.LONGEST]
        raise ValueError(f"{path}: not a safetensors checkpoint, or cut off ({reason})") from None


def _header(path: Path) -> dict[str, str]:
    with _open(path) as file:
        header = file.metadata() or {}
    if header.get("format") != FORMAT:
        raise ValueError(f"{path}: a safetensors file, but not of dpose (no {FORMAT!r} in its header)")
    return header


def _config(path: Path) -> ModelConfig:
    try:
        return ModelConfig.from_dict(json.loads(_header(path)["config"]))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the checkpoint's configuration is wrong: {error}") from None


def _stored_tensors(path: Path) -> dict[str, Tensor]:
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}
