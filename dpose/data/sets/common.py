"""What several data sets need to convert published ground truth to label files.

`converted` keeps a label file as long as what it is made from stays the same. `world_bodies` brings bodies in
the world of a moving camera into the camera's frame (3DPW, EMDB).
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dpose.body import Bodies
from dpose.body.files import GENDERS
from dpose.data.frames import BODY_JOINTS, Skipped, UnreadableFile, body_joints, read_png
from dpose.data.labels import COLUMNS, NUM_BETAS, NUM_JOINTS_2D, Labels
from dpose.data.sample import MAX_BETA
from dpose.io import write_json
from dpose.unpickle import read_pickle

MIN_DEPTH = 0.1  # metres
PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


def converted(
    out: str | os.PathLike,
    name: str,
    sources: Iterable[Path],
    version: int,
    make: Callable[[Skipped], Labels | None],
    skipped: Skipped,
    given: Any = None,
) -> Path | None:
    """The label file `<out>/labels/<name>.npz`: made by `make`, unless a file from the same sources exists.

    Beside it is `<name>.json` with the sources' sizes and times and with what was left out, which a later
    call reports again.

    Args:
        sources: the files that it is made from.
        version: of the conversion; to be raised when its results change.
        make: gets a `Skipped` for what it leaves out; returns None if no person is left.
        given: what else it depends on, as JSON.
    Returns:
        The path; None if no person is left, and so no label file.
    Raises:
        ValueError: the label file would replace one of its sources.
    """
    labels = Path(out) / "labels" / f"{name}.npz"
    beside = labels.with_suffix(".json")
    sources = [Path(path) for path in sources]
    if labels.resolve() in [path.resolve() for path in sources]:
        raise ValueError(f"{labels} would replace what it is made from; give another folder for the output")
    stats = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sources]
    made_from = {"version": version, "sources": stats, "given": given}
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
    beside.unlink(missing_ok=True)  # so that labels are never beside the record of others
    if table is None:
        labels.unlink(missing_ok=True)
    else:
        table.save(labels)  # another part of `dpose prepare` may be reading the same labels
    record = {
        "made_from": made_from,
        "people": 0 if table is None else len(table),
        "dropped": dict(skipped.dropped - dropped),
        "faults": skipped.faults[faults:],
    }
    write_json(beside, record)
    return labels if table is not None else None


# --- reading ------------------------------------------------------------------------------------------------


def read_sequence(
    path: Path, dataset: str, parse: Callable[[dict, Path, Skipped], Any], skipped: Skipped
) -> Any | None:
    """`parse(content, path, skipped)` of a pickled sequence; None, and a fault, if it is not one."""
    try:
        content = read_pickle(path)
        if not isinstance(content, dict):
            raise ValueError(f"holds {type(content).__name__}, not a dictionary")
        return parse(content, path, skipped)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        skipped.fault(f"{path}: not a sequence of {dataset}: {reason}")
    return None


def numbers(value: Any, *shape: int | None, name: str) -> np.ndarray:
    """`value` as float64 of the shape, where None is any length. Raises ValueError naming it."""
    array = np.asarray(value, np.float64)
    fits = [wanted in (None, got) for wanted, got in zip(shape, array.shape, strict=False)]
    if array.ndim != len(shape) or not all(fits):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"'{name}' has shape {array.shape}, expected ({wanted})")
    return array


def ten_betas(value: Any) -> np.ndarray:
    """The first ten betas, float64. Raises ValueError for fewer, or values that no body has."""
    betas = numbers(np.ravel(value)[:10], 10, name="betas")
    if not (np.abs(betas) <= MAX_BETA).all():
        raise ValueError(f"'betas' are {betas.round(2).tolist()}; no body has any beyond {MAX_BETA:g}")
    return betas


def body_name(model: str, gender: Any) -> str:
    """A body's name: "smpl" and "m" -> "smpl-male". Raises ValueError for an unknown gender."""
    names = {name: name for name in GENDERS} | {"m": "male", "f": "female"}
    if str(gender).lower() not in names:
        raise ValueError(f"gender {str(gender)!r} is none of {', '.join(names)}")
    return f"{model}-{names[str(gender).lower()]}"


def gendered(model: str, bodies: Bodies) -> list[str]:
    """The hashes of the male and female body, on which converted labels depend.

    Raises FileNotFoundError, with where to get it, if one is missing.
    """
    return [bodies(f"{model}-{gender}").hash for gender in ("male", "female")]


def pictures(folder: Path) -> list[Path]:
    """The files of a folder that are images by their names; none without the folder."""
    found = folder.iterdir() if folder.is_dir() else ()
    return [path for path in found if path.suffix.lower() in PICTURES]


def image_size(folder: Path) -> tuple[int, int] | None:
    """(w, h) of a folder's images, by the first that can be read; None without one."""
    for path in sorted(pictures(folder)):
        try:
            height, width = read_png(path).shape[:2]
        except UnreadableFile:
            continue
        return width, height
    return None


def merged(tables: list[dict[str, np.ndarray]], source: str) -> Labels | None:
    """One table of several people's columns; None if they are empty."""
    tables = [table for table in tables if len(table["imgname"])]
    if not tables:
        return None
    names = [name for name in COLUMNS if name in tables[0]]
    return Labels(**{name: np.concatenate([t[name] for t in tables]) for name in names}, source=source)


# --- people in the world of a moving camera -----------------------------------------------------------------


def usable(frames: dict[str, np.ndarray], keep: np.ndarray, where: str, skipped: Skipped) -> dict:
    """The rows `keep` of one person's frames without those with numbers that are not finite, a fault.

    Raises ValueError if their extrinsics are no rigid motions.
    """
    frames = {name: value[keep] for name, value in frames.items()}
    sound = np.ones(int(keep.sum()), bool)
    for value in frames.values():
        if value.dtype.kind == "f":
            sound &= np.isfinite(value).all(tuple(range(1, value.ndim)))
    if not sound.all():
        skipped.fault(f"{where}: numbers that are not finite in {(~sound).sum()} of {len(sound)} frames")
        frames = {name: value[sound] for name, value in frames.items()}
    turn = frames["extrinsics"][:, :3, :3]
    rigid = np.allclose(turn @ turn.transpose(0, 2, 1), np.eye(3), atol=1e-3)
    if not rigid or (np.linalg.det(turn) < 0).any():
        raise ValueError("its camera's extrinsics are no rotations and translations")
    return frames


def world_bodies(
    frames: dict[str, np.ndarray],
    *,
    betas: np.ndarray,
    intrinsics: np.ndarray,
    body: str,
    sub: str,
    bodies: Bodies,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One person's frames, SMPL in the world -> columns of `Labels` without a box, and the body's joints.

    Args:
        frames: imgname (N,), pose (N, 72), trans (N, 3), extrinsics (N, 4, 4) world to camera, N > 0.
        betas: (10,). intrinsics: (3, 3). body: its name. sub: the person's.
    Returns:
        The columns; `gtkps` holds the projected joints with confidence 1, but for the last two of the 24, as
        SMPL has no jaw and no eyes. And the joints, (N, 22, 3) metres in the camera's frame.
    """
    n = len(frames["imgname"])
    pose, turn, move = frames["pose"], frames["extrinsics"][:, :3, :3], frames["extrinsics"][:, :3, 3]
    # The root turns the body about its pelvis (of the shaped body at rest), not about the origin.
    pelvis = body_joints([body], betas[None], np.zeros((1, 72)), np.zeros((1, 3)), bodies)[0, 0]
    root = (Rotation.from_matrix(turn) * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    columns = {
        "imgname": frames["imgname"],
        "pose_cam": np.concatenate([root, pose[:, 3:]], 1),
        "shape": np.pad(betas, (0, NUM_BETAS - len(betas)))[None].repeat(n, 0),
        "trans_cam": np.einsum("nij,nj->ni", turn, pelvis + frames["trans"]) + move - pelvis,
        "cam_int": intrinsics[None].repeat(n, 0),
        "gender": np.repeat(body.rpartition("-")[2], n),
        "sub": np.repeat(sub, n),
        "body": np.repeat(body, n),
    }
    joints = body_joints(*(columns[name] for name in ("body", "shape", "pose_cam", "trans_cam")), bodies)
    columns["gtkps"] = np.zeros((n, NUM_JOINTS_2D, 3))
    columns["gtkps"][:, :BODY_JOINTS, :2] = pixels(joints, columns["cam_int"])
    columns["gtkps"][:, :BODY_JOINTS, 2] = 1
    return columns, joints


def pixels(joints: np.ndarray, cam_int: np.ndarray) -> np.ndarray:
    """(N, J, 3) metres -> (N, J, 2) px; meaningless for joints that are not in front of the camera."""
    points = joints @ cam_int.astype(np.float64).transpose(0, 2, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return points[..., :2] / points[..., 2:]
