"""Experiments: networks that differ in one thing each, trained from several seeds under equal conditions.

`ABLATION` asks the paper's question (its Table 3: does predicting depth help?) in small, and compares the
heads of its Table 1. All variants have the same encoder, MoveNet's backbone, which has learned keypoints in
photographs of COCO and stays fixed: the paper starts from an HRNet that has learned the same. For each seed
they see the same images in the same order, with the same steps, schedule and losses, but for what the variant
is about. Their random initial weights differ, except between variants of the same layers. `ENCODER` repeats
the comparison with and without depth with a backbone that is trained, too. Each run ends in a record of
`dpose.evaluate` on the test split; `dpose experiment` makes the missing ones.
"""

from __future__ import annotations

import fcntl
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dpose import results
from dpose.evaluate import evaluate
from dpose.losses import RELEASED_WEIGHTS, LossWeights
from dpose.processes import run_jobs, usable_cores
from dpose.training import TrainConfig, on_cuda, recipe, train
from dpose.training.recipe import Recipe
from dpose.training.resume import read_checkpoint


@dataclass(frozen=True)
class Variant:
    """Networks of one kind: a preset, the number of seeds, and what differs from the preset's recipe."""

    preset: str
    title: str  # in tables and figures
    about: str
    seeds: int = 3
    weights: LossWeights | None = None


@dataclass(frozen=True)
class Experiment:
    """Variants by name, and the budget of every run. Small batches: more steps for the same images."""

    about: str  # "the experiment with ..."
    variants: dict[str, Variant]
    images: int
    backbone_lr: float  # the backbone's rate, relative to that of the other layers
    batch_size: int = 32
    warmup: float = 0.05

    def recipe(self, variant: Variant) -> Recipe:
        """The recipe of a variant's runs: that of its preset with the experiment's settings."""
        base = recipe(variant.preset)
        return replace(
            base,
            steps=math.ceil(self.images / self.batch_size),
            batch_size=self.batch_size,
            warmup=self.warmup,
            weights=variant.weights or base.weights,
            backbone_lr=self.backbone_lr,
        )


ABLATION = Experiment(
    about="a fixed backbone",
    variants={
        "lite": Variant("lite", "D-PoSE", "all of D-PoSE", seeds=5),
        "lite-no-depth": Variant(
            "lite-no-depth", "without depth", "D-PoSE without the depth branch", seeds=5
        ),
        "lite-pare": Variant(
            "lite-pare", "PARE", "part attention, its own regressor, no depth and no box information"
        ),
        "lite-cliff": Variant("lite-cliff", "CLIFF", "global pooling, iterative regressor, box information"),
        "lite-hmr": Variant("lite-hmr", "HMR", "global pooling, iterative regressor, no box information"),
        "lite-no-attention": Variant(
            "lite-no-attention", "without attention", "D-PoSE, features averaged over the whole map"
        ),
        "lite-released-losses": Variant(
            "lite",
            "released losses",
            "D-PoSE with the losses of the released code",
            weights=RELEASED_WEIGHTS,
        ),
    },
    images=48_000,
    backbone_lr=0.0,
)
ENCODER = replace(
    ABLATION,
    about="a trained backbone",
    variants={name: ABLATION.variants[name] for name in ("lite", "lite-no-depth")},
    backbone_lr=0.1,
)
EXPERIMENTS = {"ablation": ABLATION, "encoder": ENCODER}


@dataclass(frozen=True)
class Run:
    """One training run of an experiment."""

    variant: str
    seed: int
    record: Path  # file of its result
    folder: Path  # of its training

    @property
    def done(self) -> bool:
        return self.record.exists()


def runs(
    name: str,
    out: str | Path | None = None,
    folder: str | Path | None = None,
    variants: Sequence[str] | None = None,
    seeds: int | None = None,
) -> list[Run]:
    """The runs of an experiment, the first seed of every variant first.

    Args:
        name: one of `EXPERIMENTS`.
        out: folder of the records; None: results/<name>.
        folder: of the training runs; None: runs/<name>.
        variants: names of variants; None: all.
        seeds: per variant; None: as many as the experiment has.
    Raises:
        ValueError: no such experiment or variant.
    """
    experiment = _experiment(name)
    if unknown := sorted(set(variants or ()) - experiment.variants.keys()):
        raise ValueError(f"unknown variant {unknown[0]!r}; choose from {', '.join(experiment.variants)}")
    chosen = {name: seeds or experiment.variants[name].seeds for name in variants or experiment.variants}
    out, folder = Path(out or Path("results") / name), Path(folder or Path("runs") / name)
    return [
        Run(variant, seed, out / f"{variant}-seed{seed}.json", folder / f"{variant}-seed{seed}")
        for seed in range(max(chosen.values()))
        for variant, count in chosen.items()
        if seed < count
    ]


def perform(
    name: str,
    todo: Sequence[Run],
    data: str | Path | None = None,
    *,
    images: int | None = None,
    split: str = "test",
    jobs: int | None = None,
    accelerator: str = "auto",
    done: Callable[[Run], object] = print,
) -> None:
    """Trains and measures the runs that have no record.

    A run that was interrupted goes on from its last checkpoint. Several processes with the same folders can
    share the work: a run that another one works on is left out.

    Args:
        name: of the experiment.
        todo: from `runs`.
        data: data folder; None: $DPOSE_DATA, else the open data.
        images: budget of a run; None: the experiment's.
        split: on which a network is measured.
        jobs: runs at the same time; None: one per core, on a GPU one.
        accelerator: "auto", "cpu" or "cuda".
        done: called with each run after its record was written.
    Raises:
        ValueError: a run was begun with another budget.
        Exception: what `dpose.training.train` and `dpose.evaluate.evaluate` raise.
    """
    experiment = _experiment(name)
    if images is not None:
        experiment = replace(experiment, images=images)
    tasks = []
    for run in todo:
        variant = experiment.variants[run.variant]
        options = TrainConfig(
            preset=variant.preset,
            recipe=experiment.recipe(variant),
            data=data,
            out=run.folder,
            seed=run.seed,
            accelerator=accelerator,
            devices=1,
            validate_every=0,
            log_every=100,
            progress=False,
        )
        if not run.done:
            tasks.append((run, options, split))
    jobs = jobs or (1 if on_cuda(accelerator) else usable_cores())
    run_jobs(_perform, tasks, jobs, done=lambda run: run and done(run))


def _perform(run: Run, config: TrainConfig, split: str) -> Run | None:
    """Trains and measures one run; None if another process works on it, or has done so."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with open(run.folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if run.done:
            return None
        last = run.folder / "last.ckpt"
        if last.exists():
            if (begun := read_checkpoint(last).recipe.steps) != config.recipe.steps:
                raise ValueError(
                    f"{run.folder} holds a run of {begun} steps, not of {config.recipe.steps}: remove it, or "
                    "name another folder for the training runs (--runs)"
                )
            config = replace(config, resume=last)
        cuda = on_cuda(config.accelerator)
        workers = 1 if cuda else 0  # more of them would give the images another order
        trained = train(replace(config, workers=workers))
        options = {"workers": workers, "device": "cuda" if cuda else "cpu", "progress": False}
        evaluate(trained.checkpoint, config.data, split, run.record, **options)
    return run


def table(todo: Sequence[Run]) -> str:
    """A line per run: errors, training images and time, or that it is missing."""
    lines = [f"{'run':30}{'MPJPE':>8}{'PA-MPJPE':>10}{'MVE':>8}{'images':>9}{'minutes':>9}"]
    for run in todo:
        name = f"{run.variant}, seed {run.seed}"
        if not run.done:
            lines.append(f"{name:30}{'missing' if not run.folder.exists() else 'begun':>8}")
            continue
        record = results.read_json(run.record)
        errors = [record["metrics"][error]["mean"] for error in ("mpjpe", "pa_mpjpe", "mve")]
        trained = record["checkpoint"]["metadata"]
        text = f"{name:30}{errors[0]:8.1f}{errors[1]:10.1f}{errors[2]:8.1f}"
        lines.append(f"{text}{trained['images']:9,}{trained['seconds'] / 60:9.1f}")
    return "\n".join(lines)


def _experiment(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}; choose from {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
