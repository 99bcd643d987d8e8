"""BEDLAM's folders and label files (spec 8); the open data's frames have the same layout.

    <root>/labels/<scene>.npz                    `Labels`, imgname = <sequence>/<frame>.png
    <root>/<scene>/{png,depth,masks}/...         frames, see `dpose.data.frames`

A scene's folder may carry the frame rate, `<scene>_6fps`.
"""

import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from dpose.data.frames import MAX_FAULTS, Scene, Skipped, read_scenes
from dpose.data.sample import MARGIN, Sample
from dpose.data.shards import write_manifest, write_shards


def read_bedlam(
    root: str | os.PathLike,
    size: int,
    body=None,
    *,
    scenes: list[str] | None = None,
    margin: float = MARGIN,
    depth: bool = True,
    dataset: str = "bedlam",
    keep=None,
    skipped: Skipped | None = None,
) -> Iterator[Sample]:
    """Every labelled person of a BEDLAM-layout root, as samples of `size` pixels.

    body: a `dpose.body.Body` (None: the open or licensed default). scenes: label files' stems (None: all).
    depth=False: a set without depth and masks. keep, skipped: see `read_scenes`. Raises FileNotFoundError
    without labels, and what `read_scenes` raises.
    """
    found = label_scenes(root, scenes, depth, dataset)
    return read_scenes(
        found, size, None if body is None else lambda name: body, margin=margin, keep=keep, skipped=skipped
    )


def label_scenes(
    root: str | os.PathLike, names: list[str] | None = None, depth: bool = True, dataset: str = "bedlam"
) -> list[Scene]:
    """The scenes of a root with processed labels; arguments and errors as for `read_bedlam`."""
    found = []
    for path in label_files(root, names):
        folder = scene_folder(Path(root), path.stem)
        maps = (folder / "depth", folder / "masks") if depth else (None, None)
        found.append(Scene(path.stem, path, folder / "png", *maps, dataset))
    return found


def prepare(
    root: str | os.PathLike,
    out: str | os.PathLike,
    size: int,
    body=None,
    *,
    split: str = "train",
    validation: float = 0.0,
    per_shard: int = 1000,
    **reading,
) -> dict:
    """BEDLAM layout -> `<out>/shards`; returns the manifest, which also lists what was skipped.

    Shards get their place once all are made, so that an error leaves `out` as it was. Raises FileExistsError,
    at once, if shards of these splits are there already, and what `read_bedlam` raises.

    validation: share of the *sequences* that goes to split "val" instead (by a hash of their names: stable).
    reading: see `read_bedlam`.
    """
    skipped = Skipped(reading.pop("max_skipped", MAX_FAULTS))
    folder = Path(out) / "shards"
    wanted = {split: lambda share: share >= validation}
    if validation > 0:
        wanted["val"] = lambda share: share < validation
    there = sorted(path.name for name in wanted for path in folder.glob(f"{name}-*.tar"))
    if there:
        raise FileExistsError(
            f"{folder} holds shards of this split already ({there[0]}, {len(there)} in all); delete them or "
            "give another folder"
        )
    label_files(root, reading.get("scenes"))  # raises before anything is written

    def share(scene: str, imgname: str) -> float:  # of a sequence's name: stable from run to run
        return zlib.crc32(f"{scene}/{Path(imgname).parent}".encode()) / 2**32

    made = [path for path in (Path(out), folder) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".prepare.", dir=folder))
    try:
        for name, take in wanted.items():
            keep = lambda scene, imgname, take=take: take(share(scene, imgname))  # noqa: E731
            samples = read_bedlam(root, size, body, keep=keep, skipped=skipped, **reading)
            write_shards(samples, staging, name, per_shard=per_shard)
        for path in sorted(staging.iterdir()):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for path in reversed(made):
            if not any(path.iterdir()):
                path.rmdir()
    return write_manifest(folder, source="BEDLAM layout", size=size, skipped=skipped.faults)


def label_files(root: str | os.PathLike, scenes: list[str] | None = None) -> list[Path]:
    """The label files of a root, sorted. Raises FileNotFoundError saying what was looked for."""
    folder = Path(root) / "labels"
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise FileNotFoundError(f"no label files {folder}/<scene>.npz; a BEDLAM-layout root has them there")
    if scenes is None:
        return files
    missing = sorted(set(scenes) - {path.stem for path in files})
    if missing:
        raise FileNotFoundError(f"no label files for {', '.join(missing)} in {folder}")
    return [path for path in files if path.stem in scenes]


def scene_folder(root: Path, scene: str) -> Path:
    """The folder of a scene's frames. Raises FileNotFoundError when there is none."""
    for folder in (root / scene, root / f"{scene}_6fps", root / f"{scene}_30fps"):
        if (folder / "png").is_dir():
            return folder
    raise FileNotFoundError(
        f"labels/{scene}.npz has no frames: neither {root / scene}/png nor {scene}_6fps/png is there"
    )
