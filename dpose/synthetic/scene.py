"""A scene: one to five people on a ground, their environment, light, and a camera; sampled from a seed.

World frame: y up, ground at y = 0, metres. The camera follows OpenCV: x_camera = rotation @ x_world +
translation. `dpose.synthetic.viewport` renders pictures of a scene.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from dpose.skeleton import NUM_BODY_JOINTS, NUM_JOINTS
from dpose.synthetic import raytrace
from dpose.synthetic.belongings import add_belongings
from dpose.synthetic.people import (
    Outfit,
    figure,
    loosened,
    pose_people,
    sample_outfit,
    sample_skin_and_hair,
    vertex_normals,
)
from dpose.synthetic.poses import Pose, about, sample_pose, sample_wide_pose
from dpose.synthetic.props import Props, random_color, stand_seat
from dpose.synthetic.surroundings import (
    add_occluders,
    add_table,
    sample_surroundings,
    vary_background,
    vary_light,
)
from dpose.synthetic.textures import pick
from dpose.synthetic.variety import PLAIN, Options, Variety

IMAGE_SIZE = (1280, 720)
FORMATS = ((1280, 960), (960, 960), (960, 1280), (1280, 850))  # of option "formats"
SPLITS = {"train": 0, "val": 1, "test": 2, "hard": 3}
VARIETIES = {"train": Variety(), "val": PLAIN, "test": PLAIN, "hard": Variety()}
IDENTITIES = {"train": 20_000, "val": 500, "test": 1_000, "hard": 1_000}
MOST_SCENES = 10_000_000  # per split; sample keys hold seven digits
MOST_SEEDS = 2**32
PELVIS, KNEE, CHEST, HEAD = 0, 4, 9, 15  # joints that option "framing" aims at
LOW = 0.6  # metres; only spheres that reach below this height occlude the ground
# Pairs of joints between which an occlusion sphere is placed.
BONES = (
    *((0, 1), (0, 2), (1, 4), (2, 5), (4, 7), (5, 8), (0, 6), (6, 9)),
    *((16, 18), (17, 19), (18, 20), (19, 21)),
)


@dataclass(frozen=True)
class Scene:
    """A scene of N people with V vertices each, N from 1 to 5. Lengths in metres, world frame."""

    seed: tuple[int, int, int]  # seed, number of the split, scene number
    subjects: list[str]  # identities, "<split>-<number>"
    activities: list[str]
    betas: np.ndarray  # (N, 11)
    rotations: np.ndarray  # (N, 55, 3) axis-angle; the root rotation is in the world frame
    transl: np.ndarray  # (N, 3) SMPL-X `transl`
    pelvis: np.ndarray  # (N, 3) pelvis of the T-pose with these betas
    joints: np.ndarray  # (N, 55, 3)
    vertices: np.ndarray  # (N, V, 3) with clothes and hair
    bare: np.ndarray  # (N, B, 3) of the bodies without them, as `dpose.body` has them
    fields: np.ndarray  # (N, V, 4) see `dpose.synthetic.people.dress`
    outfits: list[Outfit]
    props: Props
    world: dict[str, Any]  # fields of `raytrace.World`
    spheres: np.ndarray  # (K, 4) centre and radius, for ambient occlusion; those near the ground come first
    cam_int: np.ndarray  # (3, 3) intrinsics, pixels
    rotation: np.ndarray  # (3, 3) world to camera
    translation: np.ndarray  # (3,)
    size: tuple[int, int]  # width and height of the full image, pixels
    options: Options
    yaws: np.ndarray  # (N,) where the people face, radians
    view: int = 0  # 1 for the second camera of a scene


class Camera(NamedTuple):
    """A pinhole camera, world to camera."""

    eye: np.ndarray  # (3,) its place in the world
    cam_int: np.ndarray  # (3, 3) pixels
    rotation: np.ndarray  # (3, 3)
    size: tuple[int, int]  # width, height


def check_scenes(scenes: dict[str, int], seed: int) -> None:
    """Raises ValueError for an unknown split, or a number of scenes or a seed out of range."""
    for split, count in scenes.items():
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
        if not 0 <= count <= MOST_SCENES:
            raise ValueError(f"{split}: the number of scenes must be from 0 to {MOST_SCENES}, got {count}")
    if not 0 <= seed < MOST_SEEDS:
        raise ValueError(f"seed must be from 0 to {MOST_SEEDS - 1}, got {seed}")


def sample_identity(seed: int, split: str, number: int) -> tuple[np.ndarray, dict[str, Any]]:
    """betas (11,), and skin and hair, of one of the split's people. Splits have no person in common."""
    rng = np.random.default_rng([seed, SPLITS[split], 1, number])
    return np.clip(rng.normal(size=11), -2.5, 2.5), sample_skin_and_hair(rng)


def sample_scene(seed: int, split: str, index: int, variety: Variety | None = None) -> Scene:
    """Scene number `index` of a split; a function of its arguments alone.

    variety: None for the split's own, see `VARIETIES`. Raises ValueError for an unknown split, or a seed or
    index out of range.
    """
    check_scenes({split: index}, seed)
    rng = np.random.default_rng([seed, SPLITS[split], 0, index])
    options = Options(variety or VARIETIES[split], (seed, SPLITS[split], 2, index))
    count = int(rng.choice([1, 2, 3], p=[0.62, 0.26, 0.12]))
    if group := options("groups"):
        count = int(group.choice([2, 3, 4, 5], p=[0.45, 0.3, 0.15, 0.1]))
    numbers = rng.choice(IDENTITIES[split], count, replace=False)
    identities = [sample_identity(seed, split, int(number)) for number in numbers]
    betas = np.stack([identity[0] for identity in identities])
    outfits = [sample_outfit(rng, identity[1]) for identity in identities]
    poses = [sample_pose(rng) for _ in range(count)]
    for k in range(count):
        if wide := options("poses", k):
            poses[k] = sample_wide_pose(wide)
        if loose := options("clothes", k):
            outfits[k] = loosened(loose, outfits[k])
    rotations = np.stack([pose.rotations for pose in poses])
    yaws = rng.uniform(-np.pi, np.pi, count)
    if group and group.random() < 0.6:  # a team, a queue, a couple
        yaws = yaws[0] + group.normal(0, 0.6, count)
    for k in range(count):
        upright = Rotation.from_rotvec(rotations[k, 0]).as_matrix()
        rotations[k, 0] = Rotation.from_matrix(about("y", yaws[k]) @ upright).as_rotvec()
    vertices, joints, fields, bare = pose_people(betas, rotations, outfits)
    f = figure()
    pelvis = f.joints[0] + (betas @ f.joint_shapes).reshape(-1, NUM_JOINTS, 3)[:, 0]

    props = Props()
    transl = _place_people(rng, props, poses, yaws, vertices, joints, group)
    vertices = vertices + transl[:, None].astype(np.float32)
    joints = joints + transl[:, None]
    for k, outfit in enumerate(outfits):
        _add_loose_wear(props, outfit, vertices[k], raytrace.WORN - 3 * k)
        if belongings := options("belongings", k):
            add_belongings(belongings, props, rotations[k], joints[k], outfit.hairstyle == "hat")
    if table := options("tables"):
        k = int(table.integers(count))
        if poses[k].support in ("feet", "seat"):
            add_table(table, props, joints[k, 0], float(yaws[k]), poses[k].support == "seat")
    vertices, fields = np.ascontiguousarray(vertices[:, f.body]), np.ascontiguousarray(fields[:, f.body])
    centers = joints[:, 0] * [1, 0, 1]
    camera = _sample_camera(rng, vertices, joints, yaws, options)
    world = sample_surroundings(rng, camera.eye, centers, props)
    if rng.random() < 0.22:
        add_occluders(rng, props, camera.eye, centers)
    if more := options("occluders"):
        add_occluders(more, props, camera.eye, centers)
    if background := options("backgrounds"):
        vary_background(background, props, world, camera.eye, centers)
    if light := options("light"):
        vary_light(light, world, camera.eye, centers)
    middle = centers.mean(0)
    reach = np.linalg.norm(joints - middle, axis=-1).max() + 1.0
    world["influence"] = (*middle, float(reach))
    return Scene(
        seed=(seed, SPLITS[split], index),
        subjects=[f"{split}-{number:05d}" for number in numbers],
        activities=[pose.activity for pose in poses],
        betas=betas,
        rotations=rotations,
        transl=transl,
        pelvis=pelvis,
        joints=joints,
        vertices=vertices,
        bare=bare + transl[:, None].astype(np.float32),
        fields=fields,
        outfits=outfits,
        props=props,
        world=world,
        spheres=_body_spheres(joints),
        cam_int=camera.cam_int,
        rotation=camera.rotation,
        translation=-camera.rotation @ camera.eye,
        size=camera.size,
        options=options,
        yaws=yaws,
    )


def second_view(scene: Scene) -> Scene | None:
    """The scene as a second camera sees it, None if it has only one (see `Variety.views`)."""
    options = Options(scene.options.variety, (*scene.options.key[:2], 3, *scene.options.key[3:]))
    if not (rng := options("views")):
        return None
    room = None
    if scene.world["room"]:
        room = scene.world["room_min"] + 0.25, scene.world["room_max"] - 0.25
    camera = _sample_camera(rng, scene.vertices, scene.joints, scene.yaws, options, room)
    return replace(
        scene,
        cam_int=camera.cam_int,
        rotation=camera.rotation,
        translation=-camera.rotation @ camera.eye,
        size=camera.size,
        options=options,
        view=1,
    )


def _place_people(
    rng: np.random.Generator,
    props: Props,
    poses: list[Pose],
    yaws: np.ndarray,
    vertices: np.ndarray,
    joints: np.ndarray,
    group: np.random.Generator | None = None,
) -> np.ndarray:
    """Translations (N, 3) that put the people on the ground, side by side; adds their seats and
    platforms to `props`.

    yaws: (N,) radians. vertices: (N, V, 3) and joints (N, 55, 3), pelvis near the origin. group: its
    generator if the people stand together and may touch.
    """
    f = figure()
    transl = np.zeros((len(poses), 3))
    taken: list[tuple[np.ndarray, float]] = []
    for k, pose in enumerate(poses):
        surface = vertices[k, f.body]
        low, high = _bounds(surface)
        radius = float(np.linalg.norm((high - low)[::2]) / 2)
        middle = (low + high) / 2
        place = np.zeros(3)
        for attempt in range(60):
            if k:
                place = np.array([*rng.uniform(-1, 1, 2), 0])[[0, 2, 1]] * (1.0 + 0.05 * attempt)
            if all(np.linalg.norm(place - other) > 0.8 * (radius + size) for other, size in taken):
                break
        grounded = -middle * [1, 0, 1] - [0, low[1], 0]
        if group and k:
            others = joints[:k, :NUM_BODY_JOINTS] + transl[:k, None]
            place = _place_beside(group, joints[k, :NUM_BODY_JOINTS] + grounded, others)
        taken.append((place, radius))
        transl[k] = place + grounded
        if pose.support == "air":
            transl[k, 1] += rng.uniform(0.04, 0.3)
        elif pose.activity == "lie" and rng.random() < 0.4:
            lift = rng.uniform(0.1, 0.55)
            transl[k, 1] += lift
            size = (high - low) * [1.1, 0, 1.1] + [0.2, lift, 0.2]
            color = random_color(rng, 0.2, 0.9, 0.3)
            props.box(place + [0, lift / 2, 0], size, 0.0, color, pick(rng, "cloth", "carpet", "plaster"))
        elif pose.support == "seat":
            buttocks = surface[f.weights[f.body][:, [0, 1, 2]].sum(1) > 0.6]
            height = buttocks[:, 1].min() + transl[k, 1] - 0.005
            if height > 0.15:
                stand_seat(rng, props, joints[k, 0] + transl[k], float(height), float(yaws[k]))
    return transl


def _place_beside(rng: np.random.Generator, person: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A place (3,) on the ground for a person who comes from a random direction until almost touching others.

    person: (J, 3) joints of the person at the origin. others: (N, J, 3) joints in the world. Joints count as
    spheres.
    """
    heading, radius = rng.uniform(-np.pi, np.pi), rng.uniform(0.16, 0.3)
    ahead = np.array([np.sin(heading), 0.0, np.cos(heading)])
    start = others[rng.integers(len(others)), 0] * [1, 0, 1] + rng.normal(0, 0.15, 3) * [1, 0, 1]
    gap = (person + start)[:, None] - others.reshape(-1, 3)  # (J, N J, 3), as the person stands at `start`
    along = gap @ ahead
    inside = along**2 - (gap**2).sum(-1) + radius**2  # the spheres touch where the root is real
    reach = np.where(inside > 0, np.sqrt(np.maximum(inside, 0)) - along, 0.0).max()
    return start + max(float(reach), 0.2) * ahead


def _sample_camera(
    rng: np.random.Generator,
    vertices: np.ndarray,
    joints: np.ndarray,
    yaws: np.ndarray,
    options: Options,
    room: tuple[np.ndarray, np.ndarray] | None = None,
) -> Camera:
    """A camera in which one of the people has a chosen height and place in the frame.

    vertices: (N, V, 3). joints: (N, 55, 3). yaws: (N,) of the people, radians. room: lower and upper corner
    (3,) of the places where the camera may be.
    """
    u, image = rng.uniform, IMAGE_SIZE
    focal = float(np.exp(u(np.log(700), np.log(1800))))
    person = int(rng.integers(len(vertices)))
    low, high = _bounds(vertices[person])
    height = float(np.linalg.norm(high - low) * 0.85)
    fill = u(0.35, 0.95) if rng.random() < 0.85 else u(0.95, 1.7)  # of the frame's height
    nearest, farthest, look = 1.5, 14, (high + low) / 2
    if formats := options("formats"):
        image = FORMATS[formats.integers(len(FORMATS))]
    if lens := options("lenses"):
        nearest, farthest = 0.8, 40
        focal = float(np.exp(lens.uniform(*np.log([420, 750] if lens.random() < 0.4 else [1800, 5000]))))
    if framing := options("framing"):
        fill = framing.uniform(0.15, 0.45)
    if framing and framing.random() < 0.5:
        part = framing.choice([HEAD, CHEST, PELVIS, KNEE], p=[0.35, 0.35, 0.15, 0.15])
        look, nearest = joints[person, part], 0.8
        height, fill = framing.uniform(0.5, 1.3), framing.uniform(0.7, 1.1)
    distance = float(np.clip(focal * height / (fill * image[1]), nearest, farthest))
    azimuth = u(-np.pi, np.pi)
    if facing := options("facing"):
        azimuth = yaws[person] + facing.normal(0, 0.7)
    eye_height = rng.choice([u(0.9, 1.8), u(0.25, 0.9), u(1.8, 3.2)], p=[0.65, 0.12, 0.23])
    eye_height = float(np.clip(eye_height, 0.2, 0.2 + distance))
    flat = np.sqrt(max(distance**2 - (eye_height - look[1]) ** 2, (0.6 * distance) ** 2))
    eye = np.array([look[0] + flat * np.sin(azimuth), eye_height, look[2] + flat * np.cos(azimuth)])
    if room:
        eye = np.clip(eye, *room)
    forward = (look - eye) / np.linalg.norm(look - eye)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    # Turn the camera, so that the person is not in the middle of the frame, then roll it a little.
    half = np.array(image) / 2
    gap = np.maximum(half - 0.5 * fill * image[1] * np.array([0.6, 1.0]), 40)  # from person to edge, pixels
    gap = gap * (1.35 if rng.random() < 0.12 else 0.9)
    shift = u(-1, 1, 2) * gap / focal
    aim = about("x", -np.arctan(shift[1])) @ about("y", np.arctan(shift[0]))
    rotation = about("z", rng.normal(0, 0.03)) @ aim @ rotation
    return Camera(eye, np.array([[focal, 0, half[0]], [0, focal, half[1]], [0, 0, 1.0]]), rotation, image)


def _bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner (3,) of points (V, 3). Contiguous coordinates are several times as fast."""
    rows = np.ascontiguousarray(points.T)
    return rows.min(1), rows.max(1)


def _add_loose_wear(props: Props, outfit: Outfit, vertices: np.ndarray, code: int) -> None:
    """Add a person's skirt or dress and long hair to `props`, textured by their place in the T-pose.

    vertices: (V, 3). code: the person's `raytrace.WORN` code, to which the layer is added.
    """
    f = figure()
    worn = []
    if outfit.skirt_rings:
        worn.append((f.skirt, f.skirt_faces, code - (not outfit.skirt_is_top)))
    if outfit.hairstyle == "long":
        worn.append((f.hair, f.hair_faces, code - 2))
    for part, faces, texture in worn:
        rest = f.rest[part]
        around = np.arctan2(rest[:, 0], rest[:, 2]) * 0.2  # metres, for a radius of 20 cm
        uv = np.stack([around, rest[:, 1]], -1)
        normals = vertex_normals(vertices[part], faces)
        props.add(vertices[part], faces, uv, (1, 1, 1), texture, normals=normals)


def _body_spheres(joints: np.ndarray) -> np.ndarray:
    """Spheres (K, 4) that approximate the people for ambient occlusion; those near the ground come first."""
    radius = np.full(NUM_BODY_JOINTS, 0.06)
    radius[[0, 3, 6, 9]] = 0.12
    radius[15] = 0.11
    out = [np.concatenate([body[:NUM_BODY_JOINTS], radius[:, None]], -1) for body in joints]
    for body in joints:
        out.append(
            np.array([[*(body[a] + body[b]) / 2, 0.075 if max(a, b) < 10 else 0.05] for a, b in BONES])
        )
    spheres = np.concatenate(out).astype(np.float32)
    high = spheres[:, 1] - spheres[:, 3] >= LOW
    return spheres[np.argsort(high, kind="stable")]
