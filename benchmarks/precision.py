"""What 16-bit and 8-bit numbers gain and cost on a CPU: time of a pass, change of vertices and of MPJPE.

A trained network on open people: the change is that of the mean distance of corresponding vertices, both
bodies at the origin. Times are seconds of one core (the fastest of the rounds, in which the variants
alternate), so that other programs hardly matter. "int8" is onnxruntime's static quantisation: convolutions
with weights per channel, ranges of activations from open training people (99.99th percentile).

    python benchmarks/precision.py --out results/precision.json     # 3 minutes; needs onnx, onnxruntime
"""

from __future__ import annotations

import argparse
import copy
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx_network import OnnxNetwork
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

import dpose
from dpose import results
from dpose.batch import Batch, Prediction
from dpose.camera import bbox_info
from dpose.config import ModelConfig
from dpose.data.loader import make_loader
from dpose.io import write_json
from dpose.metrics import mpjpe
from dpose.model.checkpoint import body_of
from dpose.model.inference import FastDPose, normalise
from dpose.model.onnx_file import export_onnx
from dpose.paths import data_root

CALIBRATION, BATCH = 128, 16  # people
Variant = Callable[[Tensor, Tensor], Prediction]  # uint8 crops and box information


def people(data: str | None, split: str, config: ModelConfig, count: int) -> Iterator[tuple[Batch, Tensor]]:
    """Batches of `count` people from all over a split, with their box information."""
    for batch in make_loader(data_root(data), split, config, BATCH, spread=count):
        yield batch, bbox_info(batch["center"], batch["scale"], batch["cam_int"])


class Calibration(quantization.CalibrationDataReader):
    def __init__(self, data: str | None, config: ModelConfig) -> None:
        found = people(data, "train", config, CALIBRATION)
        self.inputs = (
            {"image": batch["image"].numpy(), "bbox_info": box.numpy()}
            for batch, box in found
            if len(box) == BATCH  # the calibration expects equal shapes
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.inputs, None)


def quantise(source: Path, target: Path, calibration: Calibration, without: str | None = None) -> None:
    """Writes the 8-bit graph of an ONNX file; weights with `without` in their name stay in 32 bits."""
    prepared = source.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    nodes = [node for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
    quantization.quantize_static(
        prepared,
        target,
        calibration,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=[node.name for node in nodes if without and without in node.input[1]],
        calibrate_method=quantization.CalibrationMethod.Percentile,
        extra_options={"CalibPercentile": 99.99},
    )


def make_variants(name: str, data: str | None, folder: Path) -> dict[str, Variant]:
    """The network as trained, and what it is compared with."""
    model = dpose.load(name)

    def with_normalisation(network: nn.Module) -> Variant:
        return lambda image, box: network(normalise(image), box)

    fast = {bf16: FastDPose(model, bf16=bf16) for bf16 in (False, True)}
    variants = {
        "torch, as trained": with_normalisation(model),
        "FastDPose, 32 bits": with_normalisation(fast[False]),
        "FastDPose, bf16": with_normalisation(fast[True]),
    }
    if model.config.encoder != "hrnet":
        whole = FastDPose(model, bf16=True)
        backbone = copy.deepcopy(model.encoder.backbone).to(memory_format=torch.channels_last)
        for layer in backbone.modules():
            if isinstance(layer, nn.Conv2d):
                layer.bfloat16()
        whole.model.encoder.backbone = backbone
        variants["FastDPose, bf16 in the backbone too"] = with_normalisation(whole)
    path = export_onnx(name, folder / "network.onnx")
    quantise(path, folder / "int8.onnx", Calibration(data, model.config))
    quantise(path, folder / "decoders.onnx", Calibration(data, model.config), without="encoder")
    variants["onnxruntime, 32 bits"] = OnnxNetwork(str(path), 1)
    variants["onnxruntime, int8"] = OnnxNetwork(str(folder / "int8.onnx"), 1)
    variants["onnxruntime, int8 behind the encoder"] = OnnxNetwork(str(folder / "decoders.onnx"), 1)
    return variants


def seconds(variants: dict[str, Variant], size: int, batch_size: int, rounds: int) -> dict[str, float]:
    """Time of a pass of each variant, seconds of one core."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (batch_size, size, size, 3), dtype=torch.uint8, generator=generator)
    image, box = image.permute(0, 3, 1, 2), torch.randn(batch_size, 3, generator=generator)
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(rounds):
        for name, variant in variants.items():
            variant(image, box)
            begin = time.process_time()
            variant(image, box)
            best[name] = min(best[name], time.process_time() - begin)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="lite")
    parser.add_argument("--samples", type=int, default=400, help="test people, from all over the split")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--data", help="data root (default: $DPOSE_DATA, else the open data)")
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # of quantisation

    config = dpose.load(args.checkpoint).config
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        variants = make_variants(args.checkpoint, args.data, Path(folder))
        times = {count: seconds(variants, config.image_size, count, args.rounds) for count in (1, 8)}
        body = body_of(dpose.load(args.checkpoint))
        changes: dict[str, list[Tensor]] = {name: [] for name in variants}
        errors: dict[str, list[Tensor]] = {name: [] for name in variants}
        for batch, box in people(args.data, "test", config, args.samples):
            true, reference = body(batch["betas"], batch["pose"]), None
            for name, variant in variants.items():
                prediction = variant(batch["image"], box)
                posed = body(prediction.betas, prediction.rotmats)
                reference = posed.vertices if reference is None else reference
                changes[name].append(1000 * (posed.vertices - reference).norm(dim=-1).mean(1))
                errors[name].append(mpjpe(posed.joints, true.joints))
    rows = {}
    for name in variants:
        change, error = torch.cat(changes[name]), torch.cat(errors[name])
        rows[name] = {
            **{f"ms_{count}": round(1000 * times[count][name], 2) for count in times},
            "vertices_mean_mm": round(change.mean().item(), 2),
            "vertices_p95_mm": round(change.quantile(0.95).item(), 2),
            "mpjpe_mm": round(error.mean().item(), 2),
        }
        print(f"{name:38}" + "  ".join(f"{key} {value:7.2f}" for key, value in rows[name].items()))
    if args.out:
        about = {"network": args.checkpoint, "samples": len(change), "calibration": CALIBRATION}
        write_json(args.out, {**about, "threads": 1, "variants": rows, **results.provenance()})


if __name__ == "__main__":
    main()
