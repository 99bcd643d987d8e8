"""Training: what is refused, what a run leaves behind, and that a resumed run is the same run."""

import csv
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from random_people import random_samples, write_random_people

import dpose
from dpose.body import load_body
from dpose.cli import main
from dpose.config import preset
from dpose.data.fingerprint import data_fingerprint
from dpose.data.loader import make_loader
from dpose.data.means import training_means
from dpose.data.shards import write_shards
from dpose.losses import RELEASED_WEIGHTS, TERMS
from dpose.model.network import DPose
from dpose.paths import shard_folder
from dpose.training import TrainConfig, Training, learning_rate, recipe, train


@pytest.fixture
def quick(people, tmp_path) -> TrainConfig:
    return TrainConfig(
        preset="mini",
        data=people,
        out=tmp_path / "run",
        steps=4,
        batch_size=2,
        workers=0,
        accelerator="cpu",
        log_every=1,
        progress=False,
    )


def rows(path) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"preset": "huge"}, ValueError, "huge.*mini"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"batch_size": -1}, ValueError, "batch_size must be at least 1"),
        ({"lr": 0.0}, ValueError, "lr must be positive"),
        ({"precision": "16"}, ValueError, "precision"),
        ({"workers": -1}, ValueError, "workers"),
        ({"max_bad": -1}, ValueError, "max_bad must be 0 or more"),
        ({"data": "/nowhere/at/all"}, FileNotFoundError, "dpose synth --root /nowhere/at/all"),
        ({"resume": "/nowhere/last.ckpt"}, FileNotFoundError, "resume.*last.ckpt"),
        ({"body": "/nowhere/body.npz"}, FileNotFoundError, "body"),
        ({"accelerator": "mps" if torch.cuda.is_available() else "cuda"}, ValueError, "not available"),
        ({"out": __file__}, FileExistsError, "is a file"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(quick, wrong, error, message):
    with pytest.raises(error, match=message):
        train(replace(quick, **wrong))
    assert not quick.out.exists()


def test_a_run_bears_as_many_unreadable_samples_as_it_is_told(quick, people, tmp_path):
    copied = tmp_path / "data" / "shards"
    shutil.copytree(shard_folder(people), copied)
    shard = next(copied.glob("train-*.tar"))
    data = bytearray(shard.read_bytes())
    start = data.index(b"\xff\xd8\xff")  # the first picture
    data[start : start + 512] = bytes(512)
    shard.write_bytes(data)
    broken = replace(quick, data=copied.parent, steps=8)
    with pytest.warns(UserWarning, match="skipped an unreadable sample"):
        assert train(replace(broken, max_bad=1)).steps == 8
    with pytest.raises(RuntimeError, match=r"1 unreadable samples in epoch 0 \(limit 0\)"):
        train(replace(broken, max_bad=0, overwrite=True))


def test_the_paper_recipe_is_the_papers_and_the_released_one_is_chosen_by_name(people):
    paper = recipe("paper")
    assert (paper.steps, paper.batch_size, paper.lr, paper.clip) == (200_000, 64, 1e-5, 1.5)
    assert {learning_rate(step, paper) for step in (0, 1, 99_999, 199_999)} == {1e-5}
    weights = [paper.weights.of(term) for term in TERMS]
    assert weights == [0.1, 0.02, 0.1, 10, 0.01, 50, 10, 50]
    assert paper.vertex_stride == 1
    assert recipe("paper-no-depth") == paper
    released = TrainConfig(preset="paper", recipe="released", data=people, accelerator="cpu").resolve().recipe
    assert (released.steps, released.lr, released.weights, released.depth_rule) == (
        200_000, 1e-4, RELEASED_WEIGHTS, "released",
    )  # fmt: skip
    with pytest.raises(ValueError, match="unknown preset"):
        recipe("huge")


def test_the_mini_rate_rises_then_falls_to_a_hundredth():
    mini = replace(recipe("mini"), steps=1000, warmup=0.1, lr=1.0)
    rates = [learning_rate(step, mini) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[100] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(1.0)
    assert all(a >= b for a, b in zip(rates[100:], rates[101:], strict=False))
    assert rates[-1] == pytest.approx(0.01)
    middle = rates[100 + (999 - 100) // 2]
    assert middle == pytest.approx(0.505, abs=2e-3)


def test_auto_takes_the_mini_network_without_a_gpu(quick):
    assert replace(quick, preset="auto").resolve().preset == "mini"


def test_a_run_leaves_a_loadable_checkpoint_a_log_of_every_term_and_its_story(trained):
    model = dpose.load(trained.checkpoint)
    assert model.config == preset("mini")
    log = rows(trained.log)
    assert [row["step"] for row in log] == [2, 4, 6]
    assert all(math.isfinite(value) for row in log for value in row.values())
    assert {*TERMS, "total", "lr", "grad_norm", "images_per_second"} <= log[0].keys()
    weights = trained.config.recipe.weights
    total = sum(weights.of(term) * log[-1][term] for term in TERMS)
    assert log[-1]["total"] == pytest.approx(total, rel=1e-3)
    story = json.loads((trained.log.parent / "run.json").read_text())
    assert story["seed"] == 0 and story["recipe"]["batch_size"] == 4 and story["libraries"]["torch"]
    assert trained.images_per_second > 0 and trained.steps == 6
    left = sorted(path.name for path in trained.log.parent.iterdir())
    assert left == ["last.ckpt", "log.csv", "model.safetensors", "run.json"]


def test_the_mean_parameters_come_from_the_training_set(trained, people):
    model = dpose.load(trained.checkpoint)
    betas = torch.cat([b["betas"] for b in make_loader(people, "train", model.config, 5, workers=0)])
    torch.testing.assert_close(model.regressor.init_shape, betas.mean(0), atol=1e-5, rtol=1e-4)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(quick, tmp_path):
    losses = [
        train(replace(quick, steps=2, seed=seed, out=tmp_path / name)).losses
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_a_resumed_run_ends_where_an_uninterrupted_one_does_given_the_same_batches(
    quick, tmp_path, monkeypatch
):
    resolved = replace(quick, steps=6).resolve()
    batches = [batch for batch, _ in zip(_training_batches(resolved), range(6), strict=False)]
    monkeypatch.setattr("dpose.training.run.make_loader", lambda *a, epoch=0, **k: Stream(batches[epoch:]))
    straight = train(replace(quick, steps=6, out=tmp_path / "straight"))

    class Killed(Exception):
        pass

    def kill_after_step_3(self, trainer, module):
        save(self, trainer, module)
        raise Killed

    from dpose.training import Journal

    save = Journal._save
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_due", lambda self: self.step == 3)
        patch.setattr(Journal, "_save", kill_after_step_3)
        with pytest.raises(Killed):
            train(replace(quick, steps=6, out=tmp_path / "halves"))
    resumed = train(
        replace(quick, steps=6, out=tmp_path / "halves", resume=tmp_path / "halves" / "last.ckpt")
    )

    one, two = (dpose.load(result.checkpoint).state_dict() for result in (straight, resumed))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0)
    log = rows(resumed.log)
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]
    assert [row["lr"] for row in log] == [row["lr"] for row in rows(straight.log)]


class Stream:
    """Batches as a loader without a length gives them."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def _training_batches(config):
    return make_loader(config.data, "train", preset("mini"), config.batch_size, train=True, seed=0, workers=0)


def test_resuming_what_cannot_be_resumed_says_why(quick, trained):
    with pytest.raises(ValueError, match="at step 6 already"):
        train(replace(quick, resume=trained.resume, steps=6))
    with pytest.raises(ValueError, match="holds a 'mini' network, not 'mini-no-depth'"):
        train(replace(quick, preset="mini-no-depth", resume=trained.resume, steps=9))
    with pytest.raises(ValueError, match="no checkpoint to resume from"):
        train(replace(quick, resume=trained.log))
    assert not quick.out.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}, "dpose": {"part_order": "released", "metadata": "{}"}},
        {"state_dict": {}, "epoch": 3, "global_step": 9},
        {"conv1.weight": 0, "stage2.0.branches.0.0.conv1.weight": 0},
    ],
    ids=["converted", "authors'", "hrnet"],
)
def test_resuming_from_weights_alone_points_to_init(quick, content, tmp_path):
    path = tmp_path / "weights.ckpt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"weights\.ckpt holds weights only; start from it with --init"):
        train(replace(quick, resume=path))
    assert not quick.out.exists()


def test_resuming_runs_no_code_and_advises_none(quick, trained, tmp_path):
    with pytest.raises(ValueError, match=r"model\.safetensors holds weights only; start from it with --init"):
        train(replace(quick, resume=trained.checkpoint))

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it_ran"),)

    torch.save({"state_dict": {}, "dpose": Hostile()}, tmp_path / "hostile.ckpt")
    with pytest.raises(
        ValueError, match=r"no checkpoint to resume from.*hostile\.ckpt: refused.*'posix\.mkdir'"
    ) as error:
        train(replace(quick, resume=tmp_path / "hostile.ckpt"))
    assert "weights_only" not in str(error.value) and not (tmp_path / "it_ran").exists()
    assert not quick.out.exists()


def test_a_new_run_may_start_from_another_ones_weights_and_says_so(quick, trained):
    """With a vanishing rate the weights stay; the first run's story is kept, resumed or not."""
    start = dpose.load(trained.checkpoint)
    result = train(replace(quick, init=trained.checkpoint, lr=1e-12, steps=1))
    weights = dict(dpose.load(result.checkpoint).named_parameters())
    for name, value in start.named_parameters():
        torch.testing.assert_close(weights[name], value, atol=1e-6, rtol=1e-6)
    resumed = train(replace(quick, resume=result.resume, steps=2))
    for run in (result, resumed):
        origin = dpose.model.checkpoint.metadata(run.checkpoint)["init"]
        assert origin["checkpoint"] == "model.safetensors" and origin["step"] == 6
        assert origin["sha256"] == hashlib.sha256(trained.checkpoint.read_bytes()).hexdigest()


def test_weights_of_another_network_are_no_start(quick, trained):
    with pytest.raises(ValueError, match="holds a 'mini' network, not 'mini-no-depth'"):
        train(replace(quick, preset="mini-no-depth", init=trained.checkpoint))
    with pytest.raises(FileNotFoundError, match="no checkpoint 'nothing'"):
        train(replace(quick, init="nothing"))
    with pytest.raises(ValueError, match="give one of them"):
        train(replace(quick, init=trained.checkpoint, resume=trained.resume))
    assert not quick.out.exists()


def test_a_resumed_run_does_not_replace_another_one(quick, trained):
    quick.out.mkdir()
    (quick.out / "last.ckpt").write_bytes(b"somebody's work")
    with pytest.raises(FileExistsError, match="holds a run already"):
        train(replace(quick, resume=trained.resume, steps=9))
    assert (quick.out / "last.ckpt").read_bytes() == b"somebody's work"
    (quick.out / "log.csv").write_text("step,seconds,total\n1,1000,7.5\n")
    result = train(replace(quick, resume=trained.resume, steps=8, overwrite=True))
    assert [row["step"] for row in rows(result.log)] == [7, 8]  # no row of the run that was there


def test_a_run_names_the_code_that_it_started_with(quick, monkeypatch):
    """A commit made while it runs is not the run's."""
    commits = iter(["first", "second", "third"])
    monkeypatch.setattr("dpose.results.commit", lambda: next(commits))
    result = train(replace(quick, steps=1))
    started = json.loads((quick.out / "run.json").read_text())["commit"]
    assert started == dpose.model.checkpoint.metadata(result.checkpoint)["commit"] == "first"


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(quick, monkeypatch):
    from dpose.training.run import compute_losses as real

    def poisoned(*args):
        terms = real(*args)
        return terms | {"total": terms["total"] * float("nan")}

    train(replace(quick, steps=1))
    before = (quick.out / "last.ckpt").read_bytes()
    monkeypatch.setattr("dpose.training.run.compute_losses", poisoned)
    with pytest.raises(FloatingPointError, match="no longer finite at step 1"):
        train(replace(quick, overwrite=True))
    assert (quick.out / "last.ckpt").read_bytes() == before
    with pytest.raises(FileExistsError, match="holds a run already"):
        train(quick)


def test_the_network_without_depth_trains_too(quick):
    result = train(replace(quick, preset="mini-no-depth", steps=1))
    assert dpose.load(result.checkpoint).depth_decoder is None
    assert result.losses["depth_l1"] == 0


def test_the_loss_falls_when_one_batch_comes_again_and_again(quick, monkeypatch):
    batch = next(iter(_training_batches(replace(quick, batch_size=4).resolve())))
    monkeypatch.setattr("dpose.training.run.make_loader", lambda *a, **k: Stream([batch] * 20))
    log = rows(train(replace(quick, steps=20, batch_size=4, lr=2e-3)).log)
    for name in ("total", "vertices", "joints2d"):
        assert log[-1][name] < 0.85 * log[0][name]


def test_gradients_are_clipped_by_norm_at_one_and_a_half(quick):
    module = Training(DPose(preset("mini")), load_body(vertex_stride=64), quick.resolve())
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    module.configure_gradient_clipping(None)
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in trained))
    assert norm == pytest.approx(1.5, rel=1e-3)
    assert float(module.last_grad_norm) == pytest.approx(math.sqrt(sum(p.numel() for p in trained)), rel=1e-3)


def test_every_trained_parameter_gets_a_gradient(quick):
    config = quick.resolve()
    module = Training(DPose(preset("mini")), load_body(vertex_stride=64), config)
    module.training_step(next(iter(_training_batches(config))), 0).backward()
    without = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []  # else several devices would wait for it


def test_a_training_step_never_waits_for_the_device(quick):
    config = quick.resolve()
    module = Training(DPose(preset("mini")), load_body(vertex_stride=8), config)
    batch = next(iter(_training_batches(config)))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        module.training_step(batch, 0).backward()
    waits = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}
    assert not waits & {event.key for event in profile.key_averages()}


TWO_PROCESSES = """
import os, sys
from dpose.training import run as train

out = sys.argv[2]
rank = os.environ.get("LOCAL_RANK", "0")
step = train.Training.training_step

def told(self, batch, index):
    with open(f"{out}/keys-{rank}.txt", "a") as file:
        print(*batch["key"], file=file)
    return step(self, batch, index)

train.Training.training_step = told
config = train.TrainConfig(
    preset="mini", data=sys.argv[1].split(","), out=f"{out}/run", steps=4, batch_size=4, workers=1,
    accelerator="cpu", devices=2, strategy="ddp", log_every=4, progress=False,
)
train.train(config)
"""


def test_two_processes_train_from_shards_and_see_no_sample_twice_in_an_epoch(people, tmp_path):
    """Four steps of four are the 16 people's first epoch: lightning's ddp on gloo, a loader process each."""
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    done = subprocess.run(
        [sys.executable, str(script), str(people), str(tmp_path)],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = [(tmp_path / f"keys-{rank}.txt").read_text().split() for rank in range(2)]
    assert [len(keys) for keys in seen] == [8, 8]
    assert len({*seen[0], *seen[1]}) == 16
    story = json.loads((tmp_path / "run" / "run.json").read_text())
    assert story["step"] == 0 and story["data_samples"] == 16
    assert rows(tmp_path / "run" / "log.csv")[-1]["step"] == 4


def test_a_run_may_mix_sets_and_says_which(people, tmp_path):
    other, out = write_random_people(tmp_path / "other", train=8, test=1), tmp_path / "run"
    settings = f"--out {out} --preset mini --steps 1 --batch-size 2 --workers 0 --accelerator cpu"
    assert main(["train", "--data", str(people), str(other), "--mix", "4", "1", *settings.split()]) == 0
    story = json.loads((out / "run.json").read_text())
    assert story["data"] == [data_fingerprint(root) for root in (people, other)]
    assert story["data_samples"] == [16, 8] and story["mix"] == [4, 1]
    parts = [training_means(root, preset("mini")) for root in (people, other)]
    both = training_means([people, other], preset("mini"), mix=(4, 1))
    torch.testing.assert_close(both.betas, 0.8 * parts[0].betas + 0.2 * parts[1].betas)
    torch.testing.assert_close(dpose.load(out / "model.safetensors").regressor.init_shape, both.betas)


def test_a_mixture_that_does_not_fit_is_refused_before_anything_is_written(quick, people):
    for mix, message in (((1, 2), "2 weights for 1 data sets"), ((0,), "positive")):
        with pytest.raises(ValueError, match=message):
            train(replace(quick, mix=mix))
    with pytest.raises(ValueError, match="empty list"):
        replace(quick, data=[])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(replace(quick, data=[people, "/nowhere"]))
    assert not quick.out.exists()


def test_people_of_another_body_are_no_training_data(quick, tmp_path):
    samples = random_samples(4)
    samples[2]["label"] |= {"body": "smpl-female", "pose": samples[2]["label"]["pose"] + [0.0] * 6}
    write_shards(samples, tmp_path / "smpl", "train")
    with pytest.raises(ValueError, match="sample p0002 is labelled with the body 'smpl-female'; training"):
        train(replace(quick, data=tmp_path / "smpl", batch_size=4))
