"""Loader: data sets -> batches, for training and evaluation, on one or several processes.

    loader = make_loader(data, "train", config, batch_size=64, train=True, workers=4)
    for batch in loader:  # compact, see `dpose.batch.Batch`
        batch = to_device(batch, "cuda")  # of `dpose.model.inference`

Training streams are endless; the trainer stops. Evaluation reads the split once, without augmentation, with
box scale 1, and keeps the last partial batch. In an epoch every sample of a data set occurs once, in one
worker of one process (`dpose.data.sources`). Several sets are mixed sample by sample, by weights. A sample
that cannot be read is reported, skipped and counted; past a limit the loader raises TooManyBadSamples.

The order depends on the seed, the epoch, and the numbers of processes and workers: the same numbers give the
same batches again. The augmentation of a sample depends on (seed, epoch, key) alone.

A stopped training run can continue with the next batch:

    progress = Progress(workers)
    for batch in loader:
        progress.update(batch)  # when the batch has been used
    state = progress.state()  # JSON-able; each rank has its own
    loader = make_loader(..., resume=[state])  # of every rank, in order
"""

import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import roma
import torch
from torch.utils.data import DataLoader

from dpose.batch import Batch
from dpose.body import DEFAULT_BODY
from dpose.config import ModelConfig
from dpose.data.augment import Augment, augmentation
from dpose.data.generated import Generated, with_sizes
from dpose.data.sources import find_sources, mixture
from dpose.data.streams import SampleStream
from dpose.data.targets import DEPTH_RULES
from dpose.paths import Data

MAX_BAD = 20  # unreadable samples of a data set, and damaged shards, that a worker skips in an epoch
PREFETCHED = 2  # batches that each worker holds ready in shared memory


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
    shuffle_buffer: int = 1000,
    depth_rule: str = "paper",
    max_bad: int = MAX_BAD,
    limit: int | None = None,
    spread: int | None = None,
    pin_memory: bool = False,
    resume: Sequence[dict | None] | None = None,
) -> "Loader":
    """A loader of compact `Batch`es over a split of one data set, or of several mixed.

    Args:
        data: a folder with `<split>-*.tar`, there or in `shards/`; the URL of a folder with a manifest; a
            pattern of names (`https://host/train-{000000..000123}.tar`, `s3://...`); `synth:`, people
            rendered by the workers (`dpose.data.generated`); or a list of these. None: see
            `dpose.paths.data_roots`.
        batch_size: samples per batch of this process.
        train: shuffled, augmented and endless; with `infinite=False` one epoch, without the last partial
            batch of each worker. Otherwise the split once, in order, one set after the other, without
            augmentation unless `augment` is given.
        seed: order and augmentation depend on it.
        workers: processes that prepare batches; 0 for this one.
        mix: for a list, the chance of each set to give the next sample, in any unit; None: its number of
            samples. A set that is exhausted, in a finite stream, is no longer drawn.
        augment: strengths; None: in training those of the preset.
        shuffle_buffer: number of samples in a worker's shuffle buffer. It is emptied at the end of an epoch
            and filled again.
        max_bad: largest number of unreadable samples of a set per worker and epoch, and, counted apart, of
            damaged shards. A damaged shard counts once, for any number of lost samples.
        limit: only the first samples of each set in each worker's epoch.
        spread: about this many samples of each set, from shards all over the split. A finite loader needs one
            of the two for `synth:`, and an endless one takes neither.
        resume: the states of a run's `Progress`, one per process in the order of their ranks; the loader
            continues after them, see `Loader.resumed`. Only for endless streams.
    Raises:
        FileNotFoundError, ValueError: at once, for a missing folder or split, a shard that differs from the
            manifest, or an invalid argument; while iterating, ValueError if nothing can be read, or if a
            finite training loader fills no batch.
        TooManyBadSamples: while iterating, past `max_bad`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if min(workers, max_bad) < 0:
        raise ValueError(f"workers and max_bad must not be negative, got {workers} and {max_bad}")
    if depth_rule not in DEPTH_RULES:
        raise ValueError(f"unknown depth rule {depth_rule!r}; choose one of {', '.join(DEPTH_RULES)}")
    infinite = train if infinite is None else infinite
    if resume and not infinite:
        raise ValueError("resume: only a stream without end can be resumed")
    sources = find_sources(with_sizes(data, config.image_size), split)
    bounded = limit is not None or spread is not None
    if infinite == bounded and (endless := [one.name for one in sources if isinstance(one, Generated)]):
        raise ValueError(
            f"{endless[0]} has no end: a finite loader needs `limit` or `spread`, an endless one none"
        )
    mixed = len(sources) > 1 and (train or infinite)
    stream = SampleStream(
        sources,
        mixture(sources, mix) if mixed or mix is not None else [1.0] * len(sources),
        config,
        shuffle=shuffle_buffer if train else 0,
        augment=(augment or augmentation(config.name)) if train else augment,
        infinite=infinite,
        seed=seed,
        depth_rule=depth_rule,
        max_bad=max_bad,
        limit=limit,
        spread=spread,
    )
    return Loader(
        stream,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collate,
        drop_last=train,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED if workers else None,
        worker_init_fn=one_thread,
        pin_memory=pin_memory,
        resume=resume,
    )


class Loader(DataLoader):
    """A DataLoader over a `SampleStream`; make one with `make_loader`."""

    def __init__(self, stream: SampleStream, *, resume: Sequence[dict | None] | None, **options):
        super().__init__(stream, **options)
        self._resume = [check_state(state, stream) for state in resume or () if state is not None]
        self._ranks = len(resume or ())
        self._begun = False

    @property
    def resumed(self) -> str | None:
        """Whether the loader continues exactly.

        "exact": the first batch is the one after the last batch counted. "new order": numbers of processes or
        workers, seed or data differ, or a state is missing, so the next epoch starts. None: not resumed, or
        no state at all.
        """
        if not self._resume:
            return None
        self._find_rank()
        wanted = max(1, self.num_workers), self.dataset.order()
        same = all((state["workers"], state["order"]) == wanted for state in self._resume)
        complete = len(self._resume) == self._ranks == self.dataset.world
        return "exact" if same and complete else "new order"

    def __iter__(self) -> Iterator[Batch]:
        self._find_rank()
        if not self._begun and self.resumed == "exact":
            self.dataset.start = self._resume[self.dataset.rank]
        elif not self._begun and self._resume:
            self.dataset.epoch = max(self.dataset.epoch, 1 + max(map(last_epoch, self._resume)))
        self._begun = True
        return self._ended_at_errors(super().__iter__())

    def _find_rank(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.dataset.rank = torch.distributed.get_rank()
            self.dataset.world = torch.distributed.get_world_size()

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
            if self.num_workers:  # garbage collection would wait 5 s per worker
                batches._shutdown_workers()
                self._iterator = None
            raise


def one_thread(_: int) -> None:
    """One thread per worker: parallelism comes from the number of workers."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


# --- resuming -----------------------------------------------------------------------------------------------


class Progress:
    """Position of one process of a run in its loader's stream, from the batches that it has used.

    workers: as for `make_loader`. After resuming, a new Progress continues from the resumed state with the
    first batch.
    """

    def __init__(self, workers: int):
        self.workers = max(1, workers)
        self._state: dict[str, Any] | None = None

    def update(self, batch: Batch) -> None:
        """Count a batch. Raises ValueError if it is not the one after the batch counted last."""
        position = dict(batch["position"])
        worker, before = position.pop("worker"), position.pop("before")
        order, begin = position.pop("order"), position.pop("begin")
        if self._state is None:
            fresh = {"batches": 0, "workers": self.workers, "order": order, "begin": begin}
            fresh["positions"] = [None] * self.workers
            self._state = copy.deepcopy(before) or fresh
        if worker != self._state["batches"] % self.workers:
            raise ValueError(
                f"batch {self._state['batches']} comes from worker {worker} of {self.workers}: batches must "
                "be counted one by one, in their order"
            )
        self._state["batches"] += 1
        self._state["positions"][worker] = position

    def state(self) -> dict[str, Any] | None:
        """What `make_loader(..., resume=[...])` takes; JSON-able. None before the first batch."""
        return copy.deepcopy(self._state)


def check_state(state: dict[str, Any], stream: SampleStream) -> dict[str, Any]:
    """The state of a `Progress`. Raises ValueError for anything else."""
    sources = len(stream.sources)
    try:
        numbers = [state["batches"], state["workers"], state["begin"]]
        positions = [one for one in state["positions"] if one is not None]
        numbers += [one["drawn"] for one in positions]
        numbers += itertools.chain.from_iterable(at for one in positions for at in one["sources"])
        fits = all(type(number) is int and 0 <= number < 1 << 53 for number in numbers)
        fits &= len(state["positions"]) == state["workers"] and isinstance(state["order"], str)
        fits &= all(len(at) == 3 for one in positions for at in one["sources"])
        exact = state["order"] == stream.order()
        fits &= not exact or all(len(one["sources"]) == sources for one in positions)
    except (TypeError, KeyError, IndexError, AttributeError):
        fits = False
    if not fits:
        raise ValueError("resume: this is not the state of a data stream, as `Progress` gives it")
    return state


def last_epoch(state: dict[str, Any]) -> int:
    """The last epoch that a state has begun with any of its sources."""
    positions = [one for one in state["positions"] if one is not None]
    return max([state["begin"], *(at[0] for one in positions for at in one["sources"])])


# --- batches ------------------------------------------------------------------------------------------------


def collate(rows: list[dict]) -> Batch:
    """Rows of `prepare_sample` -> compact Batch."""
    labels = [row["label"] for row in rows]

    def stack(values: list, dtype: type = np.float32) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, dtype))

    def column(name: str) -> torch.Tensor:
        return stack([label[name] for label in labels])

    pose = np.zeros((len(labels), 72), np.float32)  # SMPL-X's hands are at rest
    for row, label in zip(pose, labels, strict=True):
        row[: len(label["pose"])] = label["pose"]
    rotations = roma.rotvec_to_rotmat(torch.from_numpy(pose).reshape(-1, 24, 3))
    joints2d = column("joints2d")
    joints2d[..., 2].clamp_(min=0)
    rule = rows[0]["depth_rule"]
    batch = Batch(
        image=torch.from_numpy(np.stack([row["image"] for row in rows])).permute(0, 3, 1, 2),
        center=column("center"),
        scale=column("scale"),
        img_size=column("img_size"),
        cam_int=column("cam_int").reshape(-1, 3, 3),
        pose=rotations[:, :22].contiguous(),
        betas=column("betas"),
        trans=column("trans"),
        joints2d=joints2d,
        parts=torch.from_numpy(np.stack([row["parts"] for row in rows])),
        depth=torch.from_numpy(np.stack([row["depth"] for row in rows])[:, None]),
        has_depth=torch.tensor([row["has_depth"] for row in rows]),
        key=[label["key"] for label in labels],
        body=[label.get("body", DEFAULT_BODY) for label in labels],
        smpl_hands=rotations[:, 22:].contiguous(),
        depth_scaling=stack(
            [row["depth_scaling"] for row in rows], np.float32 if rule == "paper" else np.float64
        ),
        depth_rule=rule,
    )
    if "position" in rows[-1]:
        batch["position"] = rows[-1]["position"]
    return batch
