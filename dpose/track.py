"""The same person from frame to frame: numbers of people, and smoothing of their motion.

The paper predicts every frame on its own. `Tracker` gives the people of a film numbers by their boxes;
`Smoother` filters pose, shape and place of each number with One-Euro filters (Casiez et al. 2012), as the
authors' later live demo does. Both are causal: they use the current frame and earlier ones, never later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

from dpose.body import Body

if TYPE_CHECKING:
    from dpose.predictor import Person

VELOCITY_SHARE = 0.3  # share of the newest movement of a box in its velocity; boxes jitter
FORGET = 2.0  # seconds after which the filters of an unseen person are discarded
Setting = tuple[float, float]  # min_cutoff and beta of a `OneEuro`


class Tracker:
    """Numbers the people of consecutive frames; call it once per frame, also for frames without people.

    Each track predicts its box at constant velocity. The assignment of boxes to tracks has the largest sum of
    intersections over union (SORT, Bewley et al. 2016, without its Kalman filter). Without the velocity two
    people of equal size would exchange their numbers when they cross. Numbers are not reused.

    Args:
        min_iou: smallest intersection over union of a box and the predicted one.
        max_gap: frames in a row without a match, for instance behind something, after which a track ends.
        min_frames: people are left out until their track has this many boxes; 2 drops what is found in one
            frame only.
    """

    def __init__(self, min_iou: float = 0.2, max_gap: int = 15, min_frames: int = 1) -> None:
        self.min_iou, self.max_gap, self.min_frames = min_iou, max_gap, min_frames
        self._tracks: list[_Track] = []
        self._frame = 0
        self._next = 1

    def __call__(self, people: Sequence[Person]) -> list[Person]:
        """The people of the next frame with `track` set, numbered from 1, in their order."""
        self._frame += 1
        boxes = np.array([person.box for person in people], np.float64).reshape(-1, 4)
        expected = np.array([track.expected(self._frame) for track in self._tracks]).reshape(-1, 4)
        overlap = iou(expected, boxes)
        overlap[overlap < self.min_iou] = 0
        matches = zip(*linear_sum_assignment(overlap, maximize=True), strict=True)
        found = {box: self._tracks[track] for track, box in matches if overlap[track, box] > 0}
        for i, box in enumerate(boxes):
            if i in found:
                found[i].update(box, self._frame)
            else:
                found[i] = _Track(self._next, box, self._frame)
                self._tracks.append(found[i])
                self._next += 1
        self._tracks = [track for track in self._tracks if self._frame - track.seen <= self.max_gap]
        return [
            replace(person, track=found[i].number)
            for i, person in enumerate(people)
            if found[i].boxes >= self.min_frames
        ]


@dataclass
class _Track:
    number: int
    box: np.ndarray  # (4,) x, y, width, height, the last one
    seen: int  # frame of it
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(4))  # pixels per frame; the size is kept
    boxes: int = 1

    def expected(self, frame: int) -> np.ndarray:
        return self.box + self.velocity * (frame - self.seen)

    def update(self, box: np.ndarray, frame: int) -> None:
        corner, size = box[:2], box[2:]
        moved = (corner + size / 2 - self.box[:2] - self.box[2:] / 2) / (frame - self.seen)  # of the centre
        self.velocity[:2] += VELOCITY_SHARE * (moved - self.velocity[:2])
        self.box, self.seen, self.boxes = box, frame, self.boxes + 1


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4) and (M, 4) x, y, width, height -> (N, M)."""
    a, b = first[:, None], second[None]
    sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(min=0).prod(-1)
    return common / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - common)


class OneEuro:
    """The One-Euro filter of Casiez et al. (2012): a low-pass filter whose cutoff rises with the speed.

    cutoff = min_cutoff + beta |speed|. A value at rest is smoothed strongly, a fast one follows with little
    lag: at a constant cutoff the lag is 1 / (2 pi cutoff) seconds. For vectors the speed is their norm.

    Args:
        min_cutoff: Hz; a smaller one removes more jitter.
        beta: Hz per unit of the value and second; a larger one reduces the lag of fast motion.
        speed_cutoff: Hz, of the low-pass filter of the speed.
    """

    def __init__(self, min_cutoff: float, beta: float, speed_cutoff: float = 1.0) -> None:
        self.min_cutoff, self.beta, self.speed_cutoff = min_cutoff, beta, speed_cutoff
        self._value: np.ndarray | None = None
        self._velocity: np.ndarray | float = 0.0

    def __call__(self, value: np.ndarray, seconds: float) -> np.ndarray:
        """The filtered value (..., D). seconds: since the last call, positive; any for the first call."""
        if self._value is None:
            self._value = value
            return value
        step = self._difference(value, self._value)
        self._velocity += _share(self.speed_cutoff, seconds) * (step / seconds - self._velocity)
        speed = np.linalg.norm(self._velocity, axis=-1, keepdims=True)
        share = _share(self.min_cutoff + self.beta * speed, seconds)
        self._value = self._moved(self._value, share * step)
        return self._value

    def _difference(self, value: np.ndarray, start: np.ndarray) -> np.ndarray:
        return value - start

    def _moved(self, start: np.ndarray, step: np.ndarray) -> np.ndarray:
        return start + step


class RotationOneEuro(OneEuro):
    """`OneEuro` of rotation matrices (N, 3, 3), along shortest rotations; speeds in radians/second."""

    def _difference(self, value: np.ndarray, start: np.ndarray) -> np.ndarray:
        return Rotation.from_matrix(start.swapaxes(-1, -2) @ value).as_rotvec()  # (N, 3)

    def _moved(self, start: np.ndarray, step: np.ndarray) -> np.ndarray:
        return (Rotation.from_matrix(start) * Rotation.from_rotvec(step)).as_matrix()


def _share(cutoff: np.ndarray | float, seconds: float) -> np.ndarray | float:
    """The new value's share in a low-pass filter, from its cutoff in Hz (alpha in the paper)."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * seconds))


class Smoother:
    """Smooths the motion of numbered people and poses their bodies again.

    Pelvis and shape are filtered, and `transl` follows from them. The direction of the pelvis and its
    distance have filters of their own, because the network's distance is far less certain. The default
    settings remove 60 to 80 % of the jitter. At 30 frames per second poses then lag by about 70 ms, places by
    25 ms across the picture and 65 ms in depth (results/smoothing.json).

    Args:
        body: of the people, `Predictor.body`.
        pose: (min_cutoff, beta) of the filter of the joint rotations, radians.
        shape: the same of the betas.
        direction: the same of the pelvis' x/z and y/z.
        distance: the same of the logarithm of its z.
    """

    def __init__(
        self,
        body: Body,
        pose: Setting = (0.5, 0.5),
        shape: Setting = (0.1, 0.0),
        direction: Setting = (1.0, 30.0),
        distance: Setting = (0.25, 5.0),
    ) -> None:
        self.body = body
        self._settings = {"pose": pose, "shape": shape, "direction": direction, "distance": distance}
        self._filters: dict[int, tuple[float, dict[str, OneEuro]]] = {}  # time of the last call, filters

    @torch.inference_mode()
    def __call__(self, people: Sequence[Person], time: float) -> list[Person]:
        """The people of one frame, smoothed; their maps, crop and box are left as they are.

        time: of the frame, seconds. Raises ValueError if it is not later than the last one, or a person has
        no track.
        """
        self._filters = {k: kept for k, kept in self._filters.items() if time - kept[0] <= FORGET}
        smooth = [self._smoothed(person, time) for person in people]
        if not people:
            return []
        template = self.body.template
        rotmats, betas, pelvis = (
            torch.from_numpy(np.stack(x)).to(template) for x in zip(*smooth, strict=True)
        )
        posed = self.body(betas, rotmats)
        transl = pelvis - posed.joints[:, 0]
        columns = {
            "rotmats": rotmats,
            "betas": betas,
            "transl": transl,
            "vertices": posed.vertices + transl[:, None],
            "joints": posed.joints + transl[:, None],
        }
        arrays = {name: value.float().cpu().numpy() for name, value in columns.items()}
        return [
            replace(person, **{name: array[i] for name, array in arrays.items()})
            for i, person in enumerate(people)
        ]

    def _smoothed(self, person: Person, time: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rotations (22, 3, 3), betas, and the pelvis (3,) in metres."""
        if person.track is None:
            raise ValueError("people must be numbered by a Tracker before their motion can be smoothed")
        last, filters = self._filters.get(person.track, (-np.inf, None))
        if time <= last:
            raise ValueError(f"frames must follow in time: {time:g} s is not after {last:g} s")
        if filters is None:
            kinds = {name: RotationOneEuro if name == "pose" else OneEuro for name in self._settings}
            filters = {name: kinds[name](*setting) for name, setting in self._settings.items()}
        self._filters[person.track] = time, filters
        seconds = time - last
        x, y, z = person.joints[0].astype(np.float64)
        rotmats = filters["pose"](person.rotmats.astype(np.float64), seconds)
        betas = filters["shape"](person.betas.astype(np.float64), seconds)
        x, y = filters["direction"](np.array([x / z, y / z]), seconds)
        z = np.exp(filters["distance"](np.log([z]), seconds)[0])
        return rotmats, betas, np.array([x * z, y * z, z])
