"""Prediction: it equals the evaluation path, in batches of people and pictures as one by one, and leaves the
caller's network as it was.
"""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from shard_files import write_manifest, write_shards

import dpose
from dpose.body import OPEN_BODY, load_body
from dpose.camera import full_translation
from dpose.data.loader import make_loader
from dpose.data.sample import make_label, sample_from_frame
from dpose.model.inference import FastDPose, run_network, to_device
from dpose.predictor import BOX_FACTOR, Person, Predictor

BOX = (200, 60, 120, 300)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def model():
    return dpose.load("mini")


def one(image, box, model, body=None, **camera) -> Person:
    """The person in a box, by the plain network on the CPU."""
    (person,) = Predictor(model, None, "cpu", body=body, fast=False)(image, [box], **camera)
    return person


# One person


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

    side = 128 / BOX_FACTOR
    box = (320 - 40, 240 - side / 2, 80, side)
    person = one(tmp_path / "frame.png", box, model, cam_int=cam_int)

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
    (person,) = dpose.predict(skimage.data.astronaut(), (60, 0, 330, 512), device="cpu")
    points = person.joints @ person.cam_int.T
    points = points[:, :2] / points[:, 2:]
    seen = {15: (215, 130), 16: (300, 230), 17: (125, 235)}  # head, left and right shoulder
    for joint, place in seen.items():
        assert np.linalg.norm(points[joint] - place) < 75, joint
    shown = person.parts > 0
    assert 0.25 < shown.mean() < 0.6 and shown[20:60, 20:40].mean() > 0.8  # the trunk fills the middle


def test_mini_on_a_public_photo_gives_what_it_gave_when_this_was_written():
    """Eileen Collins to the waist, in scikit-image."""
    person = one(skimage.data.astronaut(), (60, -51.2, 330, 614.4), "mini")
    np.testing.assert_allclose(person.transl, [-0.1286, -0.0717, 2.0949], atol=2e-3)
    np.testing.assert_allclose(person.betas[:4], [-1.1987, 0.1422, 0.0119, -0.0762], atol=2e-3)
    np.testing.assert_allclose(person.rotmats[12, 0], [0.99999, 0.00447, 0.00202], atol=2e-3)
    neck_head_shoulders = [[227.92, 78.69], [237.92, 43.08], [271.15, 109.83], [183.68, 96.25]]
    np.testing.assert_allclose(person.joints2d[[12, 15, 16, 17]], neck_head_shoulders, atol=0.3)
    assert np.median(person.depth[person.parts > 0]) == pytest.approx(0.4008, abs=2e-3)
    assert (person.parts > 0).mean() == pytest.approx(0.1028, abs=2e-3)


def test_the_network_sees_the_square_around_the_box(picture, model):
    person = one(picture, BOX, model)
    center, side = np.array([260.0, 210.0]), 300.0
    np.testing.assert_allclose(person.center, center)
    assert person.scale == pytest.approx(side / 200)
    reference = picture[60:360, 110:410]
    size = person.crop.shape[0]
    expected = cv2.resize(reference, (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(person.crop.astype(int) - expected).mean() < 2


def test_a_given_focal_length_moves_the_body_in_proportion(picture, model):
    near, far = (one(picture, BOX, model, focal=f) for f in (500.0, 1000.0))
    assert near.cam_int[0, 0] == 500 and far.cam_int[0, 0] == 1000
    assert far.transl[2] > 1.5 * near.transl[2]


def test_a_cropped_photo_with_its_true_principal_point_gives_the_same_body_in_the_same_place(picture, model):
    left, top = 64, 16
    cropped = np.ascontiguousarray(picture[top:, left:])
    cam_int = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]])
    whole = one(picture, BOX, model, cam_int=cam_int)
    cam_int[:2, 2] -= left, top
    part = one(cropped, (BOX[0] - left, BOX[1] - top, *BOX[2:]), model, cam_int=cam_int)
    np.testing.assert_allclose(part.vertices, whole.vertices, atol=1e-4)
    assert part.cam_int[0, 2] == 256


def test_a_box_partly_outside_the_image_is_fine(picture, model):
    for box in ((-60, 300, 200, 400), (500, -100, 400, 700)):
        assert np.isfinite(one(picture, box, model).vertices).all()


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

    person = one(picture, BOX, given, body=body)

    assert [module.training for module in given.modules()] == modes
    for name, value in given.state_dict().items():
        assert value.dtype == before[name][0] and torch.equal(value, before[name][1])
    assert body.template.dtype == torch.float64 and all(p.requires_grad for p in model.parameters())
    expected = one(picture, BOX, "mini")
    np.testing.assert_allclose(person.vertices, expected.vertices, atol=0.02 if kind == "half" else 1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_result_is_the_cpu_s_and_the_caller_s_network_and_body_stay_on_the_cpu(picture, model):
    body = load_body()
    (person,) = Predictor(model, None, "cuda", body=body)(picture, [BOX])
    expected = one(picture, BOX, model)
    np.testing.assert_allclose(person.vertices, expected.vertices, atol=0.02)
    assert {tensor.device.type for tensor in (*model.parameters(), *body.buffers())} == {"cpu"}


def test_a_network_that_fits_is_used_as_it_is_and_not_copied(picture, model, monkeypatch):
    fast = FastDPose(model)
    monkeypatch.setattr(copy, "deepcopy", lambda *_: pytest.fail("copied"))
    for network in (model, fast):
        assert Predictor(network, None, fast=network is fast).model is network


def test_a_network_without_depth_predicts_too_if_its_body_is_named(picture, tmp_path):
    model = dpose.DPose(dpose.preset("mini-no-depth"))
    with pytest.raises(ValueError, match="--body"):
        Predictor(model, None)
    assert one(picture, BOX, model, body="open").depth is None
    with pytest.raises(ValueError, match=load_body().hash):  # mini is of the open body
        Predictor("mini", None, body=body_file(tmp_path))


def body_file(tmp_path):
    arrays = dict(np.load(OPEN_BODY, allow_pickle=False))
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays | {"v_template": 1.1 * arrays["v_template"]})
    return tmp_path / "SMPLX_NEUTRAL.npz"


@pytest.mark.parametrize("device", ["cuda:99", "toaster", "meta"])
def test_a_device_that_is_not_there_is_named(model, device):
    for checkpoint in (model, "mini"):
        with pytest.raises(ValueError, match=f"'{device}'"):
            Predictor(checkpoint, None, device)


@pytest.mark.parametrize("factor", [float("nan"), 1e6, 1e30])
def test_a_network_whose_result_is_not_finite_is_named(picture, model, factor):
    broken = copy.deepcopy(model)
    broken.regressor.cam_out.weight.data *= factor
    with pytest.raises(FloatingPointError, match="not finite"):
        one(picture, BOX, broken)


# Several people and pictures


def detector(picture: np.ndarray) -> np.ndarray:
    """Two people, in places that depend on the picture's width; nobody in a black picture."""
    width = picture.shape[1]
    found = [(20, 30, 100, 250, 0.5), (width - 160, 60, 120, 300, 0.9)]
    return np.array(found if picture.any() else [])


def equal(found: list[Person], expected: list[Person]) -> None:
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.vertices, two.vertices, atol=2e-4)
        assert (one.parts == two.parts).mean() > 0.999


def test_people_and_pictures_in_one_batch_are_predicted_as_one_by_one(picture, model):
    wide = np.ascontiguousarray(np.tile(picture, (1, 2, 1))[:400])
    expected = [one(image, row[:4], model) for image in (picture, wide) for row in detector(image)]
    for batch_size in (1, 3, 32):
        predictor = Predictor(model, detector, "cpu", fast=False, batch_size=batch_size)
        people = predictor([picture, wide])
        equal(people, expected)
        assert [person.score for person in people] == [0.5, 0.9] * 2
        assert [person.image_size for person in people] == [(640, 480)] * 2 + [(1280, 400)] * 2
        assert [person.frame for person in people] == [0, 0, 1, 1]


def test_files_folders_tensors_and_lists_give_the_same_people(picture, model, tmp_path):
    predictor = Predictor(model, detector, "cpu", fast=False)
    expected = predictor(picture)
    for name in ("b.png", "a.png"):
        cv2.imwrite(str(tmp_path / name), picture[..., ::-1])
    (tmp_path / "notes.txt").write_text("no picture")
    equal(predictor(tmp_path / "a.png"), expected)
    equal(predictor(torch.from_numpy(picture).permute(2, 0, 1)), expected)
    in_folder = predictor(str(tmp_path))
    equal(in_folder, expected * 2)
    assert [Path(person.source).name for person in in_folder] == ["a.png"] * 2 + ["b.png"] * 2
    equal(predictor([picture, tmp_path / "a.png"]), expected * 2)
    equal(predictor(np.stack([picture] * 3)), expected * 3)


def test_pictures_without_people_have_none_and_the_order_is_kept(picture, model):
    black = np.zeros((300, 300, 3), np.uint8)
    predictor = Predictor(model, detector, "cpu")
    assert predictor(black) == []
    found = list(predictor.stream([black, picture, black], ahead=2))
    assert [len(one.people) for one in found] == [0, 2, 0]
    assert [one.frame for one in found] == [0, 1, 2]


def test_pictures_are_read_when_they_are_needed(picture, model):
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield picture

    stream = Predictor(model, detector, "cpu").stream(endless(), ahead=1)
    next(stream), next(stream)
    assert read == 2


def test_a_picture_that_cannot_be_read_stops_or_is_reported(picture, model, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    (tmp_path / "b.png").write_bytes(b"a letter, say")
    predictor, failed = Predictor(model, detector, "cpu"), []
    with pytest.raises(ValueError, match=r"b\.png"):
        predictor(tmp_path)
    found = list(predictor.stream(tmp_path, failed=lambda *about: failed.append(about)))
    assert len(found) == 1 and Path(failed[0][0]).name == "b.png"


def test_the_focal_length_is_the_given_one_or_exif_s_or_the_diagonal(picture, model, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif)
    predictor = Predictor(model, None, "cpu")
    for image, options, focal, source in (
        (picture, {}, 800, "diagonal"),
        (tmp_path / "a.jpg", {}, 50 * 800 / np.hypot(36, 24), "EXIF"),
        (tmp_path / "a.jpg", {"focal": 900}, 900, "given"),
        (tmp_path / "a.jpg", {"cam_int": [[700, 0, 300], [0, 700, 200], [0, 0, 1]]}, 700, "given"),
    ):
        (person,) = predictor(image, [BOX], **options)
        assert (person.cam_int[0, 0], person.focal_from) == (pytest.approx(focal), source)


@pytest.mark.filterwarnings("error")
def test_a_long_lens_in_the_exif_data_needs_no_warning(picture, model, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 600  # millimetres
    Image.fromarray(picture).save(tmp_path / "bird.jpg", exif=exif)
    (person,) = Predictor(model, None, "cpu")(tmp_path / "bird.jpg", [BOX])
    assert person.cam_int[0, 0] == pytest.approx(600 * 800 / np.hypot(36, 24))
    with pytest.warns(UserWarning, match="larger version"):
        Predictor(model, None, "cpu")(picture, [BOX], focal=11_000)


def test_without_detector_and_boxes_it_says_so(picture, model):
    with pytest.raises(ValueError, match="boxes"):
        Predictor(model, None)(picture)
    for wrong in ("yolo", "detector.pt"):
        with pytest.raises(ValueError, match=wrong):
            Predictor(model, wrong)


@pytest.mark.parametrize("answer", [np.zeros((2, 4)), [[1, 2, 3, 4, np.nan]], np.zeros(5)])
def test_a_detector_with_another_answer_is_refused(answer, picture, model):
    with pytest.raises(ValueError, match=r"\(N, 5\)"):
        Predictor(model, lambda _: answer)(picture)


def test_boxes_of_a_detector_that_no_person_can_be_in_are_left_out(picture, model):
    found = np.array([(0, 0, 3, 3, 0.9), (700, 0, 50, 50, 0.9), (*BOX, 0.8)])
    assert [person.score for person in Predictor(model, lambda _: found)(picture)] == [0.8]


def test_a_person_s_angles_are_those_of_the_matrices(picture, model):
    person = one(picture, BOX, model)
    vectors = np.concatenate([person.global_orient, person.body_pose]).reshape(22, 3)
    matrices = Rotation.from_rotvec(vectors).as_matrix()
    np.testing.assert_allclose(matrices, person.rotmats, atol=1e-5)
    assert person.overlay(picture).shape == picture.shape
