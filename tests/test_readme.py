"""README's blocks of code run as they are written, or are at least parsed; its numbers are the measured ones.

Commands that predict, convert, or evaluate run with the files that they name; those that train run for a step
of two people; commands that need licensed data or hours are parsed by the parser of `dpose`. A block or line
of another kind is a failure.
"""

import json
import re
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from test_released import synthetic_state

import dpose
from dpose import app, training
from dpose.body import OPEN_BODY
from dpose.cli import _parser, main
from dpose.film import FilmWriter

for package in ("av", "onnx", "onnxscript"):
    pytest.importorskip(package)

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
RUN = {  # options that are added to commands which run
    "predict": [],
    "convert": [],
    "app": ["--port", "0"],
    "evaluate": ["--workers", "0", "--no-progress"],
    "train": ["--steps", "1", "--devices", "1", "--workers", "0", "--no-progress"],
}
PARSED = ("synth", "prepare", "experiment", "install-neural-renderer")
ABSENT = ("paper", "pose_hrnet", "/shards/", "synth:")  # in lines about what tests do not have or make
OTHERS = ("make", "source", "export", "pip")  # test_packaging has the targets of make


def test_every_block_is_of_a_kind_that_is_tested_here():
    assert {language for language, _ in BLOCKS} == {"sh", "python", "bibtex"}
    assert README.count("```") == 2 * len(BLOCKS)


@pytest.fixture
def folder(people, tmp_path, monkeypatch) -> Path:
    """The working folder, with the files that README names. The open data are a few random people."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPOSE_DATA", str(people))
    torch.set_num_threads(1)
    photo = skimage.data.astronaut()
    for name in ("photo.jpg", "photos/a.jpg", "val2017/1.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        cv2.imwrite(name, photo[..., ::-1])
    with FilmWriter("film.mp4", 30, (256, 256)) as film:
        for _ in range(3):
            film.write(cv2.resize(photo, (256, 256)))
    names = ["left_shoulder", "right_shoulder"]
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [60, 0, 330, 512]}
    person |= {"keypoints": [300, 230, 2, 125, 235, 2], "num_keypoints": 2}
    annotations = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 512, "height": 512}],
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
        "annotations": [person],
    }
    Path("person_keypoints_val2017.json").write_text(json.dumps(annotations))
    return tmp_path


@pytest.fixture
def released(folder, monkeypatch):
    """The authors' checkpoint with random weights; the open body's arrays are in the place of SMPL-X."""
    state = synthetic_state()
    torch.save({"state_dict": state, "pytorch-lightning_version": "1.9.0"}, folder / "paper_arxiv.ckpt")
    (folder / "models" / "smplx").mkdir(parents=True)
    (folder / "models" / "smplx" / "SMPLX_NEUTRAL.npz").symlink_to(OPEN_BODY)
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(folder / "models"))


def run(line: str, monkeypatch) -> None:
    """Runs or parses a line of a shell block."""
    program, *words = shlex.split(line, comments=True)
    if program == "papermill":
        notebook, _, *options = words
        source = (ROOT / notebook).with_suffix(".py").read_text(encoding="utf-8")
        cell = source[source.index('tags=["parameters"') :].split("\n# %%")[0]
        names = set(re.findall(r"^(\w+) =", cell, re.MULTILINE))
        assert options[::3] == ["-p"] * (len(options) // 3) and set(options[1::3]) <= names
        return
    if program != "dpose":
        assert program in OTHERS, f"what tests {line!r}?"
        return
    _parser(words).parse_args(words)  # exits with status 2 for an unknown option
    command = words[0]
    if command in PARSED or (command in ("train", "evaluate") and any(text in line for text in ABSENT)):
        return
    assert command in RUN, f"what tests {line!r}?"
    added = list(RUN[command])
    if command == "train":
        added += ["--steps", "2"] if "--resume" in words else ["--batch-size", "2"]
    with monkeypatch.context() as patches:
        if command == "convert" and words[-1].endswith(".onnx"):  # test_onnx_file runs it
            patches.setattr("dpose.model.onnx_file.export_onnx", write_onnx)
        if command == "app":
            patches.setattr(app.Server, "serve_forever", stop)
            patches.setattr(signal, "signal", lambda *_: None)  # pytest's handlers stay
        assert main([*words, *added]) == (130 if command == "app" else 0), line


def stop(server: app.Server) -> None:
    """Ctrl-C in the terminal of `dpose app`, after the page has been made."""
    assert server.app.page
    raise KeyboardInterrupt


def write_onnx(checkpoint: Path, path: Path) -> Path:
    assert checkpoint.is_file()
    path.touch()
    return path


def block(text: str, language: str = "sh") -> str:
    """The block that contains a text."""
    (found,) = [content for kind, content in BLOCKS if kind == language and text in content]
    return found


SHELL = [content for language, content in BLOCKS if language == "sh"]


@pytest.mark.parametrize(
    "content", [one for one in SHELL if "paper_arxiv" not in one], ids=lambda one: one.split("#")[0].strip()
)
def test_the_commands_of_a_block_run_one_after_the_other(content, folder, monkeypatch, capsys):
    for line in filter(None, content.splitlines()):
        run(line, monkeypatch)
    if "dpose predict" in content:
        names = {path.name for path in (folder / "prediction" / "photo").iterdir()}
        assert {"overlay.jpg", "scene.glb", "person-1.npz", "person-1-parts.png"} <= names
        assert (folder / "people" / "a").is_dir() and (folder / "people" / "film" / "overlay.mp4").is_file()
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        assert [json.loads(line)["frame"] for line in lines] == [0, 1, 2]
        assert (folder / "network.onnx").is_file()


def test_the_commands_about_released_weights_run(released, folder, monkeypatch, capsys):
    for line in block("paper_arxiv").splitlines():
        run(line, monkeypatch)
    assert (folder / "paper.safetensors").is_file()
    parameters = np.load(folder / "prediction" / "photo" / "person-1.npz")
    assert str(parameters["body"]) == "smplx-neutral" and parameters["parts"].ndim == 2


def test_the_python_code_runs(folder, monkeypatch, capsys):
    train, evaluate = training.train, sys.modules["dpose.evaluate"].evaluate

    def shortly(config):
        return train(replace(config, steps=1, batch_size=2, workers=0, accelerator="cpu", progress=False))

    monkeypatch.setattr(training, "train", shortly)
    monkeypatch.setattr(
        "dpose.evaluate.evaluate", lambda *a, **k: evaluate(*a, workers=0, progress=False, **k)
    )
    scope: dict = {}
    exec(block("import dpose", "python"), scope)
    printed = capsys.readouterr().out
    assert "(63,)" in printed and scope["person"].vertices.shape[1] == 3
    assert isinstance(scope["network"], dpose.DPose) and isinstance(scope["fast"], dpose.FastDPose)


def test_the_times_and_costs_of_prediction_are_those_that_were_measured():
    cases = json.loads((ROOT / "results" / "predict.json").read_text())["cases"]
    lite = {one["people"]: one for one in cases if (one["network"], one["path"]) == ("lite", "fast")}
    variants = json.loads((ROOT / "results" / "precision.json").read_text())["variants"]
    plain, int8 = variants["onnxruntime, 32 bits"], variants["onnxruntime, int8"]
    saved = np.mean([1 - int8[name] / plain[name] for name in ("ms_1", "ms_8")])
    text = " ".join(README.split())
    for fact in (
        rf"{lite[1]['picture']:.0f} ms with one person",
        rf"{lite[8]['picture']:.0f} ms with eight",
        rf"first call of a process {lite[1]['first'] / 1000:.1f} s",
        rf"by {variants['FastDPose, bf16']['vertices_mean_mm']:.1f} mm on average",
        rf"save {10 * round(10 * saved)} % of the network's time",
        rf"move them by {int8['vertices_mean_mm']:.0f} mm",
        rf"add {int8['mpjpe_mm'] - plain['mpjpe_mm']:.0f} mm to the MPJPE",
    ):
        assert fact in text, fact


def test_the_numbers_in_docstrings_are_those_that_were_measured():
    from dpose import track
    from dpose.model import inference

    variants = json.loads((ROOT / "results" / "precision.json").read_text())["variants"]
    moved = [variants[f"FastDPose, bf16{rest}"]["vertices_mean_mm"] for rest in (" in the backbone too", "")]
    text = " ".join(inference.__doc__.split())
    assert f"`lite` move by {moved[0]:.0f} mm, otherwise by {moved[1]:.1f} mm" in text
    settings = json.loads((ROOT / "results" / "smoothing.json").read_text())["settings"]
    before, after = settings["none"], settings["default"]
    kinds = ("pose", "direction", "distance")
    removed = [100 - 100 * after[f"{kind}_accel_mm"] / before[f"{kind}_accel_mm"] for kind in kinds]
    text = " ".join(track.Smoother.__doc__.split())
    assert f"remove {round(min(removed), -1):.0f} to {round(max(removed), -1):.0f} % of the jitter" in text
    stated = re.search(
        r"by about (\d+) ms, places by (\d+) ms across the picture and (\d+) ms in depth", text
    )
    lags = [after[f"{kind}_lag_ms"] for kind in kinds]
    assert all(abs(int(one) - lag) <= 5 for one, lag in zip(stated.groups(), lags, strict=True))
