"""Evaluation in photographs: distances of projected joints from annotated 2D keypoints, in COCO's format.

People are cut out around their annotated boxes. The predicted body is projected with the image diagonal as
focal length, as in `dpose.predictor`. Measures are PCK, the share of keypoints whose prediction is nearer
than a given share of the longer side of the annotated box (not enlarged), and the mean distance in units of
this side. HMR 2.0 reports such PCK at 0.05 and 0.1 on COCO, LSP-Extended and PoseTrack.

All annotated keypoints (v > 0) count, visible or occluded. They are matched by the names in the file's
categories:

- shoulders, elbows, wrists, hips, knees and ankles, the limb joints: the joints of the body model. The main
  numbers are over these.
- nose, eyes and ears: the vertices that the `smplx` package names so.
- neck (PoseTrack: head_bottom) and head_top: the body model's neck joint and the topmost vertex of its rest
  pose.

No joint regressor is used: the joints of the body model lie some centimetres from where annotators place
them, most at the hips.

Keypoints may refer to the image as it is stored or as its EXIF orientation turns it. The upright image is
used, as in `dpose.predictor`, unless only the stored one has the width and height that the file gives.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dpose import results
from dpose.body import Body
from dpose.bootstrap import ClusterBootstrap
from dpose.camera import BOX_FACTOR, BOX_UNIT, default_intrinsics, full_translation, project
from dpose.data.loader import one_thread
from dpose.data.sample import crop_matrix, warp_image
from dpose.io import check_target, file_hash, write_json
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import normalise, run_network, usable_device
from dpose.pictures import read_image, square_box
from dpose.rotations import sixd_to_rotmat
from dpose.skeleton import JOINT_NAMES, LIMBS, NUM_BODY_JOINTS, NUM_JOINTS

FACE = {"nose": 9120, "left_eye": 9448, "right_eye": 9929, "left_ear": 6, "right_ear": 616}  # vertices
FACE_VERTICES = (10475, 13718)  # numbers of vertices of SMPL-X and the open body, where `FACE` holds
ALIASES = {"head_bottom": "neck", "top_head": "head_top"}
THRESHOLDS = (0.05, 0.1, 0.2)
MEASURES = (*(f"pck_{threshold:g}" for threshold in THRESHOLDS), "error")
NAMED = 3  # unreadable images that `format_table` names


@dataclass(frozen=True)
class People:
    """The people of an annotation file: N people in I images with K kinds of keypoints."""

    names: tuple[str, ...]  # K names of points, see `body_points`
    keypoints: np.ndarray  # (N, K, 3) x, y in pixels, and 1 if annotated, otherwise 0
    box: np.ndarray  # (N, 4) x, y, width, height, pixels
    image: np.ndarray  # (N,) index of the image, ascending
    files: list[str]  # I file names, relative to the folder of the images
    sizes: list[tuple[int, int] | None]  # I (width, height) that the file gives
    clusters: list[str]  # I: the image's video, or the image itself
    unknown: tuple[str, ...]  # names in the file that have no point on the body
    left_out: dict[str, int]  # numbers of people who are left out, by reason


def evaluate_keypoints(
    annotations: str | Path,
    images: str | Path,
    checkpoint: str | Path = "lite",
    out: str | Path | None = None,
    *,
    box_factor: float = BOX_FACTOR,
    min_joints: int = 1,
    batch_size: int = 64,
    workers: int = 1,
    device: str | None = None,
    body: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluates a checkpoint on keypoints, returns the results and, with `out`, writes them as JSON.

    Args:
        annotations: a JSON file in COCO's format, for instance person_keypoints_val2017.json.
        images: the folder that the file names in `annotations` are relative to.
        checkpoint: as for `dpose.evaluate.evaluate`.
        box_factor: side of the square that the network receives / longer side of the annotated box. A person
            without a box gets the one around the annotated keypoints.
        min_joints: people with fewer annotated limb joints are left out. By default all people with a limb
            joint are evaluated; SPIN uses only those with all 12.
        workers: processes that read images and cut people out; 0: this process.
        device, body: as for `dpose.evaluate.evaluate`.
    Returns:
        A JSON-ready dict: `metrics` (pck_0.05, pck_0.1, pck_0.2: shares of keypoints; error: sides of the
        box) over the limb joints, each with mean, 95 % interval (None if there is only one image), number n
        of keypoints, and `per_joint` the same for each kind of keypoint and for "all" of them; `baselines`,
        the same for the means of pose, shape and camera that the checkpoint stores, which are one body in
        the same place of every crop; numbers of people (`samples`), limb `joints` and `images`; `left_out`,
        numbers of people by reason; `unreadable`, reasons by file name; `unknown_keypoints`, names without a
        point on the body; settings and provenance. Intervals are over the choice of images, or of videos if
        the images have a `vid_id`.
    Raises:
        FileNotFoundError: a file or the folder is missing, or no image can be read.
        FileExistsError: `out` is not a regular file.
        ValueError: an argument is invalid, the file is not in COCO's format or has no known keypoint, or
            nobody is left to evaluate.
        FloatingPointError: a prediction is not finite.
    """
    if min(min_joints, batch_size) < 1:
        raise ValueError(f"min_joints and batch_size must be at least 1, got {min_joints} and {batch_size}")
    if not 0.1 <= box_factor <= 10:
        raise ValueError(f"box_factor must be between 0.1 and 10, got {box_factor}")
    if out is not None:
        check_target(out)
    if not Path(images).is_dir():
        raise FileNotFoundError(f"no folder {images}; it must hold the images of {annotations}")
    begin = time.monotonic()
    model, metadata = checkpoints.read(checkpoint)
    device = usable_device(device)
    model, mesh = model.to(device), checkpoints.body_of(model, body).to(device)
    points = body_points(mesh)
    people = read_annotations(annotations, points, min_joints)
    crops = _Crops(people, Path(images), model.config.image_size, box_factor)
    loader = DataLoader(crops, batch_size=None, num_workers=workers, worker_init_fn=one_thread)
    shown = tqdm(loader, "evaluate", unit="image", disable=not progress, leave=False)
    left_out, unreadable = Counter(people.left_out), {}
    persons = _persons(shown, people, left_out, unreadable)
    selected = [points[name] for name in people.names]
    rows, errors = [], []
    while batch := list(islice(persons, batch_size)):
        numbers, *inputs = zip(*batch, strict=True)
        numbers = list(numbers)
        predicted = project_points(model, mesh, selected, *map(torch.stack, inputs))
        if not np.isfinite(predicted).all():
            raise FloatingPointError(
                f"a prediction for {people.files[people.image[numbers[0]]]} or the images after it is not "
                "finite: the network's weights are damaged, or its training diverged"
            )
        errors.append(box_errors(predicted, people.keypoints[numbers], people.box[numbers]))
        rows += numbers
    if not rows:
        reason = next(iter(unreadable.values()), "all boxes are too small or outside their image")
        raise FileNotFoundError(f"none of the images of {annotations} can be used: {reason}")
    annotated, image = people.keypoints[rows, :, 2], people.image[rows]
    bootstrap = ClusterBootstrap([people.clusters[i] for i in image])
    scores, baseline = (
        summarise(values, annotated, people.names, bootstrap)
        for values in np.concatenate(errors).swapaxes(0, 1)
    )
    result = {
        "kind": "keypoints",
        "dataset": Path(annotations).stem,
        "protocol": "2D keypoints",
        "normaliser": "longer side of the annotated box",
        "box_factor": box_factor,
        "min_joints": min_joints,
        "bodies": {"prediction": mesh.record},
        "samples": len(rows),
        "joints": scores["error"]["n"],
        "images": len(np.unique(image)),
        "left_out": dict(left_out),
        "unreadable": unreadable,
        "unknown_keypoints": list(people.unknown),
        "metrics": scores,
        "baselines": {"mean_pose": baseline},
        "intervals": bootstrap.record | {"method": "95 % percentile bootstrap over images, or videos"},
        "checkpoint": checkpoints.record(checkpoint, model, metadata),
        "data": {"annotations": Path(annotations).name, "sha256": file_hash(annotations)},
        "seconds": round(time.monotonic() - begin, 1),
        **results.provenance(),
    }
    if out is not None:
        write_json(out, result)
    return result


def format_table(result: dict[str, Any]) -> str:
    """The results as a few lines of text, in per cent."""
    scores, baseline = result["metrics"], result["baselines"]["mean_pose"]
    titles = [name.replace("pck_", "PCK@") for name in MEASURES]

    def row(label: str, select: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
        values, constants = ([select(table[name]) for name in MEASURES] for table in (scores, baseline))
        cells = "".join(f"{100 * value['mean']:>10.1f}" for value in values)
        mean_pose = " ".join(f"{100 * value['mean']:.1f}" for value in constants)
        return f"{label:16}{values[0]['n']:>7}{cells}   ({mean_pose})"

    lines = [
        f"{result['samples']} people with {result['joints']} limb joints in {result['images']} images of "
        f"{result['dataset']}, boxes x {result['box_factor']:g}; per cent of joints, and of the box's side",
        f"{'':16}{'n':>7}{''.join(f'{title:>10}' for title in titles)}   (mean pose)",
        row("limb joints", lambda score: score),
    ]
    spans = [scores[name]["ci95"] for name in MEASURES]
    if None not in spans:
        cells = "".join(f"{f'{100 * low:.1f}-{100 * high:.1f}':>10}" for low, high in spans)
        lines.append(f"{'95 % interval':23}{cells}")
    for joint in scores["error"]["per_joint"]:
        label = "all joints" if joint == "all" else joint.replace("_", " ")
        lines.append(row(label, lambda score, joint=joint: score["per_joint"][joint]))
    if left_out := result["left_out"]:
        lines.append("left out: " + ", ".join(f"{count} {reason}" for reason, count in left_out.items()))
    if unreadable := result["unreadable"]:
        named = [*list(unreadable.values())[:NAMED], *["..."][: len(unreadable) - NAMED]]
        lines.append(f"{len(unreadable)} images could not be used: {'; '.join(named)}")
    if unknown := result["unknown_keypoints"]:
        lines.append(f"keypoints without a point on the body: {', '.join(unknown)}")
    return "\n".join(lines)


# --- keypoints


def body_points(body: Body) -> dict[str, int]:
    """Names of points on the body -> their index among the 55 joints, followed by the vertices.

    Bodies with other vertices than SMPL-X's or the open body's lack the points of the face.
    """
    points = {name: JOINT_NAMES.index(name) for name in (*LIMBS, "neck")}
    vertices = {"head_top": int(body.template[1].argmax())}
    if body.num_vertices in FACE_VERTICES:
        vertices |= FACE
    return points | {name: NUM_JOINTS + vertex for name, vertex in vertices.items()}


def read_annotations(path: str | Path, known: Iterable[str], min_joints: int = 1) -> People:
    """Reads an annotation file in COCO's format, see `evaluate_keypoints`.

    Args:
        known: names of keypoints to read.
        min_joints: people with fewer annotated limb joints are left out.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in COCO's format, an annotation is damaged, none of its keypoints is known, or
            nobody is left to evaluate.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file at {path}")
    try:
        content = json.loads(path.read_bytes())
        entries = {entry["id"]: entry for entry in content["images"]}
        spelled = {category["id"]: category.get("keypoints") or () for category in content["categories"]}
        annotations = [(annotation["image_id"], annotation) for annotation in content["annotations"]]
        files = {number: str(entry["file_name"]) for number, entry in entries.items()}
        names = {category: [_point_name(name) for name in kinds] for category, kinds in spelled.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not an annotation file in COCO's format, with images, annotations and categories "
            f"({type(error).__name__}: {str(error)[:80]})"
        ) from None
    found = {name for kinds in names.values() for name in kinds}
    kept = tuple(name for name in known if name in found)
    if not kept:
        raise ValueError(
            f"{path}: no category names a known keypoint, such as left_shoulder; it names "
            f"{', '.join(sorted(found)) or 'none'}"
        )

    left_out: Counter[str] = Counter()
    people: dict[Any, list[tuple[np.ndarray, np.ndarray]]] = {}  # by image
    for number, annotation in annotations:
        try:
            keypoints = _keypoints(annotation, names.get(annotation.get("category_id"), []), kept)
            box = _box(annotation, keypoints)
            if number not in files:
                raise ValueError("its image is not in the file")
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: annotation {annotation.get('id')}: {error}") from None
        limbs = [i for i, name in enumerate(kept) if name in LIMBS]
        if annotation.get("iscrowd"):
            left_out["crowds"] += 1
        elif keypoints[limbs, 2].sum() < min_joints:
            left_out[f"with fewer than {min_joints} limb joints"] += 1
        else:
            people.setdefault(number, []).append((keypoints, box))
    if not people:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "no annotations"
        raise ValueError(f"{path} has nobody to evaluate: {reasons}")
    sizes = [(entries[number].get("width"), entries[number].get("height")) for number in people]
    rows = [row for group in people.values() for row in group]
    return People(
        names=kept,
        keypoints=np.stack([keypoints for keypoints, _ in rows]),
        box=np.stack([box for _, box in rows]),
        image=np.repeat(np.arange(len(people)), [len(group) for group in people.values()]),
        files=[files[number] for number in people],
        sizes=[size if all(size) else None for size in sizes],
        clusters=[_cluster(number, entries[number].get("vid_id")) for number in people],
        unknown=tuple(sorted(found - set(kept))),
        left_out=dict(left_out),
    )


def _cluster(image: Any, video: Any) -> str:
    """The video, or the image itself, without hyphens, which have a meaning for `ClusterBootstrap`."""
    return str(image if video is None else video).replace("-", "_")


def _point_name(spelled: Any) -> str:
    """The name of a point: "Left Shoulder", "l_shoulder" -> "left_shoulder"."""
    name = re.sub(r"[^a-z0-9]+", "_", str(spelled).lower()).strip("_")
    name = re.sub(r"^l_", "left_", re.sub(r"^r_", "right_", name))
    return ALIASES.get(name, name)


def _keypoints(annotation: dict[str, Any], kinds: Sequence[str], kept: Sequence[str]) -> np.ndarray:
    """(K, 3) the annotation's keypoints in the order of `kept`, all zeros if it has none."""
    keypoints = np.zeros((len(kept), 3))
    flat = np.asarray(annotation.get("keypoints") or np.zeros(3 * len(kinds)), np.float64)
    if flat.shape != (3 * len(kinds),) or not np.isfinite(flat).all():
        raise ValueError(f"'keypoints' must be {3 * len(kinds)} finite numbers, three per keypoint")
    for name, (x, y, v) in zip(kinds, flat.reshape(-1, 3), strict=True):
        if name in kept and v > 0:
            keypoints[kept.index(name)] = x, y, 1
    return keypoints


def _box(annotation: dict[str, Any], keypoints: np.ndarray) -> np.ndarray:
    """(4,) the annotation's box, or the one around its keypoints."""
    if (box := annotation.get("bbox")) is not None:
        box = np.asarray(box, np.float64)
        if box.shape != (4,) or not np.isfinite(box).all():
            raise ValueError("'bbox' must be four finite numbers x, y, width, height")
        return box
    points = keypoints[keypoints[:, 2] > 0, :2]
    if not len(points):
        return np.zeros(4)
    return np.concatenate([points.min(0), np.ptp(points, 0)])


# --- crops


class _Crops(Dataset):
    """One item per image: its people cut out, or the reason why the image cannot be used.

    Of a person: number, crop (S, S, 3) uint8, center (2,) and scale of the square, and img_size (2,). People
    whose box is too small or outside the image are left out.
    """

    def __init__(self, people: People, folder: Path, size: int, box_factor: float) -> None:
        self.people, self.folder, self.size, self.box_factor = people, folder, size, box_factor

    def __len__(self) -> int:
        return len(self.people.files)

    def __getitem__(self, index: int) -> list[tuple] | str:
        try:
            picture = _read(self.folder / self.people.files[index], self.people.sizes[index])
        except (OSError, ValueError) as error:
            return str(error)
        height, width = picture.shape[:2]
        persons = []
        for number in np.flatnonzero(self.people.image == index):
            with suppress(ValueError):  # the box is too small or outside the image
                center, side = square_box(self.people.box[number], width, height)
                scale = side / BOX_FACTOR * self.box_factor / BOX_UNIT
                crop = warp_image(picture, crop_matrix(center, scale, self.size), self.size)
                persons.append((int(number), crop, *map(np.float32, (center, scale, (width, height)))))
        return persons


def _read(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    """The image in the orientation that `size` (width, height) is for, (H, W, 3) uint8 RGB.

    Raises ValueError or FileNotFoundError if it cannot be read or has another size.
    """
    picture = read_image(path)
    if size is None or picture.shape[1::-1] == size:
        return picture
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if stored is None or stored.shape[1::-1] != size:
        raise ValueError(
            f"{path} has {picture.shape[1]} x {picture.shape[0]} pixels, but its annotations are for "
            f"{size[0]} x {size[1]}"
        )
    return np.ascontiguousarray(stored[..., ::-1])


def _persons(
    items: Iterable[list[tuple] | str], people: People, left_out: Counter[str], unreadable: dict[str, str]
) -> Iterator[tuple]:
    """The people of `_Crops` one by one; adds those who are missing to `left_out` and `unreadable`."""
    totals = np.bincount(people.image)
    for index, item in enumerate(items):
        if isinstance(item, str):
            unreadable[people.files[index]] = item
            left_out["in images that could not be used"] += int(totals[index])
            continue
        if missing := int(totals[index]) - len(item):
            left_out["with boxes that are too small or outside the image"] += missing
        yield from item


# --- measures


@torch.inference_mode()
def project_points(
    model: nn.Module,
    body: Body,
    points: Sequence[int],
    crops: Tensor,
    center: Tensor,
    scale: Tensor,
    img_size: Tensor,
) -> np.ndarray:
    """Projections of points of the predicted body, and of the body of the regressor's means.

    Args:
        points: K indices of `body_points`.
        crops: (B, S, S, 3) uint8.
        center, scale, img_size: (B, 2), (B,), (B, 2), as in `dpose.batch.Batch`.
    Returns:
        (B, 2, K, 2) pixels of the full image.
    """
    device = body.faces.device
    center, scale, img_size = (x.to(device) for x in (center, scale, img_size))
    cam_int = default_intrinsics(img_size)
    image = normalise(crops.to(device).permute(0, 3, 1, 2))
    prediction = run_network(model, {"image": image, "center": center, "scale": scale, "cam_int": cam_int})
    means = model.regressor
    surface = max(points) >= NUM_JOINTS
    projected = []
    for betas, rotmats, cam in (
        (prediction.betas, prediction.rotmats, prediction.cam),
        (
            means.init_shape[None],
            sixd_to_rotmat(means.init_pose.view(1, NUM_BODY_JOINTS, 6)),
            means.init_cam.expand(len(crops), -1),
        ),
    ):
        posed = body(betas, rotmats, surface=surface)
        located = torch.cat([posed.joints, posed.vertices], 1)[:, list(points)]  # (B or 1, K, 3)
        located = located + full_translation(cam, center, scale, cam_int)[:, None]
        projected.append(project(located, cam_int))
    return torch.stack(projected, 1).cpu().numpy()


def box_errors(points: np.ndarray, keypoints: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Distances (B, P, K) of points (B, P, K, 2) from keypoints (B, K, 3), in longer sides of box (B, 4)."""
    distances = np.linalg.norm(points - keypoints[:, None, :, :2], axis=-1)
    return distances / box[:, 2:].max(1)[:, None, None]


def summarise(
    errors: np.ndarray, annotated: np.ndarray, names: Sequence[str], bootstrap: ClusterBootstrap
) -> dict[str, Any]:
    """The `metrics` of `evaluate_keypoints`.

    Args:
        errors: (N, K) in sides of the box.
        annotated: (N, K) 1 if the keypoint counts, otherwise 0.
        names: K names of keypoints.
        bootstrap: of the N people.
    """
    values = {f"pck_{threshold:g}": errors < threshold for threshold in THRESHOLDS} | {"error": errors}
    groups = {"limbs": np.isin(names, LIMBS), "all": np.ones(len(names), bool)}
    groups |= {name: np.array(names) == name for name in names}
    groups = {group: members for group, members in groups.items() if annotated[:, members].any()}
    columns, weights = {}, {}
    for group, members in groups.items():
        counted = annotated * members  # (N, K)
        count = counted.sum(1)
        for measure, value in values.items():
            columns[group, measure] = (value * counted).sum(1) / np.maximum(count, 1)
            weights[group, measure] = count
    means = bootstrap.means(columns, weights)
    for key, score in means.items():
        score["n"] = int(weights[key].sum())
    return {
        measure: means["limbs", measure]
        | {"per_joint": {group: means[group, measure] for group in groups if group != "limbs"}}
        for measure in values
    }
