"""How far a prediction is from the truth: batched, on the inputs' device, one number a sample.

Inputs are metres, errors millimetres. A *protocol* says which joints count and what the pelvis is. There is
one error a sample (B,), so that a mean over any grouping, with any last batch, is a plain mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from torch import Tensor

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "depth_l1",
    "mean_iou",
    "mpjpe",
    "mve",
    "orientation_error",
    "pa_mpjpe",
    "parts_confusion",
    "parts_iou",
    "similarity_align",
]

MILLIMETRES = 1000.0


@dataclass(frozen=True)
class Protocol:
    """Which joints are compared, and whose mean is the pelvis.

    Attributes:
        num_joints: the first so many joints of the body.
        pelvis: indices of the joints whose mean is the pelvis.
    """

    num_joints: int
    pelvis: tuple[int, ...]


PROTOCOLS: dict[str, Protocol] = {
    "smplx24": Protocol(num_joints=24, pelvis=(1, 2)),  # BEDLAM validation: 22 body joints, jaw, left eye
}


def _protocol(name: str) -> Protocol:
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise ValueError(f"unknown protocol {name!r}; choose one of {', '.join(PROTOCOLS)}") from None


def _select(joints: Tensor, protocol: Protocol) -> Tensor:
    if joints.shape[-2] < protocol.num_joints:
        raise ValueError(f"the protocol needs {protocol.num_joints} joints, got {joints.shape[-2]}")
    return joints[..., : protocol.num_joints, :]


def _pelvis(joints: Tensor, protocol: Protocol) -> Tensor:
    return joints[..., list(protocol.pelvis), :].mean(-2, keepdim=True)


def _mean_distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a - b, dim=-1).mean(-1) * MILLIMETRES


def mpjpe(joints: Tensor, true_joints: Tensor, protocol: str = "smplx24") -> Tensor:
    """Mean joint distance with both pelvises at the origin.

    Args:
        joints, true_joints: (B, J, 3) metres, same orientation of axes.
        protocol: a name in `PROTOCOLS`; further joints are ignored.
    Returns:
        (B,) millimetres.
    """
    p = _protocol(protocol)
    aligned = (_select(j, p) - _pelvis(j, p) for j in (joints, true_joints))
    return _mean_distance(*aligned)


def pa_mpjpe(joints: Tensor, true_joints: Tensor, protocol: str = "smplx24") -> Tensor:
    """Mean joint distance after the best similarity of each sample (Procrustes). As `mpjpe`."""
    p = _protocol(protocol)
    source, target = _select(joints, p), _select(true_joints, p)
    return _mean_distance(similarity_align(source, target), target)


def mve(
    vertices: Tensor, true_vertices: Tensor, joints: Tensor, true_joints: Tensor, protocol: str = "smplx24"
) -> Tensor:
    """Mean vertex distance with both pelvises at the origin.

    Args:
        vertices, true_vertices: (B, V, 3) metres.
        joints, true_joints: (B, J, 3) metres, in the vertices' frames; they give the pelvis.
        protocol: a name in `PROTOCOLS`.
    Returns:
        (B,) millimetres.
    """
    p = _protocol(protocol)
    return _mean_distance(vertices - _pelvis(joints, p), true_vertices - _pelvis(true_joints, p))


def similarity_align(source: Tensor, target: Tensor) -> Tensor:
    """Bring `source` onto `target` by the scale, rotation and translation with the least squared error.

    Umeyama's closed form; a reflection is never used. Where the points do not fix the answer (one point, all
    alike, on a line, in a plane) one of the best is taken: the residual is the least there is, never NaN.

    Args:
        source, target: (..., N, 3).
    Returns:
        (..., N, 3) the moved source.
    """
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    x, y = source - source_mean, target - target_mean
    u, s, vh = torch.linalg.svd(y.transpose(-1, -2) @ x)  # (..., 3, 3), (..., 3)
    proper = torch.ones_like(s)
    proper[..., 2] = torch.where(torch.linalg.det(u) * torch.linalg.det(vh) < 0, -1.0, 1.0)
    rotation = (u * proper[..., None, :]) @ vh
    spread = x.square().sum((-2, -1))  # (...)
    scale = (s * proper).sum(-1) / torch.where(spread > 0, spread, 1.0)
    return scale[..., None, None] * (x @ rotation.transpose(-1, -2)) + target_mean


def orientation_error(rotmats: Tensor, true_rotmats: Tensor) -> Tensor:
    """Angle between two rotations, degrees in [0, 180]: (..., 3, 3) each -> (...)."""
    return torch.rad2deg(roma.rotmat_geodesic_distance(rotmats, true_rotmats))


def parts_confusion(labels: Tensor, true_labels: Tensor, num_classes: int = 23) -> Tensor:
    """Count pixels by (true class, predicted class); add up over batches, then `parts_iou`.

    Args:
        labels, true_labels: integers of any one shape, in [0, num_classes).
    Returns:
        (num_classes, num_classes) int64, rows are the truth.
    """
    index = (true_labels.long() * num_classes + labels.long()).flatten()
    counts = torch.zeros(num_classes**2, dtype=torch.long, device=index.device)
    return counts.scatter_add_(0, index, torch.ones_like(index)).view(num_classes, num_classes)


def parts_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class: (K, K) -> (K,); NaN for a class neither shown nor predicted."""
    hit = confusion.diagonal().double()
    return hit / (confusion.sum(0) + confusion.sum(1) - hit)


def mean_iou(confusion: Tensor, background: bool = False) -> Tensor:
    """Mean IoU over the classes that occur, the 22 parts alone or the background (class 0) too: scalar."""
    return parts_iou(confusion)[0 if background else 1 :].nanmean()


def depth_l1(depth: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute error on each sample's person pixels, where target > 0.

    Args:
        depth, target: (B, 1, M, M); target is 0 on the background.
    Returns:
        error (B,), 0 where a sample shows no person, and the pixel count (B,); the error over a whole data
        set is sum(error x count) / sum(count).
    """
    mask = target > 0
    count = mask.flatten(1).sum(1)
    error = torch.where(mask, (depth - target).abs(), 0.0).flatten(1).sum(1) / count.clamp(min=1)
    return error, count
