"""Training: what is refused, what a step computes, and what a run leaves behind.

What happens to runs that are resumed, stopped or killed is in `test_training_resume.py`.
"""

import csv
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import fields, replace

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from random_people import random_samples, write_random_people
from shard_files import write_manifest, write_shards

import dpose
from dpose.body import load_body
from dpose.cli import main
from dpose.config import preset
from dpose.data.augment import NO_AUGMENT
from dpose.data.fingerprint import data_fingerprint
from dpose.data.loader import make_loader
from dpose.data.means import training_means
from dpose.losses import RELEASED_WEIGHTS, TERMS
from dpose.model.encoder import BACKBONES
from dpose.model.hrnet import HRNet
from dpose.model.inference import to_device
from dpose.model.network import DPose
from dpose.paths import shard_folder
from dpose.training import TrainConfig, Training, learning_rate, recipe, train
from dpose.training.environment import choose_devices, preserved, set_up_process, spare_workers


def rows(path) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"preset": "huge"}, ValueError, "huge.*mini"),
        ({"recipe": "huge"}, ValueError, "huge"),
        ({"steps": 0}, ValueError, "steps.*1"),
        ({"batch_size": -1}, ValueError, "batch_size.*-1"),
        ({"batch_size": 100_000_000}, ValueError, "batch_size 100000000.*16 samples"),
        ({"lr": 0.0}, ValueError, "lr"),
        ({"lr": math.inf}, ValueError, "lr"),
        ({"seed": -1}, ValueError, "seed"),
        ({"precision": "16"}, ValueError, "precision.*bf16"),
        ({"workers": -1}, ValueError, "workers"),
        ({"max_bad": -1}, ValueError, "max_bad"),
        ({"checkpoint_minutes": math.nan}, ValueError, "checkpoint_minutes"),
        ({"data": "/nowhere/at/all"}, FileNotFoundError, "/nowhere/at/all"),
        ({"data": ""}, ValueError, "data.*empty"),
        ({"data": ["a", ""]}, ValueError, "data.*empty"),
        ({"data": []}, ValueError, "data.*empty"),
        ({"body": ""}, ValueError, "body.*empty"),
        ({"resume": "/nowhere/last.ckpt"}, FileNotFoundError, "resume.*last.ckpt"),
        ({"init": "nothing"}, FileNotFoundError, "nothing"),
        ({"body": "/nowhere/body.npz"}, FileNotFoundError, "body.npz"),
        ({"mix": (1, 2)}, ValueError, "2 weights for 1"),
        ({"mix": (0,)}, ValueError, "positive"),
        ({"devices": 3}, ValueError, "batch_size 2.*3 devices"),
        ({"accumulate": 0}, ValueError, "accumulate.*1"),
        ({"accumulate": 3}, ValueError, "batch_size 2.*3 pieces"),
        ({"nodes": 0}, ValueError, "nodes.*1"),
        ({"nodes": 2}, ValueError, "MASTER_ADDR.*NODE_RANK"),
        ({"validate_every": -1}, ValueError, "validate_every.*-1"),
        ({"accelerator": "mps" if torch.cuda.is_available() else "cuda"}, ValueError, "not available"),
        ({"tensorboard": True}, ValueError, "tensorboard"),
        ({"out": __file__}, FileExistsError, "test_train.py is a file"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(quick, wrong, error, message):
    if wrong == {"tensorboard": True} and _installed("tensorboard", "tensorboardX"):
        pytest.skip("TensorBoard is installed")
    with pytest.raises(error, match=message):
        train(replace(quick, **wrong))
    assert not quick.out.exists()


def _installed(*names: str) -> bool:
    from importlib.util import find_spec

    return any(find_spec(name) for name in names)


def test_the_command_line_leaves_every_option_open_that_is_not_given(monkeypatch):
    """Else a resumed run would be refused for a default, or forget what it had."""
    seen = []
    monkeypatch.setattr("dpose.training.TrainConfig", lambda **options: seen.append(options))
    monkeypatch.setattr("dpose.training.train", lambda config: sys.exit("done"))
    main(["train", "--resume", "last.ckpt"])
    main(["train", "--accelerator", "cpu"])
    assert seen[0] == {"resume": "last.ckpt", "progress": True}
    assert seen[1] == {"accelerator": "cpu", "devices": "auto", "progress": True}


# --- recipes ------------------------------------------------------------------------------------------------


def test_the_paper_recipe_is_the_papers_and_the_released_one_is_chosen_by_name(people):
    paper = recipe("paper")
    assert (paper.steps, paper.batch_size, paper.lr, paper.clip) == (200_000, 64, 1e-5, 1.5)
    assert {learning_rate(step, paper) for step in (0, 1, 99_999, 199_999)} == {1e-5}
    weights = [paper.weights.of(term) for term in TERMS]
    assert weights == [0.1, 0.02, 0.1, 10, 0.01, 50, 10, 50]
    assert paper.vertex_stride == 1
    assert recipe("paper-no-depth") == paper
    released = TrainConfig(preset="paper", recipe="released", data=people, accelerator="cpu").resolve().recipe
    assert (released.steps, released.lr, released.weights) == (200_000, 1e-4, RELEASED_WEIGHTS)
    assert released.depth_rule == "released"


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


def test_a_recipe_survives_json_as_it_is():
    from dataclasses import asdict

    for name in ("mini", "released"):
        assert recipe(name).from_dict(json.loads(json.dumps(asdict(recipe(name))))) == recipe(name)


def test_auto_takes_the_lite_network_without_a_gpu(quick):
    assert replace(quick, preset="auto").resolve().preset == "lite"


# --- a step -------------------------------------------------------------------------------------------------


def training_batch(config: TrainConfig):
    loader = make_loader(config.data, "train", preset("mini"), config.batch_size, train=True, workers=0)
    return to_device(next(iter(loader)), "cpu")


def module(config: TrainConfig, stride: int = 64) -> Training:
    return Training(DPose(preset("mini")), load_body(vertex_stride=stride), config.resolve())


def test_gradients_are_clipped_by_norm_at_one_and_a_half(quick):
    step = module(quick)
    trained = [parameter for parameter in step.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    step.configure_gradient_clipping(None)
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in trained))
    assert norm == pytest.approx(1.5, rel=1e-3)
    assert float(step.grad_norm) == pytest.approx(math.sqrt(sum(p.numel() for p in trained)), rel=1e-3)


def test_every_trained_parameter_gets_a_gradient(quick):
    step = module(quick)
    step.training_step(training_batch(quick), 0).backward()
    without = [name for name, p in step.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []  # else several devices would wait for it


def test_a_training_step_never_waits_for_the_device(quick):
    step, batch = module(quick, stride=8), training_batch(quick)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step.training_step(batch, 0).backward()
    waits = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}
    assert not waits & {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_the_network_computes_in_the_precision_that_the_run_names(quick, precision, monkeypatch):
    """Seen from within the encoder's first convolution, in a run; the log's losses are float32 either way."""
    types = set()

    def look(self, inputs, output):
        types.add(output.dtype)

    build = DPose.__init__

    def watched(self, config):
        build(self, config)
        self.encoder.conv1.register_forward_hook(look)

    monkeypatch.setattr(DPose, "__init__", watched)
    result = train(replace(quick, steps=1, precision=precision))
    assert types == {torch.bfloat16 if precision == "bf16" else torch.float32}
    for record in (_json(quick.out / "run.json"), dpose.model.checkpoint.metadata(result.checkpoint)):
        assert record["precision"]["autocast"] == ("bfloat16" if precision == "bf16" else None)
        assert record["precision"]["float32_matmul_precision"] == "highest"


def global_state() -> tuple:
    cudnn = torch.backends.cudnn
    flags = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return *flags, torch.get_num_threads(), os.environ.get("PL_GLOBAL_SEED"), handlers


def test_precision_flags_are_set_for_the_run_and_are_the_callers_again(quick, monkeypatch):
    flags = []

    def look(*args):
        flags.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return losses(*args)

    from dpose.training.step import compute_losses as losses

    monkeypatch.setattr("dpose.training.step.compute_losses", look)
    before, state = global_state(), torch.get_rng_state()
    for precision, expected in {
        "32": ("highest", False),
        "tf32": ("high", True),
        "tf32-conv": ("highest", True),
        "bf16": ("highest", False),
    }.items():
        train(replace(quick, steps=1, precision=precision, overwrite=True))
        assert flags.pop() == expected
    assert before == global_state()
    assert torch.equal(torch.get_rng_state(), state)


def test_augmentation_and_depth_rule_of_the_recipe_reach_the_loader(quick):
    """The batch that a run trains on is the one of a loader with these, and not the preset's."""
    own = replace(recipe("mini"), augmentation=NO_AUGMENT, depth_rule="released", precision="32")
    seen = []

    class Look(lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            seen.append(batch)

    train(replace(quick, steps=1, recipe=own, seed=5), callbacks=[Look()])
    options = {"train": True, "seed": 5, "augment": NO_AUGMENT, "depth_rule": "released"}
    expected = to_device(next(iter(make_loader(quick.data, "train", preset("mini"), 2, **options))), "cpu")
    assert seen[0]["key"] == expected["key"]
    for name in ("image", "depth", "scale", "parts"):
        assert torch.equal(seen[0][name], expected[name])
    options |= {"augment": None, "depth_rule": "paper"}
    other = to_device(next(iter(make_loader(quick.data, "train", preset("mini"), 2, **options))), "cpu")
    assert not torch.equal(other["image"], expected["image"])
    assert not torch.equal(other["depth"], expected["depth"])


def test_the_loss_falls_when_one_batch_comes_again_and_again(quick, monkeypatch):
    batch = training_batch(replace(quick, batch_size=4))
    monkeypatch.setattr("dpose.training.step.make_loader", lambda *a, **k: Again(batch))
    monkeypatch.setattr("dpose.data.loader.Progress.update", lambda self, batch: None)
    log = rows(train(replace(quick, steps=20, batch_size=4, lr=2e-3)).log)
    for name in ("total", "vertices", "joints2d"):
        assert log[-1][name] < 0.85 * log[0][name]


class Again:
    """A loader without a length that yields one batch for ever."""

    resumed = None

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        while True:
            yield self.batch


# --- what a run leaves --------------------------------------------------------------------------------------


def test_a_run_leaves_a_loadable_checkpoint_a_log_of_every_term_and_its_run_record(trained):
    model = dpose.load(trained.checkpoint)
    assert model.config == preset("mini")
    log = rows(trained.log)
    assert [row["step"] for row in log] == [2, 4, 6]
    assert all(math.isfinite(value) for row in log for value in row.values())
    assert {*TERMS, "total", "lr", "grad_norm", "images_per_second"} <= log[0].keys()
    weights = trained.config.recipe.weights
    total = sum(weights.of(term) * log[-1][term] for term in TERMS)
    assert log[-1]["total"] == pytest.approx(total, rel=1e-3)
    assert trained.losses["total"] == log[-1]["total"]
    assert [row["lr"] for row in log] == pytest.approx(
        [learning_rate(row["step"] - 1, trained.config.recipe) for row in log], rel=1e-6
    )
    record = _json(trained.log.parent / "run.json")
    assert record["status"] == "finished" and record["step"] == 6 and record["images"] == 24
    assert record["body"] == load_body("open").record
    assert record["seed"] == 0 and record["recipe"]["batch_size"] == 4 and record["libraries"]["torch"]
    metadata = dpose.model.checkpoint.metadata(trained.checkpoint)
    assert metadata["body"] == record["body"] and metadata["recipe"] == record["recipe"]
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


def test_a_run_names_the_code_that_it_started_with(quick, monkeypatch):
    """A commit made while it runs is not the run's."""
    commits = iter(["first", "second", "third"])
    monkeypatch.setattr("dpose.results.commit", lambda: next(commits))
    result = train(replace(quick, steps=1))
    started = _json(quick.out / "run.json")["commit"]
    assert started == dpose.model.checkpoint.metadata(result.checkpoint)["commit"] == "first"


def test_other_loggers_get_the_rows_of_the_log(quick):
    from lightning.pytorch.loggers.logger import DummyLogger

    seen = []

    class Recorder(DummyLogger):
        def log_metrics(self, metrics, step):
            seen.append({"step": step, **metrics})

    log = rows(train(replace(quick, steps=2), loggers=[Recorder()]).log)
    assert len(seen) == len(log) == 2
    for mine, theirs in zip(log, seen, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)


def test_the_network_without_depth_trains_too(quick):
    result = train(replace(quick, preset="mini-no-depth", steps=1))
    assert dpose.load(result.checkpoint).depth_decoder is None
    assert result.losses["depth_l1"] == 0


def test_an_overwritten_run_is_kept_aside_and_its_weights_never_stand_beside_another_run_record(
    quick, monkeypatch
):
    """Seen before the first step of the new run, which then fails."""
    train(replace(quick, steps=1, seed=1))
    before = {path.name: path.read_bytes() for path in quick.out.iterdir()}

    def fail(*args):
        assert _json(quick.out / "run.json")["seed"] == 2
        assert not {"last.ckpt", "model.safetensors"} & {path.name for path in quick.out.iterdir()}
        raise ValueError("the first step")

    monkeypatch.setattr("dpose.training.step.compute_losses", fail)
    with pytest.raises(FileExistsError, match="run"):
        train(replace(quick, seed=2))
    with pytest.raises(ValueError, match="the first step"):
        train(replace(quick, seed=2, overwrite=True))
    aside = quick.out.with_name("run.1")
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before


def test_what_dead_processes_left_in_the_run_folder_is_removed(quick):
    from dpose.io import HOST

    quick.out.mkdir()
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    left = quick.out / f".last.ckpt.{HOST}.{dead.pid}.part"
    left.write_bytes(b"half a checkpoint")
    train(replace(quick, steps=1))
    assert not left.exists()


def test_a_checkpoint_is_written_beside_its_target_and_not_through_the_temporary_folder(
    quick, monkeypatch, tmp_path
):
    (tmp_path / "closed").write_text("no folder")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "closed"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile.mkstemp", lambda *a, **k: pytest.fail("a temporary file"))
    assert train(replace(quick, steps=1)).resume.stat().st_size > 1e7


# --- data and bodies ----------------------------------------------------------------------------------------


def test_a_run_skips_as_many_unreadable_samples_as_max_bad_allows(quick, people, tmp_path):
    copied = tmp_path / "data" / "shards"
    shutil.copytree(shard_folder(people), copied)
    shard = next(copied.glob("train-*.tar"))
    data = bytearray(shard.read_bytes())
    start = data.index(b"\xff\xd8\xff")  # the first image
    data[start : start + 512] = bytes(512)
    shard.write_bytes(data)
    broken = replace(quick, data=copied.parent, steps=8)
    with pytest.warns(UserWarning, match="train0000"):
        assert train(replace(broken, max_bad=1)).steps == 8
    with pytest.raises(RuntimeError, match=r"limit 0"):  # already where the means are taken
        train(replace(broken, max_bad=0, overwrite=True))
    assert (quick.out / "last.ckpt").exists()


def test_a_run_may_mix_sets_and_says_which(people, tmp_path):
    other, out = write_random_people(tmp_path / "other", train=8, test=1), tmp_path / "run"
    settings = f"--out {out} --preset mini --steps 1 --batch-size 2 --workers 0 --accelerator cpu"
    assert main(["train", "--data", str(people), str(other), "--mix", "4", "1", *settings.split()]) == 0
    record = _json(out / "run.json")
    assert record["data"] == [data_fingerprint(root) for root in (people, other)]
    assert record["data_samples"] == [16, 8] and record["mix"] == [4, 1]
    parts = [training_means(root, preset("mini")) for root in (people, other)]
    both = training_means([people, other], preset("mini"), mix=(4, 1))
    torch.testing.assert_close(both.betas, 0.8 * parts[0].betas + 0.2 * parts[1].betas)
    torch.testing.assert_close(dpose.load(out / "model.safetensors").regressor.init_shape, both.betas)


def test_people_of_another_body_are_no_training_data(quick, tmp_path):
    samples = random_samples(4)
    samples[2]["label"] |= {"body": "smpl-female", "pose": samples[2]["label"]["pose"] + [0.0] * 6}
    write_shards(samples, tmp_path / "smpl", "train")
    with pytest.raises(ValueError, match="sample p0002.*'smpl-female'.*'open'"):
        train(replace(quick, data=tmp_path / "smpl", batch_size=4))


def test_bodies_that_disagree_are_refused_before_anything_is_written(quick, trained, people, tmp_path):
    other = write_random_people(tmp_path / "other", train=8, test=1)
    write_manifest(other / "shards", bodies={"open": {"name": "open", "hash": "another"}})
    with pytest.raises(ValueError, match="other.*another"):
        train(replace(quick, data=other))
    with pytest.raises(ValueError, match="another"):
        train(replace(quick, data=[people, other]))
    write_manifest(other / "shards", bodies={"smplx-neutral": {"name": "smplx-neutral", "hash": ""}})
    with pytest.raises(ValueError, match="'smplx-neutral'.*'open'.*one body"):
        train(replace(quick, data=[people, other]))
    with pytest.raises(ValueError, match="open-smpl.*open|open.*open-smpl"):
        train(replace(quick, body="open-smpl"))
    assert not quick.out.exists()


def test_starting_weights_must_be_for_the_body_of_the_data(quick, trained, tmp_path):
    network, metadata = dpose.model.checkpoint.read(trained.checkpoint)
    path = tmp_path / "start.safetensors"
    dpose.model.checkpoint.save(network, path, metadata | {"body": {"name": "smplx-neutral", "hash": "x"}})
    with pytest.raises(ValueError, match="start.safetensors.*'smplx-neutral'.*'open'"):
        train(replace(quick, init=path))
    network.body_record = None
    dpose.model.checkpoint.save(network, path, {})
    with pytest.raises(ValueError, match="start.safetensors.*--body"):
        train(replace(quick, init=path))
    assert not quick.out.exists()
    assert train(replace(quick, init=path, body="open", steps=1)).steps == 1


def test_a_new_run_may_start_from_another_ones_weights_and_says_so(quick, trained):
    """With a vanishing rate the weights stay; the first run's record is kept, resumed or not."""
    start = dpose.load(trained.checkpoint)
    result = train(replace(quick, init=trained.checkpoint, lr=1e-12, steps=1))
    weights = dict(dpose.load(result.checkpoint).named_parameters())
    for name, value in start.named_parameters():
        torch.testing.assert_close(weights[name], value, atol=1e-6, rtol=1e-6)
    resumed = train(TrainConfig(resume=result.resume, steps=2, progress=False))
    for run in (result, resumed):
        origin = dpose.model.checkpoint.metadata(run.checkpoint)["init"]
        assert origin["checkpoint"] == "model.safetensors" and origin["step"] == 6
        assert origin["sha256"] == hashlib.sha256(trained.checkpoint.read_bytes()).hexdigest()


def weights_of(path) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in dpose.load(path).named_parameters()}


def test_lite_starts_from_its_backbone_which_learns_slowly_or_stays_fixed(quick):
    """With Adam the first step moves a weight by the rate, if its gradient is not tiny."""
    shipped = {f"encoder.backbone.{name}": value for name, value in BACKBONES["movenet"].weights().items()}
    base = replace(recipe("lite"), warmup=0.0, decay="constant", lr=1e-3, precision="32")
    config = replace(quick, preset="lite", steps=1)
    fixed = train(replace(config, recipe=replace(base, backbone_lr=0.0)))
    assert dpose.model.checkpoint.metadata(fixed.checkpoint)["init"]["kind"] == "backbone"
    found = weights_of(fixed.checkpoint)
    assert all(torch.equal(found[name], value) for name, value in shipped.items() if name in found)
    slow = train(replace(config, recipe=base, out=quick.out.with_name("slow")))
    moved = [(weights_of(slow.checkpoint)[name] - shipped[name]).abs() for name in shipped if name in found]
    assert max(float(change.max()) for change in moved) == pytest.approx(1e-4, rel=1e-2)
    stopped = train(TrainConfig(resume=slow.resume, steps=2, progress=False))  # both groups are resumed
    assert stopped.steps == 2
    random = train(replace(config, recipe=base, init="random", out=quick.out.with_name("random")))
    metadata, stem = dpose.model.checkpoint.metadata(random.checkpoint), "encoder.backbone.stem.weight"
    assert metadata["init"] is None and metadata["recipe"]["backbone_lr"] == 1  # it has nothing to keep
    assert not torch.allclose(weights_of(random.checkpoint)[stem], shipped[stem], atol=0.01)
    assert train(TrainConfig(resume=random.resume, steps=2, progress=False)).config.recipe.backbone_lr == 1


def test_weights_at_another_crop_size_are_a_start_but_not_with_another_share_of_the_maps(quick, tmp_path):
    small = DPose(replace(preset("mini"), image_size=64, map_size=32))
    small.body_record = load_body().record
    dpose.model.checkpoint.save(small, tmp_path / "small.safetensors", {})
    result = train(replace(quick, init=tmp_path / "small.safetensors", lr=1e-12, steps=1))
    assert dpose.load(result.checkpoint).config == preset("mini")
    for name, value in weights_of(result.checkpoint).items():
        torch.testing.assert_close(value, dict(small.named_parameters())[name], atol=1e-6, rtol=1e-6)
    other = DPose(replace(preset("mini"), image_size=64, map_size=64))
    dpose.model.checkpoint.save(other, tmp_path / "other.safetensors", {})
    with pytest.raises(ValueError, match="other.safetensors"):
        train(replace(quick, init=tmp_path / "other.safetensors", overwrite=True))


def test_weights_of_another_network_are_no_start(quick, trained, tmp_path):
    with pytest.raises(ValueError, match="'mini'.*'mini-no-depth'"):
        train(replace(quick, preset="mini-no-depth", init=trained.checkpoint))
    torch.save(HRNet(preset("mini")).state_dict(), tmp_path / "hrnet.pth")
    with pytest.raises(ValueError, match="hrnet.pth.*'lite'"):
        train(replace(quick, preset="lite", init=tmp_path / "hrnet.pth"))
    with pytest.raises(ValueError, match="one of them"):
        train(replace(quick, init=trained.checkpoint, resume=trained.resume))
    assert not quick.out.exists()


def test_small_images_and_random_weights_are_warned_of(quick, people, tmp_path):
    from dpose.data.sources import find_sources
    from dpose.training.start import warn_of_poor_starts

    sources = find_sources(people, "train")  # stored at 160 pixels
    with pytest.warns(UserWarning) as caught:
        warn_of_poor_starts(replace(quick, preset="paper"), sources, None)
    texts = [str(warning.message) for warning in caught]
    assert any("160 pixels" in text and "280" in text for text in texts)
    assert any("random weights" in text and "--init" in text for text in texts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_poor_starts(quick, sources, None)


def test_a_warning_is_one_line_on_the_command_line(monkeypatch):
    seen = []

    def look(config):
        seen.append(warnings.formatwarning("small images", UserWarning, "file.py", 7, "code"))
        raise ValueError

    monkeypatch.setattr("dpose.training.train", look)
    before = warnings.formatwarning
    assert main(["train", "--preset", "mini"]) == 2
    assert seen == ["dpose: warning: small images\n"] and warnings.formatwarning is before


# --- devices and threads ------------------------------------------------------------------------------------


def test_a_process_per_core_divides_the_batch_and_leaves_each_enough(monkeypatch):
    for cores, batch, expected in ((2, 64, 2), (3, 64, 2), (16, 64, 4), (8, 96, 6), (2, 16, 1), (2, 33, 1)):
        monkeypatch.setattr("dpose.training.environment.usable_cores", lambda cores=cores: cores)
        assert choose_devices("auto", "cpu", batch) == expected
    assert choose_devices(5, "cpu", 64) == 5


def test_loader_processes_are_shared_by_the_devices(monkeypatch):
    for cores, devices, expected in ((16, 8, 1), (16, 1, 8), (4, 1, 3), (2, 2, 1), (1, 1, 1), (64, 8, 7)):
        monkeypatch.setattr("dpose.training.environment.usable_cores", lambda cores=cores: cores)
        assert spare_workers(devices) == expected


def test_a_process_has_one_thread_unless_the_environment_says_otherwise(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        with preserved():
            set_up_process("32", "cpu")
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with preserved():
            set_up_process("32", "cpu")
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_augmentation_fields_are_all_recorded(trained):
    recorded = _json(trained.log.parent / "run.json")["recipe"]["augmentation"]
    assert recorded.keys() == {field.name for field in fields(trained.config.recipe.augmentation)}
    assert np.allclose(recorded["scale_range"], trained.config.recipe.augmentation.scale_range)


def _json(path):
    return json.loads(path.read_text())
