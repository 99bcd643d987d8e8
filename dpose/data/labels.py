"""Labels: the one table that every data set is converted to, with the columns of BEDLAM's label files.

One row is one person in one frame. A file is a plain `.npz` of equally long arrays, one file per scene; no
pickle is read or written. Cameras are OpenCV (x right, y down, z forward), lengths metres, angles radians,
pixels continuous (the centre of the top left pixel is (0.5, 0.5)).

**Translation.** As in the published files, the camera-frame SMPL-X `transl` is the sum of two columns,
`trans_cam + cam_ext[:, :3, 3]`, so that `vertices = smplx(pose_cam, shape).vertices + labels.transl`. A
writer that only knows the camera-frame `transl` writes it as `trans_cam`, with an identity as `cam_ext`; some
files of AGORA have it in `cam_ext` alone. Read `labels.transl`, never one of the two columns.
"""

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from dpose.body import BODY_NAMES, DEFAULT_BODY
from dpose.data.sample import MAX_BETA
from dpose.io import replacing

NUM_BETAS = 11
NUM_JOINTS_2D = 24
# Of the 22 body joints, in the image; a person with fewer is left out. BEDLAM's script required 12 from June
# 2023 on, and requires 8 since February 2025: label files published in between have fewer people.
MIN_VISIBLE_JOINTS = 8
POSE_SIZE = 165
HANDS = slice(75, 165)
REQUIRED = ("imgname", "center", "scale", "pose_cam", "shape", "gtkps", "cam_int")
TEXT = ("imgname", "gender", "sub", "motion_info", "body")


@dataclass(frozen=True, eq=False)
class Labels:
    """N people. Arrays are float32 or str; optional columns are filled in.

    imgname (N,) str: frame, relative to the scene's folder of images: `<sequence>/<frame>.png`.
    center (N, 2) px and scale (N,) = side of the square box / 200.
    pose_cam (N, 165) axis-angle, root in the camera frame: root 3, body 63, jaw 3, eyes 6, hands 45 + 45. Of
    SMPL the first 72 count: root 3, body 63, hands 6.
    shape (N, 11) betas (ten are padded with a zero).
    gtkps (N, 24, 3) px of the first SMPL-X joints in the full image, and confidence (0 = ignore); further
    joints are dropped.
    cam_int (N, 3, 3) px.
    trans_cam (N, 3) m, cam_ext (N, 4, 4) world to camera: see the module's text. One of them may be absent,
    and is then zero or the identity.
    gender, sub (the person's identity), motion_info (N,) str: "neutral", "" and "" when absent. `gender` is
    the person's, as BEDLAM has it, and does not say which model to pose: that is
    body (N,) str: the body model of pose_cam and shape, one of `dpose.body.BODY_NAMES`; "smplx-neutral" when
    absent.
    source: where the table is from, for messages.

    Raises ValueError with source, column and row for columns of another type, length or shape, unknown
    bodies, and rows that cannot be used: with numbers that are not finite, an empty box or impossible betas.
    """

    imgname: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    pose_cam: np.ndarray
    shape: np.ndarray
    gtkps: np.ndarray
    cam_int: np.ndarray
    trans_cam: np.ndarray | None = None
    cam_ext: np.ndarray | None = None
    gender: np.ndarray | None = None
    sub: np.ndarray | None = None
    motion_info: np.ndarray | None = None
    body: np.ndarray | None = None
    source: str = "labels"

    def __post_init__(self):
        columns = {name: getattr(self, name) for name in COLUMNS if getattr(self, name) is not None}
        for name, value in _normalised(columns, self.source).items():
            object.__setattr__(self, name, value)  # the class is frozen
        if wrong := _unusable_rows(vars(self)):
            row, reason = min(wrong.items())
            raise ValueError(
                f"{self.source}: {len(wrong)} of {len(self)} rows cannot be used; fix or drop them. "
                f"Row {row} ({self.imgname[row]}): {reason}"
            )

    def __len__(self) -> int:
        return len(self.imgname)

    @property
    def transl(self) -> np.ndarray:
        """(N, 3) metres: SMPL-X `transl` in the camera frame."""
        return self.trans_cam + self.cam_ext[:, :3, 3]

    def save(self, path: str | os.PathLike) -> Path:
        """Write the table as `.npz`; the file is complete or absent."""
        path = Path(path)
        columns = {name: getattr(self, name) for name in COLUMNS}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **columns)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike, bad: Callable[[str], object] | None = None) -> "Labels":
        """Read and check a label file.

        bad: called with a message for each row that cannot be used, which is then left out; without it such
        rows are an error. Raises FileNotFoundError, or ValueError when the file is no readable .npz, lacks a
        required column, holds pickled objects, or has columns of the wrong shape.
        """
        columns = _normalised(read_columns(path, REQUIRED, COLUMNS), str(path))
        if bad is not None and (wrong := _unusable_rows(columns)):
            for row, reason in sorted(wrong.items()):
                bad(f"{path}: row {row} ({columns['imgname'][row]}): {reason}")
            keep = np.delete(np.arange(len(columns["imgname"])), list(wrong))
            columns = {name: value[keep] for name, value in columns.items()}
        return cls(**columns, source=str(path))


COLUMNS = tuple(field.name for field in fields(Labels) if field.name != "source")
NUMBERS = tuple(name for name in COLUMNS if name not in TEXT)


def _normalised(columns: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """All columns of `Labels` in their types and shapes. Raises ValueError naming source and column."""
    n = len(np.atleast_1d(columns["imgname"]))
    if "trans_cam" not in columns and "cam_ext" not in columns:
        raise ValueError(f"{source}: has neither column 'trans_cam' nor 'cam_ext', the people's positions")
    defaults = {"trans_cam": np.zeros((n, 3)), "cam_ext": np.broadcast_to(np.eye(4), (n, 4, 4))}
    text = {"gender": "neutral", "sub": "", "motion_info": "", "body": DEFAULT_BODY}
    defaults |= {name: [value] * n for name, value in text.items()}
    out = {}
    for name in COLUMNS:
        value = np.asarray(columns.get(name, defaults.get(name)))
        if name not in TEXT and value.dtype.kind not in "fiub":
            raise ValueError(f"{source}: column '{name}' holds {value.dtype}, not numbers")
        with np.errstate(over="ignore"):  # a value beyond float32 becomes inf and is reported
            value = value.astype(str if name in TEXT else np.float32, copy=False)
        if value.ndim == 0 or len(value) != n:
            got = "a single value" if value.ndim == 0 else f"{len(value)} rows"
            raise ValueError(f"{source}: column '{name}' has {got}, 'imgname' has {n}")
        out[name] = value
    betas = out["shape"].shape[1] if out["shape"].ndim == 2 else 0
    if betas == 10:
        out["shape"] = np.pad(out["shape"], ((0, 0), (0, 1)))
    elif betas > NUM_BETAS:
        raise ValueError(
            f"{source}: column 'shape' has {betas} betas, expected {NUM_BETAS}: use the label files with "
            f"{NUM_BETAS} (BEDLAM's all_npz_12_training, not the ones for {betas})"
        )
    if out["pose_cam"].ndim == 2 and (size := out["pose_cam"].shape[1]) in (66, 72):
        out["pose_cam"] = np.pad(out["pose_cam"], ((0, 0), (0, POSE_SIZE - size)))
    if (points := out["gtkps"]).ndim == 3:
        if points.shape[2] == 2:
            points = np.concatenate([points, np.ones_like(points[..., :1])], -1)
        if points.shape[1] > NUM_JOINTS_2D:
            points = points[:, :NUM_JOINTS_2D].copy()  # a view would keep all of them in memory
        out["gtkps"] = points
    if out["scale"].shape == (n, 1):
        out["scale"] = out["scale"][:, 0]
    shapes = {
        "center": (2,),
        "scale": (),
        "pose_cam": (POSE_SIZE,),
        "shape": (NUM_BETAS,),
        "gtkps": (NUM_JOINTS_2D, 3),
        "cam_int": (3, 3),
        "trans_cam": (3,),
        "cam_ext": (4, 4),
    }
    for name, shape in shapes.items():
        if out[name].shape != (n, *shape):
            raise ValueError(f"{source}: column '{name}' has shape {out[name].shape}, expected {(n, *shape)}")
    if unknown := sorted(set(out["body"].tolist()) - set(BODY_NAMES)):
        raise ValueError(
            f"{source}: unknown bodies in column 'body': {', '.join(unknown)}; choose from "
            f"{', '.join(BODY_NAMES)}"
        )
    return out


def _unusable_rows(columns: dict[str, np.ndarray]) -> dict[int, str]:
    """The rows that cannot be used, see `Labels`, and the first reason of each."""
    wrong: dict[int, str] = {}
    for name in NUMBERS:
        finite = np.isfinite(columns[name])
        for row in np.flatnonzero(~finite.all(tuple(range(1, finite.ndim)))).tolist():
            wrong.setdefault(row, f"'{name}' is not finite")
    for row in np.flatnonzero(columns["scale"] <= 0).tolist():
        wrong.setdefault(row, f"'scale' is {columns['scale'][row]:g}, not positive")
    for row in np.flatnonzero(np.abs(columns["shape"]).max(1) > MAX_BETA).tolist():
        beta = max(columns["shape"][row].tolist(), key=abs)
        wrong.setdefault(row, f"'shape' has the beta {beta:.4g}; no body has any beyond {MAX_BETA:g}")
    return wrong


def read_columns(
    path: str | os.PathLike, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Columns of a label file, ours or published.

    An optional column that needs pickle counts as absent. Of `gtkps` the first 24 joints are kept; published
    are 127. Raises FileNotFoundError, and ValueError naming the file.
    """
    path, columns = Path(path), {}
    if not path.is_file():
        raise FileNotFoundError(f"no label file at {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not an .npz label file, or cut short; download or write it again")
    try:
        with np.load(path, allow_pickle=False) as file:
            if missing := [name for name in required if name not in file.files]:
                raise ValueError(
                    f"{path}: label file lacks the column {', '.join(missing)}; "
                    f"it has {', '.join(file.files) or 'none'}"
                )
            for name in dict.fromkeys((*required, *optional)):
                try:
                    if name in file.files:
                        columns[name] = file[name]
                except ValueError as error:
                    if name in required:
                        raise ValueError(
                            f"{path}: column '{name}' cannot be read without pickle ({error}); "
                            "save it again as a plain array of numbers or text"
                        ) from error
                if name == "gtkps" and name in columns and columns[name].ndim == 3:
                    columns[name] = columns[name][:, :NUM_JOINTS_2D].copy()
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: label file cannot be read ({error}); write it again") from error
    return columns
