"""Frames: a picture or person that cannot be read is skipped and named, the others are read."""

import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
from data_people import UPRIGHT, frame_sets, random_sample, write_bedlam_frame

from dpose.body import load_body
from dpose.data import frames as reading
from dpose.data.frames import NO_MASK, Skipped, UnreadableFile, read_png, read_scenes


@pytest.fixture
def frames(tmp_path):
    """A BEDLAM-layout root of three sequences of one frame with two people each."""
    body, columns = load_body(), []
    for i in range(3):
        pose = np.concatenate([UPRIGHT, np.full(63, 0.05)])
        people = [(pose, np.zeros(11), (x, 0.3, 3.5)) for x in (-0.6, 0.6)]
        frame = f"seq_{i:03d}/seq_{i:03d}_0000.png"
        columns.append(write_bedlam_frame(tmp_path, body, people, frame=frame))
    names = [name for name in columns[0].__dataclass_fields__ if name != "source"]
    joined = {name: np.concatenate([getattr(one, name) for one in columns]) for name in names}
    replace(columns[0], **joined).save(tmp_path / "labels" / "scene.npz")
    return tmp_path


def test_frames_that_fail_in_any_way_are_faults_and_the_others_are_read(frames, monkeypatch):
    real = reading.sample_from_frame

    def broken(image, metres, mask, label, size, part):
        if "seq_000" in label["key"]:
            raise cv2.error("no such size")
        if "seq_001" in label["key"]:
            raise ValueError("no such person")
        return real(image, metres, mask, label, size, part)

    monkeypatch.setattr(reading, "sample_from_frame", broken)
    monkeypatch.setattr(reading, "match_masks", lambda labels, *rest: [None] + [0] * (len(labels) - 1))
    skipped = Skipped()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(read_scenes(frame_sets(frames), 160, skipped=skipped))
    assert len(samples) == 1 and skipped.dropped[NO_MASK] == 3
    for text in ("seq_000_0000.png: no such size", "seq_001_0000.png: no such person"):
        assert sum(text in fault for fault in skipped.faults) == 1


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_picture_cut_short_anywhere_is_refused(kind, tmp_path):
    path = tmp_path / f"frame.{kind}"
    whole = cv2.imencode(f".{kind}", random_sample(np.random.default_rng(0), size=160)["image"])[1].tobytes()
    for length in (0, 1, 2, 100, *(round(share * len(whole)) for share in (0.3, 0.5, 0.9)), len(whole) - 20):
        path.write_bytes(whole[:length])
        for gray in (False, True):
            with pytest.raises(UnreadableFile, match=rf"frame\.{kind}"):
                read_png(path, gray)
    path.write_bytes(whole)
    assert read_png(path).shape == (160, 160, 3) and read_png(path, gray=True).shape == (160, 160)
