"""AGORA (Patel et al. 2021): scans of clothed people in rendered places, several in each image.

Labels: of the processed label files at https://bedlam.is.tue.mpg.de (register), agora-body.npz and
agora-bfh.npz; either may be missing. Images: the training images of 1280x720 pixels at
https://agora.is.tue.mpg.de (register), all in one folder.

    <root>/agora-body.npz, <root>/agora-bfh.npz         or in <root>/labels
    <root>/images/<imgname>

The bodies are neutral SMPL-X. There is no depth and there are no masks, so the depth loss leaves these people
out. A label file without `trans_cam` (then `cam_ext` holds all of the translation) is completed; others are
used where they lie. All of AGORA trains, none of it validates.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dpose.data.convert import converted, image_size, read_columns
from dpose.data.frames import Scene, Skipped
from dpose.data.labels import COLUMNS, REQUIRED, Labels

SPLITS = ("train",)
PROTOCOL = "smplx24"
DATASET = "agora"
FILES = ("agora-bfh.npz", "agora-body.npz")
VERSION = 1  # of the conversion: raise it when its results change


def scenes(
    root: Path,
    out: Path,
    split: str,
    skipped: Skipped,
    *,
    bodies: Callable | None = None,
    progress: bool = False,
) -> list[Scene]:
    """One scene for each label file; a completed one is written to `<out>/labels`.

    `skipped`, `bodies` and `progress` are as everywhere, and not used. Raises FileNotFoundError without
    labels or images, ValueError for another split, a malformed file, or images of another size than the
    labels are for.
    """
    if split not in SPLITS:
        raise ValueError(f"AGORA has no split {split!r} here: all of it trains ({', '.join(SPLITS)})")
    root = Path(root)
    there = [root / folder / name for name in FILES for folder in ("", "labels")]
    there = [path for path in there if path.is_file()]
    if not there:
        raise FileNotFoundError(
            f"no label file {' or '.join(FILES)} in {root} or {root / 'labels'}; they are among BEDLAM's "
            "processed labels, https://bedlam.is.tue.mpg.de"
        )
    size = image_size(root / "images")
    if size is None:
        raise FileNotFoundError(
            f"no images in {root / 'images'}: unpack AGORA's training images of 1280x720 pixels there, "
            "without folders"
        )
    found = []
    for path in there:
        labels = _completed(path, out, skipped)
        wanted = np.rint(2 * Labels.load(labels).cam_int[:1, :2, 2])
        if len(wanted) and np.abs(wanted - size).max() > 2:
            raise ValueError(
                f"{path} is for images of {wanted[0, 0]:.0f}x{wanted[0, 1]:.0f} pixels, those in "
                f"{root / 'images'} have {size[0]}x{size[1]}"
            )
        found.append(Scene(path.stem, labels, root / "images", dataset=DATASET))
    return found


def _completed(path: Path, out: Path, skipped: Skipped) -> Path:
    """The label file, or one with the missing `trans_cam` as zeros, which `Labels` wants."""
    try:
        with np.load(path, allow_pickle=False) as file:
            whole = "trans_cam" in file.files
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise ValueError(f"{path}: not a label file that can be read: {error}") from error
    if whole:
        return path

    def make(skipped: Skipped) -> Labels:
        needed = tuple(name for name in REQUIRED if name != "trans_cam")
        columns = read_columns(path, (*needed, "cam_ext"), COLUMNS)
        columns["trans_cam"] = np.zeros((len(columns["imgname"]), 3), np.float32)
        return Labels(**columns, source=str(path))

    return converted(out, path.stem, [path], VERSION, make, skipped)
