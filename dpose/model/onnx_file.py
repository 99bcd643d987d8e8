"""A network as an ONNX file, for programs without PyTorch.

The graph is the whole network without body model. Its metadata say what goes in and comes out, and of which
network and body.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from dpose.batch import Prediction
from dpose.io import replacing
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import IMAGENET_MEAN, IMAGENET_STD, fold_batch_norms
from dpose.model.network import DPose

INPUTS = {
    "image": "(B, 3, S, S) uint8 RGB crops; the graph normalises them",
    "bbox_info": "(B, 3) float32: (cx - px) / f, (cy - py) / f, side / f; centre cx, cy and side of the "
    "square that was cut out, principal point px, py and focal length f, in pixels of the picture",
}
OUTPUTS = {
    "rotmats": "(B, 22, 3, 3) rotations relative to the parent joint; the root's in the camera frame "
    "(x right, y down, z forward)",
    "betas": "(B, num_betas) shape coefficients",
    "cam": "(B, 3) s, tx, ty; the body's translation in metres is tx + 2 (cx - px) / (s side), "
    "ty + 2 (cy - py) / (s side), 2 f / (s side); for s below 0.1, 1 / s is replaced by 20 - 100 s",
    "parts": "(B, 23, M, M) part logits, background first, then in joint order",
    "depth": "(B, 1, M, M) in (0, 1), small is near; undefined off the person",
}


def export_onnx(checkpoint: str | os.PathLike[str] | DPose, path: str | os.PathLike[str]) -> Path:
    """Writes a network to an ONNX file, atomically. Its batch size is free, and all values are float32.

    The inputs are `image` and `bbox_info`, the outputs the fields of `Prediction` that the network has, by
    these names; see `INPUTS` and `OUTPUTS`, which are also in the file's metadata. The metadata are JSON:
    `config`, `body` (name and hash, or null), `checkpoint` (what the checkpoint tells of itself), `inputs`,
    `outputs`.

    Args:
        checkpoint: as for `dpose.model.checkpoint.load`, or a network, which is not changed.
        path: the file; parent folders are made.
    Returns:
        The path.
    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
        FileNotFoundError, ValueError: as `dpose.model.checkpoint.load`.
    """
    try:
        import onnxscript  # noqa: F401  (imported here: an optional dependency, which torch.onnx needs)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"writing {path} needs the package {error.name} (pip install onnx onnxscript)"
        ) from None
    model, about = (checkpoint, {}) if isinstance(checkpoint, DPose) else checkpoints.read(checkpoint)
    graph, size = _Graph(model), model.config.image_size
    inputs = torch.zeros(2, 3, size, size, dtype=torch.uint8), torch.zeros(2, 3)
    with torch.no_grad():
        names = [name for name, value in graph.named_outputs(*inputs)]
    batch = torch.export.Dim("batch", min=1)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that torchvision, which is not needed, is missing
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                inputs,
                dynamo=True,
                verbose=False,
                input_names=list(INPUTS),
                output_names=names,
                dynamic_shapes={name: {0: batch} for name in INPUTS},
            )
    finally:
        logger.setLevel(level)
    metadata = {
        "config": model.config.to_dict(),
        "body": model.body_record,
        "checkpoint": about,
        "inputs": INPUTS,
        "outputs": {name: OUTPUTS[name] for name in names},
    }
    program.model.metadata_props.update({name: json.dumps(value) for name, value in metadata.items()})
    with replacing(path) as temporary:
        program.save(temporary)
    return Path(path)


class _Graph(nn.Module):
    """The network with its normalisation and without batch norms, in float32 on the CPU."""

    def __init__(self, model: DPose) -> None:
        super().__init__()
        self.model = fold_batch_norms(copy.deepcopy(model).cpu().float().eval())
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("factor", (1 / (255 * std))[:, None, None])
        self.register_buffer("offset", (mean / std)[:, None, None])
        self.eval()

    def named_outputs(self, image: Tensor, bbox_info: Tensor) -> list[tuple[str, Tensor]]:
        prediction: Prediction = self.model(image.float() * self.factor - self.offset, bbox_info)
        return [(name, value) for name, value in prediction._asdict().items() if value is not None]

    def forward(self, image: Tensor, bbox_info: Tensor) -> list[Tensor]:
        return [value for _, value in self.named_outputs(image, bbox_info)]
