"""A small backbone trained on people in photographs: MoveNet Lightning, a network of 17 keypoints.

MobileNetV2 (batch norms folded into biases), a feature pyramid, and the head of MoveNet's 17 keypoint
heatmaps. The weights are in `dpose/assets/movenet.safetensors`, made by scripts/build_movenet.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_KEYPOINTS = 17  # COCO's, from the nose to the right ankle
MOVENET_CHANNELS = (24 + 24 + NUM_KEYPOINTS, 32 + 24, 96 + 32, 1280)  # of the four levels
# Output channels, number and first stride of MobileNetV2's groups of blocks.
GROUPS = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
LAST_OF = {4: 2, 8: 5, 16: 9}  # block whose output enters the pyramid, by stride
DEEPEST_16 = 12  # the last block of stride 16
HEATMAP_SCALE = 0.1  # brings the heatmaps' logits to the size of the other features


class Conv(nn.Conv2d):
    """A convolution padded as in TensorFlow: with stride 2, a row below and a column to the right only."""

    def __init__(self, inp: int, out: int, size: int = 1, stride: int = 1, depthwise: bool = False) -> None:
        padding = size // 2 if stride == 1 else 0
        super().__init__(inp, out, size, stride, padding, groups=inp if depthwise else 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)) if self.stride[0] == 2 else x)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: (B, inp, h, w) -> (B, out, h / stride, w / stride)."""

    def __init__(self, inp: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inp * expansion
        self.expand = Conv(inp, inner) if expansion > 1 else None
        self.depthwise = Conv(inner, inner, 3, stride, depthwise=True)
        self.project = Conv(inner, out)
        self.has_skip = stride == 1 and inp == out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.has_skip else y


class Separable(nn.Module):
    """Depthwise 3x3 convolution without bias, 1x1 convolution, ReLU: (B, inp, h, w) -> (B, out, h, w)."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inp, inp, 3, padding=1, groups=inp, bias=False)
        self.pointwise = Conv(inp, out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(self.depthwise(x)), inplace=True)


class MoveNet(nn.Module):
    """RGB crop (B, 3, S, S), ImageNet-normalised, to four maps (B, `MOVENET_CHANNELS[i]`, S / 4, ...), ...

    Each level has the backbone's and the pyramid's features of its stride, the finest also the keypoint
    heatmaps. S is a multiple of 32; the original's is 192.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 32, 3, stride=2)
        blocks, inp = [], 32
        for group, (out, count, stride) in enumerate(GROUPS):
            for i in range(count):
                blocks.append(InvertedResidual(inp, out, stride if i == 0 else 1, 6 if group else 1))
                inp = out
        self.blocks = nn.ModuleList(blocks)
        self.last = Conv(inp, MOVENET_CHANNELS[3])
        self.lateral = nn.ModuleList(
            [Conv(MOVENET_CHANNELS[3], 64), Conv(64, 64), Conv(32, 32), Conv(24, 24)]
        )
        self.fuse = nn.ModuleList([Separable(64, 32), Separable(32, 24), Separable(24, 24)])
        self.heatmaps = nn.Sequential(Separable(24, 96), Conv(96, NUM_KEYPOINTS))
        # From ImageNet's normalisation to pixels in -1..1.
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("scale", (2 * std)[:, None, None])
        self.register_buffer("shift", (2 * mean - 1)[:, None, None])

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(image * self.scale + self.shift), inplace=True)  # (B, 32, S/2, S/2)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        c4, c8, c16 = (outputs[LAST_OF[stride]] for stride in (4, 8, 16))
        c32 = F.relu6(self.last(x), inplace=True)  # (B, 1280, S/32, S/32)
        p16 = self.fuse[0](_double(self.lateral[0](c32)) + self.lateral[1](c16))  # (B, 32, S/16, S/16)
        p8 = self.fuse[1](_double(p16) + self.lateral[2](c8))  # (B, 24, S/8, S/8)
        p4 = self.fuse[2](_double(p8) + self.lateral[3](c4))  # (B, 24, S/4, S/4)
        heatmaps = self.heatmaps(p4) * HEATMAP_SCALE  # (B, 17, S/4, S/4)
        return [
            torch.cat([c4, p4, heatmaps], 1),
            torch.cat([c8, p8], 1),
            torch.cat([outputs[DEEPEST_16], p16], 1),
            c32,
        ]


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def convolutions(model: MoveNet) -> list[nn.Conv2d]:
    """All convolutions in the order of the original graph; each `Separable` gives two."""
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
