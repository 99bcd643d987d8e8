"""The smallest configuration that has every part of the network."""

from dpose.config import ModelConfig

TINY = ModelConfig(
    name="tiny",
    image_size=64,
    map_size=16,
    width=4,
    stem_width=8,
    bottlenecks=1,
    bottleneck_width=4,
    modules=(1, 1, 1),
    blocks=1,
    decoder_blocks=1,
    hidden=8,
)
