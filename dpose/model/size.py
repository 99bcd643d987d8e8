"""Size and work of networks: Table 2 of the paper, and multiply-adds and memory, which the paper leaves out.

The transformers (`dpose.model.published`) are built on the meta device, where tensors have a shape and no
values: counting their 670 million parameters takes no memory. A D-PoSE network is built and run once on the
CPU, because autocast, which its forward pass uses, does not know the meta device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dpose.config import preset
from dpose.model import published
from dpose.model.network import DPose

PUBLISHED: dict[str, Callable[[], nn.Module]] = {"HMR2.0": published.HMR2, "TokenHMR": published.TokenHMR}


class NetworkSize(NamedTuple):
    """Size of a network and the work of one forward pass with one image."""

    name: str
    image_size: tuple[int, int]  # height and width of the input, pixels
    parameters: int  # weights and biases
    buffers: int  # batch norm statistics and counters, mean parameters, TokenHMR's codebook
    encoder: int  # parameters of the image encoder alone
    multiply_adds: int  # of convolutions and matrix products; one multiply-add is two FLOPs

    def weight_bytes(self, bits: int = 32) -> int:
        """Memory of parameters and buffers with `bits` bits per number."""
        return (self.parameters + self.buffers) * bits // 8


def network_size(name: str) -> NetworkSize:
    """Size of a preset, of "HMR2.0" or of "TokenHMR". The body model is not counted.

    Raises:
        ValueError: no such network.
    """
    with torch.device("meta" if name in PUBLISHED else "cpu"):
        network, inputs = build(name)
    return NetworkSize(
        name,
        tuple(inputs[0].shape[2:]),
        sum(p.numel() for p in network.parameters()),
        sum(b.numel() for b in network.buffers()),
        sum(p.numel() for p in network.encoder.parameters()),
        multiply_adds(network, *inputs),
    )


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network with random weights in eval mode on torch's default device, and the inputs for one image."""
    if name in PUBLISHED:
        return PUBLISHED[name]().eval(), (torch.randn(1, 3, *published.IMAGE_SIZE),)
    config = preset(name)
    image = torch.randn(1, 3, config.image_size, config.image_size)
    return DPose(config).eval(), (image, torch.randn(1, 3))


def multiply_adds(network: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of a forward pass in convolutions and matrix products, all else left out.

    torch counts two FLOPs for each.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(*inputs)
    return counter.get_total_flops() // 2
