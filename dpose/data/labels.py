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
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from dpose.body import BODY_NAMES, DEFAULT_BODY
from dpose.io import replacing

NUM_BETAS = 11
NUM_JOINTS_2D = 24
MIN_VISIBLE_JOINTS = 8  # of the 22 body joints, in the image; a person with fewer is left out
POSE_SIZE = 165
HANDS = slice(75, 165)
REQUIRED = ("imgname", "center", "scale", "pose_cam", "shape", "trans_cam", "gtkps", "cam_int")
TEXT = ("imgname", "gender", "sub", "motion_info", "body")


@dataclass(frozen=True, eq=False)
class Labels:
    """N people. Arrays are float32 but for text; optional columns are filled in or None (see each).

    imgname (N,) str: frame, relative to the scene's `png` folder: `<sequence>/<frame>.png`.
    center (N, 2) px and scale (N,) = side of the square box / 200.
    pose_cam (N, 165) axis-angle, root in the camera frame: root 3, body 63, jaw 3, eyes 6, hands 45 + 45.
    shape (N, 11) betas (ten are padded with a zero). trans_cam (N, 3): see the module's text.
    gtkps (N, 24, 3) px of the first SMPL-X joints in the full image, and confidence (0 = ignore); of more, as
    published, the first 24 are kept.
    cam_int (N, 3, 3) px. cam_ext (N, 4, 4) world to camera, identity when absent.
    gender, sub (the person's identity), motion_info (N,) str: "neutral", "" and "" when absent. `gender` is
    the person's, as BEDLAM has it, and does not say which model to pose: that is
    body (N,) str: the body model that pose_cam and shape are meant for, a name that
    is among `dpose.body.BODY_NAMES`, "smplx-neutral" when absent. Of SMPL's the first 72 numbers of pose_cam
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
    gender: np.ndarray | None = None
    sub: np.ndarray | None = None
    motion_info: np.ndarray | None = None
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
            value = np.asarray(defaults[name] if value is None else value)
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
        if self.gtkps.ndim == 3 and self.gtkps.shape[1] > NUM_JOINTS_2D:
            put("gtkps", self.gtkps[:, :NUM_JOINTS_2D].copy())  # a view would keep all of them in memory
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
        unknown = sorted(set(self.body.tolist()) - set(BODY_NAMES))
        if unknown:
            raise ValueError(
                f"{self.source}: column 'body' names {', '.join(unknown)}; there are {', '.join(BODY_NAMES)}"
            )
        for name in NUMBERS:
            value = getattr(self, name)
            bad = ~_each_row(np.isfinite(value))
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
        columns = {name: getattr(self, name) for name in COLUMNS}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **columns)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike, bad: Callable[[str], object] | None = None) -> "Labels":
        """Read and check a label file.

        bad: is told of each row that has numbers that are not finite, or a box without size, which is then
        left out; without it they are refused. Raises FileNotFoundError, or ValueError when the file is no
        readable .npz, lacks a required column, holds pickled objects, or has columns of the wrong shape.
        """
        columns = read_columns(path, REQUIRED, COLUMNS)
        return cls(**(columns if bad is None else sound_rows(columns, str(path), bad)), source=str(path))


COLUMNS = tuple(field.name for field in fields(Labels) if field.name != "source")
NUMBERS = tuple(name for name in COLUMNS if name not in TEXT)


def _each_row(fits: np.ndarray) -> np.ndarray:
    """(N, ...) bool -> (N,): whether all of a row."""
    return fits.all(tuple(range(1, fits.ndim)))


def sound_rows(
    columns: dict[str, np.ndarray], source: str, bad: Callable[[str], object]
) -> dict[str, np.ndarray]:
    """Columns of `Labels` without the rows that it would refuse for their numbers; `bad` is told of each."""
    n = len(np.atleast_1d(columns["imgname"]))
    wrong: dict[int, str] = {}
    for name in NUMBERS:
        value = np.asarray(columns.get(name, np.zeros(n)))
        if value.shape[:1] != (n,) or value.dtype.kind not in "fiub":
            return columns  # `Labels` says what is wrong with them
        rows = np.flatnonzero(~_each_row(np.isfinite(value)))
        wrong = dict.fromkeys(rows.tolist(), f"'{name}' is not finite") | wrong
    if "scale" in columns:
        rows = np.flatnonzero(_each_row(columns["scale"] <= 0))
        wrong = dict.fromkeys(rows.tolist(), "'scale' is not positive") | wrong
    for row, reason in sorted(wrong.items()):
        bad(f"{source}: row {row} ({columns['imgname'][row]}): {reason}")
    keep = ~np.isin(np.arange(n), list(wrong))
    return {name: np.asarray(value)[keep] for name, value in columns.items()} if wrong else columns


def read_columns(
    path: str | os.PathLike, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Columns of a label file, ours or published.

    An optional one that only pickle could open counts as absent. Of `gtkps` the first 24 joints are taken:
    published are 127. Raises FileNotFoundError, and ValueError naming the file.
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
                            "save it again as a plain numeric or string array"
                        ) from error
                if name == "gtkps" and name in columns and columns[name].ndim == 3:
                    columns[name] = columns[name][:, :NUM_JOINTS_2D].copy()
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: label file cannot be read ({error}); write it again") from error
    return columns
