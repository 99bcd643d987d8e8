"""Errors of predicted bodies, part maps and depth maps, one value per sample, computed on the inputs' device.

Inputs are in metres, errors in millimetres. A *protocol* defines which joints are compared, how they are
obtained and what the pelvis is (`PROTOCOLS`). Errors have shape (B,), one per sample, so the error of any set
of samples is a plain mean. `BodyErrors` takes this mean as a `torchmetrics` metric, also over processes. IoU
is not a mean over samples: pixel counts are summed first.

Autocast and TF32 do not affect the results. A sample whose values are not finite has errors that are not
finite, and does not change those of other samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
import torchmetrics
from torch import Tensor

from dpose.body import BodyOutput
from dpose.body.regressors import combine

MILLIMETRES = 1000.0


REGRESSORS = {  # joint regressors over SMPL's vertices: description, and number of joints
    "h36m": ("the Human3.6M joint regressor over SMPL's vertices, J_regressor_h36m.npy (17, 6890)", 17),
    "smpl": ("SMPL's own joint regressor, its file's J_regressor (24, 6890)", 24),
}


@dataclass(frozen=True)
class Protocol:
    """Which joints are compared, how they are obtained, and what the pelvis is.

    Attributes:
        joints: indices of the joints that are compared.
        pelvis: indices of the joints whose mean is the pelvis.
        regressor: None: the body model's own joints and vertices are compared. Otherwise a name in
            `REGRESSORS`: vertices are converted to SMPL's and compared there, joints are regressed from them.
    """

    joints: tuple[int, ...]
    pelvis: tuple[int, ...]
    regressor: str | None = None

    @property
    def regressed(self) -> int:
        """Number of joints of the regressor; 0 without one."""
        return 0 if self.regressor is None else REGRESSORS[self.regressor][1]


HIPS = (1, 2)  # of SMPL and SMPL-X
LSP = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)  # right leg up, left leg down, arms alike, neck, head

PROTOCOLS: dict[str, Protocol] = {
    # 3DPW and EMDB in the released code: the 14 LSP joints among Human3.6M's 17, and its pelvis.
    "h36m14": Protocol(LSP, (0,), "h36m"),
    # RICH in the released code: SMPL's joints, midpoint of the hips.
    "smpl24": Protocol(tuple(range(24)), HIPS, "smpl"),
    # BEDLAM validation in the released code: 22 body joints, jaw and left eye, midpoint of the hips.
    "smplx24": Protocol(tuple(range(24)), HIPS),
    # 3DPW and EMDB in the paper's text: SMPL's joints without the hands, SMPL's pelvis.
    "smpl22": Protocol(tuple(range(22)), (0,), "smpl"),
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
    """The vertices and joints of a body that a protocol compares.

    `smplx24` uses the body model's own. The other protocols use SMPL's vertices: vertices of another body are
    converted by a matrix, joints are regressed from the result, and the body model's joints are ignored. Both
    matrices are in licensed files, so they are arguments. Applying the function to its own result returns the
    same points.

    Args:
        body: vertices (B, V, 3), metres, and joints (B, J, 3), or None where the protocol regresses them.
        protocol: a name in `PROTOCOLS`.
        smplx_to_smpl: (6890, V), sparse or dense; not needed if the vertices are SMPL's.
        regressor: (J, 6890), sparse or dense, the protocol's regressor.
    Returns:
        vertices (B, V or 6890, 3) and joints (B, J, 3), metres, in the body's frame.
    Raises:
        ValueError: the protocol is unknown, or a matrix that it needs is missing or has another shape.
    """
    p = _protocol(protocol)
    if p.regressor is None:
        return body
    _check_regressor(protocol, regressor)
    vertices, (there, here) = body.vertices, (regressor.shape[1], body.vertices.shape[-2])
    if here != there:
        if smplx_to_smpl is None:
            raise ValueError(
                f"protocol {protocol!r} compares SMPL's {there} vertices, but this body has {here}: give "
                f"`smplx_to_smpl`, the ({there}, {here}) matrix that converts them, or SMPL's vertices"
            )
        if tuple(smplx_to_smpl.shape) != (there, here):
            raise ValueError(
                f"`smplx_to_smpl` has shape {tuple(smplx_to_smpl.shape)}, but must be ({there}, {here}) to "
                f"convert the body's {here} vertices to SMPL's {there}"
            )
        vertices = combine(smplx_to_smpl, vertices)
    return BodyOutput(vertices, combine(regressor, vertices))


def _check_regressor(protocol: str, regressor: Tensor | None) -> None:
    description, joints = REGRESSORS[PROTOCOLS[protocol].regressor]
    if regressor is None:
        raise ValueError(f"protocol {protocol!r} needs `regressor`: {description}")
    if regressor.ndim != 2 or regressor.shape[0] != joints:
        raise ValueError(
            f"protocol {protocol!r} needs {description}; `regressor` has shape {tuple(regressor.shape)}"
        )


def _times(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for small matrices, in the inputs' precision on CUDA and under autocast too."""
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
    """Mean per-joint position error with both pelvises at the origin.

    Args:
        joints, true_joints: (B, J, 3), metres, with parallel axes, as returned by `protocol_points`.
        protocol: a name in `PROTOCOLS`; joints that it does not name are ignored.
    Returns:
        (B,) millimetres.
    """
    p = _protocol(protocol)
    aligned = (_select(j, p) - _pelvis(j, p) for j in (joints, true_joints))
    return _mean_distance(*aligned)


def pa_mpjpe(joints: Tensor, true_joints: Tensor, protocol: str = "smplx24") -> Tensor:
    """MPJPE after Procrustes alignment of each sample (`similarity_align`). Arguments as for `mpjpe`."""
    p = _protocol(protocol)
    source, target = _select(joints, p), _select(true_joints, p)
    return _mean_distance(similarity_align(source, target), target)


def mve(
    vertices: Tensor, true_vertices: Tensor, joints: Tensor, true_joints: Tensor, protocol: str = "smplx24"
) -> Tensor:
    """Mean vertex error with both pelvises at the origin.

    Args:
        vertices, true_vertices: (B, V, 3), metres, as returned by `protocol_points`.
        joints, true_joints: (B, J, 3), metres, in the vertices' frames; they determine the pelvis.
        protocol: a name in `PROTOCOLS`.
    Returns:
        (B,) millimetres.
    """
    p = _protocol(protocol)
    return _mean_distance(vertices - _pelvis(joints, p), true_vertices - _pelvis(true_joints, p))


def similarity_align(source: Tensor, target: Tensor) -> Tensor:
    """Procrustes alignment: moves `source` by the similarity with the least squared distance to `target`.

    Umeyama's closed form, without reflections. If the solution is not unique (a single point, identical,
    collinear or coplanar points), one of the optimal solutions is used, so that the residual is minimal and
    finite.

    Args:
        source, target: (..., N, 3), of any scale.
    Returns:
        (..., N, 3) the scaled, rotated and translated source.
    """
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    x, y = source - source_mean, target - target_mean
    size = x.abs().amax((-2, -1), keepdim=True)
    x = x / torch.where(size > 0, size, 1.0)  # squares of small values would underflow
    covariance = _times(y.transpose(-1, -2), x)  # (..., 3, 3)
    # NaN in one sample would make the decomposition of the batch fail. It remains in x or y.
    u, s, vh = torch.linalg.svd(torch.where(covariance.isfinite(), covariance, 0.0))
    proper = torch.ones_like(s)
    proper[..., 2] = torch.where(torch.linalg.det(u) * torch.linalg.det(vh) < 0, -1.0, 1.0)
    rotation = _times(u * proper[..., None, :], vh)
    spread = x.square().sum((-2, -1))  # (...)
    scale = (s * proper).sum(-1) / torch.where(spread > 0, spread, 1.0)
    return scale[..., None, None] * _times(x, rotation.transpose(-1, -2)) + target_mean


def orientation_error(rotmats: Tensor, true_rotmats: Tensor) -> Tensor:
    """Angle between rotations (..., 3, 3): (...) degrees in [0, 180]."""
    return torch.rad2deg(roma.rotmat_geodesic_distance(rotmats, true_rotmats))


class BodyErrors(torchmetrics.Metric):
    """MPJPE, PA-MPJPE and MVE of a protocol, averaged over samples, batches and processes.

    The state is sums and a count, so batches may differ in size. `per_sample` returns the errors of single
    samples and does not change the state.

    Args:
        protocol, smplx_to_smpl, regressor: as in `protocol_points`; the matrices move with `.to()`.
    Raises:
        ValueError: the protocol is unknown, or its regressor is missing or has another shape.
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
            if matrix is not None:  # both are nearly all zeros
                matrix = matrix.detach().to_sparse().double().coalesce()
            self.register_buffer(name, matrix, persistent=False)
        self.add_state("sums", torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def points(self, body: BodyOutput) -> BodyOutput:
        """`protocol_points` of a body. The other methods also take its result in place of a body."""
        return protocol_points(body, self.protocol, self.smplx_to_smpl, self.regressor)

    def per_sample(self, body: BodyOutput, true_body: BodyOutput) -> dict[str, Tensor]:
        """The three errors of every sample: (B,) each, millimetres."""
        points, true = self.points(body), self.points(true_body)
        return {
            "mpjpe": mpjpe(points.joints, true.joints, self.protocol),
            "pa_mpjpe": pa_mpjpe(points.joints, true.joints, self.protocol),
            "mve": mve(points.vertices, true.vertices, points.joints, true.joints, self.protocol),
        }

    def update(self, body: BodyOutput, true_body: BodyOutput) -> None:
        """Adds a batch of predicted and true bodies."""
        errors = self.per_sample(body, true_body)
        self.sums += torch.stack([errors[name].double().sum() for name in self.names])
        self.count += len(true_body.vertices)

    def compute(self) -> dict[str, Tensor]:
        """The means over all samples of all processes: scalars, millimetres."""
        return dict(zip(self.names, self.sums / self.count, strict=True))


def parts_confusion(labels: Tensor, true_labels: Tensor, num_classes: int = 23) -> Tensor:
    """Confusion matrix of each sample's pixels.

    Args:
        labels, true_labels: (B, ...) integers in [0, num_classes).
    Returns:
        (B, num_classes, num_classes) int64 pixel counts by (true class, predicted class).
    """
    index = (true_labels.long() * num_classes + labels.long()).flatten(1)  # (B, pixels)
    counts = index.new_zeros(len(index), num_classes**2).scatter_add_(1, index, torch.ones_like(index))
    return counts.unflatten(1, (num_classes, num_classes))


def parts_overlap(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of each class, in pixels, of a confusion matrix: (..., K, K) -> 2 x (..., K)."""
    intersection = confusion.diagonal(dim1=-2, dim2=-1)
    return intersection, confusion.sum(-2) + confusion.sum(-1) - intersection


def parts_iou(intersection: Tensor, union: Tensor) -> Tensor:
    """IoU of each class from the counts of `parts_overlap`: (..., K), NaN for a class without pixels."""
    return intersection.double() / union


def mean_iou(intersection: Tensor, union: Tensor) -> Tensor:
    """Mean IoU over the parts that have pixels, without the background (class 0): (..., K) each -> (...)."""
    return parts_iou(intersection, union)[..., 1:].nanmean(-1)


def depth_l1(depth: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute depth error on each sample's person pixels, where target > 0.

    Args:
        depth, target: (B, 1, M, M); target is 0 on the background.
    Returns:
        error (B,), 0 for a sample without person pixels, and the number of these pixels (B,). The error of a
        data set is sum(error x count) / sum(count).
    """
    mask = target > 0
    count = mask.flatten(1).sum(1)
    error = torch.where(mask, (depth - target).abs(), 0.0).flatten(1).sum(1) / count.clamp(min=1)
    return error, count
