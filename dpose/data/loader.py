"""Loader: data sets -> batches. One stream a worker: read, shuffle, decode, jitter, cut, augment, collate.

Training streams run on for ever (a step count ends them); evaluation runs once through, unaugmented, box
scale 1, and keeps its last partial batch. In an epoch every sample of a data set comes once, to one worker of
one process (`dpose.data.sources`). Several sets are mixed sample by sample, by weights. A sample that cannot
be read is reported, skipped and counted, and past a limit the loader raises.

Everything random follows from (seed, epoch) and, for the order, from the worker's place among all: the same
numbers of processes and workers see the same batches again. What happens to a sample follows from (seed,
epoch, key) alone: the rank need not enter, as no other rank has the sample in that epoch.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

import cv2
import numpy as np
import roma
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dpose.batch import Batch
from dpose.body import DEFAULT_BODY
from dpose.config import ModelConfig
from dpose.data.augment import (
    MIRRORED_PARTS,
    Augment,
    augmentation,
    change_picture,
    jitter_box,
    mirror_label,
    occlude,
    picture_transforms,
    sample_generator,
)
from dpose.data.sample import Sample, relative_matrix, warp_image, warp_nearest
from dpose.data.shards import BadSample
from dpose.data.sources import (
    BadCount,
    Source,
    TooManyBadSamples,
    find_shards,
    find_sources,
    mixture,
    read_members,
    share_out,
    spread_over,
)
from dpose.data.targets import DEPTH_RULES, depth_target
from dpose.model.inference import IMAGENET_MEAN, IMAGENET_STD
from dpose.paths import Data

__all__ = [
    "BadCount", "SampleStream", "TooManyBadSamples", "collate", "find_shards", "make_loader",
    "prepare_sample", "read_members",
]  # fmt: skip

MAX_BAD = 20  # unreadable samples of a data set that a worker skips in an epoch before it gives up
OPEN_AT_ONCE = 8  # shards, or frames not yet cut, that a training stream reads in turns


def make_loader(
    data: Data,
    split: str,
    config: ModelConfig,
    batch_size: int,
    train: bool = False,
    seed: int = 0,
    workers: int = 0,
    *,
    mix: Sequence[float] | None = None,
    augment: Augment | None = None,
    infinite: bool | None = None,
    epoch: int = 0,
    shuffle_buffer: int = 1000,
    depth_rule: str = "paper",
    max_bad: int = MAX_BAD,
    limit: int | None = None,
    spread: int | None = None,
    pin_memory: bool = False,
) -> DataLoader:
    """A loader of `Batch` over a split of one data set, or of several mixed.

    data: a folder with `<split>-*.tar`, there or in `shards/`; a folder in BEDLAM's layout that nobody has
    cut into shards (slow: for small sets; splits "train" and "val" as `dpose prepare` makes them); the URL of
    a folder with a manifest, or a pattern of names (`https://host/train-{000000..000123}.tar`, `s3://...`);
    or a list of these. None: see `dpose.paths.data_roots`.
    mix: of a list, the chance of each set to give the next sample, in any unit; None: its number of samples.
    A set that is through, where `infinite` is not set, leaves the draw to the others.

    train: shuffled, augmented (`augment`, else what belongs to the preset), without end unless
    `infinite=False`, and then without the last partial batch of each worker. Between two epochs a worker
    empties its shuffle buffer and fills it anew, which takes it a moment. Otherwise in order, one set after
    the other, unaugmented (unless `augment` is given), once through.
    epoch: the epoch to begin with; a resumed run passes another one to see another order. max_bad: samples of
    a set that each worker may fail to read in an epoch; of a lost shard each counts where a manifest tells
    their number, else it counts as one. limit: only the first samples of each set in each
    worker's epoch (quick looks). spread: about so many samples of each set and no more, taken from the
    beginnings of shards all over the split.
    Raises FileNotFoundError or ValueError, at once, on a missing folder or split, a shard that differs from
    the manifest, or a bad argument; while iterating, TooManyBadSamples past `max_bad`, and ValueError if
    nothing could be read at all, or of a finite training loader no batch came together.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if workers < 0:
        raise ValueError(f"workers must not be negative, got {workers}")
    if depth_rule not in DEPTH_RULES:
        raise ValueError(f"unknown depth rule {depth_rule!r}; choose one of {', '.join(DEPTH_RULES)}")
    infinite = train if infinite is None else infinite
    sources = find_sources(data, split, config)
    mixed = len(sources) > 1 and (train or infinite)
    stream = SampleStream(
        sources,
        mixture(sources, mix) if mixed or mix is not None else [1.0] * len(sources),
        config,
        shuffle=shuffle_buffer if train else 0,
        augment=(augment or augmentation(config.name)) if train else augment,
        infinite=infinite,
        seed=seed,
        epoch=epoch,
        depth_rule=depth_rule,
        max_bad=max_bad,
        limit=limit,
        spread=spread,
    )
    return _Loader(
        stream,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collate,
        drop_last=train,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_quiet_worker,
        pin_memory=pin_memory,
    )


class _Loader(DataLoader):
    """A DataLoader that tells its stream, when iteration begins, which process of a run it feeds."""

    def __iter__(self):
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.dataset.rank = torch.distributed.get_rank()
            self.dataset.world = torch.distributed.get_world_size()
        return self._ended_at_errors(super().__iter__())

    def _ended_at_errors(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        came = False
        try:
            for batch in batches:
                came = True
                yield batch
            if self.drop_last and not came:
                raise ValueError(
                    f"no worker ({max(1, self.num_workers)}) has samples for a batch of {self.batch_size}; "
                    "use a smaller batch or fewer workers"
                )
        except Exception:
            if self.num_workers:  # left to the garbage collector, each would be waited for, for 5 seconds
                batches._shutdown_workers()
                self._iterator = None
            raise


def _quiet_worker(_: int) -> None:
    """One thread a worker: parallelism comes from the number of workers."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class SampleStream(IterableDataset):
    """Prepared samples for this process and worker; each `iter` is the next epoch."""

    def __init__(
        self,
        sources: list[Source],
        weights: list[float],
        config: ModelConfig,
        *,
        shuffle: int,
        augment: Augment | None,
        infinite: bool,
        seed: int,
        epoch: int,
        depth_rule: str,
        max_bad: int,
        limit: int | None,
        spread: int | None,
    ):
        self.sources, self.weights, self.config = sources, weights, config
        self.shuffle, self.augment, self.infinite = shuffle, augment, infinite
        self.seed, self.epoch, self.depth_rule = seed, epoch, depth_rule
        self.max_bad, self.limit, self.spread = max_bad, limit, spread
        self.rank, self.world = 0, 1
        self.transforms = picture_transforms(augment) if augment else []

    def __iter__(self) -> Iterator[dict]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        read = self.endless if self.infinite else self.epoch_samples
        streams = [read(source, epoch) for source in self.sources]
        if len(streams) == 1 or not (self.shuffle or self.infinite):
            return chain.from_iterable(streams)
        rng = random.Random(f"{self.seed} {epoch} {self.place()} mixture")
        return _mixed(streams, list(self.weights), rng)

    def place(self) -> tuple[int, int]:
        """Which consumer of the data this is, and of how many: the workers of all processes of a run."""
        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        return self.rank * workers + worker, self.world * workers

    def endless(self, source: Source, epoch: int) -> Iterator[dict]:
        """This worker's share of one epoch after the other."""
        while True:
            self.epoch = max(self.epoch, epoch + 1)
            sample = None
            for sample in self.epoch_samples(source, epoch):
                yield sample
            if sample is None:
                raise ValueError(f"{source.name}: not a sample for one of the workers; use fewer workers")
            epoch += 1

    def epoch_samples(self, source: Source, epoch: int) -> Iterator[dict]:
        """This worker's share of one epoch."""
        order, each = list(range(len(source.pieces))), None
        if self.spread is not None:
            order, each = spread_over(source, self.spread)
        if self.shuffle:
            random.Random(f"{self.seed} {epoch}").shuffle(order)  # the same for all workers
        bad = BadCount(self.max_bad, epoch)
        pieces = (islice(items, each) for items in share_out(source, order, *self.place(), bad))
        if self.shuffle:
            rng = random.Random(f"{self.seed} {epoch} {self.place()}")
            raw = _interleaved(pieces, OPEN_AT_ONCE, rng)
            raw = _shuffled(raw, self.shuffle, rng) if source.buffered else raw
        else:
            raw = chain.from_iterable(pieces)
        count = 0
        for item in raw:
            if self.limit is not None and count >= self.limit:
                return
            try:
                sample = source.decode(item)
            except BadSample as error:
                bad.fault(str(error))
                continue
            yield self.prepare(sample, epoch)
            count += 1
        if bad.faults and not count:
            raise ValueError(f"{source.name}: not one sample could be read; {'; '.join(bad.faults[:3])}")

    def prepare(self, sample: Sample, epoch: int) -> dict:
        """Sample -> one row of a batch: numpy arrays, image still uint8."""
        rng = None
        if self.augment:
            rng = sample_generator(self.seed, epoch, sample["label"]["key"])
        return prepare_sample(sample, self.config, self.augment, rng, self.transforms, self.depth_rule)


def prepare_sample(
    sample: Sample,
    config: ModelConfig,
    augment: Augment | None = None,
    rng: np.random.Generator | None = None,
    transforms: list | None = None,
    depth_rule: str = "paper",
) -> dict:
    """Jitter, cut and augment one sample: its label, image (S, S, 3) uint8, parts and depth (M, M)."""
    label = sample["label"]
    size, map_size = config.image_size, config.map_size
    center, scale, mirror = label["center"], label["scale"], False
    if augment:
        center, scale = jitter_box(label, augment, rng)
        mirror = rng.random() < augment.flip_p
    stored = sample["image"].shape[0]
    to_map = relative_matrix(label, stored, center, scale, map_size)
    image = warp_image(sample["image"], relative_matrix(label, stored, center, scale, size), size)
    parts = warp_nearest(sample["parts"], to_map, map_size)
    depth = np.zeros((map_size, map_size), np.float32)
    has_depth = bool(label["has_depth"]) and sample["depth"] is not None
    if has_depth:
        metres = warp_nearest(sample["depth"], to_map, map_size)
        has_depth = bool((metres > 0).any())
        depth = depth_target(metres, rule=depth_rule) if has_depth else depth
    label = {**label, "center": center, "scale": scale}
    if mirror:
        label = mirror_label(label)
        image, depth = np.ascontiguousarray(image[:, ::-1]), depth[:, ::-1]
        parts = MIRRORED_PARTS[parts[:, ::-1]]
    if augment:
        image = occlude(change_picture(image, transforms or [], rng), augment, rng)
    return {"image": image, "parts": parts, "depth": depth, "has_depth": has_depth, "label": label}


def collate(rows: list[dict]) -> Batch:
    """Rows of `prepare_sample` -> Batch. The image comes in channels-last memory."""
    labels = [row["label"] for row in rows]
    stack = lambda values: torch.from_numpy(np.asarray(values, np.float32))  # noqa: E731
    column = lambda name: stack([label[name] for label in labels])  # noqa: E731
    side = rows[0]["image"].shape[0]
    std = torch.tensor(IMAGENET_STD)
    factor, offset = (1 / (255 * std)).repeat(side), (torch.tensor(IMAGENET_MEAN) / std).repeat(side)
    image = torch.empty(len(rows), side, 3 * side)
    for line, row in zip(image, rows, strict=True):  # one at a time stays in the processor's cache
        line.copy_(torch.from_numpy(row["image"].reshape(side, 3 * side))).mul_(factor).sub_(offset)
    pose = stack([label["pose"] + [0.0] * (72 - len(label["pose"])) for label in labels]).reshape(-1, 24, 3)
    joints2d = column("joints2d")
    joints2d[..., 2].clamp_(min=0)
    return Batch(
        image=image.view(-1, side, side, 3).permute(0, 3, 1, 2),
        center=column("center"),
        scale=column("scale"),
        img_size=column("img_size"),
        cam_int=column("cam_int").reshape(-1, 3, 3),
        pose=roma.rotvec_to_rotmat(pose[:, :22]),
        betas=column("betas"),
        trans=column("trans"),
        joints2d=joints2d,
        parts=torch.from_numpy(np.stack([row["parts"] for row in rows]).astype(np.int64)),
        depth=torch.from_numpy(np.stack([row["depth"] for row in rows])[:, None]),
        has_depth=torch.tensor([row["has_depth"] for row in rows]),
        key=[label["key"] for label in labels],
        body=[label.get("body", DEFAULT_BODY) for label in labels],
        smpl_hands=roma.rotvec_to_rotmat(pose[:, 22:]),
    )


# --- the order ----------------------------------------------------------------------------------------------


def _interleaved(streams: Iterable[Iterator], ways: int, rng: random.Random) -> Iterator:
    """Read `ways` of the streams at once, each next item from a random one, until all are through."""
    streams = iter(streams)
    active = list(islice(streams, ways))
    while active:
        i = rng.randrange(len(active))
        item = next(active[i], None)
        if item is not None:
            yield item
        elif (following := next(streams, None)) is not None:
            active[i] = following
        else:
            del active[i]


def _mixed(streams: list[Iterator], weights: list[float], rng: random.Random) -> Iterator:
    """Each next item from a stream drawn by weight, until all are through."""
    while streams:
        (i,) = rng.choices(range(len(streams)), weights)
        item = next(streams[i], None)
        if item is not None:
            yield item
        else:
            del streams[i], weights[i]


def _shuffled(items: Iterator, size: int, rng: random.Random) -> Iterator:
    """Shuffle within a buffer of `size` items."""
    buffer = []
    for item in items:
        if len(buffer) < size:
            buffer.append(item)
            continue
        i = rng.randrange(size)
        yield buffer[i]
        buffer[i] = item
    rng.shuffle(buffer)
    yield from buffer
