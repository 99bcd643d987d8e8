"""Reading `last.ckpt` of an earlier run, and checking what the resumed run changes.

Weights and optimizer are restored by lightning (`ckpt_path` in `dpose.training.run`; `weights_only=True`
there restricts unpickling and leaves nothing out), the position in the data by
`dpose.data.streams.SampleStream`, which gets it from `make_loader(resume=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpose.data.loader import MAX_BAD
from dpose.model import released
from dpose.training.recipe import Recipe

# Options that do not decide the outcome, with their defaults: a resumed run may change them.
FREE = {
    "accelerator": "auto",
    "devices": 1,
    "nodes": 1,
    "accumulate": 1,
    "strategy": "auto",
    "workers": None,
    "log_every": 20,
    "max_bad": MAX_BAD,
    "checkpoint_minutes": 5.0,
    "tensorboard": False,
    "validate_every": None,
    "val_data": None,
}
FIXED = ("preset", "model", "seed", "mix", "data", "data_paths", "body", "body_file", "init", "resumed")
OF_LIGHTNING = ("optimizer_states", "lr_schedulers", "loops")


@dataclass(frozen=True)
class Stored:
    """The content of `last.ckpt` without its tensors.

    Attributes:
        step: optimizer steps done.
        config: the resolved configuration, as `dpose.training.run.describe` made it.
        recipe: that of the configuration.
        ranks: for each process, the position in its data and the sums of the losses since the last row.
        seconds: time of training.
    """

    path: Path
    step: int
    config: Mapping[str, Any]
    recipe: Recipe
    ranks: list[Mapping[str, Any]]
    seconds: float

    def same(self, name: str, given: Any) -> None:
        """Raises ValueError if an option that a run keeps is given and differs."""
        stored = self.config[name]
        if given is not None and given != stored:
            raise ValueError(f"{self.path}: the run has {name} {stored} and cannot go on with {given}")

    def same_recipe(self, given: Recipe) -> None:
        """Raises ValueError, naming the field, if a recipe differs in more than `steps` and `lr`."""
        stored, given = flat(asdict(self.recipe)), flat(asdict(given))
        if differing := {name for name in stored if stored[name] != given[name]} - {"steps", "lr"}:
            name = min(differing)
            raise ValueError(
                f"{self.path}: the run has {name} {stored[name]} and cannot go on with {given[name]}"
            )

    def changes(self, config: Mapping[str, Any]) -> list[str]:
        """What differs in the new configuration, for instance "lr 0.001 -> 1e-05"."""
        before, after = (
            {name: values[name] for name in FREE} | {k: values["recipe"][k] for k in ("steps", "lr")}
            for values in (self.config, config)
        )
        return [f"{name} {before[name]} -> {after[name]}" for name in before if before[name] != after[name]]


def read_checkpoint(path: str | Path) -> Stored:
    """The run behind a `last.ckpt`. Nothing in the file is run.

    Raises ValueError if it is no such file, is damaged, or holds weights only.
    """
    weights_only = f"{path} holds weights only; start from it with --init (init=)"
    if Path(path).suffix == ".safetensors":
        raise ValueError(weights_only)
    try:
        content = released.read_torch_file(path)
    except ValueError as error:
        raise ValueError(f"no checkpoint to resume from (a run's last.ckpt): {error}") from None
    ours = content.get("dpose", {})
    if "step" not in ours:
        raise ValueError(weights_only)
    if "config" not in ours:
        raise ValueError(
            f"{path} was written by an earlier version, without the run's configuration; start from the "
            "model.safetensors beside it with --init (init=)"
        )
    try:
        config = FREE | ours["config"]  # an earlier version had fewer options
        stored = Stored(
            path=Path(path),
            step=ours["step"],
            config=config,
            recipe=Recipe.from_dict(config["recipe"]),
            ranks=list(ours["ranks"]),
            seconds=float(ours["seconds"]),
        )
        missing = {*FIXED} - config.keys() | {*OF_LIGHTNING} - content.keys()
        if missing:
            raise ValueError(f"lacks {', '.join(sorted(missing))}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: the run's configuration in it is damaged ({error})") from None
    return stored


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with names such as "weights.lambda_3"."""
    found = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
