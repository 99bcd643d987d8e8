"""The encoders: HRNet (the paper's), or a small backbone pretrained on photographs.

`PretrainedEncoder` brings the four levels of a backbone to the widths w, 2w, 4w, 8w of HRNet's branches, so
that decoders, attention and regressor are the same for every encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dpose.config import ModelConfig
from dpose.model import csp, movenet
from dpose.model.hrnet import EncoderFeatures, HRNet, conv, up_stack


class Backbone(NamedTuple):
    """A network from images to maps at strides 4, 8, 16 and 32, and its shipped weights."""

    build: Callable[[], nn.Module]
    channels: Sequence[int]
    asset: str  # file in `ASSETS`
    prefix: str = ""  # of the backbone's weights in the file

    def weights(self) -> dict[str, Tensor]:
        """The shipped weights, float32, by name."""
        n, tensors = len(self.prefix), load_file(ASSETS / self.asset)
        return {name[n:]: x.float() for name, x in tensors.items() if name.startswith(self.prefix)}


ASSETS = Path(str(files("dpose") / "assets"))
BACKBONES = {
    "movenet": Backbone(movenet.MoveNet, movenet.MOVENET_CHANNELS, "movenet.safetensors"),
    "nanodet": Backbone(csp.CSPNet, csp.CSP_CHANNELS, "nanodet.safetensors", "backbone."),
}


class PretrainedEncoder(nn.Module):
    """A backbone of `BACKBONES`, a 1x1 convolution per level, and HRNet's up-sampling to F_up.

    The convolutions also get each pixel's place in the crop, so that a feature pooled over a part can tell
    where the part is. The backbone's weights are random until `load_pretrained`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.name = config.encoder
        self.backbone = BACKBONES[config.encoder].build()
        widths = [config.width * 2**i for i in range(4)]
        self.adapters = nn.ModuleList(
            nn.Sequential(conv(channels + 2, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            for channels, width in zip(BACKBONES[config.encoder].channels, widths, strict=True)
        )
        up = [] if config.pooled else enumerate(widths)
        self.upsample = nn.ModuleList(up_stack(width, i) for i, width in up)

    def forward(self, image: Tensor) -> EncoderFeatures:
        """image: (B, 3, S, S) RGB, ImageNet-normalised."""
        levels = [torch.cat([x, _coordinates(x)], 1) for x in self.backbone(image)]
        maps = [adapt(x) for adapt, x in zip(self.adapters, levels, strict=True)]  # F1..F4
        if not self.upsample:
            return EncoderFeatures(*maps, None)
        up = [upsample(x) for upsample, x in zip(self.upsample, maps, strict=True)]
        return EncoderFeatures(*maps, torch.cat(up, 1))

    def load_pretrained(self) -> None:
        """Fill the backbone with its shipped weights."""
        self.backbone.load_state_dict(BACKBONES[self.name].weights())


def _coordinates(x: Tensor) -> Tensor:
    """Places of the pixels of a map (B, C, h, w): (B, 2, h, w), x and y from -1 to 1 at the crop's edges."""
    h, w = x.shape[2:]
    across, down = ((torch.arange(n, device=x.device, dtype=x.dtype) * 2 + 1) / n - 1 for n in (w, h))
    return torch.stack([across.expand(h, w), down[:, None].expand(h, w)]).expand(x.shape[0], -1, -1, -1)


def make_encoder(config: ModelConfig) -> HRNet | PretrainedEncoder:
    """The encoder that a configuration names, with random weights."""
    return HRNet(config) if config.encoder == "hrnet" else PretrainedEncoder(config)
