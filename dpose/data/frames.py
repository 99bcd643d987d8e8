"""Frames and `Labels` to samples, for all data sets.

A data set is a list of `FrameSet`s: a label file (`Labels`), the folder that its `imgname`s are relative to,
and, where the set has them, folders of depth and masks in BEDLAM's layout:

    <images>/<sequence>/<frame>.png                     RGB; other sets have .jpg, or no sequence folder
    <depth>/<sequence>/<frame>_depth.exr                channel Depth, Unreal's cm along the view axis
    <masks>/<sequence>/<frame>_NN_body.png              visible skin of person NN, 0 or 255,
    <masks>/<sequence>/<frame>_NN_clothing.png, _hair   clothes and hair; a mask without pixels has no file
    <masks>/<sequence>/<frame>_env.png                  everything else; always there, and not used

NN = 00, 01, ... The row of a mask is not in the label file: masks are matched to a frame's people by their 2D
joints, the silhouette of the labelled body and its distance, all people at once. Frames that are stored on
their side (BEDLAM's closeups) are turned upright; they are recognised by the principal point.
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from dpose.body import Bodies, Body
from dpose.camera import BOX_UNIT
from dpose.data.labels import Labels
from dpose.data.sample import MARGIN, Sample, crop_matrix, make_label, sample_from_frame, warp_nearest
from dpose.data.targets import label_part_targets

METRES_PER_UNREAL_UNIT = 0.01
NO_MASK = "no mask shows them: wholly hidden, or its files are missing"  # the renderer writes no empty masks
BEHIND = "a body joint behind the camera"
MASKS = ("body", "clothing", "hair")
BODY_JOINTS = 22
CHUNK = 256  # bodies posed at once
MAX_DISTANCE = 0.9  # metres between the pelvis and the median of a mask's depth; beyond it is another person
MAX_FAULTS = 100  # frames or people that may be unusable before reading gives up


class UnreadableFile(ValueError):
    """A file that is missing, cut short or of the wrong size; the message names it."""


class TooManyFaults(RuntimeError):
    """More frames or people were unusable than the stated limit."""


@dataclass(frozen=True)
class FrameSet:
    """One label file and the folders of its frames; `prepare` cuts frame sets into shards.

    name: unique in the data set; the beginning of its samples' keys. labels: a `Labels` file. images: what
    `imgname` is relative to. depth, masks: in BEDLAM's layout, both or none of them. dataset: its name.
    """

    name: str
    labels: Path
    images: Path
    depth: Path | None = None
    masks: Path | None = None
    dataset: str = ""


@dataclass
class Skipped:
    """Counts by reason what was left out.

    `drop` counts people whom a rule of the data set leaves out (too few visible joints, a frame marked as
    bad). `fault` records an unusable frame or person, with a warning; beyond `limit` faults it raises
    TooManyFaults.
    """

    limit: int = MAX_FAULTS
    dropped: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def drop(self, rule: str, count: int = 1) -> None:
        if count:
            self.dropped[rule] += int(count)

    def fault(self, reason: str) -> None:
        self.faults.append(reason)
        if len(self.faults) > self.limit:
            raise TooManyFaults(
                f"{len(self.faults)} frames or people could not be used (limit {self.limit}): "
                f"{'; '.join(self.faults[:3])}; ..."
            )
        warnings.warn(f"skipped: {reason}", stacklevel=3)


def read_scenes(
    scenes: Iterable[FrameSet], size: int, bodies: Bodies | None = None, *, skipped: Skipped | None = None
) -> Iterator[Sample]:
    """Every labelled person of the scenes, as samples of `size` pixels.

    Frames and rows of labels that cannot be used are faults of `skipped`; people whom no mask shows, or who
    are behind the camera, are counted there. Raises ValueError for a malformed label file, or one whose
    bodies do not project onto its own 2D joints, and TooManyFaults.
    """
    skipped, bodies = skipped or Skipped(), bodies or Bodies()
    for scene in scenes:
        labels, frames = load_frames(scene, bodies, skipped)
        for imgname, rows in frames.items():
            yield from read_frame(scene, imgname, rows, labels, size, bodies, skipped=skipped)


def load_frames(
    scene: FrameSet, bodies: Bodies, skipped: Skipped, exact: bool = False
) -> tuple[Labels, dict[str, list[int]]]:
    """A scene's labels and the rows of each frame, checked.

    Rows that cannot be used are faults of `skipped`. People with a body joint at or behind the camera are
    dropped. exact and exceptions: see `check_projection`.
    """
    labels = Labels.load(scene.labels, bad=skipped.fault)
    check_projection(labels, bodies, exact)
    behind = (labelled_joints(labels, np.arange(len(labels)), bodies)[..., 2] <= 0).any(1)
    skipped.drop(BEHIND, behind.sum())
    return labels, frames_of(labels, np.flatnonzero(~behind).tolist())


def frames_of(labels: Labels, rows: Iterable[int] | None = None) -> dict[str, list[int]]:
    """The rows of each frame, in the table's order; of `rows` alone if given."""
    frames: dict[str, list[int]] = {}
    for row in range(len(labels)) if rows is None else rows:
        frames.setdefault(str(labels.imgname[row]), []).append(row)
    return frames


def sample_key(scene: str, imgname: str, row: int | None = None) -> str:
    """The key of a row's sample; without a row the part that the keys of a frame have in common."""
    key = f"{scene}-{Path(imgname).with_suffix('')}" + ("" if row is None else f"-{row:06d}")
    return re.sub(r"[./\s]+", "-", key)


# --- reading files ------------------------------------------------------------------------------------------


def mask_numbers(masks: Path, imgname: str) -> list[str]:
    """The NN of a frame's person masks, as strings ("00", "01", ...)."""
    stem = Path(imgname).with_suffix("")
    names = (path.name for path in (masks / stem.parent).glob(f"{stem.name}_*.png"))
    pattern = re.compile(re.escape(stem.name) + rf"_(\d+)_({'|'.join(MASKS)})\.png")
    return sorted({match[1] for match in map(pattern.fullmatch, names) if match})


def read_png(path: Path, gray: bool = False) -> np.ndarray:
    """(H, W, 3) RGB or (H, W) uint8. Raises UnreadableFile."""
    if not path.is_file():
        raise UnreadableFile(f"{path}: missing")
    data = np.fromfile(path, np.uint8)  # `imread` turns a JPEG cut short into an image that is half gray
    array = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB) if data.size else None
    if array is None:
        raise UnreadableFile(f"{path}: not a readable image, cut short?")
    return array


def read_depth(path: Path) -> np.ndarray:
    """(H, W) float32 metres from a BEDLAM depth EXR. Raises UnreadableFile."""
    import OpenEXR  # not needed to train from shards

    if not path.is_file():
        raise UnreadableFile(f"{path}: missing")
    try:
        channels = {name: channel.pixels for name, channel in OpenEXR.File(str(path)).channels().items()}
    except Exception as error:  # OpenEXR raises several builtin exceptions
        raise UnreadableFile(f"{path}: not a readable EXR, cut short? ({error})") from error
    if channels.get("Depth") is None:  # also of a file cut short
        raise UnreadableFile(f"{path}: has no channel 'Depth', only {', '.join(channels) or 'none'}")
    return np.asarray(channels["Depth"], np.float32) * np.float32(METRES_PER_UNREAL_UNIT)


def read_person_mask(masks: Path, imgname: str, number: str) -> np.ndarray:
    """(H, W) bool: visible skin, clothes and hair of person NN, from the files that exist.

    Raises UnreadableFile, also if there are none.
    """
    stem = masks / Path(imgname).with_suffix("")
    paths = [stem.with_name(f"{stem.name}_{number}_{kind}.png") for kind in MASKS]
    there = [path for path in paths if path.is_file()] or paths[:1]
    mask = read_png(there[0], gray=True) > 127
    for path in there[1:]:
        other = read_png(path, gray=True) > 127
        if other.shape != mask.shape:
            raise UnreadableFile(f"{path}: size {other.shape} differs from {there[0].name}'s {mask.shape}")
        mask |= other
    return mask


# --- one frame ----------------------------------------------------------------------------------------------


def read_frame(
    scene: FrameSet,
    imgname: str,
    rows: list[int],
    labels: Labels,
    size: int,
    bodies: Bodies | None = None,
    margin: float = MARGIN,
    skipped: Skipped | None = None,
    camera: str = "crop",
) -> list[Sample]:
    """The samples of the people of one frame, `rows` of `labels`; see `read_scenes`.

    camera: the view of the part labels, "crop" or "released", see `dpose.data.targets.part_targets`.
    Whatever is wrong with the frame is a fault of `skipped`; only too many of them raise.
    """
    skipped, bodies = skipped or Skipped(), bodies or Bodies()
    stem = Path(imgname).with_suffix("")
    path = scene.images / imgname
    try:
        image, metres, masks = read_png(path), None, []
        has_depth = scene.depth is not None
        if has_depth:
            metres = read_depth(scene.depth / stem.with_name(f"{stem.name}_depth.exr"))
            numbers = mask_numbers(scene.masks, imgname)
            if not numbers and not (scene.masks / stem.with_name(f"{stem.name}_env.png")).is_file():
                raise UnreadableFile(f"{scene.masks / stem}_NN_body.png and _env.png: missing")
            masks = [read_person_mask(scene.masks, imgname, number) for number in numbers]
            for array in (metres, *masks):
                if array.shape != image.shape[:2]:
                    raise UnreadableFile(
                        f"{path}: frame is {image.shape[:2]}, its depth or mask {array.shape}"
                    )
        if on_its_side(image.shape[:2], labels.cam_int[rows[0]]):
            image = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
            if has_depth:
                metres = np.ascontiguousarray(np.rot90(metres, -1))
                masks = [np.ascontiguousarray(np.rot90(mask, -1)) for mask in masks]
        (height, width), transl = image.shape[:2], labels.transl
        cuts = [
            make_label(
                key=sample_key(scene.name, imgname, row),
                dataset=scene.dataset,
                subject=labels.sub[row],
                body=labels.body[row],
                pose=labels.pose_cam[row],
                betas=labels.shape[row],
                trans=transl[row],
                joints2d=labels.gtkps[row, :24],
                center=labels.center[row],
                scale=labels.scale[row],
                img_size=(width, height),
                cam_int=labels.cam_int[row],
                margin=margin,
                has_depth=has_depth,
            )
            for row in rows
        ]
        parts = {view: np.zeros((len(rows), size, size), np.uint8) for view in ("crop", camera)}
        for body, members in _by_body(labels.body[rows], bodies):
            own_rows, own_cuts = np.array(rows)[members], [cuts[i] for i in members]
            person = labels.pose_cam[own_rows], labels.shape[own_rows], transl[own_rows]
            for view, drawn in parts.items():
                drawn[members] = label_part_targets(*person, own_cuts, body, size, view)
        # Masks are compared with the true view, also if the labels are drawn in another.
        owners = match_masks(cuts, parts["crop"], masks, metres) if has_depth else [None] * len(cuts)
        samples = []
        for label, part, owner in zip(cuts, parts[camera], owners, strict=True):
            if has_depth and owner is None:
                skipped.drop(NO_MASK)
                continue
            mask = masks[owner] if has_depth else None
            samples.append(sample_from_frame(image, metres, mask, label, size, part))
        return samples
    except UnreadableFile as error:
        skipped.fault(str(error))
    except (ValueError, cv2.error) as error:
        skipped.fault(f"{path}: {error}")
    return []


def _by_body(names: np.ndarray, bodies: Bodies) -> Iterator[tuple[Body, np.ndarray]]:
    """The body models among `names` (N,), and the indices of each."""
    for name in np.unique(names).tolist():
        yield bodies(name), np.flatnonzero(names == name)


def on_its_side(shape: tuple[int, int], cam_int: np.ndarray) -> bool:
    """Whether a frame (H, W) is stored turned by 90 degrees: its principal point has x and y exchanged."""
    height, width = shape
    x, y = 2 * cam_int[0, 2], 2 * cam_int[1, 2]
    return height != width and abs(x - height) + abs(y - width) < abs(x - width) + abs(y - height)


def match_masks(labels, parts: np.ndarray, masks: list[np.ndarray], depth: np.ndarray) -> list[int | None]:
    """The mask of each person of a frame: an index into `masks` for each label, or None.

    The best one-to-one assignment by score: the share of the person's joints on the mask, plus the overlap
    (IoU, in the person's crop) with the silhouette of the labelled body, minus the distance of the mask's
    median depth from the pelvis (metres). A mask that touches neither joints nor silhouette, or is more than
    `MAX_DISTANCE` away, belongs to another person, who may have no labels.
    """
    from scipy.optimize import linear_sum_assignment

    scores = np.full((len(labels), len(masks)), -10.0)
    for i, label in enumerate(labels):
        size = parts.shape[-1]
        matrix = crop_matrix(label["center"], label["scale"], size, label["margin"])
        body = parts[i] > 0
        joints = np.floor(np.array(label["joints2d"])[:BODY_JOINTS, :2]).astype(int)
        near = warp_nearest(depth, matrix, size)
        for k, mask in enumerate(masks):
            cut = warp_nearest(mask, matrix, size)
            union = (cut | body).sum()
            overlap = (cut & body).sum() / union if union else 0.0
            x, y = joints.T
            inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
            hits = mask[y[inside], x[inside]].sum() / BODY_JOINTS
            if overlap + hits > 0:
                seen = near[cut & np.isfinite(near)]
                away = abs(np.median(seen) - label["trans"][2]) if seen.size else np.inf
                if away <= MAX_DISTANCE:
                    scores[i, k] = overlap + hits - float(away)
    owners: list[int | None] = [None] * len(labels)
    for i, k in zip(*linear_sum_assignment(-scores), strict=True):
        if scores[i, k] > -10:
            owners[i] = int(k)
    return owners


# --- labelled bodies ----------------------------------------------------------------------------------------


def check_projection(labels: Labels, bodies: Bodies | None = None, exact: bool = False) -> None:
    """Compare the labelled bodies with the 2D joints of the same rows.

    Compares the labelled body joints of at most 16 rows. Raises ValueError if the median distance
    exceeds a quarter of the box side. Possible causes: a translation in another convention, exchanged axes,
    another camera. If it exceeds a hundredth, the labels may be for another body model: warns, or raises
    ValueError if `exact`.
    """
    if not len(labels):
        return
    pick = np.unique(np.linspace(0, len(labels) - 1, 16).astype(int))
    points = labelled_joints(labels, pick, bodies or Bodies()) @ labels.cam_int[pick].transpose(0, 2, 1)
    given = labels.gtkps[pick, :BODY_JOINTS]
    error = np.linalg.norm(points[..., :2] / points[..., 2:] - given[..., :2], axis=-1)
    error = (error / (BOX_UNIT * labels.scale[pick, None]))[given[..., 2] > 0]
    middle = np.median(error) if error.size else 0.0
    if not middle < 0.25:
        raise ValueError(
            f"{labels.source}: the labelled bodies do not project onto gtkps (median distance {middle:.2f} "
            "of the box side); the camera-frame translation must be trans_cam + cam_ext[:, :3, 3], and "
            "cam_int in pixels"
        )
    if middle > 0.01:
        names = ", ".join(np.unique(labels.body[pick]).tolist())
        message = (
            f"{labels.source}: the joints of the body {names} are {middle:.3f} of the box side (median) away "
            "from gtkps: the labels are for another body model or version of it. Their column `body` names "
            "it; without the column it is smplx-neutral"
        )
        if exact:
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)


def labelled_joints(labels: Labels, rows: np.ndarray, bodies: Bodies) -> np.ndarray:
    """(N, 22, 3) float64 metres, camera frame: the body joints of these rows."""
    return body_joints(
        labels.body[rows], labels.shape[rows], labels.pose_cam[rows], labels.transl[rows], bodies
    )


@torch.no_grad()
def body_joints(
    names: np.ndarray,
    betas: np.ndarray,
    pose: np.ndarray,
    transl: np.ndarray,
    bodies: Bodies,
    progress: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """(N, 22, 3) float64 metres: body joints, each person posed by the named body.

    names (N,) str; betas (N, 10 or 11); pose (N, >= 66, of SMPL >= 72) axis-angle; transl (N, 3) metres.
    progress: called with the number of people whenever some are done.
    """
    joints = np.zeros((len(names), BODY_JOINTS, 3))
    betas = np.pad(betas, ((0, 0), (0, 11 - betas.shape[1])))
    for body, members in _by_body(np.asarray(names), bodies):
        for some in np.split(members, range(CHUNK, len(members), CHUNK)):
            turns = pose[some, : 3 * body.num_rotations].reshape(len(some), -1, 3)
            betas_, turns, moves = (
                torch.as_tensor(array, dtype=torch.float32, device=body.faces.device)
                for array in (betas[some], turns, transl[some])
            )
            posed = body(betas_, turns, moves, form="axis-angle", surface=False)
            joints[some] = posed.joints[:, :BODY_JOINTS].double().cpu().numpy()
            progress(len(some))
    return joints
