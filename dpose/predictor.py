"""Bodies of the people in photographs, folders of them, and films.

`Predictor` loads a network, its body and a detector once. Each picture goes through the detector, or boxes
are given. The people of several pictures are cut out as in training and go through the network together; each
body is posed in the camera of its picture. `Person` is the result, `dpose.export` writes it to files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from dpose.body import Body
from dpose.camera import BOX_UNIT, crop_affine, full_translation, project
from dpose.data.sample import warp_image
from dpose.detect import Detector, NanoDetector, OnnxDetector, check_detections
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import FastDPose, normalise, run_network, usable_device
from dpose.model.network import DPose
from dpose.pictures import SUFFIXES, check_view, exif_focal, intrinsics, read_image, square_box

FAR = 1e5  # metres; a vertex farther from the camera is an error
# Side of the network's square / longer side of a box around the visible person. In the open data the training
# boxes are 1.04 times as large as such a box (median), and the errors are smallest at 1.0
# (results/box_factor.json).
BOX_FACTOR = 1.0
Box = Sequence[float]
Camera = np.ndarray | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Person:
    """One predicted person in numpy arrays, float32 unless said otherwise.

    V vertices, J joints and F faces of the body; M pixels per side of the maps, S of the crop. The camera
    frame has x right, y down, z forward. A network without one of the maps leaves it None.
    """

    vertices: np.ndarray  # (V, 3) metres, camera frame
    joints: np.ndarray  # (J, 3) metres, camera frame; the first 22 are the body's
    faces: np.ndarray  # (F, 3) int64
    rotmats: np.ndarray  # (22, 3, 3) parent-relative rotations; the root's is in the camera frame
    betas: np.ndarray  # (num_betas,) shape coefficients
    transl: np.ndarray  # (3,) metres, camera frame: SMPL-X's `transl`
    cam_int: np.ndarray  # (3, 3) intrinsics of the picture, pixels
    focal_from: str  # "given", "EXIF" or "diagonal": where the focal length is from
    image_size: tuple[int, int]  # width and height of the picture, pixels
    box: np.ndarray  # (4,) x, y, width, height around the visible person, pixels
    score: float | None  # the detector's, in 0..1; None for a box by hand
    parts: np.ndarray | None  # (M, M) uint8: 0 background, j + 1 the part of joint j
    depth: np.ndarray | None  # (M, M) in (0, 1), near to far on the person
    crop: np.ndarray  # (S, S, 3) uint8 RGB, the input of the network
    center: np.ndarray  # (2,) of the square that was cut out, pixels
    scale: float  # side of the square / 200
    body: str  # name of the body model, one of `dpose.body.BODY_NAMES` or "custom"
    source: str = ""  # file of the picture, or "" for an array
    frame: int = 0  # of a film, from 0
    track: int | None = None  # the same number for the same person of a film

    @property
    def global_orient(self) -> np.ndarray:
        """(3,) axis-angle of the root in the camera frame, radians."""
        return self._rotvecs()[0]

    @property
    def body_pose(self) -> np.ndarray:
        """(63,) axis-angle of joints 1 to 21, radians."""
        return self._rotvecs()[1:].reshape(-1)

    @property
    def joints2d(self) -> np.ndarray:
        """(J, 2) projections of the joints, pixels of the picture."""
        joints, camera = torch.from_numpy(self.joints), torch.from_numpy(self.cam_int)
        return project(joints[None], camera[None])[0].numpy()

    def overlay(self, image: np.ndarray, **options: Any) -> np.ndarray:
        """The picture (H, W, 3) uint8 RGB with the shaded body; options as for `dpose.render.shade`."""
        return overlay([self], image, **options)

    def save(self, folder: str | Path, image: np.ndarray | None = None, **options: Any) -> list[Path]:
        """Writes the person's files, see `dpose.export.write`."""
        from dpose.export import write  # imported here: it needs this module

        return write([self], folder, image, **options)

    def _rotvecs(self) -> np.ndarray:
        vectors = [cv2.Rodrigues(matrix.astype(np.float64))[0][:, 0] for matrix in self.rotmats]
        return np.stack(vectors).astype(np.float32)  # (22, 3)


class Picture(NamedTuple):
    """A picture and the people in it."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    people: list[Person]  # the detector's best first; boxes by hand in their order
    source: str  # file, or "" for an array
    frame: int  # of a film, or number of the picture


class Predictor:
    """Finds the people in pictures and predicts their bodies. Network, body and detector are loaded once.

    Args:
        checkpoint: "lite" or "mini" (shipped), a file, or a network, which is not changed.
        detector: "nanodet" (in the package), an ONNX file (`dpose.detect.OnnxDetector`), or any callable from
            a picture to boxes and scores (`dpose.detect`); None: boxes must be given.
        device: None: the device of a given network, otherwise CUDA if there is one.
        body: the body that the network predicts, see `dpose.model.checkpoint.body_of`; None: as recorded.
        fast: compute with `FastDPose`, which folds batch norms and uses bfloat16 where the hardware has it.
        batch_size: people who go through the network together, at most.
    Attributes:
        model: the network, in eval mode; a `FastDPose` if `fast`.
        body: the `Body` that the network predicts.
        faces: (F, 3) int64, triangles of the body's vertices.
        detector: from a picture to boxes and scores, or None.
        device: of network and body.
    Raises:
        FileNotFoundError: checkpoint, detector or body file is missing.
        ValueError: an unusable device; a network whose body is unknown or another one; an unknown detector.
    """

    def __init__(
        self,
        checkpoint: str | Path | DPose | FastDPose = "lite",
        detector: str | Path | Detector | None = "nanodet",
        device: str | torch.device | None = None,
        *,
        body: Body | str | Path | None = None,
        fast: bool = True,
        batch_size: int = 32,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        if isinstance(checkpoint, DPose | FastDPose):
            own = next(checkpoint.parameters()).device
            self.device = own if device is None else usable_device(device)
            model = _for_inference(checkpoint, self.device)
        else:
            self.device = usable_device(device)
            model = checkpoints.load(checkpoint, self.device)
        self.model = FastDPose(model) if fast and isinstance(model, DPose) else model
        self.body = checkpoints.body_of(model, body)
        if self.body.faces.device != self.device:
            self.body = copy.deepcopy(self.body).to(self.device)
        self.faces = self.body.faces.cpu().numpy()
        if detector == "nanodet":
            detector = NanoDetector(self.device)
        elif isinstance(detector, str | Path):
            if Path(detector).suffix.lower() != ".onnx":
                raise ValueError(f"detector must be 'nanodet', an .onnx file or a callable, got {detector!r}")
            detector = OnnxDetector(detector)
        self.detector = detector

    def __call__(
        self,
        pictures: Any,
        boxes: Sequence[Box] | np.ndarray | None = None,
        *,
        focal: float | None = None,
        cam_int: Camera | None = None,
    ) -> list[Person]:
        """The people in a picture, or in all of several.

        Args:
            pictures: a file, an array or a tensor as for `dpose.pictures.read_image`; a list of these; a
                folder of image files; or a film. `Person.source` and `Person.frame` say where each is from.
            boxes: (N, 4) x, y, width, height in pixels of people in the only picture; None: the detector's.
                A box is tight around the visible person and may extend beyond the picture; the network
                receives the square around its middle whose side is its longer side.
            focal: focal length in pixels; None: from the EXIF data, or else the image diagonal.
            cam_int: (3, 3) intrinsics in pixels, instead of `focal`.
        Returns:
            People, picture by picture; an empty list if there is nobody.
        Raises:
            FileNotFoundError, ValueError: a picture cannot be read, see `read_image`; boxes or camera are
                impossible, see `square_box` and `intrinsics`; there is neither detector nor box.
            FloatingPointError: a prediction is not finite.
        """
        found = self.stream(pictures, boxes, focal=focal, cam_int=cam_int)
        return [person for picture in found for person in picture.people]

    def stream(
        self,
        pictures: Any,
        boxes: Sequence[Box] | np.ndarray | None = None,
        *,
        focal: float | None = None,
        cam_int: Camera | None = None,
        ahead: int = 8,
        failed: Callable[[str, Exception], object] | None = None,
    ) -> Iterator[Picture]:
        """Yields each picture with its people, in order. Memory does not grow with the number of pictures.

        `pictures`, `boxes`, `focal` and `cam_int` are those of a call of the `Predictor`, which returns the
        people of all pictures in one list.

        Args:
            ahead: pictures that are read before the first of them is predicted; 1 for a live camera.
            failed: called with the file and the error if a picture cannot be read or its boxes or camera are
                impossible; the others go on. None: the error is raised.
        Raises:
            FileNotFoundError, ValueError, FloatingPointError: as a call of the `Predictor`.
        """
        waiting: list[_Located] = []
        for source, frame, read in _each(pictures):
            try:
                image = read()
                camera, focal_from = _camera(source, image, focal, cam_int)
                waiting.append(
                    _Located(image, source, frame, camera, focal_from, *self._locate(image, boxes))
                )
            except (ValueError, OSError) as error:
                if failed is None:
                    raise
                failed(source, error)
                continue
            if len(waiting) >= ahead or sum(len(one.boxes) for one in waiting) >= self.batch_size:
                yield from self._predict(waiting)
                waiting = []
        yield from self._predict(waiting)

    def _locate(
        self, image: np.ndarray, boxes: Sequence[Box] | np.ndarray | None
    ) -> tuple[list[Box], list[float | None]]:
        if boxes is not None:
            for box in boxes:
                square_box(box, image.shape[1], image.shape[0])
            return list(boxes), [None] * len(boxes)
        if self.detector is None:
            raise ValueError("there is no detector: give the boxes of the people")
        found = check_detections(self.detector(image))
        height, width = image.shape[:2]
        kept = [row for row in found if _is_possible(row[:4], width, height)]
        return [row[:4] for row in kept], [float(row[4]) for row in kept]

    def _predict(self, pictures: list[_Located]) -> Iterator[Picture]:
        jobs = [(picture, box) for picture in pictures for box in picture.boxes]
        people: list[dict[str, Any]] = []
        for start in range(0, len(jobs), self.batch_size):
            people += self._run(jobs[start : start + self.batch_size])
        results = iter(people)
        for picture in pictures:
            yield Picture(
                picture.image,
                [Person(**next(results), score=score) for score in picture.scores],
                picture.source,
                picture.frame,
            )

    @torch.inference_mode()
    def _run(self, jobs: Sequence[tuple[_Located, Box]]) -> list[dict[str, Any]]:
        """The fields of `Person`, but for the score, for people in pictures."""
        size = self.model.config.image_size
        crops, squares = [], []
        for picture, box in jobs:
            height, width = picture.image.shape[:2]
            center, side = square_box(box, width, height, BOX_FACTOR)
            scale = torch.tensor(side / BOX_UNIT, dtype=torch.float64)
            affine = crop_affine(torch.from_numpy(center), scale, size)
            crops.append(warp_image(picture.image, affine.numpy(), size))
            squares.append((*center, side / BOX_UNIT))
        squares = torch.tensor(np.array(squares), dtype=torch.float32, device=self.device)
        cameras = np.stack([picture.camera for picture, _ in jobs]).astype(np.float32)
        batch = {
            "image": normalise(torch.from_numpy(np.stack(crops)).to(self.device).permute(0, 3, 1, 2)),
            "center": squares[:, :2],
            "scale": squares[:, 2],
            "cam_int": torch.from_numpy(cameras).to(self.device),
        }
        prediction = run_network(self.model, batch)
        transl = full_translation(prediction.cam, batch["center"], batch["scale"], batch["cam_int"])
        posed = self.body(prediction.betas, prediction.rotmats, transl)
        maps = [x for x in (prediction.parts, prediction.depth) if x is not None]
        if not (posed.vertices.abs().max() <= FAR and all(bool(x.isfinite().all()) for x in maps)):
            raise FloatingPointError(
                f"the network's result is not finite or farther than {FAR:g} m away; its weights or the "
                "camera cannot be right"
            )
        parts = None if prediction.parts is None else prediction.parts.argmax(1).byte()
        depth = None if prediction.depth is None else prediction.depth[:, 0]
        columns = {
            name: [None] * len(jobs) if value is None else list(value.cpu().numpy())
            for name, value in {
                "vertices": posed.vertices.float(),
                "joints": posed.joints.float(),
                "rotmats": prediction.rotmats,
                "betas": prediction.betas,
                "transl": transl,
                "parts": parts,
                "depth": depth,
                "center": batch["center"],
                "scale": batch["scale"],
            }.items()
        }
        return [
            {
                **{name: column[i] for name, column in columns.items()},
                "scale": float(columns["scale"][i]),
                "faces": self.faces,
                "cam_int": cameras[i],
                "focal_from": picture.focal_from,
                "image_size": (picture.image.shape[1], picture.image.shape[0]),
                "box": np.asarray(box, np.float32),
                "crop": crops[i],
                "body": self.body.name,
                "source": picture.source,
                "frame": picture.frame,
            }
            for i, (picture, box) in enumerate(jobs)
        ]


@dataclass(frozen=True)
class _Located:
    """A picture with its camera and the boxes of its people."""

    image: np.ndarray
    source: str
    frame: int
    camera: np.ndarray
    focal_from: str
    boxes: list[Box] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)


def predict(
    pictures: Any,
    boxes: Sequence[Box] | Box | np.ndarray | None = None,
    checkpoint: str | Path | DPose | FastDPose = "lite",
    *,
    focal: float | None = None,
    cam_int: Camera | None = None,
    **options: Any,
) -> list[Person]:
    """The people in a picture, or in all of several: `Predictor(checkpoint, ...)(pictures, boxes, ...)`.

    boxes: of people, or a single one. options: as for `Predictor`, which is faster when called repeatedly.
    """
    if boxes is not None and np.ndim(boxes) == 1:
        boxes = [boxes]
    if boxes is not None:
        options.setdefault("detector", None)
    return Predictor(checkpoint, **options)(pictures, boxes, focal=focal, cam_int=cam_int)


def overlay(people: Sequence[Person], image: np.ndarray, **options: Any) -> np.ndarray:
    """The picture (H, W, 3) uint8 RGB with the shaded bodies of people, who hide one another."""
    from dpose.render import shade  # imported here: it starts Warp

    if not people:
        return image.copy()
    vertices = np.stack([person.vertices for person in people])
    return shade(vertices, torch.as_tensor(people[0].faces), people[0].cam_int, image, **options)


def list_images(folder: str | Path) -> list[Path]:
    """The image files of a folder, by name. Raises ValueError if there are none."""
    files = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{folder} has no images ({', '.join(SUFFIXES)})")
    return files


def _each(pictures: Any) -> Iterator[tuple[str, int, Callable[[], np.ndarray]]]:
    """Source and number of every picture, and what reads it."""
    from dpose.film import frames, is_film

    if isinstance(pictures, str | Path):
        path = Path(pictures)
        if path.is_dir():
            pictures = list_images(path)
        elif is_film(path):
            for number, image in enumerate(frames(path)):
                yield str(path), number, partial(read_image, image)
            return
        else:
            pictures = [path]
    elif isinstance(pictures, np.ndarray | torch.Tensor):
        several = pictures.ndim == 4
        pictures = list(pictures) if several else [pictures]
    elif not isinstance(pictures, Iterable):
        raise ValueError(f"pictures must be files, arrays or a list of them, got {type(pictures).__name__}")
    for number, picture in enumerate(pictures):
        source = str(picture) if isinstance(picture, str | Path) else ""
        yield source, number, partial(read_image, picture)


def _camera(
    source: str, image: np.ndarray, focal: float | None, cam_int: Camera | None
) -> tuple[np.ndarray, str]:
    """Intrinsics of a picture, and where the focal length is from."""
    height, width = image.shape[:2]
    if focal is not None or cam_int is not None:
        camera = intrinsics(width, height, focal, cam_int)
        check_view(camera, width, height)
        return camera, "given"
    from_exif = exif_focal(source) if source else None
    return intrinsics(width, height, from_exif), "diagonal" if from_exif is None else "EXIF"


def _is_possible(box: np.ndarray, width: int, height: int) -> bool:
    try:
        square_box(box, width, height)
    except ValueError:
        return False
    return True


def _for_inference(model: DPose | FastDPose, device: torch.device) -> DPose | FastDPose:
    """The model on `device`, in eval mode and float32: itself, or a copy if it would have to change."""
    fast = isinstance(model, FastDPose)
    ready = fast or all(parameter.dtype == torch.float32 for parameter in model.parameters())
    ready = ready and not any(module.training for module in model.modules())
    if ready and all(tensor.device == device for tensor in chain(model.parameters(), model.buffers())):
        return model
    model = copy.deepcopy(model).to(device).eval()
    return model if fast else model.float()
