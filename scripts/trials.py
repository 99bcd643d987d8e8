"""Short training runs that differ in one thing each, and the table of their scores.

    python scripts/trials.py --list
    python scripts/trials.py lite lite-2d --data data --runs runs/trials \\
        --keypoints coco.json --images photos

Without names: all of `TRIALS` that have no record in results/trials/. They run one after the other, an
interrupted one goes on. Each is measured on the open validation split and, with --keypoints and --images, on
annotated photographs. A record holds what differs, seed, images, seconds, commit, and both measurements.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning.pytorch as lightning  # noqa: E402
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # noqa: E402

from dpose import results  # noqa: E402
from dpose.config import PRESETS  # noqa: E402
from dpose.data.augment import MINI_AUGMENT  # noqa: E402
from dpose.evaluate import evaluate  # noqa: E402
from dpose.io import write_json  # noqa: E402
from dpose.keypoints import evaluate_keypoints  # noqa: E402
from dpose.losses import MINI_WEIGHTS  # noqa: E402
from dpose.model import checkpoint  # noqa: E402
from dpose.model.movenet import LAST_OF  # noqa: E402
from dpose.synthetic import generate  # noqa: E402
from dpose.synthetic.variety import OPTIONS  # noqa: E402
from dpose.training import TrainConfig, Training, recipe, train  # noqa: E402

OUT = Path(__file__).resolve().parents[1] / "results" / "trials"
BATCH = 32
STRONGER = {  # than MINI_AUGMENT
    "half_crop_p": 0.1,
    "scale_sigma": 0.15,
    "shift_sigma": 0.04,
    "fault_p": 0.4,
    "colour_p": 0.4,
}


WITHOUT = {
    "no-poses": ("poses",),
    "no-crowds": ("groups", "tables", "occluders", "framing", "formats"),
    "no-clothes": ("clothes", "belongings"),
    "no-light": ("light", "tone", "focus", "resolution", "backgrounds"),
    "no-lenses": ("lenses", "facing"),
    "no-boxes": ("boxes",),
}
# Data sets: scenes, and options that are switched off. The records of "plain" and "varied" were measured on
# 7,546 people of the generator's version 2 and 9,773 of an early version 3 (commit 90e4853).
DATA = {
    "plain": (6000, OPTIONS),
    "varied": (3000, ()),
    "all": (2000, ()),
    **{name: (2000, options) for name, options in WITHOUT.items()},
    "none": (4400, OPTIONS),
}


@dataclass(frozen=True)
class Trial:
    """A run: what differs from its preset and recipe.

    about: a line for the table. data: sets of `DATA` below --data, which are made if they are missing.
    """

    about: str
    preset: str = "lite"
    images: int = 32_000
    seed: int = 0
    data: tuple[str, ...] = ("plain",)
    init: str | None = None
    average: float = 0.0  # decay of the moving average of the weights that is measured; 0: the last weights
    fixed: tuple[str, ...] = ()  # modules of the backbone that stay fixed although `backbone_lr` is not 0
    model: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)


TRIALS = {
    # 32,000 images each, MINI's losses and augmentation, 32 hidden units, people as in validation and test
    "mini": Trial("MINI: a small HRNet from random weights", preset="mini"),
    "nanodet": Trial("NanoDet's backbone (COCO, detection), fixed", model={"encoder": "nanodet"}),
    "lite-no-places": Trial("LITE without the places of the pixels (commit ed1cf88)"),
    "lite": Trial("LITE: MoveNet's backbone (COCO, keypoints), fixed"),
    "lite-rate-0.1": Trial("MoveNet's backbone at a tenth of the rate", recipe={"backbone_lr": 0.1}),
    "lite-rate-0.3": Trial("MoveNet's backbone at 0.3 of the rate", recipe={"backbone_lr": 0.3}),
    "lite-late": Trial(
        "MoveNet's backbone at 0.3 of the rate, its stages of stride 2 to 8 fixed",
        recipe={"backbone_lr": 0.3},
        fixed=("stem", *(f"blocks.{i}" for i in range(LAST_OF[8] + 1))),
    ),
    "lite-random": Trial(
        "MoveNet's backbone from random weights", init="random", recipe={"backbone_lr": 1.0}
    ),
    "lite-2d": Trial("LITE, 2D term times ten", weights={"lambda_8": 5.0}),
    "lite-augment": Trial("LITE, boxes and pictures changed more strongly", augmentation=STRONGER),
    "lite-average": Trial("LITE, moving average of the weights (0.99)", average=0.99),
    "lite-hidden": Trial("LITE, 128 hidden units per head instead of 32", model={"hidden": 128}),
    "lite-wide": Trial("LITE, width 24 instead of 16", model={"width": 24}),
    "lite-160": Trial("LITE, crops of 160 pixels", model={"image_size": 160, "map_size": 80}),
    "lite-both": Trial("LITE, also people with all the variety of training", data=("plain", "varied")),
    "lite-both-person": Trial(
        "LITE, the same, 2D errors relative to the person",
        data=("plain", "varied"),
        weights={"joints2d_frame": "person"},
    ),
    # the people: the options of `dpose.synthetic.variety` switched off in turn, the same number of people
    "people-all": Trial("people with all options", data=("all",)),
    **{
        f"people-{name}": Trial(f"people without {', '.join(options)}", data=(name,))
        for name, options in WITHOUT.items()
    },
    "people-none": Trial("people of validation and test", data=("none",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*TRIALS, []], metavar="TRIAL")
    parser.add_argument("--list", action="store_true", help="print the trials and their scores")
    parser.add_argument("--data", type=Path, help="folder with the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/trials"))
    parser.add_argument("--keypoints", help="photographs' keypoints in COCO's format")
    parser.add_argument("--images", help="folder of the photographs")
    args = parser.parse_args()
    if not (args.list or args.data) or bool(args.keypoints) != bool(args.images):
        parser.error("a run needs --data; --keypoints and --images belong together")
    for name in args.names or TRIALS:
        record = OUT / f"{name}.json"
        if args.list:
            print(line(name, json.loads(record.read_text()) if record.exists() else None))
        elif not record.exists():
            run(name, TRIALS[name], args)
            print(line(name, json.loads(record.read_text())), flush=True)


def run(name: str, trial: Trial, args: argparse.Namespace) -> None:
    """Make the data, train, measure, write the record."""
    for folder in trial.data:
        scenes, without = DATA[folder]
        if not (args.data / folder / "shards" / "manifest.json").exists():
            generate(
                args.data / folder, {"train": scenes}, frames=0, workers=1, without=without, progress=False
            )
    base = recipe("mini" if trial.preset == "mini" else "lite")
    base = replace(base, backbone_lr=0.0, warmup=0.05, weights=MINI_WEIGHTS, augmentation=MINI_AUGMENT)
    chosen = replace(
        base,
        steps=trial.images // BATCH,
        batch_size=BATCH,
        weights=replace(base.weights, **trial.weights),
        augmentation=replace(base.augmentation, **trial.augmentation),
        **trial.recipe,
    )
    PRESETS["trial"] = replace(PRESETS[trial.preset], name="trial", **{"hidden": 32} | trial.model)
    last = args.runs / name / "last.ckpt"
    resumed = {"resume": last} if last.exists() else {}
    trained = train(
        TrainConfig(
            **resumed,
            preset="trial",
            data=[args.data / folder for folder in trial.data],
            out=args.runs / name,
            seed=trial.seed,
            recipe=chosen,
            init=None if resumed else trial.init,
            accelerator="cpu",
            devices=1,
            workers=0,
            validate_every=0,
            log_every=100,
            progress=False,
        ),
        callbacks=[
            *([Average(trial.average, args.runs / name)] if trial.average else []),
            *([Fix(trial.fixed)] if trial.fixed else []),
        ],
    )
    weights = args.runs / name / Average.file if trial.average else trained.checkpoint
    measured = {"val": evaluate(weights, split="val", workers=0, progress=False)}
    if args.keypoints:
        measured["photos"] = evaluate_keypoints(
            args.keypoints, args.images, weights, workers=0, progress=False
        )
    write_json(
        OUT / f"{name}.json",
        {
            "trial": asdict(trial),
            "seconds": round(trained.seconds, 1),
            "losses": trained.losses,
            **{name: _without(one, "per_joint", "per_part") for name, one in measured.items()},
            **results.provenance(),
        },
    )


class Average(lightning.Callback):
    """Keeps a moving average of weights and batch norm statistics, from the start of the process on."""

    file = "average.safetensors"

    def __init__(self, decay: float, out: Path) -> None:
        self.decay, self.path, self.model = decay, out / self.file, None

    def on_train_batch_end(self, trainer: Any, module: Training, *_: Any) -> None:
        if self.model is None:
            rule = get_ema_multi_avg_fn(self.decay)
            self.model = AveragedModel(module.model, multi_avg_fn=rule, use_buffers=True)
        self.model.update_parameters(module.model)
        if trainer.global_step >= trainer.max_steps:
            checkpoint.save(self.model.module, self.path)


class Fix(lightning.Callback):
    """Takes modules of the backbone out of the training."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def setup(self, trainer: Any, module: Training, stage: str) -> None:  # before the optimizer is made
        for name in self.names:
            module.model.encoder.backbone.get_submodule(name).requires_grad_(False)


def _without(value: Any, *names: str) -> Any:
    """Nested dictionaries without the tables of these names."""
    if not isinstance(value, dict):
        return value
    return {name: _without(one, *names) for name, one in value.items() if name not in names}


def line(name: str, record: dict[str, Any] | None) -> str:
    """A trial's name, its scores, and what it is."""
    scores = " " * 48 + "-"
    if record is not None:
        val = {key: value["mean"] for key, value in record["val"]["metrics"].items()}
        scores = "MPJPE {mpjpe:5.1f} PA {pa_mpjpe:5.1f} mIoU {parts_miou:.3f}".format(**val)
        if "photos" in record:
            photos = record["photos"]["metrics"]
            scores += f"  photos {photos['pck_0.1']['mean']:.1%} {photos['pck_0.2']['mean']:.1%}"
            scores += f" error {photos['error']['mean']:.3f}"
    return f"{name:18} {scores}  {TRIALS[name].about}"


if __name__ == "__main__":
    main()
