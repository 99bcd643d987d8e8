"""Streams: the prepared samples of one consumer of a data set, in an order that can be resumed.

Steps of a worker: read members of shards, shuffle, decode, jitter, cut, augment. The augmentation of a sample
depends on (seed, epoch, key) alone, the order on (seed, epoch, number of the worker, number of workers). So a
position in the stream is a few numbers: for each source the epoch and how many samples of it were taken,
readable or not. A stream that begins at a position skips those samples without decoding them, and in local
shards without reading them. People straight from the generator (`dpose.data.generated`) are rendered in the
order of their scenes, so those of a scene stay together, and skipped without rendering.
"""

import random
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from dpose.body import DEFAULT_BODY, OPEN_BODIES
from dpose.config import ModelConfig
from dpose.data.augment import (
    MIRRORED_PARTS,
    Augment,
    change_picture,
    jitter_box,
    mirror_label,
    occlude,
    picture_transforms,
    sample_generator,
)
from dpose.data.generated import Generated
from dpose.data.sample import Sample, relative_matrix, warp_image, warp_nearest
from dpose.data.shards import BadSample, encode_depth
from dpose.data.sources import BadCount, Shards, Source, share_out, spread_over
from dpose.data.targets import person_codes

OPEN_AT_ONCE = 8  # number of shards that a training stream reads in turns


@dataclass(eq=False)
class SampleStream(IterableDataset):
    """Prepared samples for this process and worker; each `iter` is the next epoch.

    Arguments as for `dpose.data.loader.make_loader`, except
    weights: chance of each source to give the next sample, in any unit. shuffle: size of the buffer, 0 for
    samples in order. rank, world: which process of a run this is, and of how many. start: the state of a
    `dpose.data.loader.Progress` after which the next `iter` begins.
    """

    sources: list[Source]
    weights: list[float]
    config: ModelConfig
    shuffle: int = 0
    augment: Augment | None = None
    infinite: bool = False
    seed: int = 0
    epoch: int = 0
    depth_rule: str = "paper"
    max_bad: int = 0
    limit: int | None = None
    spread: int | None = None
    rank: int = 0
    world: int = 1
    start: dict | None = None

    def __post_init__(self) -> None:
        self.worker, self.workers = 0, 1
        self.transforms = picture_transforms(self.augment) if self.augment else []

    def order(self) -> str:
        """A checksum of the settings and shards on which the order of the samples depends."""
        shards = [[Path(str(piece)).name for piece in source.pieces] for source in self.sources]
        settings = self.seed, self.shuffle, self.limit, self.spread, self.weights
        counts = [source.counts for source in self.sources]
        return f"{zlib.crc32(repr((settings, shards, counts)).encode()):08x}"

    def __iter__(self) -> Iterator[dict]:
        self.worker, self.workers = worker_of_process()
        before, self.start = self.start, None
        begin, position = self.epoch, None
        if before is not None:  # a loader's first batch comes from its first worker
            self.worker = (self.worker + before["batches"]) % self.workers
            begin, position = before["begin"], before["positions"][self.worker]
        position = position or {"drawn": 0, "sources": [[begin, 0, 0] for _ in self.sources]}
        drawn, places = position["drawn"], [list(at) for at in position["sources"]]
        self.epoch = max(begin, *(epoch for epoch, *_ in places)) + 1
        common = {"worker": self.worker, "order": self.order(), "begin": begin, "before": before}
        streams = [self.samples(source, at) for source, at in zip(self.sources, places, strict=True)]
        if len(streams) == 1 or not (self.shuffle or self.infinite):
            rows = chain.from_iterable(streams)
        else:
            rows = _mixed(streams, list(self.weights), f"{self.seed} {begin} {self.place()} mixture", drawn)
        if not self.infinite:
            yield from rows
        for row in rows:
            drawn += 1
            yield row | {"position": common | {"drawn": drawn, "sources": [list(at) for at in places]}}

    def place(self) -> tuple[int, int]:
        """Number of this consumer, and of how many: the workers of all processes of a run."""
        return self.rank * self.workers + self.worker, self.world * self.workers

    def samples(self, source: Source, at: list[int]) -> Iterator[dict]:
        """This worker's share of one epoch, or of one epoch after the other.

        at: [epoch, ...], the position where to begin; updated in place.
        """
        share = self.rendered_samples if isinstance(source, Generated) else self.epoch_samples
        yield from share(source, at)
        while self.infinite:
            at[:] = [at[0] + 1, 0, 0]
            self.epoch = max(self.epoch, at[0] + 1)
            yield from share(source, at)

    def rendered_samples(self, source: Generated, at: list[int]) -> Iterator[dict]:
        """This worker's share of one epoch, `at` its position as in `Generated.people`."""
        own, consumers = self.place()
        each = None if self.spread is None else -(-self.spread // consumers)
        for sample in islice(islice(source.people(at, own, consumers), each), self.limit):
            yield self.prepare(sample, at[0])

    def epoch_samples(self, source: Shards, at: list[int]) -> Iterator[dict]:
        """This worker's share of one epoch, `at` its position: [epoch, samples taken, of these undecodable].

        If nothing in this share can be read, an endless stream reads the next share, and a finite one ends.
        If no share can be read, raises ValueError.
        """
        epoch, skip, undecoded = at
        at[1], found = 0, False
        bad = BadCount(self.max_bad, epoch, undecoded)
        own, consumers = self.place()
        for share in range(own, own + consumers):
            for item in self.members(source, epoch, share % consumers, consumers, bad, lambda: at[1] < skip):
                at[1] += 1
                if at[1] <= skip:
                    found = at[1] == skip  # a position is one of a sample that was yielded
                    continue
                try:
                    sample = source.decode(item)
                except BadSample as error:
                    at[2] += 1
                    bad.sample(str(error))
                    continue
                if share != own and not self.infinite:
                    return
                found = True
                yield self.prepare(sample, epoch)
            if found or not (self.infinite or bad.faults):
                return
        if skip:
            warnings.warn(
                f"{source.name}: fewer samples than before; going on with the next epoch", stacklevel=2
            )
            return
        raise ValueError(
            f"{source.name}: not one sample could be read; {'; '.join(bad.faults[:3]) or 'it is empty'}"
        )

    def members(
        self,
        source: Shards,
        epoch: int,
        consumer: int,
        consumers: int,
        bad: BadCount,
        lazy: Callable[[], bool],
    ) -> Iterator[dict]:
        """One consumer's share of an epoch, in order, not yet decoded."""
        order, each = list(range(len(source.pieces))), None
        if self.spread is not None:
            order, each = spread_over(source, self.spread)
        if self.shuffle:
            random.Random(f"{self.seed} {epoch}").shuffle(order)  # the same for all consumers
        shares = (islice(items, each) for items in share_out(source, order, consumer, consumers, bad, lazy))
        if not self.shuffle:
            return islice(chain.from_iterable(shares), self.limit)
        rng = random.Random(f"{self.seed} {epoch} {(consumer, consumers)}")
        return islice(_shuffled(_interleaved(shares, OPEN_AT_ONCE, rng), self.shuffle, rng), self.limit)

    def prepare(self, sample: Sample, epoch: int) -> dict:
        """Sample -> one row of a batch."""
        rng = None
        if self.augment:
            rng = sample_generator(self.seed, epoch, sample["label"]["key"])
        return prepare_sample(sample, self.config, self.augment, rng, self.transforms, self.depth_rule)


def worker_of_process() -> tuple[int, int]:
    """Number of this worker process, and of how many; (0, 1) outside a worker."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


def prepare_sample(
    sample: Sample,
    config: ModelConfig,
    augment: Augment | None = None,
    rng: np.random.Generator | None = None,
    transforms: list | None = None,
    depth_rule: str = "paper",
) -> dict:
    """Jitter, cut and augment one sample: a row of a batch, as numpy arrays.

    Its label; image (S, S, 3) uint8; parts (M, M) uint8; depth (M, M) uint16, codes as shards have them,
    and depth_scaling, see `dpose.data.targets.person_codes`; has_depth.
    """
    label = sample["label"]
    size, map_size = config.image_size, config.map_size
    center, scale, mirror = label["center"], label["scale"], False
    if augment:
        center, scale = jitter_box(label, augment, rng)
        mirror = rng.random() < augment.flip_p and label.get("body", DEFAULT_BODY) in OPEN_BODIES
    stored = sample["image"].shape[0]
    to_map = relative_matrix(label, stored, center, scale, map_size)
    image = warp_image(sample["image"], relative_matrix(label, stored, center, scale, size), size)
    parts = warp_nearest(sample["parts"], to_map, map_size)
    codes, depth_range = sample["depth"], label.get("depth_range")
    if codes is not None and codes.dtype != np.uint16:  # metres
        codes, depth_range = encode_depth(codes)
    if codes is not None and label["has_depth"]:
        codes = warp_nearest(codes, to_map, map_size)
        has_depth, codes, scaling = person_codes(codes, depth_range, depth_rule)
    else:
        has_depth, codes, scaling = False, np.zeros((map_size, map_size), np.uint16), (0.0, 0.0, 0.0, 0.0)
    label = {**label, "center": center, "scale": scale}
    if mirror:
        label = mirror_label(label)
        image, codes = np.ascontiguousarray(image[:, ::-1]), codes[:, ::-1]
        parts = MIRRORED_PARTS[parts[:, ::-1]]
    if augment:
        image = occlude(change_picture(image, transforms or [], rng), augment, rng)
    row = {"image": image, "parts": parts, "depth": codes, "depth_scaling": scaling, "depth_rule": depth_rule}
    return row | {"has_depth": has_depth, "label": label}


# --- the order ----------------------------------------------------------------------------------------------


def _interleaved(streams: Iterable[Iterator], ways: int, rng: random.Random) -> Iterator:
    """Read `ways` of the streams at once, each next item from a random one, until all are exhausted."""
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


def _mixed(streams: list[Iterator], weights: list[float], seed: str, drawn: int) -> Iterator:
    """Each next item from a stream drawn by weight, until all are exhausted; `drawn` of them came before."""
    while streams:
        (i,) = random.Random(f"{seed} {drawn}").choices(range(len(streams)), weights)
        item = next(streams[i], None)
        if item is not None:
            drawn += 1
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
