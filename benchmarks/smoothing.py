"""Jitter and lag of predicted motion, without and with One-Euro smoothing (`dpose.track.Smoother`).

Synthetic people walk about and change their pose, hold it, and change it again. Their pictures get the noise
of a sensor, are written as H.264, read again, and go through detector and network. The predictions are
smoothed with several settings and compared with the truth: the joints relative to the pelvis ("pose"), the
pelvis across the viewing ray, as if at its true distance ("direction"), and its z ("distance").

- accel, mm/frame^2: the mean of |acceleration - true acceleration|, the field's "Accel".
- lag, ms: the shift of the true velocities with the largest correlation with the predicted ones. Velocities
  above 3 m/s, which are jumps of the prediction, count as 3 m/s.
- error, mm: the mean distance; of the pose it is the MPJPE.

    python benchmarks/smoothing.py --out results/smoothing.json
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp

from dpose import results
from dpose.body import Body, load_body
from dpose.film import FilmWriter
from dpose.io import write_json
from dpose.predictor import Person, Predictor
from dpose.synthetic.people import pose_people
from dpose.synthetic.poses import about, sample_pose
from dpose.synthetic.scene import Scene, _body_spheres, sample_scene
from dpose.synthetic.variety import Variety
from dpose.synthetic.viewport import SceneRenderer
from dpose.track import Smoother, Tracker

RATE = 30.0  # frames per second
MOVE, HOLD = 0.7, 0.5  # seconds of a change of pose, and of rest after it
STEP, TURN = 0.4, 0.5  # metres, radians (deviations) of a change of place
SIDE = 448  # of a picture, pixels
JUMP = 3.0  # metres per second
LATEST = 12  # frames, the largest lag that is looked for
NOISE = 4.0  # of the sensor, grey levels
MARGIN = 1.3  # side of the picture / extent of the joints in all frames
NEAREST = 4.0  # metres from the camera, at first
ACTIVITIES = ("stand", "gesture", "walk", "bend", "sport")
VARIETY = Variety().without(
    *(
        "groups",
        "framing",
        "views",
        "tables",
        "occluders",
        "belongings",
        "focus",
        "tone",
        "resolution",
        "boxes",
    )
)
OFF = (1e6, 0.0)  # a filter that changes nothing
SETTINGS = {  # (min_cutoff, beta) of pose, shape, direction, distance
    "none": (OFF, OFF, OFF, OFF),
    **{f"shape {cutoff:g} Hz": (OFF, (cutoff, 0.0), OFF, OFF) for cutoff in (0.1, 1.0)},
    **{
        f"pose {cutoff:g} Hz, {beta:g}": ((cutoff, beta), OFF, OFF, OFF)
        for cutoff in (0.5, 1.0, 2.0)
        for beta in (0.0, 0.5, 1.0, 2.0)
    },
    **{
        f"direction {cutoff:g} Hz, {beta:g}": (OFF, OFF, (cutoff, beta), OFF)
        for cutoff, beta in ((1.0, 0.0), (1.0, 10.0), (1.0, 30.0), (2.0, 10.0), (2.0, 30.0))
    },
    **{
        f"distance {cutoff:g} Hz, {beta:g}": (OFF, OFF, OFF, (cutoff, beta))
        for cutoff, beta in ((0.25, 0.0), (0.25, 2.0), (0.25, 5.0), (0.5, 2.0), (0.5, 5.0), (1.0, 2.0))
    },
    "default": (),
}


def suitable_scene(index: int) -> Scene:
    """A scene with one person, far enough away, without skirt and long hair, which do not move here."""
    while True:
        scene = sample_scene(0, "hard", index, VARIETY)
        outfit, distance = scene.outfits[0], (scene.joints[0, 0] @ scene.rotation.T + scene.translation)[2]
        if len(scene.outfits) == 1 and distance > NEAREST:
            if not outfit.skirt_rings and outfit.hairstyle != "long":
                return scene
        index += 100


def moving(scene: Scene, seconds: float, rng: np.random.Generator) -> Iterator[Scene]:
    """The scene with its person in motion, frame by frame; poses follow one another along shortest paths."""
    keys = 2 + int(seconds / (MOVE + HOLD))
    poses = np.stack([sample_pose(rng, str(rng.choice(ACTIVITIES))).rotations for _ in range(keys)])
    yaws = scene.yaws[0] + np.cumsum(rng.normal(0, TURN, keys))
    places = scene.joints[0, 0] * [1, 0, 1] + rng.normal(0, STEP, (keys, 3)) * [1, 0, 1]
    for key in range(keys):
        root = Rotation.from_rotvec(poses[key, 0]).as_matrix()
        poses[key, 0] = Rotation.from_matrix(about("y", yaws[key]) @ root).as_rotvec()
    paths = [Slerp(range(keys), Rotation.from_rotvec(poses[:, joint])) for joint in range(55)]
    for number in range(int(seconds * RATE)):
        key, within = divmod(number / RATE, MOVE + HOLD)
        along = key + (1 - np.cos(np.pi * min(within / MOVE, 1))) / 2
        rotations = np.stack([path(along).as_rotvec() for path in paths])[None]
        vertices, joints, fields, bare = pose_people(scene.betas, rotations, scene.outfits)
        vertices, fields = vertices[:, : bare.shape[1]], fields[:, : bare.shape[1]]
        place = np.array([np.interp(along, range(keys), places[:, axis]) for axis in range(3)])
        transl = place - [0, vertices[0, :, 1].min(), 0]  # on the ground
        moved = joints + transl
        yield replace(
            scene,
            rotations=rotations,
            transl=transl[None],
            joints=moved,
            vertices=np.ascontiguousarray(vertices + transl, np.float32),
            bare=np.ascontiguousarray(bare + transl, np.float32),
            fields=np.ascontiguousarray(fields),
            spheres=_body_spheres(moved),
        )


def sequence(predictor: Predictor, index: int, seconds: float) -> tuple[list[Person | None], np.ndarray]:
    """Predicted people per frame, None where nobody was found, and true joints (T, 22, 3), camera frame."""
    scene = suitable_scene(index)
    rng = np.random.default_rng(index)
    frames = list(moving(scene, seconds, rng))
    truth = np.concatenate([frame.joints @ scene.rotation.T + scene.translation for frame in frames])[:, :22]
    pixels = truth @ scene.cam_int.T
    pixels = pixels[..., :2] / pixels[..., 2:]
    low, high = pixels.min((0, 1)), pixels.max((0, 1))
    scale = SIDE / (MARGIN * (high - low).max())
    cam_int = np.diag([scale, scale, 1.0]) @ scene.cam_int
    cam_int[:2, 2] += SIDE / 2 - scale * (low + high) / 2  # the middle of the motion is the picture's
    with TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        with FilmWriter(path, RATE, (SIDE, SIDE)) as film:
            for frame in frames:
                renderer = SceneRenderer(replace(frame, cam_int=cam_int, size=(SIDE, SIDE)))
                image = renderer.crop((SIDE / 2, SIDE / 2), SIDE / 200, SIDE, 1.0).image
                noisy = image + rng.normal(0, NOISE, image.shape)
                film.write(noisy.round().clip(0, 255).astype(np.uint8))
        found = [picture.people for picture in predictor.stream(path, cam_int=cam_int)]
    tracker, people = Tracker(), []
    for joints, some in zip(truth, map(tracker, found), strict=True):
        pelvis = (cam_int @ joints[0] / joints[0, 2])[:2]
        near = [one for one in some if np.abs(one.joints2d[0] - pelvis).max() < SIDE / 8]
        people.append(min(near, key=lambda one: np.abs(one.joints2d[0] - pelvis).max(), default=None))
    return people, truth


def smoothed(people: list[Person | None], body: Body, setting: tuple) -> np.ndarray:
    """Joints (T, 22, 3) of the smoothed people; NaN where there is nobody."""
    smoother, joints = Smoother(body, *setting), np.full((len(people), 22, 3), np.nan)
    for number, person in enumerate(people):
        if person is not None:
            joints[number] = smoother([person], number / RATE)[0].joints[:22]
    return joints


def measure(joints: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, float]:
    """The measures of the module's docstring; joints (T, 22, 3) of each sequence, metres."""
    pairs = list(zip(joints, truth, strict=True))
    signals = {
        "pose": [(x - x[:, :1], y - y[:, :1]) for x, y in pairs],
        "direction": [(x[:, :1, :2] / x[:, :1, 2:] * y[:, :1, 2:], y[:, :1, :2]) for x, y in pairs],
        "distance": [(x[:, :1, 2:], y[:, :1, 2:]) for x, y in pairs],
    }

    def mean_norm(pairs: list[tuple[np.ndarray, np.ndarray]], order: int) -> float:
        apart = np.concatenate([np.diff(x - y, n=order, axis=0) for x, y in pairs])
        return round(1000 * float(np.nanmean(np.linalg.norm(apart, axis=-1))), 2)

    return {
        f"{name}_{measure}": value
        for name, pairs in signals.items()
        for measure, value in (
            ("accel_mm", mean_norm(pairs, 2)),
            ("lag_ms", lag(pairs)),
            ("error_mm", mean_norm(pairs, 0)),
        )
    }


def lag(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Milliseconds by which the predicted velocities follow the true ones; signals (T, N, D) in metres."""

    def velocity(signal: np.ndarray) -> np.ndarray:
        moved = np.diff(signal, axis=0)
        length = np.linalg.norm(moved, axis=-1, keepdims=True)
        return (moved * np.minimum(1, JUMP / RATE / np.maximum(length, 1e-9))).reshape(len(moved), -1)

    pairs = [(velocity(predicted), velocity(true)) for predicted, true in pairs]
    shifts, scores = np.arange(-LATEST, LATEST + 0.01, 0.1), []  # frames
    for shift in shifts:
        products, powers = 0.0, 0.0
        for predicted, true in pairs:
            numbers = np.arange(LATEST + 1, len(true) - LATEST - 1)
            whole, rest = np.divmod(numbers - shift, 1)
            whole, rest = whole.astype(int), rest[:, None]
            shifted = (1 - rest) * true[whole] + rest * true[whole + 1]
            here = np.isfinite(predicted[numbers])
            products += (predicted[numbers] * shifted)[here].sum()
            powers += (shifted[here] ** 2).sum()
        scores.append(products / np.sqrt(powers))
    return round(float(shifts[int(np.argmax(scores))]) * 1000 / RATE)


def noise(sequences: list[list[Person | None]]) -> dict[str, float]:
    """Standard deviations of the predictions from frame to frame while the person holds still.

    By second differences, whose deviation is sqrt(6) times that of white noise.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for people in sequences:
        for first, second, third in zip(people, people[1:], people[2:], strict=False):
            if first is None or second is None or third is None:
                continue
            if min(first.frame / RATE % (MOVE + HOLD), third.frame / RATE % (MOVE + HOLD)) < MOVE:
                continue
            three = [first, second, third]
            ahead, behind = (second.rotmats.swapaxes(1, 2) @ one.rotmats for one in (third, first))
            bend = Rotation.from_matrix(ahead).as_rotvec() + Rotation.from_matrix(behind).as_rotvec()
            pelvis = np.array([one.joints[0] for one in three], np.float64)
            for name, value in {
                "rotation_rad": bend,
                "beta": np.diff([one.betas for one in three], n=2, axis=0),
                "direction_rad": np.diff(pelvis[:, :2] / pelvis[:, 2:], n=2, axis=0),
                "log_distance": np.diff(np.log(pelvis[:, 2]), n=2),
                "box_side_px": np.diff([one.box[2:].max() for one in three], n=2),
            }.items():
                columns.setdefault(name, []).append(np.ravel(value))
    return {
        name: round(float(np.sqrt(np.mean(np.concatenate(values) ** 2) / 6)), 5)
        for name, values in columns.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="lite")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.6, help="length of a sequence")
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()
    predictor = Predictor(args.checkpoint, device="cpu")
    people, truth = zip(*(sequence(predictor, i, args.seconds) for i in range(args.sequences)), strict=True)
    people = [[one and replace(one, frame=t) for t, one in enumerate(some)] for some in people]
    missed = sum(one is None for some in people for one in some)
    measured = noise(list(people))
    print(f"{sum(map(len, people))} frames, {missed} without a person; noise at rest: {measured}")

    rows, few_vertices = {}, load_body(predictor.body.name, vertex_stride=64)  # only joints are measured
    for name, setting in SETTINGS.items():
        rows[name] = measure([smoothed(some, few_vertices, setting) for some in people], list(truth))
        print(f"{name:24}", *(f"{key} {value:g}" for key, value in rows[name].items()), sep="  ")
    if args.out:
        write_json(
            args.out,
            {
                "benchmark": "smoothing",
                "network": args.checkpoint,
                "rate": RATE,
                "sequences": args.sequences,
                "frames": sum(map(len, people)),
                "frames_without_a_person": missed,
                "noise_at_rest": measured,
                "settings": rows,
                **results.provenance(),
            },
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
