"""The people of a scene as samples of the data set: labels, part labels, and rendered crops."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy.spatial.transform import Rotation

from dpose.body import Body, load_body
from dpose.camera import BOX_FACTOR, BOX_UNIT
from dpose.data.labels import MIN_VISIBLE_JOINTS, NUM_JOINTS_2D
from dpose.data.sample import MARGIN, Sample, SampleLabel, make_label
from dpose.data.targets import label_part_targets
from dpose.skeleton import NUM_BODY_JOINTS
from dpose.synthetic.finish import coarse, focused, toned
from dpose.synthetic.scene import Scene, second_view
from dpose.synthetic.viewport import SceneRenderer, View

MIN_VISIBLE = 0.3  # visible pixels of a person / pixels of the unoccluded body
SILHOUETTE = 64  # side of the silhouettes that boxes are taken from, pixels
SMALLEST_BOX = 0.45  # side of a box around the visible pixels / side of the box around the joints
NEAR_PLANE = 0.2  # metres; joints closer to the camera are not visible


@cache
def open_body() -> Body:
    """The open body, for all synthetic people."""
    return load_body("open")


def people_labels(scene: Scene) -> list[tuple[int, np.ndarray, SampleLabel]]:
    """Labels of the people who have enough joints inside the frame.

    Returns (index of the person in the scene, pose (165,) axis-angle, label) per person. The root rotation
    and `trans` (metres) are in the camera frame. The box encloses the visible body joints, times BOX_FACTOR.
    """
    people = []
    for k, subject in enumerate(scene.subjects):
        joints = scene.joints[k] @ scene.rotation.T + scene.translation  # (55, 3), camera frame
        pixels = joints @ scene.cam_int.T
        pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6)
        front = joints[:, 2] > NEAR_PLANE
        inside = front & ((pixels > 0) & (pixels < scene.size)).all(1)
        visible = pixels[:NUM_BODY_JOINTS][inside[:NUM_BODY_JOINTS]]
        if len(visible) < MIN_VISIBLE_JOINTS or (joints[:NUM_BODY_JOINTS, 2] < NEAR_PLANE).any():
            continue
        low, high = visible.min(0), visible.max(0)
        pose = scene.rotations[k].copy()
        pose[0] = (Rotation.from_matrix(scene.rotation) * Rotation.from_rotvec(pose[0])).as_rotvec()
        pelvis = scene.pelvis[k]
        label = make_label(
            key=f"{scene.seed[0]:03d}-{subject.split('-')[0]}-{scene.seed[2]:07d}-{10 * scene.view + k}",
            dataset="open",
            body="open",
            subject=subject,
            pose=pose[:NUM_BODY_JOINTS],
            betas=scene.betas[k],
            trans=scene.rotation @ (pelvis + scene.transl[k]) + scene.translation - pelvis,
            joints2d=np.concatenate([pixels, front[:, None]], 1)[:NUM_JOINTS_2D],
            center=(low + high) / 2,
            scale=float((high - low).max()) * BOX_FACTOR / BOX_UNIT,
            img_size=scene.size,
            cam_int=scene.cam_int,
        )
        people.append((k, pose.reshape(165), label))
    return people


def person_samples(scene: Scene, size: int) -> list[Sample]:
    """The people of the scene as crops of `size` pixels, rendered directly and not cut out of a full frame.

    People of whom less than MIN_VISIBLE is visible are left out.
    """
    views = [view for view in (scene, second_view(scene)) if view]
    people = [people_labels(view) for view in views]
    if not any(people):
        return []
    renderer = SceneRenderer(scene)
    return [
        sample
        for view, seen in zip(views, people, strict=True)
        for sample in _samples_of_view(renderer, view, seen, size)
    ]


def _samples_of_view(
    renderer: SceneRenderer, scene: Scene, people: list[tuple[int, np.ndarray, SampleLabel]], size: int
) -> list[Sample]:
    """The people whom one camera sees. scene: the renderer's, of the same or of its second view."""
    if not people:
        return []
    renderer.scene, samples = scene, []
    for k, _, label in people:
        if scene.options("boxes", k):
            _surround_silhouette(label, renderer, k)
    for (k, _, label), part in zip(people, _parts(renderer, people, size), strict=True):
        least = MIN_VISIBLE * max(np.count_nonzero(part), 1)
        if view := renderer.crop(label["center"], label["scale"], size, MARGIN, k, least):
            depth = np.where(view.person == k, view.depth, np.float32(0))
            image = _finished(scene, k, view)
            samples.append(Sample(image=image, depth=depth, parts=part, label=label))
    return samples


def _parts(
    renderer: SceneRenderer, people: list[tuple[int, np.ndarray, SampleLabel]], size: int
) -> Sequence[np.ndarray]:
    """Part labels (size, size) of each person: the bare body, not occluded by anything."""
    if renderer.drawn:
        return [renderer.parts(k, label["center"], label["scale"], size, MARGIN) for k, _, label in people]
    _, poses, labels = zip(*people, strict=True)
    betas, trans = [label["betas"] for label in labels], [label["trans"] for label in labels]
    return label_part_targets(np.stack(poses), betas, trans, list(labels), open_body(), size)


def _surround_silhouette(label: SampleLabel, renderer: SceneRenderer, person: int) -> None:
    """Make the label's box surround the visible pixels of a person, times BOX_FACTOR, as annotators draw it.

    At least SMALLEST_BOX of the joints' box; unchanged where nothing is visible.
    """
    visible = renderer.silhouettes(label["center"], label["scale"], SILHOUETTE, MARGIN) == person
    if not visible.any():
        return
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    low, high = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]]) + 1
    pixel = BOX_UNIT * label["scale"] * MARGIN / SILHOUETTE
    center = np.array(label["center"]) + ((low + high) / 2 - SILHOUETTE / 2) * pixel
    side = float((high - low).max()) * pixel * BOX_FACTOR / BOX_UNIT
    label["center"] = np.round(center, 6).tolist()
    label["scale"] = round(max(side, SMALLEST_BOX * label["scale"]), 9)


def _finished(scene: Scene, person: int, view: View) -> np.ndarray:
    """The picture of a view after the options "focus", "tone" and "resolution"."""
    image = view.image
    if focus := scene.options("focus"):
        image = focused(focus, image, view.depth, view.person == person)
    if tone := scene.options("tone"):
        image = toned(tone, image, view.depth > 0)
    if resolution := scene.options("resolution", person):
        image = coarse(resolution, image)
    image[view.depth <= 0] = 0  # outside of the full picture
    return image
