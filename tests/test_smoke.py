"""The commands one after another with the core requirements only; also part of `make test-lowest`."""

import pkgutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

import dpose
from dpose.body import load_body
from dpose.cli import main

OPTIONAL = ("smplx", "IPython", "neural_renderer", "s3fs")
IMPORT_ALL = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({OPTIONAL}))
import dpose
for module in pkgutil.walk_packages(dpose.__path__, "dpose."):
    importlib.import_module(module.name)
    print(module.name)
"""


@pytest.fixture
def without_optional(monkeypatch):
    """Imports of packages outside the core requirements fail."""
    for name in OPTIONAL:
        monkeypatch.setitem(sys.modules, name, None)


def test_each_module_imports_without_smplx_and_other_optional_packages():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = {module.name for module in pkgutil.walk_packages(dpose.__path__, "dpose.")}
    assert set(done.stdout.split()) == names and {"dpose.cli", "dpose.predictor", "dpose.evaluate"} <= names


def test_synth_train_resume_evaluate_and_predict_run_without_optional_packages(
    without_optional, tmp_path, capsys, monkeypatch
):
    import cv2

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dpose.synthetic.dataset.SCENES_PER_SHARD", 4)
    torch.set_num_threads(1)
    root, run = tmp_path / "open", tmp_path / "run"
    scenes = ["--train", "8", "--val", "1", "--test", "3", "--frames", "1", "--size", "80"]
    assert main(["synth", "--root", str(root), *scenes, "--workers", "1"]) == 0
    options = ["--data", str(root), "--accelerator", "cpu", "--workers", "0", "--batch-size", "2"]
    start = ["--preset", "mini", "--steps", "2", "--out", str(run), "--no-progress"]
    assert main(["train", *start, *options]) == 0
    assert main(["train", "--resume", str(run / "last.ckpt"), "--steps", "3"]) == 0
    trained = str(run / "model.safetensors")
    data = ["--data", str(root), "--samples", "2", "--workers", "0", "--no-progress"]
    assert main(["evaluate", "--checkpoint", trained, *data, "--out", str(tmp_path / "scores.json")]) == 0
    photo = tmp_path / "photo.jpg"
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8))
    predict = ["predict", str(photo), "--box", "0,0,90,120", "--checkpoint", trained]
    assert main([*predict, "--out", str(tmp_path / "people")]) == 0
    assert main(["doctor", "--data", str(root)]) == 0
    output = capsys.readouterr()
    assert "missing" in output.out or find_spec("smplx")
    names = {path.name for path in (tmp_path / "people" / "photo").iterdir()}
    assert {"overlay.jpg", "person-1-depth.png", "scene.glb", "person-1.npz", "people.json"} <= names
    assert (tmp_path / "scores.json").stat().st_size > 1000


def test_figures_draw_without_optional_packages(without_optional, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    from dpose import figures

    body = load_body()
    figure = figures.mesh_figure([body.template.T.numpy()], body.faces.numpy(), ["rest"])
    assert len(figure.to_json()) > 10_000
    depth = figures.colour_depth(np.linspace(0, 1, 16).reshape(4, 4))
    assert len(figures.picture_grid([[depth, depth]], ("a", "b")).axes) == 2
