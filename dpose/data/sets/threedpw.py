"""3DPW (von Marcard et al. 2018): people in the wild, measured by body-worn sensors and one moving camera.

From https://virtualhumans.mpi-inf.mpg.de/3DPW (licence there): imageFiles.zip and sequenceFiles.zip, both
unpacked below the root. The ground truth is SMPL of the person's gender, so SMPL_python_v.1.1.0.zip of
https://smpl.is.tue.mpg.de (register) is needed too, below $DPOSE_BODY_MODELS.

    <root>/imageFiles/<sequence>/image_%05d.jpg         the frames
    <root>/sequenceFiles/<split>/<sequence>.pkl         poses in the world, cameras
    <root>/3dpw_<split>.npz                             if there, used instead of sequenceFiles

Raw (sequenceFiles): one label file per sequence. A person is left out of a frame, and counted, where the
camera was not aligned (campose_valid), a joint is behind the camera, or fewer than 8 of the 22 body joints
are inside the image. The box is the square around those inside, times 1.2. The 2D joints are the projected
joints of the body; `poses2d`, a detector's, are not used.

Processed: `eval_data_parsed.zip` of https://bedlam.is.tue.mpg.de (register) holds 3dpw_test.npz, whose boxes
are those of the published numbers; imgname is relative to the root, or to imageFiles. It has pose and shape,
but neither camera nor translation: both are made up so that the body fills its box
(`dpose.data.sets.processed`). Part labels depend on them; MPJPE, PA-MPJPE and MVE depend on them only through
the focal length, an input of the network. The focal length here is that of the released evaluation, which
`dpose evaluate --focal diagonal` uses for every set. 2D joints have confidence 0.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dpose.body import Bodies
from dpose.camera import BOX_FACTOR, box_from_joints
from dpose.data.frames import BEHIND, BODY_JOINTS, FrameSet, Skipped
from dpose.data.labels import MIN_VISIBLE_JOINTS, Labels
from dpose.data.sets import common
from dpose.data.sets.common import numbers
from dpose.data.sets.processed import processed_scene

SPLITS = ("test", "validation", "train")
PROTOCOL = "h36m14"
SAME_BODY = 0.05  # metres, median distance between the file's 3D joints and the body's
VERSION = 1  # to be raised when the same files give another table


def scenes(
    root: Path, out: Path, split: str, skipped: Skipped, bodies: Bodies, progress: bool = False
) -> list[FrameSet]:
    """One scene per sequence, or the one of a processed file; see `dpose.data.sets`.

    Sequences that cannot be read, or have no images, are faults. Raises ValueError for bodies that are not
    those of the ground truth.
    """
    images = root / "imageFiles"
    processed = root / f"3dpw_{split}.npz"
    if processed.is_file():
        return processed_scene(processed, "smpl", [root, images], out, skipped, bodies, "3dpw", progress)
    paths = sorted((root / "sequenceFiles" / split).glob("*.pkl"))
    if not paths:
        raise FileNotFoundError(
            f"neither {root / 'sequenceFiles' / split}/<sequence>.pkl nor {processed}: unpack 3DPW's "
            "sequenceFiles.zip there"
        )
    if not images.is_dir():
        raise FileNotFoundError(f"no images {images}/<sequence>/: unpack 3DPW's imageFiles.zip there")
    found, hashes = [], common.gendered("smpl", bodies)
    for path in tqdm(paths, desc="3DPW", unit="sequence", disable=not progress):
        size = common.image_size(images / path.stem)
        if size is None:
            skipped.fault(f"{images / path.stem}: no images that can be read, so {path.name} is left out")
            continue
        make = partial(_labels, path, size, bodies)
        labels = common.converted(out, path.stem, [path], VERSION, make, skipped, given=[size, hashes])
        if labels is not None:
            found.append(FrameSet(path.stem, labels, images, dataset="3dpw"))
    return found


def _labels(path: Path, size: tuple[int, int], bodies: Bodies, skipped: Skipped) -> Labels | None:
    """The people of one sequence."""
    tables = []
    for frames, person in common.read_sequence(path, "3DPW", _people, skipped) or ():
        if not len(frames["imgname"]):
            continue
        columns, joints = common.world_bodies(frames, **person, bodies=bodies)
        if "joints" in frames:
            # They are in the world, without a camera: compared by the distances from the pelvis.
            given = frames["joints"][:, :BODY_JOINTS]
            reach = [np.linalg.norm(points - points[:, :1], axis=-1) for points in (joints, given)]
            if np.median(np.abs(reach[0] - reach[1])) > SAME_BODY:
                raise ValueError(
                    f"{path}: the body {person['body']} is not the one of its jointPositions; are the SMPL "
                    "files of the genders in their names?"
                )
        before = (joints[..., 2] > common.MIN_DEPTH).all(1)
        keypoints, wh = torch.from_numpy(columns["gtkps"]), torch.tensor(size, dtype=torch.float64)
        points = keypoints[..., :2]
        keypoints[..., 2] *= ((points >= 0) & (points < wh)).all(-1)
        seen = (keypoints[..., 2] > 0).sum(1).numpy() >= MIN_VISIBLE_JOINTS
        center, scale = box_from_joints(keypoints, keypoints[..., 2] > 0, wh, BOX_FACTOR)
        columns |= {"center": center.numpy(), "scale": scale.numpy()}
        skipped.drop(BEHIND, (~before).sum())
        skipped.drop(f"fewer than {MIN_VISIBLE_JOINTS} joints in the image", (before & ~seen).sum())
        tables.append({name: value[before & seen] for name, value in columns.items()})
    return common.merged(tables, str(path))


def _people(
    content: dict, path: Path, skipped: Skipped
) -> list[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """A sequence's people as `world_bodies` takes them: frames and person of each; for `read_sequence`."""
    extrinsics = numbers(content["cam_poses"], None, 4, 4, name="cam_poses")
    intrinsics = numbers(content["cam_intrinsics"], 3, 3, name="cam_intrinsics")
    n, found = len(extrinsics), []
    imgname = np.array([f"{path.stem}/image_{i:05d}.jpg" for i in range(n)])
    for i, gender in enumerate(content["genders"]):
        frames = {
            "imgname": imgname,
            "pose": numbers(content["poses"][i], n, 72, name="poses"),
            "trans": numbers(content["trans"][i], n, 3, name="trans"),
            "extrinsics": extrinsics,
        }
        if "jointPositions" in content:
            positions = numbers(content["jointPositions"][i], n, 72, name="jointPositions")
            frames["joints"] = positions.reshape(n, 24, 3)
        valid = numbers(content["campose_valid"][i], n, name="campose_valid") != 0
        person = {
            "betas": common.ten_betas(content["betas"][i]),
            "intrinsics": intrinsics,
            "body": common.body_name("smpl", gender),
            "sub": f"{path.stem}_{i}",
        }
        found.append((common.usable(frames, valid, f"{path}, person {i}", skipped), person))
        skipped.drop("camera not aligned to the image (campose_valid)", (~valid).sum())
    return found
