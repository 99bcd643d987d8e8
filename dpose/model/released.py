"""Weights that others published, by the names in their files: the authors' D-PoSE, and HRNet trained on COCO.

Both come as pickles of torch. They are read without unpickling anything but tensors and plain values, so a
file from a stranger runs nothing. This module knows the names only; `dpose.model.checkpoint` reads and writes
whole networks.

The released D-PoSE is `PAPER` with its part channels in another order (`dpose.config.RELEASED_PARTS`). Its
training labels gave the right hand the number of the right thigh, so expect its maps to show no right hand,
and a right thigh in two places.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpose.config import PAPER, ModelConfig
from dpose.model.hrnet import HRNet
from dpose.model.network import DPose

__all__ = [
    "EncoderReport",
    "from_released",
    "is_torch_file",
    "kind",
    "load_keypoint_weights",
    "misfits",
    "read_torch_file",
    "to_released",
]

# Body models and a regressor, which are not ours to keep; the rest of a released checkpoint is network.
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
_PREFIXES = {  # ours: theirs; behind them the names are the same
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

COCO_LAYERS = (
    "conv1", "bn1", "conv2", "bn2", "layer1", "transition1", "stage2", "transition2", "stage3", "transition3",
    "stage4",
)  # fmt: skip

# Containers of settings that Lightning files often carry: read as plain dictionaries, never imported.
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
    """What `load_keypoint_weights` took."""

    loaded: int  # tensors of the encoder that come from the file
    random: list[str]  # layers of the encoder that the file has no weights for
    unused: list[str]  # layers of the file that the encoder does not take

    def __str__(self) -> str:
        return (
            f"encoder: {self.loaded} tensors loaded; left at random: {', '.join(self.random) or 'none'}; "
            f"not used: {', '.join(self.unused) or 'none'}"
        )


def is_torch_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file was written by `torch.save`, in its present format or that before 2020."""
    with open(path, "rb") as file:
        head = file.read(9)
    ours = head[8:] == b"{"  # safetensors: behind the length of its header, whose bytes may be any
    return not ours and (head[:2] == b"PK" or head[:1] == b"\x80")


def read_torch_file(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """What `torch.save` wrote: tensors on the CPU, mapped from disk where that is possible, and plain values.

    Raises:
        ValueError: the file is damaged, holds no dictionary, or asks for more than tensors and plain values
            (the message names what; none of it is run), or it is neither a Lightning checkpoint nor an HRNet.
    """
    with open(path, "rb") as file:
        mapped = file.read(2) == b"PK"
    try:
        with torch.serialization.safe_globals([(OrderedDict, name) for name in _SETTINGS]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # the readers of both formats raise a dozen kinds
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{path}: refused. Besides weights its pickle asks for {asked[1]!r}, which could run code; "
                "nothing of it was run. If you trust its maker, unpickle it yourself and save its "
                "'state_dict' alone, again under that name"
            ) from None
        told = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))  # the rest is advice to unpickle all
        reason = told[1] if told else (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: not a checkpoint of torch, or damaged or cut off ({reason})") from None
    if not isinstance(content, Mapping) or kind(content) is None:
        raise ValueError(
            f"{path}: neither a released checkpoint (no 'state_dict') nor the weights of an HRNet"
        )
    return content


def kind(content: Mapping[str, Any]) -> str | None:
    """What a torch file holds: "released" (a Lightning checkpoint), "hrnet" (an HRNet alone) or None."""
    if isinstance(content.get("state_dict"), Mapping) and isinstance(content.get("dpose", {}), Mapping):
        return "released"
    return "hrnet" if {"conv1.weight", "stage2.0.branches.0.0.conv1.weight"} <= content.keys() else None


def from_released(
    content: Mapping[str, Any], source: str = "state_dict"
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The network in a released checkpoint, under our names.

    Body models are passed over. Tensors keep their dtype: the file's may be of 16 or 64 bits.

    Args:
        content: what `read_torch_file` returns.
        source: how an error calls it.
    Returns:
        Its config (`PAPER`, with the file's order of part channels), and the tensors.
    Raises:
        ValueError: the weights are another network's; says which keys are missing, unexpected or of another
            shape.
    """
    ours = content.get("dpose", {})  # files that we wrote say more
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
    """The network's weights and buffers under the released names; `from_released` undoes it bit for bit.

    Raises:
        ValueError: another network than `PAPER`: the released code builds no other.
    """
    config = model.config
    if replace(config, name=PAPER.name, part_order=PAPER.part_order) != PAPER:
        raise ValueError(
            f"the released code builds the 'paper' network only (width 48, 224 pixels, with depth), so "
            f"{config.name!r} has no released form"
        )
    state = {_renamed(name, _PREFIXES): value.detach() for name, value in model.state_dict().items()}
    return {k: v[None] if k.startswith("model.head.init_") else v for k, v in state.items()}


@torch.no_grad()
def load_keypoint_weights(encoder: HRNet, content: Mapping[str, Any], source: str = "HRNet") -> EncoderReport:
    """Fill an encoder with HRNet weights trained on COCO keypoints (`pose_hrnet_w48_256x192.pth`).

    Takes conv1 to stage4 and nothing else. That network puts out its finest map only, so its last module has
    no fusions towards the three coarser ones: those stay as they are, like the up-sampling stacks.

    Args:
        encoder: changed in place.
        content: what `read_torch_file` returns; plain names (`conv1.weight`, ..., `final_layer.bias`).
        source: how an error calls it.
    Raises:
        ValueError: the weights are those of another network; the encoder stays as it is.
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
            f"{source}: weights of an HRNet that is not this encoder (W48 fits the paper presets): {problems}"
        )
    for name, value in offered.items():
        wanted[name].copy_(value)
    return EncoderReport(
        loaded=len(offered),
        random=_layers(n for n in wanted if n not in offered and not n.endswith("num_batches_tracked")),
        unused=_layers(n for n in state if n not in offered),
    )


def misfits(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """How two sets of named shapes differ, as the middle of a sentence; empty if they do not."""
    problems = []
    if missing := [name for name in wanted if name not in found]:
        problems.append(f"missing {_some(missing)}")
    if unexpected := [name for name in found if name not in wanted]:
        problems.append(f"unexpected {_some(unexpected)}")
    other = [
        f"{name} {tuple(found[name])} for {tuple(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    if other:
        problems.append(f"of another shape {_some(other)}")
    return "; ".join(problems)


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    old = next(prefix for prefix in prefixes if name.startswith(prefix))
    return prefixes[old] + name[len(old) :]


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)
    }


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _layers(names: Iterable[str]) -> list[str]:
    """Names of tensors as names of layers, each once; of a stage, the fusions by their target."""
    return sorted({re.match(r"stage4\.\d+\.fuse_layers\.\d+|[^.]+", name)[0] for name in names})


def _some(names: list[str], most: int = 3) -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
