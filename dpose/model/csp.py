"""A small backbone trained on photographs: NanoDet-g's CSPNet (weights: COCO, object detection).

25 plain convolutions with bias (batch norms folded in), LeakyReLU 0.1. Each of the four stages is a
cross-stage-partial block: an entry convolution, pairs of 3x3 convolutions whose outputs are concatenated, a
closing convolution, and a skip connection from entry to exit. `NanoDet` adds the neck and heads that turn the
maps into boxes. The weights are in `dpose/assets/nanodet.safetensors`, made by scripts/build_nanodet.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CSP_CHANNELS = (64, 128, 256, 512)  # of the four levels, at strides 4, 8, 16, 32
STAGES = ((32, 1), (64, 2), (128, 2), (256, 3))  # channels of the entry convolution, number of pairs
NUM_LABELS, NUM_BINS = 80, 11  # COCO classes; bins of the distance from a cell to a side of its box


def _conv(inp: int, out: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inp, out, size, stride, size // 2)


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1, inplace=True)


class CSPStage(nn.Module):
    """One level: (B, inp, h, w) -> (B, 2c, h / stride, w / stride)."""

    def __init__(self, inp: int, channels: int, pairs: int, stride: int) -> None:
        super().__init__()
        c = channels
        self.entry = _conv(inp, c, stride=stride)
        self.pairs = nn.ModuleList(
            nn.ModuleList([_conv(c, c // 2), _conv(c // 2, c // 2)]) for _ in range(pairs)
        )
        self.exit = _conv(c, c)

    def forward(self, x: Tensor) -> Tensor:
        entry = x = _activate(self.entry(x))  # (B, c, h, w)
        for first, second in self.pairs:
            half = _activate(first(x))  # (B, c/2, h, w)
            x = torch.cat([_activate(second(half)), half], 1)  # (B, c, h, w)
        return torch.cat([_activate(self.exit(x)), entry], 1)  # (B, 2c, h, w)


class CSPNet(nn.Module):
    """RGB crop (B, 3, S, S), ImageNet-normalised, to four maps (B, `CSP_CHANNELS[i]`, S / 4, ...), ..."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 32, stride=2)
        inputs = (32, *CSP_CHANNELS)
        self.stages = nn.ModuleList(
            CSPStage(inp, channels, pairs, stride=1 if i == 0 else 2)
            for i, (inp, (channels, pairs)) in enumerate(zip(inputs, STAGES, strict=False))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        x = _activate(self.stem(image.flip(1)))  # trained on BGR: (B, 32, S/2, S/2)
        x = F.max_pool2d(x, 3, 2, 1)  # (B, 32, S/4, S/4)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


class NanoDet(nn.Module):
    """The whole detector: class scores and box sides per cell of three grids, at strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = CSPNet()
        self.lateral = nn.ModuleList(_conv(channels, 128, 1) for channels in CSP_CHANNELS[1:])
        self.heads = nn.ModuleList(
            nn.ModuleList([_conv(128, 128), _conv(128, NUM_LABELS + 4 * NUM_BINS, 1)]) for _ in range(3)
        )

    def forward(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Image (B, 3, H, W), normalised RGB -> per grid scores (B, h w, 80) and bin logits (B, h w, 44)."""
        c3, c4, c5 = (layer(x) for layer, x in zip(self.lateral, self.backbone(image)[1:], strict=True))
        p4 = c4 + _resize(c5, c4)  # top-down
        p3 = c3 + _resize(p4, c3)
        n4 = p4 + _resize(p3, p4)  # and bottom-up again
        n5 = c5 + _resize(n4, c5)
        outputs = []
        for (first, last), x in zip(self.heads, (p3, n4, n5), strict=True):
            cells = last(_activate(first(x))).flatten(2).transpose(1, 2)  # (B, h w, 124)
            scores, bins = cells.split([NUM_LABELS, 4 * NUM_BINS], -1)
            outputs.append((scores.sigmoid(), bins))
        return outputs


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def convolutions(model: NanoDet) -> list[nn.Conv2d]:
    """The 34 convolutions in the order of the original graph."""
    backbone = model.backbone
    layers = [backbone.stem]
    for stage in backbone.stages:
        layers += [stage.entry, *(conv for pair in stage.pairs for conv in pair), stage.exit]
    return [*layers, *model.lateral, *(conv for head in model.heads for conv in head)]
