"""Made-up frames and samples for the data tests: a wide frame, people in random poses, a known camera."""

import cv2
import numpy as np
import torch

from dpose.body import Bodies
from dpose.data.frames import FrameSet, Skipped
from dpose.data.labels import Labels
from dpose.data.sample import Sample, make_label
from dpose.data.sets import bedlam

SIZE = (320, 180)  # w, h of a frame
CAM_INT = np.array([[260.0, 0, 160], [0, 260, 90], [0, 0, 1]])
UPRIGHT = (np.pi, 0.0, 0.0)  # root rotation of an upright person facing the camera


def keys(loader) -> list[str]:
    """The keys of all samples that a loader gives."""
    return [key for batch in loader for key in batch["key"]]


def random_pose(rng: np.random.Generator) -> np.ndarray:
    """(66,) axis-angle of an upright person, limbs a little bent."""
    pose = rng.normal(0, 0.15, (22, 3))
    pose[0] = UPRIGHT
    return pose.ravel()


def random_label(rng: np.random.Generator, key: str = "person", **changes) -> dict:
    values = {
        "key": key,
        "pose": random_pose(rng),
        "betas": rng.normal(0, 1, 11),
        "trans": (0.1, 0.2, 3.0),
        "joints2d": np.concatenate([rng.uniform(60, 150, (24, 2)), np.ones((24, 1))], 1),
        "center": (111.3, 95.7),
        "scale": 0.5,
        "img_size": SIZE,
        "cam_int": CAM_INT,
        "body": "open",
    }
    return make_label(**(values | changes))


def random_sample(rng: np.random.Generator, key: str = "person", size: int = 40, **changes) -> Sample:
    """A smooth image, a block of depths between 2 and 3 m with labels 1 (left half) and 2 (right half)."""
    image = cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    depth = np.zeros((size, size), np.float32)
    inner = slice(size // 4, 3 * size // 4)
    depth[inner, inner] = rng.uniform(2, 3, (size // 2, size // 2))
    parts = (depth > 0).astype(np.uint8)
    parts[:, size // 2 :] *= 2
    return Sample(image=image, depth=depth, parts=parts, label=random_label(rng, key, **changes))


def frame_sets(root) -> list[FrameSet]:
    """The scenes of a root with label files."""
    return bedlam.scenes(root, root / "never written", "train", Skipped(limit=0), Bodies())


def body_joints(body, pose, betas, trans) -> np.ndarray:
    """(24, 3) metres, camera frame."""
    import roma

    rotmats = roma.rotvec_to_rotmat(torch.tensor(np.reshape(pose, (1, 22, 3)), dtype=torch.float32))
    tensors = (torch.tensor(np.array(x)[None], dtype=torch.float32) for x in (betas, trans))
    betas, trans = tensors
    return body(betas, rotmats, trans).joints[0, :24].numpy().astype(float)


def pinhole(points: np.ndarray) -> np.ndarray:
    """(N, 3) metres -> (N, 2) px of the frame."""
    return points[:, :2] / points[:, 2:] * np.diag(CAM_INT)[:2] + CAM_INT[:2, 2]


def write_frame(folder, frame, figures, focal=260.0, size=SIZE) -> None:
    """A frame in BEDLAM's files (png, depth, masks below `folder`), without our reader's or renderer's help.

    figures: (points (>= 22, 2) px of the first joints, distance m) of people, numbered as given. A person is
    a flat figure: lines of 10 cm between joints, at its distance (20 cm more at the bottom of the image); the
    nearer hides the farther. The body mask is its upper half, clothing the rest; as by the genuine renderer,
    what has no pixel gets no file, and the surroundings always do.
    """
    import OpenEXR

    from dpose.skeleton import PARENTS

    w, h = size
    image = np.full((h, w, 3), 90, np.uint8)
    depth, owner = np.full((h, w), 900.0, np.float32), np.full((h, w), -1)
    for number, (points, distance) in enumerate(figures):
        figure = np.zeros((h, w), np.uint8)
        for child, parent in list(enumerate(PARENTS[:22]))[1:]:
            ends = [tuple(int(v) for v in points[k]) for k in (child, parent)]
            cv2.line(figure, *ends, 1, max(1, int(0.1 * focal / distance)))
        seen = (figure > 0) & (depth > 100 * distance)
        depth[seen] = 100 * distance + np.linspace(0, 20, h, dtype=np.float32)[np.nonzero(seen)[0]]
        owner[seen] = number
        image[seen] = 60 * number + 100
    stem = frame.removesuffix(".png")
    for kind in ("png", "depth", "masks"):
        (folder / kind / stem).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "png" / frame), image)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"Depth": depth}).write(str(folder / "depth" / f"{stem}_depth.exr"))
    upper = np.arange(h)[:, None] < h // 2
    for number in range(len(figures)):
        for kind, half in (("body", upper), ("clothing", ~upper)):
            mask = ((owner == number) & half).astype(np.uint8) * 255
            if mask.any():
                cv2.imwrite(str(folder / "masks" / f"{stem}_{number:02d}_{kind}.png"), mask)
    cv2.imwrite(str(folder / "masks" / f"{stem}_env.png"), (owner < 0).astype(np.uint8) * 255)


def write_bedlam_frame(root, body, people, scene="scene", frame="seq_000/seq_000_0000.png") -> Labels:
    """A frame of people (pose (66,), betas (11,), trans (3,)) as `write_frame` writes it, and its labels."""
    figures, joints2d, boxes = [], [], []
    for pose, betas, trans in people:
        joints = body_joints(body, pose, betas, trans)
        points = pinhole(joints)
        figures.append((points, joints[0, 2]))
        joints2d.append(np.concatenate([points, np.ones((24, 1))], 1))
        low, high = points[:22].min(0), points[:22].max(0)
        boxes.append(((low + high) / 2, (high - low).max() * 1.2 / 200))
    write_frame(root / scene, frame, figures)
    n = len(people)
    return Labels(
        imgname=[frame] * n,
        center=[center for center, _ in boxes],
        scale=[scale for _, scale in boxes],
        pose_cam=[pose for pose, _, _ in people],
        shape=[betas for _, betas, _ in people],
        trans_cam=[trans for _, _, trans in people],
        gtkps=joints2d,
        cam_int=[CAM_INT] * n,
        body=["open"] * n,
        sub=[f"person{i}" for i in range(n)],
    )
