"""The regressor: attended features to SMPL-X pose, shape and camera, as residuals on their means.

One step without iteration: every output is mean + f(mean, features). Each joint has its own linear layers
(`MultiLinear`); shape and camera take the features of all joints. Runs in float32 under autocast, too, since
rotations are orthonormalised here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpose.config import ModelConfig
from dpose.rotations import rotmat_to_sixd, sixd_to_rotmat
from dpose.skeleton import NUM_BODY_JOINTS


def rest_pose() -> Tensor:
    """(132,) 6D pose of the T-pose, upright and facing the camera: the root turns by pi about x."""
    rotmats = torch.eye(3).repeat(NUM_BODY_JOINTS, 1, 1)
    rotmats[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    return rotmat_to_sixd(rotmats).flatten()


def add_means(module: nn.Module, config: ModelConfig) -> None:
    """Add the buffers of the mean parameters, to which a regressor adds its outputs (`DPose.set_means`)."""
    module.register_buffer("init_pose", rest_pose())  # (132,)
    module.register_buffer("init_shape", torch.zeros(config.num_betas))  # (11,)
    module.register_buffer("init_cam", torch.tensor([0.9, 0.0, 0.0]))  # (3,)


class MultiLinear(nn.Module):
    """K linear layers in parallel, one per head: (B, K, inp) -> (B, K, out)."""

    def __init__(self, heads: int, inp: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, out, inp))
        self.bias = nn.Parameter(torch.empty(heads, out))
        bound = 1 / math.sqrt(inp)  # as in nn.Linear
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("kij,bkj->bki", self.weight, x) + self.bias  # (B, K, out)


class Regressor(nn.Module):
    """Features of 22 joints to rotations, betas and weak-perspective camera."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        feature = 15 * config.width + 3 + (config.width if config.depth else 0)  # per joint
        hidden, betas = config.hidden, config.num_betas
        add_means(self, config)
        self.pose_hidden = MultiLinear(NUM_BODY_JOINTS, 6 + feature, hidden)
        self.pose_out = MultiLinear(NUM_BODY_JOINTS, hidden, 6)
        self.shape_hidden = nn.Linear(betas + NUM_BODY_JOINTS * feature, hidden)
        self.shape_out = nn.Linear(hidden, betas)
        self.cam_hidden = nn.Linear(3 + NUM_BODY_JOINTS * feature, hidden)
        self.cam_out = nn.Linear(hidden, 3)
        for last in (self.pose_out, self.shape_out, self.cam_out):  # an untrained network predicts the means
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)

    def forward(
        self, attended: Tensor, bbox_info: Tensor, depth_feature: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Regress the body parameters.

        Args:
            attended: (B, 15w, 22) A of the soft attention.
            bbox_info: (B, 3) box information of CLIFF.
            depth_feature: (B, w) global average of D; None for a network without depth.
        Returns:
            rotmats (B, 22, 3, 3), betas (B, num_betas), cam (B, 3) = (s, tx, ty); float32.
        """
        with torch.autocast(attended.device.type, enabled=False):
            dtype = self.init_pose.dtype
            batch = attended.shape[0]
            shared = bbox_info  # (B, 3)
            if depth_feature is not None:
                shared = torch.cat([bbox_info, depth_feature.to(bbox_info.dtype)], 1)  # (B, 3 + w)
            shared = shared.to(dtype)[:, None].expand(batch, NUM_BODY_JOINTS, -1)  # (B, 22, 3 [+ w])
            feature = torch.cat([attended.transpose(1, 2).to(dtype), shared], 2)  # (B, 22, 15w + 3 [+ w])
            flat = feature.flatten(1)  # (B, 22 (15w + 3 [+ w]))

            pose = self.init_pose.view(1, NUM_BODY_JOINTS, 6).expand(batch, -1, -1)  # (B, 22, 6)
            shape = self.init_shape.expand(batch, -1)  # (B, num_betas)
            cam = self.init_cam.expand(batch, -1)  # (B, 3)
            pose = pose + self.pose_out(F.relu(self.pose_hidden(torch.cat([pose, feature], 2))))  # (B, 22, 6)
            shape = shape + self.shape_out(F.relu(self.shape_hidden(torch.cat([shape, flat], 1))))
            cam = cam + self.cam_out(F.relu(self.cam_hidden(torch.cat([cam, flat], 1))))
            return sixd_to_rotmat(pose), shape, cam  # (B, 22, 3, 3), (B, num_betas), (B, 3)
