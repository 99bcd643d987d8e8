"""Prediction: the written files agree with each other and with smplx, and bad input leaves no trace."""

import cv2
import numpy as np
import pytest
import smplx
import torch
import trimesh

import dpose
from dpose.body import OPEN_BODY
from dpose.cli import main
from dpose.predict import FILES, predict, square_box

BOX = (200, 60, 120, 300)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def model(trained):
    return dpose.load(trained.checkpoint)


@pytest.fixture(scope="module")
def folder(picture, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "out"
    image = folder.parent / "image.png"
    cv2.imwrite(str(image), picture[..., ::-1])
    predict(image, BOX, model, folder, device="cpu")
    return folder


def test_all_files_are_written_and_nothing_else(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert {path.name for path in folder.parent.iterdir()} == {"image.png", "out"}
    assert cv2.imread(str(folder / "overlay.png")).shape == (480, 640, 3)
    assert cv2.imread(str(folder / "depth.png")).shape == cv2.imread(str(folder / "parts.png")).shape


def test_smplx_makes_the_written_mesh_from_the_written_parameters(folder):
    parameters = np.load(folder / "params.npz", allow_pickle=False)
    layer = smplx.create(
        OPEN_BODY.parent.parent, "smplx", gender="neutral", use_pca=False, num_betas=11, flat_hand_mean=True
    )
    vector = lambda name: torch.from_numpy(parameters[name])[None]  # noqa: E731
    posed = layer(
        betas=vector("betas"),
        global_orient=vector("global_orient"),
        body_pose=vector("body_pose"),
        transl=vector("transl"),
    )
    mesh = trimesh.load(folder / "mesh.glb", force="mesh", process=False)
    vertices = posed.vertices[0].detach().numpy() * [1, -1, -1]  # glTF: y up, facing +z
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-3)
    np.testing.assert_allclose(parameters["joints3d"], posed.joints[0, :55].detach().numpy(), atol=1e-3)


def test_the_written_2d_joints_are_opencvs_projection_of_the_3d_ones(folder):
    parameters = np.load(folder / "params.npz", allow_pickle=False)
    zero = np.zeros(3)
    points, _ = cv2.projectPoints(
        parameters["joints3d"].astype(np.float64), zero, zero, parameters["cam_int"].astype(np.float64), None
    )
    np.testing.assert_allclose(parameters["joints2d"], points[:, 0], rtol=1e-3, atol=1e-2)
    assert parameters["cam_int"][0, 0] == pytest.approx(np.hypot(640, 480))


def test_the_network_sees_the_square_around_the_box(picture, model):
    person = predict(picture, BOX, model, device="cpu")
    center, side = np.array([260.0, 210.0]), 360.0
    np.testing.assert_allclose(person.center, center)
    assert person.scale == pytest.approx(side / 200)
    reference = picture[30:390, 80:440]  # no resampling library: the mean of each pixel's source area
    size = person.crop.shape[0]
    expected = cv2.resize(reference, (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(person.crop.astype(int) - expected).mean() < 2


def test_a_given_focal_length_moves_the_body_in_proportion(picture, model):
    near, far = (predict(picture, None, model, focal=f, device="cpu") for f in (500.0, 1000.0))
    assert near.cam_int[0, 0] == 500 and far.cam_int[0, 0] == 1000
    assert far.transl[2] > 1.5 * near.transl[2]


@pytest.mark.parametrize("command", ["predict", "train", "evaluate"])
def test_the_help_says_which_body_is_taken_when_none_is_named(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--body FILE SMPL-X file, .npz or .pkl (default: the neutral one of $DPOSE_BODY_MODELS, or" in said


def test_without_a_box_the_whole_image_is_the_person():
    center, side = square_box(None, 640, 480)
    np.testing.assert_array_equal(center, [320, 240])
    assert side == pytest.approx(1.2 * 640)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 10, 0, 50), "empty"),
        ((10, 10, 50, -1), "empty"),
        ((640, 0, 10, 10), "outside the image of 640 x 480"),
        ((-50, 0, 50, 10), "outside"),
        ((0, 480, 10, 10), "outside"),
        ((1, 2, 3), "four numbers"),
        ((0, 0, float("nan"), 1), "four numbers"),
    ],
)
def test_a_useless_box_is_refused(picture, model, tmp_path, box, message):
    with pytest.raises(ValueError, match=message):
        predict(picture, box, model, tmp_path / "out", device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_box_partly_outside_the_image_is_fine(picture, model):
    assert np.isfinite(predict(picture, (-60, 300, 200, 400), model, device="cpu").vertices).all()


@pytest.mark.parametrize("focal", [0.0, -5.0, float("nan"), float("inf")])
def test_a_focal_length_that_is_none_is_refused(picture, model, focal):
    with pytest.raises(ValueError, match="focal must be a positive number"):
        predict(picture, BOX, model, focal=focal, device="cpu")


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_a_device_that_is_not_there_is_named(picture, model, tmp_path, device):
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used here"):
        predict(picture, BOX, model, tmp_path / "out", device=device)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_broken_image_is_named(picture, model, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.png"):
        predict(tmp_path / "nothing.png", None, model)
    broken = tmp_path / "broken.png"
    cv2.imwrite(str(broken), picture)
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ValueError, match="broken.png cannot be decoded"):
        predict(broken, None, model, tmp_path / "out")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(ValueError, match="empty.jpg cannot be decoded"):
        predict(empty, None, model)
    with pytest.raises(ValueError, match="uint8 RGB"):
        predict(picture.astype(np.float32), None, model)
    with pytest.raises(ValueError, match="focal"):
        predict(picture, None, model, focal=0)
    assert not (tmp_path / "out").exists()


def test_a_network_without_depth_predicts_too(picture, tmp_path):
    model = dpose.DPose(dpose.preset("mini-no-depth"))
    assert predict(picture, BOX, model, tmp_path / "out", device="cpu").depth is None
    assert "depth" not in np.load(tmp_path / "out" / "params.npz").files
