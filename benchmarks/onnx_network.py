"""A network's ONNX file in onnxruntime with the call of `DPose`, for the benchmarks."""

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from dpose.batch import Prediction


class OnnxNetwork(nn.Module):
    """uint8 crops (B, 3, S, S) and box information (B, 3) -> Prediction, on `threads` cores."""

    def __init__(self, path: str, threads: int) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def forward(self, image: Tensor, bbox_info: Tensor) -> Prediction:
        inputs = {"image": np.ascontiguousarray(image), "bbox_info": bbox_info.numpy()}
        names = [output.name for output in self.session.get_outputs()]
        found = dict(zip(names, map(torch.from_numpy, self.session.run(names, inputs)), strict=True))
        return Prediction(**{name: found.get(name) for name in Prediction._fields})
