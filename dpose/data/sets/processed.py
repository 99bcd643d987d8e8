"""Label files that BEDLAM's authors processed for evaluation (3DPW, RICH), completed to `Labels`.

They hold pose, shape and box of each person, but neither a camera nor a translation. Both are made up: a
focal length of sqrt(w^2 + h^2), the principal point in the middle of the image, and the body where its joints
fill its box. 2D joints get confidence 0.
"""

import warnings
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dpose.body import Bodies
from dpose.camera import BOX_FACTOR, BOX_UNIT
from dpose.data.frames import FrameSet, Skipped, body_joints
from dpose.data.labels import NUM_BETAS, NUM_JOINTS_2D, Labels, read_columns
from dpose.data.sample import MAX_BETA
from dpose.data.sets import common
from dpose.data.sets.common import numbers

VERSION = 3  # to be raised when the same files give another table
COLUMNS = ("imgname", "center", "scale", "pose_cam", "shape", "gender")


def processed_scene(
    path: Path,
    model: str,
    folders: list[Path],
    out: Path,
    skipped: Skipped,
    bodies: Bodies,
    dataset: str,
    progress: bool = False,
) -> list[FrameSet]:
    """The scene of a processed label file; none if no person is left.

    model: "smpl" or "smplx", of the person's gender. folders: what imgname may be relative to. The other
    arguments and what is raised: see `dpose.data.sets`.
    """
    columns = read_columns(path, COLUMNS, ("sub",))
    names = columns["imgname"] = np.asarray(columns["imgname"]).astype(str)
    wrong = [name for name, value in columns.items() if value.shape[:1] != names.shape]
    if wrong or names.ndim != 1:
        raise ValueError(f"{path}: {', '.join(wrong) or 'imgname'} not as long as imgname")
    inside = {str(Path(name).parent) for name in names.tolist()}
    images = next((base for base in folders if any((base / folder).is_dir() for folder in inside)), None)
    if images is None:
        where = " or ".join(str(base / names[0]) for base in folders) if len(names) else str(folders[0])
        raise FileNotFoundError(
            f"no images of {path}: searched for {where}; get them from the set's own site"
        )
    there = [folder for folder in sorted(inside) if common.pictures(images / folder)]

    def make(skipped: Skipped) -> Labels | None:
        sizes = {folder: common.image_size(images / folder) for folder in there}
        for folder in sorted(inside):
            if sizes.get(folder) is None:
                count = sum(str(Path(name).parent) == folder for name in names.tolist())
                skipped.fault(f"{images / folder}: no images, so {count} people of {path.name} are left out")
                sizes.pop(folder, None)
        return _complete(columns, model, sizes, path, skipped, bodies, progress)

    given = [there, common.gendered(model, bodies)]
    labels = common.converted(out, path.stem, [path], VERSION, make, skipped, given)
    return [] if labels is None else [FrameSet(path.stem, labels, images, dataset=dataset)]


def _complete(
    columns: dict[str, np.ndarray],
    model: str,
    sizes: dict[str, tuple[int, int]],
    path: Path,
    skipped: Skipped,
    bodies: Bodies,
    progress: bool,
) -> Labels | None:
    """The table of a processed file. sizes: (w, h) of the images of each folder that has some."""
    try:
        body = np.array([common.body_name(model, gender) for gender in columns["gender"].tolist()], str)
        pose, shape = (numbers(columns[name], None, None, name=name) for name in ("pose_cam", "shape"))
        center = numbers(columns["center"], None, 2, name="center")
        side = BOX_UNIT * numbers(columns["scale"].reshape(-1), len(center), name="scale")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    width = 72 if model == "smpl" else 165 if pose.shape[1] == 165 else 66
    if pose.shape[1] < width or shape.shape[1] < 10:
        got = f"'pose_cam' has {pose.shape[1]} numbers, 'shape' {shape.shape[1]}"
        raise ValueError(f"{path}: {got}; expected at least {width} and 10")
    if shape[:, NUM_BETAS:].any():
        raise ValueError(
            f"{path}: 'shape' has {shape.shape[1]} numbers, more than the {NUM_BETAS} that are used here: is "
            "it of another version of the set?"
        )
    parents = np.array([str(Path(name).parent) for name in columns["imgname"].tolist()])
    there = np.isin(parents, list(sizes))
    good = (np.isfinite(a).all(1) for a in (pose[:, :width], center, side[:, None]))
    sound = np.logical_and.reduce([*good, side > 0, (np.abs(shape) <= MAX_BETA).all(1)])
    if (there & ~sound).any():
        skipped.fault(
            f"{path}: {(there & ~sound).sum()} of {len(sound)} people have a box without size, betas beyond "
            f"{MAX_BETA:g}, or numbers that are not finite; the first is row {np.argmax(there & ~sound)}"
        )
    keep = there & sound
    if not keep.any():
        return None
    size = np.array([sizes[folder] for folder in parents[keep]], float)
    center, side, body, n = center[keep], side[keep], body[keep], int(keep.sum())
    if np.mean(((center < 0) | (center > size)).any(1)) > 0.5:
        raise ValueError(
            f"{path}: most boxes are outside their images, which must have the size that the file is for"
        )
    pose, shape = pose[keep, :width], shape[keep, :NUM_BETAS]
    with tqdm(total=n, desc="bodies", unit="person", disable=not progress) as bar:
        joints = body_joints(body, shape, pose, np.zeros((n, 3)), bodies, bar.update)
    cam_int = np.zeros((n, 3, 3))
    cam_int[:, 0, 0] = cam_int[:, 1, 1] = np.linalg.norm(size, axis=1)
    cam_int[:, :2, 2], cam_int[:, 2, 2] = size / 2, 1
    transl, reached = into_boxes(joints, center, side, cam_int)
    if not reached.all():
        warnings.warn(f"{path}: {(~reached).sum()} of {n} bodies do not quite fill their box", stacklevel=2)
    return Labels(
        imgname=columns["imgname"][keep],
        center=center,
        scale=columns["scale"].reshape(-1)[keep],
        pose_cam=pose,
        shape=shape,
        gtkps=np.zeros((n, NUM_JOINTS_2D, 3)),
        cam_int=cam_int,
        trans_cam=transl,
        gender=[name.rpartition("-")[2] for name in body],
        sub=columns["sub"][keep] if "sub" in columns else None,
        body=body,
        source=str(path),
    )


def into_boxes(
    joints: np.ndarray, center: np.ndarray, side: np.ndarray, cam_int: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The translations with which bodies fill their boxes.

    joints (N, J, 3) metres, of bodies anywhere; center (N, 2) and side (N,) px; cam_int (N, 3, 3). Returns
    the translation (N, 3) after which the square around the projected joints has the box's centre and its
    side divided by `BOX_FACTOR`, and whether that was reached to a hundredth of a pixel: a box wider than the
    view may need a body that is partly behind the camera.
    """
    focal = np.stack([cam_int[:, 0, 0], cam_int[:, 1, 1]], 1).astype(np.float64)
    wanted, middle = side / BOX_FACTOR, (joints.min(1) + joints.max(1)) / 2
    joints = joints - middle[:, None]
    nearest = common.MIN_DEPTH - joints[..., 2].min(1)
    at = np.empty((len(joints), 3))
    at[:, 2] = np.maximum(focal.mean(1) * np.ptp(joints[..., :2], axis=1).max(1) / wanted, nearest)
    at[:, :2] = (center - cam_int[:, :2, 2]) / focal * at[:, 2:]
    left, miss = np.arange(len(joints)), np.zeros(len(joints))
    for _ in range(300):  # about 60 for most; steps are short, as a body that fills the view would overshoot
        points = common.pixels(joints[left] + at[left, None], cam_int[left])
        low, high = points.min(1), points.max(1)
        size, off = (high - low).max(1), center[left] - (low + high) / 2
        miss[left] = np.maximum(np.abs(size - wanted[left]), np.abs(off).max(1))
        go = miss[left] > 1e-6
        left, size, off = left[go], size[go], off[go]
        if not len(left):
            break
        ray = at[left, :2] / at[left, 2:] + 0.5 * off / focal[left]
        at[left, 2] = np.maximum(at[left, 2] * (size / wanted[left]) ** 0.3, nearest[left])
        at[left, :2] = ray * at[left, 2:]
    return at - middle, miss < 0.01
