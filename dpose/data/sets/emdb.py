"""EMDB (Kaufmann et al. 2023): one person in the wild, measured by electromagnetic sensors and a phone.

From https://emdb.ait.ethz.ch (apply there): P0.zip ... P9.zip, unpacked below the root. The ground truth is
SMPL of the person's gender, so SMPL_python_v.1.1.0.zip of https://smpl.is.tue.mpg.de (register) is needed
too, below $DPOSE_BODY_MODELS.

    <root>/P<n>/<sequence>/P<n>_<sequence>_data.pkl     poses in the world, cameras, boxes
    <root>/P<n>/<sequence>/images/%05d.jpg              the frames

Only the sequences of EMDB 1, the benchmark of body pose, are used, and of them the frames that the makers
call good and whose box they call valid; what is left out is counted. The box is the square around theirs,
times 1.2: theirs hugs the projected body. The 2D joints are the file's own, `kp2d`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dpose.body import Bodies
from dpose.camera import BOX_FACTOR, BOX_UNIT
from dpose.data.frames import FrameSet, Skipped
from dpose.data.labels import Labels
from dpose.data.sets.common import (
    BODY_JOINTS,
    body_files,
    body_name,
    converted,
    merged,
    numbers,
    usable,
    world_bodies,
)
from dpose.unpickle import read_pickle

SPLITS = ("test",)
PROTOCOL = "h36m14"
DATASET = "emdb"
SAME_JOINTS = 0.05  # of the box between `kp2d` and the projected body, in the median
VERSION = 1  # of the conversion: raise it when its results change


def scenes(
    root: Path,
    out: Path,
    split: str,
    skipped: Skipped,
    *,
    bodies: Callable | None = None,
    progress: bool = False,
) -> list[FrameSet]:
    """The sequences of EMDB 1; label files are written to `<out>/labels`.

    bodies: a function of a body's name that returns it; None: a new `dpose.body.Bodies`. Raises
    FileNotFoundError for missing folders and licensed bodies, ValueError for another split, or bodies that
    do not project onto `kp2d`. Sequences that cannot be read, or have no images, are faults.
    """
    if split not in SPLITS:
        raise ValueError(f"EMDB has no split {split!r}; all of it is for testing: {', '.join(SPLITS)}")
    paths = sorted(Path(root).glob("P*/*/*_data.pkl"))
    if not paths:
        raise FileNotFoundError(
            f"no {Path(root)}/P<n>/<sequence>/P<n>_<sequence>_data.pkl: unpack EMDB's P0.zip ... P9.zip there"
        )
    used, found = body_files("smpl", bodies), []
    bodies = bodies or Bodies()
    for path in tqdm(paths, desc="EMDB", unit="sequence", disable=not progress):
        name = path.name.removesuffix("_data.pkl")
        make = lambda skipped, path=path: _labels(path, skipped, bodies)  # noqa: E731
        labels = converted(out, name, [path, *used], VERSION, make, skipped)
        if labels is None:
            continue
        if (path.parent / "images").is_dir():
            found.append(FrameSet(name, labels, path.parent, dataset=DATASET))
        else:
            skipped.fault(f"{path.parent / 'images'}: no images, so {path.name} is left out")
    return found


def _labels(path: Path, skipped: Skipped, bodies: Callable) -> Labels | None:
    """The good frames of one sequence."""
    try:
        frames, person, size = _sequence(path, skipped)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        skipped.fault(f"{path}: not a sequence of EMDB: {reason}")
        return None
    if not len(frames["imgname"]):
        return None
    columns, _ = world_bodies(frames, **person, bodies=bodies)
    low, high, points = frames["box"][:, :2], frames["box"][:, 2:], frames["joints"][:, :BODY_JOINTS]
    side = (high - low).max(1)
    error = np.linalg.norm(points - columns["gtkps"][:, :BODY_JOINTS, :2], axis=-1) / side[:, None]
    if np.median(error) > SAME_JOINTS:
        raise ValueError(
            f"{path}: {person['body']} posed by it does not project onto its kp2d (median distance "
            f"{np.median(error):.2f} of the box); are the SMPL files those of the genders that they are "
            "named after?"
        )
    columns["gtkps"][:, :BODY_JOINTS, :2] = points
    columns["gtkps"][:, :BODY_JOINTS, 2] = ((points >= 0) & (points < size)).all(-1)
    columns |= {"center": (low + high) / 2, "scale": side * BOX_FACTOR / BOX_UNIT}
    return merged([columns], str(path))


def _sequence(path: Path, skipped: Skipped) -> tuple[dict[str, np.ndarray], dict[str, Any], np.ndarray]:
    """A sequence as `world_bodies` takes it, and (w, h) of its images.

    Raises ValueError, KeyError, TypeError or IndexError on what is no sequence of EMDB.
    """
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"holds no dictionary but {type(content).__name__}")
    n, camera, smpl, boxes = int(content["n_frames"]), content["camera"], content["smpl"], content["bboxes"]
    pose = [
        numbers(smpl[f"poses_{part}"], n, k, name=f"poses_{part}") for part, k in (("root", 3), ("body", 69))
    ]
    frames = {
        "imgname": np.array([f"images/{i:05d}.jpg" for i in range(n)]),
        "pose": np.concatenate(pose, 1),
        "trans": numbers(smpl["trans"], n, 3, name="trans"),
        "extrinsics": numbers(camera["extrinsics"], n, 4, 4, name="extrinsics"),
        "joints": numbers(content["kp2d"], n, 24, 2, name="kp2d"),
        "box": numbers(boxes["bboxes"], n, 4, name="bboxes"),
    }
    person = {
        "betas": numbers(np.ravel(smpl["betas"])[:10], 10, name="betas"),
        "intrinsics": numbers(camera["intrinsics"], 3, 3, name="intrinsics"),
        "body": body_name("smpl", content["gender"]),
        "sub": path.name.split("_")[0],
    }
    size = numbers([camera["width"], camera["height"]], 2, name="width, height")
    good = numbers(content["good_frames_mask"], n, name="good_frames_mask") != 0
    valid = np.ones(n, bool)
    valid[numbers(np.ravel(boxes["invalid_idxs"]), None, name="invalid_idxs").astype(int)] = False
    with np.errstate(invalid="ignore"):
        valid &= (frames["box"][:, 2:] > frames["box"][:, :2]).all(1)
    used = np.full(n, bool(content["emdb1"]))
    skipped.drop("sequence not of EMDB 1", (~used).sum())
    skipped.drop("frame marked as bad (good_frames_mask)", (used & ~good).sum())
    skipped.drop("box marked as invalid, or without size", (used & good & ~valid).sum())
    return usable(frames, used & good & valid, str(path), skipped), person, size
