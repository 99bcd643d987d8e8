"""BEDLAM: synthetic people with depth, the set that the paper trains on; free after registration.

From https://bedlam.is.tue.mpg.de, below one root folder (scenes also below `training_images/`):

    <scene>/png/<sequence>/<sequence>_NNNN.png            frames; NNNN counts 30 a second in the downloads of
                                                          6 and of 30 fps, and every fifth is taken
    <scene>/depth/<sequence>/<sequence>_NNNN_depth.exr    depth, and
    <scene>/masks/<sequence>/<sequence>_NNNN_NN_body.png  masks; a scene without these two is prepared without
                                                          depth, a root of such scenes alone only with
                                                          --without-depth

and labels, either as published, used as they are,

    labels/<scene>.npz                                    or processed_labels/, or as the authors' scripts
                                                          have them, training_labels/all_npz_12_training/

or, for scenes that have none, the raw ground truth, from which the same table is computed:

    <scene>/be_seq.csv                                    the people's places, in Unreal's centimetres
    <scene>/ground_truth/camera/<sequence>_camera.csv     the camera in each frame
    smplx_gt/neutral_ground_truth_motioninfo/<person>/<motion>/motion_seq.npz
                                                          motions of the neutral body; or below motions/

Joints and boxes of raw ground truth, and all part labels, are computed with the neutral SMPL-X body, which
$DPOSE_BODY_MODELS must hold. A scene's folder may carry the frame rate, `<scene>_6fps`, and `3-10` may be
`3_10`: the published names differ in this. Closeups, stored on their side, are recognised by their cameras,
not by "closeup" in their names. Published labels of the three hair scenes are at 30 fps. AGORA's label
files are ignored; `dpose prepare agora` reads them. Use the label files with 11 betas, not those with 16. A
split is what is below the root: "train" is divided into train and val when shards are made, "test" is for a
root with BEDLAM's validation scenes. Train and val have no sequence in common, but may share people and
motions.
"""

import re
from pathlib import Path

from dpose.body import DEFAULT_BODY, Bodies
from dpose.data.frames import FrameSet, Skipped
from dpose.data.labels import read_columns
from dpose.data.sets.bedlam_raw import convert_scene

SPLITS = ("train", "test")
PROTOCOL = "smplx24"
LABELS = ("labels", "processed_labels", "training_labels/all_npz_12_training")
MOTIONS = ("motions", "smplx_gt/neutral_ground_truth_motioninfo", "smplx_gt/*")


def scenes(
    root: Path,
    out: Path,
    split: str,
    skipped: Skipped,
    bodies: Bodies,
    progress: bool = False,
    depth: bool = True,
) -> list[FrameSet]:
    """The scenes below `root`; see `dpose.data.sets`. The splits differ in nothing but their name.

    depth: False for all people without depth. The people of a label file without frames are counted, as
    labels of all scenes come in one download; raw scenes without frames, and scenes without depth beside
    others that have it, are faults. Besides, raises FileNotFoundError if no scene is left or has depth.
    """
    raw = {bare(path.parent.name): path.parent for path in _below(scene_parents(root), "*/be_seq.csv")}
    files = _below([root / folder for folder in LABELS], "*.npz")
    processed = {bare(path.stem): path for path in files if not path.stem.startswith("agora-")}
    sources = raw | processed
    if not sources:
        raise FileNotFoundError(
            f"no labels {root / LABELS[0]}/<scene>.npz and no raw ground truth {root}/<scene>/be_seq.csv; "
            "give the folder that BEDLAM was unpacked to"
        )
    there = []
    for key, source in sorted(sources.items()):
        name = source.stem if key in processed else source.name
        images, *maps = (find_frames(root, name, kind) for kind in ("png", "depth", "masks"))
        if images is not None:
            there.append((key, source, name, images, maps if depth and all(maps) else (None, None)))
        elif key in processed:
            count = len(read_columns(source, ("imgname",))["imgname"])
            skipped.drop(f"labelled in a scene without frames: {name}", count)
        else:
            skipped.fault(f"{source} has no frames: there is no folder {root / name}/png")
    without = [images.parent for *_, images, maps in there if not all(maps)]
    if depth and there and len(without) == len(there):
        raise FileNotFoundError(
            f"no scene below {root} has depth and masks, as {without[0]}/depth and /masks: download them, or "
            "ask for people without depth (--without-depth)"
        )
    for folder in without if depth else ():
        skipped.fault(f"{folder} has no depth or no masks: its people are taken without depth")
    found, motions = [], None
    for key, source, name, images, maps in there:
        labels = source
        if key not in processed:
            motions = motions or find_motions(root)
            labels = convert_scene(source, images, out, motions, bodies(DEFAULT_BODY), skipped, progress)
            if labels is None:
                continue
        found.append(FrameSet(name, labels, images, *maps, "bedlam"))
    if not found:
        why = [*skipped.faults, *skipped.dropped][-1:]
        raise FileNotFoundError(
            ": ".join([f"none of the {len(sources)} scenes below {root} can be used", *why])
        )
    return found


def bare(scene: str) -> str:
    """A scene's name without frame rate, and with `_` for `-`."""
    return re.sub(r"_(6|30)fps$", "", scene).replace("-", "_")


def scene_parents(root: Path) -> list[Path]:
    return [folder for folder in (root, root / "training_images") if folder.is_dir()]


def _below(folders: list[Path], pattern: str) -> list[Path]:
    """The files, those of the first folders last."""
    return [path for folder in reversed(folders) for path in sorted(folder.glob(pattern))]


def find_frames(root: Path, scene: str, kind: str) -> Path | None:
    """The folder of a scene's "png", "depth" or "masks": under its exact name, or with another frame rate."""
    folders = [
        folder / kind
        for parent in scene_parents(root)
        for folder in sorted(parent.iterdir(), key=lambda folder: (folder.name != scene, folder.name))
        if bare(folder.name) == bare(scene) and (folder / kind).is_dir()
    ]
    return folders[0] if folders else None


def find_motions(root: Path) -> Path:
    for pattern in MOTIONS:
        for folder in sorted(root.glob(pattern)):
            if next(folder.glob("*/*/motion_seq.npz"), None):
                return folder
    raise FileNotFoundError(
        f"raw ground truth needs BEDLAM's motions, {root / MOTIONS[1]}/<person>/<motion>/motion_seq.npz (or "
        f"below {root / MOTIONS[0]}); download them, or the processed labels into {root / LABELS[0]}"
    )
