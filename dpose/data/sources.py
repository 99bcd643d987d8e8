"""Sources: the shards of a data set's split, how they are shared out, and how they are read.

`share_out` gives every sample of an epoch to one consumer (a loader process of a rank), for any numbers of
shards and consumers: the samples are numbered shard after shard, and consumer k of n gets the k-th of n equal
consecutive ranges. Most shards then belong to one consumer alone; a shard on a border is read by both, and
each takes its part. Without a manifest the numbers of samples are unknown: all shards count as equally long,
and the samples of a shared shard are scattered over its length by a fixed rule.
"""

import math
import re
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext

from dpose.data.generated import Generated, generated
from dpose.data.parts import unfinished_parts
from dpose.data.remote import check_protocol, open_url, read_remote_manifest
from dpose.data.sample import BadSample, Sample, naming
from dpose.data.shards import decode_sample, read_manifest
from dpose.paths import Data, data_root, data_roots, is_generated, is_url, shard_folder

SPAN = 1 << 32
GOLDEN = 2654435769  # SPAN over the golden ratio: i * GOLDEN % SPAN are spread evenly for any number of i
SPREAD_SHARDS = 32  # most shards that `spread=` reads


class TooManyBadSamples(RuntimeError):
    """More samples or shards of an epoch were unreadable than the stated limit."""


class BadCount:
    """Counts what cannot be read in one epoch of one source, with a warning for each.

    Unreadable samples and damaged shards are counted apart, each up to `limit`: a damaged shard counts once,
    however many samples are lost with it. Past the limit TooManyBadSamples is raised.
    """

    def __init__(self, limit: int, epoch: int, samples: int = 0):
        self.limit, self.epoch = limit, epoch
        self.samples, self.shards = samples, 0
        self.faults: list[str] = []

    def sample(self, reason: str) -> None:
        """Count a sample."""
        self.samples += 1
        self._fault("a sample", "unreadable samples", self.samples, reason)

    def shard(self, what: str, reason: str) -> None:
        """Count a shard; what: description of the loss."""
        self.shards += 1
        self._fault(what, "damaged shards", self.shards, reason)

    def _fault(self, what: str, kind: str, count: int, reason: str) -> None:
        self.faults.append(reason)
        if count > self.limit:
            raise TooManyBadSamples(
                f"{kind} in epoch {self.epoch}: {count} (limit {self.limit}): {'; '.join(self.faults[-3:])}; "
                "repair these files, or raise max_bad"
            )
        warnings.warn(f"skipped {what} ({kind} so far: {count}): {reason}", stacklevel=3)


@dataclass(frozen=True)
class Shards:
    """A split of a data set: WebDataset tars.

    name: folder or URL, for messages. pieces: the shards. counts: number of samples of each, None without a
    manifest. bodies: {name: {"name", "hash"}} of the body models that the labels belong to, by the manifest.
    """

    name: str
    pieces: list[Path | str]
    counts: list[int] | None
    bodies: dict[str, dict] = field(default_factory=dict)

    @property
    def samples(self) -> float | None:
        """Number of samples, None without a manifest."""
        return None if self.counts is None else sum(self.counts)

    def read(self, index: int, bad: BadCount, lazy: Callable[[], bool] | None = None) -> Iterator[dict]:
        """The members of each sample of one shard, see `read_members`."""
        return read_members([self.pieces[index]], bad, self.counts and self.counts[index], lazy)

    def decode(self, members: dict) -> Sample:
        """Members of a sample -> Sample. Raises BadSample naming shard and key."""
        with naming(f"{members['__url__']}: {members['__key__']}"):
            sample = decode_sample(_loaded(members), codes=True)
            if sample["label"]["key"] != members["__key__"]:
                raise BadSample(f"the label is of sample {sample['label']['key']}")
        return sample


Source = Shards | Generated


# --- finding ------------------------------------------------------------------------------------------------


def find_sources(data: Data, split: str) -> list[Source]:
    """The split of each data set, checked without decoding.

    data: see `make_loader`. Raises FileNotFoundError or ValueError naming what is missing or wrong.
    """
    return [find_source(root, split) for root in data_roots(data)]


def find_source(root: Path | str, split: str) -> Source:
    """The split of one data set, see `find_sources`."""
    if is_generated(root):
        if split != "train":
            raise FileNotFoundError(f"{root} has no split {split}, only train; name a folder of shards")
        return generated(root)
    if not is_url(root):
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
        if unfinished := unfinished_parts(folder):
            raise FileNotFoundError(f"{folder} has no manifest yet: {unfinished}")
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
    if any((root / "labels").glob("*.npz")):
        return "there are frames and labels, but training reads shards: cut them with `dpose prepare` first"
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
    if "synthetic" in str(manifest.get("generator")) and "bodies" not in manifest:
        raise ValueError(f"{root} was made by an older dpose: make it again with `dpose synth --overwrite`")
    pieces = [f"{folder}/{row['name']}" if is_url(root) else folder / row["name"] for row in rows]
    return Shards(str(root), pieces, [row["samples"] for row in rows], manifest.get("bodies", {}))


def mixture(sources: Sequence[Source], mix: Sequence[float] | None) -> list[float]:
    """The chance of each source to give the next sample; they sum to 1. None: by numbers of samples.

    Raises ValueError for invalid weights, or if `mix` is None and a manifest is missing.
    """
    if mix is None:
        if len(sources) == 1:
            return [1.0]
        mix = [source.samples for source in sources]
        for source, samples in zip(sources, mix, strict=True):
            if samples is None or samples == math.inf:
                why = "no manifest with its number of samples" if samples is None else "no end"
                raise ValueError(f"{source.name} has {why}: give the weights (--mix)")
    if len(mix) != len(sources):
        raise ValueError(f"mix has {len(mix)} weights for {len(sources)} data sets")
    if not all(np.isfinite(weight) and weight > 0 for weight in mix):
        raise ValueError(f"mix: weights must be positive numbers, got {', '.join(map(str, mix))}")
    return [weight / sum(mix) for weight in mix]


def spread_over(source: Shards, samples: int) -> tuple[list[int], int]:
    """Shards all over the source, and how many samples to take from each, for about `samples` in total."""
    wanted = min(max(1, samples), SPREAD_SHARDS, len(source.pieces))
    order = np.unique(np.linspace(0, len(source.pieces) - 1, wanted).round().astype(int)).tolist()
    return order, -(-samples // wanted)


# --- sharing out --------------------------------------------------------------------------------------------


def share_out(
    source: Shards,
    order: Sequence[int],
    consumer: int,
    consumers: int,
    bad: BadCount,
    lazy: Callable[[], bool] | None = None,
) -> Iterator[Iterator[dict]]:
    """One consumer's share of an epoch: an iterator for each shard that has some of it, in `order`.

    order: indices of `source.pieces`. Every sample is in exactly one consumer's share.
    """
    exact = source.counts is not None
    spans = [max(1, source.counts[i]) if exact else SPAN for i in order]
    total, start = sum(spans), 0
    for i, span in zip(order, spans, strict=True):
        first, last = start * consumers // total, (start + span - 1) * consumers // total
        if first <= consumer <= last:
            items = source.read(i, bad, lazy)
            yield items if first == last else _share(items, start, span, total, consumer, consumers, exact)
        start += span


def _share(
    items: Iterator, start: int, span: int, total: int, consumer: int, consumers: int, exact: bool
) -> Iterator:
    """Those samples of a shard that belong to a consumer."""
    for i, item in enumerate(items):
        owner = (start + (min(i, span - 1) if exact else i * GOLDEN % SPAN)) * consumers // total
        if owner == consumer:
            yield item
        elif exact and owner > consumer:
            return


# --- reading ------------------------------------------------------------------------------------------------


def read_members(
    shards: Sequence[Path | str],
    bad: BadCount,
    count: int | None = None,
    lazy: Callable[[], bool] | None = None,
) -> Iterator[dict]:
    """{extension: bytes} of each sample, shard after shard, with its `__key__` and the shard's `__url__`.

    A shard that ends too early costs only its rest. count: the number of samples that each shard should have.
    lazy: while it returns True, members of local shards are not read: (offset, size) stands for their bytes.
    """
    for shard in shards:
        keys, seen, reason, remote = set(), 0, None, is_url(shard)
        try:
            with open_url(shard) if remote else open(shard, "rb") as file:
                watched = _Watched(file)
                for members in _grouped(_tar_members(watched, None if remote else lazy)):
                    seen += 1
                    if members["__key__"] in keys:
                        bad.sample(f"{shard}: the key {members['__key__']} occurs twice")
                        continue
                    keys.add(members["__key__"])
                    yield members | {"__url__": str(shard)}
                if watched.last != TAR_BLOCK:  # tarfile takes a file cut between two members for whole
                    reason = "has no end mark, cut short?"
                elif not keys:
                    reason = "holds no sample"
                elif count is not None and seen < count:
                    reason = f"holds {seen} samples, the manifest says {count}"
        except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
            reason = str(error)
        if reason is not None:
            lost = "the rest of a shard" if seen else "a shard"
            lost += f", {count - seen} samples" if count is not None and seen < count else ""
            bad.shard(lost, reason if str(shard) in reason else f"{shard}: {reason}")


TAR_BLOCK = bytes(tarfile.BLOCKSIZE)  # the end mark of a tar file
MAX_MEMBER = 1 << 28  # bytes
IGNORED = re.compile(r"__[^/]*__($|/)")  # members that WebDataset reserves for itself


def _tar_members(file: "_Watched", lazy: Callable[[], bool] | None) -> Iterator[tuple]:
    """(name, bytes or (offset, size)) of each regular file of a tar."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # tarfile keeps them all
            if not info.isreg() or IGNORED.match(info.name):
                continue
            if not 0 <= info.size <= MAX_MEMBER:
                raise tarfile.ReadError(f"{info.name[:80]} has {info.size} bytes")
            if lazy is not None and lazy():
                yield info.name, (info.offset_data, info.size)
                continue
            file.seek(info.offset_data)
            data = file.read(info.size)
            if len(data) < info.size:
                raise tarfile.ReadError("unexpected end of data")
            yield info.name, data


def _loaded(members: dict) -> dict:
    """The same members with their bytes, where `read_members` was lazy."""
    places = {name: value for name, value in members.items() if isinstance(value, tuple)}
    if not places:
        return members
    try:
        with open(members["__url__"], "rb") as file:
            for name, (offset, size) in places.items():
                file.seek(offset)
                places[name] = file.read(size)
    except OSError as error:
        raise BadSample(str(error)) from error
    return members | places


def _grouped(files: Iterator[tuple]) -> Iterator[dict]:
    """Neighbouring files of one key -> {extension: bytes}; an extension's second file begins another."""
    members = {}
    for name, data in files:
        key, extension = base_plus_ext(name)
        if key is None:
            continue
        if members and (key != members["__key__"] or extension.lower() in members):
            yield members
            members = {}
        members["__key__"] = key
        members[extension.lower()] = data
    if members:
        yield members


class _Watched:
    """A file for tarfile that may be a stream: it only goes forwards, and keeps what was read last."""

    def __init__(self, file):
        self.file, self.at, self.last = file, 0, b""

    def read(self, size: int) -> bytes:
        self.last = self.file.read(size)
        self.at += len(self.last)
        return self.last

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int) -> None:
        if offset < self.at:  # a negative size would loop forever
            raise tarfile.ReadError("a header points backwards")
        if self.file.seekable():
            self.at = self.file.seek(offset)
            return
        while self.at < offset and self.read(min(offset - self.at, 1 << 20)):
            pass
