"""The command line: help is quick and complete, mistakes end in one line, and the commands do their work."""

import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

import dpose
from dpose.cli import COMMANDS, _one_line, main
from dpose.data import prepare
from dpose.data.prepare import SETS, set_module


def test_help_names_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; from dpose.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'lightning', 'numpy', 'cv2', 'warp'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_its_arguments(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--debug" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["train"], ["evaluate"], ["prepare", "agora"]])
def test_the_progress_that_is_shown_by_default_can_be_switched_off(command, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"--progress, --no-progress show (a )?progress (line|bars) \(default: True\)", said)


def test_memory_that_does_not_suffice_ends_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "prepare", lambda *a, **k: np.ones(2**45))
    assert main(["prepare", "agora", "--root", str(tmp_path), "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dpose: error: out of memory: ") and said.count("\n") == 1


@pytest.mark.parametrize("name", SETS)
def test_prepare_explains_each_data_set(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["prepare", name, "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and set_module(name).__doc__.strip() in said
    assert all(f"--{word}" in said for word in ("root", "out", "split", "dry-run", "workers", "debug"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--steps", "0"], "steps must be at least 1"),
        (["train", "--preset", "huge"], "unknown preset 'huge'"),
        (["train", "--data", "/nowhere"], "no data folder at /nowhere"),
        (["evaluate", "--checkpoint", "nothing"], "no checkpoint 'nothing'"),
        (["predict", "nothing.jpg"], "no image at nothing.jpg"),
        (["prepare", "bedlam", "--root", "/nowhere", "--out", "x"], "no folder /nowhere"),
        (["convert", "nothing.ckpt", "x.safetensors"], "no checkpoint 'nothing.ckpt'"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(arguments, message, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("dpose: error: ") and message in said.err
    assert said.err.count("\n") == 1 and said.out == ""


def test_debug_shows_where_an_error_came_from():
    with pytest.raises(ValueError, match="steps"):
        main(["train", "--debug", "--steps", "0"])


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "1,2,3,4,5"])
def test_a_box_of_other_than_four_numbers_is_a_usage_error(box, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["predict", "x.png", "--box", box])
    assert stop.value.code == 2
    assert "expected four numbers" in capsys.readouterr().err


def test_train_evaluate_and_predict_follow_one_another(people, tmp_path, capsys):
    run, image = tmp_path / "run", tmp_path / "image.png"
    cv2.imwrite(str(image), np.full((90, 120, 3), 128, np.uint8))
    settings = "--preset mini --steps 1 --batch-size 2 --workers 0 --accelerator cpu --no-progress"
    assert main(["train", "--data", str(people), "--out", str(run), *settings.split()]) == 0
    checkpoint = str(run / "model.safetensors")
    assert dpose.load(checkpoint).config.name == "mini"
    assert checkpoint in capsys.readouterr().out
    results = tmp_path / "results.json"
    arguments = ["--checkpoint", checkpoint, "--data", str(people), "--out", str(results), "--samples", "3"]
    assert main(["evaluate", *arguments, "--workers", "0", "--no-progress", "--device", "cpu"]) == 0
    assert "MPJPE" in capsys.readouterr().out and results.exists()
    arguments = [str(image), "--box", "10,5,60,80", "--checkpoint", checkpoint, "--out", str(tmp_path / "p")]
    assert main(["predict", *arguments, "--device", "cpu"]) == 0
    assert (tmp_path / "p" / "mesh.glb").exists()


def test_an_error_of_a_loader_process_is_told_without_its_traceback():
    raised = RuntimeError(
        "Caught TooManyBadSamples in DataLoader worker process 0.\nOriginal Traceback:\n"
        '  File "loader.py", line 1, in add\ndpose.data.loader.TooManyBadSamples: a.tar: cut short?\n'
    )
    assert _one_line(raised) == "a.tar: cut short?"
    assert _one_line(ValueError("steps must be\nat least 1")) == "steps must be at least 1"
