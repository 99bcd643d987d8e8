"""Experiments: equal conditions, one record per run, nothing trained twice, interrupted runs go on."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from random_people import write_random_people

from dpose import experiment
from dpose.cli import main
from dpose.config import preset
from dpose.data.loader import make_loader
from dpose.experiment import ABLATION, ENCODER, EXPERIMENTS, perform, runs
from dpose.losses import RELEASED_WEIGHTS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_random_people(tmp_path_factory.mktemp("people"), train=16, test=7)


def test_variants_differ_in_nothing_but_what_they_are_about():
    base = ABLATION.recipe(ABLATION.variants["lite"])
    for name, variant in ABLATION.variants.items():
        recipe = ABLATION.recipe(variant)
        if name == "lite-released-losses":
            assert recipe == replace(base, weights=RELEASED_WEIGHTS)
        else:
            assert recipe == base
    assert base.steps * base.batch_size == ABLATION.images
    assert base.backbone_lr == 0  # every variant keeps the same encoder


def test_the_experiment_of_the_encoder_differs_from_the_ablation_in_the_rate_of_the_encoder_alone():
    assert list(ENCODER.variants) == ["lite", "lite-no-depth"]
    for name, variant in ENCODER.variants.items():
        assert variant.seeds == 5 and variant.preset == name
        assert ENCODER.recipe(variant) == replace(ABLATION.recipe(ABLATION.variants[name]), backbone_lr=0.1)


def test_the_command_offers_every_experiment(capsys):
    for name in EXPERIMENTS:
        assert main(["experiment", name, "--list", "--out", "nowhere", "--runs", "nowhere"]) == 0
        assert capsys.readouterr().out.count("missing") == len(runs(name))


def test_the_first_seed_of_every_variant_comes_first_and_depth_has_five():
    found = runs("ablation")
    first = len(ABLATION.variants)
    assert [run.seed for run in found[:first]] == [0] * first
    seeds = {variant: sum(run.variant == variant for run in found) for variant in ABLATION.variants}
    assert seeds["lite"] == seeds["lite-no-depth"] == 5 and min(seeds.values()) == 3
    assert len({run.record for run in found}) == len(found)


def test_missing_runs_are_trained_and_measured_and_others_left_alone(data, tmp_path, capsys):
    options = ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--data", str(data)]
    options += ["--variants", "lite-hmr", "lite-pare", "--seeds", "1", "--images", "64", "--jobs", "1"]
    kept = tmp_path / "out" / "lite-pare-seed0.json"
    kept.parent.mkdir()
    main(["experiment", "ablation", *options, "--list"])
    assert capsys.readouterr().out.count("missing") == 2 and not (tmp_path / "runs").exists()
    assert main(["experiment", "ablation", *options, "--accelerator", "cpu"]) == 0
    records = {path.stem: json.loads(path.read_text()) for path in kept.parent.glob("*.json")}
    assert sorted(records) == ["lite-hmr-seed0", "lite-pare-seed0"]
    conditions = set()
    for name, record in records.items():
        about = record["checkpoint"]["metadata"]
        assert (about["images"], about["seed"], record["split"], record["samples"]) == (64, 0, "test", 7)
        assert record["checkpoint"]["config"]["name"] == name.removesuffix("-seed0")
        conditions.add((about["data"], about["recipe"]["steps"]))
    assert len(conditions) == 1
    before = {path: path.stat().st_mtime_ns for path in kept.parent.iterdir()}
    assert main(["experiment", "ablation", *options, "--accelerator", "cpu"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in kept.parent.iterdir()}


def test_a_run_that_was_killed_goes_on_and_one_that_another_process_has_is_left_out(data, tmp_path):
    (run,) = runs("ablation", tmp_path / "out", tmp_path / "runs", ["lite-hmr"], 1)
    done = []
    run.folder.mkdir(parents=True)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
            "print(1, flush=True); sys.stdin.read()",
            str(run.folder / ".lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        holder.stdout.readline()
        perform("ablation", [run], data, images=64, jobs=1, accelerator="cpu", done=done.append)
        assert not done and not run.done
    finally:
        holder.kill()
        holder.wait()
    with pytest.MonkeyPatch.context() as patch:  # killed after the training, before the measurement
        patch.setattr(experiment, "evaluate", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            perform("ablation", [run], data, images=64, jobs=1, accelerator="cpu")
    log = (run.folder / "log.csv").read_bytes()
    perform("ablation", [run], data, images=64, jobs=1, accelerator="cpu", done=done.append)
    assert done == [run] and run.done
    assert (run.folder / "log.csv").read_bytes() == log  # not trained again


def test_a_run_that_was_begun_with_another_budget_is_not_continued(data, tmp_path):
    (run,) = runs("ablation", tmp_path / "out", tmp_path / "runs", ["lite-hmr"], 1)
    options = {"jobs": 1, "accelerator": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "evaluate", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            perform("ablation", [run], data, images=32, **options)
    with pytest.raises(ValueError, match="1 steps.* 2.*--runs"):
        perform("ablation", [run], data, images=64, **options)
    assert not run.done


@pytest.mark.parametrize("cuda", [False, True])
def test_the_images_of_a_seed_are_the_same_for_every_variant_and_device(cuda, data, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(experiment, "on_cuda", lambda accelerator: cuda)
    monkeypatch.setattr(
        experiment, "train", lambda config: asked.append(config) or SimpleNamespace(checkpoint="")
    )
    monkeypatch.setattr(experiment, "evaluate", lambda *args, device, **options: asked.append(device))
    perform("ablation", runs("ablation", tmp_path, tmp_path / "runs", ["lite", "lite-hmr"], 1), data, jobs=1)
    batches = []
    for config in asked[::2]:
        options = {"seed": config.seed, "workers": config.workers, "augment": config.recipe.augmentation}
        loader = make_loader(data, "train", preset(config.preset), 8, train=True, **options)
        batches.append(list(islice(loader, 3)))
    reference = list(islice(make_loader(data, "train", preset("lite"), 8, train=True), 3))
    for found in batches:
        for one, two in zip(found, reference, strict=True):
            assert one["key"] == two["key"] and torch.equal(one["image"], two["image"])
    assert asked[1::2] == ["cuda" if cuda else "cpu"] * 2


@pytest.mark.parametrize(
    "wrong", [["--variants", "resnet"], ["--images", "0"], ["--jobs", "0"], ["--seeds", "-1"]]
)
def test_a_wrong_option_is_one_sentence(wrong, tmp_path, capsys):
    assert main(["experiment", "ablation", "--list", "--out", str(tmp_path), *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("trial", [["--images", "64", "--out", "out"], ["--split", "val", "--runs", "runs"]])
def test_a_trial_does_not_count_as_the_experiment(trial, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", "ablation", *trial]) == 2
    assert ("--runs" if "--images" in trial else "--out") in capsys.readouterr().err
