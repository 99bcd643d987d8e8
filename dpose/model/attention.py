"""Soft attention (eq. 5): each part's segmentation map says where that joint's features are read.

A = softmax(S) F_up^T: the softmax runs over positions, so every part has a distribution over the map, and its
feature is the mean of F_up under it. Not a transformer: no queries, no keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpose.config import ModelConfig

__all__ = ["SoftAttention"]


class SoftAttention(nn.Module):
    """Part logits and F_up to one feature vector a joint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = 15 * config.width
        self.feature_size = config.feature_size
        self.conv_pose = nn.Conv1d(channels, channels, 1)  # eq. 5 lacks it, the released code has it
        self.conv_shape_cam = nn.Conv1d(channels, channels, 1)  # in the released checkpoint, never reached

    def weights(self, logits: Tensor) -> Tensor:
        """Where each part looks: (B, 23, M, M) logits -> (B, 22, s, s), each map sums to one; float32."""
        pool = logits.shape[-1] // self.feature_size
        pooled = F.avg_pool2d(logits, pool) if pool > 1 else logits
        parts = pooled[:, 1:].float()  # the background has no joint
        return parts.flatten(2).softmax(-1).view_as(parts)

    def forward(self, f_up: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Read features where the parts are.

        Args:
            f_up: (B, 15w, s, s) encoder features.
            logits: (B, 23, M, M) part logits, background first.
        Returns:
            A (B, 15w, 22), and the attention weights (B, 22, s, s).
        """
        weights = self.weights(logits)
        attended = torch.einsum("bcn,bjn->bcj", f_up.flatten(2), weights.flatten(2).to(f_up.dtype))
        return self.conv_pose(attended), weights
