"""AGORA's processed label files, written here in the forms in which they occur, read to samples."""

import cv2
import numpy as np
import pytest
from gendered_people import check_samples, gendered_arrays, licensed_bodies, parsed_pixels, posed
from scipy.spatial.transform import Rotation

from dpose.body import Bodies
from dpose.data.frames import Skipped, read_scenes
from dpose.data.labels import Labels
from dpose.data.prepare import prepare
from dpose.data.sets import agora

SIZE, N = (1280, 720), 4
INTRINSICS = np.array([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]])


@pytest.fixture(scope="module", autouse=True)
def arrays(tmp_path_factory):
    with licensed_bodies(tmp_path_factory.mktemp("bodies"), "smplx-neutral") as arrays:
        yield arrays


def scenes(root, skipped=None):
    return agora.scenes(root, root / "never written", "train", skipped or Skipped(limit=0), Bodies())


def people(form: str) -> tuple[dict, np.ndarray]:
    """Columns of a label file whose translation is held by `form`, and the people's joints in the image."""
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.2, (N, 165))
    pose[:, :3] = (
        Rotation.from_euler("x", np.pi) * Rotation.from_euler("y", rng.uniform(-1, 1, (N, 1)))
    ).as_rotvec()
    transl = np.stack([np.linspace(-2, 2, N), rng.uniform(-0.5, 0.5, N), rng.uniform(6, 9, N)], 1)
    betas = rng.normal(0, 1, (N, 10))
    arrays = gendered_arrays("smplx-neutral")
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


@pytest.mark.parametrize(
    ("form", "folder"),
    [("trans_cam", ""), ("both", "labels/"), ("cam_ext", "training_labels/all_npz_12_training/")],
)
def test_people_project_onto_their_2d_joints_whichever_column_holds_the_translation(
    tmp_path, arrays, form, folder
):
    columns, points = people(form)
    write(tmp_path, columns, f"{folder}agora-bfh.npz")
    images = tmp_path / ("training_images/images" if "training" in folder else "images")
    images.parent.mkdir(exist_ok=True)
    (tmp_path / "images").rename(images)
    (scene,) = scenes(tmp_path)
    assert scene.images == images and scene.labels == tmp_path / folder / "agora-bfh.npz"
    labels = Labels.load(scene.labels)
    assert np.abs(parsed_pixels(labels, arrays) - points[:, :22]).max() < 0.01
    assert np.abs(labels.gtkps[:, :24, :2] - points).max() < 0.001
    assert set(labels.body) == {"smplx-neutral"} and not labels.shape[:, 10].any()
    assert scene.depth is None


def test_both_files_become_samples_without_depth(tmp_path):
    columns, _ = people("cam_ext")
    write(tmp_path, columns)
    write(tmp_path, columns, "agora-body.npz")
    found = scenes(tmp_path)
    assert [scene.name for scene in found] == ["agora-bfh", "agora-body"]
    labels = check_samples(found, 2 * N)
    assert all("body" not in label and len(label["pose"]) == 66 for label in labels)


def test_a_missing_image_is_a_fault_when_it_is_read(tmp_path):
    columns, _ = people("trans_cam")
    write(tmp_path, columns)
    (tmp_path / "images" / str(columns["imgname"][0])).unlink()
    skipped = Skipped()
    with pytest.warns(UserWarning, match="00000.png: missing"):
        assert len(list(read_scenes(scenes(tmp_path), 40, skipped=skipped))) == N - 2


def test_what_is_missing_or_wrong_is_named(tmp_path):
    columns, _ = people("cam_ext")
    with pytest.raises(FileNotFoundError, match=r"agora-bfh\.npz or agora-body\.npz"):
        scenes(tmp_path)
    np.savez(tmp_path / "agora-body.npz", **columns)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path / 'images'}"):
        scenes(tmp_path)
    write(tmp_path, columns, "agora-body.npz", size=(960, 540))
    with pytest.raises(ValueError, match=r"1280x720 .* 960x540"):
        scenes(tmp_path)
    np.savez(tmp_path / "agora-body.npz", **{k: v for k, v in columns.items() if k != "cam_int"})
    with pytest.raises(ValueError, match=r"agora-body\.npz.* cam_int"):
        scenes(tmp_path)
    (tmp_path / "agora-body.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"agora-body\.npz.*cut short"):
        scenes(tmp_path)


@pytest.mark.parametrize("form", ["trans_cam", "cam_ext"])
def test_a_row_that_cannot_be_used_costs_itself_alone(tmp_path, form):
    columns, _ = people(form)
    columns["gtkps"][0, 3] = np.nan
    columns["cam_int"][0] = np.nan
    write(tmp_path, columns)
    with pytest.warns(UserWarning, match="row 0 .*'gtkps' is not finite"):
        manifest = prepare("agora", tmp_path, tmp_path / "out", size=40, workers=1)
    assert manifest["splits"] == {"train": N - 1} and len(manifest["faults"]) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["shards"]
