"""3DPW (von Marcard et al. 2018): people in the wild, measured by body-worn sensors and one moving camera.

From https://virtualhumans.mpi-inf.mpg.de/3DPW (licence there): imageFiles.zip and sequenceFiles.zip, both
unpacked below the root. The ground truth is SMPL of the person's gender, so SMPL_python_v.1.1.0.zip of
https://smpl.is.tue.mpg.de (register) is needed too, below $DPOSE_BODY_MODELS.

    <root>/imageFiles/<sequence>/image_%05d.jpg         the frames
    <root>/sequenceFiles/<split>/<sequence>.pkl         poses in the world, cameras
    <root>/3dpw_<split>.npz                             if there, used instead of sequenceFiles

Raw (sequenceFiles): one label file a sequence. A person is left out of a frame, and counted, where the camera
was not aligned (campose_valid), a joint lies behind the camera, or fewer than 8 of the 22 body joints are
inside the image. The box is the square around those inside, times 1.2. The 2D joints are the projected joints
of the body; `poses2d`, a detector's, are not used.

Processed: `eval_data_parsed.zip` of https://bedlam.is.tue.mpg.de (register) holds 3dpw_test.npz, whose boxes
are those of the published numbers; imgname is relative to the root, or to imageFiles. It has pose and shape,
but neither camera nor translation: those are made up so that the body fills its box (`processed_scene`).
Part labels depend on them; MPJPE, PA-MPJPE and MVE through the focal length alone, which is an input of the
network: `dpose evaluate --focal diagonal` takes the released evaluation's for every set, which is this one.
2D joints have confidence 0.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dpose.body import Bodies
from dpose.camera import BOX_FACTOR, box_from_joints
from dpose.data.frames import FrameSet, Skipped
from dpose.data.labels import MIN_VISIBLE_JOINTS, Labels
from dpose.data.sets.common import (
    BODY_JOINTS,
    MIN_DEPTH,
    body_files,
    body_name,
    converted,
    image_size,
    merged,
    numbers,
    processed_scene,
    usable,
    world_bodies,
)
from dpose.unpickle import read_pickle

SPLITS = ("test", "validation", "train")
PROTOCOL = "h36m14"
DATASET = "3dpw"
SAME_BODY = 0.05  # metres between the file's 3D joints and the body's, in the median
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
    """The sequences of a split; label files are written to `<out>/labels`.

    bodies: a function of a body's name that returns it; None: a new `dpose.body.Bodies`. Raises
    FileNotFoundError for missing folders and licensed bodies, ValueError for another split, a malformed
    processed file, or bodies that are not those of the ground truth. Sequences that cannot be read, or have
    no images, are faults.
    """
    if split not in SPLITS:
        raise ValueError(f"3DPW has no split {split!r}; its splits are {', '.join(SPLITS)}")
    root, images = Path(root), Path(root) / "imageFiles"
    processed = root / f"3dpw_{split}.npz"
    if processed.is_file():
        return processed_scene(
            processed,
            "smpl",
            [root, images],
            Path(out),
            skipped,
            dataset=DATASET,
            bodies=bodies,
            progress=progress,
        )
    paths = sorted((root / "sequenceFiles" / split).glob("*.pkl"))
    if not paths:
        raise FileNotFoundError(
            f"neither {root / 'sequenceFiles' / split}/<sequence>.pkl nor {processed}: unpack 3DPW's "
            "sequenceFiles.zip there"
        )
    if not images.is_dir():
        raise FileNotFoundError(f"no images {images}/<sequence>/: unpack 3DPW's imageFiles.zip there")
    used, found = body_files("smpl", bodies), []
    bodies = bodies or Bodies()
    for path in tqdm(paths, desc="3DPW", unit="sequence", disable=not progress):
        size = image_size(images / path.stem)
        if size is None:
            skipped.fault(f"{images / path.stem}: no images that can be read, so {path.name} is left out")
            continue
        labels = converted(
            out,
            path.stem,
            [path, *used],
            VERSION,
            lambda skipped, path=path, size=size: _labels(path, size, skipped, bodies),
            skipped,
            given=size,
        )
        if labels:
            found.append(FrameSet(path.stem, labels, images, dataset=DATASET))
    return found


def _labels(path: Path, size: tuple[int, int], skipped: Skipped, bodies: Callable) -> Labels | None:
    """The people of one sequence."""
    try:
        people = _people(path, skipped)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        skipped.fault(f"{path}: not a sequence of 3DPW: {reason}")
        return None
    tables = []
    for frames, person in people:
        if not len(frames["imgname"]):
            continue
        columns, joints = world_bodies(frames, **person, bodies=bodies)
        if "joints" in frames:
            # They are in the world, and without a camera: compared by the distances from the pelvis.
            theirs = frames["joints"][:, :BODY_JOINTS]
            reach = [np.linalg.norm(at - at[:, :1], axis=-1) for at in (joints, theirs)]
            if np.median(np.abs(reach[0] - reach[1])) > SAME_BODY:
                raise ValueError(
                    f"{path}: {person['body']}, posed by it, is another body than that of its "
                    "jointPositions; are the SMPL files those of the genders that they are named after?"
                )
        before = (joints[..., 2] > MIN_DEPTH).all(1)
        keypoints, wh = torch.from_numpy(columns["gtkps"]), torch.tensor(size, dtype=torch.float64)
        points = keypoints[..., :2]
        keypoints[..., 2] *= ((points >= 0) & (points < wh)).all(-1)
        seen = (keypoints[..., 2] > 0).sum(1).numpy() >= MIN_VISIBLE_JOINTS
        center, scale = box_from_joints(keypoints, keypoints[..., 2] > 0, wh, BOX_FACTOR)
        columns |= {"center": center.numpy(), "scale": scale.numpy()}
        skipped.drop("a joint behind the camera", (~before).sum())
        skipped.drop(f"fewer than {MIN_VISIBLE_JOINTS} joints in sight", (before & ~seen).sum())
        tables.append({name: value[before & seen] for name, value in columns.items()})
    return merged(tables, str(path))


def _people(path: Path, skipped: Skipped) -> list[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """A sequence's people as `world_bodies` takes them: what changes from frame to frame, and what does not.

    Raises ValueError, KeyError, TypeError or IndexError on what is no sequence of 3DPW.
    """
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"holds no dictionary but {type(content).__name__}")
    extrinsics = numbers(content["cam_poses"], None, 4, 4, name="cam_poses")
    intrinsics = numbers(content["cam_intrinsics"], 3, 3, name="cam_intrinsics")
    n, found = len(extrinsics), []
    imgname = np.array([f"{path.stem}/image_{i:05d}.jpg" for i in range(n)])
    for i, gender in enumerate(content["genders"]):
        pose = numbers(content["poses"][i], n, 72, name="poses")
        frames = {
            "imgname": imgname,
            "pose": pose,
            "trans": numbers(content["trans"][i], n, 3, name="trans"),
            "extrinsics": extrinsics,
        }
        if "jointPositions" in content:
            positions = numbers(content["jointPositions"][i], n, 72, name="jointPositions")
            frames["joints"] = positions.reshape(n, 24, 3)
        valid = numbers(content["campose_valid"][i], n, name="campose_valid") != 0
        betas = np.ravel(content["betas"][i])[:10]
        person = {
            "betas": numbers(betas, 10, name="betas"),
            "intrinsics": intrinsics,
            "body": body_name("smpl", gender),
            "sub": f"{path.stem}_{i}",
        }
        found.append((usable(frames, valid, f"{path}, person {i}", skipped), person))
        skipped.drop("camera not aligned to the image (campose_valid)", (~valid).sum())
    return found
