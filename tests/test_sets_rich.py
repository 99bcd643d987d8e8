"""RICH's processed test file, written here, read to samples of gendered SMPL-X bodies."""

import numpy as np
import pytest
from gendered_people import check_samples, licensed_bodies, parsed_pixels, write_pictures

from dpose.body import Bodies
from dpose.data.frames import Skipped, read_png
from dpose.data.labels import Labels
from dpose.data.sets import common, rich

SIZE, N = (300, 220), 4


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    with licensed_bodies(tmp_path_factory.mktemp("bodies"), "smplx-male", "smplx-female") as arrays:
        yield arrays


def scenes(root, out, skipped=None):
    return rich.scenes(root, out, "test", skipped or Skipped(), Bodies())


def write(root, width=165, images="", genders=("female", "male")) -> dict:
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.2, (N, width))
    pose[:, :3] = (np.pi, 0, 0)
    columns = {
        "imgname": np.array([f"Gym_010_pushup/cam_02/{i:05d}.jpg" for i in range(N)]),
        "center": np.stack([rng.uniform(80, 220, N), rng.uniform(60, 160, N)], 1),
        "scale": rng.uniform(0.5, 1.2, N),
        "pose_cam": pose,
        "shape": rng.normal(0, 1, (N, 10)),
        "gender": np.array(genders * (N // 2)),
    }
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "rich_test.npz", **columns)
    write_pictures(root / images / "Gym_010_pushup" / "cam_02", N, SIZE)
    return columns


@pytest.mark.parametrize(
    ("width", "images", "genders"),
    [(165, "", ("female", "male")), (66, "test", ("f", "m")), (72, "images", ("female", "male"))],
)
def test_gendered_bodies_fill_their_boxes(tmp_path, arrays, width, images, genders):
    columns, skipped = write(tmp_path, width, images, genders), Skipped()
    (scene,) = scenes(tmp_path, tmp_path / "out", skipped)
    labels = Labels.load(scene.labels)
    assert not skipped.dropped and not skipped.faults and scene.images == tmp_path / images
    points = parsed_pixels(labels, arrays)
    low, high = points.min(1), points.max(1)
    assert np.abs((low + high) / 2 - columns["center"]).max() < 0.05
    assert np.abs(1.2 * (high - low).max(1) - 200 * columns["scale"]).max() < 0.05
    kept = 165 if width == 165 else 66
    assert np.allclose(labels.pose_cam[:, :kept], columns["pose_cam"][:, :kept])
    assert not labels.pose_cam[:, kept:].any() and not labels.gtkps[..., 2].any()
    assert labels.body.tolist() == ["smplx-female", "smplx-male"] * (N // 2)
    assert {label["body"] for label in check_samples([scene], N)} == {"smplx-female", "smplx-male"}


def test_pictures_are_opened_when_labels_are_made_and_not_again(tmp_path, arrays, monkeypatch):
    write(tmp_path)
    opened = []
    monkeypatch.setattr(common, "read_png", lambda path: opened.append(path) or read_png(path))

    def read() -> tuple[int, int, int]:
        opened.clear()
        skipped = Skipped()
        (scene,) = scenes(tmp_path, tmp_path / "out", skipped)
        return len(opened), len(Labels.load(scene.labels)), len(skipped.faults)

    assert read() == (1, N, 0) and read() == (0, N, 0)
    with np.load(tmp_path / "rich_test.npz") as file:
        columns = dict(file)
    columns["imgname"][0] = "Gym_010_pushup/cam_03/00000.jpg"
    np.savez(tmp_path / "rich_test.npz", **columns)
    with pytest.warns(UserWarning, match="cam_03: no images, so 1 people"):
        assert read() == (1, N - 1, 1) and read() == (0, N - 1, 1)
    write_pictures(tmp_path / "Gym_010_pushup" / "cam_03", 1, SIZE)  # downloaded later
    assert read() == (2, N, 0)


def test_what_is_missing_is_named(tmp_path, arrays, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no label file .*rich_test\.npz.*eval_data_parsed"):
        scenes(tmp_path, tmp_path / "out")
    write(tmp_path)
    with monkeypatch.context() as patch:
        patch.delenv("DPOSE_BODY_MODELS")
        with pytest.raises(FileNotFoundError, match=r"SMPL-X male is missing.*smpl-x\.is\.tue\.mpg\.de"):
            scenes(tmp_path, tmp_path / "out")
    (tmp_path / "Gym_010_pushup").rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"rich_test.*Gym_010_pushup"):
        scenes(tmp_path, tmp_path / "out")
