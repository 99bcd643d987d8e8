"""Forward computation of SMPL-X and SMPL; the open body is in SMPL-X's format.

`Body` computes what `smplx.SMPLXLayer` computes for the same file (blend shapes, kinematic tree, linear blend
skinning), about four times as fast (`benchmarks/body.py`). By default only the 22 body joints are posed: the
skinning weights of hands, jaw and eyes are added to those of wrists and head, which is exact while these
joints are at rest. Pose correctives are left out if the file's are all zero.

Frame: a body with identity root rotation stands y up, facing +z, with x towards its left; metres.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dpose.rotations import sixd_to_rotmat
from dpose.skeleton import NUM_BODY_JOINTS, NUM_JOINTS, NUM_SMPL_JOINTS, PARENTS, SMPL_PARENTS

HEAD, FIRST_FINGER = 15, 25
HASH_STRIDE = 64  # of the largest arrays every 64th vertex is hashed

# The body joint that carries each of the 55 joints while face and fingers are at rest; and of SMPL's 24.
FOLD = (*range(NUM_BODY_JOINTS), HEAD, HEAD, HEAD, *[20] * 15, *[21] * 15)
SMPL_FOLD = (*range(NUM_BODY_JOINTS), 20, 21)


def _rotvec_to_rotmat(rotvec: Tensor) -> Tensor:
    import roma  # imported here: it imports torch._dynamo, which takes as long as torch itself

    return roma.rotvec_to_rotmat(rotvec)


# Forms of rotations: the shape of one, and the function that turns it into matrices (..., 3, 3).
FORMS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "matrix": ((3, 3), lambda rotations: rotations),
    "axis-angle": ((3,), _rotvec_to_rotmat),
    "6d": ((6,), sixd_to_rotmat),
}


class BodyOutput(NamedTuple):
    """vertices (B, V, 3); joints (B, 55, 3) in SMPL-X's order, or (B, 24, 3) in SMPL's. Metres, in the frame
    of the root rotation.
    """

    vertices: Tensor
    joints: Tensor


class Body(nn.Module):
    """A body model; make one with `load_body`. All tensors are buffers: `.to()`, `.double()` work as usual.

    Args:
        arrays: as `dpose.body.files.read_body` returns them.
        num_betas: number of shape coefficients.
        vertex_stride: n keeps every n-th vertex (and all joints), for losses that need no surface.
        name: one of `BODY_NAMES`, or "custom".
    Attributes:
        faces: (F, 3) int64, empty if `vertex_stride` > 1. part_of_vertex: (V,) int64, body joint 0..21.
        num_vertices, num_betas, num_rotations: V; betas; 22 joint rotations, or 24 for SMPL (hands last).
        name, hash: which model this is; the hash does not depend on file format, betas or stride.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        num_betas: int = 11,
        vertex_stride: int = 1,
        name: str = "custom",
    ) -> None:
        super().__init__()
        if vertex_stride < 1 or num_betas < 1:
            raise ValueError(
                f"vertex_stride and num_betas must be at least 1, got {vertex_stride} and {num_betas}"
            )
        stride = slice(None, None, vertex_stride)
        template, regressor, weights = (
            arrays[key].astype(np.float64) for key in ("v_template", "J_regressor", "weights")
        )
        directions = _shape_directions(arrays, num_betas).astype(np.float64)  # (V, 3, num_betas)
        smpl = _is_smpl(arrays)
        folded = np.zeros((len(weights), NUM_BODY_JOINTS))
        np.add.at(folded.T, np.array(SMPL_FOLD if smpl else FOLD), weights.T)
        joint_directions = np.einsum("jv,vkc->ckj", regressor, directions)  # (num_betas, 3, 55)

        def buffer(name: str, value: np.ndarray, dtype: torch.dtype = torch.float32) -> None:
            tensor = torch.as_tensor(np.ascontiguousarray(value)).to(dtype)
            self.register_buffer(name, tensor, persistent=False)

        # Vertices last: every elementwise step of the skinning then runs along contiguous memory.
        buffer("template", template[stride].T)  # (3, V)
        buffer("directions", directions[stride].transpose(2, 1, 0).reshape(num_betas, -1))  # (num_betas, 3 V)
        buffer("joint_template", (regressor @ template).T)  # (3, 55)
        buffer("joint_directions", joint_directions.reshape(num_betas, -1))  # (num_betas, 3 * 55)
        if smpl:
            moving = np.arange(NUM_SMPL_JOINTS)
            buffer("weights", weights[stride].T)  # (24, V)
            buffer("fold", moving, torch.int64)
        else:
            moving = np.r_[:NUM_BODY_JOINTS, FIRST_FINGER:NUM_JOINTS]  # jaw and eyes are at rest
            with_hands = np.concatenate([folded, weights[:, FIRST_FINGER:]], axis=1)  # (V, 52)
            with_hands[:, 20] -= weights[:, 25:40].sum(1)
            with_hands[:, 21] -= weights[:, 40:55].sum(1)
            fold_hands = np.r_[FOLD[:FIRST_FINGER], NUM_BODY_JOINTS : NUM_BODY_JOINTS + 30]
            buffer("weights", folded[stride].T)  # (22, V)
            buffer("weights_hands", with_hands[stride].T)  # (52, V)
            buffer("fold", np.array(FOLD), torch.int64)
            buffer("fold_hands", fold_hands, torch.int64)
        posedirs = arrays["posedirs"]
        self.has_pose_directions = bool(posedirs.any())
        if self.has_pose_directions:
            columns = (9 * (moving[1:, None] - 1) + np.arange(9)).ravel()
            kept = posedirs[stride][:, :, columns].transpose(2, 1, 0)  # (9 * 51 or 23, 3, V)
            buffer("pose_directions", kept.reshape(len(columns), -1))
        buffer("part_of_vertex", folded[stride].argmax(1), torch.int64)
        faces = arrays["f"] if vertex_stride == 1 else np.zeros((0, 3))
        buffer("faces", faces.astype(np.int64), torch.int64)
        self.num_betas = num_betas
        self.num_rotations = NUM_SMPL_JOINTS if smpl else NUM_BODY_JOINTS
        self.num_vertices = self.template.shape[1]
        self.name, self.hash = name, _hash(arrays)

    @property
    def record(self) -> dict[str, str]:
        """{"name", "hash"}: what data, checkpoints and results record about the body that they belong to."""
        return {"name": self.name, "hash": self.hash}

    def forward(
        self,
        betas: Tensor,
        rotations: Tensor,
        trans: Tensor | None = None,
        hands: Tensor | None = None,
        form: str = "matrix",
        surface: bool = True,
    ) -> BodyOutput:
        """Pose the body: the SMPL-X function with expression, jaw and eyes at rest.

        Differentiable with respect to all four tensors. Computed in the body's own precision, also under
        autocast: bfloat16 would move vertices by centimetres.

        Args:
            betas: (B, num_betas).
            rotations: (B, num_rotations, ...), root first, each relative to its parent.
            trans: (B, 3) metres, SMPL-X's `transl`, added last; None for zero.
            hands: (B, 30, ...), left then right fingers; None for rest, and always None for SMPL.
            form: what `rotations` and `hands` hold: "matrix" (3, 3), not checked; "axis-angle" (3,), radians;
                "6d" (6,), the first two columns of a matrix row by row, as `dpose.rotations` has them (other
                code has column after column).
            surface: False for the joints alone, ten to seventy times as fast; vertices are then (B, 0, 3).
        Raises:
            ValueError: another form or shape.
        """
        if form not in FORMS:
            raise ValueError(f"unknown form of rotations {form!r}; choose one of {', '.join(FORMS)}")
        shape, to_matrices = FORMS[form]
        _check("betas", betas, (self.num_betas,))
        _check(f"rotations as {form!r}", rotations, (self.num_rotations, *shape))
        if trans is not None:
            _check("trans", trans, (3,))
        if hands is not None:
            if self.num_rotations == NUM_SMPL_JOINTS:
                raise ValueError("SMPL has no fingers: leave `hands` out")
            _check(f"hands as {form!r}", hands, (NUM_JOINTS - FIRST_FINGER, *shape))
        given = {"betas": betas, "rotations": rotations, "trans": trans, "hands": hands}
        lengths = {name: len(value) for name, value in given.items() if value is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"batch sizes differ: {', '.join(f'{n} {name}' for name, n in lengths.items())}")
        dtype = self.template.dtype
        with torch.autocast(self.template.device.type, enabled=False):
            return self._pose(
                betas.to(dtype),
                to_matrices(rotations.to(dtype)),
                None if trans is None else trans.to(dtype),
                None if hands is None else to_matrices(hands.to(dtype)),
                surface,
            )

    def _pose(
        self, betas: Tensor, rotmats: Tensor, trans: Tensor | None, hands: Tensor | None, surface: bool
    ) -> BodyOutput:
        joints = torch.addmm(self.joint_template.reshape(-1), betas, self.joint_directions)
        joints = joints.unflatten(1, (3, -1))  # (B, 3, 55)
        weights, carrier, rotations = self.weights, self.fold, rotmats
        if hands is not None:
            weights, carrier = self.weights_hands, self.fold_hands
            rotations = torch.cat([rotmats, hands], dim=1)
        linear, offset = _kinematics(rotations, joints)  # x -> linear x + offset
        if trans is not None:
            offset = offset + trans[:, None]

        rest = joints.transpose(1, 2)[..., None]  # (B, 55, 3, 1)
        posed = (linear[:, carrier] @ rest).squeeze(-1) + offset[:, carrier]  # (B, 55, 3)
        if not surface:
            return BodyOutput(posed[:, :0], posed)

        shape = self._shaped(betas)  # (B, 3, V)
        if self.has_pose_directions:
            feature = (rotations[:, 1:] - torch.eye(3, dtype=betas.dtype, device=betas.device)).flatten(1)
            corrected = torch.addmm(shape.flatten(1), feature, self.pose_directions[: feature.shape[1]])
            shape = corrected.unflatten(1, (3, -1))
        x, y, z = shape.unbind(1)  # (B, V) each
        posed_vertices = []  # one coordinate at a time: all twelve numbers at once would be a huge allocation
        for row in torch.cat([linear, offset[..., None]], dim=-1).unbind(2):  # (B, K, 4)
            along_x, along_y, along_z, moved = (row.transpose(1, 2) @ weights).unbind(1)  # (B, V) each
            posed_vertices.append(moved.addcmul(along_x, x).addcmul(along_y, y).addcmul(along_z, z))
        return BodyOutput(torch.stack(posed_vertices, dim=-1), posed)

    def rest_vertices(self, betas: Tensor) -> Tensor:
        """The surface at rest (T-pose): betas (B, num_betas) -> (B, V, 3) metres, without translation."""
        _check("betas", betas, (self.num_betas,))
        with torch.autocast(self.template.device.type, enabled=False):
            return self._shaped(betas.to(self.template.dtype)).transpose(1, 2).contiguous()

    def _shaped(self, betas: Tensor) -> Tensor:
        return torch.addmm(self.template.reshape(-1), betas, self.directions).unflatten(1, (3, -1))


def _is_smpl(arrays: Mapping[str, np.ndarray]) -> bool:
    return len(arrays["J_regressor"]) == NUM_SMPL_JOINTS


def _shape_directions(arrays: Mapping[str, np.ndarray], num_betas: int) -> np.ndarray:
    """The first `num_betas` shape directions (V, 3, num_betas), zero where the file has fewer.

    As the smplx package reads them: a file with all of its columns (SMPL-X 400, SMPL 300) has 300 shape
    directions, any other 10; the last columns of SMPL-X's are expressions.
    """
    columns = arrays["shapedirs"].shape[-1]
    held = min(300 if columns >= (300 if _is_smpl(arrays) else 400) else 10, columns, num_betas)
    return np.pad(arrays["shapedirs"][..., :held], ((0, 0), (0, 0), (0, num_betas - held)))


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash of a model, 16 hexadecimal digits, independent of file format and precision.

    Of the three largest arrays only a part is hashed: two models differ in nearly all of their entries.
    """
    regressor = np.ravel(arrays["J_regressor"])
    entries = np.flatnonzero(regressor)
    digest = hashlib.sha256()
    for array, dtype in (
        (arrays["v_template"], np.float32),
        (arrays["f"], np.int64),
        (entries, np.int64),
        (regressor[entries], np.float32),
        (_shape_directions(arrays, 11), np.float32),
        (arrays["weights"][::HASH_STRIDE], np.float32),
        (arrays["posedirs"][::HASH_STRIDE], np.float32),
    ):
        digest.update(np.ascontiguousarray(array, dtype))
    return digest.hexdigest()[:16]


# Parents by number of rotations: SMPL's joints; the 22 body joints; these and the 30 fingers, whose indices
# are smaller by 3, as jaw and eyes are left out.
_TREES = {
    NUM_SMPL_JOINTS: SMPL_PARENTS,
    NUM_BODY_JOINTS: PARENTS[:NUM_BODY_JOINTS],
    NUM_JOINTS - 3: PARENTS[:NUM_BODY_JOINTS]
    + tuple(p if p < FIRST_FINGER else p - 3 for p in PARENTS[FIRST_FINGER:]),
}


def _kinematics(rotations: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
    """World transforms of the joints relative to the rest pose.

    rotations: (B, K, 3, 3) relative to the parent, K = 22, 24 or 52; joints: (B, 3, 55 or 24) rest positions.
    Returns linear (B, K, 3, 3) and offset (B, K, 3) with x_posed = linear x_rest + offset.
    """
    parents = _TREES[rotations.shape[1]]
    if rotations.shape[1] > NUM_SMPL_JOINTS:
        joints = torch.cat([joints[:, :, :NUM_BODY_JOINTS], joints[:, :, FIRST_FINGER:]], dim=2)
    rest = joints.transpose(1, 2)[:, : len(parents), :, None]  # (B, K, 3, 1)
    linear, offset = [rotations[:, 0]], [rest[:, 0] - rotations[:, 0] @ rest[:, 0]]
    for joint in range(1, len(parents)):
        parent = parents[joint]
        turn = linear[parent] @ rotations[:, joint]
        # The joint itself moves with its parent; what follows it turns about it.
        offset.append(linear[parent] @ rest[:, joint] + offset[parent] - turn @ rest[:, joint])
        linear.append(turn)
    return torch.stack(linear, dim=1), torch.stack(offset, dim=1).squeeze(-1)


def _check(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if value.dim() != len(shape) + 1 or value.shape[1:] != shape:
        raise ValueError(
            f"{name} must have shape (B, {', '.join(map(str, shape))}), got {tuple(value.shape)}"
        )
