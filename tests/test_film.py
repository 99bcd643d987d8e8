"""Films: frames in and out, numbers of people, smoothing, and JSON lines of a film that plays the camera."""

import gc
import io
import json
import math
import os
import struct
import sys
import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dpose.body import load_body
from dpose.film import FilmWriter, follow, frame_count, frame_rate, frames, is_film, json_line, run_camera
from dpose.predictor import Person, Picture
from dpose.track import OneEuro, RotationOneEuro, Smoother, Tracker, iou

av = pytest.importorskip("av")
MATRICES = {  # of an MP4's track header, 16.16 fixed point: how a player has to turn the picture
    90: (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30),
    180: (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30),
    270: (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30),
}


def smooth_frame(width: int, height: int, shift: float = 0) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 23 + shift), np.cos(y / 17 - shift), np.sin((x + y) / 31 + 2 * shift)]
    return (128 + 90 * np.stack(waves, -1)).astype(np.uint8)


def write_film(path, count=12, width=96, height=64, rate=30.0):
    with FilmWriter(path, rate, (width, height)) as film:
        for i in range(count):
            film.write(smooth_frame(width, height, i / 5))
    return path


def person(x=0.0, y=0.0, width=40.0, height=100.0, **fields) -> Person:
    values = {
        "vertices": np.zeros((4, 3), np.float32),
        "joints": np.tile(np.array([0, 0, 4], np.float32), (55, 1)),
        "faces": np.zeros((1, 3), np.int64),
        "rotmats": np.tile(np.eye(3, dtype=np.float32), (22, 1, 1)),
        "betas": np.zeros(11, np.float32),
        "transl": np.array([0, 0, 4], np.float32),
        "cam_int": np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1]], np.float32),
        "focal_from": "given",
        "image_size": (640, 480),
        "box": np.array([x, y, width, height], np.float32),
        "score": 0.9,
        "parts": None,
        "depth": None,
        "crop": np.zeros((8, 8, 3), np.uint8),
        "center": np.zeros(2, np.float32),
        "scale": 1.0,
        "body": "open",
    }
    return Person(**{**values, **fields})


# Frames


def test_only_names_of_films_are_films():
    assert all(is_film(name) for name in ("a.mp4", "b.MOV", "c.webm"))
    assert not any(is_film(name) for name in ("d.jpg", "mp4", "e.mp4.txt"))


def test_written_frames_come_back_in_order_with_their_colours(tmp_path):
    path = write_film(tmp_path / "film.mp4")
    back = list(frames(path))
    assert len(back) == frame_count(path) == 12
    for i, image in enumerate(back):
        apart = np.abs(image.astype(int) - smooth_frame(96, 64, i / 5))
        assert image.dtype == np.uint8 and apart.mean() < 4  # the next frame differs by 11
    with av.open(str(path)) as film:  # another reader, which names codec and colour space
        stream = film.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 30)
        for image, frame in zip(back, film.decode(stream), strict=True):
            assert frame.colorspace == 1  # BT.709, which players assume anyway
            assert np.abs(image.astype(int) - frame.to_ndarray(format="rgb24")).mean() < 1


def test_the_index_of_a_written_film_comes_before_its_frames(tmp_path):
    data = write_film(tmp_path / "film.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("size", [(95, 63), (95, 64), (17, 33)])
def test_an_odd_side_is_extended_by_its_last_pixels(size, tmp_path):
    width, height = size
    path = write_film(tmp_path / "film.mp4", 3, width, height)
    image = next(frames(path))
    assert image.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(image[:height, :width].astype(int) - smooth_frame(width, height)).mean() < 4
    assert np.abs(image[-1].astype(int) - image[height - 1]).max() < 12


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_films_of_a_turned_phone_are_read_upright(angle, tmp_path):
    path = write_film(tmp_path / "film.mp4", 2)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[matrix : matrix + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    plain = next(frames(path))
    data[matrix : matrix + 36] = struct.pack(">9i", *MATRICES[angle])
    path.write_bytes(data)
    np.testing.assert_array_equal(next(frames(path)), np.rot90(plain, -angle // 90))  # clockwise


@pytest.mark.parametrize("rate", [23.976, 25.0, 29.97, 60.0])
def test_the_rate_of_a_film_is_kept(rate, tmp_path):
    assert frame_rate(write_film(tmp_path / "film.mp4", 5, rate=rate)) == pytest.approx(rate, rel=1e-4)


def test_the_rate_of_a_film_with_a_placeholder_is_measured(tmp_path):
    """Browsers record WebM with a rate of 1000 and frames at uneven times."""
    path, rng, time = tmp_path / "film.webm", np.random.default_rng(0), 0
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libvpx-vp9", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(60):
            frame = av.VideoFrame.from_ndarray(smooth_frame(64, 48, i / 5), format="rgb24")
            frame.pts, time = time, time + int(rng.choice([30, 40, 50]))
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    assert frame_rate(path) == pytest.approx(25, rel=0.05)
    with warnings.catch_warnings(action="error"):  # although the header announces 1000 a second
        assert len(list(frames(path))) == 60


def test_a_film_cut_short_gives_its_frames_and_a_warning(tmp_path, capfd):
    path = write_film(tmp_path / "film.mp4", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"film\.mp4.* of its 2\.0 seconds"):
        assert 0 < len(list(frames(path))) < 54
    assert capfd.readouterr().err == ""  # nothing of FFmpeg


@pytest.mark.parametrize(("name", "data"), [("text.mp4", b"hello " * 99), ("empty.mov", b"")])
def test_what_is_not_a_film_is_one_sentence(name, data, tmp_path, capfd):
    (tmp_path / name).write_bytes(data)
    for read in (lambda path: next(frames(path)), frame_rate, frame_count):
        with pytest.raises(ValueError, match=name) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_film_without_any_whole_frame_is_refused(tmp_path):
    path = write_film(tmp_path / "film.mp4", 4)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 8])
    with pytest.raises(ValueError, match=r"film\.mp4"):
        list(frames(path))


def test_a_missing_film_and_a_missing_camera_are_one_sentence(tmp_path, capfd):
    with pytest.raises(FileNotFoundError, match=r"none\.mp4"):
        list(frames(tmp_path / "none.mp4"))
    with pytest.raises(OSError, match="camera 93"):
        next(frames(93))
    assert capfd.readouterr().err == ""


def test_a_film_that_cannot_be_finished_leaves_nothing(tmp_path):
    path = tmp_path / "film.mp4"
    with pytest.raises(KeyError), FilmWriter(path, 30, (96, 64)) as film:
        film.write(smooth_frame(96, 64))
        raise KeyError
    with pytest.raises(ValueError, match=r"film\.mp4"), FilmWriter(path, 30, (96, 64)):
        pass
    with pytest.raises(ValueError, match=r"\(48, 64, 3\)"), FilmWriter(path, 30, (96, 64)) as film:
        film.write(smooth_frame(64, 48))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "rate", "size"), [("f.avi", 30, (8, 8)), ("f.mp4", 0, (8, 8)), ("f.mp4", math.nan, (8, 8))]
)
def test_impossible_films_are_refused(name, rate, size, tmp_path):
    with pytest.raises(ValueError, match=r"\.avi|positive"):
        FilmWriter(tmp_path / name, rate, size)


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RuntimeError, match=r"video.*pip install av"):
        FilmWriter(tmp_path / "film.mp4", 30, (8, 8))


def test_memory_stays_flat_over_a_thousand_frames(tmp_path):
    path = write_film(tmp_path / "film.mp4", 1000, 64, 48)

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    tracker, sizes = Tracker(), []
    tracemalloc.start()
    for i, image in enumerate(frames(path)):
        tracker([person(x=200 * i)])  # a new person every time
        if i in (200, 999):
            gc.collect()
            sizes.append((tracemalloc.get_traced_memory()[0], resident()))
        assert image.shape == (48, 64, 3)
    tracemalloc.stop()
    (python, whole), (python_end, whole_end) = sizes
    assert python_end - python < 100_000 and whole_end - whole < 8_000_000  # the frames together: 9 MB


# Numbers


def test_iou_is_that_of_counted_pixels():
    boxes = np.random.default_rng(0).integers(1, 20, (6, 4)).astype(float)
    masks = np.zeros((6, 50, 50), bool)
    for mask, (x, y, w, h) in zip(masks, boxes.astype(int), strict=True):
        mask[y : y + h, x : x + w] = True
    expected = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
    np.testing.assert_allclose(iou(boxes, boxes), expected)


def numbers(tracker, *boxes) -> list[int]:
    return [found.track for found in tracker([person(*box) for box in boxes])]


def test_people_keep_their_numbers_in_any_order_and_new_ones_get_new_numbers():
    tracker = Tracker()
    assert numbers(tracker, (0, 0), (100, 0)) == [1, 2]
    assert numbers(tracker, (102, 1), (3, 0)) == [2, 1]
    assert numbers(tracker, (300, 0), (6, 0), (104, 2)) == [3, 1, 2]
    assert numbers(tracker) == []
    assert numbers(tracker, (9, 0)) == [1]


@pytest.mark.parametrize("hidden", [0, 8])
def test_people_who_cross_keep_their_numbers(hidden):
    """Also if one of them cannot be seen for some frames in the middle."""
    tracker = Tracker()
    for i in range(41):
        people = {"left": (10 * i, 0), "right": (405 - 10 * i, 4)}
        if abs(i - 20) < hidden / 2:
            del people["right"]
        found = dict(zip(people, numbers(tracker, *people.values()), strict=True))
        assert found == {name: {"left": 1, "right": 2}[name] for name in people}


@pytest.mark.parametrize(("moved", "number"), [(24, 1), (30, 2)])  # IoU 16 / 64 and 10 / 70
def test_a_box_that_overlaps_too_little_is_another_person(moved, number):
    tracker = Tracker(min_iou=0.2)
    numbers(tracker, (0, 0))
    assert numbers(tracker, (moved, 0)) == [number]


def test_a_hidden_person_whose_box_jitters_keeps_its_number():
    tracker, rng = Tracker(), np.random.default_rng(0)
    for i in range(300):
        visible = [rng.normal(0, 1.5, 2)] if i % 20 < 10 else []
        assert numbers(tracker, *visible) == [1] * len(visible)


def test_a_track_survives_the_gap_that_is_allowed_and_no_longer():
    for gap, number in ((5, 1), (6, 2)):
        tracker = Tracker(max_gap=5)
        numbers(tracker, (0, 0))
        for _ in range(gap):
            numbers(tracker)
        assert numbers(tracker, (0, 0)) == [number]


def test_people_found_in_one_frame_only_can_be_dropped():
    tracker = Tracker(min_frames=2)
    assert numbers(tracker, (0, 0)) == []
    assert numbers(tracker, (200, 0), (2, 0)) == [1]
    assert numbers(tracker, (4, 0)) == [1]


def test_the_tracker_sets_nothing_but_the_number():
    one = person(5, 6, frame=3, source="x.mp4")
    assert Tracker()([one]) == [replace(one, track=1)]


# Smoothing


def one_euro_of_the_paper(signal, rate, min_cutoff, beta, d_cutoff=1.0):
    """Algorithm 1 of Casiez et al. (2012), scalar, in a plain loop."""

    def alpha(cutoff):
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau * rate)

    out, previous, slope = [], None, 0.0
    for x in signal:
        if previous is None:
            previous = x
        else:
            dx = (x - previous) * rate
            slope = alpha(d_cutoff) * dx + (1 - alpha(d_cutoff)) * slope
            a = alpha(min_cutoff + beta * abs(slope))
            previous = a * x + (1 - a) * previous
        out.append(previous)
    return np.array(out)


def test_one_euro_equals_the_paper_s_formula():
    rng = np.random.default_rng(0)
    signal = np.cumsum(rng.normal(0, 0.2, 200)) + rng.normal(0, 0.05, 200)
    for rate, min_cutoff, beta in ((30, 1.0, 0.0), (60, 0.5, 0.7), (10, 3.0, 2.0)):
        euro = OneEuro(min_cutoff, beta)
        out = [float(euro(np.array([x]), 1 / rate)[0]) for x in signal]
        np.testing.assert_allclose(out, one_euro_of_the_paper(signal, rate, min_cutoff, beta), rtol=1e-12)


@pytest.mark.parametrize("rate", [15, 30, 120])
def test_without_beta_a_ramp_lags_by_one_over_two_pi_cutoff(rate):
    euro, speed = OneEuro(1.5, 0.0), 3.0
    for i in range(20 * rate):
        out = euro(np.array([speed * i / rate]), 1 / rate)
    lag = (speed * i / rate - out[0]) / speed
    assert lag == pytest.approx(1 / (2 * math.pi * 1.5), rel=1e-6)


def test_a_step_of_a_vector_is_followed_as_its_length_says():
    """A vector is filtered as its norm, so the result does not depend on the axes."""
    turn = Rotation.from_rotvec([0.3, -1, 0.5]).as_matrix()
    euro = OneEuro(0.8, 0.6)
    signal = np.r_[np.zeros(3), np.full(40, 2.0)]
    out = [euro(turn[:, 0] * x, 1 / 30) @ turn[:, 0] for x in signal]
    np.testing.assert_allclose(out, one_euro_of_the_paper(signal, 30, 0.8, 0.6), atol=1e-12)


def test_rotations_about_one_axis_are_filtered_as_their_angle():
    rng = np.random.default_rng(1)
    angles = np.cumsum(rng.normal(0.08, 0.1, 150))  # beyond a full turn
    axes = rng.normal(size=(2, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    start = Rotation.random(2, rng=0).as_matrix()
    euro, expected = RotationOneEuro(0.7, 0.4), one_euro_of_the_paper(angles, 30, 0.7, 0.4)
    for angle, smooth in zip(angles, expected, strict=True):
        out = euro(start @ Rotation.from_rotvec(axes * angle).as_matrix(), 1 / 30)
        np.testing.assert_allclose(out, start @ Rotation.from_rotvec(axes * smooth).as_matrix(), atol=1e-9)


def test_smoothed_rotations_stay_rotations():
    euro, rng = RotationOneEuro(0.3, 0.1), np.random.default_rng(2)
    for _ in range(300):
        out = euro(Rotation.random(22, rng=rng).as_matrix(), 1 / 30)
    np.testing.assert_allclose(out @ out.swapaxes(1, 2), np.tile(np.eye(3), (22, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(out), 1)


@pytest.fixture(scope="module")
def body():
    return load_body()


def posed(body, turns, betas, transl, **fields) -> Person:
    """A person whose joints and vertices are those of the body; turns (22, 3) axis-angle."""
    rotmats = Rotation.from_rotvec(turns).as_matrix().astype(np.float32)
    arrays = {"betas": betas, "rotmats": rotmats, "transl": transl}
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    out = body(*(torch.from_numpy(array)[None] for array in arrays.values()))
    return person(vertices=out.vertices[0].numpy(), joints=out.joints[0].numpy(), **arrays, **fields)


def walk(body, count=40, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    turns, betas = rng.normal(0, 0.3, (22, 3)), rng.normal(0, 1, 11)
    for i in range(count):
        yield posed(
            body,
            turns + noise * rng.normal(0, 0.05, (22, 3)),
            betas + noise * rng.normal(0, 0.3, 11),
            np.array([0.2 + 0.01 * i, 0.5, 4 + 0.02 * i]) * (1 + noise * rng.normal(0, 0.03)),
            track=7,
            frame=i,
        )


def test_a_person_at_rest_is_left_as_predicted(body):
    still = next(walk(body, 1))
    smoother = Smoother(body)
    for i in range(5):
        (out,) = smoother([still], i / 30)
        for name in ("vertices", "joints", "rotmats", "betas", "transl"):
            np.testing.assert_allclose(getattr(out, name), getattr(still, name), atol=2e-6)
    assert out.box is still.box and out.track == 7


def test_smoothing_removes_jitter_and_the_body_fits_its_parameters(body):
    def acceleration(people) -> float:
        joints = np.stack([one.joints[:22] for one in people])
        return np.linalg.norm(np.diff(joints, n=2, axis=0), axis=-1).mean()

    noisy, smoother = list(walk(body, noise=1.0)), Smoother(body)
    smooth = [smoother([one], i / 30)[0] for i, one in enumerate(noisy)]
    assert acceleration(smooth) < 0.3 * acceleration(noisy)
    assert acceleration(walk(body)) < 1e-5
    last = smooth[-1]
    again = posed(body, Rotation.from_matrix(last.rotmats).as_rotvec(), last.betas, last.transl)
    np.testing.assert_allclose(last.vertices, again.vertices, atol=1e-5)
    np.testing.assert_allclose(last.joints, again.joints, atol=1e-5)
    assert last.vertices.dtype == np.float32


def test_the_pelvis_stays_in_its_direction_while_distance_and_shape_are_smoothed(body):
    smoother = Smoother(body, direction=(1e9, 0.0), distance=(0.1, 0.0), shape=(0.1, 0.0))
    for i, one in enumerate(walk(body, 20, noise=1.0)):
        (out,) = smoother([one], i / 30)
        np.testing.assert_allclose(out.joints2d[0], one.joints2d[0], atol=1e-3)  # pixels
    assert abs(out.joints[0, 2] - one.joints[0, 2]) > 0.02


def test_people_are_smoothed_independently_and_a_late_return_starts_anew(body):
    first, second = list(walk(body, 30, 1.0, 1)), list(walk(body, 30, 1.0, 2))
    together, alone = Smoother(body), Smoother(body)
    for i in range(30):
        pair = together([replace(second[i], track=2), first[i]], i / 30)
        (one,) = alone([first[i]], i / 30)
        np.testing.assert_allclose(pair[1].joints, one.joints, atol=1e-5)
    (out,) = together([first[0]], 10.0)
    np.testing.assert_allclose(out.joints, first[0].joints, atol=1e-5)


def test_smoothing_wants_numbers_and_time_that_passes(body):
    one, smoother = next(walk(body, 1)), Smoother(body)
    smoother([one], 1.0)
    with pytest.raises(ValueError, match="1 s"):
        smoother([one], 1.0)
    with pytest.raises(ValueError, match="Tracker"):
        smoother([replace(one, track=None)], 2.0)


# Lines


class Player:
    """A predictor that finds a person in every frame but the second."""

    def __init__(self, body, failure: BaseException | None = None) -> None:
        self.body, self.failure, self.closed = body, failure, False

    def stream(self, film, focal=None, cam_int=None, ahead=8):
        images = film if isinstance(film, Iterator) else frames(film)
        people = enumerate(walk(self.body, 100, 1.0))
        while chunk := list(islice(images, ahead)):
            for image, (number, one) in zip(chunk, people, strict=False):
                if self.failure and number == 3:
                    raise self.failure
                yield Picture(image, [] if number == 1 else [replace(one, track=None)], "", number)


def test_a_film_that_plays_the_camera_gives_a_line_per_person_and_frame(body, tmp_path):
    path, out, seen = write_film(tmp_path / "film.mp4", 6, rate=25), io.StringIO(), []
    assert run_camera(Player(body), path, out, on_picture=seen.append) == 6
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["frame"], line["track"], line["time"]) for line in lines] == [
        (i, 1, round(i / 25, 5)) for i in (0, 2, 3, 4, 5)
    ]
    people = [one for picture in seen for one in picture.people]
    for line, one in zip(lines, people, strict=True):
        shapes = {"box": (4,), "transl": (3,), "global_orient": (3,), "body_pose": (63,), "betas": (11,)}
        for name, shape in {**shapes, "joints": (22, 3), "joints2d": (22, 2)}.items():
            assert np.shape(line[name]) == shape
            np.testing.assert_allclose(line[name], getattr(one, name)[: shape[0]], atol=6e-6, err_msg=name)
        assert line["score"] == 0.9
        assert len(line) == 11
    assert lines[0]["joints"][0][2] == pytest.approx(4, abs=0.5)


def test_the_camera_s_people_can_be_smoothed(body, tmp_path):
    path, out = write_film(tmp_path / "film.mp4", 6), io.StringIO()
    run_camera(Player(body), path, out, smoother=Smoother(body))
    depth = [json.loads(line)["transl"][2] for line in out.getvalue().splitlines()]
    raw = [one.transl[2] for i, one in enumerate(walk(body, 6, 1.0)) if i != 1]
    assert depth[0] == pytest.approx(raw[0], abs=1e-5)
    assert np.abs(np.diff(depth)).sum() < 0.6 * np.abs(np.diff(raw)).sum()


def test_ctrl_c_ends_the_camera_quietly_after_whole_lines(body, tmp_path):
    out = io.StringIO()
    assert run_camera(Player(body, KeyboardInterrupt()), write_film(tmp_path / "film.mp4"), out) == 3
    assert len(out.getvalue().splitlines()) == 2 and out.getvalue().endswith("\n")


def test_the_camera_ends_quietly_when_the_reader_of_its_lines_is_gone(body, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    out = open(writer, "w")
    assert run_camera(Player(body), write_film(tmp_path / "film.mp4"), out) == 0
    assert out.closed  # no second attempt to write at exit


def test_lines_are_written_at_once(body, tmp_path):
    path, lengths = tmp_path / "lines", []
    with open(path, "w") as out:
        run_camera(
            Player(body),
            write_film(tmp_path / "film.mp4", 3),
            out,
            on_picture=lambda picture: lengths.append(len(path.read_text().splitlines())),
        )
    assert lengths == [1, 1, 2]


def test_other_failures_of_a_camera_are_passed_on(body, tmp_path):
    with pytest.raises(ValueError, match="damaged"):
        run_camera(Player(body, ValueError("damaged")), write_film(tmp_path / "film.mp4"))


def test_a_line_is_standard_json_and_hands_are_not_in_it(body):
    one = replace(next(walk(body, 1)), score=None)
    line = json_line(one, 0.1)
    assert "\n" not in line and len(line) < 4000
    assert json.loads(line)["score"] is None
    with pytest.raises(ValueError):
        json_line(replace(one, transl=np.array([0, np.nan, 1], np.float32)), 0.1)


def test_a_camera_s_time_is_the_clock_s(body, monkeypatch):
    """cv2.VideoCapture is replaced: there is no camera here."""

    class Capture:
        left = 3

        def __init__(self, number):
            assert number == 0

        def isOpened(self):
            return True

        def read(self):
            self.left -= 1
            return (True, np.full((8, 8, 3), [1, 2, 3], np.uint8)) if self.left >= 0 else (False, None)

        def get(self, _):
            return -1.0

        def set(self, *_):
            return True

        def release(self):
            Capture.released = True

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    clock = iter(2 * [50.0, 50.5, 50.7, 51.25])
    monkeypatch.setattr("dpose.film.time.monotonic", lambda: next(clock))
    out, seen = io.StringIO(), []
    with pytest.raises(OSError, match="camera 0.* 3 frames"):
        run_camera(Player(body), 0, out, on_picture=seen.append)
    assert [json.loads(line)["time"] for line in out.getvalue().splitlines()] == [0.5, 1.25]
    assert seen[0].image[0, 0].tolist() == [3, 2, 1] and Capture.released
    ahead = follow(Player(body), 0, ahead=2)
    assert [round(next(ahead)[0], 6) for _ in range(2)] == [0.5, 0.7]
