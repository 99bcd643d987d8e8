"""What a run starts from: weights, the body that the data name, a folder without another run."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dpose.body import DEFAULT_BODY, Body, check_record, load_body
from dpose.config import ModelConfig, preset
from dpose.data.means import training_means
from dpose.data.sample import MARGIN, Sample
from dpose.data.shards import BadSample
from dpose.data.sources import BadCount, Shards
from dpose.io import file_hash
from dpose.model import checkpoint, released
from dpose.model.encoder import ASSETS, BACKBONES
from dpose.model.hrnet import HRNet
from dpose.model.network import DPose
from dpose.training.config import RANDOM, TrainConfig, check_bodies
from dpose.training.resume import Stored

FILES = (  # of a run folder
    *("last.ckpt", "model.safetensors", "log.csv", "run.json", "tensorboard"),
    *("best.safetensors", "val.csv", "samples", "curves.png"),
)
ENCODERS_ONLY = ("hrnet", "backbone")  # kinds of origins that give weights to the encoder alone


def starting_network(config: TrainConfig, stored: Stored | None) -> tuple[DPose, dict[str, Any] | None]:
    """A new network, with the weights of `init` if given, and where these come from (None: random).

    The origin is the file's hash, its `kind` ("dpose", "released", "hrnet" or "backbone") and its metadata;
    for an HRNet, which layers of the encoder stay at random values and which of the file's layers were not
    used.

    Raises ValueError for a file of another kind, or of another network than the preset's.
    """
    if stored is not None:  # the weights follow from the checkpoint
        return DPose(ModelConfig.from_dict(stored.config["model"])), stored.config["init"]
    model = DPose(preset(config.preset))
    if config.init == RANDOM or config.init is None and isinstance(model.encoder, HRNet):
        return model, None
    if config.init is None:
        model.encoder.load_pretrained()
        asset = BACKBONES[model.config.encoder].asset
        return model, {"checkpoint": asset, "sha256": file_hash(ASSETS / asset), "kind": "backbone"}
    path = checkpoint.resolve(config.init)
    content = released.read_torch_file(path) if released.is_torch_file(path) else None
    kind = "dpose" if content is None else released.kind(content)
    origin = {"checkpoint": Path(config.init).name, "sha256": file_hash(path), "kind": kind}
    if kind == "hrnet":
        if not isinstance(model.encoder, HRNet):
            raise ValueError(
                f"init: {config.init} holds an HRNet, but the encoder of {config.preset!r} is "
                f"{model.config.encoder}; choose a paper preset (--preset), or leave out --init"
            )
        report = released.load_keypoint_weights(model.encoder, content, f"init: {config.init}")
        config.note(str(report))
        return model, origin | report._asdict()
    start, metadata = checkpoint.read(path, content)
    wanted = replace(model.config, part_order=start.config.part_order)
    # The weights do not depend on the side of the crop, only on the maps' share of it.
    compared = replace(start.config, image_size=wanted.image_size, map_size=wanted.map_size)
    if compared != wanted or _map_share(start.config) != _map_share(wanted):
        raise ValueError(
            f"init: {config.init} holds a {start.config.name!r} network, not {model.config.name!r}"
        )
    model = DPose(wanted)
    model.load_state_dict(start.state_dict())
    return model.train(), metadata | origin


def _map_share(config: ModelConfig) -> float:
    return config.map_size / config.image_size


def initialise_heads(model: DPose, config: TrainConfig) -> None:
    """Give a new network the training set's mean pose, shape and camera to add its residuals to.

    With the recipe's `priors` the last layers of the map decoders start at the classes' frequencies and at
    the mean depth of a person, so that the first thousand steps need not learn them.
    """
    means = training_means(config.data, model.config, mix=config.mix, max_bad=config.max_bad)
    model.set_means(means.pose6d, means.betas, means.cam)
    if config.recipe.priors:
        model.init_head_priors(means.part_frequency, float(means.mean_depth))


def body_of_data(
    config: TrainConfig, sources: Sequence[Shards], stored: Stored | None, origin: dict[str, Any] | None
) -> Body:
    """The body that the data name. Raises ValueError if data, `body`, `init` and `resume` disagree."""
    named = [(source.name, name) for source in sources for name in source.bodies or [_labelled(source)]]
    for where, name in named:
        check_bodies(where, [name])
        if name != named[0][1]:
            raise ValueError(
                f"{where} belongs to the body {name!r}, {named[0][0]} to {named[0][1]!r}; a network is "
                "trained for one body"
            )
    name = named[0][1]
    num_betas = preset(config.preset).num_betas
    body = load_body(config.body or name, num_betas, config.recipe.vertex_stride)
    for source in sources:
        check_record(body, source.bodies.get(name), source.name)
    if stored is not None:
        check_record(body, stored.config["body"], f"the run in {config.resume}")
    elif origin is not None and origin["kind"] not in ENCODERS_ONLY:
        where = f"init: {config.init}"
        record = origin.get("body")
        if record is None and config.body is None:
            raise ValueError(f"{where} has no record of the body it was trained for; name it (--body)")
        if record is not None and record["name"] != name:
            raise ValueError(
                f"{where} was trained for the body {record['name']!r}, the data belong to {name!r}"
            )
        check_record(body, record, where)
    body.name = name  # the user's file may have another name
    return body


def warn_of_poor_starts(
    config: TrainConfig, sources: Sequence[Shards], origin: dict[str, Any] | None
) -> None:
    """Warn of stored images too small for the network, and of the paper's recipe from random weights."""
    needed = round(MARGIN * preset(config.preset).image_size)
    for source in sources:
        side = _first_sample(source)["image"].shape[0]
        if side < needed:
            warnings.warn(
                f"{source.name} is stored at {side} pixels, the {config.preset} network needs {needed}: it "
                "will see enlarged, blurred images",
                stacklevel=2,
            )
    if config.preset.startswith("paper") and origin is None:
        warnings.warn(
            f"{config.preset} starts from random weights, for which its learning rate is too small; the "
            "paper starts from an encoder trained on COCO keypoints (--init pose_hrnet_w48_256x192.pth)",
            stacklevel=2,
        )


def move_aside(folder: Path) -> Path | None:
    """Move the files of a run with weights to a new folder <folder>.1, <folder>.2, ..., and return that."""
    folder = folder.resolve()
    if not any((folder / name).exists() for name in ("last.ckpt", "model.safetensors")):
        return None
    numbers = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(1))
    target = next(path for path in numbers if not path.exists())
    target.mkdir()
    for name in FILES:  # the weights first: they are never left beside another run's `run.json`
        if (folder / name).exists():
            (folder / name).rename(target / name)
    return target


def _labelled(source: Shards) -> str:
    """The body of a set whose manifest names none."""
    return _first_sample(source)["label"].get("body", DEFAULT_BODY)


def _first_sample(source: Shards) -> Sample:
    bad = BadCount(limit=100, epoch=0)
    for index in range(len(source.pieces)):
        for item in source.read(index, bad):
            try:
                return source.decode(item)
            except BadSample as error:
                bad.sample(str(error))
    raise ValueError(f"{source.name} holds no sample in its training split")
