"""What is written of predicted people: pictures, meshes, parameters for other programs.

`write` makes one folder per picture, completely or not at all:

- `overlay.jpg`: the bodies over the picture;
- `scene.glb`: their meshes, in their places; `scene.obj` likewise;
- `people.json`: boxes, camera, SMPL-X parameters and joints of everybody;
- per person, numbered from 1: `person-1.npz` (parameters and maps, `parameters`), `person-1-parts.png`,
  `person-1-depth.png`, `person-1-amass.npz` (`amass`), `person-1-sheet.jpg` (`sheet`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from dpose.camera import crop_affine, crop_intrinsics
from dpose.data.sample import warp_image
from dpose.io import replacing_folder, write_png
from dpose.predictor import Person, overlay

RECORD = "people.json"
DEFAULT = ("overlay", "mesh", "params", "json", "parts", "depth")  # of `write`
KINDS = (*DEFAULT, "obj", "amass", "sheet")
NUM_JOINTS = 22  # in JSON
COLOURS = (  # linear RGB albedos of people, in turn; none is like skin
    *((0.62, 0.76, 0.94), (0.62, 0.86, 0.55), (0.78, 0.62, 0.92), (0.93, 0.80, 0.45)),
    *((0.50, 0.84, 0.84), (0.94, 0.38, 0.20), (0.94, 0.55, 0.76), (0.78, 0.78, 0.78)),
)
Y_UP = np.diag([1.0, -1.0, -1.0])  # from the camera frame: turned by 180 degrees about x
SIDE_VIEW = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # the camera's z becomes x
TOP_VIEW = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
VIEW_SHARE = 0.46  # see `turned_view`
GROUND, TEXT = (34, 36, 40), (214, 216, 220)  # of `sheet`, as in `dpose.figures.colours`
Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # from the camera frame: turned by -90 degrees about x


def write(
    people: Sequence[Person],
    folder: str | Path,
    image: np.ndarray | None = None,
    save: Sequence[str] = DEFAULT,
) -> list[Path]:
    """Writes the people of one picture into a folder, which appears only when all its files are complete.

    Args:
        people: of one picture; their numbers in the files' names begin at 1, or are those of `track`.
        folder: a new one, or one that an earlier call wrote, which is replaced.
        image: (H, W, 3) uint8 RGB; needed for "overlay" and "sheet".
        save: which of `KINDS`.
    Returns:
        The files.
    Raises:
        ValueError: nobody, an unknown kind, or no image for a kind that needs it.
        FileExistsError: the folder has other files.
    """
    if not people:
        raise ValueError(f"there is nobody to write to {folder}")
    check_kinds(save)
    if image is None and {"overlay", "sheet"} & set(save):
        raise ValueError("the picture is needed for 'overlay' and 'sheet'")
    folder = Path(folder)
    with replacing_folder(folder, RECORD) as temporary:
        _fill(temporary, people, image, save)
    return sorted(folder.iterdir())


def check_kinds(save: Sequence[str]) -> None:
    """Raises ValueError if one of `save` is not in `KINDS`."""
    if unknown := sorted(set(save) - set(KINDS)):
        raise ValueError(f"unknown kind of output {unknown[0]!r}; choose from {', '.join(KINDS)}")


def parameters(person: Person) -> dict[str, Any]:
    """The content of `person-1.npz`.

    `betas` (1, num_betas), `global_orient` (1, 3), `body_pose` (1, 63) and `transl` (1, 3) have the names,
    units (radians, metres) and batch axis of the `smplx` package, `num_betas` is its option (for a script see
    `dpose predict --help`), and `body` names the model. Further arrays, as in `Person`: `joints3d` (J, 3)
    metres, camera frame; `joints2d` (J, 2) pixels of the picture; `rotmats` (22, 3, 3); `cam_int` (3, 3);
    `image_size` (2,); `box` (4,); `score`; `box_center` (2,) and `box_scale` of the network's square; and of
    the maps that the network has `parts` (M, M) and `depth` (M, M).
    """
    maps = {name: getattr(person, name) for name in ("parts", "depth")}
    return {
        "betas": person.betas[None],
        "global_orient": person.global_orient[None],
        "body_pose": person.body_pose[None],
        "transl": person.transl[None],
        "num_betas": np.int64(len(person.betas)),
        "body": np.str_(person.body),
        "joints3d": person.joints,
        "joints2d": person.joints2d,
        "rotmats": person.rotmats,
        "cam_int": person.cam_int,
        "image_size": np.array(person.image_size),
        "box": person.box,
        "score": np.float32(np.nan if person.score is None else person.score),
        "box_center": person.center,
        "box_scale": np.float32(person.scale),
        **{name: value for name, value in maps.items() if value is not None},
    }


def amass(people: Sequence[Person], rate: float = 30.0) -> dict[str, Any]:
    """One person in one or several frames in the layout of AMASS, which SMPL-X's Blender add-on reads.

    Args:
        people: the same person, frame by frame; the shape is the mean of the frames'.
        rate: frames per second.
    Returns:
        `poses` (N, 165) axis-angle, `trans` (N, 3), `betas` (num_betas,), `gender`, `mocap_frame_rate`,
        `surface_model_type`. The frame is the camera's turned so that z is up and y points away from the
        camera.
    """
    poses, places = np.zeros((len(people), 165)), np.zeros((len(people), 3))
    for i, person in enumerate(people):
        poses[i, :3] = cv2.Rodrigues(Z_UP @ person.rotmats[0].astype(np.float64))[0][:, 0]
        poses[i, 3:66] = person.body_pose
        # The root turns about the pelvis, which in the rest pose is not at the origin.
        places[i] = Z_UP @ person.joints[0] - (person.joints[0] - person.transl)
    return {
        "poses": poses.astype(np.float32),
        "trans": places.astype(np.float32),
        "betas": np.mean([person.betas for person in people], 0).astype(np.float32),
        "gender": np.str_("neutral"),
        "mocap_frame_rate": np.float64(rate),
        "surface_model_type": np.str_("smplx"),
    }


def record(person: Person) -> dict[str, Any]:
    """One person as JSON values: lists in the units of `Person`; the first 22 joints."""

    def numbers(values: np.ndarray, digits: int = 5) -> list[Any]:
        return np.round(np.asarray(values, np.float64), digits).tolist()

    return {
        "track": person.track,
        "box": numbers(person.box, 2),
        "score": None if person.score is None else round(person.score, 4),
        "body": person.body,
        "global_orient": numbers(person.global_orient),
        "body_pose": numbers(person.body_pose),
        "betas": numbers(person.betas),
        "transl": numbers(person.transl),
        "joints3d": numbers(person.joints[:NUM_JOINTS]),
        "joints2d": numbers(person.joints2d[:NUM_JOINTS], 2),
    }


def people_json(people: Sequence[Person]) -> dict[str, Any]:
    """The content of `people.json`: the picture's camera, and `record` of everybody."""
    first = people[0]
    return {
        "source": Path(first.source).name,
        "frame": first.frame,
        "image_size": list(first.image_size),
        "cam_int": np.round(first.cam_int.astype(np.float64), 3).tolist(),
        "focal_from": first.focal_from,
        "people": [record(person) for person in people],
    }


def scene(people: Sequence[Person], kind: str = "glb") -> bytes:
    """The meshes of people in one scene, "glb" or "obj": metres, the camera at the origin, y up."""
    import trimesh  # imported here: only meshes need it

    meshes = trimesh.Scene()
    for number, person in _numbered(people):
        vertices = (person.vertices @ Y_UP).astype(np.float32)
        mesh = trimesh.Trimesh(vertices, person.faces, process=False)
        if kind == "glb":
            linear = [round(255 * value) for value in colour(number)]  # glTF's factor is
            material = trimesh.visual.material.PBRMaterial(
                baseColorFactor=(*linear, 255), metallicFactor=0, roughnessFactor=0.8
            )
            mesh.visual = trimesh.visual.TextureVisuals(material=material)
        meshes.add_geometry(mesh, geom_name=f"person-{number}", node_name=f"person-{number}")
    data = meshes.export(file_type=kind)
    return data.encode() if isinstance(data, str) else data


def sheet(person: Person, image: np.ndarray, number: int = 1, side: int = 320) -> np.ndarray:
    """One picture of everything about a person, (about 2.2 side, 3.1 side, 3) uint8: six panels with labels.

    Above: the network's square of the picture, the body over it, the part map. Below: the body from the side
    and from above, with a bar of half a metre, and the depth map. The body has the colour of its number.
    """
    from dpose.figures import colour_depth, colour_parts  # imported here: they need matplotlib
    from dpose.render import shade  # it starts Warp

    picture, shown = _cut(image, person, side), None if person.parts is None else person.parts > 0
    square = torch.as_tensor(person.center), torch.tensor(person.scale, dtype=torch.float32)
    camera = crop_intrinsics(torch.as_tensor(person.cam_int), *square, side)
    body = shade(person.vertices, torch.as_tensor(person.faces), camera, picture, colour(number))
    panels = {
        "picture": picture,
        "body": body,
        "parts": None if person.parts is None else colour_parts(person.parts),
        "from the side; camera on the left": turned_view(person, SIDE_VIEW, side, number),
        "from above; camera below": turned_view(person, TOP_VIEW, side, number),
        "depth; near is bright": None if person.depth is None else colour_depth(person.depth, shown),
    }
    size = side / 20  # of letters
    gap, line = round(side / 32), round(1.5 * size)
    page = Image.new("RGB", (3 * side + 4 * gap, 2 * side + 3 * (line + gap) + gap), GROUND)
    draw = ImageDraw.Draw(page)
    draw.rounded_rectangle([gap, gap, gap + size, gap + size], size / 5, rgb(number))
    draw.text((gap + 1.5 * size, gap), f"person {number}", TEXT, _font("DejaVuSans-Bold.ttf", size))
    draw.text((gap + side, gap), _summary(person), TEXT, _font("DejaVuSans.ttf", size))
    for i, (label, panel) in enumerate(panels.items()):
        x, y = gap + (side + gap) * (i % 3), 2 * (gap + line) + (side + line + gap) * (i // 3)
        if panel is None:
            continue
        draw.text((x, y - line), label, TEXT, _font("DejaVuSans.ttf", 0.9 * size))
        page.paste(Image.fromarray(_enlarged(panel, side)), (x, y))
        if label.startswith("from"):
            end = x + gap + 0.5 * VIEW_SHARE * side / _reach(person)
            draw.line([x + gap, y + side - gap, end, y + side - gap], TEXT, max(1, round(size / 8)))
            draw.text((x + gap, y + side - gap - line), "0.5 m", TEXT, _font("DejaVuSans.ttf", 0.8 * size))
    return np.array(page)


def turned_view(person: Person, rotation: np.ndarray, side: int, number: int = 1) -> np.ndarray:
    """The body turned about its middle by a rotation (3, 3), from far away: (side, side, 3) uint8.

    The farthest vertex in any direction of the axes is VIEW_SHARE of the side away from the middle.
    """
    from dpose.render import shade  # imported here: it starts Warp

    middle = (person.vertices.min(0) + person.vertices.max(0)) / 2
    distance = 20 * _reach(person)
    vertices = ((person.vertices - middle) @ rotation.T + [0, 0, distance]).astype(np.float32)
    focal = 20 * VIEW_SHARE * side
    camera = np.array([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]], np.float32)
    ground = np.full((side, side, 3), GROUND, np.uint8)
    return shade(vertices, torch.as_tensor(person.faces), camera, ground, colour(number), opacity=1.0)


def colour(number: int) -> tuple[float, float, float]:
    """The linear RGB albedo of the person with this number."""
    return COLOURS[(number - 1) % len(COLOURS)]


def rgb(number: int) -> tuple[int, int, int]:
    """The colour of the person with this number as sRGB, 0 to 255."""
    red, green, blue = (round(value ** (1 / 2.2) * 255) for value in colour(number))
    return red, green, blue


def encode_jpeg(picture: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as JPEG. Raises OSError if it cannot be encoded (a side above 65,500 pixels)."""
    ok, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not ok:
        raise OSError("the picture cannot be encoded as JPEG")
    return data.tobytes()


def _fill(folder: Path, people: Sequence[Person], image: np.ndarray | None, save: Sequence[str]) -> None:
    if "overlay" in save:
        colours = [colour(number) for number, _ in _numbered(people)]
        (folder / "overlay.jpg").write_bytes(encode_jpeg(overlay(people, image, color=colours)))
    if "mesh" in save:
        (folder / "scene.glb").write_bytes(scene(people))
    if "obj" in save:
        (folder / "scene.obj").write_bytes(scene(people, "obj"))
    for number, person in _numbered(people):
        name = f"person-{number}"
        for kind, content in (("params", parameters), ("amass", lambda one: amass([one]))):
            if kind in save:
                with open(folder / f"{name}{'-amass' * (kind == 'amass')}.npz", "wb") as file:
                    np.savez(file, **content(person))
        if "sheet" in save:
            (folder / f"{name}-sheet.jpg").write_bytes(encode_jpeg(sheet(person, image, number)))
        _write_maps(folder / name, person, save)
    (folder / RECORD).write_text(json.dumps(people_json(people), indent=1) + "\n", encoding="utf-8")


def _write_maps(path: Path, person: Person, save: Sequence[str]) -> None:
    from dpose.figures import colour_depth, colour_parts  # imported here: they need matplotlib

    side = person.crop.shape[0]
    if "parts" in save and person.parts is not None:
        write_png(path.with_name(f"{path.name}-parts.png"), _enlarged(colour_parts(person.parts), side))
    if "depth" in save and person.depth is not None:
        shown = None if person.parts is None else person.parts > 0
        write_png(
            path.with_name(f"{path.name}-depth.png"), _enlarged(colour_depth(person.depth, shown), side)
        )


def _numbered(people: Sequence[Person]) -> list[tuple[int, Person]]:
    return [(i if person.track is None else person.track, person) for i, person in enumerate(people, start=1)]


def _summary(person: Person) -> str:
    """One line on where the person is, and how that is known."""
    found = "box by hand" if person.score is None else f"score {person.score:.2f}"
    sources = {"given": "given", "EXIF": "EXIF", "diagonal": "image diagonal"}
    return (
        f"{found}, {np.linalg.norm(person.joints[0]):.1f} m away with a focal length of "
        f"{person.cam_int[0, 0]:.0f} pixels ({sources[person.focal_from]})"
    )


def _reach(person: Person) -> float:
    """Half the longest side of the box around the vertices, metres."""
    return float(np.ptp(person.vertices, axis=0).max()) / 2


def _font(name: str, size: float) -> ImageFont.FreeTypeFont:
    import matplotlib  # imported here: for its fonts

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), max(6, size))


def _cut(image: np.ndarray, person: Person, side: int) -> np.ndarray:
    """The network's square out of the picture; the ground where it extends beyond."""
    center = torch.from_numpy(person.center.astype(np.float64))
    affine = crop_affine(center, torch.tensor(person.scale, dtype=torch.float64), side).numpy()
    cut = warp_image(image, affine, side)
    corners = affine @ [[0, image.shape[1]], [0, image.shape[0]], [1, 1]]  # of the picture, in the cut
    (left, right), (top, bottom) = corners.round().astype(int).clip(0, side)
    square = np.full_like(cut, GROUND)
    square[top:bottom, left:right] = cut[top:bottom, left:right]
    return square


def _enlarged(picture: np.ndarray, side: int) -> np.ndarray:
    """(M, M, 3) to (side, side, 3) by repeating pixels."""
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST)
