"""Evaluation on a test split: errors of the mesh, the part map and the depth map, with baselines.

All errors are computed per sample. Results hold their means with 95 % intervals (`dpose.bootstrap`), and the
errors of constant predictions as baselines: the training set's mean pose, the same with the true global
orientation, and the depth value with the smallest error on the persons' pixels.

The mesh errors follow a protocol (`dpose.metrics.PROTOCOLS`). The prediction is posed by the body that the
checkpoint was trained for, the truth by the body of each sample's label: gendered SMPL on 3DPW and EMDB,
gendered SMPL-X on RICH, neutral SMPL-X on BEDLAM, the open body on the open data. The matrices that a
protocol needs are those of the open body or of the licensed ones, according to the prediction's body. Errors
computed with the open body's matrices are not comparable with any benchmark's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dpose import metrics, results
from dpose.batch import Batch, Prediction
from dpose.body import OPEN_BODIES, Bodies, Body, BodyOutput, regressors
from dpose.bootstrap import ClusterBootstrap
from dpose.camera import default_intrinsics
from dpose.data.fingerprint import data_fingerprint
from dpose.data.loader import make_loader
from dpose.data.means import training_means
from dpose.data.shards import read_manifest
from dpose.model import checkpoint as checkpoints
from dpose.model import released
from dpose.model.inference import run_network, to_device, usable_device
from dpose.paths import data_root, shard_folder
from dpose.skeleton import PART_NAMES

MESH_METRICS = metrics.BodyErrors.names
BASELINES = ("mean_pose", "mean_pose_true_orientation")
FOCALS = ("label", "diagonal")
PER_PERSON = (  # columns of `measure` that are stored beside a record
    *(*MESH_METRICS, "orientation", "depth_l1", "depth_pixels"),
    *("mean_pose/mpjpe", "mean_pose/pa_mpjpe"),
)
DEPTH_BINS = 1 << 20  # of `measure`'s depth histogram, per unit of target
TABLE = (  # rows of `format_table`: label, metric, digits
    ("MPJPE (mm)", "mpjpe", 1),
    ("PA-MPJPE (mm)", "pa_mpjpe", 1),
    ("MVE (mm)", "mve", 1),
    ("orientation (deg)", "orientation", 1),
    ("parts mIoU", "parts_miou", 3),
    ("depth L1, person", "depth_l1", 4),
)


def evaluate(
    checkpoint: str | Path = "lite",
    data: str | Path | None = None,
    split: str = "test",
    out: str | Path | None = None,
    *,
    samples: int | None = None,
    batch_size: int = 64,
    workers: int = 1,
    device: str | None = None,
    body: str | Path | None = None,
    protocol: str | None = None,
    focal: str = "label",
    depth_rule: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluates a checkpoint on a split, returns the results and, with `out`, writes them as JSON.

    With `out` the errors of each person are written beside it, for paired comparisons (`dpose.compare`); see
    `dpose.results.read_people`.

    Args:
        checkpoint: a `.safetensors` file, a released `.ckpt`, or a shipped network, "lite" or "mini".
        data: data folder; None: $DPOSE_DATA, else the open data set.
        split: "train", "val", "test", or another one that the data have.
        samples: number of samples, taken from shards all over the split; None: all.
        device: None: CUDA if available.
        body: the body of the prediction, a name or a file as for `dpose.load_body`; None: the one that the
            checkpoint records. It must be the recorded one.
        protocol: one of `dpose.metrics.PROTOCOLS`; None: the data set's own, from its manifest, or "smplx24".
        focal: focal length that is passed to the network: "label", the label's, or "diagonal", the image
            diagonal, as in the released evaluation and for images of unknown cameras.
        depth_rule: how depth becomes a target, one of `dpose.data.targets.DEPTH_RULES`; None: the rule that
            the checkpoint was trained with. With "released" the target, and so depth_l1, may extend to the
            background.
    Returns:
        A JSON-ready dict: `metrics` (mpjpe, pa_mpjpe, mve in mm; orientation in degrees; parts_miou over the
        22 parts; depth_l1 on the persons' pixels), each with mean, 95 % interval (None if all samples are of
        one cluster) and number of samples; `baselines` likewise (the mean pose only if the data have a
        training split); `ratios` of metric to baseline; `intervals`: how intervals were made, and the number
        of clusters; `bodies` of the prediction and of the truth; `matrices` of the protocol ("open"
        or "licensed"); settings and provenance; with `out` also `people`, the file of the errors of each
        person. `results/schema.json` describes all fields.
    Raises:
        FileNotFoundError: the checkpoint, the data, the split or a licensed file is missing.
        FileExistsError: `out`, or the file beside it, is not a regular file.
        ValueError: an argument is invalid, the checkpoint does not record its body and `body` is not given,
            `body` or the data's bodies are not the recorded ones, one of prediction and labels belongs to an
            open body and the other to a licensed one, or the split has no samples.
        FloatingPointError: a prediction is not finite.
        RuntimeError: a sample of the split cannot be read.
    """
    if samples is not None and samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if focal not in FOCALS:
        raise ValueError(f"focal must be one of {', '.join(FOCALS)}, got {focal!r}")
    if out is not None:
        results.check_targets(out)
    begin = time.monotonic()
    device = usable_device(device)
    root = data_root(data)
    model, metadata = checkpoints.read(checkpoint)
    model = model.to(device)
    depth_rule = depth_rule or _trained_depth_rule(checkpoint, metadata)
    loader = make_loader(  # max_bad=0: an average over fewer samples would not be comparable
        root,
        split,
        model.config,
        batch_size,
        workers=workers,
        depth_rule=depth_rule,
        max_bad=0,
        spread=samples,
    )
    manifest = read_manifest(shard_folder(root)) or {}
    mesh = checkpoints.body_of(model, body).to(device)
    bodies = Bodies(device, given=[mesh], records=manifest.get("bodies"))
    protocol = protocol or manifest.get("protocol", "smplx24")
    errors, origins = body_errors(protocol, mesh)
    mean_pose = training_means(root, model.config) if any(shard_folder(root).glob("train-*.tar")) else None
    baseline = mean_pose and (mean_pose.pose, mean_pose.betas)
    table = measure(
        model, loader, mesh, baseline, samples, progress, errors=errors, focal=focal, bodies=bodies
    )
    made_by_us = manifest.get("generator") == "dpose.synthetic"
    result = {
        "kind": "evaluation",
        "dataset": root.name,
        "split": split,
        "protocol": protocol,
        "focal": focal,
        "depth_rule": depth_rule,
        "bodies": {
            "prediction": mesh.record,
            "truth": [bodies(name).record for name in sorted(set(table["body"]))],
        },
        "matrices": origins,
        **summarise(table),
        "baseline_samples": mean_pose.samples if mean_pose else 0,
        "checkpoint": checkpoints.record(checkpoint, model, metadata),
        "data": {
            "fingerprint": data_fingerprint(root),
            "generator": manifest["version"] if made_by_us else None,
        },
        "seconds": round(time.monotonic() - begin, 1),
        **results.provenance(),
    }
    if out is not None:
        return results.write_record(out, result, per_person(table))
    return result


@torch.inference_mode()
def measure(
    model: nn.Module,
    loader: Iterable[Batch],
    body: Body,
    mean_pose: tuple[Tensor, Tensor] | None = None,
    samples: int | None = None,
    progress: bool = False,
    errors: metrics.BodyErrors | None = None,
    focal: str = "label",
    bodies: Bodies | None = None,
) -> dict[str, Any]:
    """Errors of `model` for every sample of `loader`, computed on the body's device.

    Memory is bounded: about 0.4 kB per sample.

    Args:
        body: the prediction's body. With a vertex stride, for a quick look, mve is over fewer vertices.
        mean_pose: rotations (22, 3, 3) and betas (11,) of the constant prediction; None: no baselines.
        samples: stop after this number of samples.
        errors: how bodies are compared; None: by the protocol "smplx24".
        focal: "label" or "diagonal", as for `evaluate`.
        bodies: the bodies of the labels; None: `Bodies`, with `body` under its name.
    Returns:
        Columns of length N: `key` and `body`, the label's; mpjpe, pa_mpjpe, mve (mm), orientation (degrees),
        and the same for each of `BASELINES` as "<baseline>/<metric>"; with a part map `intersection` and
        `union` (N, 23), pixels; with a depth branch `depth_l1` (mean over the person's pixels) and
        `depth_pixels`. Also `depth_histogram`, the counts of the depth targets on these pixels, for
        `best_constant`.
    Raises:
        ValueError: there are no samples, or prediction and label belong to an open and a licensed body.
        FloatingPointError: a prediction is not finite, or too large for its errors to be finite.
    """
    device = body.faces.device
    errors = metrics.BodyErrors() if errors is None else errors
    bodies = Bodies(device, given=[body]) if bodies is None else bodies
    columns: dict[str, list[Any]] = {}
    histogram = np.zeros(DEPTH_BINS + 1, np.int64)
    count = 0
    bar = tqdm(desc="evaluate", unit="image", total=samples, disable=not progress, leave=False)
    for batch in loader:
        batch = to_device(batch, device)
        if samples is not None:
            batch = some_of(batch, slice(samples - count))
        _check_families(body, batch)
        inputs = batch if focal == "label" else {**batch, "cam_int": default_intrinsics(batch["img_size"])}
        prediction = run_network(model, inputs)
        measured = _measure_batch(prediction, batch, body, bodies, mean_pose, errors)
        _check_finite(prediction, measured, batch["key"])
        if "depth_l1" in measured:
            values = batch["depth"][batch["depth"] > 0]
            histogram += torch.bincount((values * DEPTH_BINS).long(), minlength=len(histogram)).cpu().numpy()
        for name, value in measured.items():
            columns.setdefault(name, []).append(value.cpu() if isinstance(value, Tensor) else value)
        count += len(batch["key"])
        bar.update(len(batch["key"]))
        if count == samples:
            break
    bar.close()
    if count == 0:
        raise ValueError("the split has no samples to measure")
    table = {
        name: torch.cat(parts).numpy() if isinstance(parts[0], Tensor) else list(chain.from_iterable(parts))
        for name, parts in columns.items()
    }
    return table | ({"depth_histogram": histogram} if "depth_l1" in table else {})


def summarise(table: dict[str, Any]) -> dict[str, Any]:
    """Means with intervals of `measure`'s columns: `samples`, `metrics`, `baselines`, `ratios`, `intervals`.

    Intervals are over the choice of sequences or scenes, not of single samples (`dpose.bootstrap`).
    """
    bootstrap = ClusterBootstrap(table["key"])
    names = (*MESH_METRICS, "orientation")
    baseline_names = [f"{baseline}/{name}" for baseline in BASELINES for name in names]
    values = {name: table[name] for name in (*names, *baseline_names) if name in table}
    weights = {}
    if "depth_l1" in table and table["depth_pixels"].any():
        values["depth_l1"], weights["depth_l1"] = table["depth_l1"], table["depth_pixels"]
    means = bootstrap.means(values, weights)
    scores: dict[str, Any] = {name: means[name] for name in names}
    if "union" in table:
        scores["parts_miou"] = _mean_iou(table["intersection"], table["union"], bootstrap)
    baselines: dict[str, Any] = {}
    for name in baseline_names:
        if name in means:
            baseline, _, metric = name.partition("/")
            baselines.setdefault(baseline, {})[metric] = means[name]
    ratios: dict[str, float] = {}
    if "mean_pose" in baselines:
        for name in MESH_METRICS:
            ratios[name] = round(scores[name]["mean"] / baselines["mean_pose"][name]["mean"], 4)
    if "depth_l1" in means:
        scores["depth_l1"] = means["depth_l1"]
        constant, error = best_constant(table["depth_histogram"])
        baselines["constant_depth"] = {"value": round(constant, 4), "depth_l1": {"mean": round(error, 4)}}
        ratios["depth_l1"] = round(scores["depth_l1"]["mean"] / error, 4)
    return {
        "samples": len(table["key"]),
        "metrics": scores,
        "baselines": baselines,
        "ratios": ratios,
        "intervals": bootstrap.record,
    }


def per_person(table: dict[str, Any]) -> dict[str, np.ndarray]:
    """The columns of `measure` that are stored beside a record, see `dpose.results.read_people`."""
    columns = {"key": np.array(table["key"])} | {name: table[name] for name in PER_PERSON if name in table}
    if "union" in table:
        counts = (torch.from_numpy(table[name]) for name in ("intersection", "union"))
        columns["parts_miou"] = metrics.mean_iou(*counts).float().numpy()
    return columns


def best_constant(histogram: np.ndarray) -> tuple[float, float]:
    """The constant with the smallest mean absolute error to the values of a depth histogram, and that error.

    The constant is the median. Values count as the middle of their bin, so both are exact to 2^-21, half a
    bin of `measure`'s histogram.
    """
    middles = (np.arange(len(histogram)) + 0.5) / DEPTH_BINS
    cumulative = np.cumsum(histogram)
    total = cumulative[-1]
    low, high = np.searchsorted(cumulative, [(total - 1) // 2, total // 2], side="right")
    median = float(middles[low] + middles[high]) / 2
    return median, float(np.abs(middles - median) @ histogram / total)


def format_table(result: dict[str, Any]) -> str:
    """The results as a few lines of text."""
    metric, baseline, ratio = result["metrics"], result["baselines"], result["ratios"]
    protocol = result["protocol"]
    if "open" in result["matrices"].values():
        protocol += " with the open body's matrices (not comparable with benchmarks)"
    lines = [
        f"{result['samples']} samples of {result['dataset']}/{result['split']} in "
        f"{result['intervals']['clusters']} clusters, protocol {protocol}",
        f"{'':20}{'measured':>10}  {'95 % interval':<20}{'mean pose':>10}{'+ true root':>12}{'ratio':>8}",
    ]

    for label, name, digits in TABLE:
        if name not in metric:
            continue
        score = metric[name]
        constants = [baseline.get(b, {}).get(name, {}).get("mean") for b in BASELINES]
        if name == "depth_l1":
            constants = [baseline["constant_depth"]["depth_l1"]["mean"], None]
        cells = ["" if c is None else f"{c:.{digits}f}" for c in constants]
        span = "[{:.{d}f}, {:.{d}f}]".format(*score["ci95"], d=digits) if score["ci95"] else "one cluster"
        share = f"{ratio[name]:.2f}" if name in ratio else ""
        lines.append(
            f"{label:20}{score['mean']:>10.{digits}f}  {span:<20}{cells[0]:>10}{cells[1]:>12}{share:>8}"
        )

    if "depth_l1" in metric:
        lines.append("(baseline of the depth row: the best constant for these pixels, not the mean pose)")
    return "\n".join(lines)


def _trained_depth_rule(checkpoint: str | Path, metadata: dict[str, Any]) -> str:
    """The depth rule of a checkpoint's recipe; without a recipe the released code's, or else the paper's."""
    if recipe := metadata.get("recipe"):
        return recipe.get("depth_rule", "paper")
    from_authors = "converted_from" in metadata or released.is_torch_file(checkpoints.resolve(checkpoint))
    return "released" if from_authors else "paper"


def some_of(batch: Batch, rows: slice) -> Batch:
    """These samples of a batch, as a batch."""
    return {name: value[rows] if isinstance(value, Tensor | list) else value for name, value in batch.items()}


def _check_families(body: Body, batch: Batch) -> None:
    """Raises ValueError if prediction and label are for an open and a licensed body."""
    for key, name in zip(batch["key"], batch["body"], strict=True):
        if (name in OPEN_BODIES) != (body.name in OPEN_BODIES):
            raise ValueError(
                f"the network predicts the body {body.name!r}, but the label of {key} is for {name!r}: open "
                "and licensed bodies cannot be compared; evaluate on data that are labelled for the former"
            )


def _check_finite(prediction: Prediction, measured: dict[str, Any], keys: list[str]) -> None:
    """Raises FloatingPointError if a prediction or an error computed from it is not finite."""
    values = [value for value in (*prediction, *measured.values()) if isinstance(value, Tensor)]
    finite = torch.stack([value.reshape(len(keys), -1).isfinite().all(1) for value in values]).all(0)
    if not finite.all():
        key = keys[int(finite.logical_not().nonzero()[0])]
        raise FloatingPointError(
            f"the network's prediction for sample {key} is not finite, or too large to measure: its weights "
            "are damaged, or its training diverged"
        )


def body_errors(protocol: str, body: Body) -> tuple[metrics.BodyErrors, dict[str, str]]:
    """The errors, on the body's device, and the origins of the matrices that the protocol needs."""
    rule = metrics.PROTOCOLS.get(protocol)
    if rule is None or rule.regressor is None:
        return metrics.BodyErrors(protocol), {}  # raises if the protocol is unknown
    family, path = ("open", "open") if body.name in OPEN_BODIES else ("licensed", None)
    matrices = {"regressor": regressors.joint_regressor(rule.regressor, path)}
    if body.num_vertices != matrices["regressor"].shape[1]:
        matrix = matrices["smplx_to_smpl"] = regressors.smplx_to_smpl(path)
        if matrix.shape[1] != body.num_vertices:
            raise ValueError(
                f"protocol {protocol!r}: the {family} matrix converts {matrix.shape[1]} vertices to SMPL's, "
                f"but the body {body.name!r} has {body.num_vertices}"
            )
    return metrics.BodyErrors(protocol, **matrices).to(body.faces.device), dict.fromkeys(matrices, family)


def _measure_batch(
    prediction: Prediction,
    batch: Batch,
    body: Body,
    bodies: Bodies,
    mean_pose: tuple[Tensor, Tensor] | None,
    errors: metrics.BodyErrors,
) -> dict[str, Any]:
    """The columns of `measure` for one batch."""
    truth = true_points(batch, bodies, errors)
    columns = {"key": list(batch["key"]), "body": list(batch["body"])}
    columns |= errors.per_sample(body(prediction.betas, prediction.rotmats), truth)
    columns["orientation"] = metrics.orientation_error(prediction.rotmats[:, 0], batch["pose"][:, 0])
    if mean_pose is not None:
        n, device = len(batch["betas"]), batch["pose"].device
        pose = mean_pose[0].to(device).expand(n, -1, -1, -1)
        betas = mean_pose[1].to(device).expand(n, -1)
        turned = torch.cat([batch["pose"][:, :1], pose[:, 1:]], 1)
        for name, rotmats in zip(BASELINES, (pose, turned), strict=True):
            constant = errors.per_sample(body(betas, rotmats), truth)
            columns |= {f"{name}/{metric}": value for metric, value in constant.items()}
        columns["mean_pose/orientation"] = metrics.orientation_error(pose[:, 0], batch["pose"][:, 0])

    if prediction.parts is not None:
        confusion = metrics.parts_confusion(prediction.parts.argmax(1), batch["parts"])
        columns["intersection"], columns["union"] = (x.int() for x in metrics.parts_overlap(confusion))
    if prediction.depth is not None:
        columns["depth_l1"], columns["depth_pixels"] = metrics.depth_l1(prediction.depth, batch["depth"])
    return columns


def true_points(batch: Batch, bodies: Bodies, errors: metrics.BodyErrors) -> BodyOutput:
    """The points of the labelled bodies that `errors` compares, each posed by the body that its label is for.

    Raises FileNotFoundError for a missing licensed body, and ValueError if the protocol compares SMPL-X's own
    joints ("smplx24") and a label is for a SMPL body.
    """
    names = batch["body"]
    points: list[BodyOutput] = []
    order: list[int] = []
    for name in sorted(set(names)):
        rows = [row for row, label in enumerate(names) if label == name]
        body = bodies(name)
        pose = batch["pose"][rows]
        if body.num_rotations > pose.shape[1]:  # SMPL
            if metrics.PROTOCOLS[errors.protocol].regressor is None:
                raise ValueError(
                    f"protocol {errors.protocol!r} compares SMPL-X's own joints, but the truth of "
                    f"{batch['key'][rows[0]]} is a SMPL body; choose h36m14, smpl22 or smpl24"
                )
            pose = torch.cat([pose, batch["smpl_hands"][rows]], 1)
        points.append(errors.points(body(batch["betas"][rows], pose)))
        order += rows
    if len(points) == 1:
        return points[0]
    original = torch.tensor(order, device=bodies.device).argsort()
    return BodyOutput(*(torch.cat(parts)[original] for parts in zip(*points, strict=True)))


def _mean_iou(intersection: np.ndarray, union: np.ndarray, bootstrap: ClusterBootstrap) -> dict[str, Any]:
    """Mean IoU over the 22 parts, of the pooled pixels of all samples, its interval, and the IoU per part."""
    pooled = torch.from_numpy(intersection).double().sum(0), torch.from_numpy(union).double().sum(0)
    background, *parts = metrics.parts_iou(*pooled).tolist()
    resampled = torch.from_numpy(bootstrap.sums(np.concatenate([intersection, union], axis=1)))
    return {
        "mean": round(metrics.mean_iou(*pooled).item(), 4),
        "ci95": bootstrap.interval(metrics.mean_iou(*resampled.chunk(2, dim=1)).numpy()),
        "n": len(intersection),
        "per_part": {
            name: None if math.isnan(part) else round(part, 4)
            for name, part in zip(PART_NAMES, parts, strict=True)
        },
        "background": round(background, 4),
    }
