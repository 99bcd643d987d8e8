"""Weights published by others: the authors' D-PoSE, and HRNet trained on COCO keypoints.

Both are torch pickles. They are read with torch's restricted unpickler, which makes tensors and plain values
only, so reading a file cannot run code. This module maps names; `dpose.model.checkpoint` reads and writes
whole networks.

The released D-PoSE is `PAPER` with another order of part channels (`dpose.config.RELEASED_PARTS`). In its
training labels the right hand had the number of the right thigh, so its part maps never contain the right
hand and mark the thigh twice.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpose.config import PAPER, ModelConfig
from dpose.model.hrnet import HRNet
from dpose.model.network import DPose

LONGEST = 200  # characters of a file's own text in a message
LONGEST_NAME = 80

# Body models and a regressor, which may not be redistributed; everything else in the file is the network.
NOT_NETWORK = ("model.smpl.", "smpl.", "smplx.", "J_regressor")

_DECODER = {
    "fuse_4_to_3.reduce.": "upsample_modules.upsample_3_to_2.",
    "fuse_3_to_2.reduce.": "upsample_modules.upsample_2_to_1.",
    "fuse_2_to_1.reduce.": "upsample_modules.upsample_1_to_0.",
    "fuse_4_to_3.refine.": "fusion_and_refinement.fuse_and_refine_3.",
    "fuse_3_to_2.refine.": "fusion_and_refinement.fuse_and_refine_2.",
    "fuse_2_to_1.refine.": "fusion_and_refinement.fuse_and_refine_1.",
    "upscale.0.conv.": "upscaling.conv3_1.",
    "upscale.0.bn.": "upscaling.bn2.",
    "upscale.1.conv.": "upscaling.conv3_2.",
    "upscale.1.bn.": "upscaling.bn4.",
    "head.": "final_layers.",
}
_PREFIXES = {  # ours: theirs; the rest of each name is the same
    "encoder.": "model.backbone.",
    "regressor.init_": "model.head.init_",
    "regressor.pose_hidden.": "model.head.p.0.",
    "regressor.shape_hidden.": "model.head.s.0.",
    "regressor.cam_hidden.": "model.head.c.0.",
    "regressor.pose_out.": "model.head.decpose.",
    "regressor.shape_out.": "model.head.decshape.",
    "regressor.cam_out.": "model.head.deccam.",
    **{f"depth_decoder.{ours}": f"model.depth_decoder.{theirs}" for ours, theirs in _DECODER.items()},
    **{f"parts_decoder.{ours}": f"model.segmentation_decoder.{theirs}" for ours, theirs in _DECODER.items()},
    "attention.conv_pose.": "model.attention.conv1x1_pose.",
    "attention.conv_shape_cam.": "model.attention.conv1x1_shape_cam.",
}

COCO_LAYERS = "conv1 bn1 conv2 bn2 layer1 transition1 stage2 transition2 stage3 transition3 stage4".split()

# Containers of settings in Lightning files: read as plain dictionaries, never imported.
_SETTINGS = ("yacs.config.CfgNode", "argparse.Namespace") + tuple(
    f"{package}.AttributeDict"
    for package in (
        "pytorch_lightning.utilities.parsing",
        "lightning_fabric.utilities.data",
        "lightning.fabric.utilities.data",
        "lightning.pytorch.utilities.parsing",
    )
)


class EncoderReport(NamedTuple):
    """Result of `load_keypoint_weights`."""

    loaded: int  # tensors of the encoder that were filled
    random: list[str]  # layers of the encoder without weights in the file
    unused: list[str]  # layers of the file without a counterpart in the encoder

    def __str__(self) -> str:
        return (
            f"encoder: {self.loaded} tensors loaded; still random: {', '.join(self.random) or 'none'}; "
            f"not used: {', '.join(self.unused) or 'none'}"
        )


def is_torch_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file was written by `torch.save`, in its present format or the one before 2020."""
    with open(path, "rb") as file:
        head = file.read(9)
    is_safetensors = head[8:] == b"{"  # the first eight bytes are a length and can have any value
    return not is_safetensors and (head[:2] == b"PK" or head[:1] == b"\x80")


def read_torch_file(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The content of a torch file: tensors on the CPU, mapped from disk where possible, and plain values.

    Raises:
        ValueError: the file is damaged, is not a dictionary, or contains code
            (the message names what; none of it is run), or it is neither a Lightning checkpoint nor an HRNet.
    """
    with open(path, "rb") as file:
        mapped = file.read(2) == b"PK"
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(OrderedDict, name) for name in _SETTINGS]),
        ):
            warnings.simplefilter("ignore")  # torch asks users to report pickles that it does not know
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # the readers of both formats raise a dozen kinds
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{path}: refused. Its pickle names {asked[1][:LONGEST_NAME]!r}, which could run code; a "
                "file of weights does not need it. Nothing was run. If you trust the file's origin, unpickle "
                "it yourself and save its 'state_dict' alone under that name"
            ) from None
        specific = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))  # the rest is torch's advice
        reason = specific[1] if specific else (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path}: not a checkpoint of torch, or damaged or cut off ({reason[:LONGEST]})"
        ) from None
    if not isinstance(content, Mapping) or kind(content) is None:
        raise ValueError(
            f"{path}: neither a released checkpoint (no 'state_dict') nor the weights of an HRNet"
        )
    if "step" in (state := content.get("dpose", {})):
        version = content.get("pytorch-lightning_version")
        if type(state["step"]) is not int or state["step"] < 0 or not isinstance(version, str):
            raise ValueError(
                f"{path}: a damaged state of a training run (no valid step or Lightning version)"
            )
    return content


def kind(content: Mapping[str, Any]) -> str | None:
    """What a torch file contains: "released" (a Lightning checkpoint), "hrnet" (an HRNet alone) or None."""
    if isinstance(content.get("state_dict"), Mapping) and isinstance(content.get("dpose", {}), Mapping):
        return "released"
    return "hrnet" if {"conv1.weight", "stage2.0.branches.0.0.conv1.weight"} <= content.keys() else None


def from_released(
    content: Mapping[str, Any], source: str = "state_dict"
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The network in a released checkpoint, under our names.

    Body models are skipped. Tensors keep their dtype, which may have 16 or 64 bits.

    Args:
        content: result of `read_torch_file`.
        source: name of the file in messages.
    Returns:
        The configuration (`PAPER`, with the file's order of part channels) and the tensors.
    Raises:
        ValueError: the weights are of another network; the message names the keys that are missing,
            unexpected or of another shape.
    """
    ours = content.get("dpose", {})  # only in files that `save_released` wrote
    config = replace(PAPER, part_order=ours.get("part_order", "released"))
    with torch.device("meta"):
        wanted = to_released(DPose(config))
    state = _tensors(content["state_dict"])
    network = {name: value for name, value in state.items() if not name.startswith(NOT_NETWORK)}
    if problems := misfits(_shapes(wanted), _shapes(network)):
        raise ValueError(f"{source}: not the released D-PoSE: {problems}")
    prefixes = {new: old for old, new in _PREFIXES.items()}
    tensors = {_renamed(name, prefixes): value for name, value in network.items()}
    return config, {k: v[0] if k.startswith("regressor.init_") else v for k, v in tensors.items()}


def to_released(model: DPose) -> dict[str, Tensor]:
    """The network's weights and buffers under the released names; `from_released` is the exact inverse.

    Raises:
        ValueError: the network is not `PAPER`, the only one that the released code builds.
    """
    config = model.config
    if replace(config, name=PAPER.name, part_order=PAPER.part_order) != PAPER:
        raise ValueError(
            f"the released code builds only the 'paper' network (width 48, 224 pixels, with depth), so "
            f"{config.name!r} has no released form"
        )
    state = {_renamed(name, _PREFIXES): value.detach() for name, value in model.state_dict().items()}
    return {k: v[None] if k.startswith("model.head.init_") else v for k, v in state.items()}


@torch.no_grad()
def load_keypoint_weights(encoder: HRNet, content: Mapping[str, Any], source: str = "HRNet") -> EncoderReport:
    """Fills an encoder with HRNet weights trained on COCO keypoints (`pose_hrnet_w48_256x192.pth`).

    Only conv1 to stage4 are used. HRNet's last module outputs only the finest map, so the file has no fusions
    to the three coarser ones; these keep their values, as do the up-sampling stacks.

    Args:
        encoder: changed in place.
        content: result of `read_torch_file`; plain names (`conv1.weight`, ..., `final_layer.bias`).
        source: name of the file in messages.
    Raises:
        ValueError: the weights are of another network; the encoder is not changed.
    """
    state = _tensors(content)
    offered = {name: value for name, value in state.items() if name.split(".")[0] in COCO_LAYERS}
    wanted = encoder.state_dict()
    last = rf"stage4\.{len(encoder.stage4) - 1}\.fuse_layers\.[1-3]|.*num_batches_tracked"
    required = {
        name: value
        for name, value in wanted.items()
        if name in offered or (name.split(".")[0] in COCO_LAYERS and not re.match(last, name))
    }
    if problems := misfits(_shapes(required), _shapes(offered)):
        raise ValueError(
            f"{source}: weights of another HRNet than this encoder (W48 fits the paper presets): {problems}"
        )
    for name, value in offered.items():
        wanted[name].copy_(value)
    return EncoderReport(
        loaded=len(offered),
        random=_layers(n for n in wanted if n not in offered and not n.endswith("num_batches_tracked")),
        unused=_layers(n for n in state if n not in offered),
    )


def misfits(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """The differences between two sets of named shapes, as part of a sentence; empty if there are none."""
    problems = []
    if missing := [name for name in wanted if name not in found]:
        problems.append(f"missing {_listed(missing)}")
    if unexpected := [name for name in found if name not in wanted]:
        problems.append(f"unexpected {_listed(unexpected)}")
    other = [
        f"{name} {tuple(found[name])} instead of {tuple(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    if other:
        problems.append(f"of another shape {_listed(other)}")
    return "; ".join(problems)


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    old = next(prefix for prefix in prefixes if name.startswith(prefix))
    return prefixes[old] + name[len(old) :]


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The plain tensors of a state: real numbers in ordinary memory."""
    return {
        name: value
        for name, value in state.items()
        if isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex())
    }


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _layers(names: Iterable[str]) -> list[str]:
    """Layers of the named tensors, each once; the fusions of a stage by their target."""
    return sorted({re.match(r"stage4\.\d+\.fuse_layers\.\d+|[^.]*", name)[0] for name in names})


def _listed(names: list[str], most: int = 3) -> str:
    """The first few names, shortened, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (
        ", ".join(name if len(name) <= LONGEST else f"{name[:LONGEST_NAME]}..." for name in names[:most])
        + more
    )
