"""The heads of the methods that the paper compares with, on the same encoder, body and camera.

- *HMR* (Kanazawa et al. 2018; in the paper's Table 1 as BEDLAM-HMR): the encoder's maps are brought to the
  coarsest resolution and averaged; a regressor refines pose, shape and camera three times.
- *CLIFF* (Li et al. 2022; BEDLAM-CLIFF): the same, and the regressor also gets the box information.
- *PARE* (Kocabas et al. 2021): a branch segments the parts, another one makes features, which are averaged
  under each part. One linear layer per joint then gives its rotation, one each shape and camera.

Sizes are those of the public PyTorch implementations (of HMR: SPIN's and BEDLAM's), PARE's in proportion to
the encoder's width (theirs is 32). Different from them, so that the heads are compared under equal
conditions: all have 22 joints and `num_betas` shape coefficients, add their outputs to the training set's
means, and predict the camera by which CLIFF and D-PoSE place the body in the full image (HMR and PARE place
it in the crop). PARE's part map has the size of D-PoSE's and is supervised during the whole training; its
attention is taken from that map, averaged back to the size of the features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpose.config import ModelConfig
from dpose.model.hrnet import EncoderFeatures, conv, down_step
from dpose.model.regressor import MultiLinear, add_means
from dpose.rotations import sixd_to_rotmat
from dpose.skeleton import NUM_BODY_JOINTS, NUM_CLASSES

Parameters = tuple[Tensor, Tensor, Tensor]  # rotmats (B, 22, 3, 3), betas (B, num_betas), cam (B, 3)


class IterativeRegressor(nn.Module):
    """HMR's and CLIFF's head: F1..F4, averaged, and the current estimate give the estimate's correction."""

    HIDDEN, ROUNDS = 1024, 3

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = [config.width * 2**i for i in range(4)]
        self.box = config.head == "cliff"
        self.down = nn.ModuleList(  # to the resolution of F4
            nn.Sequential(*(down_step(width, width, relu=True) for _ in range(3 - i)))
            for i, width in enumerate(widths)
        )
        add_means(self, config)
        outputs = {"pose_out": 6 * NUM_BODY_JOINTS, "shape_out": config.num_betas, "cam_out": 3}
        feature = sum(widths) + (3 if self.box else 0)
        self.hidden_1 = nn.Linear(feature + sum(outputs.values()), self.HIDDEN)
        self.hidden_2 = nn.Linear(self.HIDDEN, self.HIDDEN)
        for name, count in outputs.items():
            layer = nn.Linear(self.HIDDEN, count)
            nn.init.xavier_uniform_(layer.weight, gain=0.01)
            self.add_module(name, layer)

    def forward(self, maps: EncoderFeatures, bbox_info: Tensor) -> Parameters:
        """F1..F4 and box information (B, 3) -> rotations (B, 22, 3, 3), betas (B, num_betas), camera (B, 3).

        As in SPIN and BEDLAM, the linear layers have no activation.
        """
        pooled = [down(x).mean((2, 3)) for down, x in zip(self.down, maps[:4], strict=True)]
        with torch.autocast(bbox_info.device.type, enabled=False):
            dtype = self.init_pose.dtype
            feature = torch.cat([*pooled, bbox_info] if self.box else pooled, 1).to(dtype)  # (B, 15w [+ 3])
            batch = feature.shape[0]
            pose = self.init_pose.expand(batch, -1)  # (B, 132)
            shape = self.init_shape.expand(batch, -1)  # (B, num_betas)
            cam = self.init_cam.expand(batch, -1)  # (B, 3)
            for _ in range(self.ROUNDS):
                x = torch.cat([feature, pose, shape, cam], 1)
                x = F.dropout(self.hidden_1(x), training=self.training)
                x = F.dropout(self.hidden_2(x), training=self.training)  # (B, 1024)
                pose, shape, cam = pose + self.pose_out(x), shape + self.shape_out(x), cam + self.cam_out(x)
            return sixd_to_rotmat(pose.view(batch, NUM_BODY_JOINTS, 6)), shape, cam


class PartBranch(nn.Module):
    """PARE's branch from F_up to the part logits: two 3x3 convolutions and a 1x1 convolution."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.body, channels = two_convolutions(config)
        self.head = nn.Sequential(nn.Conv2d(channels, NUM_CLASSES, 1))
        self.size = config.map_size

    def forward(self, maps: EncoderFeatures) -> tuple[Tensor, Tensor]:
        """Part logits (B, 23, M, M), up-sampled bilinearly as far as needed, and features (B, C, s, s)."""
        features = self.body(maps.f_up)
        logits = self.head(features)  # (B, 23, s, s)
        if logits.shape[-1] != self.size:
            logits = F.interpolate(logits, (self.size, self.size), mode="bilinear", align_corners=False)
        return logits, features


class PARERegressor(nn.Module):
    """PARE's branch from F_up to body parameters, by the attention of the part branch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.body, channels = two_convolutions(config)
        narrow = channels // 2
        self.narrow = conv(channels, narrow, 1)  # features of shape and camera
        add_means(self, config)
        self.pose_out = MultiLinear(NUM_BODY_JOINTS, channels, 6)
        self.shape_out = nn.Linear(NUM_BODY_JOINTS * narrow, config.num_betas)
        self.cam_out = nn.Linear(NUM_BODY_JOINTS * narrow, 3)
        for last in (self.pose_out, self.shape_out, self.cam_out):  # an untrained network predicts the means
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)

    def forward(self, maps: EncoderFeatures, weights: Tensor) -> Parameters:
        """F_up and attention (B, 22, s, s) -> rotations (B, 22, 3, 3), betas (B, num_betas), camera (B, 3).

        The attention is that of `dpose.model.attention.attention_weights`.
        """
        features = self.body(maps.f_up)  # (B, C, s, s)
        weights = weights.to(features.dtype).flatten(2)  # (B, 22, s s)
        pose, rest = (
            torch.einsum("bcn,bjn->bjc", x.flatten(2), weights) for x in (features, self.narrow(features))
        )
        with torch.autocast(features.device.type, enabled=False):
            pose, rest = (x.to(self.init_pose.dtype) for x in (pose, rest.flatten(1)))
            sixd = self.init_pose.view(1, NUM_BODY_JOINTS, 6) + self.pose_out(pose)  # (B, 22, 6)
            return (
                sixd_to_rotmat(sixd),
                self.init_shape + self.shape_out(rest),
                self.init_cam + self.cam_out(rest),
            )


def two_convolutions(config: ModelConfig) -> tuple[nn.Sequential, int]:
    """Two rounds of 3x3 convolution -> BN -> ReLU from F_up to C = 4w channels, and C."""
    inp, channels = 15 * config.width, 4 * config.width
    layers: list[nn.Module] = []
    for width in (inp, channels):
        layers += [conv(width, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers), channels
