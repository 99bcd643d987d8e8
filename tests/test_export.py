"""The files of predicted people agree with each other, smplx and OpenCV; all of them are written or none."""

import json
import re
import textwrap

import cv2
import numpy as np
import pytest
import smplx
import torch
import trimesh

import dpose
from dpose.body import OPEN_BODY
from dpose.cli import SMPLX_RECIPE
from dpose.export import (
    GROUND,
    KINDS,
    SIDE_VIEW,
    TOP_VIEW,
    VIEW_SHARE,
    amass,
    colour,
    scene,
    sheet,
    turned_view,
    write,
)
from dpose.predictor import Predictor

BOXES = [(200, 60, 120, 300), (360, 100, 150, 280)]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def people(picture):
    return Predictor("mini", None, "cpu", fast=False)(picture, BOXES)


@pytest.fixture(scope="module")
def folder(people, picture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "prediction" / "photo"
    write(people, folder, picture, KINDS)
    return folder


def test_all_files_are_written_and_nothing_else(folder):
    names = {"overlay.jpg", "scene.glb", "scene.obj", "people.json"}
    kinds = (".npz", "-amass.npz", "-parts.png", "-depth.png", "-sheet.jpg")
    names |= {f"person-{i}{kind}" for i in (1, 2) for kind in kinds}
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in folder.parent.iterdir()] == ["photo"]
    assert cv2.imread(str(folder / "overlay.jpg")).shape == (480, 640, 3)
    for name in ("person-1-depth.png", "person-2-parts.png"):
        assert cv2.imread(str(folder / name)).shape == (128, 128, 3)


def test_the_documented_recipe_makes_the_written_mesh_with_smplx(folder, people, monkeypatch):
    recipe = re.search(r"^ +p = .*?(?=\n\n)", SMPLX_RECIPE, re.DOTALL | re.MULTILINE)[0]
    names = {"np": np, "smplx": smplx, "torch": torch, "FOLDER": OPEN_BODY.parent.parent}
    monkeypatch.chdir(folder.parent.parent)
    exec(textwrap.dedent(recipe), names)
    vertices = names["mesh"].vertices[0].detach().numpy()
    np.testing.assert_allclose(vertices, people[0].vertices, atol=1e-3)
    mesh = trimesh.load(folder / "scene.glb", process=False).geometry["person-1"]
    np.testing.assert_allclose(mesh.vertices, vertices * [1, -1, -1], atol=1e-3)  # glTF: y up, facing +z
    written = names["p"]
    joints = names["mesh"].joints[0, :55].detach().numpy()
    np.testing.assert_allclose(written["joints3d"], joints, atol=1e-3)
    assert str(written["body"]) == "open" and int(written["num_betas"]) == 11


@pytest.mark.parametrize("kind", ["glb", "obj"])
def test_several_people_are_in_one_scene_in_their_places(kind, people):
    data = scene(people, kind)
    loaded = trimesh.load(
        trimesh.util.wrap_as_stream(data), file_type=kind, process=False, maintain_order=True
    )
    expected = np.concatenate([person.vertices for person in people]) * [1, -1, -1]
    found = loaded.to_geometry() if isinstance(loaded, trimesh.Scene) else loaded
    for order in (0, 1):
        np.testing.assert_allclose(np.sort(found.vertices[:, order]), np.sort(expected[:, order]), atol=1e-4)
    assert len(found.faces) == 2 * len(people[0].faces)


def test_the_people_of_a_scene_have_different_colours(people):
    loaded = trimesh.load(trimesh.util.wrap_as_stream(scene(people)), file_type="glb", process=False)
    colours = {tuple(mesh.visual.material.baseColorFactor) for mesh in loaded.geometry.values()}
    assert len(colours) == 2


def test_the_written_2d_joints_are_opencvs_projection_of_the_3d_ones(folder):
    written = np.load(folder / "person-1.npz", allow_pickle=False)
    zero = np.zeros(3)
    points, _ = cv2.projectPoints(
        written["joints3d"].astype(np.float64), zero, zero, written["cam_int"].astype(np.float64), None
    )
    np.testing.assert_allclose(written["joints2d"], points[:, 0], rtol=1e-3, atol=1e-2)
    assert written["cam_int"][0, 0] == pytest.approx(np.hypot(640, 480))


def test_the_json_holds_the_same_as_the_arrays(folder):
    content = json.loads((folder / "people.json").read_text())
    assert content["image_size"] == [640, 480] and content["focal_from"] == "diagonal"
    for number, record in enumerate(content["people"], start=1):
        written = np.load(folder / f"person-{number}.npz", allow_pickle=False)
        for name in ("betas", "global_orient", "body_pose", "transl"):
            np.testing.assert_allclose(record[name], written[name][0], atol=1e-5)
        np.testing.assert_allclose(record["joints3d"], written["joints3d"][:22], atol=1e-5)
        np.testing.assert_allclose(record["box"], BOXES[number - 1])
        assert record["score"] is None and record["body"] == "open"


def test_the_amass_file_is_the_same_body_with_z_up_in_smplx(people):
    """As Blender's add-on does: smplx poses the body, `trans` moves it."""
    content = amass(people, 25.0)
    assert content["poses"].shape == (2, 165) and content["mocap_frame_rate"] == 25
    model = smplx.create(OPEN_BODY.parent.parent, "smplx", use_pca=False, flat_hand_mean=True, num_betas=11)
    for i, person in enumerate(people):
        values = {
            "betas": person.betas[None],
            "global_orient": content["poses"][i : i + 1, :3],
            "body_pose": content["poses"][i : i + 1, 3:66],
            "transl": content["trans"][i : i + 1],
        }
        found = model(**{name: torch.from_numpy(value) for name, value in values.items()})
        x, y, z = person.vertices.T  # y down, z away
        np.testing.assert_allclose(found.vertices[0].detach(), np.stack([x, z, -y], 1), atol=1e-3)


def test_the_views_of_a_sheet_show_the_body_at_one_scale_which_the_bar_states(people):
    extent = np.ptp(people[0].vertices, axis=0)
    per_metre = VIEW_SHARE * 200 / (extent.max() / 2)
    for rotation, axes in ((np.eye(3), (1, 0)), (SIDE_VIEW, (1, 2)), (TOP_VIEW, (2, 0))):
        shown = np.nonzero((turned_view(people[0], rotation, 200) != GROUND).any(-1))
        for found, axis in zip(shown, axes, strict=True):
            assert np.ptp(found) + 1 == pytest.approx(extent[axis] * per_metre, rel=0.05, abs=2)


def test_a_sheet_has_the_network_s_square_and_the_colour_of_the_person(people, picture):
    box = (-40, 100, 150, 280)
    (person,) = Predictor("mini", None, "cpu", fast=False)(picture, [box])
    first, second = (sheet(person, picture, number) for number in (1, 2))
    found = cv2.matchTemplate(first, cv2.resize(person.crop[:, 50:], (195, 320)), cv2.TM_CCOEFF_NORMED)
    assert found.max() > 0.98  # the part of the square that is in the picture
    assert found.argmax() % found.shape[1] == pytest.approx(10 + 320 * 50 / 128, abs=2)
    for number, drawn in ((1, first), (2, second)):
        chip = np.array(colour(number)) ** (1 / 2.2) * 255
        assert (np.abs(drawn[5:35, 5:35] - chip).max(-1) < 1).sum() > 100
    np.testing.assert_array_equal(first[60:390, :335], second[60:390, :335])


def test_a_folder_that_is_something_else_is_left_alone(people, picture, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    for name in ("file", "file/a", "mine"):
        with pytest.raises(OSError, match=name.split("/")[0]):
            write(people, tmp_path / name, picture)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "mine"}
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_failure_leaves_the_earlier_folder_as_it_was(people, picture, tmp_path, monkeypatch):
    write(people[:1], tmp_path / "a", save=["params"])
    before = sorted(path.name for path in (tmp_path / "a").iterdir())
    monkeypatch.setattr(dpose.export, "scene", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(people, tmp_path / "a", save=["params", "mesh"])
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    monkeypatch.undo()
    write(people, tmp_path / "a", save=["params"])
    assert (tmp_path / "a" / "person-2.npz").exists()


def test_nobody_an_unknown_kind_and_a_missing_picture_are_refused(people, tmp_path):
    with pytest.raises(ValueError, match="nobody"):
        write([], tmp_path / "a")
    with pytest.raises(ValueError, match="'video'"):
        write(people, tmp_path / "a", save=["video"])
    with pytest.raises(ValueError, match="picture"):
        write(people, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
