"""Pictures as cameras and programs make them: files of many formats to RGB arrays, and their focal lengths.

`read_image` applies the orientation of the EXIF data, lays transparent pictures over grey, and brings grey,
CMYK, 16-bit and floating-point pictures to 8-bit RGB. HEIC and raw photos are refused by name.
"""

from __future__ import annotations

import io
import math
import re
import struct
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from dpose.camera import BOX_FACTOR
from dpose.io import no_native_messages

MAX_PIXELS = 2**28  # pixels of an image, at most
MIN_BOX = 8  # pixels of the shorter side, at least
MIN_OVERLAP = 0.04  # of a box with the image, as a share of the box
USUAL_VIEW = (15.0, 130.0)  # degrees along the image diagonal; outside `check_view` warns
POSSIBLE_VIEW = (0.1, 179.9)  # degrees; outside `intrinsics` raises
FILM_DIAGONAL = math.hypot(36, 24)  # millimetres, of a 35 mm frame
LENSES = (5.0, 2000.0)  # focal lengths in millimetres, as 35 mm equivalents
BEHIND = 114  # grey level behind transparent pictures
SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp")

_HEIC = re.compile(rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", re.DOTALL)
_RAW = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw")
_EXIF_IFD, _FOCAL_35MM = 0x8769, 0xA405  # tags
_opening = threading.Lock()


def read_image(image: str | Path | np.ndarray | torch.Tensor) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file, an array or a tensor.

    Args:
        image: a file; an array (H, W, 3) or (H, W, 4), uint8, RGB; grey (H, W); a tensor in one of these
            shapes or with the channels first. Floating-point values are taken to lie in 0..1.
    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, a file that cannot be decoded, more than 2^28 pixels, an array of another kind.
    """
    if not isinstance(image, str | Path):
        return _from_array(image)
    path = Path(image)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name one image file in it")
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    data = path.read_bytes()
    raw = path.suffix.lower() in _RAW
    if raw or _HEIC.match(data):
        raise ValueError(f"{path} is a {'raw' if raw else 'HEIC'} photo; export it as JPEG")
    if size := _size_in_header(data):
        _check_pixels(str(path), *size)
    with no_native_messages():
        try:
            decoded = _decode(data)
        except cv2.error:  # more than 2^30 pixels, or too little memory
            decoded = None
    if decoded is None:
        raise ValueError(f"{path} cannot be decoded: damaged, too large or not an image that OpenCV reads")
    _check_pixels(str(path), decoded.shape[1], decoded.shape[0])
    return decoded


def exif_focal(path: str | Path) -> float | None:
    """Focal length in pixels by the EXIF tag of the 35 mm equivalent; None if the file does not say.

    A 35 mm frame is 36 x 24 mm; the equivalent is taken along the diagonal, as CIPA defines it. Of a picture
    that was cropped later the tag is wrong.
    """
    try:
        with _open(path) as picture:
            millimetres = float(picture.getexif().get_ifd(_EXIF_IFD).get(_FOCAL_35MM) or 0)
            width, height = picture.size
    except (OSError, ValueError, TypeError, SyntaxError):
        return None
    if not LENSES[0] <= millimetres <= LENSES[1]:
        return None
    return millimetres * math.hypot(width, height) / FILM_DIAGONAL


def square_box(
    box: Sequence[float] | None, width: int, height: int, factor: float = BOX_FACTOR
) -> tuple[np.ndarray, float]:
    """Centre (2,) and side, in pixels, of the network's square for a person's box x, y, width, height.

    Args:
        box: tight around the visible person; None: the whole image.
        factor: side of the square / longer side of the box.
    Raises:
        ValueError: not four finite numbers, smaller than 8 pixels, or (almost) outside the image.
    """
    box = (0, 0, width, height) if box is None else tuple(map(float, box))
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise ValueError(f"box must be four finite numbers x, y, width, height, got {list(box)}")
    x, y, w, h = box
    if min(w, h) < MIN_BOX:
        raise ValueError(
            f"box {list(box)} is smaller than {MIN_BOX} pixels; x, y, width and height are in pixels, not "
            "fractions of the image"
        )
    overlap = max(0.0, min(x + w, width) - max(x, 0)) * max(0.0, min(y + h, height) - max(y, 0))
    if overlap < MIN_OVERLAP * w * h:
        raise ValueError(
            f"box {list(box)} lies outside the image of {width} x {height} pixels, or nearly so; it must be "
            "x, y, width, height"
        )
    return np.array([x + w / 2, y + h / 2]), factor * max(w, h)


def intrinsics(
    width: int,
    height: int,
    focal: float | None = None,
    cam_int: np.ndarray | Sequence[Sequence[float]] | None = None,
) -> np.ndarray:
    """(3, 3) float64 intrinsics in pixels from what is known of the camera.

    Args:
        focal: focal length in pixels; None: the image diagonal (CLIFF's estimate).
        cam_int: (3, 3), instead of `focal`, for instance of a cropped photo, whose principal point is not the
            centre.
    Raises:
        ValueError: both are given, or the camera is impossible.
    """
    if focal is not None and cam_int is not None:
        raise ValueError("give either focal or cam_int, which contains the focal length")
    diagonal = math.hypot(width, height)
    if cam_int is None:
        f = diagonal if focal is None else float(focal)
        cam_int = [[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]]
    matrix = np.asarray(cam_int, np.float64)
    fx, fy, cx, cy = matrix[[0, 1, 0, 1], [0, 1, 2, 2]] if matrix.shape == (3, 3) else [math.nan] * 4
    if not np.array_equal(matrix, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]) or not np.isfinite(matrix).all():
        raise ValueError(
            "the camera must be finite numbers of pixels [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], "
            f"got {np.asarray(cam_int).tolist()}"
        )
    views = [_view(diagonal, f) for f in (fx, fy)]
    if not POSSIBLE_VIEW[0] <= min(views) <= max(views) <= POSSIBLE_VIEW[1]:
        raise ValueError(f"a focal length of {fx:g} pixels is impossible for {width} x {height} pixels")
    return matrix


def check_view(cam_int: np.ndarray, width: int, height: int) -> None:
    """Warns of a focal length given by hand that is hardly that of the picture in pixels.

    That is a UserWarning for a field of view below 15 or above 130 degrees, with a possible reason.
    """
    focal, diagonal = float(cam_int[0, 0]), math.hypot(width, height)
    view = _view(diagonal, focal)
    if USUAL_VIEW[0] <= view <= USUAL_VIEW[1]:
        return
    text = f"focal length {focal:g} is taken as pixels: a field of view of {view:.3g} degrees"
    if view < USUAL_VIEW[0]:
        text += ". If it belongs to a larger version of the picture, scale it down as the picture was"
    elif LENSES[0] <= focal <= LENSES[1]:
        text += f". If it is the 35 mm equivalent in millimetres, give {focal * diagonal / FILM_DIAGONAL:.0f}"
    warnings.warn(text, stacklevel=3)


def _view(diagonal: float, focal: float) -> float:
    """The field of view along the diagonal, degrees; both lengths in pixels."""
    return math.degrees(2 * math.atan2(diagonal / 2, focal))


def _decode(data: bytes) -> np.ndarray | None:
    if not data:
        return None
    coded = np.frombuffer(data, np.uint8)
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if decoded is None:
        return None
    rgb = _to_bytes(decoded[..., ::-1])
    if data.startswith(b"\xff\xd8"):  # JPEG has no transparency
        return rgb
    whole = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)  # the orientation of EXIF is not applied
    if whole is not None and whole.ndim == 3 and whole.shape[2] == 4 and whole.shape[:2] == rgb.shape[:2]:
        if whole.dtype == np.uint8:  # OpenCV multiplies the colours of some TIFF files by alpha
            with _open(io.BytesIO(data)) as picture:
                rgba = np.asarray(ImageOps.exif_transpose(picture).convert("RGBA"))
        else:
            rgba = _to_bytes(whole)[..., [2, 1, 0, 3]]
        return _over_grey(rgba[..., :3], rgba[..., 3])
    return rgb


def _open(file: str | Path | io.BytesIO) -> Image.Image:
    """`Image.open` without Pillow's limit of 90 megapixels; `_check_pixels` has its own."""
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _from_array(image: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
        if image.ndim == 3 and image.shape[0] in (3, 4) and image.shape[2] not in (3, 4):
            image = image.transpose(1, 2, 0)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image must be a file, an array or a tensor, got {type(image).__name__}")
    colour = image.ndim == 3 and image.shape[2] in (3, 4)
    kinds = image.dtype == np.uint8 or image.dtype in (np.float16, np.float32, np.float64)
    if not (colour or image.ndim == 2) or not kinds or 0 in image.shape:
        raise ValueError(
            "an image must be (H, W, 3) uint8 RGB, or RGBA, grey (H, W), or floating point in 0..1; got "
            f"{image.dtype} {image.shape}"
        )
    _check_pixels("image", image.shape[1], image.shape[0])
    if image.dtype != np.uint8:
        if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
            raise ValueError("an image of floating-point values must lie in 0..1")
        image = (image.astype(np.float32) * 255).round().astype(np.uint8)
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, 2)
    return _over_grey(image[..., :3], image[..., 3]) if image.shape[2] == 4 else image


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Values of any depth as contiguous uint8. 16 bits may hold 10, 12 or 14: the largest value decides."""
    if values.dtype == np.uint16:
        bits = max(8, int(values.max()).bit_length())
        bits += bits % 2
        values = values >> (bits - 8)
    elif values.dtype != np.uint8:
        values = np.nan_to_num(values.astype(np.float32))
        values = (values * (255 if values.max() <= 1 else 255 / values.max())).clip(0, 255)
    return np.ascontiguousarray(values, np.uint8)


def _over_grey(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    alpha = alpha[..., None].astype(np.uint16)  # 16 bits suffice; large pictures need much memory
    return ((rgb * alpha + BEHIND * (255 - alpha) + 127) // 255).astype(np.uint8)


def _size_in_header(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG or JPEG file, None for other formats."""
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    at = 2
    while data.startswith(b"\xff\xd8") and data[at : at + 1] == b"\xff" and at + 9 <= len(data):
        if data[at + 1] in (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _check_pixels(what: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{what} has {width} x {height} pixels; at most {MAX_PIXELS:,} are read, make it smaller"
        )
