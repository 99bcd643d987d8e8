"""What the records of an experiment show: whether it is valid, differences, and the conclusion about depth.

The rule: MPJPE and PA-MPJPE decide (`PRIMARY`), when all planned seeds are recorded and the preconditions
hold for D-PoSE and for the network without depth: equal training, no stale record, errors below the mean
pose's, and a depth map that is better than a constant. Each metric's effect is what its interval
(`dpose.compare`) shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dpose.compare import Difference, People, paired_difference
from dpose.experiment import EXPERIMENTS, Experiment, runs
from dpose.figures.text import NBSP, listed, signed
from dpose.results import read_json, read_people, stale, totals

BASE, WITHOUT_DEPTH = "lite", "lite-no-depth"  # the variants whose difference is the effect of depth
PRIMARY = ("pa_mpjpe", "mpjpe")  # decide about depth; the other metrics describe
DEPTH_LIMIT = 0.75  # of the best constant's error: a network above it has not learned depth


@dataclass(frozen=True)
class Metric:
    """How a metric is printed."""

    name: str
    unit: str = "mm"
    digits: int = 1

    @property
    def title(self) -> str:
        """The name with its unit, as the head of a column."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def text(self, value: float, sign: bool = True) -> str:
        """A value with its unit."""
        number = signed(value, self.digits) if sign else f"{value:.{self.digits}f}"
        return f"{number}{self.unit if self.unit in ('', '°') else NBSP + self.unit}"

    def interval(self, difference: Difference) -> str:
        """The ends of a difference's interval, without unit; with one digit more if one would be 0."""
        digits = self.digits + any(round(end, self.digits) == 0 for end in difference.interval)
        return " to ".join(signed(end, digits) for end in difference.interval)


METRICS = {
    "mpjpe": Metric("MPJPE"),
    "pa_mpjpe": Metric("PA-MPJPE"),
    "mve": Metric("MVE"),
    "orientation": Metric("orientation error", "°"),
    "parts_miou": Metric("parts IoU", "", 3),  # mean over a person's parts
}


@dataclass(frozen=True)
class Precondition:
    """A limit for the worst run of each variant.

    Attributes:
        name: of what is limited.
        limit: which no run may exceed.
        worst: variant -> value of its worst run; only variants that have one.
        unmet: variants that exceed the limit.
    """

    name: str
    limit: float
    worst: dict[str, float]
    unmet: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The recorded runs of an experiment.

    Attributes:
        experiment: what was planned.
        records: variant -> seed -> record of `dpose.evaluate`.
        people: variant -> seed -> errors of each person (`dpose.results.read_people`).
    """

    experiment: Experiment
    records: Mapping[str, Mapping[int, dict[str, Any]]]
    people: Mapping[str, Mapping[int, People]]

    @cached_property
    def measured(self) -> list[dict[str, Any]]:
        """All records."""
        return [record for seeds in self.records.values() for record in seeds.values()]

    @cached_property
    def missing(self) -> dict[str, list[int]]:
        """Variant -> planned seeds that are not recorded."""
        planned = {name: range(variant.seeds) for name, variant in self.experiment.variants.items()}
        left = {name: [s for s in seeds if s not in self.seeds(name)] for name, seeds in planned.items()}
        return {name: seeds for name, seeds in left.items() if seeds}

    def seeds(self, variant: str) -> list[int]:
        """Seeds of a variant that are recorded."""
        return sorted(self.records.get(variant, {}))

    def paired(self, variant: str) -> list[int]:
        """Seeds that both a variant and D-PoSE have."""
        return sorted(set(self.seeds(variant)) & set(self.seeds(BASE)))

    def planned(self, variant: str = WITHOUT_DEPTH) -> int:
        """Number of seeds that both a variant and D-PoSE will have."""
        return min(self.experiment.variants[name].seeds for name in (variant, BASE))

    def complete(self, variant: str = WITHOUT_DEPTH) -> bool:
        """Whether all seeds of the comparison of a variant with D-PoSE are recorded."""
        return len(self.paired(variant)) >= self.planned(variant)

    # --- preconditions

    @cached_property
    def equal(self) -> dict[str, bool]:
        """What has to be equal in all runs, and whether it is."""
        values: dict[str, set[Any]] = {}
        for record in self.measured:
            training = record["checkpoint"]["metadata"]
            recipe, start = training["recipe"], training["init"] or {}
            for name, value in {
                "images": totals(training)["images"],
                "steps": training["step"],
                "batch size and rate": (recipe["batch_size"], recipe["lr"]),
                "precision": training["precision"]["name"],
                "order of the images": (max(1, training["workers"]), training["devices"]),
                "training data": str(training["data"]),
                "encoder": start.get("sha256"),
                "test people": _people_of(record),
            }.items():
                values.setdefault(name, set()).add(value)
        return {name: len(found) == 1 for name, found in values.items()}

    @cached_property
    def outdated(self) -> dict[str, list[str]]:
        """Variant -> why its records are not about what the repository has now; only those with a reason."""
        found = {}
        for name, seeds in self.records.items():
            wanted = self.experiment.recipe(self.experiment.variants[name])
            if reasons := sorted({reason for record in seeds.values() for reason in stale(record, wanted)}):
                found[name] = reasons
        return found

    @cached_property
    def below_mean_pose(self) -> Precondition | None:
        """PA-MPJPE: the interval of each run must end below that of the mean pose. None: no mean pose."""
        if not self.measured or not (pose := self.measured[0]["baselines"].get("mean_pose")):
            return None
        limit = pose["pa_mpjpe"]["ci95"][0]
        worst = {
            name: max(record["metrics"]["pa_mpjpe"]["ci95"][1] for record in seeds.values())
            for name, seeds in self.records.items()
        }
        unmet = tuple(name for name, value in worst.items() if value >= limit)
        return Precondition("PA-MPJPE", limit, worst, unmet)

    @cached_property
    def depth_learned(self) -> Precondition | None:
        """Depth error in relation to the best constant's. None: no network predicts depth."""
        ratios = {
            name: [r["ratios"]["depth_l1"] for r in seeds.values() if "depth_l1" in r["ratios"]]
            for name, seeds in self.records.items()
        }
        worst = {name: max(found) for name, found in ratios.items() if found}
        unmet = tuple(name for name, value in worst.items() if value > DEPTH_LIMIT)
        return Precondition("depth", DEPTH_LIMIT, worst, unmet) if worst else None

    def unmet(self, *variants: str) -> list[str]:
        """The preconditions that one of these variants does not meet."""
        limits = [one for one in (self.below_mean_pose, self.depth_learned) if one]
        titles = {name: self.experiment.variants[name].title for name in variants}
        return [
            *(name for name, same in self.equal.items() if not same),
            *(f"stale records of {titles[name]}" for name in variants if name in self.outdated),
            *(f"{one.name} of {titles[name]}" for one in limits for name in variants if name in one.unmet),
        ]

    # --- differences

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """Variant -> metric -> errors of the variant minus D-PoSE's, of the metrics that both have.

        Only variants that have two seeds in common with D-PoSE, and none if the runs were not measured on the
        same people.
        """
        if not self.equal.get("test people", False):
            return {}
        found = {}
        for name in self.records:
            if name == BASE or len(self.paired(name)) < 2:
                continue
            both = [columns for one in (name, BASE) for columns in self.people[one].values()]
            metrics = [metric for metric in METRICS if all(metric in columns for columns in both)]
            found[name] = {m: paired_difference(self.people[name], self.people[BASE], m) for m in metrics}
        return found

    @property
    def depth(self) -> dict[str, Difference]:
        """Metric -> errors without depth minus those with depth (positive: depth helps); may be empty."""
        return self.differences.get(WITHOUT_DEPTH, {})

    def base(self, metric: str, seeds: Mapping[int, Any]) -> float:
        """D-PoSE's mean error over some seeds."""
        return float(np.mean([self.people[BASE][seed][metric].mean() for seed in seeds]))

    def claim(self, where: str | None = None) -> str:
        """One or two sentences on the effect of depth; where: the experiment, None: this one by its name."""
        where = where or f"the experiment with {self.experiment.about}"
        if failed := self.unmet(BASE, WITHOUT_DEPTH):
            return (
                f"The comparison with and without depth has no result in {where}: preconditions are not met "
                f"({', '.join(failed)})."
            )
        if not self.complete():
            return (
                f"Nothing can be said about depth yet from {where}: {len(self.paired(WITHOUT_DEPTH))} of "
                f"{self.planned()} planned seeds are recorded."
            )
        ones = {metric: self.depth[metric] for metric in PRIMARY}
        effects = []
        for verb, sign in (("lowers", 1), ("raises", -1)):
            sizes = [
                f"{METRICS[metric].name} by {METRICS[metric].text(abs(one.mean), sign=False)}"
                for metric, one in ones.items()
                if one.found and sign * one.mean > 0
            ]
            effects += [f"{verb} {listed(sizes)}"] if sizes else []
        unclear = [METRICS[metric].name for metric, one in ones.items() if not one.found]
        if not effects:
            return f"No effect of depth on {' or '.join(unclear)} is shown in {where}."
        rest = f"; an effect on {unclear[0]} is not shown" if unclear else ""
        return f"Depth {listed(effects)} in {where}{rest}."


def claims(*outcomes: Outcome) -> str:
    """The claims of two experiments; as one sentence if they are equal."""
    where = f"either experiment, with {' or with '.join(outcome.experiment.about for outcome in outcomes)}"
    found = {outcome.claim(where) for outcome in outcomes}
    return found.pop() if len(found) == 1 else " ".join(outcome.claim() for outcome in outcomes)


def read_outcome(name: str = "ablation", folder: str | Path | None = None) -> Outcome:
    """The recorded runs of an experiment.

    Args:
        name: one of `dpose.experiment.EXPERIMENTS`.
        folder: that contains <name>/, the records; None: the repository's results/.
    Raises:
        ValueError: no such experiment, or a damaged record.
    """
    folder = Path(folder or Path(__file__).parents[1] / "results")
    records: dict[str, dict[int, Any]] = {}
    people: dict[str, dict[int, People]] = {}
    for run in runs(name, folder / name):
        if run.done:
            records.setdefault(run.variant, {})[run.seed] = read_json(run.record)
            people.setdefault(run.variant, {})[run.seed] = read_people(run.record)
    return Outcome(EXPERIMENTS[name], records, people)


def _people_of(record: dict[str, Any]) -> tuple[Any, ...]:
    """Which people a network was measured on."""
    return record["data"]["fingerprint"], record["split"], record["samples"]
