"""The parametric human: betas and joint rotations in, posed vertices and joints out.

`Body` computes what `smplx.SMPLXLayer` computes (spec section 7: blend shapes, kinematic tree, linear blend
skinning) for the same files, about four times as fast (`benchmarks/body.py`) where this project needs only
the 22 body joints: the hands', jaw's and eyes' skinning weights fold into wrists and head, which is exact
while those joints rest; pose correctives are skipped where the file's are all zero. The same class computes
SMPL, whose ground truth some benchmarks have. `dpose.body.files` reads the licensed files of both as they are
downloaded; nothing here fits, renders or converts. Nothing assumes a vertex count: ask the body.

Frames: a body with identity root rotation stands y up, facing +z, x towards its left; metres.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import roma
import torch
from torch import Tensor, nn

from dpose.body import files
from dpose.rotations import sixd_to_rotmat
from dpose.skeleton import (
    JOINT_NAMES,
    NUM_BODY_JOINTS,
    NUM_JOINTS,
    NUM_SMPL_JOINTS,
    PARENTS,
    PART_NAMES,
    SMPL_JOINT_NAMES,
    SMPL_PARENTS,
)  # fmt: skip

__all__ = [
    "BODY_NAMES",
    "DEFAULT_BODY",
    "FORMS",
    "JOINT_NAMES",
    "NUM_BODY_JOINTS",
    "NUM_JOINTS",
    "NUM_SMPL_JOINTS",
    "OPEN_BODIES",
    "OPEN_BODY",
    "OPEN_SMPL",
    "PARENTS",
    "PART_NAMES",
    "SMPL_JOINT_NAMES",
    "SMPL_PARENTS",
    "Bodies",
    "Body",
    "BodyOutput",
    "check_record",
    "load_body",
    "num_rotations",
]

DEFAULT_BODY = "smplx-neutral"  # of labels that name none: BEDLAM's published files
OPEN_BODIES = ("open", "open-smpl")  # the open body in SMPL-X's format, and coarser in SMPL's
BODY_NAMES = OPEN_BODIES + tuple(
    f"{model}-{gender}" for model in ("smplx", "smpl") for gender in ("neutral", "male", "female")
)

OPEN_BODY = Path(__file__).resolve().parents[1] / "assets" / "smplx" / "SMPLX_NEUTRAL.npz"
OPEN_SMPL = OPEN_BODY.parents[1] / "smpl" / "SMPL_NEUTRAL.npz"  # the same body, coarser, in SMPL's layout

HEAD, FIRST_FINGER = 15, 25

# The body joint that carries each of the 55 joints while face and fingers rest; and SMPL's hands.
FOLD = (*range(NUM_BODY_JOINTS), HEAD, HEAD, HEAD, *[20] * 15, *[21] * 15)
SMPL_FOLD = (*range(NUM_BODY_JOINTS), 20, 21)

# How rotations may be given: the shape of one, and what makes matrices (..., 3, 3) of them.
FORMS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "matrix": ((3, 3), lambda rotations: rotations),
    "axis-angle": ((3,), roma.rotvec_to_rotmat),
    "6d": ((6,), sixd_to_rotmat),
}


def num_rotations(name: str) -> int:
    """How many joints a label for the body of this name poses: 24 of SMPL's, 22 of SMPL-X's."""
    return NUM_SMPL_JOINTS if name == "open-smpl" or name.startswith("smpl-") else NUM_BODY_JOINTS


class BodyOutput(NamedTuple):
    """vertices: (B, V, 3), joints: (B, 55, 3) in SMPL-X's order, or (B, 24, 3) in SMPL's; metres, in the root
    rotation's frame.
    """

    vertices: Tensor
    joints: Tensor


class Body(nn.Module):
    """A body model; make one with `load_body`. All tensors are buffers: `.to()`, `.double()` work as usual.

    Attributes: faces (F, 3) int64 (empty if `vertex_stride` > 1), part_of_vertex (V,) int64 in 0..21,
    num_vertices, num_betas, num_rotations (22; SMPL's are 24, the hands last). `name` is one of `BODY_NAMES`
    ("custom" for a file under another name), `hash` identifies the model's arrays whatever file format and
    options they were read with; `record` is both, for what is made with this body.
    `vertex_stride` n keeps every n-th vertex (and all joints), for losses that need no surface.
    """

    def __init__(
        self, arrays: dict[str, np.ndarray], num_betas: int = 11, vertex_stride: int = 1, name: str = "custom"
    ) -> None:
        super().__init__()
        if vertex_stride < 1 or num_betas < 1:
            raise ValueError(
                f"vertex_stride and num_betas must be at least 1, got {vertex_stride} and {num_betas}"
            )
        stride = slice(None, None, vertex_stride)
        template = arrays["v_template"].astype(np.float64)
        regressor = arrays["J_regressor"].astype(np.float64)
        weights = arrays["weights"].astype(np.float64)
        smpl = len(regressor) == NUM_SMPL_JOINTS
        directions = _shape_directions(arrays["shapedirs"], num_betas, full=300 if smpl else 400)
        directions = directions.astype(np.float64)  # (V, 3, num_betas)
        folded = np.zeros((len(weights), NUM_BODY_JOINTS))
        np.add.at(folded.T, np.array(SMPL_FOLD if smpl else FOLD), weights.T)
        joint_directions = np.einsum("jv,vkc->ckj", regressor, directions)  # (num_betas, 3, 55)

        def buffer(name: str, value: np.ndarray, dtype: torch.dtype = torch.float32) -> None:
            self.register_buffer(
                name, torch.as_tensor(np.ascontiguousarray(value)).to(dtype), persistent=False
            )

        # Vertex-last layouts: every elementwise step of the skinning then runs along contiguous memory.
        buffer("template", template[stride].T)  # (3, V)
        buffer("directions", directions[stride].transpose(2, 1, 0).reshape(num_betas, -1))  # (num_betas, 3 V)
        buffer("joint_template", (regressor @ template).T)  # (3, 55)
        buffer("joint_directions", joint_directions.reshape(num_betas, -1))  # (num_betas, 3 * 55)
        if smpl:
            moving = np.arange(NUM_SMPL_JOINTS)
            buffer("weights", weights[stride].T)  # (24, V)
            buffer("fold", moving, torch.int64)
        else:
            moving = np.r_[:NUM_BODY_JOINTS, FIRST_FINGER:NUM_JOINTS]  # jaw and eyes rest
            with_hands = np.concatenate([folded, weights[:, FIRST_FINGER:]], axis=1)  # (V, 52)
            with_hands[:, 20] -= weights[:, 25:40].sum(1)
            with_hands[:, 21] -= weights[:, 40:55].sum(1)
            buffer("weights", folded[stride].T)  # (22, V)
            buffer("weights_hands", with_hands[stride].T)  # (52, V)
            buffer("fold", np.array(FOLD), torch.int64)
            buffer(
                "fold_hands", np.r_[FOLD[:FIRST_FINGER], NUM_BODY_JOINTS : NUM_BODY_JOINTS + 30], torch.int64
            )
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
        self.name = name
        self.hash = _hash(arrays)
        self.num_rotations = NUM_SMPL_JOINTS if smpl else NUM_BODY_JOINTS
        self.num_vertices = self.template.shape[1]

    @property
    def record(self) -> dict[str, str]:
        """{"name", "hash"}: what data, checkpoints and results say about the body they belong to."""
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
        """Poses the body (the SMPL-X function, with expression, jaw and eyes at rest).

        betas: (B, num_betas). rotations: (B, num_rotations, ...), root first, each relative to its parent.
        trans: (B, 3) metres, SMPL-X's `transl`, added last; None for zero. hands: (B, 30, ...), left then
        right fingers; None for rest, and always for SMPL, which has no fingers. form: what `rotations` and
        `hands` hold, "matrix" (3, 3), taken as they are; "axis-angle" (3,), radians; or "6d" (6,), the first
        two columns row by row, as `dpose.model.regressor` reads them (others write column after column).
        surface: False for the joints alone, ten to seventy times as fast; the vertices are then (B, 0, 3).
        Differentiable with respect to all four. Raises ValueError for other forms and shapes. Computed in the
        body's own precision, also within autocast: bfloat16 would move vertices by centimetres.
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
                raise ValueError("SMPL has no fingers to pose: leave `hands` out")
            _check(f"hands as {form!r}", hands, (NUM_JOINTS - FIRST_FINGER, *shape))
        given = {"betas": betas, "rotations": rotations, "trans": trans, "hands": hands}
        lengths = {name: len(value) for name, value in given.items() if value is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"not one batch: {', '.join(f'{n} {name}' for name, n in lengths.items())}")
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
        posed_vertices = []  # by coordinate: all twelve numbers at once would be a huge allocation
        for row in torch.cat([linear, offset[..., None]], dim=-1).unbind(2):  # (B, K, 4)
            along_x, along_y, along_z, moved = (row.transpose(1, 2) @ weights).unbind(1)  # (B, V) each
            posed_vertices.append(moved.addcmul(along_x, x).addcmul(along_y, y).addcmul(along_z, z))
        return BodyOutput(torch.stack(posed_vertices, dim=-1), posed)

    def rest_vertices(self, betas: Tensor) -> Tensor:
        """The T-posed surface of these betas (B, num_betas) -> (B, V, 3) metres, without translation."""
        _check("betas", betas, (self.num_betas,))
        with torch.autocast(self.template.device.type, enabled=False):
            return self._shaped(betas.to(self.template.dtype)).transpose(1, 2).contiguous()

    def _shaped(self, betas: Tensor) -> Tensor:
        return torch.addmm(self.template.reshape(-1), betas, self.directions).unflatten(1, (3, -1))


def load_body(path: str | Path | None = None, num_betas: int = 11, vertex_stride: int = 1) -> Body:
    """Reads a body: SMPL-X or SMPL, .npz or .pkl, as downloaded. Nothing in a file is ever run.

    path: None, the open body; one of `BODY_NAMES`, whose licensed files are looked for below
    $DPOSE_BODY_MODELS; or a file, of whatever gender. Its name among `BODY_NAMES` follows from the file's.
    SMPL-X files with fewer than 400 `shapedirs` columns, and SMPL files with fewer than 300, hold 10 betas
    (smplx's own reading); further betas then do nothing. Raises FileNotFoundError for a missing file,
    ValueError for one with missing keys, wrong shapes or values, or with a pickle that could run something.
    """
    path = path or "open"
    if str(path) in BODY_NAMES:
        name = str(path)
        path = {"open": OPEN_BODY, "open-smpl": OPEN_SMPL}.get(name) or files.locate(name)
    else:
        known = {OPEN_BODY: "open", OPEN_SMPL: "open-smpl"}
        name = known.get(Path(path).resolve()) or files.key_of(path) or "custom"
    return Body(files.read_body(path), num_betas, vertex_stride, name)


class Bodies:
    """Body models by name: `bodies("smplx-neutral")`. Each is read once, with 11 betas, and kept.

    Args:
        device: where they are put.
        given: bodies that stand for their own names, for instance one read from a file of the user's.
        records: {name: {"hash": ...}} of what is going to be used with them, as manifests and checkpoints
            hold it. A body whose hash differs is refused.
    """

    def __init__(
        self,
        device: str | torch.device = "cpu",
        given: Iterable[Body] = (),
        records: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.device, self.records = torch.device(device), records or {}
        self._bodies: dict[str, Body] = {}
        for body in given:
            self._add(body.name, body)

    def __call__(self, name: str) -> Body:
        """Raises ValueError for an unknown name or another body than was recorded, FileNotFoundError, with
        where to get it, for a licensed file that is not there.
        """
        if name not in self._bodies:
            if name not in BODY_NAMES:
                raise ValueError(f"unknown body {name!r}; choose one of {', '.join(BODY_NAMES)}")
            self._add(name, load_body(name))
        return self._bodies[name]

    def _add(self, name: str, body: Body) -> None:
        check_record(body, self.records.get(name), "the data")
        self._bodies[name] = body.to(self.device)


def check_record(body: Body, record: Mapping[str, str] | None, what: str) -> None:
    """Raises ValueError if `what` was made with another body than this one; no record, no check."""
    if record and record.get("hash") and record["hash"] != body.hash:
        raise ValueError(
            f"{what} belongs to the body {record.get('name', body.name)} ({record['hash']}), not to "
            f"{body.name} ({body.hash}): another version or file of the body model was used to make it"
        )


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    """16 hexadecimal digits that are the same for one model in any file format."""
    digest = hashlib.sha256()
    for key in ("v_template", "J_regressor", "weights", "posedirs", "f"):
        array = np.asarray(arrays[key])
        if key == "posedirs" and not array.any():
            array = array[:0]
        digest.update(np.ascontiguousarray(array, np.int64 if key == "f" else np.float32))
    full = 300 if len(arrays["J_regressor"]) == NUM_SMPL_JOINTS else 400
    digest.update(np.ascontiguousarray(_shape_directions(arrays["shapedirs"], 11, full), np.float32))
    return digest.hexdigest()[:16]


def _shape_directions(shapedirs: np.ndarray, num_betas: int, full: int) -> np.ndarray:
    """The first `num_betas` shape directions (V, 3, num_betas), zero where the file has no more (smplx's
    reading: the last columns of SMPL-X's are expressions).
    """
    held = min(300 if shapedirs.shape[-1] >= full else 10, shapedirs.shape[-1], num_betas)
    return np.pad(shapedirs[..., :held], ((0, 0), (0, 0), (0, num_betas - held)))


# The trees that are walked: 22 body joints; these and the 30 fingers (whose indices shift by 3); SMPL's.
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
        # The joint itself is carried by its parent; the rest turns about it.
        offset.append(linear[parent] @ rest[:, joint] + offset[parent] - turn @ rest[:, joint])
        linear.append(turn)
    return torch.stack(linear, dim=1), torch.stack(offset, dim=1).squeeze(-1)


def _check(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if value.dim() != len(shape) + 1 or value.shape[1:] != shape:
        raise ValueError(
            f"{name} must have shape (B, {', '.join(map(str, shape))}), got {tuple(value.shape)}"
        )
