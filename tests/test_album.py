"""`dpose predict` on files and folders: a folder per picture, counts, exit status, and resuming."""

import json
import shutil
import time

import cv2
import numpy as np
import pytest
import skimage.data

from dpose import album, detect
from dpose.cli import main
from dpose.film import FilmWriter, frame_rate, frames
from dpose.track import iou


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("astronaut", "coffee"):
        cv2.imwrite(str(folder / f"{name}.png"), getattr(skimage.data, name)()[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A portrait that moves to the right, in four frames."""
    pytest.importorskip("av")
    path, portrait = (
        tmp_path_factory.mktemp("films") / "film.mp4",
        cv2.resize(skimage.data.astronaut(), (240, 240)),
    )
    with FilmWriter(path, 10, (320, 240)) as writer:
        for i in range(4):
            frame = np.full((240, 320, 3), 128, np.uint8)
            frame[:, 20 * i : 20 * i + 240] = portrait
            writer.write(frame)
    return path


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


def test_a_picture_of_100_megapixels_takes_seconds(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "large.jpg"), np.full((10_000, 10_000, 3), 90, np.uint8))
    begin = time.process_time()
    options = ["--box", "1000,1000,5000,8000", "--save", "overlay", "--checkpoint", "mini"]
    assert run(tmp_path / "large.jpg", *options, "--out", tmp_path / "out") == 0
    assert time.process_time() - begin < 30  # 6 seconds of one core
    assert capsys.readouterr().err == ""
    drawn = cv2.imread(str(tmp_path / "out" / "large" / "overlay.jpg"))
    assert drawn.shape == (10_000, 10_000, 3)
    changed = np.abs(drawn[::50, ::50].astype(int) - 90).max(-1) > 8
    assert changed[30:170, 20:120].any() and not changed[:, 180:].any()


def test_the_people_of_a_panorama_are_found(tmp_path):
    portrait = cv2.resize(skimage.data.astronaut(), (900, 900))
    panorama = np.full((1000, 8000, 3), 150, np.uint8)
    for x in (500, 6500):
        panorama[50:950, x : x + 900] = portrait
    cv2.imwrite(str(tmp_path / "wide.jpg"), panorama[..., ::-1])
    assert run(tmp_path / "wide.jpg", "--out", tmp_path / "out", "--save", "json") == 0
    content = json.loads((tmp_path / "out" / "wide" / "people.json").read_text())
    boxes = np.array(sorted(person["box"] for person in content["people"]))
    expected = [[x + 26, 75, 614, 867] for x in (500, 6500)]  # as found in the portrait alone
    assert (np.diag(iou(boxes, np.array(expected, float))) > 0.6).all()
    assert sorted(person["transl"][0] > 0 for person in content["people"]) == [False, True]


def test_a_film_becomes_a_folder_with_numbered_people(film, tmp_path, capsys):
    options = [film, "--out", tmp_path, "--smooth", "--save", "overlay,params,amass"]
    assert run(*options) == 0
    folder = tmp_path / "film"
    names = {"people.jsonl", "people.npz", "overlay.mp4", "track-1-amass.npz", "people.json"}
    assert {path.name for path in folder.iterdir()} == names
    lines = [json.loads(line) for line in (folder / "people.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["track"], line["time"]) for line in lines] == [
        (i, 1, i / 10) for i in range(4)
    ]
    left = [line["box"][0] for line in lines]
    np.testing.assert_allclose(np.diff(left[1:]), 20, atol=12)
    arrays = np.load(folder / "people.npz")
    np.testing.assert_allclose(arrays["transl"], [line["transl"] for line in lines], atol=1e-5)
    np.testing.assert_allclose(arrays["time"], [line["time"] for line in lines])
    assert frame_rate(folder / "overlay.mp4") == frame_rate(film) == 10
    assert np.load(folder / "track-1-amass.npz")["poses"].shape == (4, 165)
    about = json.loads((folder / "people.json").read_text())
    assert (about["frames"], about["lines"], about["tracks"], about["smoothed"]) == (4, 4, 1, True)
    for drawn, plain in zip(frames(folder / "overlay.mp4"), frames(film), strict=True):
        assert np.abs(drawn.astype(int) - plain).max(-1)[100:].mean() > 5
    assert run(*options) == 0 and "1 done before" in capsys.readouterr().out


def test_an_interrupted_film_leaves_nothing_and_is_done_the_next_time(film, tmp_path, monkeypatch):
    options = [film, "--out", tmp_path, "--save", "params"]

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patches:
        patches.setattr(album, "_columns", interrupted)
        assert run(*options) == 130
    assert list(tmp_path.iterdir()) == []
    assert run(*options) == 0 and (tmp_path / "film" / "people.npz").is_file()


def test_films_without_people_and_damaged_films_are_counted(film, pictures, tmp_path, capsys):
    with FilmWriter(tmp_path / "empty.mp4", 10, (64, 64)) as writer:
        writer.write(np.full((64, 64, 3), 128, np.uint8))
    assert run(tmp_path / "empty.mp4", "--out", tmp_path / "out") == 3
    (tmp_path / "broken.mp4").write_bytes(b"a letter, say")
    inputs = [tmp_path / "empty.mp4", tmp_path / "broken.mp4", pictures / "astronaut.png"]
    assert run(*inputs, "--out", tmp_path / "out", "--save", "json") == 4
    printed = capsys.readouterr().out
    assert "nobody found in 1 picture" in printed and "1 file could not be read" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["astronaut"]


def test_a_film_that_plays_the_camera_is_printed_as_lines_of_json(film, tmp_path, capsys):
    assert run("--camera", film, "--stream", "--focal", "400") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["frame"], line["track"]) for line in lines] == [(i, 1) for i in range(4)]
    for wrong in (["--stream"], ["--camera", film], [film, "--camera", film, "--stream"]):
        assert run(*wrong) == 2
        assert "camera" in capsys.readouterr().err
