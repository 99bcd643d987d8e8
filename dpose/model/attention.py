"""Soft attention (eq. 5): the segmentation map of each part weights the features of that joint.

A = softmax(S) F_up^T. The softmax runs over positions: each part has a distribution over the map, and the
feature of its joint is the mean of F_up under this distribution. There are no queries and keys. With
`config.attention` off the distribution is uniform.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpose.config import ModelConfig


def attention_weights(logits: Tensor, size: int) -> Tensor:
    """(B, 23, M, M) part logits -> (B, 22, size, size): averaged to that size, softmax over the positions."""
    pool = logits.shape[-1] // size
    pooled = F.avg_pool2d(logits, pool) if pool > 1 else logits  # (B, 23, s, s)
    parts = pooled[:, 1:].float()  # (B, 22, s, s), without the background
    return parts.flatten(2).softmax(-1).view_as(parts)  # (B, 22, s, s)


class SoftAttention(nn.Module):
    """Part logits and F_up to one feature vector per joint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = 15 * config.width
        self.feature_size, self.on = config.feature_size, config.attention
        self.conv_pose = nn.Conv1d(channels, channels, 1)  # in the released code, but not in eq. 5
        self.conv_shape_cam = nn.Conv1d(channels, channels, 1)  # in the released checkpoint, but never used

    def weights(self, logits: Tensor) -> Tensor:
        """(B, 23, M, M) part logits -> (B, 22, s, s) weights, float32; those of each joint sum to one."""
        return attention_weights(logits if self.on else torch.zeros_like(logits), self.feature_size)

    def forward(self, f_up: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Average the features of each joint under its attention weights.

        Args:
            f_up: (B, 15w, s, s) encoder features.
            logits: (B, 23, M, M) part logits, background first.
        Returns:
            A (B, 15w, 22), and the attention weights (B, 22, s, s).
        """
        weights = self.weights(logits)  # (B, 22, s, s)
        flat = weights.flatten(2).to(f_up.dtype)  # (B, 22, s s)
        attended = torch.einsum("bcn,bjn->bcj", f_up.flatten(2), flat)  # (B, 15w, 22)
        return self.conv_pose(attended), weights
