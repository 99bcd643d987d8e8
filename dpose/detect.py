"""Finding people in a picture: the detector that comes with the package, and the interface of any other.

A detector is a callable: picture (H, W, 3) uint8 RGB -> array (N, 5) of x, y, width, height in pixels and a
score in 0..1, tight around the visible part of each person. `NanoDetector` is NanoDet-g (3.8 million weights,
trained on COCO, Apache-2.0), `OnnxDetector` runs a detector from an ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from dpose.model.csp import NUM_BINS, NanoDet
from dpose.model.encoder import BACKBONES
from dpose.model.inference import normalise

Detector = Callable[[np.ndarray], np.ndarray]

SIDE = 416  # pixels of NanoDet's square input
STRIDES = (8, 16, 32)  # pixels, of its grids
PERSON = 0  # COCO's label
MIN_SCORE = 0.3  # of a person, in 0..1
MAX_OVERLAP = 0.6  # IoU above which the box with the smaller score is dropped
# A box is the upper half of a person who has a better box if it lies inside that box by a larger share of its
# area, ends higher above the lower edge (share of the height), and is nearly as wide (share of the width).
# A person in front ends as low; one behind, or a child in the arms, is narrower.
HALF_INSIDE, HALF_ENDS, HALF_WIDE = 0.9, 0.25, 0.6


class NanoDetector:
    """People by NanoDet-g. The picture is shrunk to 416 pixels: people below some 30 of these are missed.

    Args:
        device: on which it runs.
        min_score: people with a smaller score are left out.
    """

    def __init__(self, device: str | torch.device = "cpu", min_score: float = MIN_SCORE) -> None:
        weights = BACKBONES["nanodet"]._replace(prefix="").weights()
        with torch.device("meta"):
            self.model = NanoDet()
        self.model.load_state_dict(weights, assign=True)
        self.model.requires_grad_(False).to(device, memory_format=torch.channels_last).eval()
        self.device, self.min_score = torch.device(device), min_score

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (N, 5): x, y, width, height in pixels, score; best first."""
        square, scale = letterbox(picture, SIDE)
        image = normalise(torch.from_numpy(square).to(self.device).permute(2, 0, 1)[None])
        outputs = self.model(image)
        scores = torch.cat([scores[0, :, PERSON] for scores, _ in outputs])  # (cells of all grids,)
        corners = torch.cat(
            [_corners(bins[0], stride) for (_, bins), stride in zip(outputs, STRIDES, strict=True)]
        )
        kept = scores > self.min_score
        return boxes_from_corners(corners[kept] / scale, scores[kept], picture.shape)


class OnnxDetector:
    """People by a detector in an ONNX file, as YOLO's and RT-DETR's exporters write them with NMS included.

    Its input is (1, 3, S, S) float32, RGB in 0..1, the picture shrunk into a grey square; its first output is
    (1, N, 6): x1, y1, x2, y2 in pixels of that square, score, class.

    Args:
        path: the file.
        label: class of people.
        min_score: people with a smaller score are left out.
    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        FileNotFoundError, ValueError: no such file; another format.
    """

    def __init__(self, path: str | Path, label: int = PERSON, min_score: float = MIN_SCORE) -> None:
        try:
            import onnxruntime  # imported here: an optional dependency
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"running {path} needs the package onnxruntime (pip install onnxruntime)"
            ) from None
        if not Path(path).is_file():
            raise FileNotFoundError(f"no detector at {path}")
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no common base class
            raise ValueError(f"{path} is not an ONNX file that onnxruntime runs: {error}") from None
        shape = self.session.get_inputs()[0].shape
        if len(shape) != 4 or shape[1] != 3:
            raise ValueError(f"the input of {path} has shape {shape}, expected (1, 3, S, S)")
        self.side = shape[2] if isinstance(shape[2], int) else 640
        self.path, self.label, self.min_score = path, label, min_score

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (N, 5), as `NanoDetector`."""
        square, scale = letterbox(picture, self.side)
        image = np.ascontiguousarray(square.transpose(2, 0, 1)[None], np.float32) / 255
        found = np.asarray(self.session.run(None, {self.session.get_inputs()[0].name: image})[0])
        if found.ndim not in (2, 3) or found.shape[-1] != 6:
            raise ValueError(f"the output of {self.path} has shape {found.shape}, expected (1, N, 6)")
        rows = torch.from_numpy(found.reshape(-1, 6).astype(np.float32))
        rows = rows[(rows[:, 4] > self.min_score) & (rows[:, 5].round() == self.label)]
        return boxes_from_corners(rows[:, :4] / scale, rows[:, 4], picture.shape)


def check_detections(found: np.ndarray, who: str = "the detector") -> np.ndarray:
    """A detector's answer as (N, 5) float64. Raises ValueError if it is something else, or not finite."""
    found = np.asarray(found, np.float64)
    found = found.reshape(0, 5) if found.size == 0 else found
    if found.ndim != 2 or found.shape[1] != 5 or not np.isfinite(found).all():
        raise ValueError(
            f"{who} must return finite numbers (N, 5): x, y, width, height, score; got shape {found.shape}"
        )
    return found


def letterbox(picture: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """The picture at the top left of a grey square (side, side, 3), and the factor by which it was shrunk."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.full((side, side, 3), 114, np.uint8)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=method)
    return square, scale


def boxes_from_corners(corners: Tensor, scores: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Corners (N, 4) x1, y1, x2, y2 in pixels and scores (N,) -> (M, 5), clipped, without duplicates.

    Best first. Duplicates are boxes that overlap a better one (MAX_OVERLAP), and halves (HALF_INSIDE).
    """
    height, width = shape[:2]
    corners = corners.float().cpu().clamp(min=0)
    corners = torch.minimum(corners, torch.tensor([width, height, width, height]))
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).numpy().astype(np.float64)
    scores = scores.float().cpu().numpy()
    kept = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.0, MAX_OVERLAP) if len(boxes) else []
    kept = np.asarray(kept, np.int64).reshape(-1)  # best first
    kept = kept[_whole(boxes[kept])]
    return np.concatenate([boxes[kept], scores[kept, None]], 1)


def _whole(boxes: np.ndarray) -> list[int]:
    """The boxes (N, 4), best first, without the halves of people who have a better one (`HALF_INSIDE`)."""
    kept: list[int] = []
    for i, (x, y, w, h) in enumerate(boxes):
        left, top, width, height = boxes[kept].T
        across = np.minimum(x + w, left + width) - np.maximum(x, left)
        along = np.minimum(y + h, top + height) - np.maximum(y, top)
        inside = across.clip(0) * along.clip(0) > HALF_INSIDE * w * h
        if not (inside & (y + h < top + (1 - HALF_ENDS) * height) & (w > HALF_WIDE * width)).any():
            kept.append(i)
    return kept


def _corners(bins: Tensor, stride: int) -> Tensor:
    """Bin logits (h w, 44) of a square grid -> corners (h w, 4) in pixels of the input.

    The distance from a cell's centre to each side (left, top, right, bottom) is the expected bin, in cells.
    """
    cells = SIDE // stride
    values = torch.arange(NUM_BINS, device=bins.device, dtype=bins.dtype)
    distance = bins.unflatten(-1, (4, NUM_BINS)).softmax(-1) @ values  # (h w, 4)
    y, x = torch.meshgrid(*[torch.arange(cells, device=bins.device) + 0.5] * 2, indexing="ij")
    centre = torch.stack([x, y], -1).flatten(0, 1)  # (h w, 2)
    return torch.cat([centre - distance[:, :2], centre + distance[:, 2:]], 1) * stride
