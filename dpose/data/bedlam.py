"""BEDLAM's folders and files -> samples (spec 8); the open data's frames have the same layout.

    <root>/labels/<scene>.npz                                     `Labels`, imgname = <sequence>/<frame>.png
    <root>/<scene>/png/<sequence>/<frame>.png                     RGB
    <root>/<scene>/depth/<sequence>/<frame>_depth.exr             channel Depth, cm along the view axis
    <root>/<scene>/masks/<sequence>/<frame>_NN_body.png           a person's visible skin, 0 or 255
    <root>/<scene>/masks/<sequence>/<frame>_NN_clothing.png       and clothes (may be absent)

NN = 00, 01, ... A scene's folder may carry the frame rate, `<scene>_6fps`. The label file does not say which
NN a row is: the masks are matched to a frame's people by their 2D joints, the silhouette of the labelled body
and its distance, all people at once. Frames stored on their side (closeups) are turned upright, known by the
principal point.
"""

import os
import re
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from dpose.data.labels import Labels
from dpose.data.sample import (
    MARGIN,
    Sample,
    crop_matrix,
    make_label,
    render_label_parts,
    sample_from_frame,
    warp_nearest,
)
from dpose.data.shards import write_manifest, write_shards

UNREAL = 0.01  # metres in an Unreal unit
MAX_SKIPPED = 100  # frames or people skipped before reading gives up


class UnreadableFile(ValueError):
    """A frame, depth or mask file that is missing, cut short or of the wrong size; the message names it."""


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
    skipped: list[str] | None = None,
    max_skipped: int = MAX_SKIPPED,
) -> Iterator[Sample]:
    """Every labelled person of a BEDLAM-layout root, as samples of `size` pixels.

    body: a `dpose.body.Body` for part labels and mask matching (None: the open or licensed default). scenes:
    label files' stems (None: all). depth=False: a set without depth and masks. keep: a function of (scene,
    imgname) that says whether to take a frame. Frames that cannot be read and people without a mask are
    warned about, appended to `skipped`, and past `max_skipped` of them a RuntimeError ends it. Raises
    FileNotFoundError without labels, ValueError on a malformed label file, or one whose bodies do not project
    onto its own 2D joints.
    """
    skipped = [] if skipped is None else skipped
    if body is None:
        from dpose.body import load_body

        body = load_body()

    def skip(reason: str) -> None:
        skipped.append(reason)
        if len(skipped) > max_skipped:
            raise RuntimeError(
                f"{root}: {len(skipped)} frames or people could not be used (limit {max_skipped}): "
                f"{'; '.join(skipped[:3])}; ..."
            )
        warnings.warn(f"skipped: {reason}", stacklevel=3)

    files = label_files(root, scenes)
    for path in files:  # all of them first: a fault in the last scene should not show after hours
        Labels.load(path)
        scene_folder(Path(root), path.stem)
    for path in files:
        labels = Labels.load(path)
        if len(labels):
            check_projection(labels, body)
        folder = scene_folder(Path(root), path.stem)
        frames: dict[str, list[int]] = {}
        for row, imgname in enumerate(labels.imgname.tolist()):
            frames.setdefault(imgname, []).append(row)
        for imgname, rows in frames.items():
            if keep is not None and not keep(path.stem, imgname):
                continue
            try:
                yield from _frame_samples(
                    folder, path.stem, imgname, rows, labels, body, size, margin, depth, dataset, skip
                )
            except UnreadableFile as error:
                skip(str(error))


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
    skipped: list[str] = []
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
    return write_manifest(folder, source="BEDLAM layout", size=size, skipped=skipped)


# --- finding files ------------------------------------------------------------------------------------------


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


def mask_numbers(folder: Path, imgname: str) -> list[str]:
    """The NN of a frame's person masks, as strings ("00", "01", ...)."""
    stem = Path(imgname).with_suffix("")
    names = (path.name for path in (folder / "masks" / stem.parent).glob(f"{stem.name}_*_body.png"))
    matches = (re.fullmatch(re.escape(stem.name) + r"_(\d+)_body\.png", name) for name in names)
    return sorted(match[1] for match in matches if match)


# --- reading files ------------------------------------------------------------------------------------------


def read_png(path: Path, gray: bool = False) -> np.ndarray:
    """(H, W, 3) RGB or (H, W) uint8. Raises UnreadableFile."""
    if not path.is_file():
        raise UnreadableFile(f"{path}: missing")
    array = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB)
    if array is None:
        raise UnreadableFile(f"{path}: not a readable image, cut short?")
    return array


def read_depth(path: Path) -> np.ndarray:
    """(H, W) float32 metres from a BEDLAM depth EXR. Raises UnreadableFile."""
    import OpenEXR

    if not path.is_file():
        raise UnreadableFile(f"{path}: missing")
    try:
        channels = OpenEXR.File(str(path)).channels()
    except Exception as error:  # the reader raises several kinds, none of its own
        raise UnreadableFile(f"{path}: not a readable EXR, cut short? ({error})") from error
    if "Depth" not in channels:
        raise UnreadableFile(f"{path}: has no channel 'Depth', only {', '.join(channels) or 'none'}")
    pixels = channels["Depth"].pixels
    if pixels is None:
        raise UnreadableFile(f"{path}: not a readable EXR, cut short?")
    return np.asarray(pixels, np.float32) * np.float32(UNREAL)


def read_person_mask(folder: Path, imgname: str, number: str) -> np.ndarray:
    """(H, W) bool: visible skin or clothes of person NN. Raises UnreadableFile."""
    stem = folder / "masks" / Path(imgname).with_suffix("")
    mask = read_png(stem.with_name(f"{stem.name}_{number}_body.png"), gray=True) > 127
    clothing = stem.with_name(f"{stem.name}_{number}_clothing.png")
    if clothing.is_file():
        other = read_png(clothing, gray=True) > 127
        if other.shape != mask.shape:
            raise UnreadableFile(f"{clothing}: size {other.shape} differs from the body mask's {mask.shape}")
        mask |= other
    return mask


# --- one frame ----------------------------------------------------------------------------------------------


def _frame_samples(
    folder: Path, scene: str, imgname: str, rows, labels: Labels, body, size: int, margin: float, depth: bool,
    dataset: str, skip,
) -> Iterator[Sample]:  # fmt: skip
    stem = Path(imgname).with_suffix("")
    path = folder / "png" / imgname
    image, metres, masks = read_png(path), None, []
    if depth:
        metres = read_depth(folder / "depth" / stem.with_name(f"{stem.name}_depth.exr"))
        numbers = mask_numbers(folder, imgname)
        if not numbers:
            raise UnreadableFile(f"{folder / 'masks' / stem}_NN_body.png: missing")
        masks = [read_person_mask(folder, imgname, number) for number in numbers]
        for array in (metres, *masks):
            if array.shape != image.shape[:2]:
                raise UnreadableFile(f"{path}: frame is {image.shape[:2]}, its depth or mask {array.shape}")
    if on_its_side(image.shape[:2], labels.cam_int[rows[0]]):
        image = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
        if depth:
            metres = np.ascontiguousarray(np.rot90(metres, -1))
            masks = [np.ascontiguousarray(np.rot90(mask, -1)) for mask in masks]
    height, width = image.shape[:2]
    cuts = [
        make_label(
            key=re.sub(r"[./\s]+", "-", f"{scene}-{stem}-{row:06d}"),
            dataset=dataset,
            subject=labels.sub[row],
            pose=labels.pose_cam[row, :66],
            betas=labels.shape[row],
            trans=labels.transl[row],
            joints2d=labels.gtkps[row, :24],
            center=labels.center[row],
            scale=labels.scale[row],
            img_size=(width, height),
            cam_int=labels.cam_int[row],
            margin=margin,
            has_depth=depth,
        )
        for row in rows
    ]
    parts = render_label_parts(
        labels.pose_cam[rows], labels.shape[rows], labels.transl[rows], cuts, body, size
    )
    owners = match_masks(cuts, parts, masks, metres) if depth else [None] * len(cuts)
    for label, part, owner in zip(cuts, parts, owners, strict=True):
        if depth and owner is None:
            skip(f"{path}: no mask belongs to person {label['key']}")
            continue
        yield sample_from_frame(image, metres, masks[owner] if depth else None, label, size, part)


def on_its_side(shape: tuple[int, int], cam_int: np.ndarray) -> bool:
    """Whether a frame (H, W) is stored turned by 90 degrees: its principal point is the other way round."""
    height, width = shape
    x, y = 2 * cam_int[0, 2], 2 * cam_int[1, 2]
    return height != width and abs(x - height) + abs(y - width) < abs(x - width) + abs(y - height)


def match_masks(labels, parts: np.ndarray, masks: list[np.ndarray], depth: np.ndarray) -> list[int | None]:
    """Which mask belongs to which person of a frame: an index into `masks` for each label, or None.

    The best one-to-one assignment of scores: share of the person's joints on the mask, plus the overlap (IoU,
    in the person's cut) with the labelled body's silhouette, minus the distance of the mask's median depth
    from the pelvis (metres, at most 1). A mask that touches neither joints nor silhouette belongs to somebody
    else.
    """
    from scipy.optimize import linear_sum_assignment

    scores = np.full((len(labels), len(masks)), -10.0)
    for i, label in enumerate(labels):
        size = parts.shape[-1]
        matrix = crop_matrix(label["center"], label["scale"], size, label["margin"])
        body = parts[i] > 0
        joints = np.floor(np.array(label["joints2d"])[:22, :2]).astype(int)
        near = warp_nearest(depth, matrix, size)
        for k, mask in enumerate(masks):
            cut = warp_nearest(mask, matrix, size)
            union = (cut | body).sum()
            overlap = (cut & body).sum() / union if union else 0.0
            x, y = joints.T
            inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
            hits = mask[y[inside], x[inside]].sum() / 22
            if overlap + hits > 0:
                seen = near[cut & np.isfinite(near)]
                away = abs(np.median(seen) - label["trans"][2]) if seen.size else 1.0
                scores[i, k] = overlap + hits - min(1.0, float(away))
    owners: list[int | None] = [None] * len(labels)
    for i, k in zip(*linear_sum_assignment(-scores), strict=True):
        if scores[i, k] > -10:
            owners[i] = int(k)
    return owners


def check_projection(labels: Labels, body, rows: int = 16) -> None:
    """Refuse labels whose body, put where they say, is not where their own 2D joints are.

    Compares the 22 body joints on up to `rows` rows; raises ValueError when the median distance exceeds a
    quarter of the box. Catches a translation in another convention, swapped axes or another camera; a body of
    other proportions passes.
    """
    import roma
    import torch

    from dpose.camera import project

    pick = np.unique(np.linspace(0, len(labels) - 1, rows).astype(int))
    device = body.faces.device
    tensor = lambda value: torch.as_tensor(value, dtype=torch.float32, device=device)  # noqa: E731
    with torch.no_grad():
        rotmats = roma.rotvec_to_rotmat(tensor(labels.pose_cam[pick, :66]).reshape(-1, 22, 3))
        joints = body(tensor(labels.shape[pick]), rotmats, tensor(labels.transl[pick])).joints[:, :22]
        points = project(joints, tensor(labels.cam_int[pick])).cpu().numpy()
    error = np.linalg.norm(points - labels.gtkps[pick, :22, :2], axis=-1) / (200 * labels.scale[pick, None])
    if not np.median(error) < 0.25:
        raise ValueError(
            f"{labels.source}: the labelled bodies do not project onto gtkps (median distance "
            f"{np.median(error):.2f} of the box side); the camera-frame translation must be trans_cam + "
            "cam_ext[:, :3, 3], and cam_int in pixels"
        )
