"""Prediction: it equals the evaluation path, its files agree with each other and with smplx, and bad input
ends in one sentence and leaves no trace.
"""

import copy
import re
import struct
import textwrap
import zlib

import cv2
import numpy as np
import pytest
import skimage.data
import smplx
import torch
import trimesh
from shard_files import write_manifest, write_shards
from torch import nn

import dpose
from dpose.body import OPEN_BODY, load_body
from dpose.camera import full_translation
from dpose.cli import SMPLX_RECIPE
from dpose.data.loader import make_loader
from dpose.data.sample import make_label, sample_from_frame
from dpose.model.inference import FastDPose, run_network, to_device
from dpose.predict import FILES, intrinsics, parameters, predict, read_image, square_box

BOX = (200, 60, 120, 300)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def model():
    return dpose.load("mini")


@pytest.fixture(scope="module")
def folder(picture, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "prediction"
    image = folder.parent / "image.png"
    cv2.imwrite(str(image), picture[..., ::-1])
    predict(image, BOX, model, folder, device="cpu")
    return folder


# What is predicted


@pytest.mark.parametrize(("kind", "levels", "close"), [("squares", 0, 1e-5), ("colours", 6, 0.03)])
def test_a_person_in_a_frame_is_predicted_as_in_evaluation(kind, levels, close, model, picture, tmp_path):
    """Through a PNG and `predict`, and through a shard, its JPEG and the loader.

    JPEG keeps grey squares of 16 pixels exactly, and smooth colours to a few levels. With this box one pixel
    of the frame is one of the crop. The camera is off-centre.
    """
    squares = np.random.default_rng(5).integers(0, 256, (30, 40, 1), np.uint8)
    squares = squares.repeat(16, 0).repeat(16, 1).repeat(3, 2)
    frame = squares if kind == "squares" else picture
    cv2.imwrite(str(tmp_path / "frame.png"), frame[..., ::-1])
    cam_int = np.array([[700.0, 0, 250], [0, 700, 290], [0, 0, 1]])
    label = make_label(
        key="a", pose=np.zeros(66), betas=np.zeros(11), trans=[0, 0, 4], joints2d=np.zeros((24, 3)),
        center=(320, 240), scale=128 / 200, img_size=(640, 480), cam_int=cam_int, body="open",
    )  # fmt: skip
    write_shards([sample_from_frame(frame, None, None, label, 160)], tmp_path / "shards", "test")
    write_manifest(tmp_path / "shards", bodies={"open": load_body().record})
    batch = to_device(next(iter(make_loader(tmp_path, "test", model.config, 1))), "cpu")
    with torch.no_grad():
        expected = run_network(model, batch)
        place = full_translation(expected.cam, batch["center"], batch["scale"], batch["cam_int"])

    side = 128 / 1.2
    box = (320 - 40, 240 - side / 2, 80, side)
    person = predict(tmp_path / "frame.png", box, model, cam_int=cam_int, device="cpu")

    crop = frame[240 - 64 : 240 + 64, 320 - 64 : 320 + 64]
    assert np.array_equal(person.crop, crop)
    shown = batch["image"][0].permute(1, 2, 0) * torch.tensor([0.229, 0.224, 0.225])
    shown = 255 * (shown + torch.tensor([0.485, 0.456, 0.406])).numpy()
    assert np.abs(shown - crop).max() < levels + 0.01
    for name in ("rotmats", "betas", "depth"):
        want = getattr(expected, name)[0].numpy().squeeze()
        assert np.abs(getattr(person, name) - want).max() < close, name
    assert np.abs(person.transl - place[0].numpy()).max() < close
    same = person.parts == expected.parts[0].argmax(0).numpy()
    assert same.mean() > (0.9999 if kind == "squares" else 0.9)


def test_the_shipped_network_finds_the_person_in_a_public_photo():
    """Eileen Collins to the waist, in scikit-image; places read off the picture, in pixels."""
    person = predict(skimage.data.astronaut(), (60, 0, 330, 512), device="cpu")
    points = person.joints @ person.cam_int.T
    points = points[:, :2] / points[:, 2:]
    seen = {15: (215, 130), 16: (300, 230), 17: (125, 235)}  # head, left and right shoulder
    for joint, place in seen.items():
        assert np.linalg.norm(points[joint] - place) < 75, joint
    shown = person.parts > 0
    assert 0.25 < shown.mean() < 0.6 and shown[20:60, 20:40].mean() > 0.9  # the trunk fills the middle


def test_mini_on_a_public_photo_gives_what_it_gave_when_this_was_written():
    """Eileen Collins to the waist, in scikit-image."""
    person = predict(skimage.data.astronaut(), (60, 0, 330, 512), "mini", device="cpu")
    np.testing.assert_allclose(person.transl, [-0.1286, -0.0717, 2.0949], atol=2e-3)
    np.testing.assert_allclose(person.betas[:4], [-1.1987, 0.1422, 0.0119, -0.0762], atol=2e-3)
    np.testing.assert_allclose(person.rotmats[12, 0], [0.99999, 0.00447, 0.00202], atol=2e-3)
    neck_head_shoulders = [[227.92, 78.69], [237.92, 43.08], [271.15, 109.83], [183.68, 96.25]]
    np.testing.assert_allclose(
        parameters(person)["joints2d"][[12, 15, 16, 17]], neck_head_shoulders, atol=0.3
    )
    assert np.median(person.depth[person.parts > 0]) == pytest.approx(0.4008, abs=2e-3)
    assert (person.parts > 0).mean() == pytest.approx(0.1028, abs=2e-3)


def test_the_network_sees_the_square_around_the_box(picture, model):
    person = predict(picture, BOX, model, device="cpu")
    center, side = np.array([260.0, 210.0]), 360.0
    np.testing.assert_allclose(person.center, center)
    assert person.scale == pytest.approx(side / 200)
    reference = picture[30:390, 80:440]
    size = person.crop.shape[0]
    expected = cv2.resize(reference, (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(person.crop.astype(int) - expected).mean() < 2


def test_a_given_focal_length_moves_the_body_in_proportion(picture, model):
    near, far = (predict(picture, None, model, focal=f, device="cpu") for f in (500.0, 1000.0))
    assert near.cam_int[0, 0] == 500 and far.cam_int[0, 0] == 1000
    assert far.transl[2] > 1.5 * near.transl[2]


def test_a_cropped_photo_with_its_true_principal_point_gives_the_same_body_in_the_same_place(picture, model):
    left, top = 64, 16
    cropped = np.ascontiguousarray(picture[top:, left:])
    cam_int = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]])
    whole = predict(picture, BOX, model, cam_int=cam_int, device="cpu")
    cam_int[:2, 2] -= left, top
    part = predict(cropped, (BOX[0] - left, BOX[1] - top, *BOX[2:]), model, cam_int=cam_int, device="cpu")
    np.testing.assert_allclose(part.vertices, whole.vertices, atol=1e-4)
    assert part.cam_int[0, 2] == 256


def test_without_a_box_the_whole_image_is_the_person():
    center, side = square_box(None, 640, 480)
    np.testing.assert_array_equal(center, [320, 240])
    assert side == pytest.approx(1.2 * 640)


def test_a_box_partly_outside_the_image_is_fine(picture, model):
    for box in ((-60, 300, 200, 400), (500, -100, 400, 700)):
        assert np.isfinite(predict(picture, box, model, device="cpu").vertices).all()


def test_the_orientation_in_a_jpeg_is_applied(picture, tmp_path):
    upright = tmp_path / "upright.jpg"
    cv2.imwrite(str(upright), picture)
    data = upright.read_bytes()
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)  # turn right
    exif = b"Exif\0\0" + tiff
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    np.testing.assert_array_equal(read_image(turned), np.rot90(read_image(upright), -1))


@pytest.mark.parametrize("kind", ["training", "half", "double", "fast"])
def test_the_caller_s_network_and_body_are_left_as_they_were(kind, picture, model):
    given = copy.deepcopy(model)
    given.encoder.bn1.train(kind == "training")
    given = {"half": given.half, "double": given.double, "fast": lambda: FastDPose(given, bf16=False)}.get(
        kind, lambda: given
    )()
    body = load_body().double()
    modes = [module.training for module in given.modules()]
    before = {name: (value.dtype, value.clone()) for name, value in given.state_dict().items()}

    person = predict(picture, BOX, given, body=body)

    assert [module.training for module in given.modules()] == modes
    for name, value in given.state_dict().items():
        assert value.dtype == before[name][0] and torch.equal(value, before[name][1])
    assert body.template.dtype == torch.float64 and all(p.requires_grad for p in model.parameters())
    expected = predict(picture, BOX, "mini", device="cpu")
    np.testing.assert_allclose(person.vertices, expected.vertices, atol=0.02 if kind == "half" else 1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_result_is_the_cpu_s_and_the_caller_s_network_and_body_stay_on_the_cpu(picture, model):
    body = load_body()
    person = predict(picture, BOX, model, body=body, device="cuda")
    expected = predict(picture, BOX, model, device="cpu")
    np.testing.assert_allclose(person.vertices, expected.vertices, atol=0.02)
    assert {tensor.device.type for tensor in (*model.parameters(), *body.buffers())} == {"cpu"}


def test_a_network_that_fits_is_used_as_it_is_and_not_copied(picture, model, monkeypatch):
    fast = FastDPose(model)
    monkeypatch.setattr(copy, "deepcopy", lambda *_: pytest.fail("copied"))
    for network in (model, fast):
        predict(picture, BOX, network)


def test_a_network_without_depth_predicts_too_if_its_body_is_named(picture, tmp_path):
    model = dpose.DPose(dpose.preset("mini-no-depth"))
    with pytest.raises(ValueError, match="--body"):
        predict(picture, BOX, model)
    assert predict(picture, BOX, model, tmp_path / "out", body="open", device="cpu").depth is None
    assert "depth" not in np.load(tmp_path / "out" / "params.npz").files
    with pytest.raises(ValueError, match=load_body().hash):  # mini is of the open body
        predict(picture, BOX, "mini", body=body_file(tmp_path))


def body_file(tmp_path):
    arrays = dict(np.load(OPEN_BODY, allow_pickle=False))
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays | {"v_template": 1.1 * arrays["v_template"]})
    return tmp_path / "SMPLX_NEUTRAL.npz"


# What is written


def test_all_files_are_written_and_nothing_else(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert {path.name for path in folder.parent.iterdir()} == {"image.png", "prediction"}
    assert cv2.imread(str(folder / "overlay.png")).shape == (480, 640, 3)
    for name in ("depth.png", "parts.png"):
        assert cv2.imread(str(folder / name)).shape == (128, 128, 3)


def test_the_documented_recipe_makes_the_written_mesh_with_smplx(folder, monkeypatch):
    recipe = re.search(r"^ +p = .*?(?=\n\n)", SMPLX_RECIPE, re.DOTALL | re.MULTILINE)[0]
    names = {"np": np, "smplx": smplx, "torch": torch, "FOLDER": OPEN_BODY.parent.parent}
    monkeypatch.chdir(folder.parent)
    exec(textwrap.dedent(recipe), names)
    mesh = trimesh.load(folder / "mesh.glb", force="mesh", process=False)
    vertices = names["mesh"].vertices[0].detach().numpy() * [1, -1, -1]  # glTF: y up, facing +z
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-3)
    written = names["p"]
    joints = names["mesh"].joints[0, :55].detach().numpy()
    np.testing.assert_allclose(written["joints3d"], joints, atol=1e-3)
    assert str(written["body"]) == "open" and int(written["num_betas"]) == 11


def test_the_written_2d_joints_are_opencvs_projection_of_the_3d_ones(folder):
    written = np.load(folder / "params.npz", allow_pickle=False)
    zero = np.zeros(3)
    points, _ = cv2.projectPoints(
        written["joints3d"].astype(np.float64), zero, zero, written["cam_int"].astype(np.float64), None
    )
    np.testing.assert_allclose(written["joints2d"], points[:, 0], rtol=1e-3, atol=1e-2)
    assert written["cam_int"][0, 0] == pytest.approx(np.hypot(640, 480))


def test_an_output_folder_that_cannot_be_one_is_refused_before_anything_is_computed(picture, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "a" / "b"):
        with pytest.raises(OSError, match=str(tmp_path / "file")):
            predict(picture, BOX, nn.Identity(), out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# What is refused


@pytest.mark.parametrize(
    ("box", "fact"),
    [
        ((10, 10, 0, 50), "8 pixels"),
        ((10, 10, 50, -1), "8 pixels"),
        ((0.1, 0.1, 0.7, 0.9), "fractions"),
        ((200, 200, 1, 1), "8 pixels"),
        ((0, 0, 1e-300, 1e-300), "8 pixels"),
        ((640, 0, 10, 10), "640 x 480"),
        ((-50, 0, 50, 10), "640 x 480"),
        ((0, 480, 10, 10), "640 x 480"),
        ((630, 470, 400, 400), "640 x 480"),
        ((0, 0, 20_000, 20_000), "640 x 480"),
        ((0, 0, 1e308, 1e308), "640 x 480"),
        ((1, 2, 3), "four"),
        ((0, 0, float("nan"), 1), "four"),
        ((0, 0, 100, float("inf")), "four"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_useless_box_is_refused(picture, model, tmp_path, box, fact):
    with pytest.raises(ValueError, match=fact):
        predict(picture, box, model, tmp_path / "out", device="cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("focal", [0.0, -5.0, float("nan"), float("inf"), 1e-45, 1e39, 0.1])
def test_an_impossible_focal_length_is_refused(picture, model, focal):
    with pytest.raises(ValueError, match=re.escape(f"{focal:g}")):
        predict(picture, BOX, model, focal=focal, device="cpu")


@pytest.mark.parametrize(
    "cam_int",
    [
        np.eye(4),
        np.zeros((3, 3)),
        [[500, 0, 320], [0, 500, float("nan")], [0, 0, 1]],
        [[500, 1, 320], [0, 500, 240], [0, 0, 1]],
        [[500, 0, 320], [0, 500, 240], [0, 0, 2]],
        [[500, 0, 320], [0, -500, 240], [0, 0, 1]],
    ],
)
def test_an_impossible_camera_is_refused(cam_int):
    with pytest.raises(ValueError, match="pixels"):
        intrinsics(640, 480, cam_int=cam_int)


def test_a_focal_length_and_a_camera_at_once_are_refused():
    with pytest.raises(ValueError, match="focal or cam_int"):
        intrinsics(640, 480, 500, np.eye(3))


@pytest.mark.parametrize(
    ("size", "focal", "millimetres"), [((4000, 3000), 26, 3005), ((640, 480), 9000, None)]
)
def test_a_focal_length_that_is_hardly_in_pixels_is_used_with_a_warning(size, focal, millimetres):
    with pytest.warns(UserWarning, match=f"{focal} is taken as pixels") as caught:
        matrix = intrinsics(*size, focal)
    assert matrix[0, 0] == focal
    if millimetres:  # a 35 mm film frame is 43.27 mm from corner to corner
        assert re.search(rf"give {millimetres}\b", str(caught[0].message))


@pytest.mark.filterwarnings("error")
def test_usual_focal_lengths_give_no_warning():
    for focal in (None, 250, 800, 3000):
        intrinsics(640, 480, focal)
    intrinsics(6000, 600)


@pytest.mark.parametrize("device", ["cuda:99", "toaster", "meta"])
def test_a_device_that_is_not_there_is_named(picture, model, tmp_path, device):
    for checkpoint in (model, "mini"):
        with pytest.raises(ValueError, match=f"'{device}'"):
            predict(picture, BOX, checkpoint, tmp_path / "out", device=device)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("factor", [float("nan"), 1e6, 1e30])
def test_a_network_whose_result_is_not_finite_writes_nothing(picture, model, factor, tmp_path):
    broken = copy.deepcopy(model)
    broken.regressor.cam_out.weight.data *= factor
    with pytest.raises(FloatingPointError, match="not finite"):
        predict(picture, BOX, broken, tmp_path / "out", device="cpu")
    assert list(tmp_path.iterdir()) == []


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    data = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def bad_images(picture) -> dict[str, bytes]:
    png, jpeg = (cv2.imencode(kind, picture)[1].tobytes() for kind in (".png", ".jpg"))
    return {
        "empty.jpg": b"",
        "cut.png": png[:60],
        "half.png": png[: len(png) // 2],
        "half.jpg": jpeg[: len(jpeg) // 2],
        "flipped.png": png[:200] + bytes([png[200] ^ 255]) + png[201:],
        "text.png": b"a letter, say",
        "nothing.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "nothing.bmp": b"BM" + bytes(100),
        "nothing.gif": b"GIF89a" + bytes(100),
        "40000 x 40000.png": png_of(40_000, 40_000),
        "20000 x 20000.png": png_of(20_000, 20_000),
        "30000 x 40000.jpg": jpeg_of(30_000, 40_000),
        "4294967295 x 1.png": png_of(2**32 - 1, 1),
    }


@pytest.mark.parametrize("name", bad_images(np.zeros((999, 999, 3), np.uint8)))
def test_an_unreadable_image_is_named_and_nothing_else_is_said(name, picture, tmp_path, capfd, monkeypatch):
    path = tmp_path / name
    path.write_bytes(bad_images(picture)[name])
    size = name.rsplit(".", 1)[0] if " x " in name else ""
    if size:
        monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=re.escape(str(path)) + f".*{size}"):
        predict(path, None, "mini", tmp_path / "out")
    assert not (tmp_path / "out").exists() and capfd.readouterr() == ("", "")


def test_an_error_inside_opencv_is_a_sentence_about_the_file(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(png_of(10, 10))

    def fails(*_):
        raise cv2.error("OpenCV: insufficient memory")

    monkeypatch.setattr(cv2, "imdecode", fails)
    with pytest.raises(ValueError, match=r"image\.png"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "head", "fact"),
    [
        ("photo.heic", b"\0\0\0\x18ftypheic", "HEIC.*JPEG"),
        ("photo.jpg", b"\0\0\0\x1cftypmif1", "HEIC.*JPEG"),
        ("photo.NEF", b"MM\0*", "raw.*JPEG"),
    ],
)
def test_phone_and_raw_formats_are_named_with_what_to_do(name, head, fact, tmp_path):
    (tmp_path / name).write_bytes(head + bytes(100))
    with pytest.raises(ValueError, match=rf"{re.escape(name)} .*{fact}"):
        read_image(tmp_path / name)


def test_a_missing_image_a_folder_and_a_wrong_array_are_named(picture, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="folder"):
        read_image(tmp_path)
    for wrong in (picture.astype(np.float32), picture[..., 0], np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8 RGB"):
            read_image(wrong)
