"""AGORA's processed label files, written here in the forms in which they occur, read to samples."""

import cv2
import numpy as np
import pytest
from gendered_people import check_samples, parsed_pixels, posed
from scipy.spatial.transform import Rotation

from dpose.body import OPEN_BODY, load_body
from dpose.body.files import read_body
from dpose.data.frames import Skipped
from dpose.data.labels import Labels
from dpose.data.prepare import prepare
from dpose.data.sets.agora import scenes
from dpose.paths import BODY_MODELS_VARIABLE

SIZE, N = (1280, 720), 4
INTRINSICS = np.array([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]])


@pytest.fixture(autouse=True)
def open_body(monkeypatch):
    """AGORA's neutral body is the open one, whatever this machine's environment names."""
    monkeypatch.delenv(BODY_MODELS_VARIABLE, raising=False)


def neutral_arrays() -> dict:
    arrays = dict(read_body(OPEN_BODY))
    return arrays | {"shapedirs": arrays["shapedirs"][:, :, :10].astype(float)}


def people(form: str) -> tuple[dict, np.ndarray]:
    """Columns of a label file whose translation is held by `form`, and the people's joints in the image."""
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.2, (N, 165))
    pose[:, :3] = (
        Rotation.from_euler("x", np.pi) * Rotation.from_euler("y", rng.uniform(-1, 1, (N, 1)))
    ).as_rotvec()
    transl = np.stack([np.linspace(-2, 2, N), rng.uniform(-0.5, 0.5, N), rng.uniform(6, 9, N)], 1)
    betas = rng.normal(0, 1, (N, 10))
    arrays = neutral_arrays()
    body_pose = np.where(np.arange(165) < 66, pose, 0)  # face and fingers do not move these joints
    rays = np.concatenate(
        [posed(arrays, betas[i], body_pose[i : i + 1], transl[i : i + 1]) for i in range(N)]
    )
    rays = rays[:, :24] @ INTRINSICS.T
    points = rays[..., :2] / rays[..., 2:]
    low, high = points[:, :22].min(1), points[:, :22].max(1)
    cam_ext = np.tile(np.eye(4), (N, 1, 1))
    columns = {
        "imgname": np.array(
            [f"ag_trainset_renderpeople_bfh_archviz_5_10_cam02_{i // 2:05d}.png" for i in range(N)]
        ),
        "center": (low + high) / 2,
        "scale": 1.2 * (high - low).max(1) / 200,
        "pose_cam": pose,
        "shape": betas,
        "trans_cam": transl,
        "gtkps": points,
        "cam_int": np.tile(INTRINSICS, (N, 1, 1)),
        "gender": np.array(["male", "female"] * (N // 2)),
        "motion_info": np.array([{"a": 1}] * N, object),  # needs pickle: left out
    }
    if form == "trans_cam":
        return columns, points
    cam_ext[:, :3, 3] = transl / 3 if form == "both" else transl
    columns |= {"cam_ext": cam_ext, "trans_cam": transl - transl / 3}
    if form == "cam_ext":
        del columns["trans_cam"]
    return columns, points


def write(root, columns, name="agora-bfh.npz", size=SIZE):
    (root / "images").mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(0).integers(0, 256, (size[1] // 40, size[0] // 40, 3), np.uint8)
    for imgname in set(columns["imgname"].tolist()):
        cv2.imwrite(str(root / "images" / imgname), cv2.resize(picture, size))
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    np.savez(root / name, **columns)


@pytest.mark.parametrize("form", ["trans_cam", "both", "cam_ext"])
@pytest.mark.parametrize("folder", ["", "labels/", "training_labels/all_npz_12_training/"])
def test_people_project_onto_their_2d_joints_whichever_column_holds_the_translation(tmp_path, form, folder):
    columns, points = people(form)
    write(tmp_path, columns, f"{folder}agora-bfh.npz")
    images = tmp_path / ("training_images/images" if "training" in folder else "images")
    images.parent.mkdir(exist_ok=True)
    (tmp_path / "images").rename(images)
    skipped = Skipped()
    (scene,) = scenes(tmp_path, tmp_path / "out", "train", skipped)
    assert scene.images == images
    assert (scene.labels == tmp_path / folder / "agora-bfh.npz") == (form != "cam_ext")
    labels = Labels.load(scene.labels)
    assert np.abs(parsed_pixels(labels, {"smplx-neutral": neutral_arrays()}) - points[:, :22]).max() < 0.01
    assert np.abs(labels.gtkps[:, :24, :2] - points).max() < 0.001
    assert set(labels.body) == {"smplx-neutral"} and not labels.shape[:, 10].any()
    assert scene.depth is None and not skipped.dropped and not skipped.faults


def test_both_files_become_samples_without_depth(tmp_path):
    columns, _ = people("cam_ext")
    write(tmp_path, columns)
    write(tmp_path, columns, "agora-body.npz")
    found = scenes(tmp_path, tmp_path / "out", "train", Skipped())
    assert [scene.name for scene in found] == ["agora-bfh", "agora-body"]
    labels = check_samples(found, 2 * N)
    assert all("body" not in label and len(label["pose"]) == 66 for label in labels)


def test_a_missing_image_is_a_fault_when_it_is_read(tmp_path):
    from dpose.data.frames import read_scenes

    columns, _ = people("trans_cam")
    write(tmp_path, columns)
    (tmp_path / "images" / str(columns["imgname"][0])).unlink()
    skipped = Skipped()
    with pytest.warns(UserWarning, match="00000.png: missing"):
        found = scenes(tmp_path, tmp_path / "out", "train", skipped)
        assert len(list(read_scenes(found, 40, lambda name: load_body(), skipped=skipped))) == N - 2


def test_what_is_missing_or_wrong_is_named(tmp_path):
    columns, _ = people("cam_ext")
    with pytest.raises(ValueError, match="AGORA has no split 'val'"):
        scenes(tmp_path, tmp_path / "out", "val", Skipped())
    with pytest.raises(FileNotFoundError, match=r"no label file agora-bfh\.npz or agora-body\.npz"):
        scenes(tmp_path, tmp_path / "out", "train", Skipped())
    np.savez(tmp_path / "agora-body.npz", **columns)
    with pytest.raises(FileNotFoundError, match="no images in"):
        scenes(tmp_path, tmp_path / "out", "train", Skipped())
    write(tmp_path, columns, "agora-body.npz", size=(960, 540))
    with pytest.raises(ValueError, match=r"for images of 1280x720 pixels, those in .* have 960x540"):
        scenes(tmp_path, tmp_path / "out", "train", Skipped())
    np.savez(tmp_path / "agora-body.npz", **{k: v for k, v in columns.items() if k != "cam_ext"})
    with pytest.raises(ValueError, match=r"agora-body\.npz: label file lacks the column cam_ext"):
        scenes(tmp_path, tmp_path / "out", "train", Skipped())
    (tmp_path / "agora-body.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"agora-body\.npz: not an \.npz label file, or cut short"):
        scenes(tmp_path, tmp_path / "out", "train", Skipped())


@pytest.mark.parametrize("form", ["trans_cam", "cam_ext"])
def test_a_row_that_cannot_be_used_costs_itself_alone(tmp_path, form):
    columns, _ = people(form)
    columns["gtkps"][0, 3] = np.nan
    columns["cam_int"][0] = np.nan
    write(tmp_path, columns)
    with pytest.warns(UserWarning, match="row 0 .*: 'gtkps' is not finite"):
        manifest = prepare("agora", tmp_path, tmp_path / "out", size=40, workers=1)
    assert manifest["splits"] == {"train": N - 1} and manifest["faults_total"] == 1


def test_an_output_folder_that_holds_the_source_is_refused(tmp_path):
    columns, _ = people("cam_ext")
    write(tmp_path, columns, "labels/agora-bfh.npz")
    data = (tmp_path / "labels" / "agora-bfh.npz").read_bytes()
    with pytest.raises(ValueError, match="would replace what it is made from"):
        scenes(tmp_path, tmp_path, "train", Skipped())
    assert (tmp_path / "labels" / "agora-bfh.npz").read_bytes() == data
