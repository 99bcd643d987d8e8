"""The plan of `dpose prepare`: which frames go into which shard."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dpose.body import Bodies
from dpose.data.frames import FrameSet, Skipped, load_frames
from dpose.io import file_hash

VALIDATION = 0.2  # share of the sequences of "train" that goes to "val"
VERSION = 1  # to be raised when the same frames and settings give other shards


@dataclass(frozen=True)
class Settings:
    """What decides, besides the scenes, what is in the shards; see `dpose.data.prepare.prepare_scenes`."""

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
    """One shard of a scene.

    frames: its frames in order, (imgname, rows of the scene's labels). fingerprint: hash of everything that
    the shard is made from, except the frames.
    """

    scene: FrameSet
    settings: Settings
    name: str
    frames: list[tuple[str, list[int]]]
    fingerprint: str

    @property
    def people(self) -> int:
        return sum(len(rows) for _, rows in self.frames)


def identity(settings: dict) -> dict:
    """Settings as records and fingerprints compare them: the camera "released" has its former name "paper".

    Shards that were made under that name, and their fingerprints, remain valid.
    """
    released = settings.get("parts_camera") == "released"
    return settings | {"parts_camera": "paper"} if released else settings


def split_of(scene: str, imgname: str, split: str, validation: float) -> str:
    """The split of a frame: a share `validation` of the sequences goes to "val", by a hash of their names.

    The frames of a sequence stay together. Its people may be in other sequences too, and so in both splits:
    most frames show several, so that no split by person exists.
    """
    digest = hashlib.sha256(f"{scene}/{Path(imgname).parent.as_posix()}".encode()).digest()
    return "val" if int.from_bytes(digest[:4]) < validation * 2**32 else split


def deal(
    frames: dict[str, list[int]], name: str, settings: Settings, limit: int | None
) -> dict[str, list[list[str]]]:
    """The frames of each shard of each split of a scene, whose frames' rows are `frames`.

    Shuffled by the scene's name. The shards of a split hold about equally many people, at most about
    `per_shard`.
    """
    order = sorted(frames)
    np.random.default_rng(list(name.encode())).shuffle(order)
    of_split: dict[str, list[str]] = {}
    people = 0
    for imgname in order:
        if limit is not None and people >= limit:
            break
        split = split_of(name, imgname, settings.split, settings.validation)
        of_split.setdefault(split, []).append(imgname)
        people += len(frames[imgname])
    dealt = {}
    for split in sorted(of_split):
        sizes = [len(frames[imgname]) for imgname in of_split[split]]
        total = sum(sizes)
        count = -(-total // settings.per_shard)
        before = np.cumsum([0, *sizes[:-1]])
        parts: dict[int, list[str]] = {}
        for imgname, start in zip(of_split[split], before.tolist(), strict=True):
            parts.setdefault(start * count // total, []).append(imgname)
        dealt[split] = list(parts.values())
    return dealt


def plan(
    scenes: Iterable[FrameSet], settings: Settings, bodies: Bodies, skipped: Skipped, progress: bool = False
) -> tuple[list[Job], dict[str, dict[str, str]]]:
    """All jobs, and the records of the body models that the labels name, by name.

    Reads every label file and poses its people. skipped, and what is raised: see
    `dpose.data.frames.load_frames`; besides ValueError for two scenes of one name, and if no person is
    labelled; FileNotFoundError for a missing body model.
    """
    jobs: list[Job] = []
    numbers: dict[str, int] = {}
    records: dict[str, dict[str, str]] = {}
    people = 0
    scenes = list(scenes)
    if len({scene.name for scene in scenes}) < len(scenes):
        raise ValueError("two scenes have the same name")
    for scene in tqdm(scenes, desc="labels", unit="scene", disable=not progress):
        labels, frames = load_frames(scene, bodies, skipped, exact=True)
        own = {name: bodies(name).record for name in np.unique(labels.body).tolist()}
        records |= own
        limit = None if settings.limit is None else settings.limit - people
        made_from = {"scene": scene.name, "dataset": scene.dataset, "depth": scene.depth is not None}
        made_from |= {"labels": file_hash(scene.labels), "limit": limit, "bodies": own}
        for split, parts in deal(frames, scene.name, settings, limit).items():
            for part, imgnames in enumerate(parts):
                number = numbers[split] = numbers.get(split, -1) + 1
                text = json.dumps([identity(vars(settings)), made_from, split, part], sort_keys=True)
                fingerprint = hashlib.sha256(text.encode()).hexdigest()
                dealt = [(imgname, frames[imgname]) for imgname in imgnames]
                jobs.append(Job(scene, settings, f"{split}-{number:06d}", dealt, fingerprint))
                people += jobs[-1].people
        if settings.limit is not None and people >= settings.limit:
            break
    if not jobs:
        raise ValueError(f"{settings.set}: no person is labelled in split {settings.split!r}")
    return jobs, records
