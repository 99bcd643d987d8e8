"""Records of measured numbers: where a number comes from, the errors of each person, and what is outdated.

`evaluate`, training and the benchmarks add `provenance` to the JSON that they write. The records of
`evaluate` (kind "evaluation") and `evaluate_keypoints` (kind "keypoints") follow the JSON schema in
`results/schema.json`, which describes their fields. The book's tables read only such files.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dpose.io import check_target, file_hash, replacing, write_json

LIBRARIES = ("torch", "numpy", "lightning", "smplx", "warp-lang", "albumentations", "webdataset")


def provenance(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Package version and commit, library versions, hardware and command line (default: this process's)."""
    command = list(sys.argv) if command is None else list(command)
    if command:
        command[0] = Path(command[0]).name
    return {
        "version": _version("dpose"),
        "commit": commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "hardware": hardware(),
        "command": portable(shlex.join(command)),
    }


def portable(value: Any) -> Any:
    """A JSON value in which each absolute path is cut to its last two parts: records name no machine."""
    if isinstance(value, dict):
        return {name: portable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [portable(one) for one in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"(?<![\w.~/-])(?:/[\w.+@-]+){2,}", lambda path: "/".join(path[0].split("/")[-2:]), value)


def commit() -> str | None:
    """The git commit of the package's checkout, with "+changes" if it was edited; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "dpose")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changed else "")


def hardware() -> dict[str, Any]:
    """Processor, number of cores and of torch's threads, and the names of the GPUs, if any."""
    import torch  # takes seconds, and reading results does not need it

    info: dict[str, Any] = {"cpu": _cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        info["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return info


def read_json(path: str | Path) -> Any:
    """Reads a results file. Raises FileNotFoundError or ValueError if it is missing or damaged."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results file at {path}; `dpose evaluate --out {path}` writes one")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); delete it and measure again") from error


# --- errors of each person, beside a record


def people_path(record: str | Path) -> Path:
    """The file of the per-person errors that belong to the record X.json: X.people.npz."""
    return Path(record).with_suffix(".people.npz")


def check_targets(record: str | Path) -> None:
    """Raises FileExistsError as `check_target` if the record or its per-person errors cannot be written."""
    check_target(record)
    check_target(people_path(record))


def write_record(
    path: str | Path, record: dict[str, Any], people: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Writes a record and the errors of each person; neither replaces an older file if the other fails.

    Returns the record as written: with `people`, the name and hash of the second file. Its size is about 40
    bytes per person.
    """
    target = people_path(path)
    with replacing(path) as json_file, replacing(target) as people_file:
        with open(people_file, "wb") as file:
            np.savez_compressed(file, **people)
        record = record | {"people": {"file": target.name, "sha256": file_hash(people_file)}}
        write_json(json_file, record)
    return record


def read_people(path: str | Path) -> dict[str, np.ndarray]:
    """The errors of each person that belong to a record of kind "evaluation".

    Args:
        path: the record, a JSON file.
    Returns:
        Columns of length N, in the order in which the people were measured: `key`, the person's; mpjpe,
        pa_mpjpe and mve, mm; orientation, degrees; with a part map `parts_miou`, the mean IoU over the parts
        of this person (NaN without any; the record has the IoU of all people's pixels together); with a depth
        map `depth_l1`, the mean over `depth_pixels` pixels; with a training split mean_pose/mpjpe and
        mean_pose/pa_mpjpe, mm, of its mean pose.
    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: the record has no such file, or the file has another hash than the record names.
    """
    path = Path(path)
    entry = read_json(path).get("people")
    if entry is None:
        raise ValueError(f"{path} has no errors of each person; measure again with `dpose evaluate --out`")
    people = path.with_name(Path(entry["file"]).name)
    if not people.is_file():
        raise FileNotFoundError(f"no {people}, the errors of each person that belong to {path}")
    if file_hash(people) != entry["sha256"]:
        raise ValueError(f"{people} does not belong to {path}: it has another hash; measure again")
    with np.load(people, allow_pickle=False) as file:
        return dict(file)


# --- the runs behind a record, and whether it is outdated


def lineage(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The metadata of the training runs that led to a checkpoint, from its metadata.

    The first run comes first, the checkpoint's own last; each started from the weights of the one before it.
    None of them if the checkpoint records no training, as the authors' file.
    """
    runs: list[dict[str, Any]] = []
    run: Mapping[str, Any] | None = metadata
    while run and "recipe" in run:
        runs.insert(0, dict(run))
        run = run.get("init")
    return runs


def totals(metadata: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of `runs`, `images` and `seconds` of a checkpoint's training, earlier runs included."""
    runs = lineage(metadata)
    return {"runs": len(runs)} | {name: sum(run[name] for run in runs) for name in ("images", "seconds")}


def stale(record: Mapping[str, Any], expected: Any = None) -> list[str]:
    """Why a record of kind "evaluation" or "keypoints" is not about what the repository has now.

    Compared are: a shipped network's weights, and the shipped backbone from which a training started; the
    version of the generator that made the open data, and their fingerprint if they are in the default place;
    the recipe, but for steps, batch size, rate and precision, which are options of `dpose train`.

    Args:
        expected: the `Recipe` that the training should have; None: that of the preset.
    Returns:
        Reasons; none if the record is up to date.
    """
    # These import this module, and take seconds.
    from dpose.data.fingerprint import data_fingerprint
    from dpose.data.shards import read_manifest
    from dpose.model import checkpoint
    from dpose.model.encoder import ASSETS
    from dpose.paths import data_root, shard_folder
    from dpose.synthetic import VERSION
    from dpose.training.recipe import Recipe, recipe
    from dpose.training.resume import flat

    reasons: list[str] = []
    measured = record["checkpoint"]
    name, metadata = Path(measured["name"]).stem, measured["metadata"]
    if name in checkpoint.SHIPPED and file_hash(checkpoint.resolve(name)) != measured["sha256"]:
        reasons.append(f"other weights than those of {name} today")

    runs = lineage(metadata)
    start = (runs[0].get("init") if runs else None) or {}
    if start.get("kind") == "backbone":
        asset = ASSETS / start["checkpoint"]
        if not asset.is_file() or file_hash(asset) != start["sha256"]:
            reasons.append("started from another backbone than today's")

    version = record["data"].get("generator")
    root = data_root()
    here = read_manifest(shard_folder(root)) if root.is_dir() else None
    if version is not None and version != VERSION:
        reasons.append(f"data of version {version} of the generator, now {VERSION}")
    elif here and root.name == record["dataset"] and here.get("version") == VERSION:
        if data_fingerprint(root) != record["data"].get("fingerprint"):
            reasons.append("the data have another fingerprint today")

    if runs:
        try:
            wanted = recipe(metadata["preset"]) if expected is None else expected
            used = Recipe.from_dict(metadata["recipe"])  # fields that it lacks get their defaults
        except (KeyError, TypeError, ValueError) as error:
            reasons.append(f"preset or recipe do not exist any more ({error})")
        else:
            used, wanted = flat(asdict(used)), flat(asdict(wanted))
            changed = {name for name in used if used[name] != wanted[name]}
            if changed := sorted(changed - {"steps", "batch_size", "lr", "precision"}):
                reasons.append(f"the recipe has changed: {', '.join(changed)}")
    return reasons


# --- provenance


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str:
    """Output of git, which must not lock the checkout: a commit at the same time would fail."""
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
