"""RICH (Huang et al. 2022), test set: people and scenes seen by several fixed cameras.

Labels: `eval_data_parsed.zip` of https://bedlam.is.tue.mpg.de (register) holds rich_test.npz. Images: the
test set of https://rich.is.tue.mpg.de (register), unpacked below the root, so that each imgname of the label
file names one. The ground truth is SMPL-X of the person's gender, so models_smplx_v1_1.zip of
https://smpl-x.is.tue.mpg.de (register) is needed too, below $DPOSE_BODY_MODELS.

    <root>/rich_test.npz
    <root>/<imgname>                                    or <root>/test/<imgname>, <root>/images/<imgname>

The label file has pose, shape and boxes, but neither camera nor translation: those are made up so that the
body fills its box (`dpose.data.sets.common`). Part labels depend on them; MPJPE, PA-MPJPE and MVE through the
focal length alone, which is an input of the network: `dpose evaluate --focal diagonal` takes the released
evaluation's for every set, which is this one. 2D joints have confidence 0.
"""

from collections.abc import Callable
from pathlib import Path

from dpose.data.frames import FrameSet, Skipped
from dpose.data.sets.common import processed_scene

SPLITS = ("test",)
PROTOCOL = "smpl24"
DATASET = "rich"


def scenes(
    root: Path,
    out: Path,
    split: str,
    skipped: Skipped,
    *,
    bodies: Callable | None = None,
    progress: bool = False,
) -> list[FrameSet]:
    """The one scene of rich_test.npz; its completed label file is written to `<out>/labels`.

    bodies: a function of a body's name that returns it; None: a new `dpose.body.Bodies`. Raises
    FileNotFoundError for missing files and licensed bodies, ValueError for another split or a malformed file.
    """
    if split not in SPLITS:
        raise ValueError(f"RICH has no split {split!r} here, only {', '.join(SPLITS)}")
    root = Path(root)
    path = root / f"rich_{split}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"no label file {path}; it is in eval_data_parsed.zip of https://bedlam.is.tue.mpg.de"
        )
    folders = [root, root / split, root / "images"]
    return processed_scene(
        path, "smplx", folders, Path(out), skipped, dataset=DATASET, bodies=bodies, progress=progress
    )
