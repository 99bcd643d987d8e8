"""AGORA (Patel et al. 2021): scans of clothed people in rendered places, several in each image.

Labels: of the processed label files at https://bedlam.is.tue.mpg.de (register), agora-body.npz and
agora-bfh.npz; either may be missing. Images: the training images of 1280x720 pixels at
https://agora.is.tue.mpg.de (register), all in one folder.

    <root>/agora-body.npz, <root>/agora-bfh.npz         or in <root>/labels, or as the authors' scripts lay
                                                        them out, <root>/training_labels/all_npz_12_training
    <root>/images/<imgname>                             or <root>/training_images/images

The bodies are neutral SMPL-X, which $DPOSE_BODY_MODELS must hold. There is no depth and there are no masks,
so the depth loss leaves these people out. A label file without `trans_cam` (then `cam_ext` holds all of the
translation) is completed; others are used where they lie. All of AGORA trains, none of it validates.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dpose.data.frames import FrameSet, Skipped
from dpose.data.labels import COLUMNS, REQUIRED, Labels, read_columns, sound_rows
from dpose.data.sets.common import converted, image_size, pictures

SPLITS = ("train",)
PROTOCOL = "smplx24"
DATASET = "agora"
FILES = ("agora-bfh.npz", "agora-body.npz")
LABELS = ("", "labels", "training_labels/all_npz_12_training")
IMAGES = ("images", "training_images/images")
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
    """One scene for each label file; a completed one is written to `<out>/labels`.

    skipped: gets the rows of a file to be completed that cannot be used. bodies, progress: as everywhere, and
    not used. Raises FileNotFoundError without labels or images, ValueError for another split, a malformed
    file, or images of another size than the labels are for.
    """
    if split not in SPLITS:
        raise ValueError(f"AGORA has no split {split!r} here: all of it trains ({', '.join(SPLITS)})")
    root = Path(root)
    places = [[root / folder / name for folder in LABELS] for name in FILES]
    there = [path for name in places for path in [path for path in name if path.is_file()][:1]]
    if not there:
        raise FileNotFoundError(
            f"no label file {' or '.join(FILES)} in {root} or {root / 'labels'}; they are among BEDLAM's "
            "processed labels, https://bedlam.is.tue.mpg.de"
        )
    images = next((root / folder for folder in IMAGES if pictures(root / folder)), root / IMAGES[0])
    size = image_size(images)
    if size is None:
        raise FileNotFoundError(
            f"no images in {images}: unpack AGORA's training images of 1280x720 pixels there, without folders"
        )
    found = []
    for path in there:
        labels = _completed(path, out, skipped)
        if labels is None:
            continue
        cam_int = read_columns(labels, ("cam_int",))["cam_int"]
        if cam_int.shape[1:] != (3, 3):
            raise ValueError(f"{path}: column 'cam_int' has shape {cam_int.shape}, expected (N, 3, 3)")
        middles = cam_int[np.isfinite(cam_int).all((1, 2)), :2, 2].astype(float)
        wanted = np.rint(2 * np.median(middles, axis=0)) if len(middles) else np.array(size)
        if np.abs(wanted - size).max() > 2:
            raise ValueError(
                f"{path} is for images of {wanted[0]:.0f}x{wanted[1]:.0f} pixels, those in "
                f"{images} have {size[0]}x{size[1]}"
            )
        found.append(FrameSet(path.stem, labels, images, dataset=DATASET))
    return found


def _completed(path: Path, out: Path, skipped: Skipped) -> Path | None:
    """The label file, or one with the missing `trans_cam` as zeros, which `Labels` wants; None of nobody."""
    if read_columns(path, (), ("trans_cam",)):
        return path

    def make(skipped: Skipped) -> Labels | None:
        needed = tuple(name for name in REQUIRED if name != "trans_cam")
        columns = read_columns(path, (*needed, "cam_ext"), COLUMNS)
        columns = sound_rows(columns, str(path), skipped.fault)
        columns["trans_cam"] = np.zeros((len(columns["imgname"]), 3), np.float32)
        return Labels(**columns, source=str(path)) if len(columns["imgname"]) else None

    return converted(out, path.stem, [path], VERSION, make, skipped)
