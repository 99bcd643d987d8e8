"""EMDB (Kaufmann et al. 2023): one person in the wild, measured by electromagnetic sensors and a phone.

From https://emdb.ait.ethz.ch (apply there): P0.zip ... P9.zip, unpacked below the root. The ground truth is
SMPL of the person's gender, so SMPL_python_v.1.1.0.zip of https://smpl.is.tue.mpg.de (register) is needed
too, below $DPOSE_BODY_MODELS.

    <root>/P<n>/<sequence>/P<n>_<sequence>_data.pkl     poses in the world, cameras, boxes
    <root>/P<n>/<sequence>/images/%05d.jpg              the frames

Only the sequences of EMDB 1, the benchmark of body pose, are used, and of them the frames that the file marks
as good and whose box it marks as valid; what is left out is counted. The box is the square around the file's
`bboxes`, times 1.2: these are tight around the projected body. The 2D joints are the file's own, `kp2d`.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dpose.body import Bodies
from dpose.camera import BOX_FACTOR, BOX_UNIT
from dpose.data.frames import BODY_JOINTS, FrameSet, Skipped
from dpose.data.labels import Labels
from dpose.data.sets import common
from dpose.data.sets.common import numbers

SPLITS = ("test",)
PROTOCOL = "h36m14"
VERSION = 1  # to be raised when the same files give another table


def scenes(
    root: Path, out: Path, split: str, skipped: Skipped, bodies: Bodies, progress: bool = False
) -> list[FrameSet]:
    """One scene per sequence of EMDB 1; see `dpose.data.sets`.

    Sequences that cannot be read, or have no images, are faults. That bodies project onto `kp2d` is checked
    when the labels are read (`dpose.data.frames.check_projection`).
    """
    paths = sorted(root.glob("P*/*/*_data.pkl"))
    if not paths:
        raise FileNotFoundError(
            f"no {root}/P<n>/<sequence>/P<n>_<sequence>_data.pkl: unpack EMDB's P0.zip ... P9.zip there"
        )
    found, given = [], common.gendered("smpl", bodies)
    for path in tqdm(paths, desc="EMDB", unit="sequence", disable=not progress):
        if not (path.parent / "images").is_dir():
            skipped.fault(f"{path.parent / 'images'}: no images, so {path.name} is left out")
            continue
        name = path.name.removesuffix("_data.pkl")
        labels = common.converted(out, name, [path], VERSION, partial(_labels, path, bodies), skipped, given)
        if labels is not None:
            found.append(FrameSet(name, labels, path.parent, dataset="emdb"))
    return found


def _labels(path: Path, bodies: Bodies, skipped: Skipped) -> Labels | None:
    """The good frames of one sequence."""
    if (sequence := common.read_sequence(path, "EMDB", _sequence, skipped)) is None:
        return None
    frames, person, size = sequence
    if not len(frames["imgname"]):
        return None
    columns, _ = common.world_bodies(frames, **person, bodies=bodies)
    low, high, points = frames["box"][:, :2], frames["box"][:, 2:], frames["joints"][:, :BODY_JOINTS]
    columns["gtkps"][:, :BODY_JOINTS, :2] = points
    columns["gtkps"][:, :BODY_JOINTS, 2] = ((points >= 0) & (points < size)).all(-1)
    columns |= {"center": (low + high) / 2, "scale": (high - low).max(1) * BOX_FACTOR / BOX_UNIT}
    return common.merged([columns], str(path))


def _sequence(
    content: dict, path: Path, skipped: Skipped
) -> tuple[dict[str, np.ndarray], dict[str, Any], np.ndarray]:
    """Frames and person as `world_bodies` takes them, and (w, h) of the images; for `read_sequence`."""
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
        "betas": common.ten_betas(smpl["betas"]),
        "intrinsics": numbers(camera["intrinsics"], 3, 3, name="intrinsics"),
        "body": common.body_name("smpl", content["gender"]),
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
    return common.usable(frames, used & good & valid, str(path), skipped), person, size
