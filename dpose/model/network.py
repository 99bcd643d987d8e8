"""The whole network: image crop and box information to body parameters, depth map and part segmentation.

    image -> encoder -> F1..F4 -> depth decoder -> depth map, D
                     |         -> parts decoder -> part logits S
                     -> F_up, S -> soft attention -> A (one feature vector per joint)
    A, box information, mean(D) -> regressor -> rotations, betas, camera

The heads of other methods take the place of what follows the encoder (`dpose.model.heads`).

The network predicts parameters and maps. `dpose.body` turns the parameters into vertices and joints,
`dpose.camera` projects them.

Shapes in this package: B samples, image side S (`config.image_size`), finest feature map s = S / 4, output
maps M (`config.map_size`), encoder width w (`config.width`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dpose.batch import Prediction
from dpose.config import ModelConfig
from dpose.model.attention import SoftAttention, attention_weights
from dpose.model.decoder import Decoder
from dpose.model.encoder import make_encoder
from dpose.model.heads import IterativeRegressor, PARERegressor, PartBranch
from dpose.model.hrnet import EncoderFeatures
from dpose.model.regressor import Regressor
from dpose.skeleton import NUM_CLASSES


class Features(NamedTuple):
    """Intermediate results of a forward pass, for inspection and figures; not normalised."""

    f1: Tensor  # (B, w, s, s) encoder, finest branch
    f2: Tensor  # (B, 2w, s/2, s/2)
    f3: Tensor  # (B, 4w, s/4, s/4)
    f4: Tensor  # (B, 8w, s/8, s/8)
    f_up: Tensor | None  # (B, 15w, s, s) F1..F4 up-sampled and concatenated
    depth_features: Tensor | None  # (B, w, s, s) D of the depth decoder; None without depth
    parts_features: Tensor | None  # (B, w, s, s) the same features of the parts decoder
    attention: Tensor | None  # (B, 22, s, s) attention weights of each joint's head; each map sums to one
    attended: Tensor | None  # (B, 15w, 22) A, the regressor's features of each joint


class DPose(nn.Module):
    """The network of the size and with the branches that `config` describes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.body_record: dict[str, str] | None = None  # set by `checkpoint.read` and training
        self.encoder = make_encoder(config)
        self.depth_decoder = self.parts_decoder = self.attention = None
        if config.head == "dpose":
            self.depth_decoder = Decoder(config, channels=1) if config.depth else None
            self.parts_decoder = Decoder(config, channels=NUM_CLASSES)
            self.attention = SoftAttention(config)
            self.regressor = Regressor(config)
        elif config.head == "pare":
            self.parts_decoder = PartBranch(config)
            self.regressor = PARERegressor(config)
        else:
            self.regressor = IterativeRegressor(config)
        self._init_convolutions()

    def forward(
        self, image: Tensor, bbox_info: Tensor, return_features: bool = False
    ) -> Prediction | tuple[Prediction, Features]:
        """Predict body parameters and maps.

        Args:
            image: (B, 3, S, S) RGB crops, ImageNet-normalised.
            bbox_info: (B, 3) of `dpose.camera.bbox_info`.
            return_features: also return the intermediate results; other heads than D-PoSE's give those of
                the encoder and PARE's attention weights.
        Returns:
            Prediction, or (Prediction, Features).
        """
        maps = self.encoder(image)  # F1..F4 and F_up
        if self.config.head != "dpose":
            prediction, weights = self._other_head(maps, bbox_info)
            return (prediction, Features(*maps, None, None, weights, None)) if return_features else prediction
        parts, parts_features = self.parts_decoder(maps)  # (B, 23, M, M), (B, w, s, s)
        depth, depth_features, depth_mean = None, None, None
        if self.depth_decoder is not None:
            depth_logits, depth_features = self.depth_decoder(maps)  # (B, 1, M, M), (B, w, s, s)
            depth = depth_logits.float().sigmoid()
            depth_mean = depth_features.mean((2, 3))  # (B, w), all that the regressor gets of depth
        attended, attention = self.attention(maps.f_up, parts)  # (B, 15w, 22), (B, 22, s, s)
        rotmats, betas, cam = self.regressor(
            attended, bbox_info, depth_mean
        )  # (B, 22, 3, 3), (B, 11), (B, 3)
        if self.config.part_order != "joints":  # attention pairs channels and heads in the stored order
            parts = torch.stack([parts[:, channel] for channel in self.config.part_channels], 1)
        prediction = Prediction(rotmats, betas, cam, parts.float(), depth)
        if not return_features:
            return prediction
        return prediction, Features(*maps, depth_features, parts_features, attention, attended)

    def _other_head(self, maps: EncoderFeatures, bbox_info: Tensor) -> tuple[Prediction, Tensor | None]:
        """The prediction of PARE, HMR or CLIFF, and PARE's attention weights."""
        if self.config.pooled:
            return Prediction(*self.regressor(maps, bbox_info), None, None), None
        parts, _ = self.parts_decoder(maps)  # (B, 23, M, M)
        weights = attention_weights(parts, self.config.feature_size)  # (B, 22, s, s)
        return Prediction(*self.regressor(maps, weights), parts.float(), None), weights

    @torch.no_grad()
    def set_means(self, pose6d: Tensor, betas: Tensor, cam: Tensor) -> None:
        """Set the mean parameters to which the regressor adds its outputs; they are stored with the weights.

        Args:
            pose6d: (132,) 22 joints x 6, of `dpose.rotations.rotmat_to_sixd`.
            betas: (num_betas,).
            cam: (3,) = (s, tx, ty).
        Raises:
            ValueError: a wrong number of elements.
        """
        for name, value in (("init_pose", pose6d), ("init_shape", betas), ("init_cam", cam)):
            buffer = getattr(self.regressor, name)
            value = torch.as_tensor(value)
            if value.numel() != buffer.numel():
                raise ValueError(f"set_means: {name} needs {buffer.numel()} numbers, got {value.numel()}")
            buffer.copy_(value.reshape(buffer.shape))

    @torch.no_grad()
    def init_head_priors(self, part_prior: Tensor, depth_mean: float) -> None:
        """Initialise the output biases to the class frequencies and the mean depth (part of MINI's recipe).

        Args:
            part_prior: (23,) share of pixels of each class, background first; need not sum to one.
            depth_mean: mean of the depth target, in (0, 1).
        Raises:
            ValueError: a wrong number of classes, a negative share, or a depth outside (0, 1).
        """
        prior = torch.as_tensor(part_prior, dtype=torch.float32)
        if prior.shape != (NUM_CLASSES,) or not bool((prior >= 0).all()) or not float(prior.sum()) > 0:
            raise ValueError(f"part_prior must be {NUM_CLASSES} shares >= 0 that are not all zero")
        if not 0 < float(depth_mean) < 1:
            raise ValueError(f"depth_mean must lie in (0, 1), got {depth_mean}")
        if self.parts_decoder is None:
            return
        bias = self.parts_decoder.head[-1].bias
        bias[list(self.config.part_channels)] = (prior / prior.sum()).clamp(min=1e-5).log().to(bias)
        if self.depth_decoder is not None:
            self.depth_decoder.head[-1].bias.fill_(torch.logit(torch.tensor(float(depth_mean))))

    def _init_convolutions(self) -> None:
        """Kaiming in hidden layers (as HRNet from scratch), small weights in output layers."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                outputs = module.kernel_size == (1, 1) and module.bias is not None
                if outputs and not name.startswith("encoder.backbone."):
                    nn.init.normal_(module.weight, std=0.01)
                else:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class ParameterRow(NamedTuple):
    """A row of the parameter table."""

    module: str
    parameters: int  # weights and biases, frozen ones included
    buffers: int  # statistics and counters of batch norms, and mean parameters


def parameter_table(model: DPose) -> list[ParameterRow]:
    """Parameters and buffers of each part of the network, then the total (81,099,394 in `PAPER`)."""
    names = {
        "encoder": model.encoder,
        "depth decoder": model.depth_decoder,
        "part decoder": model.parts_decoder,
        "soft attention": model.attention,
        "regressor": model.regressor,
    }
    rows = [
        ParameterRow(
            name, sum(p.numel() for p in module.parameters()), sum(b.numel() for b in module.buffers())
        )
        for name, module in names.items()
        if module is not None
    ]
    return [*rows, ParameterRow("total", sum(r.parameters for r in rows), sum(r.buffers for r in rows))]
