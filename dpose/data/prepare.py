"""Data sets to shards: `dpose prepare SET`, in parallel, to be interrupted at any time.

A data set's module turns its files into scenes (`dpose.data.frames.Scene`). Each scene's frames, in an order
shuffled once and for all, are dealt out to jobs of about `per_shard` people, whole frames only; a job makes

    <out>/shards/<split>-NNNNNN.json   its record: what it was made from, counts, hash, what was left out
    <out>/shards/<split>-NNNNNN.tar    the shard

in this order, each whole or not at all. A job whose shard and record are there is not done again. When all
are, `manifest.json` says what there is.
"""

import argparse
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import ModuleType

import numpy as np
from tqdm import tqdm

import dpose
from dpose.body import Bodies
from dpose.data.frames import (
    MAX_FAULTS,
    NO_MASK,
    FrameSet,
    Skipped,
    check_projection,
    frames_of,
    read_frame,
    sample_key,
)
from dpose.data.labels import Labels
from dpose.data.sample import MARGIN, SAMPLE_SIZE, Sample
from dpose.data.shards import MANIFEST, encode_sample, shard_row, write_manifest, write_tar
from dpose.data.targets import CAMERAS
from dpose.io import HOST, replacing
from dpose.processes import advance, one_thread, run_jobs, usable_cores

SETS = {"bedlam": "bedlam", "agora": "agora", "3dpw": "threedpw", "emdb": "emdb", "rich": "rich"}  # modules
WHOLE = ("agora", "3dpw")  # sets that train whole: as in the paper, or with a split "validation" of their own
WITH_DEPTH = ("bedlam",)
VALIDATION = 0.2
PRESETS = {"mini": SAMPLE_SIZE[128], "paper": SAMPLE_SIZE[224]}  # side of the stored crops
PER_SHARD = 1000
MAX_HIDDEN = 0.25  # share of a scene's people whom no mask may show: more are a mistake in files or labels
LISTED = 1000  # faults that the manifest lists; it counts all of them
VERSION = 1  # raise it whenever the same frames and settings give other shards
TRIED = 12  # frames cut for the estimate
TRY_SECONDS = 30.0
SHARD_FILE = re.compile(r".+-\d{6}\.(tar|json)")
STALE = 3600.0  # seconds after which an unfinished file counts as left behind


# --- the plan: which frames go into which shard -------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What decides, besides the scenes, what is in the shards. limit, parts_camera: see `prepare_scenes`."""

    set: str
    split: str
    size: int
    margin: float
    validation: float
    per_shard: int
    limit: int | None
    parts_camera: str = "crop"
    version: int = VERSION


@dataclass(frozen=True)
class Job:
    """One shard: the `part`th of its scene's in this split. Workers read the scene's labels themselves.

    limit: people of the scene that are taken at all. fingerprint: of all that the shard is made from but the
    frames themselves.
    """

    scene: FrameSet
    settings: Settings
    split: str
    number: int
    part: int
    limit: int | None
    people: int
    frames: int
    fingerprint: str

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:06d}"


def split_of(scene: str, imgname: str, split: str, validation: float) -> str:
    """The split of a frame: a share `validation` of the sequences goes to "val", by a hash of their names."""
    digest = hashlib.sha256(f"{scene}/{Path(imgname).parent.as_posix()}".encode()).digest()
    return "val" if int.from_bytes(digest[:4]) < validation * 2**32 else split


def deal(
    rows: dict[str, list[int]], name: str, settings: Settings, limit: int | None
) -> dict[str, list[list[str]]]:
    """The frames of each shard of each split of a scene, whose frames' people are `rows`.

    Shuffled by the scene's name, people of a frame kept together. Shards of a split hold about as many people
    as each other, about `per_shard` at most.
    """
    order = sorted(rows)
    np.random.default_rng(list(name.encode())).shuffle(order)
    frames: dict[str, list[str]] = {}
    people = 0
    for imgname in order:
        if limit is not None and people >= limit:
            break
        split = split_of(name, imgname, settings.split, settings.validation)
        frames.setdefault(split, []).append(imgname)
        people += len(rows[imgname])
    dealt = {}
    for split in sorted(frames):
        sizes = [len(rows[imgname]) for imgname in frames[split]]
        total = sum(sizes)
        count = -(-total // settings.per_shard)
        before = np.cumsum([0, *sizes[:-1]])
        parts: dict[int, list[str]] = {}
        for imgname, start in zip(frames[split], before.tolist(), strict=True):
            parts.setdefault(start * count // total, []).append(imgname)
        dealt[split] = list(parts.values())
    return dealt


def plan(
    scenes: Iterable[FrameSet],
    settings: Settings,
    progress: bool = False,
    bad: Callable[[str], object] | None = None,
) -> tuple[list[Job], int, dict[str, dict[str, str]]]:
    """All jobs, how many sequences they are of, and the body models that the labels name.

    Reads every label file and poses some of its people. bad: see `Labels.load`. Raises ValueError on a
    malformed one, labels in another convention, labels of SMPL-X where only the open body is there, and
    samples of two scenes that would have the same key; FileNotFoundError where the labels' body model is
    missing.
    """
    jobs: list[Job] = []
    numbers: dict[str, int] = {}
    owners: dict[str, str] = {}
    bodies: dict[str, dict[str, str]] = {}
    sequences, people, read = set(), 0, Bodies()
    scenes = list(scenes)
    if len({scene.name for scene in scenes}) < len(scenes):
        raise ValueError("two scenes have the same name")
    for scene in tqdm(scenes, desc="labels", unit="scene", disable=not progress):
        labels = Labels.load(scene.labels, bad)
        names = np.unique(labels.body).tolist()
        bodies |= {name: read(name).record for name in names if name not in bodies}
        check_projection(labels, read, exact=True)
        limit = None if settings.limit is None else settings.limit - people
        made_from = {"scene": scene.name, "dataset": scene.dataset, "depth": scene.depth is not None}
        made_from |= {"labels": _hash(scene.labels), "limit": limit}
        made_from["bodies"] = {name: bodies[name]["hash"] for name in names}
        rows = frames_of(labels)
        for split, parts in deal(rows, scene.name, settings, limit).items():
            for part, frames in enumerate(parts):
                for imgname in frames:
                    key = sample_key(scene.name, imgname)
                    if owners.setdefault(key, scene.name) != scene.name:
                        raise ValueError(
                            f"scenes {owners[key]!r} and {scene.name!r} both have samples {key}-...: "
                            "rename one of them"
                        )
                    sequences.add((scene.name, Path(imgname).parent))
                number = numbers.get(split, 0)
                numbers[split] = number + 1
                count = sum(len(rows[imgname]) for imgname in frames)
                text = json.dumps([vars(settings), made_from, split, part], sort_keys=True)
                fingerprint = hashlib.sha256(text.encode()).hexdigest()
                jobs.append(Job(scene, settings, split, number, part, limit, count, len(frames), fingerprint))
                people += count
        if settings.limit is not None and people >= settings.limit:
            break
    if not jobs:
        raise ValueError(f"{settings.set}: nobody is labelled in split {settings.split!r}")
    return jobs, len(sequences), bodies


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- one job ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _dealt(scene: FrameSet, settings: Settings, limit: int | None):
    """A scene's labels, the rows of its frames, its shards' frames. A worker's jobs come scene by scene."""
    labels = Labels.load(scene.labels, bad=lambda reason: None)  # which `plan` has counted
    rows = frames_of(labels)
    return labels, rows, deal(rows, scene.name, settings, limit)


@lru_cache(maxsize=1)
def _bodies() -> Bodies:
    """The body models that this worker has read."""
    return Bodies()


def job_frames(job: Job) -> list[str]:
    """The frames of a job's shard, in order."""
    return _dealt(job.scene, job.settings, job.limit)[2][job.split][job.part]


def frame_samples(job: Job, imgname: str, skipped: Skipped) -> list[Sample]:
    """The samples of one frame; see `read_frame`."""
    labels, rows, _ = _dealt(job.scene, job.settings, job.limit)
    s = job.settings
    return read_frame(
        job.scene, imgname, rows[imgname], labels, s.size, _bodies(), s.margin, skipped, s.parts_camera
    )


def make_shard(folder: Path, max_faults: int, job: Job) -> dict:
    """Make the shard and, just before it takes its name, its record; returns that. Raises TooManyFaults."""
    started, skipped = time.perf_counter(), Skipped(max_faults)

    def samples() -> Iterable[Sample]:
        for imgname in job_frames(job):
            yield from frame_samples(job, imgname, skipped)
            advance(len(_dealt(job.scene, job.settings, job.limit)[1][imgname]))

    path = folder / f"{job.name}.tar"  # not there if nobody is left
    with warnings.catch_warnings(), replacing(path) as temporary:
        warnings.simplefilter("ignore")  # the record lists the faults
        count = write_tar(samples(), temporary, bad=skipped.fault)
        record = {"fingerprint": job.fingerprint, "settings": vars(job.settings), "scene": job.scene.name}
        record |= {"shard": shard_row(path.name, temporary, count)}
        record |= {"dropped": dict(skipped.dropped), "faults": skipped.faults}
        record["seconds"] = round(time.perf_counter() - started, 1)
        with replacing(path.with_suffix(".json")) as beside:
            beside.write_text(json.dumps(record) + "\n")
    if not count:
        path.unlink()
    return record


# --- what is there already ----------------------------------------------------------------------------------


def finished(folder: Path, jobs: list[Job]) -> dict[str, dict]:
    """The records of the jobs that are done, by name. Raises ValueError if other data is in the folder."""
    wanted = {job.name: job for job in jobs}
    records = {}
    other = f"{folder} holds other shards: give another --out, or delete these; "
    for path in sorted(folder.glob("*.*")):
        if not SHARD_FILE.fullmatch(path.name):
            continue
        name = path.stem
        if path.suffix == ".tar":
            if not path.with_suffix(".json").is_file():
                raise ValueError(f"{other}{path.name} has no record beside it")
            continue
        try:
            record = json.loads(path.read_text())
            settings, fingerprint, shard = record["settings"], record["fingerprint"], record["shard"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{other}{path.name} is no record of a shard ({error!r})") from error
        asked = vars(jobs[0].settings)
        changed = [f"{key} {settings.get(key)!r}" for key in asked if settings.get(key) != asked[key]]
        if changed:
            given = ", ".join(f"{key} {asked[key]!r}" for key in asked if settings.get(key) != asked[key])
            raise ValueError(f"{other}they were made with {', '.join(changed)}, asked for is {given}")
        if name not in wanted or wanted[name].fingerprint != fingerprint:
            raise ValueError(
                f"{other}{name} was made from other labels, scenes or body models ({record['scene']})"
            )
        tar = path.with_suffix(".tar")
        if not shard["samples"] or (tar.is_file() and tar.stat().st_size == shard["bytes"]):
            records[name] = record
    return records


def clean(folder: Path) -> None:
    """Remove the unfinished files of processes that are no more: of this host's, of others' the old ones."""
    for path in folder.glob(".*.part"):
        host, process = path.name.split(".")[-3:-1]
        try:
            old = time.time() - path.stat().st_mtime > STALE
            if old or host == HOST and not (process.isdigit() and _is_alive(int(process))):
                path.unlink()
        except FileNotFoundError:
            pass


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


# --- the estimate -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What the jobs that are still to be done will cost."""

    people: int
    frames: int
    tried: int  # people cut to know the rest
    bytes_each: float
    seconds_each: float  # a person and process
    workers: int

    @property
    def bytes(self) -> float:
        return self.people * self.bytes_each

    @property
    def seconds(self) -> float:
        return self.people * self.seconds_each / self.workers


def estimate(
    jobs: list[Job], workers: int, max_hidden: float = MAX_HIDDEN, resumed: bool = False
) -> Estimate:
    """Cut a few frames, spread over the jobs, for real.

    Raises ValueError for `check_hidden`, or if none of them can be used; not if `resumed`, as then others
    could, and it is the limit on faults that says when to stop.
    """
    skipped = Skipped(limit=10 * TRIED * 1000)
    spread = np.linspace(0, sum(job.people for job in jobs) - 1, TRIED).astype(int)
    ends = np.cumsum([job.people for job in jobs])
    picked: dict[int, int] = {}
    people = size = 0
    seconds, begun = 0.0, None
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")
        for k, where in enumerate(np.searchsorted(ends, spread, side="right").tolist()):
            turn = picked[where] = picked.get(where, -1) + 1
            frames = job_frames(jobs[where])
            if turn >= len(frames):
                continue
            started = time.perf_counter()
            if begun is None:  # the first time loads a body
                frame_samples(jobs[where], frames[turn], Skipped(skipped.limit))
                begun, started = started, time.perf_counter()
            members = []
            for sample in frame_samples(jobs[where], frames[turn], skipped):
                try:
                    members.append(encode_sample(sample))
                except ValueError as error:
                    skipped.fault(str(error))
            seconds += time.perf_counter() - started
            people += len(members)
            size += sum(512 + len(data) + -len(data) % 512 for data in chain(*(m.values() for m in members)))
            if k and time.perf_counter() - begun > TRY_SECONDS:
                break
    check_hidden("of those tried", skipped.dropped[NO_MASK], people, max_hidden)
    if not people and not resumed:
        reasons = [*skipped.faults, *skipped.dropped]
        raise ValueError(f"none of the frames tried can be used{f': {reasons[0]}' if reasons else ''}")
    total = sum(job.people for job in jobs)
    workers = min(workers, len(jobs))
    each = size / max(people, 1), seconds / max(people, 1)
    return Estimate(total, sum(job.frames for job in jobs), people, *each, workers)


def check_hidden(where: str, hidden: int, shown: int, share: float) -> None:
    """Raises ValueError if more people are hidden than a share of all, and than could be by chance."""
    expected = share * (hidden + shown)
    if hidden > expected + 2 * expected**0.5:
        raise ValueError(
            f"{where}: {hidden} of {hidden + shown} people would be left out, as {NO_MASK}. Masks, labels "
            f"and frames may not belong together; if so many are hidden, give --max-hidden above {share:g}"
        )


def check_disk(folder: Path, needed: float) -> int:
    """Free bytes where the folder is or will be. Raises ValueError if there are fewer than `needed`."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ValueError(
            f"about {_size(needed)} of shards do not fit: {there} has {_size(free)} free; "
            "give an --out on a larger disk, or a smaller --size"
        )
    return free


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


def _duration(seconds: float) -> str:
    unit, length = next(
        row for row in (("hours", 3600), ("minutes", 60), ("seconds", 0)) if seconds >= row[1]
    )
    return f"{seconds / max(length, 1):.1f} {unit}"


# --- all of it ----------------------------------------------------------------------------------------------


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
    max_hidden: float = MAX_HIDDEN,
    parts_camera: str = "crop",
    skipped: Skipped | None = None,
    dry_run: bool = False,
    progress: bool = False,
    say: Callable[[str], object] = lambda line: None,
    **about,
) -> dict | None:
    """Scenes -> `<out>/shards`; returns the manifest, of a dry run None.

    validation: share of the sequences that goes to split "val" instead. workers: processes (None: one a
    core; 1: this very process). limit: people, about; the first scenes' only. max_hidden: share of a scene's
    people whom no mask may show; checked on those tried for the estimate, and in the end. parts_camera:
    "crop", or "paper" for part labels as the paper draws them (`part_targets`). skipped:
    what has been left out so far, and the limit on faults. say: gets the estimate, a line at a time. about:
    more for the manifest.

    Raises ValueError on malformed labels, a number out of range, other data in the folder, a disk too small;
    TooManyFaults; FileNotFoundError on a missing body model. The shards made until then stay, and the next
    call goes on after them.
    """
    for what, value, least in (
        ("size", size, 16),
        ("per_shard", per_shard, 1),
        ("workers", workers, 1),
        ("limit", limit, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"{what} must be at least {least}, got {value}")
    if not 0 <= max_hidden <= 1:
        raise ValueError(f"max_hidden is a share from 0 to 1, got {max_hidden}")
    if not 0 <= validation < 1:
        raise ValueError(f"validation is a share from 0 to below 1, got {validation}")
    if parts_camera not in CAMERAS:
        raise ValueError(f"unknown parts_camera {parts_camera!r}; one of {', '.join(CAMERAS)}")
    if validation and split == "val":
        raise ValueError("the split 'val' cannot be cut off itself: validation must be 0")
    skipped = Skipped(MAX_FAULTS) if skipped is None else skipped
    _dealt.cache_clear()  # labels and body files may have changed since
    _bodies.cache_clear()
    folder = Path(out) / "shards"
    settings = Settings(dataset, split, size, MARGIN, validation, per_shard, limit, parts_camera)
    jobs, sequences, bodies = plan(scenes, settings, progress, skipped.fault)
    before = list(skipped.faults)
    records = finished(folder, jobs)
    todo = [job for job in jobs if job.name not in records]
    total = sum(job.people for job in jobs)
    say(
        f"{dataset} {split}: people {total}, frames {sum(job.frames for job in jobs)}, "
        f"sequences {sequences}, scenes {len({job.scene.name for job in jobs})}; "
        f"crops of {size} x {size} pixels in shards: {len(jobs)}, made already {len(records)}"
    )
    for rule, count in sorted(skipped.dropped.items()):
        say(f"left out: {count} people, {rule}")
    if todo:
        cost = estimate(todo, workers or usable_cores(), max_hidden, resumed=bool(records))
        say(
            f"about {_size(cost.bytes)} ({cost.bytes_each / 1e3:.0f} kB a person) and "
            f"{_duration(cost.seconds)} on {cost.workers} processes ({1e3 * cost.seconds_each:.0f} ms a "
            f"person), judged by {cost.tried} people cut for a try"
        )
        free = check_disk(folder, cost.bytes)
        say(f"free there: {_size(free)}")
    if dry_run:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    clean(folder)
    with (
        tqdm(total=total, desc="people", unit="person", disable=not progress) as bar,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # the manifest lists the faults

        def done(record: dict) -> None:
            records[Path(record["shard"]["name"]).stem] = record
            _add(skipped, record)
            bar.set_postfix(faults=len(skipped.faults))

        for record in list(records.values()):
            _add(skipped, record)
        bar.update(total - sum(job.people for job in todo))
        task = partial(make_shard, folder, skipped.limit)
        try:
            run_jobs(task, [(job,) for job in todo], workers or usable_cores(), done=done, tick=bar.update)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(
                f"the disk of {folder} is full ({len(records)} of {len(jobs)} shards are made): make room, "
                "and the same command goes on from there"
            ) from error
        finally:
            clean(folder)
    rows = [records[job.name] for job in jobs]  # in this order, however the workers came
    seen: dict[str, list[int]] = {}
    for record in rows:
        counts = seen.setdefault(record["scene"], [0, 0])
        counts[0] += record["dropped"].get(NO_MASK, 0)
        counts[1] += record["shard"]["samples"]
    for name, counts in seen.items():
        check_hidden(name, *counts, max_hidden)
    faults = before + [fault for record in rows for fault in record["faults"]]
    return write_manifest(
        folder,
        [record["shard"] | {"scene": record["scene"]} for record in rows if record["shard"]["samples"]],
        **about,
        **{key: value for key, value in vars(settings).items() if key != "version"},
        version=dpose.__version__,
        bodies=bodies,
        dropped=dict(sorted(skipped.dropped.items())),
        faults_total=len(faults),
        faults=faults[:LISTED],
    )


def _add(skipped: Skipped, record: dict) -> None:
    """Count what a job left out. Raises TooManyFaults."""
    for rule, count in record["dropped"].items():
        skipped.drop(rule, count)
    for fault in record["faults"]:
        skipped.fault(fault)


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
    """The data set `name` (a key of SETS) under `root` -> `<out>/shards`; returns the manifest.

    split: one of the set's (None: its first). validation: see `prepare_scenes` (None: a fifth of "train",
    but of sets that train whole). max_faults: frames or people that may be unusable. depth: False prepares
    BEDLAM without. options and what is raised: see `prepare_scenes`; besides, FileNotFoundError where the
    set's files or body models are missing.
    """
    module = set_module(name)
    root, out = Path(root).expanduser(), Path(out).expanduser()
    split = module.SPLITS[0] if split is None else split
    if split not in module.SPLITS:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(module.SPLITS)}")
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; `dpose prepare {name} --help` says what lies there")
    if not depth and name not in WITH_DEPTH:
        raise ValueError(f"{name} has no depth that could be left out")
    if max_faults < 0:
        raise ValueError(f"max_faults must not be negative, got {max_faults}")
    if validation is None:
        validation = VALIDATION if split == "train" and name not in WHOLE else 0.0
    skipped = Skipped(max_faults)
    # Labels that have to be converted are written to the folder; a dry run keeps none.
    with tempfile.TemporaryDirectory() if dry_run else nullcontext(out) as place:
        more = {} if depth else {"depth": False}
        scenes = module.scenes(root, Path(place), split, skipped, progress=progress, **more)
        return prepare_scenes(
            scenes,
            out,
            split,
            size,
            dataset=name,
            validation=validation,
            skipped=skipped,
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


# --- the command --------------------------------------------------------------------------------------------


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `dpose prepare`: a command for each set, whose help is its module's text."""
    sets = parser.add_subparsers(title="data sets", metavar="SET", dest="set", required=True)
    unset = argparse.SUPPRESS
    for name in SETS:
        module = set_module(name)
        command = sets.add_parser(
            name,
            help=module.__doc__.strip().splitlines()[0].replace("%", "%%"),
            description=module.__doc__,
            formatter_class=_Help,
        )
        add = command.add_argument
        add("--root", required=True, default=unset, help="the folder of the set's files, see above")
        add(
            "--out",
            required=True,
            default=unset,
            help="where to: shards go to OUT/shards; one split a folder",
        )
        add("--split", choices=module.SPLITS, default=module.SPLITS[0], help="which part of the set")
        side = command.add_mutually_exclusive_group()
        side.add_argument(
            "--size", type=int, help="side of a crop in pixels (default: the preset's)", default=unset
        )
        side.add_argument(
            "--preset", choices=PRESETS, default="paper",
            help="crops for the networks of this size: " + ", ".join(f"{k} {v}" for k, v in PRESETS.items()),
        )  # fmt: skip
        share = 0 if name in WHOLE else VALIDATION
        add(
            "--validation", type=float, metavar="SHARE", default=unset,
            help=f"share of the sequences that goes to split val (default: {share} of train, else 0)",
        )  # fmt: skip
        add("--workers", type=int, help="processes (default: one a core)", default=unset)
        add("--per-shard", type=int, default=PER_SHARD, metavar="PEOPLE", help="people in a shard, about")
        add(
            "--max-faults",
            type=int,
            default=MAX_FAULTS,
            metavar="N",
            help="unusable frames or people to bear",
        )
        add(
            "--max-hidden", type=float, default=MAX_HIDDEN, metavar="SHARE",
            help="share of a scene's people whom no mask may show; more are a mistake in the files",
        )  # fmt: skip
        add(
            "--limit", type=int, metavar="PEOPLE", help="only the first so many, about: to try", default=unset
        )
        add(
            "--parts-camera", choices=CAMERAS, default="crop",
            help="view of the part labels: the crop's own, or the paper's, of focal length 5000",
        )  # fmt: skip
        if name in WITH_DEPTH:
            add(
                "--without-depth",
                dest="depth",
                action="store_false",
                help="people without depth",
                default=unset,
            )
        add("--dry-run", action="store_true", help="say what it would cost, and stop")
        add("--progress", action=argparse.BooleanOptionalAction, default=True, help="show progress bars")
        add("--debug", action="store_true", default=unset, help="show the traceback of an error")


def run(args: argparse.Namespace) -> None:
    """`dpose prepare`."""
    given = {key: value for key, value in vars(args).items() if key not in ("set", "run", "debug", "preset")}
    given.setdefault("size", PRESETS[args.preset])
    manifest = prepare(args.set, **given, say=print)
    if manifest is None:
        return
    folder = Path(args.out).expanduser() / "shards"
    people = ", ".join(f"{split} {count}" for split, count in manifest["splits"].items())
    print(f"{folder}: {people} people in {len(manifest['shards'])} shards")
    for rule, count in manifest["dropped"].items():
        print(f"left out: {count} people, {rule}")
    if manifest["faults_total"]:
        print(
            f"{manifest['faults_total']} frames or people could not be used, {folder / MANIFEST} lists them; "
            f"the first: {manifest['faults'][0]}"
        )
