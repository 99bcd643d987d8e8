"""What distinguishes one D-PoSE network from another: a frozen dataclass and its presets.

`PAPER` is the network of the paper (HRNet-W48 at 224 pixels, 81,099,394 trainable parameters). `MINI` has the
same parts, wired the same way, in a size that trains on two CPU cores. Each comes with and without the depth
branch. The paper trains `PAPER` from an encoder with COCO weights (`TrainConfig(init=...)`); `MINI` starts at
random. Training settings are not here (`dpose.training`), loss weights are in `dpose.losses`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from dpose.skeleton import NUM_BODY_JOINTS, NUM_CLASSES

__all__ = ["MINI", "MINI_NO_DEPTH", "PAPER", "PAPER_NO_DEPTH", "PRESETS", "ModelConfig", "preset"]

# The joint of each of the released network's part channels: right hand, right thigh, ... Its regressor heads
# are in joint order, so that head j looks at the part of joint RELEASED_PARTS[j].
RELEASED_PARTS = (21, 2, 16, 15, 4, 10, 7, 6, 9, 13, 14, 8, 17, 5, 18, 19, 12, 11, 3, 1, 20, 0)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of one network. Defaults are the paper's.

    Attributes:
        name: preset name, kept in checkpoints.
        image_size: side of the square input crop, pixels; a multiple of 32.
        map_size: side of the depth and part maps; image_size / 4 (no extra up-scaling), / 2 or / 1.
        width: channels of the finest HRNet branch (w); the others have 2w, 4w and 8w.
        depth: with the depth decoder, and its features in the regressor; False is Table 3's "without depth".
        num_betas: shape coefficients.
        stem_width: channels of the two stride-2 convolutions.
        bottlenecks: bottleneck blocks of stage 1.
        bottleneck_width: inner channels of these blocks; they put out four times as many.
        modules: modules of stages 2, 3 and 4.
        blocks: basic blocks of every branch of every module.
        decoder_blocks: residual blocks at each of a decoder's three fusions.
        hidden: hidden units of every regression head.
        part_order: "joints" (channel j + 1 of the part decoder is joint j's part) or "released"
            (`RELEASED_PARTS`). Outputs are in joint order either way; attention pairs channels and heads by
            number.
    """

    name: str = "paper"
    image_size: int = 224
    map_size: int = 224
    width: int = 48
    depth: bool = True
    num_betas: int = 11
    stem_width: int = 64
    bottlenecks: int = 4
    bottleneck_width: int = 64
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4
    decoder_blocks: int = 4
    hidden: int = 32
    part_order: str = "joints"

    def __post_init__(self) -> None:
        object.__setattr__(self, "modules", tuple(self.modules))  # JSON brings a list
        if self.image_size < 64 or self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32 and at least 64, got {self.image_size}")
        allowed = [self.image_size // 4, self.image_size // 2, self.image_size]
        if self.map_size not in allowed:
            raise ValueError(
                f"map_size must be one of {allowed} for image_size {self.image_size}, got {self.map_size}"
            )
        if len(self.modules) != 3:
            raise ValueError(f"modules must hold three numbers (stages 2, 3, 4), got {self.modules}")
        counts = {
            "width": self.width,
            "num_betas": self.num_betas,
            "stem_width": self.stem_width,
            "bottlenecks": self.bottlenecks,
            "bottleneck_width": self.bottleneck_width,
            "modules": min(self.modules),
            "blocks": self.blocks,
            "decoder_blocks": self.decoder_blocks,
            "hidden": self.hidden,
        }
        for field, value in counts.items():
            if value < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.part_order not in ("joints", "released"):
            raise ValueError(f"part_order must be 'joints' or 'released', got {self.part_order!r}")

    @property
    def feature_size(self) -> int:
        """Side of the finest feature maps (F1, F_up, D): a quarter of the image."""
        return self.image_size // 4

    @property
    def part_channels(self) -> tuple[int, ...]:
        """Channel of the part decoder that shows each of the 23 labels, background first."""
        if self.part_order == "joints":
            return tuple(range(NUM_CLASSES))
        return (0, *(1 + RELEASED_PARTS.index(joint) for joint in range(NUM_BODY_JOINTS)))

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values; `from_dict` is the inverse."""
        return asdict(self) | {"modules": list(self.modules)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build a config from `to_dict`'s output.

        Raises:
            ValueError: a field is missing, unknown or out of range.
        """
        values = {"part_order": "joints"} | values  # checkpoints older than the field are in that order
        names = {field.name for field in fields(cls)}
        missing, unknown = sorted(names - values.keys()), sorted(values.keys() - names)
        if missing or unknown:
            raise ValueError(f"not a model config: missing fields {missing}, unknown fields {unknown}")
        return cls(**values)


PAPER = ModelConfig()
PAPER_NO_DEPTH = replace(PAPER, name="paper-no-depth", depth=False)
MINI = ModelConfig(
    name="mini",
    image_size=128,
    map_size=64,
    width=16,
    stem_width=16,
    bottlenecks=1,
    bottleneck_width=16,
    modules=(1, 1, 1),
    blocks=2,
    decoder_blocks=2,
)
MINI_NO_DEPTH = replace(MINI, name="mini-no-depth", depth=False)

PRESETS: dict[str, ModelConfig] = {
    config.name: config for config in (PAPER, PAPER_NO_DEPTH, MINI, MINI_NO_DEPTH)
}


def preset(name: str) -> ModelConfig:
    """The preset called `name` (lower or upper case).

    Raises:
        ValueError: no such preset; the message lists those there are.
    """
    try:
        return PRESETS[name.lower()]
    except (KeyError, AttributeError):
        raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}") from None
