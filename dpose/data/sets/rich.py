"""RICH (Huang et al. 2022), test set: people and scenes seen by several fixed cameras.

Labels: `eval_data_parsed.zip` of https://bedlam.is.tue.mpg.de (register) holds rich_test.npz. Images: the
test set of https://rich.is.tue.mpg.de (register), unpacked below the root, so that each imgname of the label
file names one. The ground truth is SMPL-X of the person's gender, so models_smplx_v1_1.zip of
https://smpl-x.is.tue.mpg.de (register) is needed too, below $DPOSE_BODY_MODELS.

    <root>/rich_test.npz
    <root>/<imgname>                                    or <root>/test/<imgname>, <root>/images/<imgname>

The label file has pose, shape and boxes, but neither camera nor translation: both are made up so that the
body fills its box (`dpose.data.sets.processed`). Part labels depend on them; MPJPE, PA-MPJPE and MVE
depend on them only through the focal length, an input of the network. The focal length here is that of the
released evaluation, which `dpose evaluate --focal diagonal` uses for every set. 2D joints have confidence 0.
"""

from pathlib import Path

from dpose.body import Bodies
from dpose.data.frames import FrameSet, Skipped
from dpose.data.sets.processed import processed_scene

SPLITS = ("test",)
PROTOCOL = "smpl24"


def scenes(
    root: Path, out: Path, split: str, skipped: Skipped, bodies: Bodies, progress: bool = False
) -> list[FrameSet]:
    """The one scene of rich_test.npz; see `dpose.data.sets`."""
    path = root / f"rich_{split}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"no label file {path}; it is in eval_data_parsed.zip of https://bedlam.is.tue.mpg.de"
        )
    folders = [root, root / split, root / "images"]
    return processed_scene(path, "smplx", folders, out, skipped, bodies, "rich", progress)
