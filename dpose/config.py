"""Network configuration: a frozen dataclass with the paper's values as defaults, and its presets.

`PAPER` is the network of the paper (HRNet-W48 at 224 pixels, 81,099,394 parameters), whose encoder the paper
initialises with weights that have learned keypoints on COCO (`TrainConfig(init=...)`). `LITE` and `MINI` have
the same structure in a size that trains on two CPU cores: `LITE` on MoveNet's backbone, which has learned
keypoints in photographs too, `MINI` on a small HRNet that starts from random weights. Each exists without the
depth branch ("-no-depth"), `PAPER` and `LITE` also with the heads of the methods that the paper compares with
("-hmr", "-cliff", "-pare"), and `LITE` without part attention. Training settings are in `dpose.training`,
loss weights in `dpose.losses`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from dpose.skeleton import NUM_BODY_JOINTS, NUM_CLASSES

# Joint of each part channel of the released network: right hand, right thigh, ... Its regression heads are in
# joint order, so head j attends to the part of joint RELEASED_PARTS[j].
RELEASED_PARTS = (21, 2, 16, 15, 4, 10, 7, 6, 9, 13, 14, 8, 17, 5, 18, 19, 12, 11, 3, 1, 20, 0)

HEADS = ("dpose", "pare", "cliff", "hmr")
ENCODERS = ("hrnet", "movenet", "nanodet")

# A configuration read from a file is untrusted; these are upper limits, which bound the time and memory of
# building the network. `PAPER` has 132 residual blocks.
LIMITS = {
    "image_size": 2048,
    "width": 512,
    "num_betas": 400,
    "stem_width": 1024,
    "bottlenecks": 64,
    "bottleneck_width": 1024,
    "modules": 64,
    "blocks": 64,
    "decoder_blocks": 64,
    "hidden": 4096,
}
MAX_RESIDUAL_BLOCKS = 1000


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one network. The defaults are `PAPER`'s.

    The layers are those of the released code, whose network has the paper's number of parameters, also where
    the paper says otherwise (for instance the maps' side).

    Attributes:
        name: preset name, stored in checkpoints.
        image_size: side of the square input crop, pixels; a multiple of 32.
        map_size: side of the depth and part maps; image_size / 4 (no extra up-sampling), / 2 or / 1.
        width: channels w of the finest HRNet branch; the others have 2w, 4w and 8w.
        depth: whether there is a depth decoder whose features enter the regressor; False is "without depth"
            of Table 3.
        num_betas: shape coefficients.
        stem_width: channels of the two stride-2 convolutions.
        bottlenecks: bottleneck blocks of stage 1.
        bottleneck_width: inner channels of these blocks; their output has four times as many.
        modules: modules of stages 2, 3 and 4.
        blocks: basic blocks per branch and module.
        decoder_blocks: residual blocks at each of a decoder's three fusions.
        hidden: hidden units of every regression head.
        part_order: "joints" (channel j + 1 of the part decoder is joint j's part) or "released"
            (`RELEASED_PARTS`). Outputs are in joint order in both cases; attention pairs channels and heads
            by index.
        encoder: "hrnet"; or a backbone pretrained on photographs, "movenet" or "nanodet"
            (`dpose.model.encoder`), which the fields from `stem_width` to `blocks` do not concern.
        head: what follows the encoder: "dpose"; or that of another method (`dpose.model.heads`), which the
            fields `depth`, `decoder_blocks` and `hidden` do not concern: "pare" (part attention, no depth),
            "hmr" (global pooling, iterative regressor), "cliff" (the same with box information).
        attention: whether each joint's features are averaged with the weights of its part (eq. 5); False:
            over the whole map.
    Raises:
        ValueError: a value has another type or is out of range (`LIMITS`).
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
    encoder: str = "hrnet"
    head: str = "dpose"
    attention: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.modules, list):  # from JSON
            object.__setattr__(self, "modules", tuple(self.modules))
        if not isinstance(self.modules, tuple) or len(self.modules) != 3:
            raise ValueError(f"modules must be three integers (stages 2, 3, 4), got {_short(self.modules)}")
        for field, largest in LIMITS.items():
            value = getattr(self, field)
            for count in value if field == "modules" else (value,):
                if type(count) is not int or not 1 <= count <= largest:
                    raise ValueError(f"{field} must be an integer from 1 to {largest}, got {_short(value)}")
        if self.image_size < 64 or self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32 and at least 64, got {self.image_size}")
        allowed = [self.image_size // 4, self.image_size // 2, self.image_size]
        if type(self.map_size) is not int or self.map_size not in allowed:
            raise ValueError(
                f"map_size must be one of {allowed} for image_size {self.image_size}, "
                f"got {_short(self.map_size)}"
            )
        if self.residual_blocks > MAX_RESIDUAL_BLOCKS:
            raise ValueError(
                f"modules, blocks, bottlenecks and decoder_blocks give {self.residual_blocks} residual "
                f"blocks; at most {MAX_RESIDUAL_BLOCKS} are accepted"
            )
        if not isinstance(self.name, str) or len(self.name) > 80:
            raise ValueError(f"name must be a string of at most 80 characters, got {_short(self.name)}")
        for field in ("depth", "attention"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"{field} must be true or false, got {_short(getattr(self, field))}")
        if self.part_order not in ("joints", "released"):
            raise ValueError(f"part_order must be 'joints' or 'released', got {_short(self.part_order)}")
        if self.encoder not in ENCODERS:
            raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, got {_short(self.encoder)}")
        if self.head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, got {_short(self.head)}")
        if self.head != "dpose" and (self.depth or not self.attention or self.part_order != "joints"):
            raise ValueError(f"the head {self.head!r} needs depth=False, attention=True, part_order='joints'")

    @property
    def residual_blocks(self) -> int:
        """Residual blocks of the encoder and the decoders."""
        branches = sum(modules * branches for modules, branches in zip(self.modules, (2, 3, 4), strict=True))
        decoders = 2 if self.depth else 1
        return self.bottlenecks + branches * self.blocks + 3 * decoders * self.decoder_blocks

    @property
    def pooled(self) -> bool:
        """Whether the head pools the encoder's maps globally, without a part map and without F_up."""
        return self.head in ("hmr", "cliff")

    @property
    def feature_size(self) -> int:
        """Side of the finest feature maps (F1, F_up, D): a quarter of the image."""
        return self.image_size // 4

    @property
    def part_channels(self) -> tuple[int, ...]:
        """Channel of the part decoder for each of the 23 labels, background first."""
        if self.part_order == "joints":
            return tuple(range(NUM_CLASSES))
        return (0, *(1 + RELEASED_PARTS.index(joint) for joint in range(NUM_BODY_JOINTS)))

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; `from_dict` is the inverse."""
        return asdict(self) | {"modules": list(self.modules)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build a config from `to_dict`'s output.

        Raises:
            ValueError: a field is missing, unknown or out of range.
        """
        older = {"part_order": "joints", "encoder": "hrnet", "head": "dpose", "attention": True}
        values = older | values  # of checkpoints older than the fields
        names = {field.name for field in fields(cls)}
        missing, unknown = sorted(names - values.keys()), sorted(values.keys() - names)
        if missing or unknown:
            raise ValueError(f"missing fields {_short(missing)}, unknown fields {_short(unknown)}")
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
LITE = ModelConfig(
    name="lite", image_size=128, map_size=64, width=16, decoder_blocks=2, hidden=128, encoder="movenet"
)
LITE_NO_DEPTH = replace(LITE, name="lite-no-depth", depth=False)
LITE_NO_ATTENTION = replace(LITE, name="lite-no-attention", attention=False)

PRESETS: dict[str, ModelConfig] = {
    config.name: config
    for config in (
        *(PAPER, PAPER_NO_DEPTH, LITE, LITE_NO_DEPTH, LITE_NO_ATTENTION, MINI, MINI_NO_DEPTH),
        *(
            replace(size, name=f"{size.name}-{head}", depth=False, head=head)
            for size in (PAPER, LITE)
            for head in HEADS
            if head != "dpose"
        ),
    )
}


def preset(name: str) -> ModelConfig:
    """The preset `name`, in lower or upper case.

    Raises:
        ValueError: no such preset; the message lists the presets.
    """
    try:
        return PRESETS[name.lower()]
    except (KeyError, AttributeError):
        raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}") from None


def _short(value: Any) -> str:
    """`repr` of a value from a file, cut to a length that fits a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
