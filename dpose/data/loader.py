"""Loader: shards -> batches. One stream a worker: read, shuffle, decode, jitter, cut, augment, collate.

Training streams run on for ever (a step count ends them); evaluation runs once through, unaugmented, box
scale 1, and keeps its last partial batch. Shards are dealt out to processes and workers, so that nobody sees
a sample twice in an epoch. A sample that cannot be read is reported, skipped and counted, and past a limit
the loader raises.
"""

import os
import random
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import roma
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.tariterators import group_by_keys, tar_file_expander

from dpose.batch import Batch
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
from dpose.data.depth import RULES, depth_target
from dpose.data.sample import Sample, relative_matrix, warp_image, warp_nearest
from dpose.data.shards import BadSample, decode_sample, read_manifest
from dpose.paths import data_root, shard_folder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TAR_END = bytes(1024)
MAX_BAD = 20  # unreadable samples or shards a worker skips in an epoch before it gives up


class TooManyBadSamples(RuntimeError):
    """More samples of an epoch were unreadable than the stated limit."""


def make_loader(
    root: str | os.PathLike | None,
    split: str,
    config: ModelConfig,
    batch_size: int,
    train: bool = False,
    seed: int = 0,
    workers: int = 0,
    *,
    augment: Augment | None = None,
    infinite: bool | None = None,
    epoch: int = 0,
    shuffle_buffer: int = 1000,
    depth_rule: str = "paper",
    max_bad: int = MAX_BAD,
    limit: int | None = None,
    pin_memory: bool = False,
) -> DataLoader:
    """A loader of `Batch` over `<root>/shards/<split>-*.tar` (root None: see `dpose.paths.data_root`).

    train: shuffled, augmented (`augment`, else what belongs to the preset), without end unless
    `infinite=False`, and then without the last partial batch. Otherwise in order, unaugmented (unless
    `augment` is given), once through.
    epoch: the epoch to begin with; a resumed run passes another one to see
    another order. limit: only the first samples of each worker's epoch (quick looks). Raises
    FileNotFoundError or ValueError, at once, on a missing folder or split, a shard that differs from the
    manifest, or a bad argument.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if workers < 0:
        raise ValueError(f"workers must not be negative, got {workers}")
    if depth_rule not in RULES:
        raise ValueError(f"unknown depth rule {depth_rule!r}; choose one of {', '.join(RULES)}")
    infinite = train if infinite is None else infinite
    stream = SampleStream(
        find_shards(root, split),
        config,
        shuffle=shuffle_buffer if train else 0,
        augment=(augment or augmentation(config.name)) if train else augment,
        infinite=infinite,
        seed=seed,
        epoch=epoch,
        depth_rule=depth_rule,
        max_bad=max_bad,
        limit=limit,
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


def find_shards(root: str | os.PathLike | None, split: str) -> list[Path]:
    """The split's shards in order, checked against the manifest where there is one."""
    root = data_root(root)
    folder = shard_folder(root)
    hint = (
        f"make the open data with `dpose synth --root {root}`, "
        "or name another folder (--data, or $DPOSE_DATA)"
    )
    if not folder.is_dir():
        raise FileNotFoundError(f"no data folder at {root}; {hint}")
    shards = sorted(folder.glob(f"{split}-*.tar"))
    if not shards:
        there = sorted({path.name.rsplit("-", 1)[0] for path in folder.glob("*-*.tar")})
        raise FileNotFoundError(
            f"no shards {split}-*.tar in {folder} (splits there: {', '.join(there) or 'none'}); {hint}"
        )
    sizes = {path.name: path.stat().st_size for path in shards}
    for row in (read_manifest(folder) or {"shards": []})["shards"]:
        if row["split"] != split:
            continue
        if row["name"] not in sizes:
            raise ValueError(
                f"{folder}: the manifest lists {row['name']}, which is not there; make the data again"
            )
        if sizes[row["name"]] != row["bytes"]:
            raise ValueError(
                f"{folder / row['name']} has {sizes[row['name']]} bytes, the manifest says {row['bytes']}: "
                "the shard is damaged or the manifest old; make the shard again"
            )
    return shards


class _Loader(DataLoader):
    """A DataLoader that tells its stream, when iteration begins, which process of a run it feeds."""

    def __iter__(self):
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.dataset.rank = torch.distributed.get_rank()
            self.dataset.world = torch.distributed.get_world_size()
        return super().__iter__()


def _quiet_worker(_: int) -> None:
    """One thread a worker: parallelism comes from the number of workers."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class SampleStream(IterableDataset):
    """Prepared samples for this process and worker; each `iter` is the next epoch."""

    def __init__(
        self,
        shards: list[Path],
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
    ):
        self.shards, self.config, self.shuffle, self.augment = shards, config, shuffle, augment
        self.infinite, self.seed, self.epoch, self.depth_rule = infinite, seed, epoch, depth_rule
        self.max_bad, self.limit = max_bad, limit
        self.rank, self.world = 0, 1
        self.transforms = picture_transforms(augment) if augment else []

    def __iter__(self) -> Iterator[dict]:
        while True:
            epoch, self.epoch = self.epoch, self.epoch + 1
            count = 0
            for sample in self.epoch_samples(epoch):
                count += 1
                yield sample
            if not self.infinite:
                return
            if not count:
                raise ValueError(
                    f"{self.shards[0].parent}: not a sample for one of the workers; use fewer workers"
                )

    def epoch_samples(self, epoch: int) -> Iterator[dict]:
        """This worker's share of one epoch."""
        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        mine, all_ = self.rank * workers + worker, self.world * workers
        shards, order = list(self.shards), random.Random(f"{self.seed} {epoch}")
        if self.shuffle:
            order.shuffle(shards)
        bad = BadCount(self.max_bad, epoch)
        by_sample = len(shards) < all_  # too few shards to deal out: everyone reads all, and keeps every n-th
        raw = read_members(shards if by_sample else shards[mine::all_], bad)
        if by_sample:
            raw = (members for i, members in enumerate(raw) if i % all_ == mine)
        if self.shuffle:
            raw = _shuffled(raw, self.shuffle, random.Random(f"{self.seed} {epoch} {mine}"))
        count = 0
        for members in raw:
            if self.limit is not None and count >= self.limit:
                return
            try:
                sample = decode_sample(members)
            except BadSample as error:
                bad.add(f"{members.get('__url__', '')}: {error}")
                continue
            yield self.prepare(sample, epoch)
            count += 1

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
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    image = torch.from_numpy(np.stack([row["image"] for row in rows])).to(torch.float32)  # (B, S, S, 3)
    image = image.mul_(1 / (255 * std)).sub_(mean / std).permute(0, 3, 1, 2)
    joints2d = column("joints2d")
    joints2d[..., 2].clamp_(min=0)
    return Batch(
        image=image,
        center=column("center"),
        scale=column("scale"),
        img_size=column("img_size"),
        cam_int=column("cam_int").reshape(-1, 3, 3),
        pose=roma.rotvec_to_rotmat(column("pose").reshape(-1, 22, 3)),
        betas=column("betas"),
        trans=column("trans"),
        joints2d=joints2d,
        parts=torch.from_numpy(np.stack([row["parts"] for row in rows]).astype(np.int64)),
        depth=torch.from_numpy(np.stack([row["depth"] for row in rows])[:, None]),
        has_depth=torch.tensor([row["has_depth"] for row in rows]),
        key=[label["key"] for label in labels],
    )


class BadCount:
    """Warns of each thing that could not be read, and raises once there are more than `limit`."""

    def __init__(self, limit: int, epoch: int):
        self.limit, self.epoch, self.reasons = limit, epoch, []

    def add(self, reason: str) -> None:
        self.reasons.append(reason)
        if len(self.reasons) > self.limit:
            first = "; ".join(self.reasons[:3])
            raise TooManyBadSamples(
                f"{len(self.reasons)} unreadable samples in epoch {self.epoch} (limit {self.limit}): "
                f"{first}, ...; make these shards again, or raise max_bad"
            )
        warnings.warn(f"skipped an unreadable sample ({len(self.reasons)} so far): {reason}", stacklevel=2)


def read_members(shards: list[Path], bad: BadCount) -> Iterator[dict]:
    """Raw members of every sample, shard after shard; a shard that ends too early costs its rest only."""
    for shard in shards:
        try:
            with open(shard, "rb") as file:
                file.seek(-len(TAR_END), os.SEEK_END)
                if file.read() != TAR_END:  # cut between two members, tarfile would take it for whole
                    bad.add(f"{shard}: has no end mark, cut short?")
                file.seek(0)
                yield from group_by_keys(tar_file_expander([{"url": str(shard), "stream": file}]))
        except (OSError, EOFError, tarfile.TarError, ValueError) as error:
            bad.add(f"{shard}: {error}")


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
