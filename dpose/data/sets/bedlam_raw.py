"""BEDLAM's raw ground truth -> labels: csv files with places and cameras in Unreal's world, and motions.

Unreal has x forward, y right, z up, left-handed, in centimetres and degrees; a sensor of 36 mm; and motions
of SMPL-X with y up. The result is the table that BEDLAM's processed label files hold.
"""

import csv
import hashlib
import json
import os
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from dpose.body import Body
from dpose.camera import box_from_joints
from dpose.data.frames import BODY_JOINTS, METRES_PER_UNREAL_UNIT, Skipped, UnreadableFile
from dpose.data.labels import HANDS, MIN_VISIBLE_JOINTS, NUM_BETAS, POSE_SIZE, Labels
from dpose.data.sample import MAX_BETA
from dpose.data.sets.common import converted, image_size

STEP = 5  # every fifth frame is taken: camera files, motions and the numbers in file names are at 30 fps
SENSOR = (36.0, 20.25)  # mm, of a frame as it is stored
VERTEX_REACH = 1.0  # metres: no vertex is so far in front of all joints
CAMERA = ("x", "y", "z", "yaw", "pitch", "roll", "focal_length")
VERSION = 3  # to be raised when the same files give another table


def convert_scene(
    raw: Path,
    images: Path,
    out: Path,
    motions: Path,
    body: Body,
    skipped: Skipped,
    progress: bool = False,
) -> Path | None:
    """The label file of a raw scene, made if need be (`converted`); None if no person is left.

    raw: the folder of be_seq.csv and ground_truth/camera. motions: the folder of <person>/<motion>. body: the
    neutral SMPL-X. Raises TooManyFaults.
    """
    sequences, wrong = read_sequences(raw / "be_seq.csv")
    frames = {sequence.name: frames_at(images / sequence.name) for sequence in sequences}
    size = next(filter(None, (image_size(images / name) for name, own in frames.items() if own)), None)
    cameras = {
        sequence.name: raw / "ground_truth" / "camera" / f"{sequence.name}_camera.csv"
        for sequence in sequences
    }

    def make(skipped: Skipped) -> Labels | None:
        for fault in wrong:
            skipped.fault(fault)
        tables = []
        for sequence in tqdm(sequences, desc=raw.name, unit="sequence", disable=not progress):
            folder, own = images / sequence.name, frames[sequence.name]
            if not own:
                skipped.fault(f"{folder}: missing images, there is no {sequence.name}_NNNN.png")
            elif size is None:
                skipped.fault(f"{folder}: missing images, none in this scene can be read")
            else:
                camera = cameras[sequence.name]
                tables += convert_sequence(sequence, own, camera, motions, body, size, skipped)
        if not tables:
            return None
        return Labels(**{name: np.concatenate([table[name] for table in tables]) for name in tables[0]})

    files = {*cameras.values(), *(motions / b.file for sequence in sequences for b in sequence.bodies)}
    sources = [raw / "be_seq.csv", *sorted(path for path in files if path.is_file())]
    names = hashlib.sha256(json.dumps(frames).encode()).hexdigest()
    given = {"min_joints": MIN_VISIBLE_JOINTS, "size": size, "frames": names, "body": body.hash}
    return converted(out, raw.name, sources, VERSION, make, skipped, given)


def convert_sequence(
    sequence: "RawSequence",
    frames: dict[int, str],
    camera_csv: Path,
    motions: Path,
    body: Body,
    size: tuple[int, int],
    skipped: Skipped,
) -> list[dict[str, np.ndarray]]:
    """The labels of one sequence: none or one table of `Labels`' columns, ordered by frame.

    frames: number -> file name. size: (w, h) px of a frame as it is stored. A camera that rolls by about +90
    degrees is on its side: its frames, turned clockwise, are portraits.
    """
    try:
        numbers, camera = read_camera(camera_csv)
    except UnreadableFile as error:
        skipped.fault(str(error))
        return []
    if len(camera) and 45 < np.median(camera[:, CAMERA.index("roll")]) < 135:
        size = min(size), max(size)
    end = numbers.max(initial=-1) + 1 if sequence.frames is None else sequence.frames
    wanted = {n for n in numbers.tolist() if n < end and n % STEP == 0}
    for missing, what in (
        (wanted - set(frames), f"missing images, {{}} of {len(wanted)} frames of {camera_csv} have none"),
        (set(frames) - set(numbers.tolist()), f"{{}} of {len(frames)} images have no row in {camera_csv}"),
    ):
        if missing:
            where = f"{sequence.name}_{min(missing):04d}"
            skipped.fault(f"{where} and on: {what.format(len(missing))}")
    usable = np.array(sorted(set(frames) & set(numbers.tolist())), int)
    at = np.argsort(numbers)[np.searchsorted(np.sort(numbers), usable)]  # rows of `camera`
    people = []
    for placed in sequence.bodies:
        path = motions / placed.file
        try:
            motion = read_motion(path)
        except UnreadableFile as error:
            skipped.fault(f"{error} ({placed.person} in {camera_csv.parents[2].name}/{sequence.name})")
            continue
        row = usable + placed.start
        there = row < len(motion["poses"])
        skipped.drop("motion too short", (~there).sum())
        finite = np.isfinite(motion["poses"]).all(1) & np.isfinite(motion["trans"]).all(1)
        bad = there & ~finite[np.where(there, row, 0)]
        if bad.any():
            skipped.fault(f"{path}: non-finite numbers, in {bad.sum()} of {sequence.name}'s frames")
        take = np.flatnonzero(there & ~bad)
        people.append(
            {
                "frame": take,
                "poses": motion["poses"][row[take]],
                "transl": motion["trans"][row[take]],
                "shape": np.broadcast_to(motion["betas"], (len(take), NUM_BETAS)),
                "place": np.broadcast_to(placed.place, (len(take), 3)),
                "yaw": np.full(len(take), placed.yaw),
                "gender": np.full(len(take), motion["gender"], object),
                "sub": np.full(len(take), placed.person, object),
                "motion_info": np.full(len(take), motion["motion_info"], object),
            }
        )
    if not sum(len(person["frame"]) for person in people):
        return []
    rows = {name: np.concatenate([person[name] for person in people]) for name in people[0]}
    order = np.argsort(rows["frame"], kind="stable")
    rows = {name: value[order] for name, value in rows.items()}
    frame = rows.pop("frame")
    table = place_people(rows, camera[at[frame]], body, size)
    behind, hidden = table.pop("behind"), table.pop("visible") < MIN_VISIBLE_JOINTS
    skipped.drop("a vertex behind the camera", behind.sum())
    skipped.drop(f"fewer than {MIN_VISIBLE_JOINTS} joints in the image", (hidden & ~behind).sum())
    names = [f"{sequence.name}/{frames[n]}" for n in usable[frame].tolist()]
    table |= {"imgname": np.array(names, object)}
    table |= {name: rows[name] for name in ("shape", "gender", "sub", "motion_info")}
    keep = ~behind & ~hidden
    return [{name: value[keep] for name, value in table.items()}] if keep.any() else []


def place_people(
    rows: dict[str, np.ndarray], camera: np.ndarray, body: Body, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """People of a motion, placed as in Unreal and seen by its camera: columns of `Labels`, float64.

    In OpenCV's axes, Unreal's (x, y, z) is (y, -z, x), and angles change their sign. A body of yaw 0 faces y.

    Args:
        rows: poses (N, 165), transl (N, 3) m and shape (N, 11) of the motion; place (N, 3) cm and yaw (N,)
            degrees of the body.
        camera: (N, 7) as `CAMERA`, cm, degrees, mm.
        size: see `convert_sequence`.
    Returns:
        Besides the columns, `behind` (N,) bool: a vertex is behind the camera; and `visible` (N,): how many
        of the 22 body joints are in the image.
    """
    position, (yaw, pitch, roll, focal) = camera[:, :3], camera[:, 3:].T
    width, height = size
    portrait = width < height
    turn = np.stack([90 * portrait - roll, -pitch], 1)
    tilt = Rotation.from_euler("ZX", turn, degrees=True)
    away = (rows["place"] - position) * METRES_PER_UNREAL_UNIT
    away = np.stack([away[:, 1], -away[:, 2], away[:, 0]], 1)
    place = (tilt * Rotation.from_euler("Y", -yaw[:, None], degrees=True)).apply(away)
    facing = Rotation.from_rotvec([np.pi, 0, 0])  # from y up, facing the camera, to OpenCV's axes
    stand = tilt * Rotation.from_euler("Y", (rows["yaw"] - 90 - yaw)[:, None], degrees=True) * facing
    pose = rows["poses"].copy()
    pose[:, :3] = (stand * Rotation.from_rotvec(pose[:, :3])).as_rotvec()

    def posed(some, surface: bool):
        turns, hands = pose[some, :66].reshape(-1, 22, 3), pose[some, HANDS].reshape(-1, 30, 3)
        shape, turns, hands = (
            torch.as_tensor(array, dtype=torch.float32, device=body.faces.device)
            for array in (rows["shape"][some], turns, hands)
        )
        with torch.no_grad():
            return body(shape, turns, hands=hands, form="axis-angle", surface=surface)

    joints = posed(slice(None), False).joints.double().cpu().numpy()
    pelvis = joints[:, 0]  # which no rotation moves
    trans_cam = stand.apply(pelvis + rows["transl"]) - pelvis
    transl = trans_cam + place
    joints = joints + transl[:, None]
    behind = (joints[..., 2] <= 0).any(1)
    near = np.flatnonzero(~behind & (joints[..., 2].min(1) < VERTEX_REACH))
    for some in np.array_split(near, 1 + near.size // 64):  # with surfaces a batch needs much memory
        if some.size:
            nearest = posed(some, True).vertices[..., 2].amin(1).double().cpu().numpy()
            behind[some] = nearest + transl[some, 2] <= 0

    sensor = SENSOR[::-1] if portrait else SENSOR
    cam_int = np.zeros((len(pose), 3, 3))
    cam_int[:, 0, 0], cam_int[:, 1, 1] = focal / sensor[0] * width, focal / sensor[1] * height
    cam_int[:, :, 2] = width / 2, height / 2, 1
    points = (joints / np.where(behind[:, None, None], 1, joints[..., 2:])) @ cam_int.transpose(0, 2, 1)
    points = torch.from_numpy(points[..., :2])
    inside = ((points >= 0) & (points < torch.tensor(size))).all(-1)[:, :BODY_JOINTS]
    center, scale = box_from_joints(
        points, torch.ones(points.shape[:2], dtype=torch.bool), torch.tensor(size)
    )
    cam_ext = np.zeros((len(pose), 4, 4))
    cam_ext[:, :3, :3], cam_ext[:, :3, 3], cam_ext[:, 3, 3] = tilt.as_matrix(), place, 1
    return {
        "center": center.numpy(),
        "scale": scale.numpy(),
        "pose_cam": pose,
        "trans_cam": trans_cam,
        "gtkps": np.concatenate([points.numpy(), np.ones((*points.shape[:2], 1))], -1),
        "cam_int": cam_int,
        "cam_ext": cam_ext,
        "behind": behind,
        "visible": inside.sum(1).numpy(),
    }


# --- raw files ----------------------------------------------------------------------------------------------


class PlacedBody(NamedTuple):
    """A body of a sequence: its motion, from frame `start` on, its place (cm) and its yaw (degrees)."""

    person: str
    motion: str
    place: tuple[float, float, float]
    yaw: float
    start: int

    @property
    def file(self) -> Path:
        """Its motion, relative to the folder of motions."""
        return Path(self.person, self.motion, "motion_seq.npz")


@dataclass
class RawSequence:
    """One video: its name, its number of frames if stated, and the bodies in it."""

    name: str
    frames: int | None = None
    bodies: list[PlacedBody] = field(default_factory=list)


def read_sequences(path: Path) -> tuple[list[RawSequence], list[str]]:
    """The sequences of be_seq.csv, and what is wrong with it by file and line; such lines are left out."""
    sequences: list[RawSequence] = []
    wrong: list[str] = []
    current = None
    wanted = ("Type", "Body", "X", "Y", "Z", "Yaw", "Pitch", "Roll", "Comment")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in wanted if name not in (reader.fieldnames or [])]:
                return [], [f"{path}, line 1: bad csv, without the column {', '.join(missing)}"]
            for row in reader:
                try:
                    if row["Comment"] is None:
                        raise ValueError("the line is cut short")
                    pairs = (pair.partition("=") for pair in row["Comment"].split(";"))
                    comment = {name.strip(): value.strip() for name, _, value in pairs}
                    if row["Type"] == "Group" or "sequence_name" in comment:
                        current = None  # if this line is bad, what follows is not of the sequence before
                    if "sequence_name" in comment:
                        current = _sequence(comment)
                        sequences.append(current)
                    elif "start_frame" in comment:
                        if current is None:
                            raise ValueError("a body without a sequence")
                        current.bodies.append(_placed(row, comment["start_frame"]))
                except ValueError as error:
                    wrong.append(f"{path}, line {reader.line_num}: bad csv, {error}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        wrong.append(f"{path}: bad csv, {error}")
    return sequences, wrong


def _sequence(comment: dict[str, str]) -> RawSequence:
    name, frames = comment.get("sequence_name", ""), comment.get("frames", "")
    if not re.fullmatch(r"\w+", name) or not re.fullmatch(r"\d*", frames):
        raise ValueError(f"a sequence with sequence_name={name!r} and frames={frames!r}")
    return RawSequence(name, int(frames) if frames else None)


def _placed(row: dict[str, str], start: str) -> PlacedBody:
    x, y, z, yaw, pitch, roll = (_number(row, name) for name in ("X", "Y", "Z", "Yaw", "Pitch", "Roll"))
    if pitch or roll:
        raise ValueError(f"a body with pitch {pitch:g} and roll {roll:g}, which BEDLAM does not have")
    name = re.fullmatch(r"(\w[\w.-]*)_([a-zA-Z0-9]+)", row["Body"])
    if not name or not start.isdigit():
        raise ValueError(f"Body {row['Body']!r} with start_frame {start!r}: no <person>_<motion> and number")
    return PlacedBody(name[1], name[2], (x, y, z), yaw, int(start))


def _number(row: dict[str, str], name: str) -> float:
    try:
        number = float(row[name] or "")
    except ValueError:
        raise ValueError(f"{name} is {row[name]!r}, no number") from None
    if not np.isfinite(number):
        raise ValueError(f"non-finite numbers: {name} is {number}")
    return number


def read_camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers (F,) and (F, 7) float64, as CAMERA. Raises UnreadableFile with file and line."""
    if not path.is_file():
        raise UnreadableFile(f"{path}: missing camera csv")
    line, numbers, values = 1, [], []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in ("name", *CAMERA) if name not in (reader.fieldnames or [])]:
                raise ValueError(f"without the column {', '.join(missing)}")
            for row in reader:
                line = reader.line_num
                frame = re.search(r"(\d+)(\.\w+)?$", row["name"] or "")
                if not frame or int(frame[1]) in numbers:
                    raise ValueError(f"name {row['name']!r} is no new frame")
                values.append([_number(row, name) for name in CAMERA])
                numbers.append(int(frame[1]))
                sides = [side for side in ("sensor_width", "sensor_height") if side in row]
                sensor = sorted((_number(row, side) for side in sides), reverse=True)
                if any(abs(a - b) > 0.01 * b for a, b in zip(sensor, SENSOR, strict=False)):
                    raise ValueError(f"a sensor of {sensor} mm, not {SENSOR}")
    except (OSError, ValueError, csv.Error) as error:
        raise UnreadableFile(f"{path}, line {line}: bad csv, {error}") from error
    return np.array(numbers, int), np.array(values, float).reshape(-1, len(CAMERA))


def read_motion(path: Path) -> dict:
    """poses (T, 165), trans (T, 3), betas (11,) float64; gender (the person's) and motion_info, text.

    Raises UnreadableFile.
    """
    if not path.is_file():
        raise UnreadableFile(f"{path}: missing motion")
    text = {"gender": "", "gender_sub": "neutral", "motion_info": ""}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name].astype(float) for name in ("poses", "trans", "betas")}
            for name in text:
                try:
                    text[name] = str(file[name].item())
                except (KeyError, ValueError):  # absent, or needs pickle
                    pass
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UnreadableFile(f"{path}: not a readable motion ({error})") from error
    length, betas = len(np.atleast_1d(arrays["poses"])), arrays["betas"].ravel()
    if not length or arrays["poses"].shape != (length, POSE_SIZE) or arrays["trans"].shape != (length, 3):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise UnreadableFile(f"{path}: not a SMPL-X motion, its arrays are {shapes}")
    if text["gender"] not in ("", "neutral") or betas.size not in (10, NUM_BETAS):
        raise UnreadableFile(
            f"{path}: {betas.size} betas of the {text['gender'] or 'neutral'} body; needed are the motions "
            "of the neutral one (neutral_ground_truth_motioninfo)"
        )
    if not (np.abs(betas) <= MAX_BETA).all():
        largest = f"{np.abs(betas).max():.4g}"
        raise UnreadableFile(f"{path}: betas up to {largest}; no body has any beyond {MAX_BETA:g}")
    arrays["betas"] = np.pad(betas, (0, NUM_BETAS - betas.size))
    return arrays | {"gender": text["gender_sub"], "motion_info": text["motion_info"]}


def frames_at(folder: Path) -> dict[int, str]:
    """Number and file name of every fifth frame of a sequence, in order; none without the folder."""
    names = os.listdir(folder) if folder.is_dir() else []
    matches = (re.fullmatch(rf"{re.escape(folder.name)}_(\d+)\.png", name) for name in names)
    numbers = {int(match[1]): match[0] for match in matches if match}
    return {number: numbers[number] for number in sorted(numbers) if number % STEP == 0}
