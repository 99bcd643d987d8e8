"""What people wear and carry beyond clothes: caps, bags, things in the hands and under the feet.

They are props, not parts of a person: labels and depth do not include them, and they may hide a person.
"""

import numpy as np
import roma
import torch

from dpose.skeleton import NUM_BODY_JOINTS, PARENTS
from dpose.synthetic.people import figure
from dpose.synthetic.props import Props, random_color
from dpose.synthetic.textures import pick

HEAD, CHEST, HANDS, FEET = 15, 9, (20, 21), (7, 8)


def joint_frames(rotations: np.ndarray) -> np.ndarray:
    """World rotations (22, 3, 3) of the body joints from their axis-angle (55, 3)."""
    local = roma.rotvec_to_rotmat(torch.from_numpy(rotations[:NUM_BODY_JOINTS])).numpy()
    for joint, parent in enumerate(PARENTS[1:NUM_BODY_JOINTS], 1):
        local[joint] = local[parent] @ local[joint]
    return local


def add_belongings(
    rng: np.random.Generator, props: Props, rotations: np.ndarray, joints: np.ndarray, hat: bool
) -> None:
    """Add one to three belongings of a person to `props`.

    rotations: (55, 3) axis-angle, root in the world frame. joints: (55, 3) metres, world. hat: whether the
    person wears a hat, which may then have a brim.
    """
    frames, u = joint_frames(rotations), rng.uniform

    def put(joint: int, place, size, turn=None, texture: int = -1, color=None) -> None:
        """A box at `place` (3,), metres from a joint in the joint's frame."""
        frame = frames[joint]
        color = random_color(rng, 0.03, 0.8, 0.5) if color is None else color
        turned = frame if turn is None else frame @ turn
        props.box(joints[joint] + frame @ np.asarray(place), size, turned, color, texture, 0.4)

    if hat and rng.random() < 0.8:
        crown = figure().rest[figure().is_head > 0].max(0)[1] + figure().template[0, 1] - figure().rest[0, 1]
        up = crown - 0.105 - figure().joints[HEAD, 1]
        color, peak = random_color(rng, 0.03, 0.8, 0.5), rng.random() < 0.7
        size = (0.14, 0.012, 0.11) if peak else (0.3, 0.012, 0.34)
        put(HEAD, (0, up, 0.135 if peak else 0.02), size, color=color)
    if rng.random() < 0.3:  # a rucksack
        size = np.array([u(0.24, 0.36), u(0.32, 0.55), u(0.1, 0.22)])
        put(CHEST, (0, u(-0.12, 0.05), -0.15 - size[2] / 2), size, None, pick(rng, "cloth", "clutter"))
    number = int(rng.integers(2))
    side, hand, other = 1 - 2 * number, HANDS[number], HANDS[1 - number]
    grip = np.array([side * 0.09, -0.02, 0.02])
    kinds = {"stick": 0.25, "bag": 0.2, "small": 0.15, "board": 0.1, "ball": 0.1, "nothing": 0.2}
    what = rng.choice(list(kinds), p=list(kinds.values()))
    if what == "stick":  # a racket, a bat, a pole, an umbrella
        length, thick = u(0.5, 1.5), u(0.015, 0.06)
        tilt = roma.rotvec_to_rotmat(torch.from_numpy(rng.normal(0, [0.5, 0.1, 0.5]))).numpy()
        along = rng.choice([-1, 1]) * u(0.1, 0.5) * length
        put(hand, grip + tilt @ [0, 0, along], (thick, thick, length), tilt)
        if rng.random() < 0.35:
            end = along + np.sign(along) * length / 2
            put(hand, grip + tilt @ [0, 0, end], (0.22, 0.03, 0.28), tilt)
        if rng.random() < 0.3:
            put(other, grip * [-1, 1, 1] + tilt @ [0, 0, along], (thick, thick, length), tilt)
    elif what == "bag":
        size = np.array([u(0.08, 0.2), u(0.2, 0.45), u(0.2, 0.45)])
        place = joints[hand] + frames[hand] @ grip - [0, size[1] / 2 + u(0.03, 0.25), 0]
        yaw, color = u(-3, 3), random_color(rng, 0.03, 0.8, 0.5)
        props.box(place, size, yaw, color, pick(rng, "cloth", "clutter"), 0.5)
    elif what == "small":
        put(hand, grip + [0, 0, 0.03], rng.uniform(0.03, 0.16, 3))
    elif what == "board":  # a book, a tray, a laptop
        put(hand, grip + [0, 0, 0.1], (u(0.2, 0.4), 0.02, u(0.15, 0.3)), None, pick(rng, "clutter"))
    elif what == "ball":
        size = u(0.08, 0.24)
        place = joints[hand] + frames[hand] @ (grip + [side * size / 2, 0, 0])
        for turn in (0.0, 0.8):  # two boxes across are round enough
            props.box(place, np.full(3, 0.8 * size), turn, random_color(rng, 0.2, 0.9, 0.4))
    if rng.random() < 0.15:  # skis, or one board
        color, board = random_color(rng, 0.05, 0.9, 0.6), rng.random() < 0.3
        for foot in FEET[: 1 if board else 2]:
            size = (0.22, 0.05, u(0.7, 1.5)) if board else (0.09, 0.02, u(1.2, 1.8))
            put(foot, (0, -0.09, 0.1), size, color=color)
