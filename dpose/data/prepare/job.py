"""One job of `dpose prepare`: a shard and its record; and which jobs are done already."""

import json
import re
import time
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from dpose.body import Bodies
from dpose.data.frames import FrameSet, Skipped, read_frame
from dpose.data.labels import Labels
from dpose.data.prepare.plan import Job, identity
from dpose.data.sample import Sample
from dpose.data.shards import shard_row, write_tar
from dpose.io import replacing, write_json
from dpose.processes import advance

SHARD_FILE = re.compile(r".+-\d{6}\.(tar|json)")


@lru_cache(maxsize=1)
def _labels(scene: FrameSet) -> Labels:
    """A scene's labels; a worker's jobs come scene by scene."""
    return Labels.load(scene.labels, bad=lambda reason: None)  # which `plan` has counted


@lru_cache(maxsize=1)
def _bodies() -> Bodies:
    """The body models that this worker has read."""
    return Bodies()


def forget() -> None:
    """Drop what jobs of this process have read: files may have changed since."""
    _labels.cache_clear()
    _bodies.cache_clear()


def frame_samples(job: Job, index: int, skipped: Skipped) -> list[Sample]:
    """The samples of one frame of a job; see `read_frame`."""
    imgname, rows = job.frames[index]
    s = job.settings
    labels, bodies = _labels(job.scene), _bodies()
    return read_frame(job.scene, imgname, rows, labels, s.size, bodies, s.margin, skipped, s.parts_camera)


def make_shard(folder: Path, max_faults: int, job: Job) -> dict:
    """Makes a shard: writes the record, then renames the shard; returns the record.

    If no person is left, there is no shard. Raises TooManyFaults.
    """
    started, skipped = time.perf_counter(), Skipped(max_faults)

    def samples() -> Iterator[Sample]:
        for index, (_, rows) in enumerate(job.frames):
            yield from frame_samples(job, index, skipped)
            advance(len(rows))

    path = folder / f"{job.name}.tar"
    with warnings.catch_warnings(), replacing(path) as temporary:
        warnings.simplefilter("ignore")  # the record lists the faults
        count = write_tar(samples(), temporary, bad=skipped.fault)
        record = {"fingerprint": job.fingerprint, "settings": vars(job.settings), "scene": job.scene.name}
        record |= {"shard": shard_row(path.name, temporary, count)}
        record |= {"dropped": dict(skipped.dropped), "faults": skipped.faults}
        record["seconds"] = round(time.perf_counter() - started, 1)
        write_json(path.with_suffix(".json"), record, indent=None)
    if not count:
        path.unlink()
    return record


def finished(folder: Path, jobs: list[Job]) -> dict[str, dict]:
    """The records of the jobs that are done, by name. Raises ValueError if other data is in the folder."""
    wanted, settings = {job.name: job for job in jobs}, vars(jobs[0].settings)
    records = {}
    other = f"{folder} holds other shards: give another --out, or delete these; "
    for path in sorted(folder.glob("*.*")):
        if not SHARD_FILE.fullmatch(path.name):
            continue
        if path.suffix == ".tar":
            if not path.with_suffix(".json").is_file():
                raise ValueError(f"{other}{path.name} has no record beside it")
            continue
        try:
            record = json.loads(path.read_text())
            made_with, fingerprint, shard = record["settings"], record["fingerprint"], record["shard"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{other}{path.name} is no record of a shard ({error!r})") from error
        before, after = identity(made_with), identity(settings)
        if changed := [key for key in settings if before.get(key) != after[key]]:
            was, now = (
                ", ".join(f"{key} {of.get(key)!r}" for key in changed) for of in (made_with, settings)
            )
            raise ValueError(f"{other}they were made with {was}, asked for is {now}")
        if path.stem not in wanted or wanted[path.stem].fingerprint != fingerprint:
            raise ValueError(
                f"{other}{path.stem} was made from other labels, scenes or body models ({record['scene']})"
            )
        tar = path.with_suffix(".tar")
        if not shard["samples"] or (tar.is_file() and tar.stat().st_size == shard["bytes"]):
            records[path.stem] = record
    return records
