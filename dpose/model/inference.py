"""A trained network made fast for inference: batch norms folded, channels last, bf16 where hardware has it.

In eval mode a batch norm is an affine map of each channel, so it goes into the weights of the convolution
before it. The maps run in bf16 where the processor or GPU computes in it; softmax, sigmoid and the regressor
stay in 32 bits. `benchmarks/inference.py` measures what this gives and what it costs.
"""

from __future__ import annotations

import copy
import platform
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dpose.batch import Batch, Prediction
from dpose.camera import bbox_info
from dpose.model.network import DPose

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "FastDPose",
    "computes_in_bf16",
    "fold_batch_norms",
    "run_network",
    "to_device",
    "usable_device",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def usable_device(device: str | None) -> str:
    """`device`, or CUDA where there is one if None. Raises ValueError if this machine has no such device."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter: torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device {device!r} cannot be used here ({reason}); take 'cpu', or leave it out"
        ) from None
    return device


def run_network(model: nn.Module, batch: Batch, bf16: bool = False) -> Prediction:
    """The network's prediction for a Batch: images channels-last and, if asked, its arithmetic in bf16."""
    image = batch["image"].contiguous(memory_format=torch.channels_last)
    box = bbox_info(batch["center"], batch["scale"], batch["cam_int"])
    with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=bf16):
        return model(image, box)


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with its tensors on `device`."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


class FastDPose(nn.Module):
    """`FastDPose(model)(image, bbox_info)` is `model(image, bbox_info)`, quicker; it cannot be trained.

    Works on a copy; the model given stays as it is. `torch.compile(FastDPose(model), fullgraph=True)` and
    `torch.export.export` take it whole.

    Args:
        model: on any device; taken as in eval mode.
        bf16: None: where the model's device computes in it. False: the outputs are the model's to rounding.
    """

    def __init__(self, model: DPose, bf16: bool | None = None) -> None:
        super().__init__()
        device = next(model.parameters()).device
        self.config = model.config
        self.bf16 = computes_in_bf16(device) if bf16 is None else bf16
        folded = fold_batch_norms(copy.deepcopy(model).eval()).requires_grad_(False)
        for layer in folded.modules():
            if self.bf16 and isinstance(layer, nn.Conv1d | nn.Conv2d):
                layer.to(torch.bfloat16)  # autocast would convert them anew in every pass
        self.model = folded.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> FastDPose:
        """Refuses training mode with a RuntimeError: there are no batch norms left to train."""
        if mode:
            raise RuntimeError("FastDPose is for inference; train the DPose that it was made from")
        return super().train(False)

    def forward(self, image: Tensor, bbox_info: Tensor) -> Prediction:
        """As `DPose.forward`: image (B, 3, S, S), bbox_info (B, 3) -> Prediction, float32."""
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(image.device.type, torch.bfloat16, enabled=self.bf16):
            return self.model(image, bbox_info)


def computes_in_bf16(device: torch.device | str) -> bool:
    """Whether a device multiplies in bf16 by itself, not only by emulation, which is slower than 32 bits."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Put every batch norm of a network in eval mode into the convolution before it, in place.

    A pair is two neighbours in a `Sequential`, or attributes `conv1` and `bn1` (any such suffix) of a module.

    Raises:
        ValueError: a batch norm is left that has no such partner.
    """
    for module in list(model.modules()):
        for one, two in _pairs(module):
            folded = fuse_conv_bn_eval(getattr(module, one), getattr(module, two))
            setattr(module, one, folded)
            setattr(module, two, nn.Identity())
    if left := [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]:
        raise ValueError(f"batch norms without a convolution before them: {', '.join(left)}")
    return model


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of a module's children that are a convolution and its batch norm."""
    children = dict(module.named_children())
    if isinstance(module, nn.Sequential):
        candidates = list(pairwise(children))
    else:
        candidates = [(name, name.replace("conv", "bn")) for name in children]
    return [
        (one, two)
        for one, two in candidates
        if isinstance(children[one], nn.Conv2d) and isinstance(children.get(two), nn.BatchNorm2d)
    ]
