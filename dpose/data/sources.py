"""Sources: what there is to read of a data set's split, how it is dealt out, and how it is read.

A source is a list of pieces, each read from its beginning: shards in a folder or behind a URL (`Shards`), or,
for small sets that nobody has cut into shards, the frames of a folder in BEDLAM's layout (`Frames`).

`share_out` gives every sample of an epoch to one consumer (a loader process of a rank), whatever the numbers
of pieces and consumers: the samples are thought of as one row, piece after piece, and consumer k of n gets
the k-th n-th of it. Most pieces so belong to one consumer alone; those on a border are read by both, and each
takes its part. Where no manifest says how many samples a shard has, all count as equally long, and the
samples of a shared one are scattered over its length by a fixed rule.
"""

import tarfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext, tar_file_iterator

from dpose.config import ModelConfig
from dpose.data.frames import FrameSet, Skipped, TooManyFaults, check_projection, frames_of, read_frame
from dpose.data.labels import Labels
from dpose.data.remote import check_protocol, open_url, read_remote_manifest
from dpose.data.sample import MARGIN, SAMPLE_SIZE, Sample
from dpose.data.shards import BadSample, check_sample, decode_sample, read_manifest
from dpose.paths import Data, data_root, data_roots, is_url, shard_folder

TAR_END = bytes(1024)
SPAN = 1 << 32
GOLDEN = 2654435769  # SPAN over the golden ratio: i * GOLDEN % SPAN are spread evenly, however many
SPREAD_SHARDS = 32  # how many shards a look at a whole split reads from


class TooManyBadSamples(TooManyFaults):
    """More samples of an epoch were unreadable than the stated limit."""


class BadCount(Skipped):
    """Warns of each thing that could not be read, and raises once more than `limit` samples are lost."""

    def __init__(self, limit: int, epoch: int):
        super().__init__(limit)
        self.epoch, self.lost = epoch, 0

    def fault(self, reason: str, what: str = "an unreadable sample", lost: int = 1) -> None:
        self.faults.append(reason)
        self.lost += lost
        if self.lost > self.limit:
            raise TooManyBadSamples(
                f"{self.lost} unreadable samples in epoch {self.epoch} (limit {self.limit}): "
                f"{'; '.join(self.faults[:3])}, ...; see to these files, or raise max_bad"
            )
        warnings.warn(f"skipped {what} ({self.lost} so far): {reason}", stacklevel=2)

    def drop(self, rule: str, count: int = 1) -> None:
        super().drop(rule, count)
        # always the same text, which Python so shows once
        warnings.warn(f"people are left out, {rule}; `dpose prepare` counts them", stacklevel=2)


@dataclass(frozen=True)
class Shards:
    """WebDataset tars; counts: the samples of each by the manifest, or None; bodies: of the labels, by it."""

    name: str
    pieces: list[Path | str]
    counts: list[int] | None
    bodies: tuple[str, ...] = ()
    buffered = True  # neighbours in a shard may be alike: shuffle them

    def read(self, index: int, bad: BadCount) -> Iterator[dict]:
        return read_members([self.pieces[index]], bad, self.counts and self.counts[index])

    def decode(self, members: dict) -> Sample:
        """Raises BadSample."""
        try:
            sample = decode_sample(members)
            check_sample(sample)
            if sample["label"]["key"] != members["__key__"]:
                raise BadSample(f"the label is of sample {sample['label']['key']}, not {members['__key__']}")
        except BadSample as error:
            raise BadSample(f"{members['__url__']}: {error}") from error
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise BadSample(
                f"{members['__url__']}: {members['__key__']}: malformed label ({error!r})"
            ) from error
        return sample


@dataclass(frozen=True)
class Frames:
    """Frames that are cut while reading; a piece is (scene, imgname, rows) and goes to one consumer whole."""

    name: str
    pieces: list[tuple[int, str, list[int]]]
    counts: list[int]
    scenes: list[tuple[FrameSet, Labels]]
    size: int
    buffered = False  # samples are big and the order of frames is random enough

    @property
    def bodies(self) -> tuple[str, ...]:
        return tuple(sorted({body for _, labels in self.scenes for body in labels.body.tolist()}))

    def read(self, index: int, bad: BadCount) -> Iterator[Sample]:
        where, imgname, rows = self.pieces[index]
        scene, labels = self.scenes[where]
        yield from read_frame(scene, imgname, rows, labels, self.size, skipped=bad)

    def decode(self, sample: Sample) -> Sample:
        """Raises BadSample."""
        check_sample(sample)
        return sample


Source = Shards | Frames


# --- finding ------------------------------------------------------------------------------------------------


def find_sources(data: Data, split: str, config: ModelConfig) -> list[Source]:
    """The split of each data set, checked as far as that goes without reading images.

    data: see `make_loader`. Raises FileNotFoundError or ValueError naming what is missing or wrong.
    """
    return [find_source(root, split, config) for root in data_roots(data)]


def find_source(root: Path | str, split: str, config: ModelConfig) -> Source:
    if not is_url(root):
        if not any(shard_folder(root).glob("*.tar")) and any((root / "labels").glob("*.npz")):
            return _frames(root, split, config)
        return _local_shards(root, split)
    check_protocol(root)
    if not root.endswith(".tar"):
        return _listed(root, *read_remote_manifest(root), split)
    pieces = [one for one in expand_urls(root) if one.rsplit("/", 1)[1].startswith(f"{split}-")]
    if not pieces:
        raise FileNotFoundError(f"{root} names no shard of split {split}, {split}-NNNNNN.tar")
    return Shards(root, pieces, None)


def find_shards(root: Path | str | None, split: str) -> list[Path]:
    """The split's shards in a folder, in order: those that its manifest lists, or without one all."""
    return _local_shards(data_root(root), split).pieces


def _local_shards(root: Path, split: str) -> Shards:
    """Checked against the manifest where there is one."""
    folder = shard_folder(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"no data folder at {root}; {_hint(root)}")
    manifest = read_manifest(folder)
    there = {path.name: path for path in sorted(folder.glob("*-*.tar"))}
    if manifest is None:
        if any(path.with_suffix(".json").exists() for path in there.values()):
            warnings.warn(
                f"{folder} has no manifest yet: `dpose prepare` has not finished there", stacklevel=2
            )
        rows = [{"name": name, "split": name.rsplit("-", 1)[0], "samples": None} for name in there]
        return replace(_listed(root, folder, {"shards": rows}, split), counts=None)
    found = _listed(root, folder, manifest, split)
    sizes = {row["name"]: row["bytes"] for row in manifest["shards"]}
    for path in found.pieces:
        if path.name not in there:
            raise ValueError(
                f"{folder}: the manifest lists {path.name}, which is not there; make the data again"
            )
        if path.stat().st_size != sizes[path.name]:
            raise ValueError(
                f"{path} has {path.stat().st_size} bytes, the manifest says {sizes[path.name]}: "
                "the shard is damaged or the manifest old; make the shard again"
            )
    if strays := [name for name in there if name.rsplit("-", 1)[0] == split and name not in sizes]:
        warnings.warn(
            f"{folder}: {strays[0]} is not in the manifest, and not read"
            + (f", nor are {len(strays) - 1} more" if strays[1:] else ""),
            stacklevel=2,
        )
    return found


def _hint(root: Path) -> str:
    return (
        f"make the open data with `dpose synth --root {root}`, "
        "or name another folder (--data, or $DPOSE_DATA)"
    )


def _listed(root: Path | str, folder: Path | str, manifest: dict, split: str) -> Shards:
    """The shards of a split by a manifest, in a folder or behind a URL."""
    rows = [row for row in manifest["shards"] if row["split"] == split]
    if not rows:
        there = ", ".join(sorted({row["split"] for row in manifest["shards"]})) or "none"
        hint = "" if is_url(root) else f"; {_hint(root)}"
        raise FileNotFoundError(f"no shards {split}-*.tar in {folder} (splits there: {there}){hint}")
    pieces = [f"{folder}/{row['name']}" if is_url(root) else folder / row["name"] for row in rows]
    return Shards(str(root), pieces, [row["samples"] for row in rows], tuple(manifest.get("bodies", ())))


def _frames(root: Path, split: str, config: ModelConfig) -> Frames:
    if split not in ("train", "val"):
        raise FileNotFoundError(
            f"{root} is not cut into shards, and so has the splits train and val only, not {split}"
        )
    from dpose.data.prepare import VALIDATION, split_of
    from dpose.data.sets.bedlam import label_scenes  # neither is needed to read shards

    scenes, pieces = [], []
    for scene in label_scenes(root, dataset=root.name):
        if not (scene.depth.is_dir() and scene.masks.is_dir()):
            scene = replace(scene, depth=None, masks=None)
        labels = Labels.load(scene.labels)
        check_projection(labels)
        for imgname, rows in frames_of(labels).items():
            if split_of(scene.name, imgname, "train", VALIDATION) == split:
                pieces.append((len(scenes), imgname, rows))
        scenes.append((scene, labels))
    if not pieces:
        raise FileNotFoundError(f"{root} has no sequence in its split {split}")
    size = SAMPLE_SIZE.get(config.image_size, round(MARGIN * config.image_size))
    return Frames(str(root), pieces, [len(rows) for _, _, rows in pieces], scenes, size)


def mixture(sources: Sequence[Source], mix: Sequence[float] | None) -> list[float]:
    """The chance of each source's to give the next sample, adding up to 1; None: by numbers of samples.

    Raises ValueError for weights that do not fit, or numbers that no manifest tells.
    """
    if mix is None:
        if len(sources) == 1:
            return [1.0]
        unknown = [source.name for source in sources if source.counts is None]
        if unknown:
            raise ValueError(
                f"no manifest says how many samples {unknown[0]} has: give the weights of the mixture (--mix)"
            )
        mix = [sum(source.counts) for source in sources]
    if len(mix) != len(sources):
        raise ValueError(f"mix has {len(mix)} weights for {len(sources)} data sets")
    if not all(np.isfinite(weight) and weight > 0 for weight in mix):
        raise ValueError(f"mix: weights must be positive numbers, got {', '.join(map(str, mix))}")
    return [weight / sum(mix) for weight in mix]


def spread_over(source: Source, samples: int) -> tuple[list[int], int | None]:
    """Pieces all over the source, and how many samples to take of each, to get about `samples` in all."""
    if isinstance(source, Frames):
        wanted, each = round(samples * len(source.pieces) / sum(source.counts)), None
    else:
        wanted = min(samples, SPREAD_SHARDS)
        each = -(-samples // min(wanted, len(source.pieces)))
    wanted = min(max(1, wanted), len(source.pieces))
    return np.unique(np.linspace(0, len(source.pieces) - 1, wanted).round().astype(int)).tolist(), each


# --- dealing out --------------------------------------------------------------------------------------------


def share_out(source: Source, order: Sequence[int], consumer: int, consumers: int, bad: BadCount):
    """One consumer's share of an epoch: an iterator for each piece that has some of it, in `order`.

    order: indices of `source.pieces`. Every sample is in exactly one consumer's share.
    """
    exact = source.counts is not None
    spans = [max(1, source.counts[i]) if exact else SPAN for i in order]
    total, start = sum(spans), 0
    for i, span in zip(order, spans, strict=True):
        owner = lambda at: at * consumers // total  # noqa: E731
        first, last = owner(start), owner(start + span - 1)
        if isinstance(source, Frames):
            last = first
        if first <= consumer <= last:
            items = source.read(i, bad)
            yield items if first == last else _share(items, start, span, owner, consumer, exact)
        start += span


def _share(items: Iterator, start: int, span: int, owner, consumer: int, exact: bool) -> Iterator:
    """Those of a piece's samples that belong to a consumer."""
    for i, item in enumerate(items):
        whose = owner(start + (min(i, span - 1) if exact else i * GOLDEN % SPAN))
        if whose == consumer:
            yield item
        elif exact and whose > consumer:
            return


# --- reading ------------------------------------------------------------------------------------------------


def read_members(shards: Sequence[Path | str], bad: BadCount, count: int | None = None) -> Iterator[dict]:
    """Raw members of every sample, shard after shard; a shard that ends too early costs its rest only.

    count: the samples that each shard should have, so that those lost with it count one by one; None: as one.
    """
    for shard in shards:
        keys, seen, reason = set(), 0, None
        try:
            with open_url(shard) if is_url(shard) else open(shard, "rb") as file:
                watched = _Watched(file)
                for members in _grouped(tar_file_iterator(watched)):
                    seen += 1
                    if members["__key__"] in keys:
                        bad.fault(f"{shard}: the key {members['__key__']} occurs twice")
                        continue
                    keys.add(members["__key__"])
                    yield members | {"__url__": str(shard)}
                if not watched.ended():  # cut between two members, tarfile takes it for whole
                    reason = "has no end mark, cut short?"
                elif not keys:
                    reason = "holds no sample"
        except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
            reason = str(error).split(" @ <")[0]
        if reason is not None:
            lost = max(1, (count or 0) - seen)
            what = f"{'the rest of a' if seen else 'a'} shard" + (f", {lost} samples" if count else "")
            bad.fault(reason if str(shard) in reason else f"{shard}: {reason}", what, lost)


def _grouped(files: Iterator[dict]) -> Iterator[dict]:
    """Neighbouring files of one key -> {extension: bytes}; an extension's second file begins another."""
    members = {}
    for file in files:
        key, extension = base_plus_ext(file["fname"])
        if key is None:
            continue
        if members and (key != members["__key__"] or extension.lower() in members):
            yield members
            members = {}
        members["__key__"] = key
        members[extension.lower()] = file["data"]
    if members:
        yield members


class _Watched:
    """A file that knows whether it ended as a tar does."""

    def __init__(self, file):
        self.file, self.tail = file, b""

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.tail = (self.tail + data)[-len(TAR_END) :]
        return data

    def ended(self) -> bool:
        while self.read(1 << 16):
            pass
        return self.tail == TAR_END
