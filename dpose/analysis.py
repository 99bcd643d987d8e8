"""Analysis beyond averages: what errors depend on, what the maps order rightly, what the regressor uses.

`examine` runs a network once over a split and keeps what the rest of this module needs, one row per person.
The other functions take tensors, or columns of its table. The paper reports averages over test sets and has
no such analysis; the page `notebooks/analysis` shows it for one network.

Intervals are over clusters of people (`dpose.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import roma
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

from dpose import metrics
from dpose.batch import Batch, Prediction
from dpose.body import Bodies, Body
from dpose.bootstrap import ClusterBootstrap
from dpose.camera import BOX_UNIT, full_translation
from dpose.evaluate import some_of, true_points
from dpose.model.inference import run_network, to_device
from dpose.rotations import sixd_to_rotmat
from dpose.skeleton import NUM_BODY_JOINTS, NUM_CLASSES, PART_NAMES

BINS = 20  # of confidence
DEPTH_STEPS = 50  # of predicted and of true depth
ROWS = 128  # people whose surfaces are computed at once
INPUTS = ("attended features", "box information", "depth features")  # the regressor's


def _pairs(*names: tuple[str, str]) -> tuple[tuple[int, int], ...]:
    return tuple((PART_NAMES.index(one), PART_NAMES.index(two)) for one, two in names)


PAIRS = {  # pairs of body parts that are compared in depth; a part is named after the joint that moves it
    "hands": _pairs(("left_wrist", "right_wrist")),
    "forearms": _pairs(("left_elbow", "right_elbow")),
    "shins": _pairs(("left_knee", "right_knee")),
    "feet": _pairs(("left_ankle", "right_ankle")),
    "hand and chest": _pairs(("left_wrist", "spine3"), ("right_wrist", "spine3")),
    "foot and pelvis": _pairs(("left_ankle", "pelvis"), ("right_ankle", "pelvis")),
}
ALL_PAIRS = tuple(pair for pairs in PAIRS.values() for pair in pairs)


# --- one pass over the people -------------------------------------------------------------------------------


@torch.inference_mode()
def examine(
    network: nn.Module,
    loader: Iterable[Batch],
    body: Body,
    samples: int | None = None,
    parts_balance: float = 0.0,
) -> dict[str, Any]:
    """Run a network with a depth branch over a split, on the body's device. Memory: about 60 kB per person.

    Args:
        body: the prediction's body.
        samples: stop after this number of people. People without depth are left out.
        parts_balance: of the network's training (`LossWeights`), for `unweighted`.
    Returns:
        Tensors of N rows on the CPU, and `key`, a list of N keys:

        - rotmats, betas: the prediction's. joints, joints_aligned (N, 24): error of each joint in mm, see
          `joint_errors`; mpjpe, pa_mpjpe (N,): their means. orientation (N,): degrees. distance (N,): error
          of the pelvis's depth / that depth.
        - azimuth, hidden, outside, side, unusual (N,): see `camera_azimuth`, `hidden_share`, `outside_share`;
          side of the box in pixels; and PA-MPJPE of the mean pose in mm, by how much a pose is unusual.
        - parts_error, depth_error (N,): 1 - mean IoU, and mean absolute error on the visible pixels.
        - visible (N, 22): visible map pixels of each part. part_depth/truth, /body, /true map, /map, /map and
          parts (N, 22): depth of each part: of the true and the predicted body, in metres; and read from
          the true depth map and the predicted one at the part's visible pixels, and from the predicted map
          under the predicted part.
        - reliability (N, 23, BINS, 3): see the function; reliability_unweighted: of `unweighted`
          probabilities. depth_counts (N, DEPTH_STEPS, DEPTH_STEPS): see the function.
        - inputs: a tuple of the regressor's inputs (`INPUTS`), N rows each. truth: a dict with what `regress`
          needs.

    Raises:
        ValueError: the network has no depth branch, no person has depth, or the labels are for SMPL.
    """
    if not network.config.depth:
        raise ValueError(
            f"the analysis needs a network with a depth branch; {network.config.name!r} has none"
        )
    device, bodies = body.faces.device, Bodies(body.faces.device, given=[body])
    errors = metrics.BodyErrors().to(device)
    mean_pose = sixd_to_rotmat(network.regressor.init_pose.view(1, NUM_BODY_JOINTS, 6))
    mean_joints = body(network.regressor.init_shape[None], mean_pose, surface=False).joints
    rows: list[dict[str, Any]] = []
    count = 0
    for batch in loader:
        batch = _with_depth(to_device(batch, device))
        if samples is not None:
            batch = some_of(batch, slice(samples - count))
        if not batch["key"]:
            continue
        prediction, inputs = _with_inputs(network, batch)
        true_body = true_points(batch, bodies, errors)
        truth = {"joints": true_body.joints[:, :24], "rotmats": batch["pose"]}
        truth |= {name: batch[name] for name in ("trans", "center", "scale", "cam_int")}
        row = {"key": list(batch["key"]), "inputs": inputs, "truth": truth}
        row["part_depth/truth"] = part_depths(true_body.vertices, bodies(batch["body"][0]))
        row |= regress(network.regressor, inputs, body, truth)
        row |= _circumstances(batch, true_body.joints, mean_joints)
        row |= _maps(prediction, batch, parts_balance)
        rows.append(row)
        count += len(batch["key"])
        if count == samples:
            break
    if not rows:
        raise ValueError("the split has no people with depth to examine")
    return _joined(rows)


def _with_depth(batch: Batch) -> Batch:
    rows = batch["has_depth"].nonzero()[:, 0]
    return {
        name: value[rows] if isinstance(value, Tensor) else [value[row] for row in rows.tolist()]
        for name, value in batch.items()
        if isinstance(value, Tensor | list)
    }


def _with_inputs(network: nn.Module, batch: Batch) -> tuple[Prediction, tuple[Tensor, ...]]:
    """The prediction, and the regressor's inputs."""
    inputs: list[tuple[Tensor, ...]] = []
    hook = network.regressor.register_forward_pre_hook(lambda _, given: inputs.append(given))
    try:
        return run_network(network, batch), inputs[0]
    finally:
        hook.remove()


def _joined(rows: list[Any]) -> Any:
    """Batches of tensors, lists, or dicts and tuples of them, one after the other on the CPU."""
    first = rows[0]
    if isinstance(first, Tensor):
        return torch.cat(rows).cpu()
    if isinstance(first, dict):
        return {name: _joined([row[name] for row in rows]) for name in first}
    if isinstance(first, tuple):
        return tuple(_joined(list(column)) for column in zip(*rows, strict=True))
    return [one for row in rows for one in row]


def _circumstances(batch: Batch, true_joints: Tensor, mean_joints: Tensor) -> dict[str, Tensor]:
    inside = map_pixels_inside(batch["center"], batch["scale"], batch["img_size"], batch["parts"].shape[-1])
    mean = mean_joints.expand(len(true_joints), -1, -1)
    return {
        "azimuth": camera_azimuth(batch["pose"][:, 0], true_joints[:, 0] + batch["trans"]),
        "hidden": hidden_share(batch["parts"], batch["depth"][:, 0], inside),
        "outside": outside_share(batch["joints2d"], batch["center"], batch["scale"], batch["img_size"]),
        "side": BOX_UNIT * batch["scale"],
        "unusual": metrics.pa_mpjpe(mean, true_joints),
    }


def _maps(prediction: Prediction, batch: Batch, parts_balance: float) -> dict[str, Tensor]:
    labels, target, depth = batch["parts"], batch["depth"][:, 0], prediction.depth[:, 0]
    probabilities = prediction.parts.softmax(1)
    confusion = metrics.parts_confusion(prediction.parts.argmax(1), labels)
    shown = F.one_hot(torch.where(target > 0, labels, 0), NUM_CLASSES).movedim(-1, 1)[:, 1:].float()
    return {
        "parts_error": 1 - metrics.mean_iou(*metrics.parts_overlap(confusion)),
        "depth_error": metrics.depth_l1(prediction.depth, batch["depth"])[0],
        "visible": shown.flatten(2).sum(2).int(),
        "part_depth/true map": read_depth(target, shown),
        "part_depth/map": read_depth(depth, shown),
        "part_depth/map and parts": read_depth(depth, probabilities[:, 1:]),
        "reliability": reliability(probabilities, labels),
        "reliability_unweighted": reliability(unweighted(prediction.parts, labels, parts_balance), labels),
        "depth_counts": depth_counts(depth, target),
    }


# --- circumstances of a person ------------------------------------------------------------------------------


def camera_azimuth(root: Tensor, pelvis: Tensor) -> Tensor:
    """Where the camera stands as seen from the body: (B,) degrees in [-180, 180].

    0: in front of the person, who faces it; 90: to the person's left; 180: behind. The angle is measured
    about the body's own vertical axis, so that it also has a meaning for people who lie.

    Args:
        root: (B, 3, 3) rotation of the root, body to camera frame.
        pelvis: (B, 3) metres, camera frame.
    """
    left, _, front = (root * -pelvis[..., None]).sum(-2).unbind(-1)  # R^T (-p), in the body's frame
    return torch.atan2(left, front).rad2deg()


def map_pixels_inside(center: Tensor, scale: Tensor, img_size: Tensor, size: int) -> Tensor:
    """Which pixels of a map of the box lie in the full image: (B, size, size) bool. As in `Batch`."""
    steps = (torch.arange(size, device=center.device) + 0.5) / size - 0.5
    places = (
        center[:, :, None] + BOX_UNIT * scale[:, None, None] * steps
    )  # (B, 2, size): x of columns, y of rows
    x, y = ((places >= 0) & (places < img_size[:, :, None])).unbind(1)
    return y[:, :, None] & x[:, None, :]


def hidden_share(parts: Tensor, depth: Tensor, inside: Tensor) -> Tensor:
    """Share of a person's silhouette that something hides: (B,), 0 where nothing of it is in the image.

    The part labels show the whole body, the depth only visible pixels; the body's pixels without depth are
    hidden, by other people or by objects. Pixels outside of the image do not count.

    Args:
        parts: (B, M, M) labels. depth: (B, M, M) depth target. inside: (B, M, M) of `map_pixels_inside`.
    """
    silhouette = (parts > 0) & inside
    hidden = silhouette & (depth <= 0)
    return hidden.flatten(1).sum(1) / silhouette.flatten(1).sum(1).clamp(min=1)


def outside_share(joints2d: Tensor, center: Tensor, scale: Tensor, img_size: Tensor) -> Tensor:
    """Share of the 22 body joints that lie outside of the image or of the box: (B,). As in `Batch`.

    A joint with confidence 0 counts as outside.
    """
    points, known = joints2d[:, :NUM_BODY_JOINTS, :2], joints2d[:, :NUM_BODY_JOINTS, 2] > 0
    half = 0.5 * BOX_UNIT * scale[:, None, None]
    in_image = ((points >= 0) & (points < img_size[:, None])).all(2)
    in_box = ((points - center[:, None]).abs() < half).all(2)
    return 1 - (known & in_image & in_box).float().mean(1)


# --- depth of parts -----------------------------------------------------------------------------------------


def part_depths(vertices: Tensor, body: Body) -> Tensor:
    """Mean depth of each part's vertices: (B, V, 3) -> (B, 22) metres."""
    member = F.one_hot(body.part_of_vertex, NUM_BODY_JOINTS).to(vertices.dtype)  # (V, 22)
    return vertices[..., 2] @ (member / member.sum(0))


def read_depth(depth: Tensor, weights: Tensor) -> Tensor:
    """Mean of a map (B, M, M) under the weights of each part (B, 22, M, M): (B, 22), NaN without weight."""
    total = weights.flatten(2).sum(2)
    return (weights * depth[:, None]).flatten(2).sum(2) / total


def differences(depths: Tensor, pairs: Sequence[tuple[int, int]] = ALL_PAIRS) -> Tensor:
    """Depth of the second part of each pair minus that of the first: (B, 22) -> (B, P)."""
    one, two = (list(column) for column in zip(*pairs, strict=True))
    return depths[:, two] - depths[:, one]


def share_of_pairs(right: Tensor, used: Tensor, bootstrap: ClusterBootstrap) -> dict[str, Any]:
    """Share of the pairs in `used` (N, P) for which `right` (N, P) holds: {"mean", "ci95"}, and "n" pairs."""
    count = used.sum(1)
    share = (right & used).sum(1) / count.clamp(min=1)
    if not count.any():
        return {"mean": float("nan"), "ci95": None, "n": 0}
    return bootstrap.means({"x": share.numpy()}, {"x": count.numpy()})["x"] | {"n": int(count.sum())}


# --- the regressor's inputs ---------------------------------------------------------------------------------


@torch.inference_mode()
def regress(
    regressor: nn.Module, inputs: Sequence[Tensor], body: Body, truth: dict[str, Tensor]
) -> dict[str, Tensor]:
    """What the regressor predicts from given inputs, and its errors.

    Args:
        inputs: of the regressor, B rows each.
        truth: joints (B, 24, 3), rotmats, trans, center, scale, cam_int, as `examine` returns it.
    Returns:
        rotmats, betas, joints, joints_aligned, mpjpe, pa_mpjpe, orientation, distance, part_depth/body, see
        `examine`.
    """
    if len(inputs[0]) > ROWS:  # the surfaces of all people at once would take gigabytes
        pieces = (slice(start, start + ROWS) for start in range(0, len(inputs[0]), ROWS))
        return _joined(
            [
                regress(regressor, [x[rows] for x in inputs], body, {k: v[rows] for k, v in truth.items()})
                for rows in pieces
            ]
        )
    rotmats, betas, cam = regressor(*inputs)
    posed = body(betas, rotmats)
    errors, aligned = joint_errors(posed.joints[:, :24], truth["joints"])
    place = full_translation(cam, truth["center"], truth["scale"], truth["cam_int"])
    distance = posed.joints[:, 0, 2] + place[:, 2]
    true_distance = truth["joints"][:, 0, 2] + truth["trans"][:, 2]
    return {
        "rotmats": rotmats,
        "betas": betas,
        "joints": errors,
        "joints_aligned": aligned,
        "mpjpe": errors.mean(1),
        "pa_mpjpe": aligned.mean(1),
        "orientation": metrics.orientation_error(rotmats[:, 0], truth["rotmats"][:, 0]),
        "distance": (distance / true_distance - 1).abs(),
        "part_depth/body": part_depths(posed.vertices, body),
    }


def joint_errors(joints: Tensor, true_joints: Tensor) -> tuple[Tensor, Tensor]:
    """Error of each joint in mm, with both pelvises at the origin, and after Procrustes alignment.

    joints, true_joints: (B, J, 3) metres; the pelvis is the midpoint of the hips. Returns two (B, J). Their
    means over 24 joints are MPJPE and PA-MPJPE of the protocol "smplx24".
    """
    offset = joints - true_joints
    offset = offset - offset[:, metrics.HIPS].mean(1, keepdim=True)
    rest = metrics.similarity_align(joints, true_joints) - true_joints
    return tuple(torch.linalg.vector_norm(d, dim=-1) * metrics.MILLIMETRES for d in (offset, rest))


def turns(rotmats: Tensor, other: Tensor) -> Tensor:
    """Rotation between two global orientations, about each axis of the camera: (B, 3) degrees, not negative.

    About x a body leans towards the camera or away from it; about y it faces elsewhere; about z it tilts in
    the image. These are the components of the rotation vector. rotmats, other: (B, 3, 3).
    """
    return roma.rotmat_to_rotvec(rotmats @ other.transpose(-1, -2)).rad2deg().abs()


def exchange(
    inputs: Sequence[Tensor], which: Iterable[int], donor: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The inputs with those at `which` taken from other people.

    donor: (N,) the person whom each person's come from; None: the mean over all people.
    """
    which = set(which)

    def other(values: Tensor) -> Tensor:
        return values.mean(0, keepdim=True).expand_as(values) if donor is None else values[donor]

    return tuple(other(values) if i in which else values for i, values in enumerate(inputs))


# --- calibration --------------------------------------------------------------------------------------------


def reliability(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> Tensor:
    """Pixels by predicted class and confidence: (B, K, bins, 3) float64.

    The confidence is the largest probability of a pixel, its bins are equally wide. The last axis: number of
    pixels, sum of their confidences, number of those whose label is the predicted class.

    Args:
        probabilities: (B, K, ...), which sum to 1 over K. labels: (B, ...) integers.
    """
    confidence, predicted = probabilities.flatten(2).max(1)  # (B, pixels)
    place = (confidence * bins).long().clamp(max=bins - 1)
    index = predicted * bins + place
    right = (predicted == labels.flatten(1)).double()
    values = torch.stack([torch.ones_like(right), confidence.double(), right], 2)  # (B, pixels, 3)
    counts = values.new_zeros(len(values), probabilities.shape[1] * bins, 3)
    counts.scatter_add_(1, index[..., None].expand_as(values), values)
    return counts.unflatten(1, (probabilities.shape[1], bins))


def unweighted(logits: Tensor, labels: Tensor, balance: float) -> Tensor:
    """Probabilities without the effect of class weights in training: (B, K, ...) logits -> (B, K, ...).

    A cross-entropy whose pixels have the weight f^-b, f the share of their class, has its minimum at
    probabilities proportional to f^-b times the true ones (b: `LossWeights.parts_balance`). This multiplies
    by f^b, with the shares among `labels` (B, ...).
    """
    share = torch.bincount(labels.flatten(), minlength=logits.shape[1]) / labels.numel()
    level = balance * torch.where(share > 0, share, 1.0).log()
    return (logits + level.view(-1, *[1] * (logits.ndim - 2))).softmax(1)


def calibration_error(counts: Tensor) -> Tensor:
    """Expected calibration error from counts of `reliability`: (..., bins, 3) -> (...).

    The mean over pixels of |accuracy - mean confidence| of their bin; NaN without pixels.
    """
    number, confidence, right = counts.unbind(-1)
    return (right - confidence).abs().sum(-1) / number.sum(-1)


def depth_counts(depth: Tensor, target: Tensor, steps: int = DEPTH_STEPS) -> Tensor:
    """Visible pixels by predicted and true depth: (B, M, M) each -> (B, steps, steps) int32.

    First the predicted depth, then the true one, each in equally wide steps of [0, 1].
    """
    one, two = ((values.flatten(1) * steps).long().clamp(0, steps - 1) for values in (depth, target))
    seen = (target.flatten(1) > 0).int()
    counts = seen.new_zeros(len(seen), steps * steps).scatter_add_(1, one * steps + two, seen)
    return counts.unflatten(1, (steps, steps))


# --- statistics ---------------------------------------------------------------------------------------------


def binned_means(
    values: np.ndarray, factor: np.ndarray, edges: Sequence[float], bootstrap: ClusterBootstrap
) -> list[dict[str, Any]]:
    """Mean, 95 % interval and number of the values (N,) whose factor (N,) is in each of the bins.

    edges: increasing; a bin includes its lower edge, the last one also its upper edge. Bins without people
    are left out. Each entry also has `middle`, the median of the factor in the bin.
    """
    values, factor = np.asarray(values), np.asarray(factor)
    last = len(edges) - 2
    place = np.clip(np.searchsorted(edges, factor, side="right") - 1, -1, last)
    place[factor > edges[-1]] = -1
    found = [bin for bin in range(last + 1) if (place == bin).any()]
    weights = {bin: place == bin for bin in found}
    means = bootstrap.means(dict.fromkeys(found, values), weights)
    return [{**means[bin], "middle": float(np.median(factor[weights[bin]]))} for bin in found]


def effects(
    values: np.ndarray, factors: dict[str, np.ndarray], bootstrap: ClusterBootstrap
) -> tuple[dict[str, dict[str, Any]], float]:
    """Least squares: change of the values (N,) per unit of each factor (N,) while the others stay the same.

    Returns {"mean", "ci95"} of each factor's slope, and the share of the variance that all of them explain.
    A factor without variance has the slope 0.
    """
    y = np.asarray(values, np.float64)
    columns = np.stack([np.asarray(column, np.float64) for column in factors.values()], 1)
    centre, spread = columns.mean(0), columns.std(0)
    unit = np.where(spread > 0, spread, 1.0)
    x = np.column_stack([np.ones(len(y)), (columns - centre) / unit])  # (N, K), of like size
    products = (x[:, :, None] * np.column_stack([x, y])[:, None, :]).reshape(len(y), -1)
    sums = np.concatenate([products.sum(0)[None], bootstrap.sums(products)])
    sums = sums.reshape(len(sums), x.shape[1], -1)  # normal equations of the sample, and of each resample
    solutions = (np.linalg.pinv(sums[:, :, :-1], hermitian=True) @ sums[:, :, -1:])[..., 0]
    slopes = solutions[:, 1:] / unit
    explained = 1 - np.var(y - x @ solutions[0]) / np.var(y)
    return {
        name: {"mean": float(slopes[0, i]), "ci95": bootstrap.interval(slopes[1:, i])}
        for i, name in enumerate(factors)
    }, float(explained)


def rank_correlation(
    x: np.ndarray, y: np.ndarray, bootstrap: ClusterBootstrap, given: Sequence[np.ndarray] = ()
) -> dict[str, Any]:
    """Spearman's correlation of x and y (N,): {"mean", "ci95"}.

    given: columns (N,) whose ranks' linear effect on both is removed first (partial correlation). Resamples
    keep the ranks among all people.
    """
    ranks = np.stack([rankdata(column) for column in (x, y, *given)], 1)
    ranks = np.column_stack([np.ones(len(ranks)), (ranks - ranks.mean(0)) / len(ranks)])
    products = (ranks[:, :, None] * ranks[:, None, :]).reshape(len(ranks), -1)
    sums = np.concatenate([products.sum(0)[None], bootstrap.sums(products)])
    sums = sums.reshape(len(sums), ranks.shape[1], -1)
    precision = np.linalg.pinv(sums, hermitian=True)
    values = -precision[:, 1, 2] / np.sqrt(precision[:, 1, 1] * precision[:, 2, 2])
    return {"mean": float(values[0]), "ci95": bootstrap.interval(values[1:])}
