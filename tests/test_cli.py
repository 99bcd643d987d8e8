"""The command line: help is quick and complete, mistakes end in one line, and the commands do their work."""

import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

import dpose
from dpose import album
from dpose.cli import COMMANDS, SMPLX_RECIPE, _one_line, main
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
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"--progress, --no-progress show (a )?progress (line|bars) \(default: True\)", printed)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_text_names_none_as_a_default(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "default: None" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["predict", "train", "evaluate"])
def test_the_help_has_an_option_for_the_body(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"--body [A-Z]+ ", printed) and "name" in printed.split("--body ")[-1]


def test_the_recipe_in_the_help_of_predict_is_the_one_that_is_tested(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    printed = capsys.readouterr().out
    recipe = SMPLX_RECIPE[SMPLX_RECIPE.index("  p = np") : SMPLX_RECIPE.index("\n\nmakes")]
    assert recipe in printed and recipe.count("\n") == 3


def test_memory_that_does_not_suffice_ends_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(album, "predict_files", lambda *_, **__: np.ones(2**45))
    assert main(["predict", "image.png"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("dpose: error: out of memory: ") and printed.count("\n") == 1


def test_an_error_of_opencv_ends_in_one_line(tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise cv2.error("OpenCV(5.0.0) resize.cpp:1: error: (-4:Insufficient memory)\n in function 'resize'")

    monkeypatch.setattr(album, "predict_files", fails)
    assert main(["predict", "image.png", "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert "Insufficient memory" in printed and printed.count("\n") == 1


@pytest.mark.parametrize("name", SETS)
def test_prepare_explains_each_data_set(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["prepare", name, "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and set_module(name).__doc__.strip() in printed
    assert all(f"--{word}" in printed for word in ("root", "out", "split", "dry-run", "workers", "debug"))


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["train", "--steps", "0"], "steps"),
        (["train", "--preset", "huge"], "'huge'"),
        (["train", "--data", "/nowhere"], "/nowhere"),
        (["evaluate", "--checkpoint", "nothing"], "'nothing'"),
        (["predict", "nothing.jpg"], "nothing.jpg"),
        (["predict", "dpose"], "no images"),
        (["predict", "README.md"], "README.md"),
        (["predict", "README.md", "--save", "mesh,video"], "'video'"),
        (["prepare", "bedlam", "--root", "/nowhere", "--out", "x"], "/nowhere"),
        (["convert", "nothing.ckpt", "x.safetensors"], "'nothing.ckpt'"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(arguments, fact, capsys):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("dpose: error: ") and fact in printed.err
    assert printed.err.count("\n") == 1 and printed.out == ""


def test_debug_shows_where_an_error_came_from():
    with pytest.raises(ValueError, match="steps"):
        main(["train", "--debug", "--steps", "0"])


@pytest.mark.parametrize("option", ["--box", "--cam-int"])
@pytest.mark.parametrize("value", ["1,2,3", "a,b,c,d", "1,2,3,4,5", "-1,2", "-5"])
def test_other_than_four_numbers_are_a_usage_error(option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["predict", "x.png", option, value])
    assert stop.value.code == 2
    assert f"{option}: expected four numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    "written", [["--box", "-50,14,349,494"], ["--box=-50,14,349,494"], ["--box", "-.5,0,9,9"]]
)
def test_a_box_that_begins_left_of_the_image_is_taken_as_it_is_typed(written, monkeypatch):
    seen = []

    def predict_files(*_, boxes, cam_int, **__):
        seen.extend([*boxes, cam_int])
        raise ValueError("enough")

    monkeypatch.setattr(album, "predict_files", predict_files)
    assert main(["predict", "photo.jpg", *written, "--cam-int", "500,510,-20,240"]) == 2
    assert seen[0] == tuple(float(part) for part in written[-1].removeprefix("--box=").split(","))
    assert seen[1] == [[500, 0, -20], [0, 510, 240], [0, 0, 1]]


def test_predict_says_where_the_focal_length_is_from_and_warns_of_one_in_millimetres(tmp_path, capsys):
    image, out = tmp_path / "photo.png", tmp_path / "out"
    cv2.imwrite(str(image), np.full((300, 400, 3), 128, np.uint8))
    arguments = ["predict", str(image), "--out", str(out), "--device", "cpu", "--box", "-50,20,200,250"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "image diagonal" in printed.out and str(out / "photo") in printed.out and printed.err == ""
    with pytest.warns(UserWarning, match="26"):
        assert main([*arguments, "--focal", "26", "--overwrite"]) == 0
    assert "as given" in capsys.readouterr().out
    assert np.load(out / "photo" / "person-1.npz")["cam_int"][0, 0] == 26


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
    assert (tmp_path / "p" / "image" / "scene.glb").exists()


def test_an_error_of_a_loader_process_is_shown_without_its_traceback():
    raised = RuntimeError(
        "Caught TooManyBadSamples in DataLoader worker process 0.\nOriginal Traceback:\n"
        '  File "loader.py", line 1, in add\ndpose.data.loader.TooManyBadSamples: a.tar: cut short?\n'
    )
    assert _one_line(raised) == "a.tar: cut short?"
    assert _one_line(ValueError("steps must be\nat least 1")) == "steps must be at least 1"
