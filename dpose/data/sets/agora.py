"""AGORA (Patel et al. 2021): scans of clothed people in rendered places, several in each image.

Labels: agora-body.npz and agora-bfh.npz from the processed label files at https://bedlam.is.tue.mpg.de
(register); one of them is enough. Images: the training images of 1280x720 pixels at
https://agora.is.tue.mpg.de (register), all in one folder.

    <root>/agora-body.npz, <root>/agora-bfh.npz         or in <root>/labels, or as the authors' scripts have
                                                        them, <root>/training_labels/all_npz_12_training
    <root>/images/<imgname>                             or <root>/training_images/images

The bodies are neutral SMPL-X, which $DPOSE_BODY_MODELS must hold. There is no depth and there are no masks,
so the depth loss leaves these people out. All of AGORA is for training, none of it for validation.
"""

from pathlib import Path

import numpy as np

from dpose.body import Bodies
from dpose.data.frames import FrameSet, Skipped
from dpose.data.labels import read_columns
from dpose.data.sets.common import image_size, pictures

SPLITS = ("train",)
PROTOCOL = "smplx24"
FILES = ("agora-bfh.npz", "agora-body.npz")
LABELS = ("", "labels", "training_labels/all_npz_12_training")
IMAGES = ("images", "training_images/images")


def scenes(
    root: Path, out: Path, split: str, skipped: Skipped, bodies: Bodies, progress: bool = False
) -> list[FrameSet]:
    """One scene per label file, which is used where it is; see `dpose.data.sets`.

    Besides, raises ValueError for images of another size than the labels are for.
    """
    places = ([root / folder / name for folder in LABELS] for name in FILES)
    there = [
        next(path for path in paths if path.is_file()) for paths in places if any(map(Path.is_file, paths))
    ]
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
    for path in there:
        cam_int = read_columns(path, ("cam_int",))["cam_int"]
        if cam_int.shape[1:] != (3, 3):
            raise ValueError(f"{path}: column 'cam_int' has shape {cam_int.shape}, expected (N, 3, 3)")
        middles = cam_int[np.isfinite(cam_int).all((1, 2)), :2, 2].astype(float)
        expected = np.rint(2 * np.median(middles, axis=0)) if len(middles) else np.array(size)
        if np.abs(expected - size).max() > 2:
            raise ValueError(
                f"{path} is for images of {expected[0]:.0f}x{expected[1]:.0f} pixels, those in "
                f"{images} have {size[0]}x{size[1]}"
            )
    return [FrameSet(path.stem, path, images, dataset="agora") for path in there]
