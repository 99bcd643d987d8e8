"""Runs over several nodes, batches in pieces, and processes that die.

Nodes are forked processes of this machine, in the environment that each launcher would give them.
"""

import copy
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta

import lightning.pytorch as lightning
import pytest
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from test_training_resume import kill_runs, rows

from dpose.body import load_body
from dpose.cli import main
from dpose.config import preset
from dpose.data.loader import make_loader
from dpose.losses import compute_losses
from dpose.model.inference import run_network, to_device
from dpose.training import Stopped, TrainConfig, Training, recipe, train
from dpose.training.environment import launched

PATIENCE = 300  # seconds, on a machine that does other work, too


def environment(launcher: str, rank: int, port: int) -> dict[str, str]:
    """What a launcher sets for a process, of two nodes with one process each."""
    one = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if launcher == "torchrun":
        one |= {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        return one | {"RANK": str(rank), "GROUP_RANK": str(rank)}
    if launcher == "srun":
        one |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"}
        return one | {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_JOB_NAME": "people"}
    return one | {"NODE_RANK": str(rank)}


def on_two_nodes(arguments: list[str], launcher: str, folder) -> tuple[list[int], list[str]]:
    """Exit statuses of `dpose train` on both nodes, and what they printed."""
    folder.mkdir(exist_ok=True)
    port, processes = find_free_network_port(), []
    for rank in range(2):

        def node(rank=rank):
            os.environ.update(environment(launcher, rank, port))
            for stream in (1, 2):
                os.dup2(os.open(folder / f"output-{rank}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            status = main(["train", *arguments])
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)

        processes.append(multiprocessing.get_context("fork").Process(target=node))
        processes[-1].start()
    for process in processes:
        process.join(PATIENCE)
        process.kill()
    return [process.exitcode for process in processes], [
        (folder / f"output-{rank}").read_text() for rank in range(2)
    ]


def options(config: TrainConfig) -> list[str]:
    text = f"--preset mini --data {config.data} --out {config.out} --steps {config.steps} "
    text += f"--batch-size {config.batch_size} --workers 0 --accelerator cpu --log-every 1 --no-progress"
    return text.split()


@pytest.fixture(scope="module")
def two_processes(people, tmp_path_factory) -> TrainConfig:
    """A run of two steps in two processes of one node."""
    config = TrainConfig(
        preset="mini",
        data=people,
        out=tmp_path_factory.mktemp("two") / "run",
        steps=2,
        batch_size=4,
        workers=0,
        accelerator="cpu",
        log_every=1,
        progress=False,
    )
    train(replace(config, devices=2))
    return config


@pytest.mark.parametrize("launcher", ["torchrun", "srun", "variables"])
def test_two_nodes_equal_two_processes_of_one_node(two_processes, tmp_path, launcher):
    nodes = ["--nodes", "2", "--devices", "1"] if launcher == "variables" else []
    arguments = options(replace(two_processes, out=tmp_path / "nodes")) + nodes
    statuses, printed = on_two_nodes(arguments, launcher, tmp_path / "printed")
    assert statuses == [0, 0]
    assert "2 steps" in printed[0] and "steps" not in printed[1]
    assert list(kill_runs.differences(two_processes.out, tmp_path / "nodes")) == []


class Shares:
    """A loader of known batches: each process gets the next rows of a batch, in pieces."""

    resumed = None

    def __init__(self, batches: list, size: int):
        self.batches, self.size = batches, size

    def __iter__(self):
        spread = torch.distributed.is_initialized()
        rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if spread else (0, 1)
        for batch in self.batches:
            share = len(batch["key"]) // world
            for start in range(rank * share, (rank + 1) * share, self.size):
                rows = slice(start, start + self.size)
                yield {k: v[rows] if isinstance(v, torch.Tensor | list) else v for k, v in batch.items()}


def test_a_divided_batch_gives_the_steps_of_the_whole_batch(quick, people, tmp_path, monkeypatch):
    """Both halves of each batch hold the same people, in another order, so that statistics over a half, in
    the batch norms and in the weights of the parts, are those of the whole."""
    loader = make_loader(people, "train", preset("mini"), 4, train=True, workers=0)
    order, batches = [0, 1, 2, 3, 2, 0, 3, 1], []
    for _, batch in zip(range(3), loader, strict=False):
        doubled = dict(batch)
        for name, value in batch.items():
            if isinstance(value, torch.Tensor):
                doubled[name] = value[order]
            elif isinstance(value, list):
                doubled[name] = [value[i] for i in order]
        batches.append(doubled)
    monkeypatch.setattr("dpose.training.step.make_loader", lambda *a, **k: Shares(batches, a[3]))
    monkeypatch.setattr("dpose.data.loader.Progress.update", lambda self, batch: None)
    config = replace(quick, steps=3, batch_size=8, precision="32", lr=1e-4)
    train(replace(config, out=tmp_path / "whole"))
    train(replace(config, out=tmp_path / "devices", devices=2))
    train(replace(config, out=tmp_path / "pieces", accumulate=2))
    arguments = options(replace(config, out=tmp_path / "nodes"))
    arguments += ["--precision", "32", "--lr", "1e-4", "--nodes", "2", "--devices", "1"]
    assert on_two_nodes(arguments, "variables", tmp_path / "printed")[0] == [0, 0]
    whole = rows(tmp_path / "whole" / "log.csv")
    for split in ("devices", "pieces", "nodes"):
        divided = rows(tmp_path / split / "log.csv")
        assert [row["step"] for row in divided] == [1, 2, 3]
        assert [row["images"] for row in divided] == [8, 16, 24]
        for one, two in zip(whole, divided, strict=True):
            for name in one.keys() - {*kill_runs.TIMES}:
                rounding = 2e-2 if name == "grad_norm" else 2e-4
                assert two[name] == pytest.approx(one[name], rel=rounding), (split, name)


def test_the_gradient_of_a_step_is_the_mean_over_its_pieces(quick, people, monkeypatch):
    config = replace(quick, batch_size=6, accumulate=3, steps=1, precision="32")
    found = []
    clip = Training.configure_gradient_clipping

    def look(self, *rest, **options):
        found.append(
            {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        )
        clip(self, *rest, **options)

    class Start(lightning.Callback):
        def on_train_start(self, trainer, module):
            self.model = copy.deepcopy(module.model)

    start = Start()
    monkeypatch.setattr(Training, "configure_gradient_clipping", look)
    train(config, callbacks=[start])
    mini = recipe("mini")
    body = load_body("open", vertex_stride=mini.vertex_stride)
    loader = make_loader(
        people, "train", start.model.config, 2, train=True, workers=0, augment=mini.augmentation
    )
    for _, batch in zip(range(3), loader, strict=False):
        batch = to_device(batch, "cpu")
        prediction = run_network(start.model, batch)
        (compute_losses(prediction, batch, body, mini.weights)["total"] / 3).backward()
    assert len(found) == 1
    for name, parameter in start.model.named_parameters():
        if name in found[0]:
            torch.testing.assert_close(found[0][name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_run_in_pieces_goes_on_exactly_and_may_change_their_number(quick, tmp_path):
    config = replace(quick, batch_size=4, accumulate=2, steps=5, log_every=2)
    train(config)
    halves = tmp_path / "halves"

    class StopInFirstPiece(lightning.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="step 3 of 5"):
        train(replace(config, out=halves), callbacks=[StopInFirstPiece()])
    assert rows(halves / "log.csv")[-1]["step"] == 2
    train(TrainConfig(resume=halves / "last.ckpt", progress=False))
    assert list(kill_runs.differences(quick.out, halves)) == []

    class Count(lightning.Callback):
        sizes = ()

        def on_train_batch_start(self, trainer, module, batch, index):
            self.sizes = (*self.sizes, (trainer.global_step, len(batch["key"])))

    for accumulate, size in ((4, 1), (1, 4)):
        count = Count()
        steps = rows(halves / "log.csv")[-1]["step"] + 2
        resumed = TrainConfig(
            resume=halves / "last.ckpt", accumulate=accumulate, steps=int(steps), progress=False
        )
        train(resumed, callbacks=[count])
        assert count.sizes == tuple((steps - 2 + i // accumulate, size) for i in range(2 * accumulate))


# --- launchers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, (2, 4)),
        ({"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_JOB_NAME": "train"}, (3, 2)),
        ({"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_JOB_NAME": "bash"}, None),
    ],
)
def test_nodes_and_devices_are_the_launchers_unless_given(quick, monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched() == expected
    for devices in (None, "auto"):
        chosen = replace(quick, batch_size=8, devices=devices).resolve()
        assert chosen.nodes == (expected[0] if expected else 1)
        if expected:
            assert chosen.devices == expected[1]
    assert replace(quick, devices=1).resolve().devices == 1


# --- dead processes -----------------------------------------------------------------------------------------


@pytest.fixture
def dies(monkeypatch):
    """The second process is killed in its third step, as the system does when memory is short."""
    step = Training.training_step

    def die(self, batch, index):
        if self.trainer.global_rank == 1 and self.trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, index)

    monkeypatch.setattr(Training, "training_step", die)


def test_a_killed_fork_ends_the_run_with_a_sentence(quick, dies):
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=rf"killed|ended.*step 2 of 500.*{quick.out}/last\.ckpt"):
        train(replace(quick, devices=2, steps=500))
    assert time.monotonic() - begin < PATIENCE
    assert torch.load(quick.out / "last.ckpt", weights_only=True)["global_step"] == 2


def test_a_killed_node_ends_the_others_with_a_sentence(quick, dies, tmp_path):
    arguments = [*options(replace(quick, steps=500)), "--nodes", "2", "--devices", "1"]
    statuses, printed = on_two_nodes(arguments, "variables", tmp_path / "printed")
    assert statuses == [2, -signal.SIGKILL]
    line = printed[0].splitlines()[-1]
    assert "process" in line and "step 2 of 500" in line and f"--resume {quick.out}/last.ckpt" in line


def test_a_node_that_does_not_answer_ends_the_others(quick, tmp_path, monkeypatch):
    step = Training.training_step

    def hang(self, batch, index):
        if self.trainer.global_rank == 1 and self.trainer.global_step == 2:
            time.sleep(12)
        return step(self, batch, index)

    monkeypatch.setattr(Training, "training_step", hang)
    monkeypatch.setattr("dpose.training.run.TIMEOUT", timedelta(seconds=4))
    statuses, printed = on_two_nodes(options(replace(quick, steps=500)), "torchrun", tmp_path / "printed")
    assert statuses == [2, 2]
    assert all("does not answer" in text and "step 2 of 500" in text for text in printed)


def test_the_death_of_a_process_that_a_script_started_is_reported(people, tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        "import os, signal, sys\n"
        "from dpose.training import TrainConfig, Training, train\n"
        "step = Training.training_step\n"
        "def die(self, batch, index):\n"
        "    if self.trainer.global_rank == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, batch, index)\n"
        "Training.training_step = die\n"
        "train(TrainConfig(preset='mini', data=sys.argv[1], out=sys.argv[2], steps=500, batch_size=4, "
        "workers=0, accelerator='cpu', devices=2, strategy='ddp', progress=False))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    done = subprocess.run(
        [sys.executable, str(script), str(people), str(tmp_path / "run")],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode != 0
    # The first process may notice first.
    noticed = ("training process 1 ended with status -9", "another process of the run ended")
    assert any(text in done.stderr for text in noticed)
