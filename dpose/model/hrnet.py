"""The encoder: HRNet ("Deep High-Resolution Representation Learning"), with up-sampling to F_up.

Up to four branches of different resolutions run in parallel and exchange features after every module. Layers
have the names of the public HRNet (conv1, layer1, transition1, ..., final_layer), so that COCO weights can be
loaded by name. S is the side of the image, s = S / 4 that of the finest branch, w `config.width`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpose.config import ModelConfig

COCO_LAYER_CHANNELS = 24  # of `final_layer`, COCO's keypoint layer: never used, but counted by the paper


class EncoderFeatures(NamedTuple):
    """The feature maps of the encoder."""

    f1: Tensor  # (B, w, s, s)
    f2: Tensor  # (B, 2w, s/2, s/2)
    f3: Tensor  # (B, 4w, s/4, s/4)
    f4: Tensor  # (B, 8w, s/8, s/8)
    f_up: Tensor | None  # (B, 15w, s, s), F1..F4 up-sampled and concatenated; None if `config.pooled`


def conv(inp: int, out: int, size: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A padded convolution: (B, inp, h, w) -> (B, out, h / stride, w / stride)."""
    return nn.Conv2d(inp, out, size, stride=stride, padding=size // 2, bias=bias)


def upsample2x(x: Tensor) -> Tensor:
    """Bilinear up-sampling with aligned corners: (B, C, h, w) -> (B, C, 2h, 2w)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def projection(inp: int, out: int) -> nn.Sequential | None:
    """The 1x1 convolution on the skip connection of a residual block; None if the width does not change."""
    return None if inp == out else nn.Sequential(conv(inp, out, 1), nn.BatchNorm2d(out))


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions: (B, inp, h, w) -> (B, out, h, w)."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inp, out, 3), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = conv(out, out, 3), nn.BatchNorm2d(out)
        self.downsample = projection(inp, out)

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)  # (B, out, h, w)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (B, out, h, w)
        return F.relu(self.bn2(self.conv2(x)).add_(skip), inplace=True)


class Bottleneck(nn.Module):
    """Residual block 1x1 -> 3x3 -> 1x1: (B, inp, h, w) -> (B, 4 width, h, w)."""

    def __init__(self, inp: int, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inp, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.downsample = projection(inp, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)  # (B, 4 width, h, w)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (B, width, h, w)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)  # (B, width, h, w)
        return F.relu(self.bn3(self.conv3(x)).add_(skip), inplace=True)  # (B, 4 width, h, w)


def down_step(inp: int, out: int, relu: bool) -> nn.Sequential:
    """3x3 convolution of stride 2 -> BN [-> ReLU]: (B, inp, h, w) -> (B, out, h/2, w/2)."""
    layers: list[nn.Module] = [conv(inp, out, 3, stride=2), nn.BatchNorm2d(out)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class HRModule(nn.Module):
    """Residual blocks on every branch, then fusion: every branch gets the sum of all at its resolution."""

    def __init__(self, widths: list[int], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(c, c) for _ in range(blocks))) for c in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._fuse_path(widths, i, j) for j in range(len(widths)))
            for i in range(len(widths))
        )

    @staticmethod
    def _fuse_path(widths: list[int], target: int, source: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:  # coarse to fine: 1x1 here, nearest-neighbour up-sampling in `forward`
            return nn.Sequential(conv(widths[source], widths[target], 1), nn.BatchNorm2d(widths[target]))
        steps = target - source  # fine to coarse: only the last step changes the width
        down = [down_step(widths[source], widths[source], relu=True) for _ in range(steps - 1)]
        return nn.Sequential(*down, down_step(widths[source], widths[target], relu=False))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Branch i: (B, widths[i], s / 2^i, s / 2^i), in and out."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for i, paths in enumerate(self.fuse_layers):
            total = maps[i]
            for j, path in enumerate(paths):
                if j == i:
                    continue
                x = path(maps[j])  # (B, widths[i], s / 2^max(i, j), s / 2^max(i, j))
                total = total + (F.interpolate(x, scale_factor=2 ** (j - i), mode="nearest") if j > i else x)
            fused.append(F.relu(total))
        return fused


def up_stack(width: int, rounds: int) -> nn.Sequential:
    """`rounds` times bilinear x2 -> 3x3 conv -> BN -> ReLU: (B, C, h, h) -> (B, C, 2^rounds h, ...)."""
    layers: list[nn.Module] = []
    for _ in range(rounds):
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        layers += [up, conv(width, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class HRNet(nn.Module):
    """Image to features at four resolutions, and all of them at the finest one (F_up)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        stem, w = config.stem_width, config.width
        widths = [w, 2 * w, 4 * w, 8 * w]
        self.conv1, self.bn1 = conv(3, stem, 3, stride=2), nn.BatchNorm2d(stem)
        self.conv2, self.bn2 = conv(stem, stem, 3, stride=2), nn.BatchNorm2d(stem)
        out = 4 * config.bottleneck_width
        self.layer1 = nn.Sequential(
            *(Bottleneck(stem if i == 0 else out, config.bottleneck_width) for i in range(config.bottlenecks))
        )
        first = nn.Sequential(conv(out, widths[0], 3), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        self.transition1 = nn.ModuleList([first, nn.Sequential(down_step(out, widths[1], relu=True))])
        self.stage2 = self._stage(widths[:2], config.modules[0], config.blocks)
        self.transition2 = self._new_branch(widths[:3])
        self.stage3 = self._stage(widths[:3], config.modules[1], config.blocks)
        self.transition3 = self._new_branch(widths)
        self.stage4 = self._stage(widths, config.modules[2], config.blocks)
        self.final_layer = nn.Conv2d(w, COCO_LAYER_CHANNELS, 1)
        self.pooled = config.pooled
        if not config.pooled:
            self.upsample_stage_2 = up_stack(widths[1], rounds=1)
            self.upsample_stage_3 = up_stack(widths[2], rounds=2)
            self.upsample_stage_4 = up_stack(widths[3], rounds=3)

    @staticmethod
    def _stage(widths: list[int], modules: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(*(HRModule(widths, blocks) for _ in range(modules)))

    @staticmethod
    def _new_branch(widths: list[int]) -> nn.ModuleList:
        """The last entry starts a new branch from the coarsest existing one; the others are identities."""
        old = [nn.Identity() for _ in widths[:-1]]
        return nn.ModuleList([*old, nn.Sequential(down_step(widths[-2], widths[-1], relu=True))])

    def forward(self, image: Tensor) -> EncoderFeatures:
        """image: (B, 3, S, S) RGB, ImageNet-normalised."""
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)  # (B, stem, S/2, S/2)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)  # (B, stem, s, s)
        x = self.layer1(x)  # (B, 4 bottleneck_width, s, s)
        maps = self.stage2([path(x) for path in self.transition1])  # branches of s and s/2
        maps = self.stage3([*maps, self.transition2[-1](maps[-1])])  # s, s/2 and s/4
        f1, f2, f3, f4 = self.stage4([*maps, self.transition3[-1](maps[-1])])  # s, s/2, s/4 and s/8
        if self.pooled:
            return EncoderFeatures(f1, f2, f3, f4, None)
        up = [f1, self.upsample_stage_2(f2), self.upsample_stage_3(f3), self.upsample_stage_4(f4)]
        return EncoderFeatures(f1, f2, f3, f4, torch.cat(up, 1))  # f_up: (B, w + 2w + 4w + 8w, s, s)
