"""Measuring a network on a test split: errors of the mesh, the part map and the depth map, with baselines.

Every number comes per sample, with a bootstrap interval over the samples, and beside it what a constant
answer would score: the training set's mean pose, the same with the true orientation, and the one depth value
that errs least on the test persons' pixels. The mesh errors follow a protocol by name (`dpose.metrics`), as a
rule `smplx24`: the first 24 SMPL-X joints, both bodies aligned at the midpoint of the hips. What the others
need is read from the licensed files, or stands in for them with the open body, whose numbers compare with no
benchmark's; the results say which it was. The truth is posed by the body that each sample's labels are for:
SMPL of the person's gender on 3DPW and EMDB, SMPL-X of it on RICH, the neutral SMPL-X everywhere else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dpose import metrics, results
from dpose.batch import Batch, Prediction
from dpose.body import OPEN_BODIES, PART_NAMES, Bodies, Body, BodyOutput, load_body, regressors
from dpose.camera import default_focal
from dpose.data.loader import make_loader
from dpose.data.means import training_means
from dpose.data.shards import read_manifest
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import run_network, to_device, usable_device
from dpose.paths import data_root, shard_folder

MESH_METRICS = metrics.BodyErrors.names
BASELINES = ("mean_pose", "mean_pose_true_orientation")
FOCALS = ("label", "diagonal")
REGRESSORS = {metrics.H36M_REGRESSOR: "h36m", metrics.SMPL_REGRESSOR: "smpl"}  # as `joint_regressor` says


def evaluate(
    checkpoint: str | Path = "mini",
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
    smplx_to_smpl: Tensor | None = None,
    regressor: Tensor | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a checkpoint on a split and return (and, with `out`, write as JSON) the results.

    Args:
        checkpoint: a `.safetensors` file, or "mini" for the shipped network.
        data: data root; None: $DPOSE_DATA, else the open data set.
        split: "train", "val" or "test".
        samples: only the first so many; None: all, the last partial batch included.
        device: None: CUDA if there is one.
        body: body model file, as for `dpose.load_body`: the prediction's, and of labels for "smplx-neutral".
        protocol: one of `dpose.metrics.PROTOCOLS`; None: the data set's own, which `dpose prepare` wrote into
            its manifest, else "smplx24".
        focal: whose focal length the network is told: "label", the camera's own, or "diagonal", the image's
            diagonal, as in the released evaluation and wherever a camera is unknown (spec 11, item 29).
        smplx_to_smpl, regressor: what other protocols than "smplx24" need (`metrics.protocol_points`); None:
            those under $DPOSE_BODY_MODELS if set, else the open body's.
    Returns:
        A JSON-ready dict: `metrics` (mpjpe, pa_mpjpe, mve in mm; orientation in degrees; parts_miou over the
        22 parts; depth_l1 on the persons' pixels), each with mean, 95 % interval and number of samples;
        `baselines` likewise (the mean pose's only where the data have a training split); `ratios` of metric
        to baseline; `protocol` and, where it needs them, `matrices` ("open", "licensed" or "given"); and
        where all of it comes from.
    Raises:
        FileNotFoundError: the checkpoint, the data root, its split or a licensed file (of the truth's bodies
            or the protocol) is missing.
        ValueError: a count below 1, a device that is not there, an unknown protocol or focal, matrices that
            do not fit the body, or a split without samples.
        RuntimeError: a sample of the split cannot be read.
    """
    for name, value in (("samples", samples), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if focal not in FOCALS:
        raise ValueError(f"focal must be one of {', '.join(FOCALS)}, got {focal!r}")
    begin = time.monotonic()
    device = usable_device(device)
    root = data_root(data)
    model = checkpoints.load(checkpoint, device=device).eval()
    loader = make_loader(  # no sample may be missing: a number over fewer people is another number
        root, split, model.config, batch_size, train=False, seed=0, workers=workers, max_bad=0
    )
    body = body or checkpoints.metadata(checkpoint).get("body", {}).get("name", "open")
    mesh = load_body(body, num_betas=model.config.num_betas).to(device)
    if protocol is None:
        protocol = (read_manifest(shard_folder(root)) or {}).get("protocol", "smplx24")
    errors, origins = _body_errors(protocol, mesh, smplx_to_smpl, regressor)
    mean_pose = training_means(root, model.config) if any(shard_folder(root).glob("train-*.tar")) else None
    baseline = mean_pose and (mean_pose.pose, mean_pose.betas)
    table = measure(model, loader, mesh, baseline, samples, progress, errors=errors, focal=focal)
    result = {
        "dataset": root.name,
        "split": split,
        "protocol": protocol,
        "focal": focal,
        "matrices": origins,
        **summarise(table),
        "baseline_samples": mean_pose.samples if mean_pose else 0,
        "checkpoint": {
            "name": Path(checkpoint).name,
            "sha256": results.file_hash(checkpoints.resolve(checkpoint)),
            "config": model.config.to_dict(),
            "metadata": checkpoints.metadata(checkpoint),
        },
        "data": {"fingerprint": results.data_fingerprint(root)},
        "seconds": round(time.monotonic() - begin, 1),
        **results.provenance(),
    }
    if out is not None:
        results.write_json(out, result)
    return result


@torch.inference_mode()
def measure(
    model: nn.Module,
    loader: Iterable[Batch],
    body: nn.Module,
    mean_pose: tuple[Tensor, Tensor] | None = None,
    samples: int | None = None,
    progress: bool = False,
    bf16: bool = False,
    errors: metrics.BodyErrors | None = None,
    focal: str = "label",
) -> dict[str, Any]:
    """Errors of `model` for every sample of `loader`, computed on the body's device.

    Args:
        body: with all its vertices, or strided for a quick look (mve is then over those).
        mean_pose: rotations (22, 3, 3) and betas (11,) of the constant prediction; None: no baselines.
        samples: stop after so many.
        errors: how bodies are compared; None: by the protocol `smplx24`.
        focal: "label" or "diagonal", see `evaluate`.
    Returns:
        Columns of N: `key`; mpjpe, pa_mpjpe, mve (mm), orientation (degrees), the same for each of
        `BASELINES` as "<baseline>/<metric>"; `intersection` and `union` (N, 23) pixels; with a depth branch
        `depth_l1` (mean over the person's pixels) and `depth_pixels`. `depth_values`: the target on every
        such pixel, for `best_constant`.
    Raises:
        ValueError: no sample at all.
    """
    device = body.faces.device
    errors = metrics.BodyErrors() if errors is None else errors
    bodies = Bodies(device, given=[body])
    columns: dict[str, list[Any]] = {}
    count = 0
    bar = tqdm(desc="evaluate", unit="image", total=samples, disable=not progress, leave=False)
    for batch in loader:
        if samples is not None and len(batch["key"]) > samples - count:
            batch = {name: value[: samples - count] for name, value in batch.items()}
        batch = to_device(batch, device)
        told = batch if focal == "label" else {**batch, "cam_int": diagonal_cameras(batch)}
        prediction = run_network(model, told, bf16)
        for name, value in _measure_batch(prediction, batch, body, bodies, mean_pose, errors).items():
            columns.setdefault(name, []).append(value.cpu() if isinstance(value, Tensor) else value)
        count += len(batch["key"])
        bar.update(len(batch["key"]))
        if count == samples:
            break
    bar.close()
    if count == 0:
        raise ValueError("the split holds no sample to measure")
    return {
        name: torch.cat(parts).numpy() if isinstance(parts[0], Tensor) else sum(parts, [])
        for name, parts in columns.items()
    }


def summarise(table: dict[str, Any]) -> dict[str, Any]:
    """`measure`'s columns as means with intervals: `samples`, `metrics`, `baselines`, `ratios`."""
    scores: dict[str, Any] = {name: results.summary(table[name]) for name in (*MESH_METRICS, "orientation")}
    scores["parts_miou"] = _mean_iou(table["intersection"], table["union"])
    baselines: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    for baseline in BASELINES:
        if f"{baseline}/mpjpe" in table:
            names = (*MESH_METRICS, "orientation") if baseline == "mean_pose" else MESH_METRICS
            baselines[baseline] = {name: results.summary(table[f"{baseline}/{name}"]) for name in names}
    if "mean_pose" in baselines:
        for name in MESH_METRICS:
            ratios[name] = round(scores[name]["mean"] / baselines["mean_pose"][name]["mean"], 4)
    if "depth_l1" in table and table["depth_pixels"].any():
        scores["depth_l1"] = results.summary(table["depth_l1"], table["depth_pixels"])
        constant, error = best_constant(table["depth_values"])
        baselines["constant_depth"] = {"value": round(constant, 4), "depth_l1": {"mean": round(error, 4)}}
        ratios["depth_l1"] = round(scores["depth_l1"]["mean"] / error, 4)
    return {"samples": len(table["key"]), "metrics": scores, "baselines": baselines, "ratios": ratios}


def best_constant(values: np.ndarray) -> tuple[float, float]:
    """The constant with the smallest mean absolute error to `values`, their median, and that error."""
    median = float(np.median(values))
    return median, float(np.abs(values.astype(np.float64) - median).mean())


def format_table(result: dict[str, Any]) -> str:
    """The results as a few lines of text."""
    metric, baseline, ratio = result["metrics"], result["baselines"], result["ratios"]
    protocol = result["protocol"]
    if "open" in result["matrices"].values():
        protocol += " as the open body has it: no benchmark's number"
    lines = [f"{result['samples']} samples of {result['dataset']}/{result['split']}, protocol {protocol}"]
    lines.append(
        f"{'':20}{'measured':>10}  {'95 % interval':<20}{'mean pose':>10}{'+ true root':>12}{'ratio':>8}"
    )

    def row(label: str, name: str, unit: str, digits: int) -> None:
        low, high = metric[name]["ci95"]
        constants = [baseline.get(b, {}).get(name, {}).get("mean") for b in BASELINES]
        if name == "depth_l1":
            constants = [baseline["constant_depth"]["depth_l1"]["mean"], None]
        cells = ["" if c is None else f"{c:.{digits}f}" for c in constants]
        share = f"{ratio[name]:.2f}" if name in ratio else ""
        span = f"[{low:.{digits}f}, {high:.{digits}f}]"
        mean = f"{metric[name]['mean']:.{digits}f}"
        lines.append(f"{label + unit:20}{mean:>10}  {span:<20}{cells[0]:>10}{cells[1]:>12}{share:>8}")

    row("MPJPE", "mpjpe", " (mm)", 1)
    row("PA-MPJPE", "pa_mpjpe", " (mm)", 1)
    row("MVE", "mve", " (mm)", 1)
    row("orientation", "orientation", " (deg)", 1)
    row("parts mIoU", "parts_miou", "", 3)
    if "depth_l1" in metric:
        row("depth L1, person", "depth_l1", "", 4)
        lines.append(
            "(the depth row's constant is the best single value for these pixels, not the mean pose)"
        )
    return "\n".join(lines)


def _body_errors(
    protocol: str, body: Body, smplx_to_smpl: Tensor | None, regressor: Tensor | None
) -> tuple[metrics.BodyErrors, dict[str, str]]:
    """The errors on the body's device, and where the matrices that the protocol needs come from."""
    matrices = {"smplx_to_smpl": smplx_to_smpl, "regressor": regressor}
    needed = metrics.PROTOCOLS.get(protocol)
    if needed is None or needed.regressor is None:
        return metrics.BodyErrors(protocol), {}  # which refuses an unknown one
    origins = {name: "given" for name, matrix in matrices.items() if matrix is not None}
    found = "open" if body.name in OPEN_BODIES else "licensed"
    path = "open" if found == "open" else None
    if regressor is None:
        matrices["regressor"] = regressors.joint_regressor(REGRESSORS[needed.regressor], path)
        origins["regressor"] = found
    if smplx_to_smpl is None and body.num_vertices != matrices["regressor"].shape[1]:
        matrix = matrices["smplx_to_smpl"] = regressors.smplx_to_smpl(path)
        origins["smplx_to_smpl"] = found
        if matrix.shape[1] != body.num_vertices:
            raise ValueError(
                f"protocol {protocol!r}: the {found} matrix to SMPL's vertices takes {matrix.shape[1]}, the "
                f"body has {body.num_vertices}"
            )
    return metrics.BodyErrors(protocol, **matrices).to(body.faces.device), origins


def _measure_batch(
    prediction: Prediction,
    batch: Batch,
    body: nn.Module,
    bodies: Bodies,
    mean_pose: tuple[Tensor, Tensor] | None,
    errors: metrics.BodyErrors,
) -> dict[str, Any]:
    truth = true_points(batch, bodies, errors)
    columns = {"key": list(batch["key"])}
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

    confusion = metrics.parts_confusion(prediction.parts.argmax(1), batch["parts"])
    columns["intersection"], columns["union"] = metrics.parts_overlap(confusion)

    if prediction.depth is not None:
        columns["depth_l1"], columns["depth_pixels"] = metrics.depth_l1(prediction.depth, batch["depth"])
        columns["depth_values"] = batch["depth"][batch["depth"] > 0]  # no depth in the data: no such pixel
    return columns


def diagonal_cameras(batch: Batch) -> Tensor:
    """(B, 3, 3) the intrinsics with the image's diagonal for a focal length."""
    cam_int = batch["cam_int"].clone()
    cam_int[:, 0, 0] = cam_int[:, 1, 1] = default_focal(batch["img_size"])
    return cam_int


def true_points(batch: Batch, bodies: Bodies, errors: metrics.BodyErrors) -> BodyOutput:
    """The points of the labelled bodies that `errors` compares, each posed by the model its labels are for.

    Raises FileNotFoundError for a licensed model that is not there, ValueError where the protocol has no
    points in common for the models of one batch, as `smplx24` has none for SMPL.
    """
    names = batch["body"]
    points: list[BodyOutput] = []
    order: list[int] = []
    for name in sorted(set(names)):
        rows = [row for row, its in enumerate(names) if its == name]
        model = bodies(name)
        smpl = model.num_rotations > batch["pose"].shape[1]
        if smpl and metrics.PROTOCOLS[errors.protocol].regressor is None:
            raise ValueError(
                f"protocol {errors.protocol!r} compares SMPL-X's own joints, the truth of "
                f"{batch['key'][rows[0]]} is a SMPL body; take h36m14, smpl22 or smpl24"
            )
        pose = batch["pose"][rows]
        if smpl:
            pose = torch.cat([pose, batch["smpl_hands"][rows]], 1)
        points.append(errors.points(model(batch["betas"][rows], pose)))
        order += rows
    if len(points) == 1:
        return points[0]
    back = torch.tensor(order, device=bodies.device).argsort()
    return BodyOutput(*(torch.cat(parts)[back] for parts in zip(*points, strict=True)))


def _mean_iou(intersection: np.ndarray, union: np.ndarray) -> dict[str, Any]:
    """Mean over the 22 parts of the IoU of all samples' pooled pixels, its interval, and every part's."""
    i, u = (torch.from_numpy(pixels).double() for pixels in (intersection, union))
    background, *parts = metrics.parts_iou(i.sum(0), u.sum(0)).tolist()
    draws = torch.from_numpy(results.bootstrap_weights(len(i)))
    return {
        "mean": round(metrics.mean_iou(i.sum(0), u.sum(0)).item(), 4),
        "ci95": results.interval(metrics.mean_iou(draws @ i, draws @ u).numpy()),
        "n": len(i),
        "per_part": {
            name: None if math.isnan(part) else round(part, 4)
            for name, part in zip(PART_NAMES, parts, strict=True)
        },
        "background": round(background, 4),
    }
