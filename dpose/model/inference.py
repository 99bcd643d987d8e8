"""Running a network: normalisation, device choice, and a faster copy of a trained network.

`FastDPose` folds batch norms into convolutions, uses channels-last memory, and computes the maps in bf16
where the hardware supports it. In eval mode a batch norm is an affine map per channel, so it can be merged
into the weights of the preceding convolution. Softmax, sigmoid, the regressor and a pretrained backbone stay
in float32: with MoveNet's backbone in bf16 the vertices of `lite` move by 12 mm, otherwise by 0.9 mm.
`benchmarks/inference.py` and `benchmarks/precision.py` measure speed and accuracy, also of 8-bit integers.
"""

from __future__ import annotations

import copy
import platform
import re
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dpose.batch import NEAREST_TARGET, Batch, Prediction
from dpose.camera import bbox_info
from dpose.model.encoder import PretrainedEncoder
from dpose.model.network import DPose

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def usable_device(device: str | torch.device | None) -> torch.device:
    """`device`; None: CUDA if there is one, otherwise the CPU.

    Raises ValueError if this machine cannot compute on the device.
    """
    cuda = torch.cuda.is_available()
    device = ("cuda" if cuda else "cpu") if device is None else device
    try:
        tensor = torch.zeros(1, device=device)
        tensor.cpu()  # the meta device has no values to copy
        return tensor.device
    except (RuntimeError, AssertionError, ImportError) as error:  # which one depends on the backend
        reason = re.split(r"[.;!]\s|, ", str(error).splitlines()[0])[0]
        reason = "unknown to torch" if reason.startswith("Expected one of") else reason
        usable = "'cpu' or 'cuda'" if cuda else "'cpu'"
        raise ValueError(
            f"device {str(device)[:40]!r} cannot be used here ({reason[:100]}); use {usable}"
        ) from None


def run_network(model: nn.Module, batch: Batch, bf16: bool = False) -> Prediction:
    """The network's prediction for a Batch, with images in channels-last memory.

    bf16: compute in bfloat16 by autocast; the prediction is float32 in either case.
    """
    image = batch["image"].contiguous(memory_format=torch.channels_last)
    box = bbox_info(batch["center"], batch["scale"], batch["cam_int"])
    with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=bf16):
        return model(image, box)


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch on `device`, in the full form of `Batch`.

    A compact batch is moved first and expanded there: bytes to the normalised image, codes to the depth
    target. On the CPU the values are bit for bit those of numpy's arithmetic in `dpose.data.targets`. A batch
    in the full form is only moved.
    """
    moved = {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
    if "depth_scaling" in moved:
        moved["image"] = normalise(moved["image"])
        moved["parts"] = moved["parts"].long()
        moved["depth"] = _depth_target(moved["depth"], moved.pop("depth_scaling"), moved.pop("depth_rule"))
    return moved


def normalise(image: Tensor) -> Tensor:
    """RGB (B, 3, H, W) uint8 -> network input: float32, ImageNet statistics, channels-last memory."""
    pixels = image.permute(0, 2, 3, 1).contiguous().flatten(2)  # (B, H, W * 3), a view if channels-last
    std = torch.tensor(IMAGENET_STD)
    factor, offset = 1 / (255 * std), torch.tensor(IMAGENET_MEAN) / std
    factor, offset = (value.to(image.device).repeat(image.shape[3]) for value in (factor, offset))
    pixels = pixels.float().mul_(factor).sub_(offset)
    return pixels.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)


def _depth_target(codes: Tensor, scaling: Tensor, rule: str) -> Tensor:
    """The target of `dpose.data.targets.depth_target` from the codes and scaling of a compact batch.

    Its operations, in its order, so that the bits are the same: in single precision by the paper's rule, in
    double precision by the released code's.
    """
    first, step, near, span = scaling[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1) each
    metres = codes.float()  # (B, 1, M, M)
    person = metres > 0
    metres = metres.sub_(1).mul_(step.float()).add_(first.float())
    if rule == "paper":
        share = metres.sub_(near).div_(torch.where(span > 0, span, 1))
        target = share.mul_(1 - NEAREST_TARGET).add_(NEAREST_TARGET)
        return torch.where(person, target, 0.0).clamp_(0, 1)
    beyond = torch.where(person, metres, 0.0).double().sub_(near)
    target = beyond.mul_(1 - NEAREST_TARGET).div_(span).add_(NEAREST_TARGET).clamp_(0, 1)
    return torch.where(span > 0, target, 0.0).float()


class FastDPose(nn.Module):
    """A faster copy of a trained network with the same call, for inference only.

    `FastDPose(model)(image, bbox_info)` equals `model(image, bbox_info)` up to rounding. The model itself is
    not changed. `torch.compile(FastDPose(model), fullgraph=True)` and `torch.export.export` are supported.

    Args:
        model: on any device; eval mode is assumed.
        bf16: whether convolutions compute in bfloat16; None: if the model's device does so natively.
    """

    def __init__(self, model: DPose, bf16: bool | None = None) -> None:
        super().__init__()
        device = next(model.parameters()).device
        self.config = model.config
        self.body_record = model.body_record
        self.bf16 = computes_in_bf16(device) if bf16 is None else bf16
        folded = fold_batch_norms(copy.deepcopy(model).eval()).requires_grad_(False)
        if self.bf16:
            for layer in folded.modules():
                if isinstance(layer, nn.Conv1d | nn.Conv2d):
                    layer.to(torch.bfloat16)  # otherwise autocast converts the weights in every pass
            if isinstance(folded.encoder, PretrainedEncoder):
                folded.encoder.backbone = _InFloat32(copy.deepcopy(model.encoder.backbone))
        self.model = folded.to(memory_format=torch.channels_last)
        self.eval()

    def train(self, mode: bool = True) -> FastDPose:
        """Raises RuntimeError for training mode: there are no batch norms left to train."""
        if mode:
            raise RuntimeError("FastDPose is for inference; train the DPose that it was made from")
        return super().train(False)

    def forward(self, image: Tensor, bbox_info: Tensor) -> Prediction:
        """See `DPose.forward`: image (B, 3, S, S), bbox_info (B, 3) -> Prediction, float32."""
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(image.device.type, torch.bfloat16, enabled=self.bf16):
            return self.model(image, bbox_info)


class _InFloat32(nn.Module):
    """A module that does not take part in autocast."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            return self.module(x.float())


def computes_in_bf16(device: torch.device | str) -> bool:
    """Whether a device multiplies in bfloat16 natively; emulation is slower than float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Merges every batch norm of a network in eval mode into the convolution before it, in place.

    Pairs are neighbours in a `Sequential`, and attributes `conv1` and `bn1` (with any suffix) of a module.

    Raises:
        ValueError: a batch norm has no convolution before it.
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
    """Names of the children of a module that are a convolution and its batch norm."""
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
