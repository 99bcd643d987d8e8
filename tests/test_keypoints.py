"""2D evaluation: PCK and mean distance by hand, by `predict` and on rendered people; who is left out."""

import json
import struct

import cv2
import numpy as np
import pytest
import torch
from smplx.vertex_ids import vertex_ids
from tiny_network import TINY

from dpose.body import load_body
from dpose.bootstrap import ClusterBootstrap
from dpose.cli import main
from dpose.keypoints import (
    LIMBS,
    _Crops,
    body_points,
    box_errors,
    evaluate_keypoints,
    read_annotations,
    summarise,
)
from dpose.model import checkpoint as checkpoints
from dpose.model.network import DPose
from dpose.predictor import BOX_FACTOR, Predictor
from dpose.skeleton import JOINT_NAMES, NUM_JOINTS
from dpose.synthetic import SceneRenderer, sample_scene
from dpose.synthetic.samples import people_labels

COCO = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
).split()
POSETRACK = ["nose", "head_bottom", "head_top", *COCO[3:]]
LSP = (
    "Right ankle|Right knee|Right hip|Left hip|Left knee|Left ankle|Right wrist|Right elbow|Right shoulder|"
    "Left shoulder|Left elbow|Left wrist|Neck|Head top"
).split("|")
OPTIONS = {"workers": 0, "device": "cpu", "progress": False}
BOX = [40.0, 30.0, 60.0, 100.0]


def person(image, names, seed=0, box=BOX, **changes):
    """An annotation with all keypoints at random places in the box."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(box[:2], np.add(box[:2], box[2:]), (len(names), 2))
    keypoints = np.concatenate([xy, rng.integers(1, 3, (len(names), 1))], 1)
    return {
        "id": seed, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": list(box),
        "keypoints": keypoints.ravel().tolist(),
    } | changes  # fmt: skip


def write(path, images, annotations, names=COCO):
    """A file in COCO's format; images: {id: (file name, width, height, further fields)}."""
    entries = [
        {"id": number, "file_name": name, "width": width, "height": height, **dict(*more)}
        for number, (name, width, height, *more) in images.items()
    ]
    categories = [{"id": 1, "name": "person", "keypoints": list(names)}]
    path.write_text(json.dumps({"images": entries, "annotations": annotations, "categories": categories}))
    return path


def picture(path, width=200, height=150, seed=0):
    colours = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC))
    return path


def turn(path):
    """Adds an EXIF orientation to a JPEG: a quarter turn."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint of an untrained network whose regressor adds nothing to its means."""
    torch.manual_seed(0)
    model = DPose(TINY)
    for layer in (model.regressor.pose_out, model.regressor.shape_out, model.regressor.cam_out):
        torch.nn.init.zeros_(layer.weight)
    model.body_record = load_body().record
    return checkpoints.save(model, tmp_path_factory.mktemp("tiny") / "tiny.safetensors")


# Measures


def test_a_small_table_gives_the_pck_and_errors_that_a_pencil_gives():
    box = np.array([[0, 0, 100, 50], [0, 0, 20, 200.0]])  # longer sides 100 and 200
    names = ("left_wrist", "right_knee", "nose")
    keypoints = np.array(
        [[[50, 50, 1], [10, 20, 1], [0, 0, 1]], [[100, 100, 1], [0, 0, 0], [7, 7, 1]]], float
    )
    points = (
        keypoints[:, None, :, :2]
        + np.array([[[3, 4], [0, 10], [30, 40]], [[0, 38], [900, 0], [8, 6]]], float)[:, None]
    )  # 0.05, 0.1, 0.5 of 100; 0.19, not annotated, 0.05 of 200
    points[0, 0, 0, 0] -= 0.1
    points[0, 0, 1, 1] -= 0.1  # just below the thresholds
    errors = box_errors(points, keypoints, box)[:, 0]
    scores = summarise(errors, keypoints[..., 2], names, ClusterBootstrap(["a", "b"]))
    assert [scores[f"pck_{t}"]["mean"] for t in ("0.05", "0.1", "0.2")] == [0.3333, 0.6667, 1]
    assert scores["error"]["mean"] == pytest.approx((0.0492 + 0.099 + 0.19) / 3, abs=1e-4)
    assert scores["error"]["n"] == 3
    per_joint = scores["pck_0.1"]["per_joint"]
    assert {name: score["mean"] for name, score in per_joint.items()} == {
        "all": 0.6, "left_wrist": 0.5, "right_knee": 1, "nose": 0.5,
    }  # fmt: skip
    assert [score["n"] for score in per_joint.values()] == [5, 2, 1, 2]


def test_intervals_are_over_images_or_videos_and_not_over_joints(tiny, tmp_path):
    images = {}
    for i in range(4):
        picture(tmp_path / f"{i}.png", seed=i)
        images[i] = (f"{i}.png", 200, 150, {"vid_id": f"0-{i // 2}"})
    people = [person(i, COCO, 10 * i + k) for i in range(4) for k in range(3)]
    path = write(tmp_path / "videos.json", images, people)
    assert evaluate_keypoints(path, tmp_path, tiny, **OPTIONS)["intervals"]["clusters"] == 2
    for image in images.values():
        image[3]["vid_id"] = None  # no video: every image is its own cluster
    alone = read_annotations(write(tmp_path / "images.json", images, people), LIMBS)
    assert len(set(alone.clusters)) == 4
    single = write(tmp_path / "one.json", {i: image[:3] for i, image in images.items()}, people[:3])
    result = evaluate_keypoints(single, tmp_path, tiny, **OPTIONS)
    assert (result["images"], result["samples"], result["joints"]) == (1, 3, 36)
    assert result["metrics"]["error"]["ci95"] is None


# Predictions


@pytest.mark.parametrize("enlarged", [1, 0.75])
def test_every_person_is_predicted_and_measured_as_by_predict(enlarged, tmp_path):
    images = {5: ("b/second.jpg", 200, 150), 3: ("first.png", 200, 150)}
    (tmp_path / "b").mkdir()
    picture(tmp_path / "b/second.jpg", seed=1)
    picture(tmp_path / "first.png")
    people = [
        person(3, COCO, 1),
        person(5, COCO, 2, [-10, 20, 120, 90]),
        person(3, COCO, 3, [90, 20, 80, 100]),
    ]
    people[2]["keypoints"][3 * COCO.index("left_hip") + 2] = 0
    path = write(tmp_path / "people.json", images, people)
    expected, predictor = [], Predictor("lite", None, "cpu", fast=False)
    for annotation in people:
        keypoints = np.reshape(annotation["keypoints"], (17, 3))
        file = tmp_path / images[annotation["image_id"]][0]
        x, y, width, height = annotation["bbox"]
        box = (
            x + width * (1 - enlarged) / 2,
            y + height * (1 - enlarged) / 2,
            width * enlarged,
            height * enlarged,
        )
        (found,) = predictor(file, [box])
        joints = found.joints2d
        expected += [
            np.linalg.norm(joints[JOINT_NAMES.index(name)] - keypoints[i, :2]) / max(annotation["bbox"][2:])
            for i, name in enumerate(COCO)
            if name in LIMBS and keypoints[i, 2]
        ]
    assert len(expected) == 35
    options = OPTIONS | {"box_factor": BOX_FACTOR * enlarged}
    for batch_size in (1, 2, 64):
        metrics = evaluate_keypoints(path, tmp_path, batch_size=batch_size, **options)["metrics"]
        assert metrics["error"]["mean"] == pytest.approx(np.mean(expected), abs=2e-4)
        assert metrics["pck_0.2"] == metrics["pck_0.2"] | {
            "mean": np.mean(np.less(expected, 0.2)).round(4),
            "n": 35,
        }


def test_the_baseline_is_what_a_network_without_features_predicts(tiny, tmp_path):
    picture(tmp_path / "a.png")
    people = [person(0, COCO, seed, [20 + 9 * seed, 20, 70, 100]) for seed in range(3)]
    path = write(tmp_path / "people.json", {0: ("a.png", 200, 150)}, people)
    result = evaluate_keypoints(path, tmp_path, tiny, **OPTIONS)
    assert result["metrics"] == result["baselines"]["mean_pose"]
    trained = evaluate_keypoints(path, tmp_path, "mini", **OPTIONS)
    assert trained["metrics"]["error"]["mean"] != trained["baselines"]["mean_pose"]["error"]["mean"]


def test_most_joints_of_rendered_people_are_found_where_their_labels_have_them(tmp_path):
    """Boxes are those of the visible pixels, keypoints are the labels' joints, in another focal length."""
    images, people = {}, []
    for index in range(5):
        scene = sample_scene(0, "test", index)
        view = SceneRenderer(scene).frame()
        height, width = view.person.shape
        cv2.imwrite(str(tmp_path / f"{index}.png"), view.image[..., ::-1])
        images[index] = (f"{index}.png", width, height)
        for k, _, label in people_labels(scene):
            where = np.argwhere(view.person == k)[:, ::-1]
            if len(where) < 4000:
                continue
            low, size = where.min(0), np.ptp(where, 0) + 1
            joints = np.array(label["joints2d"])
            keypoints = [
                [*joints[JOINT_NAMES.index(name), :2], 2] if name in LIMBS else [0, 0, 0] for name in COCO
            ]
            box = [*low.tolist(), *size.tolist()]
            people.append(person(index, COCO, box=box, keypoints=np.ravel(keypoints).tolist()))
    path = write(tmp_path / "rendered.json", images, people)
    result = evaluate_keypoints(path, tmp_path, box_factor=1.1, out=tmp_path / "result.json", **OPTIONS)
    scores, baseline = result["metrics"], result["baselines"]["mean_pose"]
    assert result["samples"] == len(people) > 5
    assert scores["pck_0.1"]["mean"] > 0.6 and scores["pck_0.1"]["mean"] > baseline["pck_0.1"]["mean"] + 0.3
    assert scores["error"]["mean"] < 0.6 * baseline["error"]["mean"]
    assert json.loads((tmp_path / "result.json").read_text()) == result


# Annotations


@pytest.mark.parametrize(
    ("names", "found", "unknown"),
    [
        (COCO, {*COCO}, ()),
        (POSETRACK, {*COCO} - {"left_eye", "right_eye"} | {"neck", "head_top"}, ()),
        ([*LSP, "Tail"], {*LIMBS, "neck", "head_top"}, ("tail",)),
    ],
)
def test_keypoints_are_found_by_name_in_every_set(names, found, unknown, tmp_path):
    path = write(tmp_path / "set.json", {0: ("a.png", 200, 150)}, [person(0, names, 3)], names)
    people = read_annotations(path, body_points(load_body()))
    assert set(people.names) == found and people.unknown == unknown
    wrist = [name.lower().replace(" ", "_") for name in names].index("right_wrist")
    expected = person(0, names, 3)["keypoints"][3 * wrist : 3 * wrist + 2]
    assert people.keypoints[0, people.names.index("right_wrist")].tolist() == [*expected, 1]


def test_the_points_of_face_and_head_lie_there():
    body = load_body()
    points = body_points(body)
    rest = body(torch.zeros(1, 11), torch.eye(3).expand(1, 22, 3, 3))
    place = torch.cat([rest.joints, rest.vertices], 1)[0]
    at = {name: place[index].numpy() for name, index in points.items()}
    assert at["nose"][2] == rest.vertices[0][body.part_of_vertex == JOINT_NAMES.index("head"), 2].max()
    assert at["left_eye"][0] > 0.02 and at["right_ear"][0] < -0.06  # the left is towards +x
    assert at["neck"][1] < at["nose"][1] < at["left_eye"][1] < at["head_top"][1]
    assert at["head_top"][1] == rest.vertices[0, :, 1].max()
    short = {"nose": "nose", "leye": "left_eye", "reye": "right_eye", "lear": "left_ear", "rear": "right_ear"}
    assert all(vertex_ids["smplx"][a] + NUM_JOINTS == points[b] for a, b in short.items())
    assert "nose" not in body_points(load_body(vertex_stride=2))


def test_who_is_left_out_is_counted_and_images_that_fail_are_named(tiny, tmp_path, capsys):
    picture(tmp_path / "good.png")
    picture(tmp_path / "small.png", 100, 75)
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff nothing")
    files = ("good.png", "small.png", "damaged.jpg", "absent.png")
    images = {number: (name, 200, 150) for number, name in enumerate(files)}
    few = person(0, COCO, 2)
    for i in range(5, 14):
        few["keypoints"][3 * i + 2] = 0  # three limb joints remain
    people = [
        person(0, COCO, 1), few, person(0, COCO, 3, iscrowd=1), person(0, COCO, 4, [50, 50, 4, 90]),
        person(0, COCO, 5, [900, 50, 60, 90]), person(1, COCO, 6), person(2, COCO, 7), person(2, COCO, 8),
        person(3, COCO, 9), person(0, COCO, 10, keypoints=[0] * 51),
    ]  # fmt: skip
    boxless = person(0, COCO, 11)
    del boxless["bbox"]
    path = write(tmp_path / "people.json", images, [*people, boxless])
    arguments = [
        "evaluate",
        "--keypoints",
        path,
        "--images",
        tmp_path,
        "--checkpoint",
        tiny,
        "--min-joints",
        4,
    ]
    arguments += ["--workers", 1, "--device", "cpu", "--no-progress", "--out", tmp_path / "out.json"]
    assert main(list(map(str, arguments))) == 0
    result, printed = json.loads((tmp_path / "out.json").read_text()), capsys.readouterr().out
    assert result["samples"] == 2 and sorted(result["left_out"].values()) == [1, 2, 2, 4]
    assert sum(result["left_out"].values()) + result["samples"] == 11
    assert set(result["unreadable"]) == set(files[1:])
    assert all(name in printed for name in files[1:]) and "100 x 75" in result["unreadable"]["small.png"]


def test_a_turned_jpeg_is_used_in_the_orientation_that_its_annotations_are_for(tiny, tmp_path):
    """The network without features predicts the same in both, so the image that was cut tells them apart."""
    turn(picture(tmp_path / "a.jpg"))
    crops = []
    for width, height in ((200, 150), (150, 200)):
        path = write(tmp_path / "people.json", {0: ("a.jpg", width, height)}, [person(0, COCO)])
        people = read_annotations(path, LIMBS)
        crops.append(_Crops(people, tmp_path, 64, BOX_FACTOR)[0][0][1])
    stored = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[..., ::-1]
    for crop, image in zip(crops, (stored, np.rot90(stored, -1)), strict=True):
        (expected,) = Predictor(tiny, None, "cpu")(np.ascontiguousarray(image), [BOX])
        np.testing.assert_array_equal(crop, expected.crop)


BROKEN = person(0, COCO) | {"id": 77, "keypoints": [1, 2, 2]}


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("[1, 2]", "people.json"),
        ("{", "people.json"),
        ({"images": [], "annotations": []}, "categories"),
        ({"categories": [{"id": 1, "name": "cat"}]}, "left_shoulder"),
        ({"categories": [{"id": 1, "keypoints": 17}]}, "people.json"),
        ({"annotations": []}, "nobody"),
        ({"annotations": [person(0, COCO, iscrowd=1)]}, "1 crowd"),
        ({"annotations": [BROKEN]}, "77"),
        ({"annotations": [person(8, COCO, 78)]}, "78"),
        ({"annotations": [person(0, COCO, 79, bbox=[1, 2, 3])]}, "bbox"),
        ({}, "a.png"),
    ],
)
def test_a_useless_file_ends_in_one_sentence(content, fact, tiny, tmp_path, capsys):
    whole = json.loads(
        write(tmp_path / "people.json", {0: ("a.png", 200, 150)}, [person(0, COCO)]).read_text()
    )
    if isinstance(content, dict):
        without = "categories" if "images" in content else ""
        content = json.dumps({name: part for name, part in (whole | content).items() if name != without})
    (tmp_path / "people.json").write_text(content)
    arguments = [
        "--keypoints",
        tmp_path / "people.json",
        "--images",
        tmp_path,
        "--checkpoint",
        tiny,
        "--no-progress",
    ]
    assert main(["evaluate", *map(str, arguments)]) == 2
    message = capsys.readouterr().err
    assert fact in message and message.count("\n") == 1 and "Traceback" not in message


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["--images", "x"], "--images"),
        (["--keypoints", "x.json"], "--images"),
        (["--keypoints", "x.json", "--images", ".", "--split", "val"], "--split"),
        (["--keypoints", "x.json", "--images", "."], "x.json"),
        (["--keypoints", "x.json", "--images", "nowhere"], "nowhere"),
        (["--keypoints", "x.json", "--images", ".", "--box-factor", "nan"], "nan"),
        (["--keypoints", "x.json", "--images", ".", "--min-joints", "0"], "min_joints"),
    ],
)
def test_options_that_do_not_go_together_end_in_one_sentence(arguments, fact, capsys):
    assert main(["evaluate", *arguments]) == 2
    assert fact in capsys.readouterr().err
