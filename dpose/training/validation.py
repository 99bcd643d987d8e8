"""Validation while training: errors on a fixed part of the validation split, the best weights, pictures.

At intervals, and after the last step, the network is measured in float32 with the functions of
`dpose.evaluate`. The test split is never read. A validation changes neither weights nor random state: a run
takes the same steps with and without it. With several processes the first one validates; the others wait for
it in their next step.

The run folder gets `val.csv`, `best.safetensors` (the weights with the smallest MPJPE so far; its metadata
hold the scores, from which a resumed run knows them), `samples/step-N.png` (a row per person; columns as in
`dpose.figures.PREDICTION_TITLES`) and `curves.png`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import lightning.pytorch as lightning
import torch
from tqdm import tqdm

from dpose import figures
from dpose.batch import Batch
from dpose.body import Bodies, Body, load_body
from dpose.config import ModelConfig
from dpose.data.loader import make_loader
from dpose.data.sources import Shards, find_source
from dpose.evaluate import measure, some_of, summarise
from dpose.io import replacing, write_png
from dpose.model import checkpoint
from dpose.model.inference import run_network, to_device
from dpose.model.network import DPose
from dpose.paths import data_roots
from dpose.training.callbacks import CsvLog, Journal
from dpose.training.config import TrainConfig, fingerprint
from dpose.training.step import Training

SAMPLES = 256  # people that are measured, from shards all over the split
BATCH = 32
PICTURES = 4  # people in `samples/step-N.png`
COLUMNS = ("mpjpe", "pa_mpjpe", "mve", "orientation", "parts_miou", "depth_l1")  # of `dpose.evaluate`


def validation_sources(config: TrainConfig) -> list[Shards]:
    """The validation splits of `config.val_data`, else those that the training data have.

    Raises FileNotFoundError if a set of `val_data` has none, and ValueError for a damaged one.
    """
    if config.val_data is not None:
        return [find_source(root, "val") for root in data_roots(config.val_data)]
    found = []
    for root in data_roots(config.data):
        with suppress(FileNotFoundError):
            found.append(find_source(root, "val"))
    return found


class Validation(lightning.Callback):
    """Measures the network every `validate_every` steps.

    It follows `journal`, which counts the steps, in the list of callbacks. `read` is called in the first
    process before the run. body: that of the training data.
    """

    def __init__(self, journal: Journal, sources: list[Shards], body: Body) -> None:
        self.config, self.journal, self.name = journal.config, journal, body.name
        self.data = [source.name for source in sources]
        self.records = {name: record for source in sources for name, record in source.bodies.items()}
        self.csv = CsvLog(self.config.out / "val.csv")
        self.path = self.config.out / "best.safetensors"
        self.about = {"data": fingerprint(self.data)}
        self.batches: list[Batch] = []  # compact
        self.best: dict[str, float] | None = None  # step and MPJPE
        self.kept = 0  # step up to which rows of `val.csv` are kept
        if self.config.continues:
            self._recall()

    def _recall(self) -> None:
        """Go on from the scores of the run that is resumed, unless they are of other data."""
        stored = checkpoint.metadata(self.path)["validation"] if self.path.exists() else None
        if stored is not None and stored["data"] != self.about["data"]:
            return
        self.kept, self.best = self.journal.start, stored and stored["best"]
        if rows := [row for row in self.csv.rows() if int(row["step"]) <= self.journal.start]:
            scores = {name: float(value) for name, value in rows[-1].items() if name != "images"}
            scores |= {name: int(rows[-1][name]) for name in ("step", "samples")}
            self.journal.validation = self.about | scores | {"best": self.best}

    def read(self, network: ModelConfig) -> None:
        """Read the samples, which stay in memory. Once processes are connected, a loader reads a share."""
        with torch.random.fork_rng(devices=[]):  # a loader draws a seed
            loader = make_loader(
                self.data,
                "val",
                network,
                BATCH,
                depth_rule=self.config.recipe.depth_rule,
                max_bad=self.config.max_bad,
                spread=-(-SAMPLES // len(self.data)),
            )
            self.batches = list(loader)

    def on_train_start(self, trainer: lightning.Trainer, module: Training) -> None:
        if not trainer.is_global_zero:
            return
        config = self.config
        self.csv.trim(self.kept)
        body = load_body(config.body or self.name, module.model.config.num_betas)  # with its faces
        body.name = self.name
        self.body = body.to(module.device)
        self.bodies = Bodies(module.device, given=[self.body], records=self.records)
        with suppress(FloatingPointError), _evaluating(module.model):  # raises if bodies cannot be compared
            measure(module.model, self.batches, self.body, samples=1, bodies=self.bodies)

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Training, *rest: Any) -> None:
        step = self.journal.step
        due = step % self.config.validate_every == 0 or step == self.config.steps
        if not (due and self.journal.stepped and trainer.is_global_zero):
            return
        begin = time.monotonic()
        with _evaluating(module.model):
            self._validate(trainer, module.model)
        self.journal.first_step_end += time.monotonic() - begin  # not in the images per second of training

    def _validate(self, trainer: lightning.Trainer, model: DPose) -> None:
        step = self.journal.step
        try:
            result = summarise(measure(model, self.batches, self.body, bodies=self.bodies))
        except FloatingPointError as error:
            self._print(f"step {step}: no validation: {error}")
            return
        scores = {name: result["metrics"][name]["mean"] for name in COLUMNS if name in result["metrics"]}
        if "depth_l1" in result["ratios"]:
            scores["depth_ratio"] = result["ratios"]["depth_l1"]  # to the error of the best constant
        better = self.best is None or scores["mpjpe"] < self.best["mpjpe"]
        if better:
            self.best = {"step": step, "mpjpe": scores["mpjpe"]}
        samples = {"samples": result["samples"]}
        self.journal.validation = self.about | {"step": step} | samples | scores | {"best": self.best}
        self.csv.log_metrics({"images": step * self.config.batch_size, **samples, **scores}, step)
        if better:
            checkpoint.save(model, self.path, self.journal.metadata())
        for logger in trainer.loggers:
            if logger is not self.journal.csv:
                logger.log_metrics({f"val/{name}": value for name, value in scores.items()}, step)
        self._draw(model, step)
        text = "step {}: MPJPE {mpjpe:.1f}, PA-MPJPE {pa_mpjpe:.1f}, MVE {mve:.1f} mm"
        text += ", parts mIoU {parts_miou:.3f}" if "parts_miou" in scores else ""
        text += ", depth {depth_ratio:.2f} of the best constant's error" if "depth_ratio" in scores else ""
        self._print(text.format(step, **scores) + " (best so far)" * better)

    @torch.inference_mode()
    def _draw(self, model: DPose, step: int) -> None:
        people = [(batch, row) for batch in self.batches for row in range(len(batch["key"]))]
        pictures, count = [], min(PICTURES, len(people))
        for number in range(count):  # from all over the split
            batch, row = people[number * len(people) // count]
            one = to_device(some_of(batch, slice(row, row + 1)), self.body.faces.device)
            pictures += figures.prediction_pictures(run_network(model, one), one, self.body, 0)
        sheet = figures.contact_sheet(pictures, columns=len(figures.PREDICTION_TITLES))
        write_png(self.config.out / "samples" / f"step-{step}.png", sheet)
        curves = figures.validation_curves(self.csv.path, self.journal.csv.path)
        with replacing(self.config.out / "curves.png") as temporary:
            curves.savefig(temporary, format="png", dpi=120)

    def _print(self, text: str) -> None:
        if self.config.progress:
            tqdm.write(text, file=sys.stderr)  # beside a progress bar


@contextmanager
def _evaluating(model: DPose) -> Iterator[None]:
    """The network in evaluation mode; afterwards each part is in its mode of before."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
