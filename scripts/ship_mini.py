"""Make a training run the shipped `mini`: weights in 16 bits, measured on the open test people, and a card.

    python scripts/ship_mini.py runs/mini        # needs the open data (`dpose synth`)

Writes dpose/assets/mini.safetensors and MODEL_CARD.md, results/mini.json (what the book's tables read) and
results/mini-log.csv (its loss curves). Every number on the card comes from these files.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

import dpose
from dpose.evaluate import evaluate, format_table
from dpose.model import checkpoint

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "dpose" / "assets"


def ship(run: Path, data: str | None = None, note: str = "") -> dict[str, Any]:
    """Install the run's weights as `mini`, measure them, and return the results."""
    metadata = checkpoint.metadata(run / "model.safetensors")
    checkpoint.save(dpose.load(run / "model.safetensors"), ASSETS / "mini.safetensors", metadata, half=True)
    result = evaluate("mini", data, "test", ROOT / "results" / "mini.json")
    print(format_table(result))
    shutil.copyfile(run / "log.csv", ROOT / "results" / "mini-log.csv")
    (ASSETS / "MODEL_CARD.md").write_text(card(metadata, result, note), encoding="utf-8")
    return result


def stages(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs behind the weights, the first one first."""
    earlier = stages(metadata["init"]) if metadata.get("init") else []
    return [*earlier, metadata]


def run_rows(run: dict[str, Any], number: int) -> str:
    """What the card says of one run."""
    recipe, hardware, weights = run["recipe"], run["hardware"], run["recipe"]["weights"]
    several = re.search(r"--devices (\d+)", run["command"])
    processes = int(several[1]) if several else 1
    share = f", {processes} processes of {recipe['batch_size'] // processes}" if processes > 1 else ""
    return f"""| {number} | `dpose {run["command"].split(" ", 1)[1]}` |
| | {run["step"]:,} steps of {recipe["batch_size"]} ({run["images"]:,} images){share}, seed {run["seed"]} |
| | {run["data_samples"]:,} open synthetic people, fingerprint `{run["data"]}` |
| | parts' cross-entropy balanced with exponent {weights.get("parts_balance", 0.0):g} |
| | {run["seconds"] / 3600:.2f} hours on {hardware["cores"]} cores ({hardware["cpu"]}), no GPU |
| | dpose {run["version"]}, commit `{run["commit"]}` |"""


def card(metadata: dict[str, Any], result: dict[str, Any], note: str = "") -> str:
    """The model card as Markdown."""
    measured, baselines = result["metrics"], result["baselines"]
    network = dpose.load("mini")
    parameters = sum(p.numel() for p in network.parameters())
    runs = "\n".join(run_rows(one, number) for number, one in enumerate(stages(metadata), 1))

    def row(label: str, name: str, unit: str, digits: int, baseline: float | None) -> str:
        score = measured[name]
        low, high = (f"{value:.{digits}f}" for value in score["ci95"])
        against = "" if baseline is None else f"{baseline:.{digits}f}"
        ratio = f"{score['mean'] / baseline:.2f}" if baseline else ""
        return f"| {label} | {score['mean']:.{digits}f}{unit} | {low} to {high} | {against} | {ratio} |"

    mean_pose = baselines["mean_pose"]
    rows = [
        row("MPJPE", "mpjpe", " mm", 1, mean_pose["mpjpe"]["mean"]),
        row("PA-MPJPE", "pa_mpjpe", " mm", 1, mean_pose["pa_mpjpe"]["mean"]),
        row("MVE", "mve", " mm", 1, mean_pose["mve"]["mean"]),
        row("global orientation", "orientation", "°", 1, mean_pose["orientation"]["mean"]),
        row("parts, mean IoU", "parts_miou", "", 3, None),
        row("depth, person's pixels", "depth_l1", "", 4, baselines["constant_depth"]["depth_l1"]["mean"]),
    ]
    table = "\n".join(rows)
    return f"""# Model card: `mini`

A small D-PoSE ({parameters:,} parameters, {network.config.image_size}-pixel crops), trained from random
weights on synthetic people only. It exists so that the book, the tests and `dpose predict` have something
real to run without a licence or a GPU.

## Training

{len(stages(metadata))} run(s), later ones from the weights of the one before (`--init`); people are those of
`dpose synth --root DATA --train SCENES --val 0 --test 0 --frames 0`, about 1.37 a scene, one seed for all.

| run | |
| --- | --- |
{runs}

In the file the weights have 16 bits, once loaded 32. {note}

The recipe is `dpose.training.MINI_RECIPE`, not the paper's; the book's page on training compares them.

## Test

`dpose evaluate --checkpoint mini`: {result["samples"]:,} people of the open test split, none of whom is in
the training set, seen from all sides; protocol `{result["protocol"]}`; 95 % bootstrap intervals over their
{result["intervals"]["clusters"]:,} scenes. The baseline of the errors is the mean pose of the training set,
that of depth the best constant (targets run from 0.1 to 1).

| | measured | 95 % interval | baseline | ratio |
| --- | --- | --- | --- | --- |
{table}

## Use and limits

For learning, demonstrations and tests. It has seen one rendered body family, adults only, simple clothes and
scenes. On photographs it is untested and will often be wrong, in particular for loose clothes, close-ups and
crowds. It must not be used to identify, rate or monitor people.

Weights: Apache-2.0, like the code; the bodies it was trained on derive from MakeHuman's CC0 figures.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of `dpose train`")
    parser.add_argument("--data", help="data root with the test split (default: the open data)")
    parser.add_argument("--note", default="", help="what else there is to say about the runs, for the card")
    arguments = parser.parse_args()
    ship(arguments.run, arguments.data, arguments.note)
