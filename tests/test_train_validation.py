"""Validation while training: what is measured, what is kept, and that training does not depend on it."""

import csv
import json
import signal
from dataclasses import replace

import cv2
import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from random_people import random_samples
from safetensors.torch import load_file
from shard_files import write_manifest, write_shards
from test_training_resume import Send, kill_runs

import dpose
from dpose.body import load_body
from dpose.data.loader import make_loader
from dpose.evaluate import evaluate
from dpose.training import Stopped, TrainConfig, train
from dpose.training import validation as module


def rows(path) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def splits(root, **counts: int):
    """A data set of random people with these splits."""
    for seed, (split, count) in enumerate(counts.items()):
        write_shards(random_samples(count, seed, prefix=split), root / "shards", split)
    write_manifest(root / "shards", bodies={"open": load_body().record})
    return root


def script_errors(monkeypatch, *errors: float) -> None:
    """The MPJPE of the validations to come."""
    summarise, errors = module.summarise, iter(errors)

    def scripted(table):
        result = summarise(table)
        result["metrics"]["mpjpe"]["mean"] = next(errors)
        return result

    monkeypatch.setattr(module, "summarise", scripted)


def test_scores_are_those_of_the_evaluation_on_the_validation_split(quick, people, capsys):
    result = train(replace(quick, validate_every=3, progress=True))
    log = rows(quick.out / "val.csv")
    assert [(row["step"], row["images"], row["samples"]) for row in log] == [(3, 6, 4), (4, 8, 4)]
    for row, checkpoint in (
        (min(log, key=lambda row: row["mpjpe"]), result.best),
        (log[-1], result.checkpoint),
    ):
        reference = evaluate(checkpoint, people, "val", workers=0, progress=False)
        for name in ("mpjpe", "pa_mpjpe", "mve", "orientation", "parts_miou", "depth_l1"):
            assert row[name] == pytest.approx(reference["metrics"][name]["mean"], rel=1e-3)
        assert row["depth_ratio"] == pytest.approx(reference["ratios"]["depth_l1"], rel=1e-3)
    record = json.loads((quick.out / "run.json").read_text())["validation"]
    assert (record["step"], record["mpjpe"]) == (4, log[-1]["mpjpe"])
    stderr = capsys.readouterr().err
    for row in log:
        assert f"step {row['step']:.0f}: MPJPE {row['mpjpe']:.1f}" in stderr


def test_a_run_takes_the_same_steps_with_and_without_validation(quick, tmp_path):
    class RandomStates(lightning.Callback):
        def __init__(self):
            self.states = []

        def on_train_batch_start(self, *_):
            self.states.append(torch.get_rng_state())

    looks = RandomStates(), RandomStates()
    train(quick, callbacks=[looks[0]])
    train(replace(quick, out=tmp_path / "validated", validate_every=1), callbacks=[looks[1]])
    found = list(kill_runs.differences(quick.out, tmp_path / "validated"))
    assert {line.partition(":")[0] for line in found} == {"files", "val.csv"}
    for one, two in zip(*(look.states for look in looks), strict=True):
        assert torch.equal(one, two)


def test_the_best_weights_are_kept_and_known_after_a_resume(quick, monkeypatch):
    class Keep(lightning.Callback):
        def on_train_batch_end(self, trainer, training, *rest):
            if trainer.global_step == 2:
                self.weights = {k: v.clone() for k, v in training.model.state_dict().items()}

    script_errors(monkeypatch, 300.0, 200.0, 250.0, 210.0)
    keep = Keep()
    with pytest.raises(Stopped):
        train(replace(quick, validate_every=1), callbacks=[keep, Send(signal.SIGTERM, after=3)])
    result = train(TrainConfig(resume=quick.out / "last.ckpt", progress=False))
    best = load_file(result.best)
    assert best.keys() == keep.weights.keys()
    assert all(torch.equal(best[name], weight) for name, weight in keep.weights.items())
    metadata = dpose.model.checkpoint.metadata(result.best)
    assert metadata["step"] == 2 and metadata["validation"]["mpjpe"] == 200
    last = dpose.model.checkpoint.metadata(result.checkpoint)["validation"]
    assert last["mpjpe"] == 210 and last["best"] == {"step": 2, "mpjpe": 200}
    assert [row["mpjpe"] for row in rows(quick.out / "val.csv")] == [300, 200, 250, 210]


def test_other_validation_data_start_a_new_best(quick, tmp_path, monkeypatch):
    script_errors(monkeypatch, 90.0, 80.0, 70.0, 300.0)
    with pytest.raises(Stopped):
        train(replace(quick, validate_every=1), callbacks=[Send(signal.SIGTERM, after=3)])
    before = dpose.model.checkpoint.metadata(quick.out / "best.safetensors")["validation"]
    other = splits(tmp_path / "other", val=3)
    result = train(TrainConfig(resume=quick.out / "last.ckpt", val_data=other, progress=False))
    after = dpose.model.checkpoint.metadata(result.best)["validation"]
    assert (after["step"], after["samples"]) == (4, 3) and after["data"] != before["data"]
    assert [(row["step"], row["mpjpe"]) for row in rows(quick.out / "val.csv")] == [(4, 300)]


def test_pictures_show_the_people_of_the_split_beside_the_predictions(quick, people):
    train(replace(quick, validate_every=2))
    assert sorted(path.name for path in (quick.out / "samples").iterdir()) == ["step-2.png", "step-4.png"]
    sheet = cv2.imread(str(quick.out / "samples" / "step-4.png"))[..., ::-1]
    side, gap = 128, 2
    assert sheet.shape == (4 * (side + gap) - gap, 6 * (side + gap) - gap, 3)
    batch = next(iter(make_loader(people, "val", dpose.config.preset("mini"), 4)))
    for person, image in enumerate(batch["image"]):
        top = person * (side + gap)
        shown = sheet[top : top + side, :side].astype(int)
        assert np.abs(shown - image.permute(1, 2, 0).numpy()).max() <= 1
    assert cv2.imread(str(quick.out / "curves.png")) is not None


def test_data_without_a_validation_split_are_trained_on_without_validation(quick, tmp_path, capsys):
    data = splits(tmp_path / "people", train=8, test=3)
    result = train(replace(quick, data=data, steps=1, validate_every=1, progress=True))
    assert result.best is None and not (quick.out / "val.csv").exists()
    assert "no validation" in capsys.readouterr().err
    mixed = replace(quick, data=[data, quick.data], out=tmp_path / "mixed", steps=1, validate_every=1)
    train(mixed)
    assert rows(mixed.out / "val.csv")[0]["samples"] == 4


def test_a_test_split_is_no_validation_data(quick, tmp_path):
    data = splits(tmp_path / "people", train=8, test=3)
    pattern = f"file://{data}/shards/test-{{000000..000000}}.tar"
    for given in (data, pattern):
        with pytest.raises(FileNotFoundError, match="val"):
            train(replace(quick, val_data=given, validate_every=1))
    assert not quick.out.exists()


def test_validation_data_of_another_body_are_refused_before_the_first_step(quick, tmp_path):
    other = random_samples(3)
    for sample in other:
        sample["label"]["body"] = "smplx-neutral"
    write_shards(other, tmp_path / "other" / "shards", "val")
    write_manifest(tmp_path / "other" / "shards", bodies={"smplx-neutral": load_body().record})
    with pytest.raises(ValueError, match="smplx-neutral"):
        train(replace(quick, val_data=tmp_path / "other", validate_every=2))
    assert not (quick.out / "log.csv").exists()


def test_the_interval_follows_the_length_of_the_run(quick):
    for steps, expected in ((199, 0), (200, 200), (4_000, 200), (200_000, 10_000)):
        assert replace(quick, steps=steps).resolve().validate_every == expected
    assert replace(quick, validate_every=7).resolve().validate_every == 7


def test_a_prediction_that_is_not_finite_is_no_end_of_the_run(quick, monkeypatch, capsys):
    def fail(*args, **options):
        raise FloatingPointError("sample val0001 is not finite")

    monkeypatch.setattr(module, "measure", fail)
    result = train(replace(quick, validate_every=4, progress=True))
    assert result.steps == 4 and result.best is None and "val0001" in capsys.readouterr().err
