"""Body poses: joint rotations within anatomical limits, sampled per activity.

Joints are described by anatomical angles (flexion, abduction, twist; radians), which are converted to
SMPL-X's axis-angle relative to the T-pose (y up, facing +z, x to the person's left). `dpose.synthetic.scene`
puts the posed people on the ground or on seats.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

# Indices of SMPL-X's body joints.
HIPS, SPINE, KNEES, ANKLES, NECK, HEAD = (1, 2), (3, 6, 9), (4, 5), (7, 8), 12, 15
COLLARS, SHOULDERS, ELBOWS, WRISTS = (13, 14), (16, 17), (18, 19), (20, 21)

ACTIVITIES = {  # name: probability
    "stand": 0.16,
    "walk": 0.15,
    "run": 0.06,
    "gesture": 0.15,
    "sit": 0.14,
    "crouch": 0.05,
    "kneel": 0.05,
    "sit_floor": 0.05,
    "lie": 0.04,
    "bend": 0.05,
    "sport": 0.10,
}


class Pose(NamedTuple):
    """Pose of one person.

    rotations: (55, 3) axis-angle in radians, SMPL-X order; the root is upright and faces +z. support: what
    the person rests on: "feet", "seat" (at the height of the buttocks), "ground" (the lowest point), "air".
    """

    activity: str
    rotations: np.ndarray
    support: str


def about(axis: str, angle: float) -> np.ndarray:
    """Rotation matrix (3, 3) about a coordinate axis; radians. Fifty times as fast as scipy's constructor."""
    c, s = math.cos(angle), math.sin(angle)
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _turned(rotvec: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(rotvec).as_matrix()


def _leg(side: int, flex: float, spread: float = 0.06, twist: float = 0.0) -> np.ndarray:
    """Hip rotation (3, 3): flexion forwards, abduction outwards, twist that turns the knee outwards.

    side: +1 left, -1 right.
    """
    return about("z", side * spread) @ about("y", side * twist) @ about("x", -flex)


def _arm(side: int, lift: float, forward: float, twist: float) -> np.ndarray:
    """Rotation (3, 3) of the upper arm: `lift` from straight down, towards `forward` (pi/2: ahead)."""
    to = np.array([side * np.sin(lift) * np.cos(forward), -np.cos(lift), np.sin(lift) * np.sin(forward)])
    start = np.array([side, 0.0, 0.0])
    axis = np.cross(start, to)
    norm = np.linalg.norm(axis)
    swing = _turned(axis / max(norm, 1e-9) * np.arctan2(norm, start @ to))
    return swing @ about("x", twist)


def _set_arm(r: list[np.ndarray], i: int, lift: float, forward: float, elbow: float, twist: float) -> None:
    """Set collar, shoulder and elbow of arm `i` (0 left, 1 right) in `r`, the 22 rotation matrices."""
    side = 1 - 2 * i
    arm = _arm(side, lift, forward, twist)
    share = 0.25 * max(lift - 0.9, 0.0)  # the collar contributes to high lifts
    r[COLLARS[i]] = about("z", side * share)
    r[SHOULDERS[i]] = r[COLLARS[i]].T @ arm
    r[ELBOWS[i]] = about("y", -side * elbow)


# Ranges of hip flexion, spread and twist, and of the knee's flexion, for one leg; radians.
LEGS = {
    "straight": ((-0.1, 0.15), (0.0, 0.25), (0.0, 0.4), (0.0, 0.2)),
    "step": ((0.2, 0.9), (0.0, 0.3), (0.0, 0.4), (0.1, 1.1)),
    "back": ((-0.5, -0.05), (0.0, 0.3), (0.0, 0.3), (0.0, 1.7)),
    "high": ((1.0, 2.0), (0.0, 0.5), (0.0, 0.6), (0.1, 2.2)),
    "aside": ((0.0, 0.8), (0.4, 1.1), (0.0, 0.7), (0.0, 1.5)),
    "bent": ((0.4, 1.2), (0.05, 0.4), (0.0, 0.4), (0.5, 1.6)),
    "squat": ((1.4, 2.1), (0.1, 0.5), (0.1, 0.5), (1.5, 2.3)),
    "rest": ((0.9, 1.6), (0.0, 0.6), (0.0, 0.8), (0.2, 2.2)),
    "kneel": ((-0.1, 0.5), (0.0, 0.25), (0.0, 0.2), (1.4, 2.0)),
    "under": ((1.0, 1.6), (0.0, 0.3), (0.0, 0.2), (1.2, 1.8)),
}
# Both legs of a wide pose, its support, and the range of the forward pitch of the whole body.
STANCES = {  # name: (probability, legs, support, pitch)
    "stride": (0.16, ("step", "back"), "feet", (-0.1, 0.35)),
    "one_leg": (0.1, ("straight", "high"), "feet", (-0.3, 0.5)),
    "kick": (0.08, ("straight", "aside"), "feet", (-0.3, 0.3)),
    "wide": (0.1, ("aside", "aside"), "feet", (-0.1, 0.5)),
    "ready": (0.18, ("bent", "bent"), "feet", (0.0, 0.6)),
    "squat": (0.07, ("squat", "squat"), "ground", (0.0, 0.5)),
    "leap": (0.08, ("step", "back"), "air", (-0.3, 0.5)),
    "hop": (0.05, ("bent", "rest"), "air", (-0.3, 0.4)),
    "on_seat": (0.06, ("rest", "rest"), "seat", (-0.25, 0.1)),
    "all_fours": (0.04, ("under", "under"), "ground", (1.0, 1.4)),
    "knees": (0.04, ("kneel", "kneel"), "ground", (-0.1, 0.3)),
    "recline": (0.04, ("rest", "step"), "ground", (-1.3, -0.5)),
}


def sample_wide_pose(rng: np.random.Generator) -> Pose:
    """A random pose from a wider range than `sample_pose`'s: sports, dance, reaching, crouching, lying.

    Each leg, arm and part of the trunk is drawn from its own range of angles.
    """
    u, n = rng.uniform, rng.normal
    names = list(STANCES)
    activity = names[rng.choice(len(names), p=[STANCES[name][0] for name in names])]
    _, legs, support, (low, high) = STANCES[activity]
    r = [np.eye(3) for _ in range(22)]
    pitch = u(low, high)
    first = int(rng.integers(2))
    alike = legs[0] == legs[1] and rng.random() < 0.6
    draws = [[u(*limits) for limits in LEGS[leg]] for leg in legs]
    for i, side in enumerate((1, -1)):
        flex, spread, twist, knee = draws[0] if alike else draws[i ^ first]
        if support == "seat":
            knee = u(0.8, 1.8) if rng.random() < 0.7 else knee
        flex = min(flex + 0.6 * max(pitch, 0.0), 2.1) if support != "ground" else flex
        r[HIPS[i]] = _leg(side, flex, spread, twist)
        r[KNEES[i]] = about("x", knee)
        flat = flex - knee - pitch if support in ("feet", "seat") else n(0.3, 0.3)
        r[ANKLES[i]] = about("x", float(np.clip(flat, -0.4, 0.8))) @ _turned(n(0, [0.06, 0.06, 0.03]))
    both = rng.random() < 0.35  # both hands hold something, or move alike
    shared = (u(0.4, 2.7), u(0.5, 1.8), u(0.0, 1.9), n(0, 0.5))
    for i in (0, 1):
        lift = float(rng.choice([u(0.1, 0.7), u(0.7, 1.7), u(1.7, 2.9)], p=[0.35, 0.4, 0.25]))
        alone = (lift, u(-0.6, 1.8), abs(n(0.0, 1.0)), n(0, 0.5))
        lift, forward, elbow, twist = np.add(shared, n(0, [0.15, 0.15, 0.2, 0.15])) if both else alone
        if activity == "all_fours":
            lift, forward, elbow = u(1.2, 1.7), u(1.3, 1.7), u(0.0, 0.4)
        _set_arm(r, i, float(lift), float(forward), float(np.clip(elbow, 0.0, 2.4)), float(twist))
        r[WRISTS[i]] = _turned(n(0, [0.3, 0.2, 0.35]))
    lean, side_bend, turn = u(-0.25, 0.7) if abs(pitch) < 0.8 else n(0, 0.15), n(0, 0.2), n(0, 0.3)
    for joint in SPINE:
        r[joint] = about("x", lean / 3 + n(0, 0.04)) @ about("z", side_bend / 3) @ about("y", turn / 3)
    look_up = 0.35 * (pitch + lean)  # the eyes stay about level
    r[NECK] = about("x", n(0.0, 0.12) - 0.5 * look_up) @ about("y", n(0, 0.25))
    r[HEAD] = about("x", n(0.03, 0.18) - 0.5 * look_up) @ about("y", n(0, 0.35)) @ about("z", n(0, 0.12))
    roll = 0.35 if support == "air" else 0.08
    r[0] = about("z", n(0, roll)) @ about("x", pitch)
    if activity == "recline" and rng.random() < 0.5:  # on the side or the face
        r[0] = about("x", -np.pi / 2) @ about("y", rng.choice([-1, 1]) * u(0.8, 2.8))
    rotations = np.zeros((55, 3))
    rotations[:22] = Rotation.from_matrix(np.stack(r)).as_rotvec()
    rotations[25:] = _hands(rng)
    return Pose(activity, rotations, support)


def _hands(rng: np.random.Generator) -> np.ndarray:
    """Finger rotations (30, 3): one amount of flexion per hand, slightly varied per finger."""
    out = np.zeros((2, 5, 3, 3))
    for hand, side in enumerate((1, -1)):
        curl = rng.choice([0.15, 0.35, 0.6, 1.3], p=[0.3, 0.35, 0.2, 0.15])
        each = np.clip(curl + rng.normal(0, 0.12, (4, 1)), 0, 1.5)
        out[hand, :4, :, 2] = -side * each * np.array([0.8, 1.0, 0.7])
        out[hand, 4, :, 1] = -side * np.array([0.3, 0.4, 0.4]) * curl
    return out.reshape(30, 3)


def sample_pose(rng: np.random.Generator, activity: str | None = None) -> Pose:
    """A random pose of `activity`, or of a random one if None. Raises ValueError for an unknown activity."""
    if activity is None:
        activity = str(rng.choice(list(ACTIVITIES), p=list(ACTIVITIES.values())))
    elif activity not in ACTIVITIES:
        raise ValueError(f"unknown activity {activity!r}; one of {', '.join(ACTIVITIES)}")
    u, n = rng.uniform, rng.normal
    r = [np.eye(3) for _ in range(22)]
    support = "feet"
    lean = n(0.03, 0.05)

    def hang_arms() -> None:
        for i in (0, 1):
            _set_arm(r, i, u(0.08, 0.4), u(-0.3, 1.0), abs(n(0.25, 0.25)), n(0, 0.3))

    def busy_arms() -> None:
        """Each arm hangs, reaches out, points up, folds, or has its hand on the hip or at the head."""
        for i in (0, 1):
            what = rng.choice(
                ["hang", "front", "side", "up", "fold", "hip", "phone"],
                p=[0.22, 0.2, 0.13, 0.15, 0.12, 0.08, 0.1],
            )
            if what == "hang":
                _set_arm(r, i, u(0.08, 0.5), u(-0.4, 1.0), abs(n(0.3, 0.3)), n(0, 0.3))
            elif what == "front":
                _set_arm(r, i, u(0.6, 1.8), u(0.9, 1.7), u(0, 1.0), n(0, 0.5))
            elif what == "side":
                _set_arm(r, i, u(0.7, 1.7), u(-0.3, 0.6), u(0, 1.6), n(0, 0.6))
            elif what == "up":
                _set_arm(r, i, u(1.8, 2.8), u(0, 1.2), u(0, 1.2), n(0, 0.5))
            elif what == "fold":
                _set_arm(r, i, u(0.3, 0.9), u(0.6, 1.3), u(1.2, 2.1), u(-0.3, 0.9))
            elif what == "hip":
                _set_arm(r, i, u(0.6, 0.9), u(-0.5, -0.1), u(1.4, 1.9), u(0.3, 0.8))
            else:
                _set_arm(r, i, u(0.4, 0.9), u(0.8, 1.4), u(1.8, 2.4), u(-0.6, 0.1))

    if activity in ("stand", "gesture"):
        weight = u(-0.08, 0.08)
        for i, side in enumerate((1, -1)):
            bent = abs(n(0, 0.12)) if rng.random() < 0.5 else 0.0
            r[HIPS[i]] = _leg(side, bent + n(0, 0.05), abs(n(0.06, 0.05)) + side * weight, u(-0.05, 0.3))
            r[KNEES[i]] = about("x", 2 * bent)
            r[ANKLES[i]] = about("x", -bent)
        if activity == "stand" and rng.random() < 0.6:
            hang_arms()
        else:
            busy_arms()
    elif activity in ("walk", "run"):
        run = activity == "run"
        phase = u(0, 2 * np.pi)
        stride = u(0.5, 0.9) if run else u(0.25, 0.5)
        for i, side in enumerate((1, -1)):
            swing = np.sin(phase + np.pi * i)
            back = max(0.0, np.sin(phase + np.pi * i + 2.2))
            r[HIPS[i]] = _leg(side, stride * swing + (0.2 if run else 0.05), 0.03, u(0, 0.15))
            r[KNEES[i]] = about("x", 0.1 + back * (u(1.0, 1.8) if run else u(0.5, 1.0)))
            r[ANKLES[i]] = about("x", 0.4 * back - 0.15 * swing)
            bend = u(1.2, 1.8) if run else abs(n(0.35, 0.25))
            reach = -swing * (u(0.5, 0.9) if run else u(0.2, 0.55))
            aside = u(0.12, 0.3)
            lift, forward = float(np.hypot(reach, aside)), float(np.arctan2(reach, aside))
            _set_arm(r, i, lift, forward, bend, u(-0.2, 0.2))
        if rng.random() < 0.2 and not run:
            busy_arms()
        lean = u(0.1, 0.3) if run else n(0.05, 0.04)
        support = "air" if run and rng.random() < 0.3 else "feet"
    elif activity == "sit":
        support = "seat"
        for i, side in enumerate((1, -1)):
            flex, knee = u(1.25, 1.65), u(1.0, 1.8)
            r[HIPS[i]] = _leg(side, flex, u(0.02, 0.35), u(-0.1, 0.3))
            r[KNEES[i]] = about("x", knee)
            r[ANKLES[i]] = about("x", flex - knee + n(0, 0.1))
            _set_arm(r, i, u(0.25, 0.8), u(0.7, 1.4), u(0.4, 1.3), u(0, 0.6))
        if rng.random() < 0.45:
            busy_arms()
        lean = u(-0.2, 0.35)
    elif activity in ("crouch", "kneel"):
        deep = u(1.3, 2.1)
        for i, side in enumerate((1, -1)):
            r[HIPS[i]] = _leg(side, deep, u(0.1, 0.4), u(0.1, 0.5))
            r[KNEES[i]] = about("x", min(deep + u(0.2, 0.5), 2.4))
            r[ANKLES[i]] = about("x", -u(0.1, 0.4))
        if activity == "kneel":
            down = int(rng.integers(2))
            r[HIPS[down]] = _leg(1 - 2 * down, u(-0.2, 0.2), 0.05)
            r[KNEES[down]] = about("x", u(1.5, 1.9))
            r[ANKLES[down]] = about("x", u(0.4, 0.9))
            up = 1 - down
            knee = u(1.4, 1.7)
            r[HIPS[up]] = _leg(1 - 2 * up, knee, u(0, 0.2))
            r[KNEES[up]] = about("x", knee)
            r[ANKLES[up]] = about("x", 0.0)
        busy_arms()
        lean = u(0.05, 0.5)
        support = "ground"
    elif activity == "sit_floor":
        support = "ground"
        crossed = rng.random() < 0.5
        for i, side in enumerate((1, -1)):
            if crossed:
                r[HIPS[i]] = _leg(side, u(1.4, 1.7), u(0.7, 1.0), u(0.5, 0.9))
                r[KNEES[i]] = about("x", u(1.9, 2.3))
            else:
                knee = u(0.1, 1.9)
                r[HIPS[i]] = _leg(side, 1.35 + 0.45 * knee, u(0, 0.3), u(0, 0.2))
                r[KNEES[i]] = about("x", knee)
            _set_arm(r, i, u(0.2, 0.9), u(-0.6, 1.4), u(0.1, 1.2), u(-0.2, 0.5))
        lean = u(-0.3, 0.4)
    elif activity == "lie":
        support = "ground"
        for i, side in enumerate((1, -1)):
            knee = u(0, 1.4) if rng.random() < 0.6 else u(0, 0.3)
            r[HIPS[i]] = _leg(side, 0.6 * knee, u(0, 0.3), u(0, 0.3))
            r[KNEES[i]] = about("x", knee)
        if rng.random() < 0.6:
            busy_arms()
        else:
            hang_arms()
        lean = u(-0.05, 0.25)
    elif activity == "bend":
        fold = u(0.4, 1.3)
        for i, side in enumerate((1, -1)):
            knee = u(0, 0.7)
            r[HIPS[i]] = _leg(side, fold + 0.5 * knee, u(0.02, 0.2), u(0, 0.2))
            r[KNEES[i]] = about("x", knee)
            r[ANKLES[i]] = about("x", -0.5 * knee)
            _set_arm(r, i, u(0.6, 1.6), u(1.0, 1.7), u(0, 0.6), n(0, 0.3))
        r[0] = about("x", fold)
        lean = u(0.1, 0.7)
    else:  # sport: a lunge, a kick, a jump, or standing on one leg
        what = rng.choice(["lunge", "kick", "jump", "balance"])
        for i, side in enumerate((1, -1)):
            r[HIPS[i]] = _leg(side, u(0, 0.3), u(0.05, 0.4), u(0, 0.4))
            r[KNEES[i]] = about("x", u(0, 0.5))
        i = int(rng.integers(2))
        side = 1 - 2 * i
        if what == "lunge":
            knee = u(0.8, 1.5)
            r[HIPS[i]] = _leg(side, knee, u(0, 0.3), u(0, 0.3))
            r[KNEES[i]] = about("x", knee + n(0, 0.1))
            r[HIPS[1 - i]] = _leg(-side, -u(0.1, 0.5), u(0, 0.2))
            r[KNEES[1 - i]] = about("x", u(0.1, 0.9))
            r[ANKLES[1 - i]] = about("x", u(0.2, 0.6))
        elif what == "kick":
            r[HIPS[i]] = _leg(side, u(0.5, 1.7), u(0, 0.5))
            r[KNEES[i]] = about("x", u(0, 0.9))
            r[0] = about("x", -u(0, 0.3))
        elif what == "jump":
            support = "air"
            for k in (0, 1):
                r[KNEES[k]] = about("x", u(0.2, 1.5))
                r[ANKLES[k]] = about("x", u(0.2, 0.7))
        else:
            r[HIPS[i]] = _leg(side, u(-0.6, 0.9), u(0.2, 1.0))
            r[KNEES[i]] = about("x", u(0, 1.8))
            r[0] = about("z", side * u(-0.1, 0.4))
        busy_arms()
        lean = n(0.1, 0.2)

    side_bend, turn = n(0, 0.06), n(0, 0.12)
    for joint in SPINE:
        r[joint] = about("x", lean / 3 + n(0, 0.03)) @ about("z", side_bend / 3) @ about("y", turn / 3)
    r[NECK] = about("x", n(0.02, 0.1)) @ about("y", n(0, 0.15))
    r[HEAD] = about("x", n(0.03, 0.14)) @ about("y", n(0, 0.25)) @ about("z", n(0, 0.07))
    for i in (0, 1):
        r[WRISTS[i]] = _turned(n(0, [0.25, 0.15, 0.25]))
        r[ANKLES[i]] = r[ANKLES[i]] @ _turned(n(0, [0.06, 0.06, 0.03]))
    if activity == "lie":
        face_up = rng.random() < 0.7
        onto_back = about("x", -np.pi / 2 if face_up else np.pi / 2)
        r[0] = onto_back @ about("z", n(0, 0.1)) @ about("y", n(0, 0.25))
    else:
        r[0] = _turned(n(0, [0.05, 0.0, 0.04])) @ r[0]
    rotations = np.zeros((55, 3))
    rotations[:22] = Rotation.from_matrix(np.stack(r)).as_rotvec()
    rotations[25:] = _hands(rng)
    return Pose(activity, rotations, support)
