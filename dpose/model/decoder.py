"""The decoder that both the depth map and the part segmentation use (eqs. 7-10).

A light U-Net from the encoder's coarsest map up to its finest, giving the features D, then up-scaling to the
output maps. Depth and parts own one decoder each; they differ in the number of output channels only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpose.config import ModelConfig
from dpose.model.hrnet import BasicBlock, EncoderFeatures, conv, upsample2x

__all__ = ["Decoder"]


class UpFuse(nn.Module):
    """Bring the coarse map up (eq. 7), join the encoder's (eq. 8), refine (eq. 9).

    The paper's text up-samples before the 1x1 convolution, the released code after it: here, after.
    """

    def __init__(self, coarse: int, fine: int, blocks: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(conv(coarse, fine, 1), nn.BatchNorm2d(fine), nn.ReLU(inplace=True))
        self.refine = nn.Sequential(*(BasicBlock(2 * fine if i == 0 else fine, fine) for i in range(blocks)))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self.refine(torch.cat([upsample2x(self.reduce(coarse)), fine], 1))


class UpScale(nn.Module):
    """One doubling of the output maps: bilinear x2 -> (ReLU) -> 3x3 conv -> BN -> ReLU, width kept.

    The bracketed ReLU is the released code's. It is left out because it does nothing: its input is an average
    of a ReLU's outputs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.bn = conv(width, width, 3, bias=True), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(upsample2x(x))), inplace=True)


class Decoder(nn.Module):
    """F1..F4 -> output maps (B, channels, M, M) and features D (B, w, s, s); no sigmoid or softmax yet."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        w = config.width
        self.fuse_4_to_3 = UpFuse(8 * w, 4 * w, config.decoder_blocks)
        self.fuse_3_to_2 = UpFuse(4 * w, 2 * w, config.decoder_blocks)
        self.fuse_2_to_1 = UpFuse(2 * w, w, config.decoder_blocks)
        doublings = (config.map_size // config.feature_size).bit_length() - 1
        self.upscale = nn.Sequential(*(UpScale(w) for _ in range(doublings)))
        self.head = nn.Sequential(
            conv(w, w, 3, bias=True), nn.BatchNorm2d(w), nn.ReLU(inplace=True), nn.Conv2d(w, channels, 1)
        )

    def forward(self, maps: EncoderFeatures) -> tuple[Tensor, Tensor]:
        x = self.fuse_4_to_3(maps.f4, maps.f3)  # (B, 4w, s/4, s/4)
        x = self.fuse_3_to_2(x, maps.f2)  # (B, 2w, s/2, s/2)
        features = self.fuse_2_to_1(x, maps.f1)  # (B, w, s, s), D in the paper
        return self.head(self.upscale(features)), features
