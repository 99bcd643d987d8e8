"""Converted label files are kept while their sources stay the same; made-up translations fill the boxes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpose.data.frames import Skipped, TooManyFaults
from dpose.data.labels import Labels
from dpose.data.sets.common import converted
from dpose.data.sets.processed import into_boxes


def table(n: int = 2) -> Labels:
    shapes = {"center": (2,), "pose_cam": (66,), "shape": (10,), "trans_cam": (3,), "gtkps": (24, 3)}
    zeros = {name: np.zeros((n, *shape)) for name, shape in (shapes | {"cam_int": (3, 3)}).items()}
    return Labels(imgname=[f"{i}.jpg" for i in range(n)], scale=np.ones(n), **zeros)


class Maker:
    def __init__(self, labels=None):
        self.labels, self.calls = labels, 0

    def __call__(self, skipped):
        self.calls += 1
        skipped.drop("too small", 3)
        return self.labels


@pytest.fixture
def source(tmp_path):
    (tmp_path / "raw.pkl").write_bytes(b"raw")
    return tmp_path / "raw.pkl"


def test_labels_are_made_once_for_the_same_sources_version_and_settings(tmp_path, source):
    make, skipped = Maker(table()), Skipped()

    def call(version=1, given=None):
        return converted(tmp_path / "out", "a", [source], version, make, skipped, given)

    assert call() == call() == tmp_path / "out" / "labels" / "a.npz"
    assert make.calls == 1 and skipped.dropped == {"too small": 6} and len(Labels.load(call())) == 2
    call(2)
    call(2, {"size": (3, 4)})
    call(2, {"size": (3, 4)})
    assert make.calls == 3
    source.write_bytes(b"other")
    call(2, {"size": (3, 4)})
    assert make.calls == 4


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", '{"people": 2', '{"people": 2, "dropped": 1, "faults": []}']
)
def test_labels_beside_a_record_that_is_not_ours_are_made_again(tmp_path, source, record):
    make = Maker(table())
    path = converted(tmp_path, "a", [source], 1, make, Skipped())
    whole = path.with_suffix(".json").read_text()
    path.with_suffix(".json").write_text(record)
    converted(tmp_path, "a", [source], 1, make, Skipped())
    assert make.calls == 2 and path.with_suffix(".json").read_text() == whole
    path.unlink()
    assert converted(tmp_path, "a", [source], 1, make, Skipped()).is_file() and make.calls == 3


def test_without_people_there_is_no_label_file_and_nothing_is_made_again(tmp_path, source):
    make, skipped = Maker(None), Skipped()
    for _ in range(2):
        assert converted(tmp_path, "a", [source], 1, make, skipped) is None
    assert make.calls == 1 and skipped.dropped["too small"] == 6
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["a.json"]


def test_labels_that_are_made_again_never_miss_while_another_part_reads_them(tmp_path, source, monkeypatch):
    path, seen, real = converted(tmp_path, "a", [source], 1, Maker(table()), Skipped()), [], Labels.save

    def save(labels, target):
        seen.append((target.is_file(), target.with_suffix(".json").is_file()))
        return real(labels, target)

    monkeypatch.setattr(Labels, "save", save)
    assert converted(tmp_path, "a", [source], 2, Maker(table()), Skipped()) == path
    assert seen == [(True, False)]  # without a record of others, should the process be killed now
    assert converted(tmp_path, "a", [source], 3, Maker(None), Skipped()) is None and not path.exists()


def test_a_conversion_that_fails_leaves_nothing_of_itself(tmp_path, source):
    def make(skipped):
        skipped.fault("broken")

    with pytest.raises(TooManyFaults, match="broken"):
        converted(tmp_path, "a", [source], 1, make, Skipped(limit=0))
    assert not (tmp_path / "labels").exists()
    with pytest.warns(UserWarning, match="broken"):
        converted(tmp_path, "a", [source], 1, make, Skipped())
    assert json.loads((tmp_path / "labels" / "a.json").read_text())["faults"] == ["broken"]
    with pytest.raises(TooManyFaults, match="broken"):  # also when only reported again
        converted(tmp_path, "a", [source], 1, make, Skipped(limit=0))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    side=st.floats(15, 1200),
    x=st.floats(-300, 1580),
    y=st.floats(-300, 1020),
    spread=st.floats(0.1, 0.5),
)
def test_joints_of_any_body_fill_a_box_anywhere(seed, side, x, y, spread):
    joints = np.random.default_rng(seed).normal(0, spread, (1, 22, 3)) + (3, -2, 1)
    focal, center = np.hypot(1280, 720), np.array([[x, y]])
    cam_int = np.array([[[focal, 0, 640], [0, focal, 360], [0, 0, 1]]])
    transl, reached = into_boxes(joints, center, np.array([side]), cam_int)
    rays = (joints + transl[:, None]) @ cam_int[0].T
    points = rays[..., :2] / rays[..., 2:]
    low, high = points.min(1), points.max(1)
    assert reached.all() and (rays[..., 2] > 0.05).all()
    assert np.abs((low + high) / 2 - center).max() < 0.02
    assert abs(1.2 * (high - low).max() - side) < 0.02


def test_labels_never_replace_what_they_are_made_from(tmp_path):
    source = table().save(tmp_path / "labels" / "a.npz")
    before = source.read_bytes()
    with pytest.raises(ValueError, match="a.npz"):
        converted(tmp_path, "a", [source], 1, Maker(table()), Skipped())
    assert source.read_bytes() == before
