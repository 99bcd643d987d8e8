"""The pages of results: what they show follows from the records that they are given."""

import ast
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from shard_files import write_manifest

from dpose import paper, results
from dpose.body import load_body
from dpose.compare import Difference
from dpose.evaluate import evaluate
from dpose.experiment import EXPERIMENTS
from dpose.model import checkpoint
from dpose.outcome import METRICS, claims, read_outcome
from dpose.synthetic import VERSION

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def shown(page: str, folder: Path, before: str) -> str:
    """What the cells of a page before a heading put out, with `results` set to a folder."""
    plt.switch_backend("agg")
    source = (NOTEBOOKS / f"{page}.py").read_text(encoding="utf-8").partition(f"# ## {before}")[0]
    texts, names = [], {}
    for cell in re.split(r"^# %%", source, flags=re.MULTILINE)[1:]:
        head, _, code = cell.partition("\n")
        if "[markdown]" in head:
            continue
        *body, last = ast.parse(code).body
        exec(compile(ast.Module(body, []), page, "exec"), names)
        if isinstance(last, ast.Expr):
            texts.append(getattr(eval(compile(ast.Expression(last.value), page, "eval"), names), "data", ""))
        else:
            exec(compile(ast.Module([last], []), page, "exec"), names)
        if "parameters" in head:
            names["results"] = str(folder)
    return "\n".join(texts)


def row(text: str, first_cell: str) -> list[str]:
    """The cells of the first table row that begins so."""
    rows = (re.findall(r"<td[^>]*>(.*?)</td>", line) for line in re.findall(r"<tr.*?</tr>", text))
    return next(cells for cells in rows if cells and cells[0].replace("\u2011", "-") == first_cell)


@pytest.fixture(scope="module")
def open_people(people, tmp_path_factory):
    """The people as open data, by their manifest."""
    root = tmp_path_factory.mktemp("data") / "made"
    shutil.copytree(people, root)
    bodies = {"open": load_body().record}
    write_manifest(root / "shards", generator="dpose.synthetic", version=VERSION, bodies=bodies)
    return root


def test_changing_a_checkpoint_changes_the_tables(trained, open_people, tmp_path):
    model, metadata = checkpoint.read(trained.checkpoint)
    with torch.no_grad():
        model.regressor.init_pose.add_(0.3)
    other = checkpoint.save(model, tmp_path / "other.safetensors", metadata)
    pages = []
    for number, weights in enumerate((trained.checkpoint, other)):
        folder = tmp_path / str(number)
        options = {"workers": 0, "device": "cpu", "progress": False, "body": "open"}
        record = evaluate(weights, open_people, out=folder / "net.json", **options)
        text = shown("tables", folder, "Table 2")
        cells = row(text, "net")
        for name, cell in zip(("mve", "mpjpe", "pa_mpjpe"), cells[1:4], strict=True):
            assert cell.startswith(f"{record['metrics'][name]['mean']:.1f} [")
        assert cells[4] == f"{metadata['images']:,}" and record["checkpoint"]["sha256"][:12] in text
        pages.append(cells)
    assert all(one != two for one, two in zip(pages[0][1:4], pages[1][1:4], strict=True))


def write_runs(
    folder: Path, shifts: dict[str, float], seeds: int = 3, images: int = 60_000, name: str = "ablation"
) -> None:
    """Records of an experiment whose variants differ from the shipped network's errors by `shifts` (mm)."""
    experiment = EXPERIMENTS[name]
    rng = np.random.default_rng(0)
    path = NOTEBOOKS.parent / "results" / "lite.json"
    base, people = results.read_json(path), results.read_people(path)
    backbone = results.lineage(base["checkpoint"]["metadata"])[0]["init"]
    for variant, shift in shifts.items():
        for seed in range(seeds):
            record = json.loads(json.dumps(base))
            columns = dict(people)
            for metric in ("mpjpe", "pa_mpjpe", "mve"):
                noise = rng.normal(0, 3, len(people[metric])).astype(np.float32)
                columns[metric] = people[metric] + shift + noise
                record["metrics"][metric]["mean"] = round(float(columns[metric].mean()), 4)
            used = json.loads(json.dumps(asdict(experiment.recipe(experiment.variants[variant]))))
            record["checkpoint"]["metadata"] |= {
                **{
                    "preset": experiment.variants[variant].preset,
                    "seed": seed,
                    "images": images,
                    "step": images // 32,
                },
                **{"recipe": used, "init": backbone},
            }
            record["checkpoint"]["name"] = "model.safetensors"
            results.write_record(folder / name / f"{variant}-seed{seed}.json", record, columns)


def test_the_ablation_shows_the_differences_that_its_records_have(tmp_path):
    write_runs(tmp_path, {"lite": 0.0, "lite-no-depth": 5.0}, seeds=5)
    write_runs(tmp_path, {"lite-hmr": -4.0})
    text = shown("ablation", tmp_path, "Exercises")
    depth, others = [
        table
        for table in re.findall(r"<table.*?</table>", text)
        if "D-PoSE is better" in table or "detectable" in table
    ]
    cells = row(depth, "MPJPE (mm), primary")
    assert cells[1] == "+5.0" and "5 of 5 seeds" in depth
    low, high = (float(value) for value in cells[5].split(" to "))
    assert 4 < low < 5 < high < 6 and float(cells[6]) < 1
    assert row(others, "HMR")[1].startswith("−4.0 ±")
    assert re.search("Depth lowers PA-MPJPE by [45][.][0-9]\u00a0mm and MPJPE by 5.0\u00a0mm", text)
    assert "13 of the 25" in text
    assert re.search(r"HMR: better in MPJPE \(.*PA-MPJPE \(.*MVE \(", text)
    assert "not met" not in text and "stale" not in text


@pytest.mark.parametrize(
    ("shift", "conclusion"),
    [
        (
            -5.0,
            "Depth raises PA-MPJPE by 5.0\u00a0mm and MPJPE by 5.0\u00a0mm in the experiment with a fixed "
            "backbone.",
        ),
        (0.0, "No effect of depth on PA-MPJPE or MPJPE is shown in the experiment with a fixed backbone."),
    ],
)
def test_the_ablation_also_concludes_that_depth_is_useless_or_harmful(shift, conclusion, tmp_path):
    write_runs(tmp_path, {"lite": 0.0}, seeds=5)
    write_runs(tmp_path, {"lite-no-depth": shift}, seeds=5)  # with the same random numbers
    text = shown("ablation", tmp_path, "Exercises")
    assert len(re.findall(conclusion, text)) == 2  # among the results and the takeaways


def test_the_experiment_with_a_trained_encoder_has_a_table_and_a_conclusion_of_its_own(tmp_path):
    for variant in ("lite", "lite-no-depth"):  # with the same random numbers: no difference
        write_runs(tmp_path, {variant: 0.0}, seeds=5)
    write_runs(tmp_path, {"lite": -20.0, "lite-no-depth": -16.0}, seeds=5, name="encoder")
    text = shown("ablation", tmp_path, "Exercises")
    (table,) = [one for one in re.findall(r"<table.*?</table>", text) if "backbone trained: errors" in one]
    assert row(table, "MPJPE (mm), primary")[1] == "+4.0" and "5 of 5 seeds" in table
    claim = "Depth lowers PA-MPJPE by [34].[0-9]\u00a0mm and MPJPE by 4.0\u00a0mm in the experiment with a tr"
    assert len(re.findall(claim, text)) == 2
    assert "No effect of depth on PA-MPJPE or MPJPE is shown in the experiment with a fixed backbone" in text
    assert "stale" not in text
    path = tmp_path / "encoder" / "lite-seed4.json"
    record = results.read_json(path)
    record["checkpoint"]["metadata"]["recipe"]["backbone_lr"] = 0.0  # a run of the other experiment
    path.write_text(json.dumps(record))
    text = shown("ablation", tmp_path, "Exercises")
    assert "no result in the experiment with a trained backbone" in text
    assert "not met (stale records of D-PoSE)" in text


def test_equal_claims_of_two_experiments_are_one_sentence_and_others_are_two(tmp_path):
    names = ("ablation", "encoder")
    for name in names:
        for variant in ("lite", "lite-no-depth"):  # with the same random numbers: no difference
            write_runs(tmp_path, {variant: 0.0}, seeds=5, name=name)
    assert claims(*(read_outcome(name, tmp_path) for name in names)) == (
        "No effect of depth on PA-MPJPE or MPJPE is shown in either experiment, with a fixed backbone or "
        "with a trained backbone."
    )
    write_runs(tmp_path, {"lite-no-depth": 5.0}, seeds=5, name="encoder")
    pair = [read_outcome(name, tmp_path) for name in names]
    assert "Depth lowers" in pair[1].claim()
    assert claims(*pair) == f"{pair[0].claim()} {pair[1].claim()}"


def test_an_effect_on_one_metric_is_claimed_for_that_metric_alone(tmp_path):
    for variant in ("lite", "lite-no-depth"):  # with the same random numbers: no difference
        write_runs(tmp_path, {variant: 0.0}, seeds=5)
    for path in (tmp_path / "ablation").glob("lite-no-depth-seed*.json"):
        columns = results.read_people(path)
        columns["pa_mpjpe"] = columns["pa_mpjpe"] - 2
        results.write_record(path, results.read_json(path), columns)
    claim = read_outcome("ablation", tmp_path).claim()
    assert claim == (
        "Depth raises PA-MPJPE by 2.0\u00a0mm in the experiment with a fixed backbone; an effect on MPJPE is "
        "not shown."
    )


@pytest.mark.parametrize(
    ("ends", "text"),
    [((-1.02, 0.04), "−1.02 to +0.04"), ((-0.049, 0.3), "−0.05 to +0.30"), ((-1.02, 0.06), "−1.0 to +0.1")],
)
def test_an_interval_shows_on_which_side_of_0_its_ends_are(ends, text):
    difference = Difference(sum(ends) / 2, ends, 0.1, 0.2, {0: 0.0, 1: 0.0}, 10, 5)
    assert METRICS["mpjpe"].interval(difference) == text


def test_an_experiment_without_records_says_nothing(tmp_path):
    outcome = read_outcome("encoder", tmp_path)
    assert outcome.claim().endswith(
        "from the experiment with a trained backbone: 0 of 5 planned seeds are recorded."
    )
    assert outcome.missing == {name: [0, 1, 2, 3, 4] for name in ("lite", "lite-no-depth")}
    assert outcome.depth == {} and not outcome.complete()


def test_the_ablation_has_no_conclusion_before_all_planned_seeds_are_there(tmp_path):
    write_runs(tmp_path, {"lite": 0.0, "lite-no-depth": 5.0}, seeds=4)
    text = shown("ablation", tmp_path, "Exercises")
    assert "4 of 5 planned seeds" in text and "Depth lowers PA" not in text
    assert "higher without depth" not in text


def test_the_ablation_says_what_is_stale_or_unequal_and_draws_no_conclusion_from_too_few_runs(tmp_path):
    write_runs(tmp_path, {"lite": 0.0, "lite-no-depth": 0.0})
    write_runs(tmp_path, {"lite-hmr": 0.0}, seeds=1, images=32_000)
    path = tmp_path / "ablation" / "lite-seed0.json"
    record = results.read_json(path)
    record["checkpoint"]["metadata"]["recipe"]["clip"] = 7.5
    record["checkpoint"]["metadata"] |= {"precision": {"name": "32"}, "workers": 7}
    results.write_record(path, record, results.read_people(path))
    text = shown("ablation", tmp_path, "Exercises")
    assert "D\u2011PoSE\u00a0(stale)" in text and "the recipe has changed: clip" in text
    assert "differ in images, steps, precision, order of the images" in text
    assert "preconditions are not met" in text and "o effect of depth" not in text
    assert row(text, "HMR (one seed, no interval)")
    assert "HMR: " not in text


def test_the_ablation_rejects_networks_that_are_no_better_than_the_mean_pose(tmp_path):
    write_runs(tmp_path, {"lite": 0.0, "lite-no-depth": 5.0}, seeds=5)
    for path in (tmp_path / "ablation").glob("lite-seed*.json"):
        record = results.read_json(path)
        limit = record["baselines"]["mean_pose"]["pa_mpjpe"]["ci95"][0]
        record["metrics"]["pa_mpjpe"]["ci95"][1] = limit
        record["ratios"]["depth_l1"] = 0.76
        path.write_text(json.dumps(record))
    text = shown("ablation", tmp_path, "Exercises")
    assert text.count("not met") >= 3 and "Depth lowers PA" not in text
    assert "preconditions are not met (PA-MPJPE of D-PoSE, depth of D-PoSE)" in text


def test_the_tables_show_the_shipped_network_and_the_variant_of_the_same_name(tmp_path):
    write_runs(tmp_path, {"lite": 30.0}, seeds=2)
    for name in ("lite.json", "lite.people.npz"):
        shutil.copy(NOTEBOOKS.parent / "results" / name, tmp_path)
    shipped = results.read_json(tmp_path / "lite.json")["metrics"]["mpjpe"]["mean"]
    text = shown("tables", tmp_path, "Table 2").partition("Measured: ")[2]
    assert row(text, "lite")[2].startswith(f"{shipped:.1f} [")
    mean, _, spread = row(text, "D-PoSE (ablation, 2 seeds)")[2].partition(" ± ")
    assert abs(float(mean) - shipped - 30) < 0.5 and float(spread) < 0.5


def test_table_1_says_if_its_networks_were_measured_on_different_people(tmp_path):
    record = results.read_json(NOTEBOOKS.parent / "results" / "lite.json")
    for name, samples in (("all", record["samples"]), ("few", 100)):
        (tmp_path / f"{name}.json").write_text(json.dumps(record | {"samples": samples}))
    assert f"NOT THE SAME PEOPLE: {record['samples']:,} of data" in shown("tables", tmp_path, "Table 2")
    (tmp_path / "few.json").unlink()
    assert "NOT THE SAME PEOPLE" not in shown("tables", tmp_path, "Table 2")


@pytest.mark.parametrize(
    ("page", "before"), [("tables", "Table 2"), ("ablation", "Exercises"), ("performance", "Exercises")]
)
def test_a_page_without_records_names_the_command_that_makes_them(page, before, tmp_path):
    text = shown(page, tmp_path, before)
    commands = {
        "tables": "dpose evaluate --out",
        "ablation": "dpose experiment ablation",
        "performance": "predict.py --out",
    }
    assert commands[page] in text


def test_the_performance_page_tells_which_goals_are_missed(tmp_path):
    record = results.read_json(NOTEBOOKS.parent / "results" / "training_speed.json")
    for case, ratio in zip(record["cases"], (0.85, 0.849, 0.9, 0.9), strict=True):
        case["cpu"]["ratio"] = ratio
    (tmp_path / "training_speed.json").write_text(json.dumps(record))
    text = shown("performance", tmp_path, "Exercises")
    names = [
        f"training, share of the bare network's speed (processor time), {name}"
        for name in ("mini, 32 bits", "mini, bf16", "lite, 32 bits", "lite, bf16")
    ]
    assert [row(text, name)[3] for name in names] == ["met", "missed", "met", "met"]
    assert "3 of 4 goals" in text


def test_the_gains_that_the_paper_states_in_its_text_follow_from_the_quoted_tables():
    def gains(other, column):
        ours, theirs = paper.TABLE_1["D-PoSE"][column], paper.TABLE_1[other][column]
        return [round(a - b, 1) for a, b in zip(theirs, ours, strict=True)]  # MVE, MPJPE, PA-MPJPE

    emdb, wild = 2, 3
    assert gains("BEDLAM-CLIFF", wild) == [3.6, 3.1, 3.0] and gains("BEDLAM-CLIFF", emdb) == [14.2, 11.6, 8.1]
    assert gains("TokenHMR", wild) == [4.3, 2.7, 0.4] and gains("TokenHMR", emdb)[:2] == [7.2, 4.1]
    for data, stated in (("RICH", [4.3, 3.6, 2.3]), ("EMDB", [2.8, 2.1, 0.3])):
        assert [round(a - b, 1) for a, b in zip(*paper.TABLE_3[data], strict=True)] == stated
    without, depth = paper.TABLE_3["3DPW"]
    assert round(without[2] - depth[2], 1) == 0.7 and depth == paper.TABLE_1["D-PoSE"][wild]
