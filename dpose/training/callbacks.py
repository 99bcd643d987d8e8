"""Callbacks of lightning: the log, the checkpoints, the progress bar.

A run folder holds `model.safetensors` (the weights, for `dpose.load`), `last.ckpt` (all that `resume` needs),
`log.csv` (every loss term) and `run.json` (configuration, hardware and progress). `dpose.training.validation`
adds its own.
"""

from __future__ import annotations

import csv
import math
import multiprocessing
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor

from dpose import results
from dpose.data.loader import Progress
from dpose.io import remove_stale, replacing, write_json
from dpose.model import checkpoint
from dpose.processes import end_with_parent
from dpose.training.config import TrainConfig
from dpose.training.resume import Stored
from dpose.training.step import Training
from dpose.training.stopping import Stopped, StopSignals, report_deaths


class CsvLog(Logger):
    """`log.csv`. lightning's CSVLogger deletes the log of the run that is resumed, and sorts columns."""

    name, version = "log", None

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass  # they are in `run.json`

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **{name: f"{value:.8g}" for name, value in metrics.items()}}
        new = not self.path.exists()
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)

    def rows(self) -> list[dict[str, str]]:
        """The complete rows; none if there is no log."""
        if not self.path.exists():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if None not in (*row.keys(), *row.values())]

    def trim(self, step: int) -> None:
        """Drop the rows after `step` (a killed run logs past its checkpoint) and those cut short."""
        rows = [row for row in self.rows() if int(row["step"]) <= step]
        if not rows:
            self.path.unlink(missing_ok=True)
            return
        with replacing(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


class Journal(lightning.Callback):
    """Sums the losses on the device, logs their means, and counts the batches that were trained on.

    lightning's `LearningRateMonitor` would add rows; the rate is logged here.
    """

    def __init__(self, config: TrainConfig, description: dict[str, Any], stored: Stored | None) -> None:
        self.config, self.description, self.stored = config, description, stored
        self.csv = CsvLog(config.out / "log.csv")
        self.progress = Progress(config.workers)
        self.start = self.step = 0 if stored is None else stored.step
        self.earlier_seconds = 0.0 if stored is None else stored.seconds
        self.names: list[str] = []
        self.sums: Tensor | None = None  # of the losses and the gradient norm since the last row
        self.count = 0  # of the batches since the last row
        self.stepped = False  # whether the last batch ended a step (with accumulation not every one does)
        self.begun = False
        self.losses: dict[str, float] = {}  # of the last row
        self.validation: dict[str, Any] = {}  # the last scores, and the best

    def on_train_start(self, trainer: lightning.Trainer, module: Training) -> None:
        self.begin = self.first_step_end = time.monotonic()
        self.description |= results.provenance()  # of now: a checkout may change while the run goes on
        if self.stored is not None and len(self.stored.ranks) == trainer.world_size:
            mine = self.stored.ranks[trainer.global_rank]
            if mine["count"]:
                self.sums, self.count = torch.tensor(mine["sums"], device=module.device), mine["count"]
        if trainer.is_global_zero:
            if module.loader.resumed == "new order":
                self.config.note("other processes or workers than before: the order of the data begins anew")
            self.config.out.mkdir(parents=True, exist_ok=True)
            remove_stale(self.config.out)
            self.csv.trim(self.start if self.config.continues else 0)
            self.write_run("training")

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if not self.begun:  # lightning steps at multiples of this count, and `accumulate` may have changed
            self.begun = True
            trainer.fit_loop.epoch_loop.batch_progress.current.ready = self.start * self.config.accumulate + 1

    def on_train_batch_end(self, trainer, module: Training, outputs, batch, batch_idx) -> None:
        if self.step == self.start:
            self.names = list(module.losses)
            self.first_step_end = time.monotonic()
        self.stepped = trainer.global_step > self.step
        losses = torch.stack(list(module.losses.values()))
        norm = module.grad_norm * self.config.accumulate if self.stepped else losses.new_zeros(())
        values = torch.cat([losses, norm[None]])
        self.sums = values if self.sums is None else self.sums + values
        self.count += 1
        self.step = trainer.global_step
        self.progress.update(batch)
        if not self.stepped:
            return
        if self.step >= self.config.steps or self.step % self.config.log_every == 0:
            self._log_row(trainer)

    def state(self) -> dict[str, Any]:
        """What this process needs to go on exactly from here."""
        sums = [] if self.sums is None else self.sums.tolist()
        return {"loader": self.progress.state(), "sums": sums, "count": self.count}

    def means(self, trainer: lightning.Trainer | None = None) -> list[float]:
        """Means of the losses and of the gradient norm since the last row; of all devices, given a trainer.

        Waits for the device. Raises FloatingPointError if one is not finite.
        """
        if self.sums is None:
            return []
        means = self.sums / self.count
        means = (means if trainer is None else trainer.strategy.reduce(means, reduce_op="mean")).tolist()
        if not all(map(math.isfinite, means)):
            values = ", ".join(f"{name} {value:.4g}" for name, value in zip(self.names, means, strict=False))
            last = self.config.out / "last.ckpt"
            advice = f" and go on with --resume {last}" if last.exists() else ""
            raise FloatingPointError(
                f"the loss is no longer finite at step {self.step} ({values}); lower the rate (--lr, "
                f"now {self.config.lr:g}){advice}"
            )
        return means

    def metadata(self) -> dict[str, Any]:
        """The run so far, for `run.json` and the model."""
        return self.description | {
            "step": self.step,
            "images": self.step * self.config.batch_size,
            "seconds": self.seconds(),
            "losses": self.losses,
            **({"validation": self.validation} if self.validation else {}),
        }

    def seconds(self) -> float:
        """Time of training so far, earlier parts of a resumed run included."""
        return round(self.earlier_seconds + time.monotonic() - self.begin, 2)

    def write_run(self, status: str) -> None:
        write_json(self.config.out / "run.json", {"status": status, **self.metadata()})

    def _log_row(self, trainer: lightning.Trainer) -> None:
        means = self.means(trainer)
        self.sums, self.count = None, 0
        self.losses = dict(zip(self.names, means[:-1], strict=True))
        images = (self.step - self.start - 1) * self.config.batch_size
        row = {
            "images": self.step * self.config.batch_size,
            "seconds": self.seconds(),
            "images_per_second": images and images / (time.monotonic() - self.first_step_end),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "grad_norm": means[-1],
            **self.losses,
        }
        for logger in trainer.loggers if trainer.is_global_zero else ():
            logger.log_metrics(row, self.step)


class Checkpoints(ModelCheckpoint):
    """`model.safetensors`, then `last.ckpt`: at intervals, at the end, when stopped, and on an error.

    With several processes the first one's signals count, and all stop after the same step. After an error in
    a process, which must not enter a collective operation, the first process saves by itself, without the
    others' positions in the data: the order of the data then begins anew. lightning's `save_on_exception`
    enters a collective operation, and saves weights that are not finite.
    """

    def __init__(self, journal: Journal, signals: StopSignals) -> None:
        super().__init__(
            journal.config.out,
            save_top_k=0,
            save_last=True,
            enable_version_counter=False,
            train_time_interval=timedelta(minutes=journal.config.checkpoint_minutes),
        )
        self.path = journal.config.out / "last.ckpt"
        self.journal, self.signals = journal, signals
        self.saved = journal.start
        self.alone = False

    def state_dict(self) -> dict[str, Any]:
        return {}  # a resumed run may be in another folder

    def setup(self, trainer: lightning.Trainer, module: Training, stage: str) -> None:
        super().setup(trainer, module, stage)
        self.signals.install()
        if multiprocessing.parent_process() is not None or trainer.local_rank > 0:
            end_with_parent()
        if isinstance(launcher := trainer.strategy.launcher, _SubprocessScriptLauncher):
            report_deaths(launcher.procs)

    def on_train_start(self, trainer: lightning.Trainer, module: Training) -> None:
        super().on_train_start(trainer, module)
        self.signals.install()  # again: lightning has replaced the handler
        self.signals.looping = True

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Training, *rest: Any) -> None:
        if not self.journal.stepped:
            return
        finished = trainer.global_step >= trainer.max_steps
        if trainer.world_size > 1 and module.device.type != "cpu":
            if trainer.global_step % self.journal.config.log_every and not finished:
                return  # collective operations follow, which wait for the device: once per row of the log
        before = self.saved
        super().on_train_batch_end(trainer, module, *rest)  # saves at intervals; the first process decides
        signum = trainer.strategy.broadcast(self.signals.received)
        if (finished or signum) and self.saved != trainer.global_step:
            trainer.save_checkpoint(self.path)
        if trainer.is_global_zero and self.saved != before:
            self.journal.write_run("finished" if finished else "stopped" if signum else "training")
        if signum and not finished:
            raise Stopped(signum, leader=trainer.local_rank == 0)

    def on_train_end(self, *_: Any) -> None:
        pass  # saved after the last step

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, module: Training, content: dict[str, Any]
    ) -> None:
        journal = self.journal
        together = trainer.world_size > 1 and not self.alone
        journal.means(trainer if together else None)  # raises if they are not finite
        self.saved = journal.step
        ranks = [journal.state()]
        if together:
            ranks *= trainer.world_size
            torch.distributed.all_gather_object(ranks, journal.state())
        content["dpose"] = {
            "step": journal.step,
            "seconds": journal.seconds(),
            "config": journal.description | journal.config.paths(),
            "ranks": ranks,
        }
        if trainer.is_global_zero:
            checkpoint.save(module.model, journal.config.out / "model.safetensors", journal.metadata())

    def rescue(self, trainer: lightning.Trainer, error: Exception) -> None:
        """Called before an error ends the run: the weights are saved, if they are new and finite."""
        if not trainer.is_global_zero or self.journal.step == self.saved:
            return
        self.alone = True
        with suppress(Exception):  # the first error is the one to report
            content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            trainer.strategy.checkpoint_io.save_checkpoint(content, self.path)
            self.journal.write_run("stopped" if self.signals.received else "failed")
            error.add_note(f"the first {self.saved} steps are saved; --resume {self.path} goes on")


class RunFolderIO(TorchCheckpointIO):
    """Writes checkpoints beside their target. lightning's own goes through memory and $TMPDIR."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        if _is_return_value(path):
            return
        with replacing(path) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except (OSError, RuntimeError) as error:  # torch's writer raises the latter for a full disk
                free = shutil.disk_usage(temporary.parent).free
                raise OSError(f"{path} cannot be written ({free:,} bytes are free): {error}") from error

    def load_checkpoint(self, path: str | Path, *rest: Any, **options: Any) -> dict[str, Any]:
        return {} if _is_return_value(path) else super().load_checkpoint(path, *rest, **options)


def _is_return_value(path: str | Path) -> bool:
    """Whether a spawned process returns weights by this file in $TMPDIR. The run folder has them."""
    return Path(path).name == ".temp.ckpt"


class ProgressBar(TQDMProgressBar):
    """lightning's bar, for the steps of the whole run instead of an epoch, and on stderr."""

    def __init__(self, journal: Journal) -> None:
        steps = journal.config.steps
        super().__init__(refresh_rate=1 if sys.stderr.isatty() else max(1, steps // 20))
        self.journal = journal

    def init_train_tqdm(self) -> Tqdm:
        config = self.journal.config
        return Tqdm(
            total=config.steps,
            initial=self.journal.start,
            desc=config.preset,
            unit="step",
            disable=self.is_disabled,
            dynamic_ncols=True,
        )

    def on_train_epoch_start(self, *_: Any) -> None:
        pass  # the one epoch has no end

    def get_metrics(self, trainer: lightning.Trainer, module: Training) -> dict[str, str]:
        loss = self.journal.losses.get("total")
        return {} if loss is None else {"loss": f"{loss:.4g}"}
