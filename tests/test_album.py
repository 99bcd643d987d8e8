"""`dpose predict` on files and folders: a folder per picture, counts, exit status, and resuming."""

import json
import shutil

import cv2
import numpy as np
import pytest
import skimage.data

from dpose import detect
from dpose.cli import main


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("astronaut", "coffee"):
        cv2.imwrite(str(folder / f"{name}.png"), getattr(skimage.data, name)()[..., ::-1])
    return folder


def run(*arguments) -> int:
    return main(["predict", *map(str, arguments), "--device", "cpu", "--no-progress"])


def test_a_photograph_becomes_a_folder_of_files(pictures, tmp_path, capsys):
    assert run(pictures / "astronaut.png", "--out", tmp_path / "out") == 0
    names = {path.name for path in (tmp_path / "out" / "astronaut").iterdir()}
    maps = {"person-1-parts.png", "person-1-depth.png"}
    assert names == {"overlay.jpg", "scene.glb", "people.json", "person-1.npz", *maps}
    printed = capsys.readouterr()
    assert "1 person in 1 picture" in printed.out and printed.err == ""


def test_nobody_in_a_picture_is_said_with_status_3_and_writes_nothing(pictures, tmp_path, capsys):
    assert run(pictures / "coffee.png", "--out", tmp_path / "out") == 3
    assert "nobody found in 1 picture" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_damaged_file_is_done_but_for_that_file(pictures, tmp_path, capsys):
    folder = tmp_path / "in"
    shutil.copytree(pictures, folder)
    (folder / "damaged.jpg").write_bytes(b"a letter, say")
    (folder / "notes.txt").write_text("not a picture")
    options = ["--out", tmp_path / "out", "--save", "params"]
    assert run(folder, folder / "astronaut.png", *options) == 4
    printed = capsys.readouterr().out
    assert "1 person in 1 picture" in printed and "nobody found in 1 picture" in printed
    assert "1 file could not be read" in printed
    (found,) = (tmp_path / "out").iterdir()
    assert {path.name for path in found.iterdir()} == {"people.json", "person-1.npz"}


def test_what_was_done_before_is_left_alone_unless_it_is_to_be_replaced(pictures, tmp_path, capsys):
    options = [pictures / "astronaut.png", "--out", tmp_path, "--save", "params"]
    assert run(*options) == 0
    record = tmp_path / "astronaut" / "people.json"
    before = record.stat().st_mtime_ns
    assert run(*options, "--focal", "400") == 0
    assert record.stat().st_mtime_ns == before and "1 done before" in capsys.readouterr().out
    assert run(*options, "--focal", "400", "--overwrite") == 0
    assert json.loads(record.read_text())["cam_int"][0][0] == 400


def test_files_of_the_same_name_get_folders_of_their_own(pictures, tmp_path):
    for name in ("a/photo.png", "a/photo.tiff", "b/photo.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), skimage.data.astronaut()[..., ::-1])
    inputs = [tmp_path / "a", tmp_path / "b" / "photo.png"]
    assert run(*inputs, "--out", tmp_path / "out", "--save", "json") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"photo-png", "photo-tiff", "photo-png-2"}


def test_several_boxes_are_people_of_one_picture(pictures, tmp_path, capsys):
    boxes = ["--box", "60,0,330,512", "--box", "0,300,200,212"]
    assert run(pictures / "astronaut.png", *boxes, "--out", tmp_path, "--save", "json") == 0
    content = json.loads((tmp_path / "astronaut" / "people.json").read_text())
    assert [person["box"] for person in content["people"]] == [[60, 0, 330, 512], [0, 300, 200, 212]]
    assert run(pictures, *boxes, "--out", tmp_path / "x") == 2
    assert "one picture" in capsys.readouterr().err and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (["--box", "0.1,0.1,0.7,0.9"], "fractions"),
        (["--focal", "0"], "impossible"),
        (["--save", "overlay,film"], "'film'"),
        (["--detector", "nothing.onnx"], "nothing.onnx"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(options, fact, pictures, tmp_path, capsys):
    assert run(pictures / "astronaut.png", *options, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert fact in printed and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_least_score_is_the_detector_s(pictures, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        detect.NanoDetector, "__call__", lambda self, _: seen.append(self.min_score) or np.array([])
    )
    assert run(pictures / "astronaut.png", "--min-score", "0.8", "--out", tmp_path) == 3
    assert seen == [0.8]
