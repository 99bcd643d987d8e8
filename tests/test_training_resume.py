"""Runs that are resumed, stopped, killed, or end with an error; and runs of several processes."""

import csv
import errno
import importlib.util
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as lightning
import pytest
import torch
from random_people import write_random_people

import dpose
from dpose.cli import main
from dpose.io import HOST
from dpose.losses import RELEASED_WEIGHTS, compute_losses
from dpose.training import Stopped, TrainConfig, learning_rate, recipe, train
from dpose.training.callbacks import RunFolderIO

ROOT = Path(__file__).resolve().parents[1]


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kill_runs = load_script("kill_runs")


@pytest.fixture(scope="module")
def halfway(people, tmp_path_factory) -> TrainConfig:
    """A run of two steps of five, to go on with."""
    config = TrainConfig(
        preset="mini",
        data=people,
        out=tmp_path_factory.mktemp("halfway") / "run",
        steps=5,
        batch_size=2,
        seed=3,
        workers=0,
        accelerator="cpu",
        log_every=1,
        progress=False,
    )
    with pytest.raises(Stopped):
        train(config, callbacks=[Send(signal.SIGTERM, after=2)])
    return config


@pytest.fixture
def copied(halfway, tmp_path) -> Path:
    """`last.ckpt` in a copy of its folder."""
    shutil.copytree(halfway.out, tmp_path / "copy")
    return tmp_path / "copy" / "last.ckpt"


class Send(lightning.Callback):
    """Sends signals to the first process, within a step, and looks at the optimizer's rate."""

    def __init__(self, *signals: int, after: int = 0) -> None:
        self.signals, self.after, self.rates = signals, after, []

    def on_train_batch_end(self, trainer, module, *rest) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        if trainer.global_step + 1 == self.after and trainer.is_global_zero:
            for signum in self.signals:
                os.kill(os.getpid(), signum)


def rows(path) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def run_record(out: Path) -> dict:
    return json.loads((out / "run.json").read_text())


# --- going on -----------------------------------------------------------------------------------------------


def test_a_run_killed_at_any_moment_and_resumed_equals_the_uninterrupted_one(people, tmp_path):
    """The small form of `scripts/kill_runs.py`, in forked processes."""

    class Forked:
        def __init__(self, arguments):
            context = multiprocessing.get_context("fork")
            self.process = context.Process(target=lambda: os._exit(main(["train", *arguments])))
            self.process.start()
            self.pid, self.stderr = self.process.pid, None

        def poll(self):
            return self.process.exitcode

        def wait(self):
            self.process.join()
            return self.process.exitcode

    options = (
        f"--preset mini --data {people} --steps 12 --batch-size 2 --accelerator cpu --devices 1 --workers 1 "
        "--log-every 2 --checkpoint-minutes 0.002 --validate-every 5 --no-progress"
    ).split()
    rng = random.Random(0)
    assert kill_runs.kill_and_resume(options, tmp_path / "straight", 0, rng, Forked) == []
    killed = kill_runs.kill_and_resume(options, tmp_path / "killed", 3, rng, Forked)
    assert len(killed) >= 2  # on a fast machine it may be through before the third
    assert list(kill_runs.differences(tmp_path / "straight", tmp_path / "killed")) == []
    log = rows(tmp_path / "killed" / "log.csv")
    assert [row["step"] for row in log] == [2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in rows(tmp_path / "killed" / "val.csv")] == [5, 10, 12]


def test_a_run_killed_after_its_last_checkpoint_is_completed_and_stays_as_it_is(
    quick, tmp_path, monkeypatch, capsys
):
    """A restart loop resumes such a run, too, and must end with success."""
    straight, killed = (replace(quick, out=tmp_path / name) for name in ("straight", "killed"))
    train(straight)
    before = {path.name: path.read_bytes() for path in straight.out.iterdir()}
    assert train(TrainConfig(resume=straight.out / "last.ckpt", progress=False)).steps == 4
    assert before == {path.name: path.read_bytes() for path in straight.out.iterdir()}
    save = RunFolderIO.save_checkpoint

    def save_and_die(*args, **options):
        save(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolderIO, "save_checkpoint", save_and_die)
        process = multiprocessing.get_context("fork").Process(target=train, args=(killed,))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL and run_record(killed.out)["status"] == "training"
    last = killed.out / "last.ckpt"
    with open(killed.out / "log.csv", "a") as log:
        log.write("5,1")  # as of a run that was to be longer
    (killed.out / f".last.ckpt.{HOST}.{process.pid}.part").touch()

    contents = []
    for _ in range(2):
        assert main(["train", "--resume", str(last)]) == 0
        output = capsys.readouterr()
        assert "complete at step 4" in output.err and output.out.startswith("4 steps")
        contents.append({path.name: path.read_bytes() for path in killed.out.iterdir()})
    assert contents[0] == contents[1]
    assert list(kill_runs.differences(straight.out, killed.out)) == []
    records = [run_record(run.out) for run in (straight, killed)]
    assert records[0].pop("seconds") > 0 and records[1].pop("seconds") > 0
    assert records[0] == records[1] and records[0]["status"] == "finished"

    for options in (["--steps", "3"], ["--out", str(tmp_path / "other")]):
        assert main(["train", "--resume", str(last), *options]) == 2
        assert "step 4" in capsys.readouterr().err
    (killed.out / "model.safetensors").unlink()
    assert main(["train", "--resume", str(last)]) == 2
    assert "model.safetensors" in capsys.readouterr().err


def test_resume_alone_goes_on_with_everything_that_the_run_had(people, tmp_path):
    """Were one setting forgotten, the second half would be another one."""
    data = [people, write_random_people(tmp_path / "other", train=8, test=1)]
    config = TrainConfig(
        preset="mini",
        data=data,
        mix=[3, 1],
        out=tmp_path / "run",
        recipe=replace(recipe("released"), augmentation=recipe("mini").augmentation, vertex_stride=8),
        steps=4,
        batch_size=3,
        lr=3e-4,
        seed=11,
        precision="32",
        workers=0,
        accelerator="cpu",
        max_bad=3,
        log_every=2,
        checkpoint_minutes=7.0,
        progress=False,
    )
    straight = train(replace(config, out=tmp_path / "straight"))
    with pytest.raises(Stopped):
        train(config, callbacks=[Send(signal.SIGTERM, after=1)])
    resumed = train(TrainConfig(resume=tmp_path / "run" / "last.ckpt", progress=False))
    assert list(kill_runs.differences(tmp_path / "straight", tmp_path / "run")) == []
    assert resumed.config.recipe == straight.config.recipe
    assert resumed.config.recipe.weights == RELEASED_WEIGHTS
    for name in ("preset", "mix", "batch_size", "lr", "seed", "precision", "workers", "max_bad", "log_every"):
        assert getattr(resumed.config, name) == getattr(straight.config, name)
    assert resumed.config.checkpoint_minutes == 7
    recorded = torch.load(resumed.resume, weights_only=True)["dpose"]
    assert json.loads(json.dumps(recorded["config"]))["mix"] == [3, 1]


def test_a_new_learning_rate_takes_effect_and_is_logged_as_it_is(copied, capsys):
    look = Send()
    result = train(TrainConfig(resume=copied, lr=1e-5, steps=6), callbacks=[look])
    expected = [learning_rate(step, replace(recipe("mini"), lr=1e-5, steps=6)) for step in range(2, 6)]
    assert look.rates == expected
    assert [row["lr"] for row in rows(result.log)[2:]] == pytest.approx(expected, rel=1e-6)
    groups = torch.load(result.resume, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert groups[0]["lr"] == expected[-1]
    stderr = capsys.readouterr().err
    for change in ("lr 0.0025 -> 1e-05", "steps 5 -> 6"):
        assert change in stderr and change in run_record(copied.parent)["resumed"][0]["changes"]


@pytest.mark.parametrize(
    ("wrong", "facts"),
    [
        ({"preset": "mini-no-depth"}, ("preset", "mini-no-depth")),
        ({"batch_size": 4}, ("batch_size", "2", "4")),
        ({"seed": 4}, ("seed", "3", "4")),
        ({"seed": 0}, ("seed", "3", "0")),
        ({"precision": "tf32"}, ("precision", "tf32")),
        ({"recipe": "released"}, ("augmentation.flip_p", "0.5", "0.0")),
        ({"recipe": replace(recipe("mini"), vertex_stride=9)}, ("vertex_stride", "8", "9")),
        ({"mix": [2.0]}, ("mix", "2.0")),
        ({"steps": 2}, ("step 2",)),
        ({"body": "open-smpl"}, ("open-smpl",)),
    ],
)
def test_what_would_make_it_another_run_is_refused_by_name(copied, wrong, facts):
    before = copied.read_bytes()
    with pytest.raises(ValueError) as error:
        train(TrainConfig(resume=copied, progress=False, **wrong))
    assert all(fact in str(error.value) for fact in facts)
    assert copied.read_bytes() == before and run_record(copied.parent)["status"] == "stopped"


def test_a_run_of_a_version_with_fewer_options_goes_on(copied):
    content = torch.load(copied, weights_only=True)
    for name in ("validate_every", "val_data"):
        del content["dpose"]["config"][name]
    torch.save(content, copied)
    assert train(TrainConfig(resume=copied, steps=3, progress=False)).steps == 3


def test_data_may_move_but_not_change(copied, halfway, people, tmp_path):
    other = write_random_people(tmp_path / "other", train=8, test=1)
    with pytest.raises(ValueError, match="data"):
        train(TrainConfig(resume=copied, data=other, progress=False))
    moved = shutil.copytree(people, tmp_path / "moved")
    assert train(TrainConfig(resume=copied, data=moved, steps=3, progress=False)).steps == 3


def test_other_workers_begin_a_new_order_and_say_so(copied, capsys):
    train(TrainConfig(resume=copied, workers=2, steps=3))
    assert "begins anew" in capsys.readouterr().err


def test_a_resumed_run_does_not_replace_another_one(halfway, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "last.ckpt").write_bytes(b"somebody's work")
    config = TrainConfig(resume=halfway.out / "last.ckpt", out=out, steps=4, progress=False)
    with pytest.raises(FileExistsError, match="run"):
        train(config)
    assert (out / "last.ckpt").read_bytes() == b"somebody's work"
    (out / "log.csv").write_text("step,seconds,total\n1,1000,7.5\n")
    result = train(replace(config, overwrite=True))
    assert [row["step"] for row in rows(result.log)] == [3, 4]  # no row of the run that was there
    assert (tmp_path / "run.1" / "last.ckpt").read_bytes() == b"somebody's work"


# --- files that cannot be resumed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}, "dpose": {"part_order": "released", "metadata": "{}"}},
        {"state_dict": {}, "epoch": 3, "global_step": 9},
        {"conv1.weight": 0, "stage2.0.branches.0.0.conv1.weight": 0},
    ],
    ids=["converted", "authors'", "hrnet"],
)
def test_resuming_from_weights_alone_points_to_init(content, tmp_path):
    path = tmp_path / "weights.ckpt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"weights\.ckpt.*--init"):
        TrainConfig(resume=path).resolve()


def test_a_damaged_configuration_is_refused_in_one_sentence(copied):
    content = torch.load(copied, weights_only=True)
    ours = content["dpose"]
    for damage, fact in (
        ({"dpose": ours | {"step": "two"}}, "step"),
        ({"dpose": {"step": 2, "preset": "mini"}}, "--init"),
        ({"dpose": ours | {"config": ours["config"] | {"recipe": 5}}}, "damaged"),
        ({"dpose": ours | {"config": {"recipe": ours["config"]["recipe"]}}}, "seed"),
        ({"pytorch-lightning_version": None}, "version"),
        ({"optimizer_states": None}, "optimizer_states"),
    ):
        changed = {name: value for name, value in (content | damage).items() if value is not None}
        torch.save(changed, copied)
        with pytest.raises(ValueError, match=fact) as error:
            TrainConfig(resume=copied).resolve()
        assert "last.ckpt" in str(error.value) and "\n" not in str(error.value)


def test_resuming_runs_no_code_and_advises_none(quick, trained, tmp_path):
    with pytest.raises(ValueError, match=r"model\.safetensors.*--init"):
        train(replace(quick, resume=trained.checkpoint))
    with pytest.raises(ValueError, match="log.csv"):
        train(replace(quick, resume=trained.log))

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it_ran"),)

    torch.save({"state_dict": {}, "dpose": Hostile()}, tmp_path / "hostile.ckpt")
    with pytest.raises(ValueError, match=r"hostile\.ckpt.*posix\.mkdir") as error:
        train(replace(quick, resume=tmp_path / "hostile.ckpt"))
    assert "weights_only" not in str(error.value) and not (tmp_path / "it_ran").exists()
    assert not quick.out.exists()


# --- signals and errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signals", "status"),
    [((signal.SIGTERM,), 143), ((signal.SIGINT,), 130), ((signal.SIGINT,) * 3, 130)],
    ids=["TERM", "INT", "INT three times"],
)
def test_a_signal_ends_the_run_after_its_step_saved_with_a_true_status(
    people, tmp_path, signals, status, monkeypatch, capfd
):
    steps = []

    def send(*args):
        steps.append(1)
        if len(steps) == 2:
            for signum in signals:
                os.kill(os.getpid(), signum)
        return compute_losses(*args)

    monkeypatch.setattr("dpose.training.step.compute_losses", send)
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    options = f"--preset mini --steps 50 --batch-size 2 --workers 0 --accelerator cpu --out {tmp_path}/run"
    assert main(["train", "--data", str(people), "--no-progress", *options.split()]) == status
    assert handlers == [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    stderr = capfd.readouterr().err.splitlines()
    last = tmp_path / "run" / "last.ckpt"
    assert len(stderr) == 1 and all(fact in stderr[0] for fact in ("step 2 of 50", f"--resume {last}"))
    assert torch.load(last, weights_only=True)["global_step"] == run_record(tmp_path / "run")["step"] == 2


def test_a_signal_before_the_first_step_saves_nothing_and_says_so(quick, monkeypatch):
    monkeypatch.setattr(
        "dpose.training.run.initialise_heads", lambda *a: os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(Stopped, match="before") as stop:
        train(quick)
    assert stop.value.code == 143 and not quick.out.exists()


def failing(at: int, error: Exception | None):
    """`compute_losses` that raises an error, or gives NaN, at one of its calls."""
    steps = []

    def compute(*args):
        steps.append(1)
        terms = compute_losses(*args)
        if len(steps) < at:
            return terms
        if error is not None:
            raise error
        return terms | {"total": terms["total"] * float("nan")}

    return compute


def test_what_was_learned_is_saved_before_an_error_ends_the_run(quick, people, monkeypatch, capsys):
    monkeypatch.setattr("dpose.training.step.compute_losses", failing(3, ValueError("a bad sample")))
    options = f"--preset mini --steps 50 --batch-size 2 --workers 0 --accelerator cpu --out {quick.out}"
    assert main(["train", "--data", str(people), "--no-progress", *options.split()]) == 2
    stderr = capsys.readouterr().err
    last = quick.out / "last.ckpt"
    assert "a bad sample" in stderr and f"--resume {last}" in stderr and stderr.count("\n") == 1
    assert run_record(quick.out)["status"] == "failed"
    assert torch.load(last, weights_only=True)["global_step"] == 2
    assert dpose.model.checkpoint.metadata(quick.out / "model.safetensors")["step"] == 2
    monkeypatch.setattr("dpose.training.step.compute_losses", compute_losses)
    assert train(TrainConfig(resume=last, steps=3, progress=False)).steps == 3


@pytest.mark.parametrize("log_every", [1, 20])
def test_a_loss_that_is_not_finite_ends_the_run_and_never_replaces_good_weights(
    copied, log_every, monkeypatch
):
    """Also if a signal or an error comes before the row of the log that would show it."""
    before = copied.read_bytes()
    monkeypatch.setattr("dpose.training.step.compute_losses", failing(1, None))
    with pytest.raises(FloatingPointError) as error:
        config = TrainConfig(resume=copied, log_every=log_every, progress=False)
        train(config, callbacks=[Send(signal.SIGTERM, after=4)])
    assert str(copied) in str(error.value) and "step" in str(error.value)
    assert copied.read_bytes() == before


def test_a_loss_that_is_not_finite_names_no_checkpoint_that_is_not_there(quick, monkeypatch):
    monkeypatch.setattr("dpose.training.step.compute_losses", failing(1, None))
    with pytest.raises(FloatingPointError, match="step 1") as error:
        train(quick)
    assert "last.ckpt" not in str(error.value)
    assert not (quick.out / "model.safetensors").exists()


def test_a_full_disk_names_the_file_and_leaves_the_weights(quick, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(OSError, match=r"last\.ckpt.*No space left"):
        train(replace(quick, steps=1))
    assert dpose.load(quick.out / "model.safetensors").config.name == "mini"
    assert not list(quick.out.glob(".*"))


# --- several processes --------------------------------------------------------------------------------------


def test_forked_processes_see_no_sample_twice_in_an_epoch_and_resume_exactly(quick, tmp_path, monkeypatch):
    """As in a notebook. Four steps of four are the 16 people's first epoch."""
    from dpose.training import Training

    step = Training.training_step

    def look(self, batch, index):
        with open(tmp_path / f"keys-{self.trainer.global_rank}.txt", "a") as file:
            print(*batch["key"], file=file)
        return step(self, batch, index)

    config = replace(quick, batch_size=4, devices=2, workers=1, log_every=3, steps=5, validate_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "training_step", look)
        result = train(config)
    assert result.steps == 5 and result.losses["total"] > 0 and result.images_per_second > 0
    seen = [(tmp_path / f"keys-{rank}.txt").read_text().split()[:8] for rank in range(2)]
    assert [len(keys) for keys in seen] == [8, 8] and len({*seen[0], *seen[1]}) == 16
    assert [row["step"] for row in rows(result.log)] == [3, 5]
    validated = rows(quick.out / "val.csv")
    assert [(row["step"], row["samples"]) for row in validated] == [(2, 4), (4, 4), (5, 4)]

    with pytest.raises(Stopped, match="step 2 of 5"):
        train(replace(config, out=tmp_path / "halves"), callbacks=[Send(signal.SIGTERM, after=2)])
    train(TrainConfig(resume=tmp_path / "halves" / "last.ckpt", progress=False))
    assert list(kill_runs.differences(quick.out, tmp_path / "halves")) == []


def test_a_signal_to_the_process_that_waits_for_others_reaches_them(quick):
    class SendToParent(lightning.Callback):
        def on_train_batch_end(self, trainer, *rest):
            if trainer.is_global_zero and trainer.global_step == 1:
                os.kill(os.getppid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"of 500.*last\.ckpt"):
        train(replace(quick, devices=2, steps=500), callbacks=[SendToParent()])
    assert run_record(quick.out)["status"] == "stopped"


def test_an_error_in_one_of_two_processes_is_reported_and_the_first_saves_by_itself(quick, monkeypatch):
    from dpose.training import Training

    step = Training.training_step

    def fail(self, batch, index):
        if self.trainer.global_rank == 1 and self.trainer.global_step == 2:
            raise ValueError("a bad sample of the second process")
        return step(self, batch, index)

    monkeypatch.setattr(Training, "training_step", fail)
    with pytest.raises(RuntimeError, match="a bad sample of the second process|Connection"):
        train(replace(quick, devices=2, steps=50))
    assert torch.load(quick.out / "last.ckpt", weights_only=True)["global_step"] == 2


def test_spawned_processes_train_and_the_result_comes_from_the_run_folder(quick):
    result = train(replace(quick, devices=2, strategy="ddp_spawn", steps=2))
    assert result.steps == 2 and result.checkpoint.exists()
    assert result.losses["total"] == rows(result.log)[-1]["total"]
    assert run_record(quick.out)["devices"] == 2 and run_record(quick.out)["status"] == "finished"


def test_two_processes_of_a_script_train(people, tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\n"
        "from dpose.training import TrainConfig, train\n"
        "result = train(TrainConfig(preset='mini', data=sys.argv[1], out=sys.argv[2], steps=2, batch_size=4, "
        "workers=0, accelerator='cpu', devices=2, strategy='ddp', progress=False))\n"
        "assert result.steps == 2\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    done = subprocess.run(
        [sys.executable, str(script), str(people), str(tmp_path / "run")],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert run_record(tmp_path / "run")["data_samples"] == 16
    assert rows(tmp_path / "run" / "log.csv")[-1]["step"] == 2
