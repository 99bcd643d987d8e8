"""Frames of people -> samples: what every data set has in common once its labels are in the one table.

A data set is a list of `Scene`s: a label file (`Labels`), the folder that its `imgname`s are relative to,
and, where the set has them, folders of depth and masks in BEDLAM's layout (spec 8):

    <images>/<sequence>/<frame>.png                     RGB; other sets have .jpg, or no sequence folder
    <depth>/<sequence>/<frame>_depth.exr                channel Depth, Unreal's cm along the view axis
    <masks>/<sequence>/<frame>_NN_body.png              a person's visible skin, 0 or 255,
    <masks>/<sequence>/<frame>_NN_clothing.png, _hair   clothes and hair; what has no pixel has no file
    <masks>/<sequence>/<frame>_env.png                  everything else; always there, and not used

NN = 00, 01, ... The label file does not say which NN a row is: the masks are matched to a frame's people by
their 2D joints, the silhouette of the labelled body and its distance, all people at once. Frames stored on
their side (BEDLAM's closeups) are turned upright, known by the principal point.
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from dpose.body import Bodies
from dpose.data.labels import Labels
from dpose.data.sample import MARGIN, Sample, crop_matrix, make_label, sample_from_frame, warp_nearest
from dpose.data.targets import render_label_parts
from dpose.paths import BODY_MODELS_VARIABLE

METRES_PER_UNREAL_UNIT = 0.01  # metres in an Unreal unit
NO_MASK = "no mask shows them: wholly hidden, or its files are missing"  # the renderer writes no empty masks
MASKS = ("body", "clothing", "hair")
FAR = 0.9  # metres between the pelvis and what a mask shows, in the median: farther is somebody else
MAX_FAULTS = 100  # frames or people that may be unusable before reading gives up


class UnreadableFile(ValueError):
    """A frame, depth or mask file that is missing, cut short or of the wrong size; the message names it."""


class TooManyFaults(RuntimeError):
    """More frames or people were unusable than the stated limit."""


@dataclass(frozen=True)
class FrameSet:
    """One label file and the folders of its frames; `prepare` cuts scenes into shards.

    name: unique in the data set, the beginning of its samples' keys. labels: a `Labels` file. images: what
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
    """What was left out, and why: nothing is skipped in silence.

    `drop` counts people whom a rule of the data set leaves out (too few joints in sight, a frame marked as
    bad). `fault` records what should have been usable and was not; past `limit` of them it raises
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
    scenes: Iterable[FrameSet],
    size: int,
    bodies: Callable | None = None,
    *,
    margin: float = MARGIN,
    keep: Callable[[str, str], bool] | None = None,
    skipped: Skipped | None = None,
) -> Iterator[Sample]:
    """Every labelled person of the scenes, as samples of `size` pixels.

    bodies: a function of a body's name (`Labels.body`) that returns it; None: `dpose.body.Bodies()`. keep:
    a function of (scene's name, imgname) that says whether to take a frame. Frames that cannot be read are
    faults of `skipped` and warned about; people whom no mask shows are counted there. Raises ValueError on a
    malformed label file, or one whose bodies do not project onto its own 2D joints, and TooManyFaults.
    """
    skipped = Skipped() if skipped is None else skipped
    bodies = bodies or Bodies()
    scenes = list(scenes)
    for scene in scenes:  # all of them first: a fault in the last scene should not show after hours
        Labels.load(scene.labels)
    for scene in scenes:
        labels = Labels.load(scene.labels)
        check_projection(labels, bodies)
        for imgname, rows in frames_of(labels).items():
            if keep is None or keep(scene.name, imgname):
                yield from read_frame(scene, imgname, rows, labels, size, bodies, margin, skipped)


def frames_of(labels: Labels) -> dict[str, list[int]]:
    """The rows of each frame, in the table's order."""
    frames: dict[str, list[int]] = {}
    for row, imgname in enumerate(labels.imgname.tolist()):
        frames.setdefault(imgname, []).append(row)
    return frames


def sample_key(scene: str, imgname: str, row: int | None = None) -> str:
    """The key of a row's sample; without a row what the keys of a frame have in common."""
    key = f"{scene}-{Path(imgname).with_suffix('')}" + ("" if row is None else f"-{row:06d}")
    return re.sub(r"[./\s]+", "-", key)


def read_frame(
    scene: FrameSet,
    imgname: str,
    rows: list[int],
    labels: Labels,
    size: int,
    bodies: Callable | None = None,
    margin: float = MARGIN,
    skipped: Skipped | None = None,
    camera: str = "crop",
) -> list[Sample]:
    """The samples of one frame's people, `rows` of `labels`; arguments as for `read_scenes`.

    camera: whose view the part labels are, "crop" or "paper", see `dpose.data.targets.part_targets`.
    Whatever is wrong with the frame is a fault of `skipped`; only too many of them raise.
    """
    skipped = Skipped() if skipped is None else skipped
    try:
        return _frame_samples(scene, imgname, rows, labels, size, bodies, margin, skipped, camera)
    except UnreadableFile as error:
        skipped.fault(str(error))
    except (ValueError, cv2.error) as error:
        skipped.fault(f"{scene.images / imgname}: {error}")
    return []


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
    data = np.fromfile(path, np.uint8)  # of a JPEG cut short `imread` makes a picture, half of it gray
    array = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB) if data.size else None
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
    return np.asarray(pixels, np.float32) * np.float32(METRES_PER_UNREAL_UNIT)


def read_person_mask(masks: Path, imgname: str, number: str) -> np.ndarray:
    """(H, W) bool: visible skin, clothes and hair of person NN, as far as there are files of them.

    Raises UnreadableFile, also without any.
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


def _frame_samples(
    scene: FrameSet,
    imgname: str,
    rows,
    labels: Labels,
    size: int,
    bodies,
    margin: float,
    skipped: Skipped,
    camera: str,
) -> list[Sample]:
    stem = Path(imgname).with_suffix("")
    path = scene.images / imgname
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
                raise UnreadableFile(f"{path}: frame is {image.shape[:2]}, its depth or mask {array.shape}")
    if on_its_side(image.shape[:2], labels.cam_int[rows[0]]):
        image = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
        if has_depth:
            metres = np.ascontiguousarray(np.rot90(metres, -1))
            masks = [np.ascontiguousarray(np.rot90(mask, -1)) for mask in masks]
    height, width = image.shape[:2]
    cuts = [
        make_label(
            key=sample_key(scene.name, imgname, row),
            dataset=scene.dataset,
            subject=labels.sub[row],
            body=labels.body[row],
            pose=labels.pose_cam[row],
            betas=labels.shape[row],
            trans=labels.transl[row],
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
    for body, mine in people_by_body(labels, rows, bodies):
        some, labelled = [rows[i] for i in mine], [cuts[i] for i in mine]
        person = labels.pose_cam[some], labels.shape[some], labels.transl[some]
        for view, drawn in parts.items():
            drawn[mine] = render_label_parts(*person, labelled, body, size, view)
    # Masks are compared with the true view, whichever the labels are to have.
    owners = match_masks(cuts, parts["crop"], masks, metres) if has_depth else [None] * len(cuts)
    samples = []
    for label, part, owner in zip(cuts, parts[camera], owners, strict=True):
        if has_depth and owner is None:
            skipped.drop(NO_MASK)
            continue
        samples.append(
            sample_from_frame(image, metres, masks[owner] if has_depth else None, label, size, part)
        )
    return samples


def people_by_body(
    labels: Labels, rows, bodies: Callable | None = None
) -> Iterator[tuple[object, list[int]]]:
    """The body models of `rows` and which of the rows (as indices into `rows`) each of them poses."""
    bodies = bodies or Bodies()
    names = labels.body[np.asarray(rows, int)]
    for name in sorted(set(names.tolist())):
        yield bodies(name), np.flatnonzero(names == name).tolist()


def on_its_side(shape: tuple[int, int], cam_int: np.ndarray) -> bool:
    """Whether a frame (H, W) is stored turned by 90 degrees: its principal point is the other way round."""
    height, width = shape
    x, y = 2 * cam_int[0, 2], 2 * cam_int[1, 2]
    return height != width and abs(x - height) + abs(y - width) < abs(x - width) + abs(y - height)


def match_masks(labels, parts: np.ndarray, masks: list[np.ndarray], depth: np.ndarray) -> list[int | None]:
    """Which mask belongs to which person of a frame: an index into `masks` for each label, or None.

    The best one-to-one assignment of scores: share of the person's joints on the mask, plus the overlap (IoU,
    in the person's cut) with the labelled body's silhouette, minus the distance of the mask's median depth
    from the pelvis (metres). A mask that touches neither joints nor silhouette, or shows what is more than
    `FAR` away, belongs to somebody else: to an actor without labels, if need be.
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
                away = abs(np.median(seen) - label["trans"][2]) if seen.size else np.inf
                if away <= FAR:
                    scores[i, k] = overlap + hits - float(away)
    owners: list[int | None] = [None] * len(labels)
    for i, k in zip(*linear_sum_assignment(-scores), strict=True):
        if scores[i, k] > -10:
            owners[i] = int(k)
    return owners


def check_projection(
    labels: Labels, bodies: Callable | None = None, rows: int = 16, exact: bool = False
) -> None:
    """Refuse labels whose body, put where they say, is not where their own 2D joints are.

    Compares the labelled ones of the 22 body joints on up to `rows` rows; raises ValueError when the median
    distance exceeds a quarter of the box: a translation in another convention, swapped axes, another camera.
    Warns, or with `exact` raises ValueError too, when it exceeds a hundredth: the body may be another one
    than the labels are for.
    """
    if not len(labels):
        return
    pick = np.unique(np.linspace(0, len(labels) - 1, rows).astype(int))
    joints = labelled_joints(labels, pick, bodies)
    points = joints @ labels.cam_int[pick].transpose(0, 2, 1)
    error = np.linalg.norm(points[..., :2] / points[..., 2:] - labels.gtkps[pick, :22, :2], axis=-1)
    error = (error / (200 * labels.scale[pick, None]))[labels.gtkps[pick, :22, 2] > 0]
    middle = np.median(error) if error.size else 0.0
    if not middle < 0.25:
        raise ValueError(
            f"{labels.source}: the labelled bodies do not project onto gtkps (median distance {middle:.2f} "
            "of the box side); the camera-frame translation must be trans_cam + cam_ext[:, :3, 3], and "
            "cam_int in pixels"
        )
    if middle > 0.01:
        message = (
            f"{labels.source}: the labelled joints are {middle:.3f} of the box side (median) away from those "
            "of the body model, whose part labels will be off as well. Labels of SMPL-X bodies need SMPL-X: "
            f"set {BODY_MODELS_VARIABLE} to its files (`dpose doctor` lists them)"
        )
        if exact:
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)


def labelled_joints(labels: Labels, rows, bodies: Callable | None = None) -> np.ndarray:
    """(N, 22, 3) float64 metres, camera frame: the body joints of these rows' people."""
    import torch

    joints = np.zeros((len(rows), 22, 3))
    for body, mine in people_by_body(labels, rows, bodies):
        some = np.asarray(rows)[mine]
        pose = labels.pose_cam[some, : 3 * body.num_rotations].reshape(len(some), -1, 3)
        arrays = labels.shape[some], pose, labels.transl[some]
        tensors = (torch.as_tensor(array, dtype=torch.float32, device=body.faces.device) for array in arrays)
        with torch.no_grad():
            joints[mine] = (
                body(*tensors, form="axis-angle", surface=False).joints[:, :22].double().cpu().numpy()
            )
    return joints
