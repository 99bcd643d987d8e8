"""From a photograph and a box to a body: what `dpose predict` does.

`predict` cuts the box out of the image as training does, runs a checkpoint, poses the body in the full
image's camera and writes five files: the mesh over the image, the depth map, the part map, a GLB mesh and the
SMPL-X parameters. One person a call; finding people is not done here.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from dpose.body import Body, load_body
from dpose.camera import BOX_FACTOR, BOX_UNIT, crop_affine, default_focal, full_translation, project
from dpose.data.sample import warp_image
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import IMAGENET_MEAN, IMAGENET_STD, FastDPose, run_network, usable_device
from dpose.model.network import DPose

FILES = ("overlay.png", "depth.png", "parts.png", "mesh.glb", "params.npz")


@dataclass(frozen=True)
class Person:
    """One prediction, in numpy; V vertices, M map pixels a side, S crop pixels a side. Camera frame.

    Depth and parts are maps of the square crop, the person's box enlarged by `BOX_FACTOR`.
    """

    vertices: np.ndarray  # (V, 3) metres, camera frame
    joints: np.ndarray  # (55, 3) metres, camera frame
    faces: np.ndarray  # (F, 3)
    rotmats: np.ndarray  # (22, 3, 3)
    betas: np.ndarray  # (11,)
    transl: np.ndarray  # (3,) metres, SMPL-X `transl`
    cam_int: np.ndarray  # (3, 3) pixels of the full image
    parts: np.ndarray  # (M, M) uint8, 0 background, j + 1 joint j
    depth: np.ndarray | None  # (M, M) in (0, 1), near to far; None without a depth branch
    crop: np.ndarray  # (S, S, 3) uint8, what the network saw
    center: np.ndarray  # (2,) pixels
    scale: float  # side of the square / 200


def predict(
    image: str | Path | np.ndarray,
    box: Sequence[float] | None = None,
    checkpoint: str | Path | DPose | FastDPose = "mini",
    out: str | Path | None = None,
    *,
    focal: float | None = None,
    body: Body | str | Path | None = None,
    device: str | None = None,
) -> Person:
    """Predict the person in `box` and, with `out`, write `FILES` into that folder (all of them or none).

    Args:
        image: a file, or (H, W, 3) uint8 RGB.
        box: x, y, width, height of the person in pixels (x, y the left top corner), tight around what is seen
            of them; None: the whole image. The network sees the square around its centre, 1.2 times its
            longer side.
        checkpoint: "mini" (shipped), a file, or a loaded network, `FastDPose` of one included.
        focal: focal length in pixels; None: the image diagonal (CLIFF's guess).
        body: body model or its file, as for `dpose.load_body`.
    Raises:
        FileNotFoundError: image or checkpoint is missing.
        ValueError: not a readable image, an empty box, a box outside the image, a focal length not positive,
            a device that is not there.
    """
    picture = read_image(image)
    height, width = picture.shape[:2]
    center, side = square_box(box, width, height)
    if focal is not None and not 0 < focal < float("inf"):
        raise ValueError(f"focal must be a positive number of pixels, got {focal}")
    device = usable_device(device)
    model = (
        checkpoint
        if isinstance(checkpoint, DPose | FastDPose)
        else checkpoints.load(checkpoint, device=device)
    )
    model = model.to(device).eval()
    if not isinstance(body, Body):
        if body is None and not isinstance(checkpoint, DPose | FastDPose):
            body = checkpoints.metadata(checkpoint).get("body", {}).get("name")
        body = load_body(body, num_betas=model.config.num_betas)
    person = _run(model, body.to(device), picture, center, side, focal)
    if out is not None:
        write(person, picture, out)
    return person


def read_image(image: str | Path | np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file or an array; ValueError or FileNotFoundError if it is none."""
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {image.dtype} {image.shape}")
        return image
    path = Path(image)
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    data = np.frombuffer(path.read_bytes(), np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if decoded is None:
        raise ValueError(f"{path} cannot be decoded as an image; it is damaged or of an unknown format")
    return np.ascontiguousarray(decoded[..., ::-1])


def square_box(box: Sequence[float] | None, width: int, height: int) -> tuple[np.ndarray, float]:
    """Centre (2,) and side, in pixels, of the square that the network sees for a person's box x, y, w, h."""
    if box is None:
        box = (0, 0, width, height)
    box = np.asarray(box, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"box must be four numbers x, y, width, height, got {box.tolist()}")
    x, y, w, h = box
    if w <= 0 or h <= 0:
        raise ValueError(f"box {box.tolist()} is empty: width and height must be positive")
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise ValueError(f"box {box.tolist()} lies outside the image of {width} x {height} pixels")
    return np.array([x + w / 2, y + h / 2]), BOX_FACTOR * max(w, h)


def write(person: Person, image: np.ndarray, folder: str | Path) -> list[Path]:
    """Write `FILES` of a prediction; a folder is only touched once all of them are made."""
    from dpose.figures import colour_depth, colour_parts
    from dpose.render import shade

    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; name a folder to write to")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        overlay = shade(person.vertices, torch.as_tensor(person.faces), person.cam_int, image)
        _write_png(staging / "overlay.png", np.asarray(overlay))
        side = person.crop.shape[0]
        depth = np.zeros_like(person.parts, np.float32) if person.depth is None else person.depth
        _write_png(staging / "depth.png", _enlarge(colour_depth(depth, person.parts > 0), side))
        _write_png(staging / "parts.png", _enlarge(colour_parts(person.parts), side))
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
    """The SMPL-X parameters under the names that the `smplx` package takes, with camera and maps.

    Axis-angle in radians, metres, pixels of the full image.
    """
    rotvecs = np.stack([cv2.Rodrigues(r.astype(np.float64))[0][:, 0] for r in person.rotmats])  # (22, 3)
    joints = torch.from_numpy(person.joints)
    maps = {} if person.depth is None else {"depth": person.depth}
    return {
        "betas": person.betas,  # (11,)
        "global_orient": rotvecs[0].astype(np.float32),  # (3,) in the camera frame
        "body_pose": rotvecs[1:].reshape(-1).astype(np.float32),  # (63,)
        "transl": person.transl,  # (3,)
        "cam_int": person.cam_int,  # (3, 3)
        "joints3d": person.joints,  # (55, 3) camera frame
        "joints2d": project(joints[None], torch.from_numpy(person.cam_int)[None])[0].numpy(),  # (55, 2)
        "box_center": person.center,  # (2,)
        "box_scale": np.float32(person.scale),
        "parts": person.parts,  # (M, M)
        **maps,
    }


def glb(person: Person) -> bytes:
    """The mesh as binary glTF: y up, facing +z (the camera frame turned by 180 degrees about x), metres."""
    import trimesh

    turned = (person.vertices * [1, -1, -1]).astype(np.float32)
    return trimesh.Trimesh(turned, person.faces, process=False).export(file_type="glb")


@torch.inference_mode()
def _run(
    model: nn.Module, body: Body, picture: np.ndarray, center: np.ndarray, side: float, focal: float | None
) -> Person:
    device, size = body.faces.device, model.config.image_size
    height, width = picture.shape[:2]
    tensor = lambda value: torch.as_tensor(np.asarray(value, np.float32), device=device)[None]  # noqa: E731
    centers, scale, img_size = tensor(center), tensor(side / BOX_UNIT), tensor([width, height])
    f = default_focal(img_size) if focal is None else tensor(focal)
    cam_int = torch.eye(3, device=device)[None]
    cam_int[:, 0, 0] = cam_int[:, 1, 1] = f
    cam_int[:, :2, 2] = img_size / 2
    crop = warp_image(picture, crop_affine(centers, scale, size)[0].double().cpu().numpy(), size)
    image = (
        torch.as_tensor(crop, device=device) / 255 - torch.tensor(IMAGENET_MEAN, device=device)
    ) / torch.tensor(IMAGENET_STD, device=device)
    batch = {
        "image": image.permute(2, 0, 1)[None].float(),
        "center": centers,
        "scale": scale,
        "img_size": img_size,
        "cam_int": cam_int,
    }
    said = run_network(model, batch)
    transl = full_translation(said.cam, centers, scale, cam_int)
    posed = body(said.betas, said.rotmats, transl)
    array = lambda value: value[0].float().cpu().numpy()  # noqa: E731
    return Person(
        vertices=array(posed.vertices),
        joints=array(posed.joints),
        faces=body.faces.cpu().numpy(),
        rotmats=array(said.rotmats),
        betas=array(said.betas),
        transl=array(transl),
        cam_int=array(cam_int),
        parts=said.parts.argmax(1)[0].cpu().numpy().astype(np.uint8),
        depth=None if said.depth is None else array(said.depth)[0],
        crop=crop,
        center=center.astype(np.float32),
        scale=side / BOX_UNIT,
    )


def _enlarge(picture: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST)


def _write_png(path: Path, picture: np.ndarray) -> None:
    ok, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    if not ok:
        raise OSError(f"could not encode {path.name}")
    path.write_bytes(data.tobytes())
