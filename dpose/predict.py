"""Prediction of one person in a photograph, and the files that `dpose predict` writes.

`predict` cuts the box out of the image as training does, runs a network and poses its body in the camera of
the full image. `write` saves the mesh over the image, the depth map, the part map, a GLB mesh and the SMPL-X
parameters. Each call predicts one person. People are not detected: the network predicts a body for any box.
"""

from __future__ import annotations

import copy
import math
import re
import shutil
import struct
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from dpose.body import Body
from dpose.camera import BOX_FACTOR, BOX_UNIT, crop_affine, full_translation, project
from dpose.data.sample import warp_image
from dpose.io import check_folder, no_native_messages, write_png
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import FastDPose, normalise, run_network, usable_device
from dpose.model.network import DPose

FILES = ("overlay.png", "depth.png", "parts.png", "mesh.glb", "params.npz")

MAX_PIXELS = 2**28  # of an image
MIN_BOX = 8  # pixels
MIN_OVERLAP = 0.04  # of a box with the image, as a share of the box
USUAL_VIEW = (15.0, 130.0)  # degrees along the image diagonal; outside there is a warning
POSSIBLE_VIEW = (0.1, 179.9)
FAR = 1e5  # metres

_HEIC = re.compile(rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", re.DOTALL)
_RAW = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw")


@dataclass(frozen=True)
class Person:
    """One predicted person in numpy arrays, float32 unless said otherwise.

    V vertices and F faces of the body; M pixels per side of the maps, S of the crop. The camera frame has x
    right, y down, z forward, in metres. Crop and maps show the square (`center`, `scale`): the person's box,
    enlarged by `BOX_FACTOR` to a square.
    """

    vertices: np.ndarray  # (V, 3) metres, camera frame
    joints: np.ndarray  # (55, 3) metres, camera frame
    faces: np.ndarray  # (F, 3) int64
    rotmats: np.ndarray  # (22, 3, 3) parent-relative rotations; the root's is in the camera frame
    betas: np.ndarray  # (num_betas,) shape coefficients
    transl: np.ndarray  # (3,) metres, camera frame: SMPL-X's `transl`
    cam_int: np.ndarray  # (3, 3) intrinsics of the full image, pixels
    parts: np.ndarray  # (M, M) uint8: 0 background, j + 1 the part of joint j; all 0 without a part map
    depth: np.ndarray | None  # (M, M) in (0, 1), near to far on the person; None without a depth branch
    crop: np.ndarray  # (S, S, 3) uint8 RGB, the input of the network
    center: np.ndarray  # (2,) pixels of the full image
    scale: float  # side of the square / 200
    body: str  # name of the body model, one of `dpose.body.BODY_NAMES` or "custom"


def predict(
    image: str | Path | np.ndarray,
    box: Sequence[float] | None = None,
    checkpoint: str | Path | DPose | FastDPose = "lite",
    out: str | Path | None = None,
    *,
    focal: float | None = None,
    cam_int: np.ndarray | Sequence[Sequence[float]] | None = None,
    body: Body | str | Path | None = None,
    device: str | torch.device | None = None,
) -> Person:
    """Predicts the person in `box` and, with `out`, writes `FILES` into that folder (all of them or none).

    Args:
        image: a file, or (H, W, 3) uint8 RGB. The orientation in a file's EXIF data is applied.
        box: x, y, width, height in pixels, where x, y is the top left corner, tight around the visible
            person; it may extend beyond the image. None: the whole image. The network receives the square
            around its centre whose side is 1.2 times the longer side.
        checkpoint: "lite" or "mini" (shipped), a file, or a network, which is not changed.
        focal: focal length in pixels; None: the image diagonal (CLIFF's estimate).
        cam_int: (3, 3) intrinsics in pixels, instead of `focal`, for instance of a cropped photo, whose
            principal point is not the centre.
        body: the body that the network predicts, see `dpose.model.checkpoint.body_of`; None: as recorded.
        device: None: the device of a given network, otherwise CUDA if there is one.
    Raises:
        FileNotFoundError: image, checkpoint or body file is missing.
        ValueError: an image that cannot be read or has more than 2^28 pixels; a box that is smaller than 8
            pixels or (almost) outside the image; an impossible camera; an unusable device; a network whose
            body is unknown or another one.
        FloatingPointError: the prediction is not finite.
        FileExistsError, NotADirectoryError: `out` cannot be a folder.
    Warns:
        UserWarning: the field of view is below 15 or above 130 degrees: `focal` is hardly in pixels.
    """
    picture = read_image(image)
    height, width = picture.shape[:2]
    center, side = square_box(box, width, height)
    camera = intrinsics(width, height, focal, cam_int)
    if out is not None:
        check_folder(out)
    if isinstance(checkpoint, DPose | FastDPose):
        device = next(checkpoint.parameters()).device if device is None else usable_device(device)
        model = _for_inference(checkpoint, device)
    else:
        device = usable_device(device)
        model = checkpoints.load(checkpoint, device)
    mesh = checkpoints.body_of(model, body)
    if mesh.faces.device != device:
        mesh = copy.deepcopy(mesh).to(device)
    person = _run(model, mesh, picture, center, side, camera)
    if out is not None:
        write(person, picture, out)
    return person


# --- input


def read_image(image: str | Path | np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file or an array. Raises ValueError or FileNotFoundError, see `predict`."""
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {image.dtype} {image.shape}")
        _check_pixels("image", image.shape[1], image.shape[0])
        return image
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
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        except cv2.error:  # more than 2^30 pixels, or too little memory
            decoded = None
    if decoded is None:
        raise ValueError(f"{path} cannot be decoded: damaged, too large or not an image that OpenCV reads")
    _check_pixels(str(path), decoded.shape[1], decoded.shape[0])
    return np.ascontiguousarray(decoded[..., ::-1])


def square_box(box: Sequence[float] | None, width: int, height: int) -> tuple[np.ndarray, float]:
    """Centre (2,) and side, in pixels, of the network's square for a person's box x, y, width, height.

    Raises ValueError for an implausible box, see `predict`.
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
    return np.array([x + w / 2, y + h / 2]), BOX_FACTOR * max(w, h)


def intrinsics(
    width: int,
    height: int,
    focal: float | None = None,
    cam_int: np.ndarray | Sequence[Sequence[float]] | None = None,
) -> np.ndarray:
    """(3, 3) intrinsics in pixels from what is known of the camera, see `predict`."""
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
    views = [math.degrees(2 * math.atan2(diagonal / 2, f)) for f in (fx, fy)]
    if not POSSIBLE_VIEW[0] <= min(views) <= max(views) <= POSSIBLE_VIEW[1]:
        raise ValueError(f"a focal length of {fx:g} pixels is impossible for {width} x {height} pixels")
    if not USUAL_VIEW[0] <= views[0] <= USUAL_VIEW[1]:
        warnings.warn(
            f"focal length {fx:g} is taken as pixels: a field of view of {views[0]:.3g} degrees. If it is "
            f"the 35 mm equivalent in millimetres, give {fx * diagonal / math.hypot(36, 24):.0f}",
            stacklevel=3,
        )
    return matrix


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


# --- computation


def _for_inference(model: DPose | FastDPose, device: torch.device) -> DPose | FastDPose:
    """The model on `device`, in eval mode and float32: itself, or a copy if it would have to change."""
    fast = isinstance(model, FastDPose)
    ready = fast or all(parameter.dtype == torch.float32 for parameter in model.parameters())
    ready = ready and not any(module.training for module in model.modules())
    if ready and all(tensor.device == device for tensor in chain(model.parameters(), model.buffers())):
        return model
    model = copy.deepcopy(model).to(device).eval()
    return model if fast else model.float()


@torch.inference_mode()
def _run(
    model: DPose | FastDPose,
    body: Body,
    picture: np.ndarray,
    center: np.ndarray,
    side: float,
    camera: np.ndarray,
) -> Person:
    size, device = model.config.image_size, body.faces.device

    def one(value: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(value, np.float32), device=device)[None]

    def array(value: torch.Tensor) -> np.ndarray:
        return value[0].float().cpu().numpy()

    affine = crop_affine(torch.from_numpy(center), torch.tensor(side / BOX_UNIT, dtype=torch.float64), size)
    crop = warp_image(picture, affine.numpy(), size)
    batch = {
        "image": normalise(torch.from_numpy(crop).to(device).permute(2, 0, 1)[None]),
        "center": one(center),
        "scale": one(side / BOX_UNIT),
        "cam_int": one(camera),
    }
    prediction = run_network(model, batch)
    transl = full_translation(prediction.cam, batch["center"], batch["scale"], batch["cam_int"])
    posed = body(prediction.betas, prediction.rotmats, transl)
    maps = [x for x in (prediction.parts, prediction.depth) if x is not None]
    labels = torch.zeros(1, *[model.config.map_size] * 2)
    if prediction.parts is not None:
        labels = prediction.parts.argmax(1)
    if not (posed.vertices.abs().max() <= FAR and all(bool(x.isfinite().all()) for x in maps)):
        raise FloatingPointError(
            f"the network's result is not finite or farther than {FAR:g} m away; its weights or the camera "
            "cannot be right"
        )
    return Person(
        vertices=array(posed.vertices),
        joints=array(posed.joints),
        faces=body.faces.cpu().numpy(),
        rotmats=array(prediction.rotmats),
        betas=array(prediction.betas),
        transl=array(transl),
        cam_int=camera.astype(np.float32),
        parts=labels[0].cpu().numpy().astype(np.uint8),
        depth=None if prediction.depth is None else array(prediction.depth)[0],
        crop=crop,
        center=center.astype(np.float32),
        scale=side / BOX_UNIT,
        body=body.name,
    )


# --- output


def write(person: Person, image: np.ndarray, folder: str | Path) -> list[Path]:
    """Writes `FILES` of a prediction into a folder, which is only changed when all of them are complete."""
    from dpose.figures import colour_depth, colour_parts  # imported here: only files need matplotlib and Warp
    from dpose.render import shade

    folder = check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        depth = np.zeros_like(person.parts, np.float32) if person.depth is None else person.depth
        pictures = {
            "overlay.png": shade(person.vertices, torch.as_tensor(person.faces), person.cam_int, image),
            "depth.png": _enlarged(colour_depth(depth, person.parts > 0), person.crop.shape[0]),
            "parts.png": _enlarged(colour_parts(person.parts), person.crop.shape[0]),
        }
        for name, picture in pictures.items():
            write_png(staging / name, picture)
        (staging / "mesh.glb").write_bytes(glb(person))
        with open(staging / "params.npz", "wb") as file:
            np.savez(file, **parameters(person))
        folder.mkdir(exist_ok=True)
        for name in FILES:
            (staging / name).replace(folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [folder / name for name in FILES]


def parameters(person: Person) -> dict[str, Any]:
    """The content of params.npz: SMPL-X parameters, joints, camera and maps.

    `betas` (1, num_betas), `global_orient` (1, 3), `body_pose` (1, 63) and `transl` (1, 3) have the names,
    units (radians, metres) and batch axis of the `smplx` package, `num_betas` is its option (for a script see
    `dpose predict --help`), and `body` names the model. Further arrays, as in `Person`:
    `joints3d` (55, 3) metres, camera frame; `joints2d` (55, 2) pixels of the full image; `cam_int` (3, 3);
    `box_center` (2,); `box_scale`; `parts` (M, M); `depth` (M, M), if the network has a depth branch.
    """
    rotvecs = np.stack([cv2.Rodrigues(matrix.astype(np.float64))[0][:, 0] for matrix in person.rotmats])
    rotvecs = rotvecs.astype(np.float32)  # (22, 3)
    joints = torch.from_numpy(person.joints)
    depth = {} if person.depth is None else {"depth": person.depth}
    return {
        "betas": person.betas[None],
        "global_orient": rotvecs[:1],
        "body_pose": rotvecs[1:].reshape(1, -1),
        "transl": person.transl[None],
        "num_betas": np.int64(len(person.betas)),
        "body": np.str_(person.body),
        "joints3d": person.joints,
        "joints2d": project(joints[None], torch.from_numpy(person.cam_int)[None])[0].numpy(),
        "cam_int": person.cam_int,
        "box_center": person.center,
        "box_scale": np.float32(person.scale),
        "parts": person.parts,
        **depth,
    }


def glb(person: Person) -> bytes:
    """The mesh as binary glTF: metres, the camera frame turned by 180 degrees about x, so that y is up."""
    import trimesh  # imported here: only this file format needs it

    turned = (person.vertices * [1, -1, -1]).astype(np.float32)
    return trimesh.Trimesh(turned, person.faces, process=False).export(file_type="glb")


def _enlarged(picture: np.ndarray, side: int) -> np.ndarray:
    """(M, M, 3) to (side, side, 3), a multiple of M, by repeating pixels."""
    times = side // picture.shape[0]
    return picture.repeat(times, 0).repeat(times, 1)
