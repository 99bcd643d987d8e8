"""Make a training run the shipped `mini`: store its weights in 16 bits, evaluate it, write its model card.

    python scripts/ship_mini.py runs/mini        # needs the open data (`dpose synth`)
    python scripts/ship_mini.py                  # evaluate the present `mini` again

Writes dpose/assets/mini.safetensors and MODEL_CARD.md, results/mini.json (for the book's tables) and
results/mini-log.csv (loss curves). Every number on the card comes from these files.
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
from dpose.results import read_json

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "dpose" / "assets"


def ship(run: Path | None = None, data: str | None = None, note: str = "") -> dict[str, Any]:
    """Install the weights of a run as `mini` (None: keep the present ones), evaluate them and write the card.

    The metadata of the weights name the body that the network was trained for; where they do not, the record
    in the run's `run.json` is added. Returns the results.
    """
    if run is not None:
        model, metadata = checkpoint.read(run / "model.safetensors")
        recorded = read_json(run / "run.json").get("body")
        metadata = ({"body": recorded} if recorded else {}) | metadata
        checkpoint.save(model, ASSETS / "mini.safetensors", metadata, half=True)
        shutil.copyfile(run / "log.csv", ROOT / "results" / "mini-log.csv")
    result = evaluate("mini", data, "test", ROOT / "results" / "mini.json")
    print(format_table(result))
    text = card(checkpoint.metadata("mini"), result, note)
    (ASSETS / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    return result


def stages(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """Metadata of the runs that led to the weights, in order."""
    earlier = stages(metadata["init"]) if metadata.get("init") else []
    return [*earlier, metadata]


def run_rows(run: dict[str, Any], number: int) -> str:
    """The rows of a run in the card's table."""
    recipe, hardware, weights = run["recipe"], run["hardware"], run["recipe"]["weights"]
    several = re.search(r"--devices (\d+)", run["command"])  # of runs that did not record it
    processes = run.get("devices") or (int(several[1]) if several else 1)
    share = f", {processes} processes of {recipe['batch_size'] // processes}" if processes > 1 else ""
    return f"""| {number} | `dpose {run["command"].split(" ", 1)[1]}` |
| | {run["step"]:,} steps of {recipe["batch_size"]} ({run["images"]:,} images){share}, seed {run["seed"]} |
| | {run["data_samples"]:,} open synthetic people, fingerprint `{run["data"]}` |
| | class weights of the part loss: exponent {weights.get("parts_balance", 0.0):g} |
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
        reference = "" if baseline is None else f"{baseline:.{digits}f}"
        ratio = f"{score['mean'] / baseline:.2f}" if baseline else ""
        return f"| {label} | {score['mean']:.{digits}f}{unit} | {low} to {high} | {reference} | {ratio} |"

    mean_pose, body = baselines["mean_pose"], result["bodies"]["prediction"]
    rows = [
        row("MPJPE", "mpjpe", " mm", 1, mean_pose["mpjpe"]["mean"]),
        row("PA-MPJPE", "pa_mpjpe", " mm", 1, mean_pose["pa_mpjpe"]["mean"]),
        row("MVE", "mve", " mm", 1, mean_pose["mve"]["mean"]),
        row("global orientation", "orientation", "°", 1, mean_pose["orientation"]["mean"]),
        row("parts, mean IoU", "parts_miou", "", 3, None),
        row(
            "depth L1, pixels of the person",
            "depth_l1",
            "",
            4,
            baselines["constant_depth"]["depth_l1"]["mean"],
        ),
    ]
    table = "\n".join(rows)
    return f"""# Model card: `mini`

A small D-PoSE network ({parameters:,} parameters, {network.config.image_size}-pixel crops), trained from
random weights on synthetic people only. With it the book, the tests and `dpose predict` work without licensed
files and without a GPU.

It predicts parameters of the body `{body["name"]}` (hash `{body["hash"]}`).

## Training

{len(stages(metadata))} run(s); each starts from the weights of the previous one (`--init`). The data are made
by `dpose synth --root DATA --train SCENES --val 0 --test 0 --frames 0`, about 1.37 people per scene, seed 0.

| run | |
| --- | --- |
{runs}

The file stores the weights in 16 bits; they are loaded as 32 bits. {note}

The recipe is `dpose.training.MINI_RECIPE`. It differs from the paper's; the book's page on training compares
them.

## Test

`dpose evaluate --checkpoint mini`: {result["samples"]:,} people of the open test split, seen from all sides;
the training set has none of these identities. Protocol `{result["protocol"]}`; 95 % bootstrap intervals over
{result["intervals"]["clusters"]:,} scenes. The baseline of the body errors is the mean pose of the training
set, that of the depth error the best constant (targets range from 0.1 to 1).

| | measured | 95 % interval | baseline | ratio |
| --- | --- | --- | --- | --- |
{table}

## Use and limits

For learning, demonstrations and tests. The training data show rendered adults of one body model in simple
clothes and scenes. The network was not evaluated on photographs, where it will often be wrong, in particular
for loose clothes, close-ups and crowds. It gives no confidence: any image yields a body. It must not be used
to identify, rate or monitor people.

Weights: Apache-2.0, like the code. The body model of the training data derives from MakeHuman's CC0 figures.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", help="run folder of `dpose train` (default: none)")
    parser.add_argument("--data", help="data root with the test split (default: the open data)")
    parser.add_argument("--note", default="", help="sentences about the runs, for the card")
    arguments = parser.parse_args()
    ship(arguments.run, arguments.data, arguments.note)
