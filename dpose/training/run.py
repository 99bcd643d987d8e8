"""Training D-PoSE: one stage, Adam, clipped gradients (paper section 4.2; facts in the book's training page).

`train(TrainConfig(...))` is the whole of it: `PAPER` presets follow the paper's recipe to the letter, `MINI`
presets one of our own that starts from random weights and fits two processor cores (see `recipe`).
`lightning` drives the loop (devices, several GPUs, checkpoints to resume from); what a step computes is
written out in `Training.training_step`. Nothing in a step waits for the device: losses are summed there and
read back only when a row of the log is written.

A run folder holds `model.safetensors` (weights, for `dpose.load`), `last.ckpt` (everything, for `resume`),
`log.csv` (every loss term) and `run.json` (what was run, on what).
"""

from __future__ import annotations

import contextlib
import csv
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import Tensor
from tqdm import tqdm

from dpose import results
from dpose.batch import Batch
from dpose.body import DEFAULT_BODY, Body, load_body
from dpose.config import preset
from dpose.data.augment import MINI_AUGMENT, PAPER_AUGMENT, Augment
from dpose.data.fingerprint import data_fingerprint, data_samples
from dpose.data.loader import MAX_BAD, make_loader
from dpose.data.means import Means, training_means
from dpose.data.sources import find_sources, mixture
from dpose.io import replacing
from dpose.losses import MINI_WEIGHTS, PAPER_WEIGHTS, RELEASED_WEIGHTS, LossWeights, compute_losses
from dpose.model import checkpoint, released
from dpose.model.inference import computes_in_bf16, run_network, to_device
from dpose.model.network import DPose
from dpose.paths import data_roots
from dpose.processes import usable_cores

STATISTICS_SAMPLES = 2048  # of the training set, for the means that the heads start from


@dataclass(frozen=True)
class Recipe:
    """How a preset is trained, as far as it is not the network itself."""

    steps: int
    batch_size: int
    lr: float
    warmup: float = 0.0  # fraction of the steps over which the rate rises linearly from 0
    decay: str = "constant"  # or "cosine": to `final_lr` times the rate at the last step
    final_lr: float = 0.01
    clip: float = 1.5  # largest gradient norm (the paper says "value", its code takes the norm)
    weights: LossWeights = field(default_factory=LossWeights)
    vertex_stride: int = 1  # every n-th vertex enters the vertex loss
    augmentation: Augment = PAPER_AUGMENT
    depth_rule: str = "paper"  # how depth becomes a target, `dpose.data.targets.depth_target`
    priors: bool = False  # start the heads at the training set's means and class frequencies
    precision: str = "32"  # "bf16": the network under autocast, losses in 32 bits all the same


PAPER_RECIPE = Recipe(steps=200_000, batch_size=64, lr=1e-5, weights=PAPER_WEIGHTS)
RELEASED_RECIPE = replace(PAPER_RECIPE, lr=1e-4, weights=RELEASED_WEIGHTS, depth_rule="released")
MINI_RECIPE = Recipe(
    steps=4_000,
    batch_size=64,
    lr=2.5e-3,
    warmup=0.05,
    decay="cosine",
    weights=MINI_WEIGHTS,
    vertex_stride=8,
    augmentation=MINI_AUGMENT,
    priors=True,
    precision="auto",
)


def recipe(name: str) -> Recipe:
    """The recipe of a preset, for instance `recipe("paper")`: 200,000 steps of 64 at 1e-5, constant.

    `recipe("released")` is what the authors' code and its configuration do instead: ten times the rate, its
    losses, its depth target (spelled out in `dpose.losses.RELEASED_WEIGHTS`; it has no network of its own).
    Raises ValueError for an unknown name.
    """
    if name == "released":
        return RELEASED_RECIPE
    return PAPER_RECIPE if preset(name).name.startswith("paper") else MINI_RECIPE


@dataclass(frozen=True)
class TrainConfig:
    """What to train. None means: as the preset's recipe says.

    Raises ValueError or FileNotFoundError, before anything is written, for an unknown preset, a count below
    1, a missing data folder or a missing checkpoint to resume from.
    """

    preset: str = "auto"  # "auto": the paper's network on a GPU, the mini network otherwise
    # Folder or URL, or several to mix, see `make_loader`; None: $DPOSE_DATA, else the open data set.
    data: str | Path | Sequence[str | Path] | None = None
    mix: Sequence[float] | None = None  # weight of each data set; None: its number of samples
    out: str | Path | None = None  # run folder; None: the resumed run's, else runs/<preset>
    steps: int | None = None  # optimizer steps
    batch_size: int | None = None  # samples a step, over all devices
    lr: float | None = None
    seed: int = 0
    overwrite: bool = False  # whether an earlier run in `out` may be replaced
    resume: str | Path | None = None  # `last.ckpt` of an earlier run: weights, optimizer, step and schedule
    # Weights to start from: a checkpoint of the same preset (a file, a shipped name, or the authors' released
    # .ckpt), or those of an HRNet, for the encoder alone. The paper starts from `pose_hrnet_w48_256x192.pth`,
    # trained on COCO keypoints; its learning rate is too small to train an encoder from random weights.
    init: str | Path | None = None
    body: str | Path | None = None  # body model file; None: the licensed one if configured, else the open one
    accelerator: str = "auto"  # "cpu", "cuda", ... as lightning names them
    devices: int | str = 1  # how many, or "auto" for all; each averages its losses over its share of a batch
    strategy: str = "auto"  # "ddp" follows from several devices
    precision: str | None = None  # "32", "bf16" or "auto" (bf16 where the processor computes in it)
    workers: int | None = None  # loader processes a device; None: as many as the machine can spare
    log_every: int = 20  # steps a row of the log
    max_bad: int = MAX_BAD  # unreadable samples, a lost shard's among them, that a worker skips in an epoch
    checkpoint_minutes: float = 5.0  # at most so much work is lost when the run is killed
    progress: bool = True
    recipe: Recipe | str | None = None  # None: `recipe(preset)`; a name: `recipe(name)`, e.g. "released"

    def __post_init__(self) -> None:
        if self.preset != "auto":
            preset(self.preset)  # raises and lists the valid names
        if isinstance(self.recipe, str):
            recipe(self.recipe)  # raises as well
        for name in ("steps", "batch_size", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must be 0 or more, got {self.workers}")
        if self.precision not in (None, "auto", "32", "bf16"):
            raise ValueError(f"precision must be '32', 'bf16' or 'auto', got {self.precision!r}")
        if self.max_bad < 0:
            raise ValueError(f"max_bad must be 0 or more, got {self.max_bad}")
        if self.checkpoint_minutes <= 0:
            raise ValueError(f"checkpoint_minutes must be positive, got {self.checkpoint_minutes}")
        data_roots(self.data)  # raises if the list is empty
        for name in ("resume", "body"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise FileNotFoundError(f"{name}: there is no file {path}")
        if self.init is not None:
            checkpoint.resolve(self.init)  # raises if there is none
            if self.resume is not None:
                raise ValueError("init starts a new run, resume goes on with an old one: give one of them")

    def resolve(self) -> TrainConfig:
        """The same configuration with every None and "auto" replaced by what will be used.

        Raises FileNotFoundError if there is no training data where `data` points, ValueError if its manifest
        names another body model than SMPL-X, FileExistsError if `out` holds another run that may not be
        overwritten.
        """
        name = self.preset
        if name == "auto":
            on_cuda = self.accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available()
            name = "paper" if on_cuda else "mini"
        base = self.recipe if isinstance(self.recipe, Recipe) else recipe(self.recipe or name)
        base = replace(
            base,
            steps=self.steps or base.steps,
            batch_size=self.batch_size or base.batch_size,
            lr=self.lr or base.lr,
            precision=_precision(self.precision or base.precision, self.accelerator),
        )
        roots = data_roots(self.data)
        sources = find_sources(roots, "train")  # raises if there are none
        mixture(sources, self.mix)
        for source in sources:
            check_bodies(source.name, source.bodies)
        out = self.out or (Path(self.resume).parent if self.resume else Path("runs") / name)
        if Path(out).exists() and not Path(out).is_dir():
            raise FileExistsError(f"{out} is a file; name another folder for the run (out=)")
        if (Path(out) / "last.ckpt").exists() and not (self.overwrite or _continues(self.resume, out)):
            raise FileExistsError(
                f"{out} holds a run already; go on with it (resume={Path(out) / 'last.ckpt'}), name another "
                "folder (out=), or let it be overwritten (overwrite=True)"
            )
        return replace(
            self,
            preset=name,
            data=roots if len(roots) > 1 else roots[0],
            out=Path(out),
            steps=base.steps,
            batch_size=base.batch_size,
            lr=base.lr,
            precision=base.precision,
            workers=_spare_workers() if self.workers is None else self.workers,
            recipe=base,
        )


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind."""

    checkpoint: Path  # model.safetensors
    resume: Path  # last.ckpt
    log: Path  # log.csv
    losses: dict[str, float]  # every term, averaged over the last row of the log
    steps: int
    seconds: float  # of training, in this process
    images_per_second: float  # after the first step
    config: TrainConfig  # as resolved


def train(config: TrainConfig) -> TrainResult:
    """Train a network as `config` says and return where it is; see `TrainConfig` for what is raised.

    A loss that is no longer finite ends the run with FloatingPointError; the last checkpoint stays.
    """
    config = config.resolve()
    start, origin = _check_resume(config)
    with _quiet(), _plain_errors():
        lightning.seed_everything(config.seed, workers=True, verbose=False)
        model_config = replace(preset(config.preset), part_order=(origin or {}).get("part_order", "joints"))
        model = DPose(model_config)
        if config.init is not None:
            model, origin = _initial(config, model)
        journal = Journal(config, start)
        trainer = lightning.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            strategy=config.strategy,
            max_steps=config.steps,
            max_epochs=-1,
            logger=False,
            callbacks=[journal],
            enable_checkpointing=False,  # `Journal` writes both kinds of checkpoint
            enable_progress_bar=False,
            enable_model_summary=False,
            benchmark=True,  # images never change size, so cuDNN may look for its fastest convolutions
            use_distributed_sampler=False,  # the loader splits the shards between devices
        )
        if config.batch_size % trainer.world_size:
            raise ValueError(
                f"batch_size {config.batch_size} does not divide over {trainer.world_size} devices"
            )
        bodies = [b for s in find_sources(data_roots(config.data), "train") for b in s.bodies]
        body = load_body(
            config.body or (bodies[0] if bodies else "open"),
            num_betas=model_config.num_betas,
            vertex_stride=config.recipe.vertex_stride,
        )
        if config.resume is None and (config.init is None or origin["kind"] == "hrnet"):
            statistics = training_means(
                config.data, model_config, STATISTICS_SAMPLES, mix=config.mix, max_bad=config.max_bad
            )
            initialise_heads(model, statistics, priors=config.recipe.priors)
        Path(config.out).mkdir(parents=True, exist_ok=True)
        module = Training(model, body, config, start, origin)
        trainer.fit(
            module, ckpt_path=None if config.resume is None else str(config.resume), weights_only=True
        )
    return journal.result()


def learning_rate(step: int, recipe: Recipe) -> float:
    """Learning rate of optimizer step `step` (0 is the first): linear warm-up, then constant or cosine."""
    warmup = round(recipe.warmup * recipe.steps)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    if recipe.decay == "constant":
        return recipe.lr
    if recipe.decay != "cosine":
        raise ValueError(f"decay must be 'constant' or 'cosine', got {recipe.decay!r}")
    progress = min(1.0, (step - warmup) / max(1, recipe.steps - 1 - warmup))
    return recipe.lr * (recipe.final_lr + (1 - recipe.final_lr) * 0.5 * (1 + math.cos(math.pi * progress)))


class Training(lightning.LightningModule):
    """What one step of training computes. Only `model` has state: checkpoints hold no body."""

    def __init__(
        self,
        model: DPose,
        body: Body,
        config: TrainConfig,
        start: int = 0,
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        for unused in (model.encoder.final_layer, model.attention.conv_shape_cam):
            unused.requires_grad_(False)  # in the published weights, in no output: devices would wait for it
        self.config = config
        self.start = start  # step at which this process begins
        self.origin = origin  # where the run's first weights come from, see `_initial`
        self._body = [body]  # in a list, so that it is no submodule
        self.last_losses: dict[str, Tensor] = {}
        self.last_grad_norm: Tensor | None = None

    def train_dataloader(self) -> Iterable[Batch]:
        config = self.config
        return make_loader(
            config.data,
            "train",
            self.model.config,
            config.batch_size // self.trainer.world_size,
            train=True,
            seed=config.seed,
            workers=config.workers,
            mix=config.mix,
            augment=config.recipe.augmentation,
            depth_rule=config.recipe.depth_rule,
            max_bad=config.max_bad,
            epoch=self.start,  # a resumed run sees another order than the run had from its beginning
            pin_memory=self.device.type == "cuda",
        )

    def on_fit_start(self) -> None:
        self._body[0] = self._body[0].to(self.device)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        batch = to_device(batch, self.device)
        for key, body in zip(batch["key"], batch["body"], strict=True):
            check_bodies(f"sample {key}", [body])
        prediction = run_network(self.model, batch, bf16=self.config.precision == "bf16")
        terms = compute_losses(prediction, batch, self._body[0], self.config.recipe.weights)
        self.last_losses = {name: value.detach() for name, value in terms.items()}
        return terms["total"]

    def configure_optimizers(self) -> dict[str, Any]:
        recipe = self.config.recipe
        optimizer = torch.optim.Adam(self._trained(), lr=recipe.lr, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate(step, recipe) / recipe.lr
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ) -> None:
        self.last_grad_norm = torch.nn.utils.clip_grad_norm_(
            self._trained(), self.config.recipe.clip, foreach=True
        )

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        step = self.trainer.global_step
        checkpoint["dpose"] = {"preset": self.config.preset, "step": step, "init": self.origin}


class Journal(lightning.Callback):
    """Writes the log, the progress line and the checkpoints; the only place that waits for the device."""

    def __init__(self, config: TrainConfig, start: int) -> None:
        self.config = config
        self.start = start
        self.out = Path(config.out)
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.count = 0
        self.losses: dict[str, float] = {}
        self.step = start
        self.first_step_end: float | None = None
        self.last_step_end = 0.0

    def on_train_start(self, trainer: lightning.Trainer, module: Training) -> None:
        self.begin = self.saved = time.monotonic()
        # of now: checkout and data may change while the run goes on
        self.provenance = _data_story(self.config) | results.provenance()
        self.earlier_seconds = 0.0
        if trainer.is_global_zero:
            kept = (
                self.start if _continues(self.config.resume, self.out) else 0
            )  # else the log is another run's
            self.earlier_seconds = _trim_log(self.out / "log.csv", kept)
            results.write_json(self.out / "run.json", self._metadata(module))
        self.bar = tqdm(
            total=self.config.steps,
            initial=self.start,
            unit="step",
            desc=self.config.preset,
            disable=not (self.config.progress and trainer.is_global_zero),
            mininterval=0.5 if sys.stderr.isatty() else 20.0,
            dynamic_ncols=True,
        )

    def on_train_batch_end(self, trainer, module: Training, outputs, batch, batch_index) -> None:
        if self.first_step_end is None:
            self.names = list(module.last_losses)
            self.first_step_end = time.monotonic()
        self.last_step_end = time.monotonic()
        values = torch.stack([*module.last_losses.values(), module.last_grad_norm])
        self.sums = values if self.sums is None else self.sums + values
        self.count += 1
        self.step = trainer.global_step
        self.bar.update(1)
        last = self.step >= self.config.steps
        if last or self.step % self.config.log_every == 0:
            self._write_row(trainer, module)
            if trainer.strategy.broadcast(last or self._due()):  # clocks differ: the first process decides
                self._save(trainer, module)

    def on_exception(self, trainer, module: Training, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and self.step > self.start:
            self._save(trainer, module)

    def on_train_end(self, trainer, module) -> None:
        self.bar.close()

    def result(self) -> TrainResult:
        """What the finished run left behind."""
        return TrainResult(
            checkpoint=self.out / "model.safetensors",
            resume=self.out / "last.ckpt",
            log=self.out / "log.csv",
            losses=self.losses,
            steps=self.step,
            seconds=time.monotonic() - self.begin,
            images_per_second=self._images_per_second(),
            config=self.config,
        )

    def _images_per_second(self) -> float:
        steps = self.step - self.start - 1
        if steps < 1:
            return 0.0
        return steps * self.config.batch_size / (self.last_step_end - self.first_step_end)

    def _write_row(self, trainer: lightning.Trainer, module: Training) -> None:
        means = trainer.strategy.reduce(self.sums / self.count, reduce_op="mean")  # over all devices
        means = means.tolist()  # the one wait for the device
        self.sums, self.count = None, 0
        self.losses = dict(zip(self.names, means[:-1], strict=True))
        if not all(map(math.isfinite, means)):
            raise FloatingPointError(
                f"the loss is no longer finite at step {self.step} ({self.losses}); lower lr "
                f"(now {self.config.lr:g}) and resume from {self.out / 'last.ckpt'}"
            )
        if not trainer.is_global_zero:
            return
        row = {
            "step": self.step,
            "images": self.step * self.config.batch_size,
            "seconds": round(self.earlier_seconds + time.monotonic() - self.begin, 2),
            "images_per_second": round(self._images_per_second(), 2),
            "lr": f"{learning_rate(self.step - 1, self.config.recipe):.6g}",
            "grad_norm": f"{means[-1]:.6g}",
            **{name: f"{value:.6g}" for name, value in self.losses.items()},
        }
        path = self.out / "log.csv"
        new = not path.exists()
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        self.bar.set_postfix_str(
            f"loss {self.losses['total']:.4g}, {row['images_per_second']:.0f} images/s", refresh=False
        )

    def _due(self) -> bool:
        return time.monotonic() - self.saved > 60 * self.config.checkpoint_minutes

    def _save(self, trainer: lightning.Trainer, module: Training) -> None:
        last = self.out / "last.ckpt"
        first = trainer.is_global_zero  # every process takes part, this one writes
        with replacing(last) if first else contextlib.nullcontext(last) as file:
            trainer.save_checkpoint(file)
        if first:
            checkpoint.save(module.model, self.out / "model.safetensors", self._metadata(module))
        self.saved = time.monotonic()

    def _metadata(self, module: Training) -> dict[str, Any]:
        config = self.config
        return {
            "preset": config.preset,
            "body": module._body[0].record,
            "step": self.step,
            "images": self.step * config.batch_size,
            "seconds": round(self.earlier_seconds + time.monotonic() - self.begin, 1),
            "seed": config.seed,
            "recipe": asdict(config.recipe),
            "init": module.origin,
            "losses": self.losses,
            **self.provenance,
        }


def initialise_heads(model: DPose, statistics: Means, priors: bool) -> None:
    """Give a fresh network the training set's mean pose, shape and camera to add its residuals to.

    With `priors` the last layers of the map decoders also start at the classes' frequencies and at the mean
    depth of a person, so that the first thousand steps need not learn them.
    """
    model.set_means(statistics.pose6d, statistics.betas, statistics.cam)
    if priors:
        model.init_head_priors(statistics.part_frequency, float(statistics.mean_depth))


def check_bodies(where: str, bodies: Iterable[str]) -> None:
    """Raise ValueError if one of the bodies that poses and shapes are of is not the network's."""
    for body in bodies:
        if body not in ("open", DEFAULT_BODY):
            raise ValueError(
                f"{where} is labelled with the body {body!r}; training needs 'open' or {DEFAULT_BODY!r} "
                "(sets of other bodies are for evaluation)"
            )


def _data_story(config: TrainConfig) -> dict[str, Any]:
    """Fingerprint and number of samples of the training data; of several sets, lists, and their weights."""
    roots = data_roots(config.data)
    prints = [data_fingerprint(root) for root in roots]
    samples = [data_samples(root, "train") for root in roots]
    if len(roots) == 1:
        return {"data": prints[0], "data_samples": samples[0]}
    return {"data": prints, "data_samples": samples, "mix": config.mix}


def _precision(wanted: str, accelerator: str) -> str:
    """ "bf16" or "32" for "auto": bf16 where the hardware computes in it, not only emulates it."""
    if wanted != "auto":
        return wanted
    device = {"auto": "cuda", "gpu": "cuda"}.get(accelerator, accelerator)
    if device == "cuda" and not torch.cuda.is_available():
        device = "cpu"
    return "bf16" if computes_in_bf16(device) else "32"


def _spare_workers() -> int:
    return max(1, min(8, usable_cores() - 1))


def _initial(config: TrainConfig, model: DPose) -> tuple[DPose, dict[str, Any]]:
    """The network to start from, in place of or put into a fresh one, and what is known of its file.

    That is the file's hash, its `kind` ("dpose", "released" or "hrnet"), and the story in it; of an HRNet,
    which layers of the encoder it left at random and which of its own were not used.

    Raises ValueError for a file that is none of the three, or another preset's.
    """
    path = checkpoint.resolve(config.init)
    content = released.read_torch_file(path) if released.is_torch_file(path) else None
    kind = "dpose" if content is None else released.kind(content)
    origin = {"checkpoint": Path(config.init).name, "sha256": results.file_hash(path), "kind": kind}
    if kind == "hrnet":
        report = released.load_keypoint_weights(model.encoder, content, f"init: {config.init}")
        if config.progress and os.environ.get("LOCAL_RANK", "0") == "0":
            print(report, file=sys.stderr)
        return model, origin | report._asdict()
    start, story = checkpoint.read(path, content)
    if replace(start.config, part_order=model.config.part_order) != model.config:
        raise ValueError(
            f"init: {config.init} holds a {start.config.name!r} network, not {model.config.name!r}"
        )
    origin["part_order"] = start.config.part_order  # which a resumed run has to know
    return start.train(), story | origin


def _check_resume(config: TrainConfig) -> tuple[int, dict[str, Any] | None]:
    """The step of the checkpoint to resume from and where its run began, (0, None) without one.

    Raises ValueError if it cannot be continued.
    """
    if config.resume is None:
        return 0, None
    weights_only = f"{config.resume} holds weights only; start from it with --init (init=)"
    if Path(config.resume).suffix == ".safetensors":
        raise ValueError(weights_only)
    try:
        stored = released.read_torch_file(config.resume).get("dpose", {})
    except ValueError as error:
        raise ValueError(f"no checkpoint to resume from (a run's last.ckpt): {error}") from None
    if "step" not in stored:
        raise ValueError(weights_only)
    if stored.get("preset") != config.preset:
        raise ValueError(f"{config.resume} holds a {stored.get('preset')!r} network, not {config.preset!r}")
    if stored["step"] >= config.steps:
        raise ValueError(
            f"{config.resume} is at step {stored['step']} already; ask for more than {config.steps} steps"
        )
    return stored["step"], stored.get("init")


def _continues(resume: str | Path | None, out: str | Path) -> bool:
    """Whether a resumed run goes on in its own folder."""
    return resume is not None and Path(resume).resolve().parent == Path(out).resolve()


def _trim_log(path: Path, start: int) -> float:
    """Drop rows after step `start` (a killed run logs past its checkpoint); returns the seconds so far."""
    if start == 0 or not path.exists():
        path.unlink(missing_ok=True)
        return 0.0
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if int(row["step"]) <= start]
        names = reader.fieldnames or []
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)
    return float(rows[-1]["seconds"]) if rows else 0.0


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn lightning's own kind of error, about devices that are not there, into a ValueError."""
    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back lightning's chatter; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*(num_workers|litlogger|LeafSpec|is deprecated).*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
