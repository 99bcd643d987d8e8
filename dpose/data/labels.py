"""Labels: the one table that every data set is turned into, in the columns of BEDLAM's label files.

One row is one person in one frame. The file is a plain `.npz` of equally long arrays, one file a scene; no
pickle is read or written. Cameras are OpenCV (x right, y down, z forward), lengths metres, angles radians,
pixels continuous (the centre of the top left pixel is (0.5, 0.5)).

**Where the person stands.** As in the published files, the camera-frame SMPL-X `transl` is the sum of two
columns, `trans_cam + cam_ext[:, :3, 3]`, so that `vertices = smplx(pose_cam, shape).vertices +
labels.transl`. A writer that knows the camera-frame `transl` alone writes it as `trans_cam` with `cam_ext` an
identity (what `Labels` fills in when `cam_ext` is left out). Read `labels.transl`, never one of the two
columns.
"""

import os
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from dpose.files import replacing

NUM_BETAS = 11
NUM_JOINTS_2D = 24
POSE_SIZE = 165
HANDS = slice(75, 165)
DEFAULT_BODY = "smplx-neutral"
BODIES = tuple(f"{model}-{gender}" for model in ("smplx", "smpl") for gender in ("neutral", "male", "female"))

REQUIRED = ("imgname", "center", "scale", "pose_cam", "shape", "trans_cam", "gtkps", "cam_int")
TEXT = ("imgname", "gender", "sub", "motion_info", "body")


@dataclass(frozen=True, eq=False)
class Labels:
    """N people. Arrays are float32 but for text; optional columns are filled in or None (see each).

    imgname (N,) str: frame, relative to the scene's `png` folder: `<sequence>/<frame>.png`.
    center (N, 2) px and scale (N,) = side of the square box / 200.
    pose_cam (N, 165) axis-angle, root in the camera frame: root 3, body 63, jaw 3, eyes 6, hands 45 + 45.
    shape (N, 11) betas (ten are padded with a zero). trans_cam (N, 3): see the module's text.
    gtkps (N, J >= 24, 3) px of the first SMPL-X joints in the full image, and confidence (0 = ignore).
    cam_int (N, 3, 3) px. cam_ext (N, 4, 4) world to camera, identity when absent.
    pose_world (N, 165), trans_world (N, 3): as given, else None. proj_verts (N, V, 2) px or None.
    gender, sub (the person's identity), motion_info (N,) str: "neutral", "" and "" when absent. `gender` is
    the person's, as BEDLAM has it, and does not say which model to pose: that is
    body (N,) str: the body model that pose_cam and shape are meant for, a name that
    `dpose.body.named_body` knows, "smplx-neutral" when absent. Of SMPL's the first 72 numbers of pose_cam
    count: root 3, body 63, hands 6.
    """

    imgname: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    pose_cam: np.ndarray
    shape: np.ndarray
    trans_cam: np.ndarray
    gtkps: np.ndarray
    cam_int: np.ndarray
    cam_ext: np.ndarray | None = None
    pose_world: np.ndarray | None = None
    trans_world: np.ndarray | None = None
    gender: np.ndarray | None = None
    sub: np.ndarray | None = None
    motion_info: np.ndarray | None = None
    proj_verts: np.ndarray | None = None
    body: np.ndarray | None = None
    source: str = "labels"

    def __post_init__(self):
        """Bring every column to its type and shape. Raises ValueError naming file, column and row."""
        n = len(np.atleast_1d(self.imgname))
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731 (frozen)
        defaults = {"cam_ext": np.broadcast_to(np.eye(4), (n, 4, 4)), "gender": ["neutral"] * n}
        defaults |= {"sub": [""] * n, "motion_info": [""] * n, "body": [DEFAULT_BODY] * n}
        for name in COLUMNS:
            value = getattr(self, name)
            value = defaults.get(name) if value is None else value
            if value is None:
                continue
            value = np.asarray(value)
            if name in TEXT:
                value = value.astype(str)
            elif value.dtype.kind not in "fiub":
                raise ValueError(f"{self.source}: column '{name}' holds {value.dtype}, not numbers")
            else:
                value = np.asarray(value, np.float32)
            if value.ndim == 0 or len(value) != n:
                got = "a single value" if value.ndim == 0 else f"{len(value)} rows"
                raise ValueError(f"{self.source}: column '{name}' has {got}, 'imgname' has {n}")
            put(name, value)
        if self.shape.ndim == 2 and self.shape.shape[1] == 10:
            put("shape", np.pad(self.shape, ((0, 0), (0, 1))))
        if self.pose_cam.ndim == 2 and self.pose_cam.shape[1] in (66, 72):
            put("pose_cam", np.pad(self.pose_cam, ((0, 0), (0, POSE_SIZE - self.pose_cam.shape[1]))))
        if self.gtkps.ndim == 3 and self.gtkps.shape[2] == 2:
            put("gtkps", np.concatenate([self.gtkps, np.ones_like(self.gtkps[..., :1])], -1))
        put("scale", self.scale[:, 0] if self.scale.shape == (n, 1) else self.scale)
        self._check_shapes(n)
        self._check_values()

    def _check_shapes(self, n: int) -> None:
        wanted = {
            "center": (n, 2),
            "scale": (n,),
            "pose_cam": (n, POSE_SIZE),
            "shape": (n, NUM_BETAS),
            "trans_cam": (n, 3),
            "cam_int": (n, 3, 3),
            "cam_ext": (n, 4, 4),
        }
        for name, shape in wanted.items():
            got = getattr(self, name).shape
            if got != shape:
                raise ValueError(f"{self.source}: column '{name}' has shape {got}, expected {shape}")
        got = self.gtkps.shape
        if len(got) != 3 or got[1] < NUM_JOINTS_2D or got[2] != 3:
            raise ValueError(f"{self.source}: column 'gtkps' has shape {got}, expected (N, >= 24, 2 or 3)")

    def _check_values(self) -> None:
        unknown = sorted(set(self.body.tolist()) - set(BODIES))
        if unknown:
            raise ValueError(
                f"{self.source}: column 'body' names {', '.join(unknown)}; there are {', '.join(BODIES)}"
            )
        for name in ("center", "scale", "pose_cam", "shape", "trans_cam", "gtkps", "cam_int", "cam_ext"):
            value = getattr(self, name)
            bad = ~np.isfinite(value).reshape(len(value), -1).all(1)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise ValueError(
                    f"{self.source}: column '{name}' is not finite in {int(bad.sum())} of {len(bad)} rows, "
                    f"first row {row} ({self.imgname[row]}); fix or drop these rows"
                )
        if (self.scale <= 0).any():
            row = int(np.flatnonzero(self.scale <= 0)[0])
            raise ValueError(
                f"{self.source}: column 'scale' is not positive in row {row} ({self.imgname[row]})"
            )

    def __len__(self) -> int:
        return len(self.imgname)

    @property
    def transl(self) -> np.ndarray:
        """(N, 3) metres: SMPL-X `transl` in the camera frame."""
        return self.trans_cam + self.cam_ext[:, :3, 3]

    def save(self, path: str | os.PathLike) -> Path:
        """Write the table as `.npz`, whole or not at all."""
        path = Path(path)
        columns = {name: getattr(self, name) for name in COLUMNS if getattr(self, name) is not None}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **columns)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Labels":
        """Read and check a label file.

        Raises FileNotFoundError, or ValueError when the file is no readable .npz, lacks a required column,
        holds pickled objects, or has columns of the wrong shape or values that are not finite.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no label file at {path}")
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path}: not an .npz label file, or cut short; download or write it again")
        try:
            with np.load(path, allow_pickle=False) as file:
                missing = [name for name in REQUIRED if name not in file.files]
                if missing:
                    raise ValueError(
                        f"{path}: label file lacks the column {', '.join(missing)}; "
                        f"it has {', '.join(file.files) or 'none'}"
                    )
                columns = {name: _column(file, name, path) for name in COLUMNS if name in file.files}
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path}: label file cannot be read ({error}); write it again") from error
        return cls(**columns, source=str(path))


COLUMNS = tuple(field.name for field in fields(Labels) if field.name != "source")


def _column(file: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray | None:
    """One column; an optional one that only pickle could open counts as absent, a required one is refused."""
    try:
        return file[name]
    except ValueError as error:
        if name in REQUIRED:
            raise ValueError(
                f"{path}: column '{name}' cannot be read without pickle ({error}); "
                "save it again as a plain numeric or string array"
            ) from error
        return None
