"""HMR2.0 and TokenHMR, the two transformers of the paper's Table 2, to count their parameters and work.

Not for inference: there are no weights for these modules, and their layers have other names than in the
published networks. Layers, widths and order are those of the code that the authors of HMR2.0 ("Humans in
4D", 2023) and TokenHMR (2024) have published. Both have a ViT-H/16 encoder that sees 256x192 pixels, the
middle of a 256x256 crop, and a transformer decoder with a single query. Build them on the meta device, which
takes no memory: `dpose.model.size` does so, and counts.

What the published numbers include, found by counting:

- HMR2.0, 672 million: `HMR2` has 670,459,037 parameters. The discriminator, which only training uses, adds
  1,807,619 (`discriminator`).
- TokenHMR, 681 million: `TokenHMR` has 687,636,837 parameters. The frozen decoder of the pose tokenizer,
  which every prediction uses, has 6,436,870 of them; the published code does not register it as a submodule.

The sums are 672.27 and 681.20 million; the published numbers are whole millions, as in Lightning's summary
of a network. The body model is not counted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGE_SIZE = (256, 192)  # height, width
BETAS, CAMERA, JOINTS = 10, 3, 24  # of SMPL, the root included


class Attention(nn.Module):
    """Multi-head attention of x (B, N, dim) over a context (B, M, context_dim) -> (B, N, dim)."""

    def __init__(self, dim: int, context_dim: int, inner: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, inner, bias=bias)
        self.key_value = nn.Linear(context_dim, 2 * inner, bias=bias)
        self.out = nn.Linear(inner, dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        parts = self.query(x), *self.key_value(context).chunk(2, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)  # (B, heads, N, M)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Pre-norm transformer layer: self-attention, attention over a context if there is one, and an MLP."""

    def __init__(
        self, dim: int, inner: int, heads: int, hidden: int, bias: bool, context_dim: int | None = None
    ) -> None:
        super().__init__()
        self.self_attention = Attention(dim, dim, inner, heads, bias)
        self.self_norm = nn.LayerNorm(dim)
        if context_dim is not None:
            self.cross_attention = Attention(dim, context_dim, inner, heads, bias)
            self.cross_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), *mlp(dim, hidden))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        normed = self.self_norm(x)
        x = x + self.self_attention(normed, normed)
        if context is not None:
            x = x + self.cross_attention(self.cross_norm(x), context)
        return x + self.mlp(x)


def mlp(dim: int, hidden: int) -> nn.Sequential:
    """The two linear layers of a transformer's or mixer's MLP."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class ViTH(nn.Module):
    """ViT-H/16 as ViTPose trains it: (B, 3, 256, 192) -> 16 x 12 tokens (B, 192, 1280).

    The position embedding has a 193rd entry for a class token that does not exist; it is added to all.
    """

    dim, depth, heads, patch = 1280, 32, 16, 16

    def __init__(self) -> None:
        super().__init__()
        tokens = IMAGE_SIZE[0] * IMAGE_SIZE[1] // self.patch**2
        self.embed = nn.Conv2d(3, self.dim, self.patch, self.patch, padding=2)
        self.position = nn.Parameter(torch.zeros(1, 1 + tokens, self.dim))
        layer = (self.dim, self.dim, self.heads, 4 * self.dim)
        self.layers = nn.Sequential(*(Layer(*layer, bias=True) for _ in range(self.depth)))
        self.norm = nn.LayerNorm(self.dim)

    def forward(self, image: Tensor) -> Tensor:
        x = self.embed(image).flatten(2).transpose(1, 2)
        return self.norm(self.layers(x + self.position[:, 1:] + self.position[:, :1]))


class QueryDecoder(nn.Module):
    """Six layers in which one query attends to the image's tokens: (B, 192, 1280) -> (B, 1024)."""

    dim, depth, heads, inner = 1024, 6, 8, 512

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, self.dim)  # the query is the embedding of a zero
        self.position = nn.Parameter(torch.zeros(1, 1, self.dim))
        layer = (self.dim, self.inner, self.heads, self.dim)
        self.layers = nn.ModuleList(
            Layer(*layer, bias=False, context_dim=ViTH.dim) for _ in range(self.depth)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens.new_zeros(len(tokens), 1, 1)) + self.position
        for layer in self.layers:
            x = layer(x, tokens)
        return x[:, 0]


class HMR2(nn.Module):
    """HMR2.0: (B, 3, 256, 192) -> 6D rotations (B, 144), betas (B, 10), camera (B, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ViTH()
        self.decoder = QueryDecoder()
        self.heads = nn.ModuleList(nn.Linear(self.decoder.dim, n) for n in (6 * JOINTS, BETAS, CAMERA))
        register_means(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.decoder(self.encoder(image))
        pose, betas, cam = (head(x) for head in self.heads)
        return pose + self.mean_pose, betas + self.mean_betas, cam + self.mean_cam


class TokenHMR(nn.Module):
    """TokenHMR: as HMR2.0, with the 21 body joints decoded from 160 tokens out of a codebook of 2,048.

    Root, two hands, betas and camera are regressed from the decoder's output, as in HMR2.0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ViTH()
        self.decoder = QueryDecoder()
        self.heads = nn.ModuleList(nn.Linear(self.decoder.dim, n) for n in (6, 12, BETAS, CAMERA))
        self.classifier = TokenClassifier(self.decoder.dim)
        self.tokenizer = TokenDecoder()
        register_means(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.decoder(self.encoder(image))
        root, hands, betas, cam = (head(x) for head in self.heads)
        pose = torch.cat([root, self.tokenizer(self.classifier(x)).flatten(1), hands], 1)  # (B, 144)
        return pose + self.mean_pose, betas + self.mean_betas, cam + self.mean_cam


class MixerLayer(nn.Module):
    """MLP-mixer layer on (B, tokens, dim): an MLP across the tokens, then one across the channels."""

    def __init__(self, tokens: int, dim: int, token_hidden: int, hidden: int) -> None:
        super().__init__()
        self.token_norm, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token_mlp, self.mlp = mlp(tokens, token_hidden), mlp(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token_mlp(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mlp(self.norm(x))


class TokenClassifier(nn.Module):
    """Probabilities of TokenHMR's pose tokens: (B, dim) -> (B, 160, 2048)."""

    tokens, classes, width = 160, 2048, 64

    def __init__(self, dim: int) -> None:
        super().__init__()
        flat = self.tokens * self.width
        self.expand = nn.Sequential(nn.Linear(dim, flat), nn.LayerNorm(flat), nn.ReLU())
        mixers = (MixerLayer(self.tokens, self.width, 64, 256) for _ in range(4))
        last = nn.Linear(self.width, self.width), nn.LayerNorm(self.width), nn.ReLU()
        self.mixers = nn.Sequential(*mixers, *last)
        self.classify = nn.Linear(self.width, self.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(x).unflatten(1, (self.tokens, self.width))
        return self.classify(self.mixers(x)).softmax(-1)


class TokenDecoder(nn.Module):
    """Codebook and frozen decoder of the pose tokenizer, a VQ-VAE: (B, 160, 2048) -> 6D (B, 21, 6)."""

    width, code = 512, 256

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.zeros(TokenClassifier.classes, self.code))
        layers = [nn.Conv1d(self.code, self.width, 3, padding=1), nn.ReLU()]
        for length in (125, 90, 55, 21):  # from 160 tokens to 21 joints
            layers += [nn.Upsample(length), nn.Conv1d(self.width, self.width, 3, padding=1), nn.ReLU()]
        layers += [DilatedBlock(self.width, 3), DilatedBlock(self.width, 1)]
        layers += [nn.Conv1d(self.width, out, 3, padding=1) for out in (self.width, 6)]
        self.layers = nn.Sequential(*layers)

    def forward(self, probabilities: Tensor) -> Tensor:
        return self.layers((probabilities @ self.codebook).transpose(1, 2)).transpose(1, 2)


class DilatedBlock(nn.Module):
    """Residual block of the tokenizer's decoder on (B, width, length)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        wide = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.layers = nn.Sequential(nn.ReLU(), wide, nn.ReLU(), nn.Conv1d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def discriminator() -> nn.ModuleList:
    """Layers of HMR2.0's discriminator of rotation matrices (23 x 9) and betas, which only training uses."""
    joints = JOINTS - 1
    each = [nn.Linear(9, 32), nn.Linear(32, 32), *(nn.Linear(32, 1) for _ in range(joints))]
    shape = [nn.Linear(BETAS, 10), nn.Linear(10, 5), nn.Linear(5, 1)]
    together = [nn.Linear(32 * joints, 1024), nn.Linear(1024, 1024), nn.Linear(1024, 1)]
    return nn.ModuleList([*each, *shape, *together])


def register_means(network: nn.Module) -> None:
    """The mean parameters that both networks add to their outputs, as buffers."""
    for name, size in (("mean_pose", 6 * JOINTS), ("mean_betas", BETAS), ("mean_cam", CAMERA)):
        network.register_buffer(name, torch.zeros(1, size))
