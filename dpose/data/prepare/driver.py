"""All of `dpose prepare`: plan, estimate, jobs in parallel, manifest."""

import errno
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
from tqdm import tqdm

import dpose
from dpose.body import Bodies
from dpose.data.frames import MAX_FAULTS, FrameSet, Skipped
from dpose.data.parts import describe_missing, parse_part
from dpose.data.prepare.job import finished, forget, frame_samples, make_shard
from dpose.data.prepare.plan import VALIDATION, Job, Settings, plan
from dpose.data.sample import MARGIN, SAMPLE_SIZE
from dpose.data.shards import encode_sample, write_manifest
from dpose.data.targets import CAMERAS
from dpose.io import remove_stale
from dpose.paths import not_empty
from dpose.processes import one_thread, run_jobs, usable_cores

SETS = {"bedlam": "bedlam", "agora": "agora", "3dpw": "threedpw", "emdb": "emdb", "rich": "rich"}  # modules
# Sets whose "train" is not divided: as in the released code, or because they have a split "validation".
WHOLE = ("agora", "3dpw")
WITH_DEPTH = ("bedlam",)
PRESETS = {
    "lite": SAMPLE_SIZE[128],
    "mini": SAMPLE_SIZE[128],
    "paper": SAMPLE_SIZE[224],
}  # side of the stored crops
PER_SHARD = 1000
TRIED = 12  # frames cut for the estimate


def estimate(jobs: list[Job], workers: int, resumed: bool = False) -> str:
    """Cuts a few frames, spread over the jobs; returns a text with the time and size of all jobs.

    Raises ValueError if none of them can be used; not if `resumed`, as then other frames could.
    """
    skipped = Skipped(limit=10**6)
    frames = [(job, index) for job in jobs for index in range(len(job.frames))]
    chosen = np.unique(np.linspace(0, len(frames) - 1, TRIED).astype(int)).tolist()
    people = size = 0
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")
        frame_samples(*frames[0], Skipped(limit=10**6))  # loads body and renderer
        started = time.perf_counter()
        for k in chosen:
            for sample in frame_samples(*frames[k], skipped):
                try:
                    members = encode_sample(sample)
                except ValueError as error:
                    skipped.fault(str(error))
                    continue
                people += 1
                size += sum(512 + len(data) + -len(data) % 512 for data in members.values())  # in a tar
        seconds = time.perf_counter() - started
    if not people and not resumed:
        reasons = [*skipped.faults, *skipped.dropped]
        raise ValueError(f"none of the frames tried can be used{f': {reasons[0]}' if reasons else ''}")
    labelled = sum(len(job.frames[index][1]) for job, index in (frames[k] for k in chosen))
    share, workers = sum(job.people for job in jobs) / labelled, min(workers, len(jobs))
    size, seconds = share * size, share * seconds / workers
    duration = f"{seconds / 60:,.1f} minutes" if seconds >= 120 else f"{seconds:,.0f} seconds"
    return (
        f"about {size / 1e6:,.1f} MB and {duration} on {workers} process{'es' * (workers != 1)}, "
        f"estimated from {labelled} people, of whom {people} can be used"
    )


def prepare_scenes(
    scenes: Iterable[FrameSet],
    out: str | os.PathLike,
    split: str,
    size: int,
    *,
    dataset: str = "",
    validation: float = 0.0,
    workers: int | None = None,
    per_shard: int = PER_SHARD,
    limit: int | None = None,
    part: str | None = None,
    parts_camera: str = "crop",
    skipped: Skipped | None = None,
    bodies: Bodies | None = None,
    dry_run: bool = False,
    progress: bool = False,
    say: Callable[[str], object] = lambda line: None,
    **about,
) -> dict | None:
    """Scenes -> `<out>/shards`; returns the manifest, or None for a dry run or while parts are missing.

    After an error the finished shards are kept, and the next call continues after them.

    Args:
        size: side of the crops in pixels.
        validation: share of the sequences that goes to the split "val" instead.
        workers: processes; None: one per core; 1: this process.
        limit: about how many people to take, of the first scenes; None: all.
        part: "K/N" makes one of N parts, see `dpose.data.parts`; every part plans all shards.
        parts_camera: view of the part labels, "crop" or "released", see `part_targets`.
        skipped: what has been left out so far, and the limit on faults.
        bodies: used in this process; workers read their own.
        say: called with the estimate, line by line.
        about: more entries for the manifest.
    Raises:
        ValueError: malformed labels, a number out of range, other data in the folder.
        TooManyFaults: see `Skipped`. FileNotFoundError: a missing body model. OSError: a full disk.
    """
    for name, value, least in (("size", size, 16), ("per_shard", per_shard, 1), ("workers", workers, 1)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if not 0 <= validation < 1:
        raise ValueError(f"validation is a share from 0 to below 1, got {validation}")
    if parts_camera not in CAMERAS:
        raise ValueError(f"unknown parts_camera {parts_camera!r}; one of {', '.join(CAMERAS)}")
    if validation and split == "val":
        raise ValueError("the split 'val' cannot be divided: validation must be 0")
    chosen = None if part is None else parse_part(part)
    skipped = Skipped(MAX_FAULTS) if skipped is None else skipped
    workers = workers or usable_cores()
    forget()
    folder = Path(out) / "shards"
    settings = Settings(dataset, split, size, MARGIN, validation, per_shard, limit, parts_camera)
    jobs, body_records = plan(scenes, settings, bodies or Bodies(), skipped, progress)
    records = finished(folder, jobs)
    share = chosen.share(jobs) if chosen else jobs
    todo = [job for job in share if job.name not in records]
    total = sum(job.people for job in share)
    say(
        f"{dataset} {split}{f', part {part}' if part else ''}: people {total}, "
        f"frames {sum(len(job.frames) for job in share)}, scenes {len({job.scene.name for job in share})}; "
        f"crops of {size} x {size} pixels in shards: {len(share)}, made already {len(share) - len(todo)}"
    )
    for rule, count in sorted(skipped.dropped.items()):
        say(f"left out: {count} people, {rule}")
    if todo:
        parent = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(parent).free / 1e6
        say(f"{estimate(todo, workers, resumed=bool(records))}; the disk has {free:,.0f} MB free")
    if dry_run:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale(folder)
    if chosen:
        chosen.write(folder, f"dpose prepare {dataset}", complete=False)
    before, earlier = list(skipped.faults), list(records.values())
    with (
        tqdm(total=total, desc="people", unit="person", disable=not progress) as bar,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # the manifest lists the faults

        def done(record: dict) -> None:
            records[Path(record["shard"]["name"]).stem] = record
            for rule, count in record["dropped"].items():
                skipped.drop(rule, count)
            for fault in record["faults"]:
                skipped.fault(fault)
            bar.set_postfix(faults=len(skipped.faults))

        for record in earlier:
            done(record)
        bar.update(total - sum(job.people for job in todo))
        task = partial(make_shard, folder, skipped.limit)
        try:
            run_jobs(task, [(job,) for job in todo], workers, done=done, tick=bar.update)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(
                f"the disk of {folder} is full ({len(records)} of {len(jobs)} shards are made): make room, "
                "and the same command continues from there"
            ) from error
        finally:
            remove_stale(folder)
        if chosen:
            chosen.write(folder, f"dpose prepare {dataset}", complete=True)
            for name, record in finished(folder, jobs).items():  # of parts that have finished meanwhile
                if name not in records:
                    done(record)
            if missing := {i % chosen.parts + 1 for i, job in enumerate(jobs) if job.name not in records}:
                say(f"{folder}: {describe_missing(missing, chosen.parts, f'dpose prepare {dataset}')}")
                return None
    rows = [records[job.name] for job in jobs]  # in this order, whichever the workers finished first
    return write_manifest(
        folder,
        [record["shard"] | {"scene": record["scene"]} for record in rows if record["shard"]["samples"]],
        **about,
        **{key: value for key, value in vars(settings).items() if key != "version"},
        version=dpose.__version__,
        bodies=body_records,
        dropped=dict(sorted(skipped.dropped.items())),
        faults=before + [fault for record in rows for fault in record["faults"]],
    )


def prepare(
    name: str,
    root: str | os.PathLike,
    out: str | os.PathLike,
    split: str | None = None,
    size: int = PRESETS["paper"],
    *,
    validation: float | None = None,
    max_faults: int = MAX_FAULTS,
    depth: bool = True,
    dry_run: bool = False,
    progress: bool = False,
    **options,
) -> dict | None:
    """The data set `name` (a key of `SETS`) below `root` -> `<out>/shards`; returns the manifest.

    Args:
        split: one of the set's; None: its first.
        validation: see `prepare_scenes`; None: a fifth of "train", but 0 for the sets in `WHOLE`.
        max_faults: number of frames or people that may be unusable.
        depth: False prepares BEDLAM without depth.
        options: more arguments of `prepare_scenes`.
    Raises:
        As `prepare_scenes`; besides FileNotFoundError if files of the set are missing, ValueError for an
        unknown set or split, or an empty `root` or `out`.
    """
    module = set_module(name)
    root, out = (Path(not_empty(path, what)).expanduser() for path, what in ((root, "root"), (out, "out")))
    split = module.SPLITS[0] if split is None else split
    if split not in module.SPLITS:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(module.SPLITS)}")
    if out.resolve() == root.resolve():  # converted labels would be taken for published ones
        raise ValueError(f"{out}: the output needs another folder than the set's own files")
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; `dpose prepare {name} --help` says what must be there")
    if not depth and name not in WITH_DEPTH:
        raise ValueError(f"{name} has no depth that could be left out")
    if validation is None:
        validation = VALIDATION if split == "train" and name not in WHOLE else 0.0
    skipped, bodies = Skipped(max_faults), Bodies()
    # Labels that have to be converted are written to `out`; a dry run keeps none.
    with tempfile.TemporaryDirectory() if dry_run else nullcontext(out) as place:
        more = {} if depth else {"depth": False}
        return prepare_scenes(
            module.scenes(root, Path(place), split, skipped, bodies, progress, **more),
            out,
            split,
            size,
            dataset=name,
            validation=validation,
            skipped=skipped,
            bodies=bodies,
            dry_run=dry_run,
            progress=progress,
            source=module.__doc__.strip().splitlines()[0],
            protocol=module.PROTOCOL,
            **options,
        )


def set_module(name: str) -> ModuleType:
    """The module of a data set. Raises ValueError for an unknown one."""
    if name not in SETS:
        raise ValueError(f"unknown data set {name!r}; one of {', '.join(SETS)}")
    return import_module(f"dpose.data.sets.{SETS[name]}")
