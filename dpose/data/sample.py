"""Sample: one person cut out of a frame, with a margin for the later jitter, and the geometry of that cut.

A sample is what shards store and what the loader reads: image, this person's depth, part labels, and a small
label of numbers. Joints, box and intrinsics stay in the *full image's* frame. Cutting changes the pictures
only. Pixels are continuous: pixel (row i, column j) has its centre at (j + 0.5, i + 0.5); `warp_image`
converts to OpenCV's pixel convention.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NotRequired, TypedDict

import cv2
import numpy as np

from dpose.body import BODY_NAMES, DEFAULT_BODY, num_rotations
from dpose.camera import BOX_UNIT
from dpose.data.targets import person_pixels

MARGIN = 1.25  # side of the stored cut / side of the person's box
SAMPLE_SIZE = {128: 160, 224: 280}  # stored side for a network's input side: MARGIN times as large
MAX_BETA = 15.0  # largest plausible |beta|, standard deviations


class BadSample(ValueError):
    """A sample that cannot be used; the loader counts and skips these up to a limit."""


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put `where` before the message of a BadSample that is raised within."""
    try:
        yield
    except BadSample as error:
        raise BadSample(f"{where}: {error}") from error


class SampleLabel(TypedDict):
    """Plain Python values (JSON); `check_label` returns arrays. Pixels of the full image, metres, radians."""

    key: str  # unique in the data set; no '.' and no '/'
    dataset: str
    subject: str  # identity
    body: NotRequired[str]  # the model of pose and betas, one of `BODY_NAMES`; left out: DEFAULT_BODY
    pose: list[float]  # axis-angle, root in the camera frame; 66: SMPL-X's 22 joints; 72: SMPL's 24
    betas: list[float]  # 11
    trans: list[float]  # 3: SMPL-X `transl`, camera frame
    joints2d: list[list[float]]  # 24 x (x, y, confidence); 0 = ignore
    center: list[float]  # 2: the person's box
    scale: float  # its side / 200
    margin: float  # side of the cut / side of the box
    img_size: list[float]  # 2: (w, h) of the full image
    cam_int: list[float]  # 9: row by row
    has_depth: bool
    depth_range: NotRequired[list[float]]  # 2: metres of the depth codes 1 and 65535; in shards, with depth


class Sample(TypedDict):
    """One person's cut, P pixels per side, of the box times the margin.

    image (P, P, 3) uint8 RGB; depth (P, P) float32 metres, 0 where not this person's visible pixel, or None;
    parts (P, P) uint8, 0 background, j + 1 joint j; label.
    """

    image: np.ndarray
    depth: np.ndarray | None
    parts: np.ndarray
    label: SampleLabel


# --- labels -------------------------------------------------------------------------------------------------

MAX_FLOAT = float(np.finfo(np.float32).max)
# Of each field its shape and the largest absolute value that a person before a camera can have: below these
# no geometry and no loss overflows in single precision.
FIELDS: dict[str, tuple[tuple[int, ...], float]] = {
    "betas": ((11,), MAX_BETA),
    "trans": ((3,), 1e5),
    "joints2d": ((24, 3), MAX_FLOAT),  # also of joints behind the camera, which do not count
    "center": ((2,), 1e6),
    "scale": ((), 1e4),
    "margin": ((), 100.0),
    "img_size": ((2,), 1e6),
    "cam_int": ((9,), 1e6),
}
MAX_ANGLE = 1e3  # radians
MAX_JOINT = 1e7  # pixels, and confidence, of a 2D joint that counts
MIN_DISTANCE = 0.01  # metres from camera to person


def make_label(
    *,
    key: str,
    pose,
    betas,
    trans,
    joints2d,
    center,
    scale,
    img_size,
    cam_int,
    dataset: str = "",
    subject: str = "",
    body: str = DEFAULT_BODY,
    margin: float = MARGIN,
    has_depth: bool = True,
) -> SampleLabel:
    """A label from arrays, as plain Python values.

    Longer arrays are cut (to 66 pose numbers, of SMPL 72; to 24 joints); ten betas are padded with a zero.
    Raises BadSample, with key and field in the message, for an invalid key, arrays of another size, numbers
    not finite in single precision, or a box without size. The whole label is checked when it is written.
    """
    betas, pose_size = np.ravel(betas), 3 * num_rotations(body)
    values = {
        "pose": np.ravel(pose)[:pose_size],
        "betas": np.pad(betas, (0, 1)) if betas.size == 10 else betas,
        "trans": np.ravel(trans),
        "joints2d": np.asarray(joints2d)[:24],
        "center": np.ravel(center),
        "img_size": np.ravel(img_size),
        "cam_int": np.ravel(cam_int),
    }
    label: dict[str, Any] = {"key": _check_key(str(key)), "dataset": str(dataset), "subject": str(subject)}
    if body != DEFAULT_BODY:
        label["body"] = str(body)
    with naming(f"sample {key}"):
        for name, value in values.items():
            shape = (pose_size,) if name == "pose" else FIELDS[name][0]
            label[name] = np.round(_numbers(name, value, shape), 6).tolist()
        scale = float(_numbers("scale", np.squeeze(scale), ()))
        if not scale > 0:
            raise BadSample(f"'scale' is {scale}, expected a positive number")
    return label | {"scale": round(scale, 9), "margin": float(margin), "has_depth": bool(has_depth)}


def check_label(label: dict[str, Any]) -> SampleLabel:
    """The label with each field of numbers as a float64 array of its exact shape, scale and margin as floats.

    Raises BadSample, naming the field, for an invalid label: fields missing, of another shape or type, not
    finite in single precision, or beyond `FIELDS`; an unknown body; a box below a pixel or larger than the
    cut; image sides, focal lengths or a distance that are too small.
    """
    if not isinstance(label, dict):
        raise BadSample(f"the label is no table but {type(label).__name__}")
    _check_key(label.get("key"))
    body, has_depth = label.get("body", DEFAULT_BODY), label.get("has_depth")
    if body not in BODY_NAMES:
        raise BadSample(f"unknown body {body!r}")
    if not isinstance(has_depth, bool):
        raise BadSample(f"'has_depth' is {has_depth!r}, expected true or false")
    fields = FIELDS | {"pose": ((3 * num_rotations(body),), MAX_ANGLE)}
    if has_depth and "depth_range" in label:
        fields["depth_range"] = ((2,), MAX_FLOAT)
    checked = dict(label)
    for name, (shape, limit) in fields.items():
        if name not in label:
            raise BadSample(f"the label lacks '{name}'")
        checked[name] = _numbers(name, label[name], shape, limit)
    checked["scale"], checked["margin"] = float(checked["scale"]), float(checked["margin"])
    if not (BOX_UNIT * checked["scale"] >= 1 and checked["margin"] >= 1):
        raise BadSample(
            f"the box is {BOX_UNIT * checked['scale']:g} pixels wide, its margin "
            f"{checked['margin']:g}; both must be at least 1"
        )
    if min(*checked["img_size"], *checked["cam_int"][[0, 4]]) < 1 or checked["trans"][2] < MIN_DISTANCE:
        raise BadSample(
            f"image sides and focal lengths must be at least 1 pixel and the distance "
            f"{MIN_DISTANCE} m; they are {checked['img_size']}, {checked['cam_int'][[0, 4]]}, "
            f"{checked['trans'][2]:g}"
        )
    joints = checked["joints2d"]
    if (np.abs(joints[joints[:, 2] > 0]) > MAX_JOINT).any():
        raise BadSample(f"'joints2d' holds a joint beyond {MAX_JOINT:g} pixels")
    if "depth_range" in fields and not 0 <= checked["depth_range"][0] <= checked["depth_range"][1]:
        raise BadSample(f"'depth_range' is {label['depth_range']}, expected 0 <= near <= far")
    return checked


def _check_key(key: Any) -> str:
    """The key. Raises BadSample if it cannot be a file name in a shard."""
    if not isinstance(key, str) or not key or set(key) & set("./\\"):
        raise BadSample(f"sample key {str(key)[:80]!r} must be non-empty text without '.' and '/'")
    return key


def _numbers(name: str, value: Any, shape: tuple[int, ...], limit: float = MAX_FLOAT) -> np.ndarray:
    """A field as float64 array. Raises BadSample for another shape, or a number beyond `limit`."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # nested unevenly
        raise BadSample(f"'{name}' holds no array of numbers") from error
    if array.dtype.kind not in "fiu":
        raise BadSample(f"'{name}' holds what is no number")
    if array.shape != shape:
        raise BadSample(f"'{name}' has shape {array.shape}, expected {shape}")
    array = array.astype(np.float64)
    largest = max(array.max(), -array.min())
    if not largest <= limit:
        what = f"{largest:g}, beyond {limit:g}" if np.isfinite(largest) else "a number that is not finite"
        raise BadSample(f"'{name}' holds {what}")
    return array


# --- geometry of a cut --------------------------------------------------------------------------------------


def crop_matrix(center, scale: float, size: int, margin: float = 1.0) -> np.ndarray:
    """(2, 3) float64: full-image px -> px of the `size` x `size` cut of the box times `margin`.

    `dpose.camera.crop_affine` for one box, in numpy: the loader's processes do without torch here.
    """
    side = BOX_UNIT * float(scale) * margin
    zoom = size / side
    return np.array([[zoom, 0, (side / 2 - center[0]) * zoom], [0, zoom, (side / 2 - center[1]) * zoom]])


def relative_matrix(label: SampleLabel, stored: int, center, scale: float, size: int) -> np.ndarray:
    """(2, 3): px of the stored cut -> px of the `size` x `size` cut of another box of the same frame."""
    inner = crop_matrix(label["center"], label["scale"], stored, label["margin"])
    outer = crop_matrix(center, scale, size)
    zoom = outer[0, 0] / inner[0, 0]
    return np.concatenate([np.eye(2) * zoom, outer[:, 2:] - zoom * inner[:, 2:]], 1)


def warp_image(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Cut an image by an axis-aligned `matrix` (source px -> cut px, continuous), without aliasing.

    image (H, W[, C]) -> (size, size[, C]); outside the source is 0. Enlarging is bilinear. Reducing first
    averages areas over a window of whole pixels around the cut, then interpolates bilinearly. The averaging
    reduces by a factor that is not exactly the zoom. The matrix includes this factor.
    """
    zoom = matrix[0, 0]
    x, y = np.rint(-matrix[:, 2]).astype(int)
    whole = abs(zoom - 1) * size < 1e-3 and np.abs(matrix[:, 2] + (x, y)).max() < 1e-3
    if whole:  # no resampling needed
        if x >= 0 and y >= 0 and x + size <= image.shape[1] and y + size <= image.shape[0]:
            return np.ascontiguousarray(image[y : y + size, x : x + size])
    matrix = np.array(matrix, np.float64)
    if zoom < 0.99:
        low = np.floor(-matrix[:, 2] / zoom - 2 / zoom).astype(int).clip(0)
        high = np.ceil((size - matrix[:, 2]) / zoom + 2 / zoom).astype(int).clip(0)
        window = image[low[1] : high[1], low[0] : high[0]]
        height, width = window.shape[:2]
        if not (height and width):
            return np.zeros((size, size, *image.shape[2:]), image.dtype)
        small = max(1, round(width * zoom)), max(1, round(height * zoom))
        image = cv2.resize(window, small, interpolation=cv2.INTER_AREA)
        matrix[:, 2] += matrix[:, :2] @ low
        matrix[:, 0] *= width / small[0]
        matrix[:, 1] *= height / small[1]
    matrix[:, 2] += (matrix[:, 0] + matrix[:, 1] - 1) / 2  # OpenCV counts from pixel centres
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def warp_nearest(array: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Cut labels or depth by an axis-aligned `matrix`; values never mix.

    Each cut pixel takes the source pixel that covers its centre. array (H, W) -> (size, size); outside is 0.
    """
    centres = np.arange(size) + 0.5
    x = np.floor((centres - matrix[0, 2]) / matrix[0, 0]).astype(np.intp)
    y = np.floor((centres - matrix[1, 2]) / matrix[1, 1]).astype(np.intp)
    height, width = array.shape
    inside_x, inside_y = (x >= 0) & (x < width), (y >= 0) & (y < height)
    if inside_x.all() and inside_y.all():
        return array.take(y, 0).take(x, 1)  # rows, then columns: several times as fast as both at once
    out = array.take(y, 0, mode="clip").take(x, 1, mode="clip")
    return np.where(inside_y[:, None] & inside_x, out, array.dtype.type(0))


def sample_from_frame(
    image: np.ndarray,
    depth: np.ndarray | None,
    mask: np.ndarray | None,
    label: SampleLabel,
    size: int,
    parts: np.ndarray | None = None,
) -> Sample:
    """Cut one person out of a frame.

    image (H, W, 3) uint8 RGB; depth (H, W) float metres of the whole frame; mask (H, W) bool: this person's
    visible pixels; parts (size, size) uint8 in the cut's view (`label_part_targets`), zeros if left out.
    The cut is the label's box times its margin. Depth that cannot be the person's (`person_pixels`) is left
    out: of the 16-bit codes, one sky pixel would leave few codes for the person.
    """
    matrix = crop_matrix(label["center"], label["scale"], size, label["margin"])
    cut_depth = None
    if depth is not None and mask is not None:
        cut = warp_nearest(depth, matrix, size).astype(np.float32)
        person = person_pixels(cut, warp_nearest(mask.astype(bool), matrix, size))
        cut_depth = np.where(person, cut, np.float32(0))
    if parts is None:
        parts = np.zeros((size, size), np.uint8)
    label = {**label, "has_depth": cut_depth is not None and bool(cut_depth.any())}
    return Sample(image=warp_image(image, matrix, size), depth=cut_depth, parts=parts, label=label)
