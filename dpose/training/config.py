"""`TrainConfig`: what to train, checked before anything is written."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpose.body import BODY_NAMES, DEFAULT_BODY
from dpose.config import preset
from dpose.data.fingerprint import data_fingerprint
from dpose.data.generated import with_sizes
from dpose.data.sources import find_sources, mixture
from dpose.io import check_folder
from dpose.model import checkpoint
from dpose.paths import Data, data_roots, is_url
from dpose.training.environment import (
    check_nodes,
    choose_devices,
    choose_precision,
    first_process,
    launched,
    on_cuda,
    spare_workers,
)
from dpose.training.recipe import Recipe, recipe
from dpose.training.resume import FREE, Stored, read_checkpoint

RANDOM = "random"  # value of `init`
LARGE_BATCH = 1024  # larger batches must not exceed the number of training samples
LEAST_INTERVAL = 200  # steps between validations, by default


@dataclass(frozen=True)
class TrainConfig:
    """What to train. None: the value of the preset's recipe, or the default.

    With `resume`, None means: as the run in that checkpoint. Such a run may change `steps`, `lr`,
    `accelerator`, `devices`, `nodes`, `accumulate`, `strategy`, `workers`, `log_every`, `max_bad`,
    `checkpoint_minutes`, `tensorboard`, `validate_every` and `val_data`, and the path of data that were
    moved; other options that differ are refused. On the CPU it repeats the uninterrupted run bit for bit,
    with as many processes and workers; with other numbers the order of the data begins anew.

    Attributes:
        preset: of the network (`dpose.preset`), or "auto" (default): "paper" on a GPU, else "lite".
        data: folder or URL of a data set, `synth:` for people rendered while training
            (`dpose.data.generated`), or several to mix (`dpose.data.loader.make_loader`); default:
            $DPOSE_DATA, else the open data.
        mix: weight of each data set; default: its number of samples.
        out: run folder; default: the resumed run's, else runs/<preset>.
        steps, batch_size, lr: see `Recipe`.
        seed: random seed of initial weights, data order and augmentation; default 0.
        overwrite: whether `out` may hold an earlier run, which is moved to the folder <out>.1 (or .2, ...).
        resume: `last.ckpt` of the run to continue.
        init: weights to start from: a checkpoint of the same preset (a file, a shipped name, or the authors'
            released .ckpt), or those of an HRNet, for the encoder alone. The paper starts from
            `pose_hrnet_w48_256x192.pth`, trained on COCO keypoints; its learning rate is too small to train
            an encoder from random weights. Default: the shipped backbone's for "lite", else random weights;
            "random": always the latter; the backbone then learns at the full rate.
        body: file or name of the body model for the losses; it must be the one that the data name.
        accelerator: "auto" (default), "cpu", "cuda", ... as lightning names them.
        devices: number of processes on each node (default 1; `dpose train` on the CPU: "auto"), or "auto":
            all GPUs, or one process per core of the CPU. Losses and batch norms average over the share of a
            batch that a process has.
        nodes: number of machines; default 1. Under torchrun or SLURM's srun the defaults of `nodes` and
            `devices` are the launcher's. Without these the run is started on every node, with $MASTER_ADDR
            and $MASTER_PORT of the first node and each node's number in $NODE_RANK. All nodes need the data
            at the same path, and `out` on a disk that they share. SIGTERM (`sbatch --signal=TERM@60`) stops
            such a run with its weights saved; lightning's requeueing is off.
        accumulate: a process handles its share of a batch in this many pieces, for less memory; default 1.
            The gradient of a step is the mean of the pieces' gradients. Losses and batch norms average over
            a piece, and the batch norms' running statistics are updated with every piece.
        strategy: lightning's name for how processes work together. "auto" (default): on GPUs `ddp`, in
            notebooks `ddp_notebook`; on the CPU `ddp_fork` on Linux, else `ddp_spawn`.
        precision: one of `dpose.training.PRECISIONS`, or "auto": bf16 where the hardware computes in it, else
            TF32 on CUDA, else float32.
        workers: loader processes per device; default: as many as there are spare cores.
        log_every: steps per row of the log; default 20.
        max_bad: unreadable samples, and damaged shards, that a loader process skips per epoch; default 20.
        checkpoint_minutes: a run that is killed loses at most this much work; default 5.
        tensorboard: log for TensorBoard as well.
        validate_every: steps between validations (`dpose.training.validation`), of which the last step has
            one, too; 0: none. Default: a twentieth of the run, but at least 200 steps; shorter runs have
            none.
        val_data: data sets with a validation split; default: those of `data` that have one.
        progress: show a progress bar and notes on stderr.
        recipe: a `Recipe` or the name of one, for instance "released"; default: the preset's. `steps`,
            `batch_size`, `lr` and `precision` take precedence.

    Raises ValueError or FileNotFoundError for an unknown name, a number out of range, or a missing file.
    """

    preset: str | None = None
    data: Data = None
    mix: Sequence[float] | None = None
    out: str | Path | None = None
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int | None = None
    overwrite: bool = False
    resume: str | Path | None = None
    init: str | Path | None = None
    body: str | Path | None = None
    accelerator: str | None = None
    devices: int | str | None = None
    nodes: int | None = None
    accumulate: int | None = None
    strategy: str | None = None
    precision: str | None = None
    workers: int | None = None
    log_every: int | None = None
    max_bad: int | None = None
    checkpoint_minutes: float | None = None
    tensorboard: bool | None = None
    validate_every: int | None = None
    val_data: Data = None
    progress: bool = True
    recipe: Recipe | str | None = None

    def __post_init__(self) -> None:
        if self.preset not in (None, "auto"):
            preset(self.preset)  # raises and lists the valid names
        if isinstance(self.recipe, str):
            recipe(self.recipe)
        least = dict.fromkeys(("steps", "batch_size", "log_every", "nodes", "accumulate"), 1)
        for name, bound in (least | dict.fromkeys(("workers", "max_bad", "validate_every"), 0)).items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}, got {value}")
        for name in ("lr", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in 0..{2**32 - 1}, got {self.seed}")
        for name in ("data", "out", "resume", "init", "body", "val_data"):
            value = getattr(self, name)
            if value == "" or isinstance(value, list | tuple) and "" in value:
                raise ValueError(f"{name} is an empty name: leave it out, or set the variable it comes from")
        data_roots(self.data)  # raises for an empty list
        if self.resume is not None and not Path(self.resume).is_file():
            raise FileNotFoundError(f"resume: there is no file {self.resume}")
        if self.body is not None and not (str(self.body) in BODY_NAMES or Path(self.body).is_file()):
            raise FileNotFoundError(f"body: there is no file {self.body}")
        if self.init not in (None, RANDOM):
            checkpoint.resolve(self.init)  # raises if there is none
        if self.init is not None and self.resume is not None:
            raise ValueError("init starts a new run, resume goes on with an old one: give one of them")

    def resolve(self) -> TrainConfig:
        """The same configuration with every None and "auto" replaced by what will be used.

        Raises FileNotFoundError if there is no training data where `data` points; ValueError if options or
        data contradict each other or the run to resume; FileExistsError if `out` holds another run and
        `overwrite` is not set.
        """
        stored = None if self.resume is None else read_checkpoint(self.resume)
        before = FREE if stored is None else stored.config
        given = {name: getattr(self, name) for name in FREE}
        given["val_data"] = None if self.val_data is None else absolute(self.val_data)
        if launcher := launched():
            given["nodes"] = given["nodes"] or launcher[0]
            given["devices"] = launcher[1] if given["devices"] in (None, "auto") else given["devices"]
        options = {name: before[name] if value is None else value for name, value in given.items()}
        check_nodes(options["nodes"])
        name = self._preset(stored, options["accelerator"])
        chosen = self._recipe(stored, name, options)
        seed, mix = self.seed or 0, None if self.mix is None else list(self.mix)
        body = self.body
        data = self.data if stored is None or self.data is not None else before["data_paths"]
        data = with_sizes(data, preset(name).image_size)
        sources = find_sources(data, "train")  # raises if there are none
        if stored is not None:
            stored.same("seed", self.seed)
            stored.same("mix", mix)
            stored.same("data", fingerprint(data))
            seed, mix, body = before["seed"], before["mix"], body or before["body_file"]
        for source in sources:
            check_bodies(source.name, source.bodies)
        mixture(sources, mix)  # raises if the weights do not fit
        samples = sum(source.samples or 0 for source in sources)
        if chosen.batch_size > max(LARGE_BATCH, samples):
            raise ValueError(f"batch_size {chosen.batch_size} is too large for {samples or 'so few'} samples")
        piece = chosen.batch_size // (options["nodes"] * options["accumulate"])
        options["devices"] = choose_devices(options["devices"], options["accelerator"], piece)
        if options["workers"] is None:
            options["workers"] = spare_workers(options["devices"])
        if options["validate_every"] is None:
            interval = max(LEAST_INTERVAL, chosen.steps // 20)
            options["validate_every"] = interval if interval <= chosen.steps else 0
        out = check_folder(self.out or (Path(self.resume).parent if self.resume else Path("runs") / name))
        resolved = replace(
            self,
            preset=name,
            data=data if len(data) > 1 else data[0],
            mix=mix,
            out=out,
            body=body,
            seed=seed,
            steps=chosen.steps,
            batch_size=chosen.batch_size,
            lr=chosen.lr,
            precision=chosen.precision,
            recipe=chosen,
            **options,
        )
        if stored is not None and stored.step >= chosen.steps and not resolved.completes(stored):
            raise ValueError(
                f"{self.resume} is at step {stored.step} already; ask for more than {stored.step} steps"
            )
        if (out / "last.ckpt").exists() and not (self.overwrite or resolved.continues):
            raise FileExistsError(
                f"{out} holds a run already; go on with it (resume={out / 'last.ckpt'}), name another folder "
                "(out=), or have the run moved aside (overwrite=True)"
            )
        return resolved

    @property
    def continues(self) -> bool:
        """Whether a resumed run goes on in its own folder."""
        return self.resume is not None and Path(self.resume).resolve().parent == Path(self.out).resolve()

    def completes(self, stored: Stored) -> bool:
        """Whether the resumed run made its last step before, and only its files may be incomplete."""
        return self.continues and stored.step == self.steps == stored.recipe.steps

    def note(self, text: str) -> None:
        """Print a line for the user, in one process of several and only if progress is shown."""
        if self.progress and first_process():
            print(text, file=sys.stderr)

    def _preset(self, stored: Stored | None, accelerator: str) -> str:
        given = None if self.preset in (None, "auto") else preset(self.preset).name
        if stored is not None:
            stored.same("preset", given)
            return stored.config["preset"]
        return given or ("paper" if on_cuda(accelerator) else "lite")

    def _recipe(self, stored: Stored | None, name: str, options: dict[str, Any]) -> Recipe:
        base = self.recipe or (recipe(name) if stored is None else stored.recipe)
        base = recipe(base) if isinstance(base, str) else base
        kept = base if stored is None else stored.recipe
        precision = kept.precision if self.precision in (None, "auto") and stored else self.precision
        chosen = replace(
            base,
            steps=self.steps or kept.steps,
            batch_size=self.batch_size or kept.batch_size,
            lr=self.lr or kept.lr,
            precision=choose_precision(
                precision or kept.precision, options["accelerator"], options["devices"] != 1
            ),
        )
        if self.init == RANDOM:  # then the backbone has nothing to keep
            chosen = replace(chosen, backbone_lr=1.0)
        if stored is not None:
            stored.same_recipe(chosen)
        return chosen

    def paths(self) -> dict[str, Any]:
        """Data and body file by names that hold in any working folder."""
        is_file = self.body is not None and Path(self.body).is_file()
        return {
            "data_paths": absolute(self.data),
            "body_file": str(Path(self.body).resolve()) if is_file else None,
        }


def absolute(data: Data) -> list[str]:
    """Data sets by names that hold in any working folder."""
    return [root if is_url(root) else str(root.resolve()) for root in data_roots(data)]


def fingerprint(data: Data) -> str | list[str]:
    """The fingerprint of a data set, or the list of those of several."""
    prints = [data_fingerprint(root) for root in data_roots(data)]
    return prints if len(prints) > 1 else prints[0]


def check_bodies(where: str, names: Iterable[str]) -> None:
    """Raises ValueError if one of the bodies that labels name is not of the network's format."""
    for name in names:
        if name not in ("open", DEFAULT_BODY):
            raise ValueError(
                f"{where} is labelled with the body {name!r}; training needs 'open' or {DEFAULT_BODY!r} "
                "(sets of other bodies are for evaluation)"
            )
