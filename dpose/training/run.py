"""Trains a network: one stage, Adam, clipped gradients (paper section 4.2).

Call `train(TrainConfig(...))`. lightning runs the loop, the devices and the callbacks; a step is in
`dpose.training.step`, the files are written in `dpose.training.callbacks`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from dpose.body import Body
from dpose.config import ModelConfig
from dpose.data.fingerprint import data_samples
from dpose.data.sources import find_sources
from dpose.io import remove_stale, write_json
from dpose.model import checkpoint
from dpose.paths import data_roots
from dpose.training.callbacks import Checkpoints, CsvLog, Journal, ProgressBar, RunFolderIO
from dpose.training.config import TrainConfig, fingerprint
from dpose.training.environment import (
    launched,
    on_cuda,
    precision_record,
    preserved,
    set_up_process,
    without_requeue,
)
from dpose.training.resume import FREE, Stored, read_checkpoint
from dpose.training.start import (
    ENCODERS_ONLY,
    body_of_data,
    initialise_heads,
    move_aside,
    starting_network,
    warn_of_poor_starts,
)
from dpose.training.step import Training
from dpose.training.stopping import SIGNALS, Stopped, StopSignals
from dpose.training.validation import Validation, validation_sources

CPU = ("auto", "cpu")
TIMEOUT = timedelta(minutes=10)  # that a process waits for the others
STATUSES = {128 + signum: signum for signum in SIGNALS}


@dataclass(frozen=True)
class TrainResult:
    """What a run left in its folder, read from its files."""

    checkpoint: Path  # model.safetensors
    resume: Path  # last.ckpt
    best: Path | None  # best.safetensors, if there were validations
    log: Path  # log.csv
    losses: dict[str, float]  # every term, averaged over the last row of the log
    steps: int
    seconds: float  # of training, earlier parts of a resumed run included
    images_per_second: float  # after the first step, since the run was last resumed
    config: TrainConfig  # as resolved


def train(
    config: TrainConfig, loggers: Sequence[Logger] = (), callbacks: Sequence[lightning.Callback] = ()
) -> TrainResult:
    """Train a network with the settings of `config`; returns the paths of its files and the last losses.

    loggers, callbacks: lightning's, in addition to our own. Random state, threads, precision flags and signal
    handlers of the calling process are restored afterwards.

    A resumed run that had made its last step trains no more: files that it left incomplete are completed.

    Raises what `TrainConfig.resolve` and `make_loader` raise, ValueError if body and data do not fit, and
    FloatingPointError for a loss that is not finite; the last checkpoint is kept. After other errors during
    the run, and if the run is stopped, the weights are saved first. A stopped run raises KeyboardInterrupt
    (Ctrl-C) or `Stopped`, a SystemExit (SIGTERM).
    """
    config = config.resolve()
    stored = read_checkpoint(config.resume) if config.resume is not None else None
    if stored is not None and config.completes(stored):
        _complete(config, stored)
        return _result(config)
    signals, begin = StopSignals(), time.time()
    try:
        with preserved(), _quiet(), signals.installed():
            _train(config, stored, signals, loggers, callbacks)
    except MisconfigurationException as error:  # lightning's, about devices that are not there
        raise ValueError(str(error)) from error
    except (Stopped, RuntimeError, ProcessExitedException, ProcessRaisedException) as error:
        if isinstance(error, Stopped) and not error.code:
            raise  # the first process reports
        # A RuntimeError may come from loader processes that got the signal too.
        if signum := signals.received or STATUSES.get(getattr(error, "exit_code", None)):
            message = _stop_message(config, begin)
            if signum == signal.SIGINT:
                raise KeyboardInterrupt(message) from None
            raise Stopped(signum, message) from None
        if isinstance(error, ProcessExitedException):
            message = f"a training process was killed ({error}), perhaps because memory ran out"
        elif isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
            message = "another process of the run ended, or does not answer"
        elif isinstance(error, ProcessRaisedException):
            raise RuntimeError(_last_message(str(error))) from error
        else:
            raise
        raise RuntimeError(f"{message}; {_stop_message(config, begin)}") from error
    return _result(config)


def _result(config: TrainConfig) -> TrainResult:
    out = Path(config.out)
    rows = CsvLog(out / "log.csv").rows()
    if not rows:
        raise FileNotFoundError(f"{out / 'log.csv'} has no rows; all nodes of a run must share its folder")
    row = rows[-1]
    names = list(row)
    return TrainResult(
        checkpoint=out / "model.safetensors",
        resume=out / "last.ckpt",
        best=out / "best.safetensors" if (out / "best.safetensors").exists() else None,
        log=out / "log.csv",
        losses={name: float(row[name]) for name in names[names.index("grad_norm") + 1 :]},
        steps=int(row["step"]),
        seconds=float(row["seconds"]),
        images_per_second=float(row["images_per_second"]),
        config=config,
    )


def _complete(config: TrainConfig, stored: Stored) -> None:
    """Complete the files of a run that was killed between its last checkpoint and its end."""
    metadata = checkpoint.metadata(config.out / "model.safetensors")  # written before `last.ckpt`
    record = config.out / "run.json"
    remove_stale(config.out)
    CsvLog(config.out / "log.csv").trim(stored.step)
    if not record.exists() or json.loads(record.read_text(encoding="utf-8"))["status"] != "finished":
        write_json(record, {"status": "finished", **metadata})
    config.note(f"the run in {config.out} is complete at step {stored.step}")


def _train(
    config: TrainConfig,
    stored: Stored | None,
    signals: StopSignals,
    loggers: Sequence[Logger],
    callbacks: Sequence[lightning.Callback],
) -> None:
    set_up_process(config.precision, config.accelerator)
    torch.default_generator.manual_seed(config.seed)
    model, origin = starting_network(config, stored)
    sources = find_sources(config.data, "train")
    body = body_of_data(config, sources, stored, origin)
    model.body_record = body.record
    description = describe(config, model.config, body, origin)
    if stored is not None:
        changes = stored.changes(description)
        description["resumed"] = [*stored.config["resumed"], {"step": stored.step, "changes": changes}]
        config.note("; ".join([f"going on at step {stored.step}", *changes]))
    journal = Journal(config, description, stored)
    validation = []
    if config.validate_every:
        if found := validation_sources(config):
            validation = [Validation(journal, found, body)]
        else:
            config.note("the data have no validation split (--val-data names another set): no validation")
    trainer = _Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        accumulate_grad_batches=config.accumulate,
        strategy=_strategy(config),
        max_steps=config.steps,
        max_epochs=-1,
        logger=[journal.csv, *_tensorboard(config, journal.start), *loggers],
        callbacks=[
            journal,
            *validation,
            Checkpoints(journal, signals),
            *([ProgressBar(journal)] if config.progress else []),
            *callbacks,
        ],
        plugins=[RunFolderIO(), *without_requeue()],
        enable_progress_bar=config.progress,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the loader splits the data between devices
        default_root_dir=config.out,
    )
    if config.batch_size % (trainer.world_size * config.accumulate):
        pieces = f" in {config.accumulate} pieces each" if config.accumulate > 1 else ""
        raise ValueError(
            f"batch_size {config.batch_size} does not divide over {trainer.world_size} devices{pieces}"
        )
    if stored is None:
        if trainer.is_global_zero:
            warn_of_poor_starts(config, sources, origin)
        if origin is None or origin["kind"] in ENCODERS_ONLY:
            initialise_heads(model, config)
    if validation and trainer.is_global_zero:
        validation[0].read(model.config)
    if trainer.is_global_zero and not config.continues and (aside := move_aside(config.out)):
        config.note(f"the earlier run in {config.out} is now in {aside}")
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        signals.launcher = trainer.strategy.launcher
    trainer.fit(
        Training(model, body, config, None if stored is None else stored.ranks),
        ckpt_path=None if stored is None else str(config.resume),
        weights_only=True,
    )


class _Trainer(lightning.Trainer):
    """Calls `Checkpoints.rescue` in the process that trains; lightning calls `on_exception` in its parent."""

    def _run_stage(self) -> Any:
        try:
            return super()._run_stage()
        except Exception as error:
            self.checkpoint_callback.rescue(self, error)
            raise


def describe(
    config: TrainConfig, model: ModelConfig, body: Body, origin: dict[str, Any] | None
) -> dict[str, Any]:
    """The resolved configuration as JSON-able values: for checkpoints, `run.json` and the model."""
    samples = [data_samples(root, "train") for root in data_roots(config.data)]
    return {
        "preset": config.preset,
        "model": model.to_dict(),
        "recipe": asdict(config.recipe),
        "seed": config.seed,
        "data": fingerprint(config.data),
        "data_samples": samples if len(samples) > 1 else samples[0],
        "mix": config.mix,
        "body": body.record,
        "init": origin,
        "precision": precision_record(config.precision),
        **{name: getattr(config, name) for name in FREE},
        "resumed": [],
    }


def _strategy(config: TrainConfig) -> str | DDPStrategy:
    """On the CPU several processes are forked: unlike lightning's choice, as well in a notebook."""
    cuda, one = on_cuda(config.accelerator), config.devices == 1
    if config.strategy != "auto" or one and config.nodes == 1 or not (cuda or config.accelerator in CPU):
        return config.strategy
    if one or launched() or cuda and not hasattr(sys, "ps1"):
        start_method = "popen"  # the processes are there, or are started by this program's command line
    else:
        start_method = "fork" if cuda or sys.platform == "linux" else "spawn"
    return DDPStrategy(start_method=start_method, timeout=TIMEOUT)


def _tensorboard(config: TrainConfig, start: int) -> list[Logger]:
    if not config.tensorboard:
        return []
    try:
        return [TensorBoardLogger(config.out, name="tensorboard", version="", purge_step=start + 1)]
    except ModuleNotFoundError as error:
        raise ValueError(f"tensorboard: {error.name} is not installed (pip install tensorboard)") from error


def _stop_message(config: TrainConfig, begin: float) -> str:
    last = Path(config.out) / "last.ckpt"
    if not last.exists() or not config.continues and last.stat().st_mtime < begin:
        return "stopped before there was anything to save"
    return f"stopped at step {read_checkpoint(last).step} of {config.steps}; go on with --resume {last}"


def _last_message(text: str) -> str:
    """The message at the end of a traceback, with its notes, without the exception's name."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = [number for number, line in enumerate(lines) if re.match(r"[\w.]+: ", line)]
    message = "; ".join(lines[found[-1] :] if found else lines[-1:])
    return re.sub(r"^[\w.]+: ", "", message)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the notes and warnings of lightning and its launchers; errors still come through."""
    names = ("lightning.pytorch", "lightning.fabric", "torch.multiprocessing.spawn")
    loggers = [logging.getLogger(name) for name in names]
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
