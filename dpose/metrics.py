"""How far a prediction is from the truth: batched, on the inputs' device, one number a sample.

Inputs are metres, errors millimetres. A *protocol* says which joints count, where they come from and what the
pelvis is (`PROTOCOLS`). There is one error a sample (B,), so that a mean over any grouping, with any last
batch, is a plain mean: `BodyErrors` takes it as a `torchmetrics` metric, over processes too; for the other
numbers a sample here `torchmetrics.MeanMetric` does. IoU is not a mean over samples: counts are summed first.

Neither autocast nor TF32 rounds anything here. A sample with a number that is not finite has errors that are
not finite either, and spoils no other sample's.
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
import torchmetrics
from torch import Tensor

from dpose.body import BodyOutput
from dpose.body.regressors import combine

__all__ = [
    "PROTOCOLS",
    "BodyErrors",
    "Protocol",
    "depth_l1",
    "mean_iou",
    "mpjpe",
    "mve",
    "orientation_error",
    "pa_mpjpe",
    "parts_confusion",
    "parts_iou",
    "parts_overlap",
    "protocol_points",
    "similarity_align",
]

MILLIMETRES = 1000.0


@dataclass(frozen=True)
class Protocol:
    """Which joints are compared, where they come from, and whose mean is the pelvis.

    Attributes:
        joints: indices of the joints that are compared.
        pelvis: indices of the joints whose mean is the pelvis.
        regressor: None: the body model's own joints. Else what matrix takes SMPL's vertices to joints, in
            words; vertices are then brought to SMPL's, and compared there.
        regressed: how many joints that matrix gives.
    """

    joints: tuple[int, ...]
    pelvis: tuple[int, ...]
    regressor: str | None = None
    regressed: int = 0


HIPS = (1, 2)  # of SMPL, and of SMPL-X
LSP = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)  # right leg up, left leg down, arms alike, neck, head
H36M_REGRESSOR = "the Human3.6M joint regressor over SMPL's vertices, J_regressor_h36m.npy (17, 6890)"
SMPL_REGRESSOR = "SMPL's own joint regressor, its file's J_regressor (24, 6890)"

PROTOCOLS: dict[str, Protocol] = {
    # 3DPW and EMDB, released code: 14 LSP joints among Human3.6M's 17, its pelvis.
    "h36m14": Protocol(LSP, (0,), H36M_REGRESSOR, 17),
    # RICH, released code: SMPL's joints, midpoint of the hips.
    "smpl24": Protocol(tuple(range(24)), HIPS, SMPL_REGRESSOR, 24),
    # BEDLAM validation, released code: 22 body joints, jaw, left eye, midpoint of the hips.
    "smplx24": Protocol(tuple(range(24)), HIPS),
    # What the paper's text says of 3DPW and EMDB: SMPL's joints without the hands, at SMPL's pelvis.
    "smpl22": Protocol(tuple(range(22)), (0,), SMPL_REGRESSOR, 24),
}


def _protocol(name: str) -> Protocol:
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise ValueError(f"unknown protocol {name!r}; choose one of {', '.join(PROTOCOLS)}") from None


def protocol_points(
    body: BodyOutput,
    protocol: str = "smplx24",
    smplx_to_smpl: Tensor | None = None,
    regressor: Tensor | None = None,
) -> BodyOutput:
    """The vertices and joints of a body that a protocol's errors are taken between.

    `smplx24` takes the body model's own. The other protocols work on SMPL's vertices: those of another body
    are brought there by a matrix, joints are regressed from the result, and the body model's are not looked
    at. Both matrices are in licensed files, so they are arguments here. Points once taken stay as they are.

    Args:
        body: vertices (B, V, 3) metres, and joints (B, J, 3), or None where the protocol regresses them.
        protocol: a name in `PROTOCOLS`.
        smplx_to_smpl: (6890, V), sparse or dense; not needed where the vertices are SMPL's.
        regressor: (J, 6890), sparse or dense, as the protocol says.
    Returns:
        vertices (B, V or 6890, 3) and the joints, metres, in the body's frame.
    Raises:
        ValueError: an unknown protocol, a matrix that it needs is missing or of another shape.
    """
    p = _protocol(protocol)
    if p.regressor is None:
        return body
    _check_regressor(protocol, regressor)
    vertices, (there, here) = body.vertices, (regressor.shape[1], body.vertices.shape[-2])
    if here != there:
        if smplx_to_smpl is None:
            raise ValueError(
                f"protocol {protocol!r} compares SMPL's {there} vertices, this body has {here}: give "
                f"`smplx_to_smpl`, the ({there}, {here}) matrix between the two, or SMPL's own vertices"
            )
        if tuple(smplx_to_smpl.shape) != (there, here):
            raise ValueError(
                f"`smplx_to_smpl` has shape {tuple(smplx_to_smpl.shape)}, but takes the body's {here} "
                f"vertices to SMPL's {there}: it must be ({there}, {here})"
            )
        vertices = combine(smplx_to_smpl, vertices)
    return BodyOutput(vertices, combine(regressor, vertices))


def _check_regressor(protocol: str, regressor: Tensor | None) -> None:
    p = PROTOCOLS[protocol]
    if regressor is None:
        raise ValueError(f"protocol {protocol!r} needs `regressor`: {p.regressor}")
    if regressor.ndim != 2 or regressor.shape[0] != p.regressed:
        raise ValueError(
            f"protocol {protocol!r} needs {p.regressor}; `regressor` has shape {tuple(regressor.shape)}"
        )


def _times(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of small matrices, but summed in the inputs' own precision, also on CUDA and under autocast."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def _select(joints: Tensor, protocol: Protocol) -> Tensor:
    needed = max(*protocol.joints, *protocol.pelvis) + 1
    if joints.shape[-2] < needed:
        raise ValueError(f"the protocol needs {needed} joints, got {joints.shape[-2]}")
    return joints[..., list(protocol.joints), :]


def _pelvis(joints: Tensor, protocol: Protocol) -> Tensor:
    return joints[..., list(protocol.pelvis), :].mean(-2, keepdim=True)


def _mean_distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a - b, dim=-1).mean(-1) * MILLIMETRES


def mpjpe(joints: Tensor, true_joints: Tensor, protocol: str = "smplx24") -> Tensor:
    """Mean joint distance with both pelvises at the origin.

    Args:
        joints, true_joints: (B, J, 3) metres, same orientation of axes, as `protocol_points` gives them.
        protocol: a name in `PROTOCOLS`; joints that it does not name are ignored.
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
        vertices, true_vertices: (B, V, 3) metres, as `protocol_points` gives them.
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
        source, target: (..., N, 3), of any size: a source of nanometres fits as well as one of metres.
    Returns:
        (..., N, 3) the moved source.
    """
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    x, y = source - source_mean, target - target_mean
    size = x.abs().amax((-2, -1), keepdim=True)
    x = x / torch.where(size > 0, size, 1.0)  # squares of small numbers would vanish
    covariance = _times(y.transpose(-1, -2), x)  # (..., 3, 3)
    # One sample's NaN must not end the batch's decomposition; it is still in x or y.
    u, s, vh = torch.linalg.svd(torch.where(covariance.isfinite(), covariance, 0.0))
    proper = torch.ones_like(s)
    proper[..., 2] = torch.where(torch.linalg.det(u) * torch.linalg.det(vh) < 0, -1.0, 1.0)
    rotation = _times(u * proper[..., None, :], vh)
    spread = x.square().sum((-2, -1))  # (...)
    scale = (s * proper).sum(-1) / torch.where(spread > 0, spread, 1.0)
    return scale[..., None, None] * _times(x, rotation.transpose(-1, -2)) + target_mean


def orientation_error(rotmats: Tensor, true_rotmats: Tensor) -> Tensor:
    """Angle between two rotations, degrees in [0, 180]: (..., 3, 3) each -> (...)."""
    return torch.rad2deg(roma.rotmat_geodesic_distance(rotmats, true_rotmats))


class BodyErrors(torchmetrics.Metric):
    """MPJPE, PA-MPJPE and MVE of a protocol, averaged over samples, batches and processes.

    Sums and a count are kept, so batches may be of any size, in any process. `per_sample` gives the single
    errors and keeps nothing.

    Args:
        protocol, smplx_to_smpl, regressor: as in `protocol_points`; the matrices move with `.to()`.
    Raises:
        ValueError: an unknown protocol, or one whose regressor is missing or of another shape.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False
    names = ("mpjpe", "pa_mpjpe", "mve")

    def __init__(
        self,
        protocol: str = "smplx24",
        smplx_to_smpl: Tensor | None = None,
        regressor: Tensor | None = None,
        **options,
    ) -> None:
        super().__init__(**options)
        if _protocol(protocol).regressor is None:
            smplx_to_smpl = regressor = None
        else:
            _check_regressor(protocol, regressor)
        self.protocol = protocol
        for name, matrix in (("smplx_to_smpl", smplx_to_smpl), ("regressor", regressor)):
            if matrix is not None:  # nearly all of either is zero
                matrix = matrix.detach().to_sparse().double().coalesce()
            self.register_buffer(name, matrix, persistent=False)
        self.add_state("sums", torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def points(self, body: BodyOutput) -> BodyOutput:
        """What the errors are taken between, `protocol_points`; a body given to the others may be this."""
        return protocol_points(body, self.protocol, self.smplx_to_smpl, self.regressor)

    def per_sample(self, body: BodyOutput, true_body: BodyOutput) -> dict[str, Tensor]:
        """The three errors of every sample: (B,) each, millimetres."""
        said, true = self.points(body), self.points(true_body)
        return {
            "mpjpe": mpjpe(said.joints, true.joints, self.protocol),
            "pa_mpjpe": pa_mpjpe(said.joints, true.joints, self.protocol),
            "mve": mve(said.vertices, true.vertices, said.joints, true.joints, self.protocol),
        }

    def update(self, body: BodyOutput, true_body: BodyOutput) -> None:
        """Count a batch in: predicted and true bodies, as `protocol_points` takes them."""
        errors = self.per_sample(body, true_body)
        self.sums += torch.stack([errors[name].double().sum() for name in self.names])
        self.count += len(true_body.vertices)

    def compute(self) -> dict[str, Tensor]:
        """The means over all samples of all processes, millimetres, scalars."""
        return dict(zip(self.names, self.sums / self.count, strict=True))


def parts_confusion(labels: Tensor, true_labels: Tensor, num_classes: int = 23) -> Tensor:
    """Count each sample's pixels by (true class, predicted class); sums over samples are counts as well.

    Args:
        labels, true_labels: (B, ...) integers in [0, num_classes).
    Returns:
        (B, num_classes, num_classes) int64, rows are the truth.
    """
    index = (true_labels.long() * num_classes + labels.long()).flatten(1)  # (B, pixels)
    counts = index.new_zeros(len(index), num_classes**2).scatter_add_(1, index, torch.ones_like(index))
    return counts.unflatten(1, (num_classes, num_classes))


def parts_overlap(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels of each class in both prediction and truth, and in either: (..., K, K) -> two of (..., K)."""
    intersection = confusion.diagonal(dim1=-2, dim2=-1)
    return intersection, confusion.sum(-2) + confusion.sum(-1) - intersection


def parts_iou(intersection: Tensor, union: Tensor) -> Tensor:
    """IoU of each class from the counts of `parts_overlap`: (..., K), NaN for a class that is nowhere."""
    return intersection.double() / union


def mean_iou(intersection: Tensor, union: Tensor) -> Tensor:
    """Mean IoU over the 22 parts that occur, the background (class 0) left out: (..., K) each -> (...)."""
    return parts_iou(intersection, union)[..., 1:].nanmean(-1)


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
