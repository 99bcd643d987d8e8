"""The whole D-PoSE on one page: image crop and box information to a body, depth and parts.

    image -> encoder -> F1..F4 -> depth decoder -> depth map, D
                     |         -> parts decoder -> part logits S
                     -> F_up, S -> soft attention -> A (one feature a joint)
    A, bbox info, mean(D) -> regressor -> rotations, betas, camera

The network gives parameters and maps only. Vertices, joints and projections are the body's and the camera's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dpose.batch import Prediction
from dpose.config import ModelConfig
from dpose.model.attention import SoftAttention
from dpose.model.decoder import Decoder
from dpose.model.hrnet import HRNet
from dpose.model.regressor import Regressor
from dpose.skeleton import NUM_CLASSES

__all__ = ["DPose", "Features", "ParameterRow", "parameter_table"]


class Features(NamedTuple):
    """The intermediate maps of one forward pass, for looking at; w is `config.width`, s = image_size / 4."""

    f1: Tensor  # (B, w, s, s)
    f2: Tensor  # (B, 2w, s/2, s/2)
    f3: Tensor  # (B, 4w, s/4, s/4)
    f4: Tensor  # (B, 8w, s/8, s/8)
    f_up: Tensor  # (B, 15w, s, s)
    depth_features: Tensor | None  # D (B, w, s, s)
    parts_features: Tensor  # (B, w, s, s)
    attention: Tensor  # (B, 22, s, s) where joint j's head looks, each map sums to one
    attended: Tensor  # A (B, 15w, 22)


class DPose(nn.Module):
    """D-PoSE in the size and with the branches that `config` names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = HRNet(config)
        self.depth_decoder = Decoder(config, channels=1) if config.depth else None
        self.parts_decoder = Decoder(config, channels=NUM_CLASSES)
        self.attention = SoftAttention(config)
        self.regressor = Regressor(config)
        self._init_convolutions()

    def forward(
        self, image: Tensor, bbox_info: Tensor, return_features: bool = False
    ) -> Prediction | tuple[Prediction, Features]:
        """One pass.

        Args:
            image: (B, 3, S, S) ImageNet-normalised RGB crop, S = config.image_size.
            bbox_info: (B, 3), `dpose.camera.bbox_info`.
            return_features: also return the intermediate maps.
        Returns:
            Prediction, or (Prediction, Features).
        """
        maps = self.encoder(image)
        parts, parts_features = self.parts_decoder(maps)
        depth, depth_features, depth_mean = None, None, None
        if self.depth_decoder is not None:
            depth_logits, depth_features = self.depth_decoder(maps)
            depth = depth_logits.float().sigmoid()
            depth_mean = depth_features.mean(
                (2, 3)
            )  # (B, w): all that the regressor sees of the depth branch
        attended, attention = self.attention(maps.f_up, parts)
        rotmats, betas, cam = self.regressor(attended, bbox_info, depth_mean)
        if self.config.part_order != "joints":  # attention has read the channels as they come
            parts = torch.stack([parts[:, channel] for channel in self.config.part_channels], 1)
        prediction = Prediction(rotmats, betas, cam, parts.float(), depth)
        if not return_features:
            return prediction
        return prediction, Features(*maps, depth_features, parts_features, attention, attended)

    @torch.no_grad()
    def set_means(self, pose6d: Tensor, betas: Tensor, cam: Tensor) -> None:
        """Fill the mean parameters the regressor starts from; they are stored with the weights.

        Args:
            pose6d: (132,) 22 joints x 6, `dpose.model.regressor.rotmat_to_sixd`.
            betas: (num_betas,).
            cam: (3,) = (s, tx, ty).
        Raises:
            ValueError: a wrong number of elements.
        """
        for name, value in (("init_pose", pose6d), ("init_shape", betas), ("init_cam", cam)):
            buffer = getattr(self.regressor, name)
            value = torch.as_tensor(value)
            if value.numel() != buffer.numel():
                raise ValueError(f"set_means: {name} needs {buffer.numel()} numbers, got {value.numel()}")
            buffer.copy_(value.reshape(buffer.shape))

    @torch.no_grad()
    def init_head_priors(self, part_prior: Tensor, depth_mean: float) -> None:
        """Let an untrained network predict the class frequencies and the mean depth (part of MINI's recipe).

        Args:
            part_prior: (23,) share of map pixels of each class, background first; normalised here.
            depth_mean: mean of the depth target, in (0, 1).
        Raises:
            ValueError: a wrong number of classes, a negative share, or a depth outside (0, 1).
        """
        prior = torch.as_tensor(part_prior, dtype=torch.float32)
        if prior.shape != (NUM_CLASSES,) or not bool((prior >= 0).all()) or not float(prior.sum()) > 0:
            raise ValueError(f"part_prior must be {NUM_CLASSES} shares >= 0 that are not all zero")
        if not 0 < float(depth_mean) < 1:
            raise ValueError(f"depth_mean must lie in (0, 1), got {depth_mean}")
        bias = self.parts_decoder.head[-1].bias
        bias[list(self.config.part_channels)] = (prior / prior.sum()).clamp(min=1e-5).log().to(bias)
        if self.depth_decoder is not None:
            self.depth_decoder.head[-1].bias.fill_(torch.logit(torch.tensor(float(depth_mean))))

    def _init_convolutions(self) -> None:
        """Kaiming (as HRNet from scratch) where batch norm follows; small where a head closes."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if (
                    module.kernel_size == (1, 1) and module.bias is not None
                ):  # 1x1 with a bias: output layers only
                    nn.init.normal_(module.weight, std=0.01)
                else:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class ParameterRow(NamedTuple):
    """One line of the parameter table."""

    module: str
    parameters: int  # trainable
    buffers: int  # batch-norm statistics and mean parameters, counters included


def parameter_table(model: DPose) -> list[ParameterRow]:
    """Count what each part of the network holds; the last row is the total (81,099,394 for `PAPER`)."""
    names = {
        "encoder": model.encoder,
        "depth decoder": model.depth_decoder,
        "part-segmentation decoder": model.parts_decoder,
        "soft attention": model.attention,
        "regressor": model.regressor,
    }
    rows = [
        ParameterRow(
            name,
            sum(p.numel() for p in module.parameters() if p.requires_grad),
            sum(b.numel() for b in module.buffers()),
        )
        for name, module in names.items()
        if module is not None
    ]
    return [*rows, ParameterRow("total", sum(r.parameters for r in rows), sum(r.buffers for r in rows))]
