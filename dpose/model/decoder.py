"""The decoder of the depth map and of the part segmentation (eqs. 7-10).

A light U-Net: skip connections from the encoder's maps lead from the coarsest to the finest one, which gives
the features D; up-scaling blocks then lead to the output maps. Depth and parts have one decoder each, which
differ in the number of output channels only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpose.config import ModelConfig
from dpose.model.hrnet import BasicBlock, EncoderFeatures, conv, upsample2x


class UpFuse(nn.Module):
    """Up-sample the coarse map (eq. 7), concatenate the skip connection (eq. 8), refine (eq. 9).

    The paper up-samples before the 1x1 convolution, the released code after it; this class does the latter.

    Args:
        coarse: channels of the coarse map.
        fine: channels of the fine map, and of the result.
        blocks: residual blocks of the refinement.
    """

    def __init__(self, coarse: int, fine: int, blocks: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(conv(coarse, fine, 1), nn.BatchNorm2d(fine), nn.ReLU(inplace=True))
        self.refine = nn.Sequential(*(BasicBlock(2 * fine if i == 0 else fine, fine) for i in range(blocks)))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Maps (B, coarse, h, w) and (B, fine, 2h, 2w) -> (B, fine, 2h, 2w)."""
        x = upsample2x(self.reduce(coarse))  # (B, fine, 2h, 2w)
        return self.refine(torch.cat([x, fine], 1))  # (B, 2 fine, 2h, 2w) -> (B, fine, 2h, 2w)


class UpScale(nn.Module):
    """Doubles the resolution: bilinear x2 -> (ReLU) -> 3x3 conv -> BN -> ReLU, same number of channels.

    The ReLU in brackets is in the released code. It is left out, because it changes nothing: its input is an
    average of outputs of a ReLU.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.bn = conv(width, width, 3, bias=True), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, w, h, h) -> (B, w, 2h, 2h)."""
        return F.relu(self.bn(self.conv(upsample2x(x))), inplace=True)


class Decoder(nn.Module):
    """F1..F4 to output maps (B, channels, M, M), before sigmoid or softmax, and features D (B, w, s, s).

    Args:
        config: width w, side M of the maps, side s of the features (`feature_size`), number of blocks.
        channels: of the output map: 1 for depth, 23 for parts.
    """

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
        features = self.fuse_2_to_1(x, maps.f1)  # (B, w, s, s), D
        x = self.upscale(features)  # (B, w, M, M)
        return self.head(x), features  # (B, channels, M, M), (B, w, s, s)
