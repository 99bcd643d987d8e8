"""`train`: one stage, Adam, clipped gradients (paper section 4.2; the book's training page has the facts).

`train(TrainConfig(...))` is all of it. lightning drives the loop, the devices and the callbacks; what a step
computes is in `dpose.training.step`, what is written in `dpose.training.callbacks`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from dpose.body import DEFAULT_BODY, Body, check_record, load_body
from dpose.config import ModelConfig, preset
from dpose.data.fingerprint import data_fingerprint, data_samples
from dpose.data.loader import MAX_BAD
from dpose.data.means import Means, training_means
from dpose.data.sample import MARGIN, Sample
from dpose.data.shards import BadSample
from dpose.data.sources import BadCount, Shards, find_sources
from dpose.io import file_hash
from dpose.model import checkpoint, released
from dpose.model.network import DPose
from dpose.paths import data_roots
from dpose.training.callbacks import (
    Checkpoints,
    Journal,
    ProgressBar,
    RunFolderIO,
    move_aside,
    read_rows,
)
from dpose.training.config import TrainConfig, fingerprints
from dpose.training.environment import on_cuda, precision_record, preserved, set_up_process
from dpose.training.resume import FREE, Stored, read_checkpoint
from dpose.training.step import Training
from dpose.training.stopping import Stopped, StopSignals

STATISTICS_SAMPLES = 2048  # of the training set, for the means that the heads start from


@dataclass(frozen=True)
class TrainResult:
    """What a run left in its folder, read from its files."""

    checkpoint: Path  # model.safetensors
    resume: Path  # last.ckpt
    log: Path  # log.csv
    losses: dict[str, float]  # every term, averaged over the last row of the log
    steps: int
    seconds: float  # of training, earlier parts of a resumed run included
    images_per_second: float  # after the first step, since the run was last resumed
    config: TrainConfig  # as resolved


def train(
    config: TrainConfig, loggers: Sequence[Logger] = (), callbacks: Sequence[lightning.Callback] = ()
) -> TrainResult:
    """Train a network as `config` says and return where it is.

    loggers, callbacks: of lightning's, beside our own. Random state, threads and precision flags of the
    calling process are as before afterwards.
    Raises what `TrainConfig.resolve` raises; ValueError if the body that the data name does not fit; what the
    data raise while they are read; FloatingPointError for a loss that is no longer finite, where the last
    checkpoint stays; after any other error in mid-run what was learned is saved first. A run that is stopped
    saves too, and raises KeyboardInterrupt for Ctrl-C, `Stopped` (a SystemExit of code 143) for SIGTERM.
    """
    config = config.resolve()
    stored = read_checkpoint(config.resume) if config.resume is not None else None
    signals = StopSignals()
    try:
        with preserved(), _quiet(), signals.installed():
            _train(config, stored, signals, loggers, callbacks)
    except (Stopped, ProcessExitedException) as stop:
        if isinstance(stop, Stopped) and not stop.code:
            raise  # the process that it follows reports
        if not signals.received:
            raise RuntimeError(f"a training process was killed ({stop}); was memory short?") from stop
        if signals.received == signal.SIGINT:
            raise KeyboardInterrupt(_stop_message(config)) from None
        raise Stopped(signals.received, _stop_message(config)) from None
    except ProcessRaisedException as error:
        raise RuntimeError(_last_message(str(error))) from error
    except MisconfigurationException as error:  # lightning's, about devices that are not there
        raise ValueError(str(error)) from error
    return _result(config)


def _train(
    config: TrainConfig,
    stored: Stored | None,
    signals: StopSignals,
    loggers: Sequence[Logger],
    callbacks: Sequence[lightning.Callback],
) -> None:
    set_up_process(config.precision, config.accelerator)
    torch.default_generator.manual_seed(config.seed)
    model, origin = _network(config, stored)
    sources = find_sources(data_roots(config.data), "train", model.config)
    body = _body(config, sources, stored, origin)
    journal = Journal(config, describe(config, model.config, body, origin, stored), stored)
    checkpoints = Checkpoints(journal, signals)
    trainer = _Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy=_strategy(config),
        max_steps=config.steps,
        max_epochs=-1,
        logger=[journal.csv, *_tensorboard(config, journal.start), *loggers],
        callbacks=[journal, checkpoints, *([ProgressBar(journal)] if config.progress else []), *callbacks],
        plugins=[RunFolderIO()],
        enable_progress_bar=config.progress,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the loader splits the shards between devices
        default_root_dir=config.out,
    )
    if config.batch_size % trainer.world_size:
        raise ValueError(f"batch_size {config.batch_size} does not divide over {trainer.world_size} devices")
    if stored is None:
        _warn_of_poor_starts(config, sources, origin)
        if origin is None or origin["kind"] == "hrnet":
            initialise_heads(
                model,
                training_means(
                    config.data, model.config, STATISTICS_SAMPLES, mix=config.mix, max_bad=config.max_bad
                ),
                priors=config.recipe.priors,
            )
    if trainer.is_global_zero and not config.continues and (aside := move_aside(config.out)):
        config.note(f"the earlier run in {config.out} is now in {aside}")
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        signals.forward = trainer.strategy.launcher.kill
    trainer.fit(
        Training(model, body, config, stored and stored.ranks),
        ckpt_path=None if stored is None else str(config.resume),
        weights_only=True,
    )


class _Trainer(lightning.Trainer):
    """Calls `Checkpoints.rescue` in the process that trains; lightning's `on_exception` is for its parent."""

    def _run_stage(self) -> Any:
        try:
            return super()._run_stage()
        except Exception as error:
            self.checkpoint_callback.rescue(self, error)
            raise


def describe(
    config: TrainConfig,
    model: ModelConfig,
    body: Body,
    origin: dict[str, Any] | None,
    stored: Stored | None,
) -> dict[str, Any]:
    """The resolved configuration as JSON-able values, for checkpoints, `run.json` and the model's metadata."""
    roots = data_roots(config.data)
    samples = [data_samples(root, "train") for root in roots]
    description = {
        "preset": config.preset,
        "model": model.to_dict(),
        "recipe": asdict(config.recipe),
        "seed": config.seed,
        "data": fingerprints([data_fingerprint(root) for root in roots]),
        "data_samples": samples if len(roots) > 1 else samples[0],
        "mix": None if config.mix is None else list(config.mix),
        "body": body.record,
        "init": origin,
        "precision": precision_record(config.precision),
        **{name: getattr(config, name) for name in FREE},
        "resumed": [],
    }
    if stored is not None:
        changes = stored.changes(description)
        description["resumed"] = [*stored.config["resumed"], {"step": stored.step, "changes": changes}]
        config.note(f"resuming at step {stored.step}" + "".join(f"; {change}" for change in changes))
    return description


def initialise_heads(model: DPose, statistics: Means, priors: bool) -> None:
    """Give a fresh network the training set's mean pose, shape and camera to add its residuals to.

    With `priors` the last layers of the map decoders also start at the classes' frequencies and at the mean
    depth of a person, so that the first thousand steps need not learn them.
    """
    model.set_means(statistics.pose6d, statistics.betas, statistics.cam)
    if priors:
        model.init_head_priors(statistics.part_frequency, float(statistics.mean_depth))


def _network(config: TrainConfig, stored: Stored | None) -> tuple[DPose, dict[str, Any] | None]:
    """The network at the start of the run, and where its weights come from (None: random).

    That is, for `init`, the file's hash, its `kind` ("dpose", "released" or "hrnet") and its metadata; for an
    HRNet, which layers of the encoder it left at random and which of its own were not used.

    Raises ValueError for a file that is none of the three, or of another preset.
    """
    if stored is not None:  # the weights follow from the checkpoint
        return DPose(ModelConfig.from_dict(stored.config["model"])), stored.config["init"]
    model = DPose(preset(config.preset))
    if config.init is None:
        return model, None
    path = checkpoint.resolve(config.init)
    content = released.read_torch_file(path) if released.is_torch_file(path) else None
    kind = "dpose" if content is None else released.kind(content)
    origin = {"checkpoint": Path(config.init).name, "sha256": file_hash(path), "kind": kind}
    if kind == "hrnet":
        report = released.load_keypoint_weights(model.encoder, content, f"init: {config.init}")
        config.note(str(report))
        return model, origin | report._asdict()
    start, metadata = checkpoint.read(path, content)
    if replace(start.config, part_order=model.config.part_order) != model.config:
        raise ValueError(
            f"init: {config.init} holds a {start.config.name!r} network, not {model.config.name!r}"
        )
    return start.train(), metadata | origin


def _body(
    config: TrainConfig, sources: Sequence[Shards], stored: Stored | None, origin: dict[str, Any] | None
) -> Body:
    """The body that the data name. Raises ValueError if data, `body`, `init` and `resume` disagree."""
    named = [(source.name, name) for source in sources for name in source.bodies or _labelled(source)]
    for where, name in named:
        check_bodies(where, [name])
        if name != named[0][1]:
            raise ValueError(
                f"{where} belongs to the body {name!r}, {named[0][0]} to {named[0][1]!r}; a network is trained "
                "for one body"
            )
    name = named[0][1]
    body = load_body(
        config.body or name,
        num_betas=preset(config.preset).num_betas,
        vertex_stride=config.recipe.vertex_stride,
    )
    for source in sources:
        check_record(body, source.bodies.get(name), source.name)
    if stored is not None:
        check_record(body, stored.config["body"], f"the run in {config.resume}")
    if origin is not None and origin["kind"] != "hrnet" and stored is None:
        record = origin.get("body") or {"released": {"name": DEFAULT_BODY}}.get(origin["kind"])
        if record is None and config.body is None:
            raise ValueError(
                f"init: {config.init} does not say for which body it was trained; name it (--body)"
            )
        if record is not None and record["name"] != name:
            raise ValueError(
                f"init: {config.init} was trained for the body {record['name']!r}, the data belong to {name!r}"
            )
        check_record(body, record, f"init: {config.init}")
    body.name = name  # a file of the user's may have another name
    return body


def check_bodies(where: str, names: Iterable[str]) -> None:
    """Raises ValueError if one of the bodies that labels name is not of the network's format."""
    for name in names:
        if name not in ("open", DEFAULT_BODY):
            raise ValueError(
                f"{where} is labelled with the body {name!r}; training needs 'open' or {DEFAULT_BODY!r} "
                "(sets of other bodies are for evaluation)"
            )


def _labelled(source: Shards) -> list[str]:
    """The body of a set whose manifest names none."""
    return [_first_sample(source)["label"].get("body", DEFAULT_BODY)]


def _first_sample(source: Shards) -> Sample:
    bad = BadCount(MAX_BAD, 0)
    for index in range(len(source.pieces)):
        for item in source.read(index, bad):
            try:
                return source.decode(item)
            except BadSample as error:
                bad.sample(str(error))
    raise ValueError(f"{source.name}: there is no sample in its training split")


def _warn_of_poor_starts(
    config: TrainConfig, sources: Sequence[Shards], origin: dict[str, Any] | None
) -> None:
    needed = round(MARGIN * preset(config.preset).image_size)
    for source in sources:
        side = _first_sample(source)["image"].shape[0]
        if side < needed:
            warnings.warn(
                f"{source.name} is stored at {side} pixels; the network {config.preset} needs {needed}, and "
                "will see enlarged, blurred images",
                stacklevel=2,
            )
    if config.preset.startswith("paper") and origin is None:
        warnings.warn(
            f"{config.preset} starts from random weights, for which its learning rate is too small; the paper "
            "starts from an encoder trained on COCO keypoints (--init pose_hrnet_w48_256x192.pth)",
            stacklevel=2,
        )


def _strategy(config: TrainConfig) -> str:
    """On the CPU several processes are forked: that needs no script to start again, as in a notebook."""
    if config.strategy != "auto" or config.devices == 1 or config.accelerator not in ("auto", "cpu"):
        return config.strategy
    if on_cuda(config.accelerator):
        return config.strategy
    return "ddp_fork" if sys.platform == "linux" else "ddp_spawn"


def _tensorboard(config: TrainConfig, start: int) -> list[Logger]:
    if not config.tensorboard:
        return []
    try:
        return [TensorBoardLogger(config.out, name="tensorboard", version="", purge_step=start + 1)]
    except ModuleNotFoundError as error:
        raise ValueError(f"tensorboard: {error.name} is not installed (pip install tensorboard)") from error


def _result(config: TrainConfig) -> TrainResult:
    out = Path(config.out)
    row = read_rows(out / "log.csv")[-1]
    names = list(row)
    return TrainResult(
        checkpoint=out / "model.safetensors",
        resume=out / "last.ckpt",
        log=out / "log.csv",
        losses={name: float(row[name]) for name in names[names.index("grad_norm") + 1 :]},
        steps=int(row["step"]),
        seconds=float(row["seconds"]),
        images_per_second=float(row["images_per_second"]),
        config=config,
    )


def _stop_message(config: TrainConfig) -> str:
    last = Path(config.out) / "last.ckpt"
    if not last.exists():
        return "stopped before there was anything to save"
    step = read_checkpoint(last).step
    return f"stopped at step {step} of {config.steps}; go on with --resume {last}"


def _last_message(text: str) -> str:
    """The message at the end of a traceback, without the exception's name."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = [i for i, line in enumerate(lines) if re.match(r"[\w.]+: ", line)]
    if not found:
        return lines[-1]
    message = "; ".join(lines[found[-1] :])
    return re.sub(r"^[\w.]+: ", "", message)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back lightning's notes and warnings; errors still come through."""
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
