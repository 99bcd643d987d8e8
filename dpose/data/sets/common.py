"""What the data sets' modules share on the way from published ground truth to label files.

`converted` keeps a made label file as long as what it was made from stays the same. `world_bodies` takes
bodies of a moving camera's world into the camera's frame (3DPW, EMDB); `processed_scene` completes the label
files of BEDLAM's authors, which say neither where a person stands nor with which camera (3DPW, RICH).
"""

import json
import os
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from dpose.body import Bodies, files
from dpose.camera import BOX_FACTOR, BOX_UNIT
from dpose.data.frames import FrameSet, Skipped, UnreadableFile, labelled_joints, read_png
from dpose.data.labels import COLUMNS, NUM_BETAS, NUM_JOINTS_2D, Labels, read_columns
from dpose.io import replacing

BODY_JOINTS = 22
MIN_DEPTH = 0.1  # metres
GENDERS = {"m": "male", "f": "female"} | {name: name for name in files.GENDERS}
PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
CHUNK = 256


def converted(
    out: str | os.PathLike,
    name: str,
    sources: list[Path],
    version: int,
    make: Callable[[Skipped], Labels | None],
    skipped: Skipped,
    given: Any = None,
) -> Path | None:
    """The label file `<out>/labels/<name>.npz`: made by `make`, unless it is there and made from the same.

    sources: the files that it is made from. version: of the conversion; raise it when its results change.
    given: what else it depends on, as JSON holds it. `make` reports what it leaves out to the `Skipped` it
    gets, and returns None where nobody is left: then there is no label file, and so is the answer. Beside the
    labels lies `<name>.json` with the sources' sizes and times and with what was left out, which a later call
    reports again; it is there before the labels are, which so are never taken for published ones.
    Raises ValueError if the label file would replace one of its sources.
    """
    labels = Path(out) / "labels" / f"{name}.npz"
    beside = labels.with_suffix(".json")
    if labels.resolve() in [Path(path).resolve() for path in sources]:
        raise ValueError(f"{labels} would replace what it is made from; give another folder for the output")
    stats = [(path, path.stat()) for path in map(Path, sources)]
    made_from = {
        "version": version,
        "sources": [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in stats],
        "given": given,
    }
    try:
        record = json.loads(beside.read_text())
        people, dropped, faults = record["people"], dict(record["dropped"]), list(record["faults"])
        fits = record["made_from"] == json.loads(json.dumps(made_from))
    except (OSError, ValueError, KeyError, TypeError):
        fits = False  # none, or not one of ours: made again
    if fits and (labels.is_file() or not people):
        for rule, count in dropped.items():
            skipped.drop(rule, count)
        for fault in faults:
            skipped.fault(fault)
        return labels if people else None
    dropped, faults = Counter(skipped.dropped), len(skipped.faults)
    table = make(skipped)
    labels.unlink(missing_ok=True)  # so that labels never lie beside another one's record
    if table is not None:
        _write_json(beside, {"unfinished": made_from})
        table.save(labels)
    record = {
        "made_from": made_from,
        "people": 0 if table is None else len(table),
        "dropped": dict(skipped.dropped - dropped),
        "faults": skipped.faults[faults:],
    }
    _write_json(beside, record)
    return labels if table is not None else None


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


# --- reading ------------------------------------------------------------------------------------------------


def numbers(value: Any, *shape: int | None, name: str) -> np.ndarray:
    """`value` as float64 of the shape, None standing for any length. Raises ValueError naming it."""
    array = np.asarray(value, np.float64)
    fits = [wanted in (None, got) for wanted, got in zip(shape, array.shape, strict=False)]
    if array.ndim != len(shape) or not all(fits):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"'{name}' has shape {array.shape}, expected ({wanted})")
    return array


def body_name(model: str, gender: Any) -> str:
    """ "smpl" and "m" -> "smpl-male". Raises ValueError for what is no gender of the body models."""
    name = GENDERS.get(str(gender).lower())
    if name is None:
        raise ValueError(f"gender {str(gender)!r} is none of {', '.join(GENDERS)}")
    return f"{model}-{name}"


def body_files(model: str, bodies: Callable | None) -> list[Path]:
    """The licensed files of the men and women of a set, as sources of its labels; none with `bodies` of the
    caller's own. Raises FileNotFoundError that says where to get them.
    """
    return [] if bodies else [files.locate(f"{model}-{gender}") for gender in ("male", "female")]


def pictures(folder: Path) -> list[Path]:
    """The files of a folder, if it is there, that are pictures by their names."""
    found = folder.iterdir() if folder.is_dir() else ()
    return [path for path in found if path.suffix.lower() in PICTURES]


def image_size(folder: Path) -> tuple[int, int] | None:
    """(w, h) of a folder's pictures, by the first that can be read; None without one."""
    for path in sorted(pictures(folder)):
        try:
            height, width = read_png(path).shape[:2]
        except UnreadableFile:
            continue
        return width, height
    return None


# --- geometry -----------------------------------------------------------------------------------------------


def world_to_camera(root, transl, pelvis, extrinsics) -> tuple[np.ndarray, np.ndarray]:
    """SMPL's root rotation and `transl` in the world -> the same in the camera's frame, float64.

    root (N, 3) axis-angle, transl (N, 3) and pelvis (3,) or (N, 3) metres, extrinsics (N, 4, 4) world to
    camera. The root turns the body about its pelvis (of the shaped body at rest), not about the origin.
    """
    turn, move = extrinsics[:, :3, :3], extrinsics[:, :3, 3]
    rotation = Rotation.from_matrix(turn) * Rotation.from_rotvec(root)
    return rotation.as_rotvec(), np.einsum("nij,nj->ni", turn, pelvis + transl) + move - pelvis


def usable(frames: dict[str, np.ndarray], keep: np.ndarray, where: str, skipped: Skipped) -> dict:
    """The rows `keep` of one person's frames, without those whose numbers are not finite, which are a fault.

    Raises ValueError where their extrinsics are no rigid motions.
    """
    frames = {name: value[keep] for name, value in frames.items()}
    sound = np.ones(int(keep.sum()), bool)
    for value in frames.values():
        if value.dtype.kind == "f":
            sound &= np.isfinite(value).reshape(len(value), -1).all(1) if len(value) else sound
    if not sound.all():
        skipped.fault(f"{where}: numbers that are not finite in {(~sound).sum()} of {len(sound)} frames")
        frames = {name: value[sound] for name, value in frames.items()}
    turn = frames["extrinsics"][:, :3, :3]
    if (
        not np.allclose(turn @ turn.transpose(0, 2, 1), np.eye(3), atol=1e-3)
        or (np.linalg.det(turn) < 0).any()
    ):
        raise ValueError("its camera's extrinsics are no rotations and translations")
    return frames


def world_bodies(
    frames: dict[str, np.ndarray],
    *,
    betas: np.ndarray,
    intrinsics: np.ndarray,
    body: str,
    sub: str,
    bodies: Callable,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One person's frames, SMPL in the world -> columns of `Labels` without a box, and the body's joints.

    frames: imgname (N,), pose (N, 72), trans (N, 3), extrinsics (N, 4, 4) world to camera, N > 0. betas
    (10,), intrinsics (3, 3). Joints (N, 22, 3) metres in the camera's frame. `gtkps` holds their projection,
    with confidence 1; SMPL has no jaw and no eyes, so that the last two of the 24 have none.
    """
    pose, n = frames["pose"], len(frames["pose"])
    shape = torch.from_numpy(np.pad(betas, (0, NUM_BETAS - len(betas)))[None]).float()
    with torch.no_grad():
        rest = bodies(body)(shape, torch.zeros(1, 24, 3), form="axis-angle")
    pelvis = rest.joints[0, 0].double().cpu().numpy()
    root, transl = world_to_camera(pose[:, :3], frames["trans"], pelvis, frames["extrinsics"])
    columns = {
        "imgname": frames["imgname"],
        "pose_cam": np.concatenate([root, pose[:, 3:]], 1),
        "shape": np.repeat(betas[None], n, 0),
        "trans_cam": transl,
        "cam_int": np.repeat(intrinsics[None], n, 0),
        "gender": np.repeat(body.rpartition("-")[2], n),
        "sub": np.repeat(sub, n),
        "body": np.repeat(body, n),
    }
    joints = camera_joints(columns, bodies)
    columns["gtkps"] = np.zeros((n, NUM_JOINTS_2D, 3))
    columns["gtkps"][:, :BODY_JOINTS, :2] = pixels(joints, columns["cam_int"])
    columns["gtkps"][:, :BODY_JOINTS, 2] = 1
    return columns, joints


def camera_joints(columns: dict[str, np.ndarray], bodies: Callable, progress: bool = False) -> np.ndarray:
    """(N, 22, 3) float64 metres: the body joints of people whose labels may yet lack all but pose, shape and
    body (who then stand at the origin).
    """
    n = len(columns["imgname"])
    blank = {"center": (2,), "scale": (), "trans_cam": (3,), "gtkps": (NUM_JOINTS_2D, 3), "cam_int": (3, 3)}
    blank = {name: np.ones((n, *shape)) * (name == "scale") for name, shape in blank.items()}
    labels, joints = Labels(**blank | {k: v for k, v in columns.items() if k != "gtkps"}), []
    with tqdm(total=n, desc="bodies", unit="person", disable=not progress) as bar:
        for start in range(0, n, CHUNK):
            joints.append(labelled_joints(labels, np.arange(start, min(start + CHUNK, n)), bodies))
            bar.update(len(joints[-1]))
    return np.concatenate(joints)


def pixels(joints: np.ndarray, cam_int: np.ndarray) -> np.ndarray:
    """(N, J, 3) metres -> (N, J, 2) px; nonsense where a joint is not before the camera."""
    points = joints @ cam_int.astype(np.float64).transpose(0, 2, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return points[..., :2] / points[..., 2:]


def into_boxes(joints, center, side, cam_int) -> tuple[np.ndarray, np.ndarray]:
    """Where to put bodies so that their joints, projected, fill their boxes.

    joints (N, J, 3) metres of bodies standing anywhere, center (N, 2) and side (N,) px, cam_int (N, 3, 3).
    Returns the translation (N, 3) after which the square around the joints has the box's centre and its side
    divided by `BOX_FACTOR`, and whether that was reached to a hundredth of a pixel: a box wider than the view
    may ask for more than a body can do without coming behind the camera.
    """
    focal = np.stack([cam_int[:, 0, 0], cam_int[:, 1, 1]], 1).astype(np.float64)
    wanted, middle = side / BOX_FACTOR, (joints.min(1) + joints.max(1)) / 2
    joints = joints - middle[:, None]
    nearest = MIN_DEPTH - joints[..., 2].min(1)
    at = np.empty((len(joints), 3))
    at[:, 2] = np.maximum(focal.mean(1) * np.ptp(joints[..., :2], axis=1).max(1) / wanted, nearest)
    at[:, :2] = (center - cam_int[:, :2, 2]) / focal * at[:, 2:]
    left, miss = np.arange(len(joints)), np.zeros(len(joints))
    for _ in range(300):  # some 60 for most; short steps, as a body that fills the view would overshoot
        points = pixels(joints[left] + at[left, None], cam_int[left])
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


# --- processed label files ----------------------------------------------------------------------------------

VERSION = 2  # of `processed_scene`: raise it when its results change


def processed_scene(
    path: Path,
    model: str,
    folders: list[Path],
    out: Path,
    skipped: Skipped,
    *,
    dataset: str,
    bodies: Callable | None = None,
    progress: bool = False,
) -> list[FrameSet]:
    """The scene of a label file of BEDLAM's authors with imgname, center, scale, pose_cam, shape and gender.

    model: "smpl" or "smplx". folders: what imgname may be relative to. Where the file has no camera and no
    translation, or they do not put the bodies into their boxes (then with a warning), they are made up: focal
    length sqrt(w^2 + h^2), principal point in the middle, and the body where its joints fill its box.
    Its 2D joints are taken over if they are those of its bodies; else nobody claims to know any
    (confidence 0). Raises FileNotFoundError without images, ValueError on a malformed file.
    """
    needed = ("imgname", "center", "scale", "pose_cam", "shape", "gender")
    columns = read_columns(path, needed, ("trans_cam", "cam_int", "cam_ext", "gtkps", "sub"))
    names = columns["imgname"] = np.asarray(columns["imgname"]).astype(str)
    wrong = [name for name, value in columns.items() if value.shape[:1] != names.shape]
    if wrong or names.ndim != 1:
        raise ValueError(f"{path}: {', '.join(wrong) or 'imgname'} not as long as imgname")
    inside = {str(Path(name).parent) for name in names.tolist()}
    images = next((base for base in folders if any((base / folder).is_dir() for folder in inside)), None)
    if images is None:
        where = " or ".join(str(base / names[0]) for base in folders) if len(names) else str(folders[0])
        raise FileNotFoundError(f"no images of {path}: looked for {where}; get them from the set's own site")
    there = [folder for folder in sorted(inside) if pictures(images / folder)]

    def make(skipped: Skipped) -> Labels | None:
        sizes = {folder: image_size(images / folder) for folder in there}
        for folder in sorted(inside):
            if sizes.get(folder) is None:
                count = sum(str(Path(name).parent) == folder for name in names.tolist())
                skipped.fault(f"{images / folder}: no images, so {count} people of {path.name} are left out")
                sizes.pop(folder, None)
        return _complete(columns, model, sizes, path, skipped, bodies, progress)

    sources = [path, *body_files(model, bodies)]
    bodies = bodies or Bodies()
    labels = converted(out, path.stem, sources, VERSION, make, skipped, given=there)
    return [] if labels is None else [FrameSet(path.stem, labels, images, dataset=dataset)]


def _complete(columns, model, sizes, path, skipped, bodies, progress) -> Labels | None:
    """The table of `processed_scene`."""
    try:
        body = np.array([body_name(model, gender) for gender in columns["gender"].tolist()], str)
        pose, shape = (numbers(columns[name], None, None, name=name) for name in ("pose_cam", "shape"))
        center = numbers(columns["center"], None, 2, name="center")
        side = BOX_UNIT * numbers(columns["scale"].reshape(-1), len(center), name="scale")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    width = 72 if model == "smpl" else 165 if pose.shape[1] == 165 else 66
    if pose.shape[1] < width or shape.shape[1] < 10:
        got = f"'pose_cam' has {pose.shape[1]} numbers, 'shape' {shape.shape[1]}"
        raise ValueError(f"{path}: {got}; expected at least {width} and 10")
    if shape.shape[1] > NUM_BETAS and shape[:, NUM_BETAS:].any():
        raise ValueError(
            f"{path}: 'shape' has {shape.shape[1]} numbers, more than the {NUM_BETAS} that are used here: is "
            "it of another version of the set?"
        )
    parents = [str(Path(name).parent) for name in columns["imgname"].tolist()]
    there = np.array([folder in sizes for folder in parents], bool)
    good = (np.isfinite(a).all(1) for a in (pose[:, :width], shape, center, side[:, None]))
    sound = np.logical_and.reduce([*good, side > 0])
    if (there & ~sound).any():
        skipped.fault(
            f"{path}: {(there & ~sound).sum()} of {len(sound)} people have a box without size, or numbers "
            "that are not finite"
        )
    keep = there & sound
    if not keep.any():
        return None
    kept = {name: value[keep] for name, value in columns.items()}
    kept |= {"pose_cam": pose[keep, :width], "shape": shape[keep, :NUM_BETAS], "body": body[keep]}
    kept |= {"gender": [name.rpartition("-")[2] for name in body[keep]]}
    center, side, n = center[keep], side[keep], int(keep.sum())
    blank = np.zeros((n, NUM_JOINTS_2D, 3))
    posed = {name: kept[name] for name in ("imgname", "pose_cam", "shape", "body")}
    joints = camera_joints(posed, bodies, progress)
    if "cam_int" in kept and ("trans_cam" in kept or "cam_ext" in kept):
        kept.setdefault("trans_cam", np.zeros((n, 3)))
        table = Labels(**kept | {"gtkps": blank}, source=str(path))
        points = pixels(joints + table.transl[:, None].astype(np.float64), table.cam_int)
        away = np.abs(points.mean(1) - center).max(1)
        if np.mean(away < side / 2) > 0.9:
            return Labels(**kept | {"gtkps": _own_joints(kept, points, side, model)}, source=str(path))
        warnings.warn(
            f"{path}: its cameras and translations do not put the bodies into their boxes; made up instead",
            stacklevel=2,
        )
    size = np.array([sizes[folder] for folder, taken in zip(parents, keep, strict=True) if taken], float)
    if np.mean(((center < 0) | (center > size)).any(1)) > 0.5:
        raise ValueError(
            f"{path}: most boxes lie outside their images, which must be of the size that it was made for"
        )
    cam_int = np.zeros((n, 3, 3))
    cam_int[:, 0, 0] = cam_int[:, 1, 1] = np.linalg.norm(size, axis=1)
    cam_int[:, :2, 2], cam_int[:, 2, 2] = size / 2, 1
    kept["trans_cam"], reached = into_boxes(joints, center, side, cam_int)
    if not reached.all():
        warnings.warn(f"{path}: {(~reached).sum()} of {n} bodies do not quite fill their box", stacklevel=2)
    kept |= {"cam_int": cam_int, "cam_ext": None, "gtkps": blank}
    return Labels(**kept, source=str(path))


def _own_joints(columns, points: np.ndarray, side: np.ndarray, model: str) -> np.ndarray:
    """A file's `gtkps` if they are the joints of its bodies, on `points` (N, 22, 2); else confidence 0."""
    n, given = len(points), columns.get("gtkps")
    own = np.zeros((n, NUM_JOINTS_2D, 3))
    if given is None or given.ndim != 3 or given.shape[1] < NUM_JOINTS_2D or given.shape[2] not in (2, 3):
        return own
    own[..., 2] = 1
    own[..., : given.shape[2]] = given[:, :NUM_JOINTS_2D]
    known = own[:, :BODY_JOINTS, 2] > 0
    error = np.linalg.norm(own[:, :BODY_JOINTS, :2] - points, axis=-1) / side[:, None]
    if not (np.isfinite(own).all() and known.any() and np.median(error[known]) < 0.05):
        return np.zeros_like(own)
    if model == "smpl":
        own[:, BODY_JOINTS:] = 0
    return own


def merged(tables: list[dict[str, np.ndarray]], source: str) -> Labels | None:
    """One table of several people's columns; None of none."""
    tables = [table for table in tables if len(table["imgname"])]
    if not tables:
        return None
    names = [name for name in COLUMNS if name in tables[0]]
    return Labels(**{name: np.concatenate([t[name] for t in tables]) for name in names}, source=source)
